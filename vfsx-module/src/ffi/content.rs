//! Callbacks on content, and the state of a file that has been written.

use super::call::{CResult, Call, around};
use super::descriptors;
use super::gate::{self, Refused, asked, asked_or};
use super::samba::File;
use crate::handler::Operation;
use crate::hooks::{At, Capture, Change, Descriptor, Going, Outcome, Planned, Span};
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
    /// `None` for a stream kept as an attribute.
    pub(super) going: Option<Going>,
    /// A stream's content is metadata of the file it belongs to, which smbd has open by this descriptor.
    stream_of: Option<(NodeRef, RawFd)>,
}

impl Written {
    /// Touches the file that a stream belongs to.
    pub(super) fn touched(&self, capture: &mut Capture) {
        if let Some((node, fd)) = self.stream_of {
            capture.touch(node, At::Descriptor(fd), Vec::new, STREAM);
        }
    }
}

/// Bytes that smbd wants written.
///
/// # Safety
/// `data` has `n` readable bytes as long as the result is used.
pub(super) unsafe fn bytes<'a>(data: *const c_void, n: usize) -> Option<&'a [u8]> {
    let possible = !data.is_null() && isize::try_from(n).is_ok();
    // SAFETY: the caller's promise.
    possible.then(|| unsafe { std::slice::from_raw_parts(data.cast(), n) })
}

