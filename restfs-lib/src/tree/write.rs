//! The rows of one transaction.

/// Longest name of an attribute in bytes, as in the kernel.
pub const MAX_ATTRIBUTE_NAME: usize = 255;
/// Longest value of an attribute in bytes, as in the kernel.
pub const MAX_ATTRIBUTE: usize = 64 * 1024;
/// Longest target of a symbolic link in bytes, as in the kernel.
pub const MAX_SYMLINK: usize = 4095;
/// Largest object in bytes: offsets of files are signed.
pub const MAX_SIZE: u64 = i64::MAX as u64;

/// What becomes of a row's older revisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// They stay: every earlier point can be read.
    Keep,
    /// They go: only the head can be read.
    HeadOnly,
}
