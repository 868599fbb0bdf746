//! The few system calls that the standard library lacks.

use std::ffi::{CStr, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;
use vfsx_proto::{NodeKind, NodeRef};

/// What `statx` says of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub node: NodeRef,
    pub kind: NodeKind,
    pub size: u64,
}

/// Identity by descriptor; works on `O_PATH` descriptors and on `AT_FDCWD`. Needs no permission on the object.
pub fn identify(fd: RawFd) -> io::Result<Found> {
    statx(fd, c"", libc::AT_EMPTY_PATH)
}

/// Identity by name relative to `dir`. A final symlink is the object itself unless `follow`.
pub fn identify_at(dir: RawFd, name: &CStr, follow: bool) -> io::Result<Found> {
    statx(dir, name, if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW })
}

fn statx(dir: RawFd, path: &CStr, flags: libc::c_int) -> io::Result<Found> {
    const MASK: u32 = libc::STATX_TYPE | libc::STATX_INO | libc::STATX_BTIME | libc::STATX_SIZE;
    Ok(found(&raw_statx(dir, path, flags, MASK)?))
}

/// All that `statx` says of an open object; works on `O_PATH` descriptors.
pub(crate) fn full_statx(fd: RawFd) -> io::Result<(Found, libc::statx)> {
    const MASK: u32 = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
    let stat = raw_statx(fd, c"", libc::AT_EMPTY_PATH, MASK)?;
    Ok((found(&stat), stat))
}

