//! Callbacks on content, and the state of a file that has been written.

use super::call::{CResult, Call, around};
use super::gate::{self, Refused, asked, asked_or};
use super::samba::File;
use crate::handler::Operation;
use crate::hooks::{Capture, Outcome, Span};
use crate::{os, sys};
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;
use std::ptr::NonNull;
use vfsx_proto::{Changed, NodeRef};

type Handle = *mut sys::vfs_handle_struct;
type Fsp = *mut sys::files_struct;

const STREAM: Changed = Changed {
    stat: false,
    xattrs: true,
};

/// What smbd keeps for us beside an open file, from the first write to the close. All zeroes at first.
#[repr(C)]
struct Extension {
    share: u64,
    /// By which vfsxd knows the file; 0 before the first write.
    handle: u64,
    /// The handler has let the file be written.
    may_write: bool,
}

/// Where a write goes.
#[derive(Clone)]
pub(super) struct Written {
    /// The handle by which vfsxd knows the file; `None` for a stream kept as an attribute.
    pub(super) handle: Option<u64>,
    /// A stream's content is metadata of the file it belongs to.
    pub(super) stream_of: Option<NodeRef>,
}

impl Written {
    pub(super) fn wrote(&self, capture: &mut Capture, span: Span) {
        if let Some(handle) = self.handle {
            capture.wrote(handle, span);
        }
        self.touched(capture);
    }

    /// Touches the file that a stream belongs to.
    pub(super) fn touched(&self, capture: &mut Capture) {
        if let Some(node) = self.stream_of {
            capture.touch(node, Vec::new(), STREAM);
        }
    }
}

/// Before a write: `Opened` is sent if this is the handle's first.
///
/// # Safety
/// smbd's arguments, within the callback.
pub(super) unsafe fn begin_write(capture: &mut Capture, share: u64, handle: Handle, fsp: Fsp) -> Written {
    // SAFETY: the caller's promise.
    let file = unsafe { File::new(fsp) };
    let stream_of = if file.is_stream() {
        capture.node_of(file.with_metadata().fd())
    } else {
        None
    };
    // SAFETY: the caller's promise.
    let known = unsafe { known_handle(handle, fsp) };
    let fd = file.fd();
    // A stream that is a file of its own (streams_depot) is known by its own identity and path.
    let hint = || match stream_of {
        None => file.path_hint(),
        Some(_) => os::path_of(fd).map_or_else(|_| Vec::new(), |path| file.share_path(&path)),
    };
    let written = capture.writing(known, fd, hint);
    if let Some(new) = written
        && known != Some(new)
    {
        // SAFETY: the caller's promise.
        unsafe {
            remember(handle, fsp, |extension| {
                (extension.share, extension.handle) = (share, new);
            });
        }
    }
    Written {
        handle: written,
        stream_of,
    }
}

/// # Safety
/// smbd's arguments, within the callback.
unsafe fn extension(handle: Handle, fsp: Fsp) -> Option<NonNull<Extension>> {
    // SAFETY: the caller's promise; only `remember` makes extensions for our handle.
    NonNull::new(unsafe { sys::vfs_fetch_fsp_extension(handle, fsp) }.cast())
}

/// The handle by which vfsxd knows the file, if it was written.
///
/// # Safety
/// smbd's arguments, within the callback.
pub(super) unsafe fn known_handle(handle: Handle, fsp: Fsp) -> Option<u64> {
    // SAFETY: the caller's promise; the extension, if any, is ours, and copied at once.
    unsafe { extension(handle, fsp).map(|e| e.as_ref().handle) }.filter(|handle| *handle != 0)
}

/// Without memory the next write is taken for a first one again, which does no harm.
///
/// # Safety
/// smbd's arguments, within the callback.
unsafe fn remember(handle: Handle, fsp: Fsp, set: impl FnOnce(&mut Extension)) {
    // SAFETY: the caller's promise. The memory is that of before, or new, as large as the type, aligned as pointers are, and
    // all zeroes, which is a value of the type.
    unsafe {
        let place = sys::vfs_add_fsp_extension_notype(handle, fsp, size_of::<Extension>(), Some(forget));
        if let Some(extension) = place.cast::<Extension>().as_mut() {
            set(extension);
        }
    }
}

/// smbd drops the file: a close that never came is noted now.
unsafe extern "C" fn forget(data: *mut c_void) {
    // SAFETY: the memory that `remember` has filled, valid until this returns.
    let Extension { share, handle, .. } = unsafe { data.cast::<Extension>().read() };
    if let Some(call) = Call::enter_key(share) {
        call.note(|capture| capture.closed(handle));
    }
}

/// Runs `go`, a write, unless the handler refuses it. Asked is about the first of an open file: it was also asked about the
/// open, and a question for each write would cost more than the write.
///
/// # Safety
/// smbd's arguments, within the callback.
pub(super) unsafe fn write_asked<R>(
    handle: Handle,
    fsp: Fsp,
    refuse: impl FnOnce(i32) -> R,
    go: impl FnOnce() -> R,
) -> R {
    // SAFETY: the caller's promise; the extension, if any, is ours, and read at once.
    let may_write = || unsafe { extension(handle, fsp).is_some_and(|e| e.as_ref().may_write) };
    if !gate::in_use() || may_write() {
        return go();
    }
    let told = Cell::new(false);
    let operation = || {
        told.set(true);
        // SAFETY: the caller's promise.
        unsafe { on("pwrite", fsp) }
    };
    let go = || {
        if told.get() {
            // SAFETY: the caller's promise.
            unsafe { remember(handle, fsp, |extension| extension.may_write = true) };
        }
        go()
    };
    // SAFETY: the caller's promise.
    unsafe { asked_or(handle, operation, refuse, go) }
}

