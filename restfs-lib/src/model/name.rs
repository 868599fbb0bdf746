//! Names of directory entries.

/// Longest name of a directory entry in bytes, as in the kernel.
pub const MAX_NAME: usize = 255;

/// A name that a directory entry may have: 1 to 255 bytes without `/` and NUL, neither `.` nor `..`.
pub fn valid_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_directory_are_refused() {
        for bad in [&b""[..], b".", b"..", b"/", b"a/b", b"../x", b"a\0", &[b'n'; 256]] {
            assert!(!valid_name(bad), "{bad:?}");
        }
        for good in [&b"a"[..], b"...", b".hidden", b"\xff\x01", b" ", &[b'n'; 255]] {
            assert!(valid_name(good), "{good:?}");
        }
    }
}