fn raw_statx(dir: RawFd, path: &CStr, flags: libc::c_int, mask: u32) -> io::Result<libc::statx> {
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `path` ends with NUL, `stat` is writable and of the type the call fills.
    let result = unsafe { libc::statx(dir, path.as_ptr(), flags, mask, stat.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeroes is a valid value, and the call succeeded.
    Ok(unsafe { stat.assume_init() })
}

fn found(stat: &libc::statx) -> Found {
    let has_birth = stat.stx_mask & libc::STATX_BTIME != 0;
    let birth = stat
        .stx_btime
        .tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(stat.stx_btime.tv_nsec.into());
    Found {
        node: NodeRef {
            dev: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
            ino: stat.stx_ino,
            btime_ns: if has_birth { birth } else { 0 },
        },
        kind: kind(u32::from(stat.stx_mode)),
        size: stat.stx_size,
    }
}

/// A reference to what the name leads to, which opens nothing: closing it gives up no lock of this process. A final symlink is
/// the object itself.
pub fn open_reference(dir: RawFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: `name` ends with NUL.
    let fd = unsafe { libc::openat(dir, name.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether writes through the descriptor go to the end of the file, wherever they are asked to go. So they are said to do where it
/// cannot be told.
pub fn appends(fd: RawFd) -> bool {
    // SAFETY: no pointers.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    flags < 0 || flags & libc::O_APPEND != 0
}

fn kind(mode: u32) -> NodeKind {
    match mode & libc::S_IFMT {
        libc::S_IFREG => NodeKind::File,
        libc::S_IFDIR => NodeKind::Directory,
        libc::S_IFLNK => NodeKind::Symlink,
        _ => NodeKind::Special,
    }
}

/// The path an open descriptor has now.
pub fn path_of(fd: RawFd) -> io::Result<Vec<u8>> {
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}"))?;
    Ok(link.as_os_str().as_bytes().to_vec())
}

/// The same for descriptors of things that have a name, and for `AT_FDCWD`. `None` when it cannot be told, as for a file
/// without a name any more.
pub fn current_path_of(fd: RawFd) -> Option<Vec<u8>> {
    /// The kernel puts it behind the last name.
    const NAMELESS: &[u8] = b" (deleted)";
    let path = match fd {
        libc::AT_FDCWD => std::fs::read_link("/proc/self/cwd")
            .ok()?
            .into_os_string()
            .into_vec(),
        _ => path_of(fd).ok()?,
    };
    (path.starts_with(b"/") && !path.ends_with(NAMELESS)).then_some(path)
}

/// Connects without ever waiting. A full backlog of the listener is an error like any other.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let (address, length) = address(path.as_os_str())?;
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_UNIX, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just made and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: `address` lives through the call and `length` lies within it.
    let result = unsafe { libc::connect(fd, (&raw const address).cast(), length) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

fn address(path: &OsStr) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    let bytes = path.as_bytes();
    // SAFETY: all zeroes is a valid address of this type.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    // One byte stays for the final NUL.
    if bytes.is_empty() || bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a path for a socket",
        ));
    }
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok((address, size_of::<libc::sockaddr_un>() as libc::socklen_t))
}

/// Sends what fits without waiting, and without a signal when the peer is gone.
pub fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the buffer is readable for its length.
    let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// The same, with a descriptor that goes along with the first byte.
pub fn send_with_descriptor(socket: &OwnedFd, bytes: &[u8], passed: &OwnedFd) -> io::Result<usize> {
    const LENGTH: u32 = size_of::<RawFd>() as u32;
    // SAFETY: both only compute sizes.
    let (space, length) = unsafe { (libc::CMSG_SPACE(LENGTH), libc::CMSG_LEN(LENGTH)) };
    // As large as needed on any platform, and aligned as the header is.
    let mut control = [0u64; 8];
    let mut data = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all zeroes is a valid message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = (space as usize).min(size_of_val(&control)) as _;
    // SAFETY: the first header lies in `control`, which has room for it and a descriptor; the message and all that it points to live
    // through the call, which only reads them.
    let sent = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = length as _;
        libc::CMSG_DATA(header)
            .cast::<RawFd>()
            .write_unaligned(passed.as_raw_fd());
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        libc::sendmsg(socket.as_raw_fd(), &raw const message, flags)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives what is there without waiting. 0 means the peer has closed.
pub fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is writable for its length.
    let received = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

/// Waits until the socket has something to read, or room when `for_room`, or the time is over.
pub fn wait(socket: &OwnedFd, for_room: bool, limit: Duration) {
    let events = if for_room {
        libc::POLLIN | libc::POLLOUT
    } else {
        libc::POLLIN
    };
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events,
        revents: 0,
    };
    // Rounded up: the last part of a millisecond would be spent in a loop.
    let limit = libc::c_int::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(libc::c_int::MAX);
    // SAFETY: one valid entry. An error or a signal is as good as the end of the wait: the caller looks again.
    unsafe { libc::poll(&mut poll, 1, limit) };
}

/// 16 random bytes. Never waits for the kernel's pool: a machine that runs smbd has long filled it.
pub fn random() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    // SAFETY: the buffer is writable for its length.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    match got {
        16 => Ok(bytes),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Of a file system, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Space {
    pub size: u64,
    /// For users other than root.
    pub free: u64,
}

/// Of the file system that the file is on.
pub fn space(file: &impl AsRawFd) -> io::Result<Space> {
    let mut stat = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `stat` is writable and of the type the call fills.
    if unsafe { libc::fstatvfs(file.as_raw_fd(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeroes is a valid value, and the call succeeded.
    let stat = unsafe { stat.assume_init() };
    Ok(Space {
        size: stat.f_blocks.saturating_mul(stat.f_frsize),
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

/// Threads that `work` starts take no signals: those are for smbd's own.
pub fn with_signals_blocked<T>(work: impl FnOnce() -> T) -> T {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both are writable; the first is filled before it is read, the second by the call. Cannot fail with these arguments.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let result = work();
    // SAFETY: filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    result
}

/// smbd's own thread, which alone may call it.
pub fn is_main_thread() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::gettid() == libc::getpid() }
}

pub fn effective_uid() -> u32 {
    // SAFETY: cannot fail.
    unsafe { libc::geteuid() }
}

/// Runs a function with root as this thread's effective user, and all else as it is: enough to read anything, in four system calls, where
/// Samba's change of user and groups takes some 25. Changes the thread alone, as Samba does. False: it was not run, since the
/// thread may not become root.
pub fn as_effective_root(work: impl FnOnce()) -> bool {
    let user = effective_uid();
    if user == 0 {
        work();
        return true;
    }
    if !set_effective_uid(0) {
        return false;
    }
    let back = Back(user);
    work();
    drop(back);
    true
}

/// Makes the thread its user's again, also when it panics.
struct Back(u32);

impl Drop for Back {
    fn drop(&mut self) {
        // One that stayed root would do for clients what they may not.
        if !set_effective_uid(self.0) || effective_uid() != self.0 {
            std::process::abort();
        }
    }
}

#[cfg(any(target_arch = "x86", target_arch = "arm"))]
const SETRESUID: libc::c_long = libc::SYS_setresuid32;
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
const SETRESUID: libc::c_long = libc::SYS_setresuid;

/// The C library's would change all threads.
fn set_effective_uid(user: u32) -> bool {
    const AS_IT_IS: libc::uid_t = libc::uid_t::MAX;
    // SAFETY: numbers only.
    unsafe { libc::syscall(SETRESUID, AS_IT_IS, user, AS_IT_IS) == 0 }
}

/// Nanoseconds since the epoch.
pub fn wall_clock() -> i64 {
    i64::try_from(clock_ns(libc::CLOCK_REALTIME)).unwrap_or(i64::MAX)
}

/// `CLOCK_MONOTONIC`, in nanoseconds.
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// std's clocks take twice as long to say the same, and each change asks for both.
fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is writable. The clock exists everywhere.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(nanos.unwrap_or(0))
}

/// The calling thread's errno. Callbacks keep it: smbd reads it after them.
pub fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

pub fn set_errno(value: i32) {
    // SAFETY: the location is valid for the calling thread.
    unsafe { *libc::__errno_location() = value };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    const SOMEBODY: u32 = 65_534;

    #[test]
    fn a_thread_is_root_for_a_function_and_its_user_again_behind_it_and_behind_its_panic() {
        assert_eq!(effective_uid(), 0, "run as root");
        let thread = std::thread::spawn(|| {
            assert!(as_effective_root(|| assert_eq!(effective_uid(), 0)), "as root");
            assert!(set_effective_uid(SOMEBODY));
            let mut seen = None;
            assert!(as_effective_root(|| seen = Some(effective_uid())));
            assert_eq!((seen, effective_uid()), (Some(0), SOMEBODY));
            let panics = || as_effective_root(|| panic!("within it"));
            assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
            assert_eq!(effective_uid(), SOMEBODY);
        });
        thread.join().expect("as said");
        assert_eq!(effective_uid(), 0, "other threads are what they were");
    }

    #[test]
    fn a_thread_that_may_not_become_root_runs_nothing() {
        let thread = std::thread::spawn(|| {
            // Its real and saved user, too.
            // SAFETY: numbers only.
            let result = unsafe { libc::syscall(SETRESUID, SOMEBODY, SOMEBODY, SOMEBODY) };
            assert_eq!(result, 0, "run as root");
            assert!(!as_effective_root(|| panic!("was run")));
            assert_eq!(effective_uid(), SOMEBODY);
        });
        thread.join().expect("as said");
    }
}
