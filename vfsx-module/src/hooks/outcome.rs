//! What a call's result says about the disk.

/// How a call ended, as far as the disk is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Nothing was changed.
    Refused,
    /// It failed, and may have changed something before that.
    Unknown,
}

/// Failures that come before anything is changed, whatever the modules below do.
const REFUSALS: &[i32] = &[
    libc::EACCES,
    libc::EPERM,
    libc::ENOENT,
    libc::ENOTDIR,
    libc::EISDIR,
    libc::EEXIST,
    libc::ENOTEMPTY,
    libc::EROFS,
    libc::ELOOP,
    libc::ENAMETOOLONG,
    libc::EBADF,
    libc::ENOSYS,
    libc::EOPNOTSUPP,
];

impl Outcome {
    /// From a C result where negative means failure, and errno right after the call.
    pub fn of(result: i64, errno: i32) -> Self {
        match result {
            0.. => Outcome::Done,
            _ if REFUSALS.contains(&errno) => Outcome::Refused,
            _ => Outcome::Unknown,
        }
    }
}