/// Before a write: what vfsxd wants to know of it is sent. `planned`: `None` for what it hears of afterwards.
///
/// # Safety
/// smbd's arguments, within the callback.
pub(super) unsafe fn begin_write(
    capture: &mut Capture,
    share: u64,
    handle: Handle,
    fsp: Fsp,
    planned: Option<Planned<'_>>,
) -> Written {
    // SAFETY: the caller's promise.
    let file = unsafe { File::new(fsp) };
    let stream_of = if file.is_stream() {
        capture.about_to_change(Change::Tree);
        let base = file.with_metadata().fd();
        capture.node_of(base).map(|node| (node, base))
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
    let descriptor = Descriptor {
        fd,
        file: match known {
            Some(_) => None,
            None => file.known_node(),
        },
    };
    let going = match planned {
        Some(planned) => capture.begin_write(known, descriptor, hint, planned),
        None => capture.writing(known, descriptor, hint).map(Going::untracked),
    };
    if let Some(Going { handle: new, .. }) = going
        && known != Some(new)
    {
        // SAFETY: the caller's promise.
        unsafe {
            remember(handle, fsp, |extension| {
                (extension.share, extension.handle) = (share, new);
            });
        }
    }
    Written { going, stream_of }
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

/// Runs `next` as a write.
///
/// # Safety
/// smbd's arguments, within the callback.
unsafe fn writing(handle: Handle, fsp: Fsp, planned: Planned<'_>, next: impl FnOnce() -> isize) -> isize {
    // SAFETY: the caller's promise.
    let share = unsafe { (*handle).data } as u64;
    // SAFETY: the caller's promise.
    let before = |capture: &mut Capture| unsafe { begin_write(capture, share, handle, fsp, Some(planned)) };
    // SAFETY: the caller's promise.
    unsafe {
        around(
            handle,
            Change::Content,
            before,
            next,
            |capture, written, result, _| {
                if let Some(going) = written.going {
                    let complete = planned
                        .data
                        .is_some_and(|data| isize::try_from(data.len()) == Ok(*result));
                    capture.wrote(going, planned.span, complete);
                }
                written.touched(capture);
            },
        )
    }
}

/// Runs `next` as a change of a file that is no write. `after` is given the file's handle, and its size before.
///
/// # Safety
/// smbd's arguments, within the callback.
unsafe fn changing(
    handle: Handle,
    fsp: Fsp,
    next: impl FnOnce() -> c_int,
    after: impl FnOnce(&mut Capture, u64, Option<u64>, Outcome),
) -> c_int {
    // SAFETY: the caller's promise.
    let (share, fd) = unsafe { ((*handle).data as u64, File::new(fsp).fd()) };
    // SAFETY: the caller's promise.
    let before =
        |capture: &mut Capture| unsafe { (begin_write(capture, share, handle, fsp, None), size_of_file(fd)) };
    // SAFETY: the caller's promise.
    unsafe {
        around(
            handle,
            Change::Content,
            before,
            next,
            |capture, (written, size), result, errno| {
                written.touched(capture);
                let Some(Going { handle, .. }) = written.going else {
                    return;
                };
                let outcome = result.outcome(errno);
                after(capture, handle, size, outcome);
                // Size, blocks or times changed, perhaps with no byte.
                if outcome != Outcome::Refused {
                    capture.touched_file(handle, fd);
                }
            },
        )
    }
}

pub(super) unsafe extern "C" fn pwrite(
    handle: Handle,
    fsp: Fsp,
    data: *const c_void,
    n: usize,
    offset: i64,
) -> isize {
    // SAFETY: smbd's arguments, passed on; the data stays until the call returns.
    unsafe {
        let planned = Planned {
            span: Span::at(offset, n as u64),
            data: bytes(data, n),
        };
        let next = || sys::smb_vfs_call_pwrite((*handle).next, fsp, data, n, offset);
        let go = || writing(handle, fsp, planned, next);
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
    let planned = Planned {
        span: Span::at(offset, count as u64),
        data: None,
    };
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        let next = || sys::smb_vfs_call_recvfile((*handle).next, socket, fsp, offset, count);
        let go = || writing(handle, fsp, planned, next);
        let refuse = |errno| {
            sys::drain_socket(socket, count);
            isize::refused(errno)
        };
        write_asked(handle, fsp, refuse, go)
    }
}

pub(super) unsafe extern "C" fn ftruncate(handle: Handle, fsp: Fsp, size: i64) -> c_int {
    let after = move |capture: &mut Capture, handle, old: Option<u64>, outcome| {
        let span = match (old, u64::try_from(size)) {
            (Some(old), Ok(new)) => Span::between(old, new),
            _ => Span::Whole,
        };
        match (outcome, u64::try_from(size)) {
            (Outcome::Done, Ok(size)) => capture.resized(handle, size, span),
            _ => capture.changed(handle, span),
        }
    };
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        let next = || sys::smb_vfs_call_ftruncate((*handle).next, fsp, size);
        let operation = || on("ftruncate", fsp).number(size);
        asked(handle, operation, || changing(handle, fsp, next, after))
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
    let after = move |capture: &mut Capture, handle, size: Option<u64>, outcome| match (mode, bytes, size) {
        (0, Span::Bytes(range), Some(old)) => {
            let new = old.max(range.end);
            match outcome {
                Outcome::Done if new > old => capture.resized(handle, new, Span::between(old, new)),
                Outcome::Done => {}
                _ => capture.changed(handle, Span::between(old, new)),
            }
        }
        (0, ..) => capture.changed(handle, Span::Whole),
        (sys::vfs_fallocate_flags_VFS_FALLOCATE_FL_KEEP_SIZE, ..) => {}
        _ => capture.changed(handle, bytes),
    };
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        let next = || sys::smb_vfs_call_fallocate((*handle).next, fsp, mode, offset, length);
        let operation = || on("fallocate", fsp).number(mode).number(offset).number(length);
        asked(handle, operation, || changing(handle, fsp, next, after))
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

/// smbd also closes the descriptor of a file that it opens anew; a later write is then a first write again.
pub(super) unsafe extern "C" fn close(handle: Handle, fsp: Fsp) -> c_int {
    // SAFETY: smbd's arguments, passed on.
    let next = || unsafe {
        // By the time that it is closed, it may be another's.
        descriptors::forget(File::new(fsp).fd());
        sys::smb_vfs_call_close((*handle).next, fsp)
    };
    // SAFETY: smbd's arguments.
    let result = match unsafe { known_handle(handle, fsp) } {
        // SAFETY: the handle is smbd's.
        Some(written) => unsafe {
            around(
                handle,
                Change::Content,
                |_| (),
                next,
                |capture, (), _, _| capture.closed(written),
            )
        },
        None if gate::in_use() => next(),
        None => return next(),
    };
    let errno = os::errno();
    // SAFETY: smbd's arguments. Calls `forget`, which finds the handle closed.
    unsafe { sys::vfs_remove_fsp_extension(handle, fsp) };
    os::set_errno(errno);
    result
}