/// Runs `next` as a write of `span`, which is asked with the file's descriptor before the call.
///
/// # Safety
/// smbd's arguments, within the callback.
unsafe fn writing<R: CResult>(
    handle: Handle,
    fsp: Fsp,
    span: impl FnOnce(RawFd) -> Span,
    next: impl FnOnce() -> R,
    after: impl FnOnce(&mut Capture, u64, Outcome),
) -> R {
    // SAFETY: the caller's promise.
    let share = unsafe { (*handle).data } as u64;
    // SAFETY: the caller's promise.
    let before = |capture: &mut Capture| unsafe {
        (
            begin_write(capture, share, handle, fsp),
            span(File::new(fsp).fd()),
        )
    };
    // SAFETY: the caller's promise.
    unsafe {
        around(handle, before, next, |capture, (written, span), result, errno| {
            written.wrote(capture, span);
            if let Some(handle) = written.handle {
                after(capture, handle, result.outcome(errno));
            }
        })
    }
}

pub(super) unsafe extern "C" fn pwrite(
    handle: Handle,
    fsp: Fsp,
    data: *const c_void,
    n: usize,
    offset: i64,
) -> isize {
    let span = Span::at(offset, n as u64);
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        let next = || sys::smb_vfs_call_pwrite((*handle).next, fsp, data, n, offset);
        let go = || writing(handle, fsp, |_| span, next, |_, _, _| ());
        write_asked(handle, fsp, Refused::refused, go)
    }
}

/// It takes the data from the client's socket, also when it fails or is refused; a failure may come after a part was written.
pub(super) unsafe extern "C" fn recvfile(
    handle: Handle,
    socket: c_int,
    fsp: Fsp,
    offset: i64,
    count: usize,
) -> isize {
    let span = Span::at(offset, count as u64);
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        let next = || sys::smb_vfs_call_recvfile((*handle).next, socket, fsp, offset, count);
        let go = || writing(handle, fsp, |_| span, next, |_, _, _| ());
        let refuse = |errno| {
            sys::drain_socket(socket, count);
            isize::refused(errno)
        };
        write_asked(handle, fsp, refuse, go)
    }
}

pub(super) unsafe extern "C" fn ftruncate(handle: Handle, fsp: Fsp, size: i64) -> c_int {
    let span = move |fd| match (size_of_file(fd), u64::try_from(size)) {
        (Some(old), Ok(new)) => Span::between(old, new),
        _ => Span::Whole,
    };
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        let next = || sys::smb_vfs_call_ftruncate((*handle).next, fsp, size);
        let operation = || on("ftruncate", fsp).number(size);
        asked(handle, operation, || writing(handle, fsp, span, next, resized))
    }
}

/// Growth, a hole, or space alone, which is no content.
pub(super) unsafe extern "C" fn fallocate(
    handle: Handle,
    fsp: Fsp,
    mode: u32,
    offset: i64,
    length: i64,
) -> c_int {
    let bytes = Span::at(offset, u64::try_from(length).unwrap_or(u64::MAX));
    let span = move |fd| match (mode, bytes, size_of_file(fd)) {
        (0, Span::Bytes(range), Some(old)) => Span::between(old, old.max(range.end)),
        (0, ..) => Span::Whole,
        (sys::vfs_fallocate_flags_VFS_FALLOCATE_FL_KEEP_SIZE, ..) => Span::at(0, 0),
        _ => bytes,
    };
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        let next = || sys::smb_vfs_call_fallocate((*handle).next, fsp, mode, offset, length);
        let operation = || on("fallocate", fsp).number(mode).number(offset).number(length);
        asked(handle, operation, || writing(handle, fsp, span, next, resized))
    }
}

/// # Safety
/// smbd's arguments, within the callback.
unsafe fn on(name: &'static str, fsp: Fsp) -> Operation {
    // SAFETY: the caller's promise.
    Operation::new(name).text(&unsafe { File::new(fsp) }.current_path())
}

fn size_of_file(fd: RawFd) -> Option<u64> {
    os::identify(fd).ok().map(|found| found.size)
}

/// Size, blocks or times changed, perhaps with no byte.
fn resized(capture: &mut Capture, handle: u64, outcome: Outcome) {
    if outcome != Outcome::Refused {
        capture.touched_file(handle);
    }
}

/// smbd also closes the descriptor of a file that it opens anew; a later write is then a first write again.
pub(super) unsafe extern "C" fn close(handle: Handle, fsp: Fsp) -> c_int {
    // SAFETY: smbd's arguments, passed on.
    let next = || unsafe { sys::smb_vfs_call_close((*handle).next, fsp) };
    // SAFETY: smbd's arguments.
    let result = match unsafe { known_handle(handle, fsp) } {
        // SAFETY: the handle is smbd's.
        Some(written) => unsafe { around(handle, |_| (), next, |capture, (), _, _| capture.closed(written)) },
        None if gate::in_use() => next(),
        None => return next(),
    };
    let errno = os::errno();
    // SAFETY: smbd's arguments. Calls `forget`, which finds the handle closed.
    unsafe { sys::vfs_remove_fsp_extension(handle, fsp) };
    os::set_errno(errno);
    result
}
