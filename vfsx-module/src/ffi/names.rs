//! Callbacks on names.

use super::call::{CResult, around, as_one};
use super::descriptors;
use super::gate::{self, asked};
use super::metadata::touched;
use super::samba::{File, current_path, name, names_stream, place};
use crate::handler::Operation;
use crate::hooks::{Change, Name, Outcome, Place};
use crate::sys;
use std::ffi::c_int;
use std::io;
use vfsx_proto::Changed;

type Handle = *mut sys::vfs_handle_struct;
type Fsp = *mut sys::files_struct;
type SmbName = *const sys::smb_filename;

/// A stream is an attribute of the file it belongs to.
const STREAM: Changed = Changed {
    stat: false,
    xattrs: true,
};

/// What a call names: an entry of a directory, or a stream of that entry.
enum Target {
    Entry(Name),
    Stream(Place),
}

/// # Safety
/// smbd's arguments, used within the callback. `how` is how an entry is looked at.
unsafe fn target(
    handle: Handle,
    dir: *const sys::files_struct,
    path: SmbName,
    how: impl FnOnce(Place) -> Name,
) -> io::Result<Target> {
    // SAFETY: the caller's promise.
    unsafe {
        let place = place(handle, dir, path)?;
        Ok(if names_stream(path) {
            Target::Stream(place)
        } else {
            Target::Entry(how(place))
        })
    }
}

/// Dispositions that empty a file that is there: supersede, overwrite, overwrite or create.
const EMPTYING: [u32; 3] = [0, 4, 5];
/// Flags of an open that a handler is told.
const TOLD_FLAGS: c_int = libc::O_ACCMODE | libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_APPEND;

/// Notes nothing by itself: it only holds together what the calls inside note of metadata, several of which touch the same
/// file, and what is asked about them.
pub(super) unsafe extern "C" fn create_file(
    handle: Handle,
    request: *mut sys::smb_request,
    dir: Fsp,
    path: *mut sys::smb_filename,
    access: u32,
    share_access: u32,
    disposition: u32,
    options: u32,
    attributes: u32,
    oplock: u32,
    lease: *const sys::smb2_lease,
    allocation: u64,
    private_flags: u32,
    descriptor: *mut sys::security_descriptor,
    extended: *mut sys::ea_list,
    result: *mut Fsp,
    info: *mut c_int,
    blobs_in: *const sys::smb2_create_blobs,
    blobs_out: *mut sys::smb2_create_blobs,
) -> sys::NTSTATUS {
    // SAFETY: smbd's arguments, passed on.
    let next = || unsafe {
        sys::smb_vfs_call_create_file(
            (*handle).next,
            request,
            dir,
            path,
            access,
            share_access,
            disposition,
            options,
            attributes,
            oplock,
            lease,
            allocation,
            private_flags,
            descriptor,
            extended,
            result,
            info,
            blobs_in,
            blobs_out,
        )
    };
    // SAFETY: the handle is smbd's.
    unsafe { gate::grouped(handle, EMPTYING.contains(&disposition), || as_one(handle, next)) }
}

/// Most calls are path walks, and listings open every entry: only those that may create or truncate are looked at. smbd opens
/// what it has a path reference to as `/proc/self/fd/N`, which creates nothing whatever the flags.
pub(super) unsafe extern "C" fn openat(
    handle: Handle,
    dir: *const sys::files_struct,
    path: SmbName,
    fsp: Fsp,
    how: *const sys::vfs_open_how,
) -> c_int {
    // SAFETY: smbd's arguments, passed on.
    let next = || unsafe {
        let fd = sys::smb_vfs_call_openat((*handle).next, dir, path, fsp, how);
        // Nothing in it changes errno.
        descriptors::forget(fd);
        fd
    };
    // SAFETY: `how` is valid for the callback.
    let flags = unsafe { (*how).flags };
    let go = || {
        if flags & (libc::O_CREAT | libc::O_TRUNC) == 0 {
            return next();
        }
        // SAFETY: smbd's arguments, passed on.
        unsafe { opening(handle, dir, path, fsp, flags, next) }
    };
    if flags & (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC) == 0 || !gate::in_use() {
        return go();
    }
    // SAFETY: smbd's arguments, within the callback.
    unsafe {
        let operation = || {
            let emptying = if gate::truncates(handle) { libc::O_TRUNC } else { 0 };
            Operation::new("open")
                .text(&opened_path(handle, dir, path, fsp))
                .number((flags | emptying) & TOLD_FLAGS)
                .number((*how).mode)
        };
        asked(handle, operation, go)
    }
}

/// smbd also opens by descriptor: then the name is that of the file.
///
/// # Safety
/// smbd's arguments, within the callback.
unsafe fn opened_path(handle: Handle, dir: *const sys::files_struct, path: SmbName, fsp: Fsp) -> Vec<u8> {
    // SAFETY: the caller's promise.
    unsafe {
        let by_descriptor = place(handle, dir, path).is_ok_and(|place| place.is_descriptor());
        if by_descriptor || names_stream(path) {
            File::new(fsp).current_path()
        } else {
            current_path(handle, dir, path)
        }
    }
}

/// An open that may create or truncate.
///
/// # Safety
/// smbd's arguments, within the callback.
unsafe fn opening(
    handle: Handle,
    dir: *const sys::files_struct,
    path: SmbName,
    fsp: Fsp,
    flags: c_int,
    next: impl FnOnce() -> c_int,
) -> c_int {
    // SAFETY: smbd's arguments, within the callback.
    let (file, is_stream) = unsafe { (File::new(fsp), names_stream(path)) };
    // SAFETY: as above.
    let before = |_: &mut _| unsafe { target(handle, dir, path, Name::of) };
    // SAFETY: the handle is smbd's.
    unsafe {
        around(
            handle,
            Change::Tree,
            before,
            next,
            |capture, before, fd, errno| {
                if is_stream {
                    let file = file.with_metadata();
                    if *fd >= 0 {
                        touched(capture, file, STREAM);
                    }
                    return;
                }
                let Ok(Target::Entry(name)) = before else { return };
                if flags & libc::O_CREAT != 0
                    && !name.is_descriptor()
                    && let Some(node) = capture.opened_creating(name, *fd, errno)
                {
                    descriptors::note(*fd, node);
                }
                if flags & libc::O_TRUNC != 0 && *fd >= 0 {
                    capture.truncated_at_open(*fd, file.path_hint());
                }
            },
        )
    }
}

/// Common part of the calls that make a new name.
///
/// # Safety
/// smbd's arguments, used within the callback.
unsafe fn creating<R: CResult>(
    handle: Handle,
    dir: *const sys::files_struct,
    path: SmbName,
    next: impl FnOnce() -> R,
) -> R {
    // SAFETY: the caller's promise.
    let before = |_: &mut _| unsafe { target(handle, dir, path, Name::of) };
    // SAFETY: the caller's promise.
    unsafe {
        around(
            handle,
            Change::Tree,
            before,
            next,
            |capture, before, result, errno| {
                if let Ok(Target::Entry(name)) = before {
                    capture.created(name, result.outcome(errno));
                }
            },
        )
    }
}

pub(super) unsafe extern "C" fn mkdirat(
    handle: Handle,
    dir: Fsp,
    path: SmbName,
    mode: libc::mode_t,
) -> c_int {
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        let operation = || {
            Operation::new("mkdir")
                .text(&current_path(handle, dir, path))
                .number(mode)
        };
        asked(handle, operation, || {
            creating(handle, dir, path, || {
                sys::smb_vfs_call_mkdirat((*handle).next, dir, path, mode)
            })
        })
    }
}

pub(super) unsafe extern "C" fn symlinkat(
    handle: Handle,
    contents: SmbName,
    dir: Fsp,
    path: SmbName,
) -> c_int {
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        let operation = || {
            Operation::new("symlink")
                .text(&current_path(handle, dir, path))
                .text(name(contents))
        };
        asked(handle, operation, || {
            creating(handle, dir, path, || {
                sys::smb_vfs_call_symlinkat((*handle).next, contents, dir, path)
            })
        })
    }
}

pub(super) unsafe extern "C" fn mknodat(
    handle: Handle,
    dir: Fsp,
    path: SmbName,
    mode: libc::mode_t,
    device: sys::dev_t,
) -> c_int {
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        let operation = || {
            Operation::new("mknod")
                .text(&current_path(handle, dir, path))
                .number(mode)
                .number(device)
        };
        asked(handle, operation, || {
            creating(handle, dir, path, || {
                sys::smb_vfs_call_mknodat((*handle).next, dir, path, mode, device)
            })
        })
    }
}

pub(super) unsafe extern "C" fn create_dfs_pathat(
    handle: Handle,
    dir: Fsp,
    path: SmbName,
    referrals: *const sys::referral,
    count: usize,
) -> sys::NTSTATUS {
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        let operation = || Operation::new("create_dfs_path").text(&current_path(handle, dir, path));
        asked(handle, operation, || {
            creating(handle, dir, path, || {
                sys::smb_vfs_call_create_dfs_pathat((*handle).next, dir, path, referrals, count)
            })
        })
    }
}

pub(super) unsafe extern "C" fn linkat(
    handle: Handle,
    old_dir: Fsp,
    old_path: SmbName,
    dir: Fsp,
    path: SmbName,
    flags: c_int,
) -> c_int {
    // SAFETY: smbd's arguments, within the callback.
    let before = |_: &mut _| unsafe {
        let source = place(handle, old_dir, old_path)
            .and_then(|place| place.find())
            .ok();
        (source, target(handle, dir, path, Name::of))
    };
    // SAFETY: smbd's arguments, passed on.
    let next = || unsafe { sys::smb_vfs_call_linkat((*handle).next, old_dir, old_path, dir, path, flags) };
    // SAFETY: the handle is smbd's.
    unsafe {
        let operation = || {
            Operation::new("link")
                .text(&current_path(handle, old_dir, old_path))
                .text(&current_path(handle, dir, path))
        };
        asked(handle, operation, || {
            around(
                handle,
                Change::Tree,
                before,
                next,
                |capture, (source, target), result, errno| {
                    if let Ok(Target::Entry(name)) = target {
                        capture.linked(source, name, result.outcome(errno));
                    }
                },
            )
        })
    }
}

pub(super) unsafe extern "C" fn unlinkat(handle: Handle, dir: Fsp, path: SmbName, flags: c_int) -> c_int {
    // SAFETY: smbd's arguments, within the callback.
    let before = |_: &mut _| unsafe { target(handle, dir, path, Name::look) };
    // SAFETY: smbd's arguments, passed on.
    let next = || unsafe { sys::smb_vfs_call_unlinkat((*handle).next, dir, path, flags) };
    // SAFETY: the handle is smbd's.
    unsafe {
        let operation = || {
            let name = if flags & libc::AT_REMOVEDIR == 0 {
                "unlink"
            } else {
                "rmdir"
            };
            Operation::new(name).text(&current_path(handle, dir, path))
        };
        asked(handle, operation, || {
            around(
                handle,
                Change::Tree,
                before,
                next,
                |capture, before, result, errno| match before {
                    Ok(Target::Entry(name)) => capture.unlinked(name, result.outcome(errno)),
                    Ok(Target::Stream(place)) => capture.touched_name(&place, STREAM),
                    Err(_) => {}
                },
            )
        })
    }
}

/// A replaced target gets no unlink of its own.
pub(super) unsafe extern "C" fn renameat(
    handle: Handle,
    from_dir: Fsp,
    from: SmbName,
    to_dir: Fsp,
    to: SmbName,
) -> c_int {
    // SAFETY: smbd's arguments, within the callback.
    let before = |_: &mut _| unsafe {
        let from = target(handle, from_dir, from, Name::look);
        let to = match &from {
            Ok(Target::Entry(beside)) => target(handle, to_dir, to, |to| Name::look_beside(to, beside)),
            _ => target(handle, to_dir, to, Name::look),
        };
        (from, to)
    };
    // SAFETY: smbd's arguments, passed on.
    let next = || unsafe { sys::smb_vfs_call_renameat((*handle).next, from_dir, from, to_dir, to) };
    // SAFETY: the handle is smbd's.
    unsafe {
        let operation = || {
            Operation::new("rename")
                .text(&current_path(handle, from_dir, from))
                .text(&current_path(handle, to_dir, to))
        };
        asked(handle, operation, || {
            around(
                handle,
                Change::Tree,
                before,
                next,
                |capture, before, result, errno| match before {
                    (Ok(Target::Entry(from)), Ok(Target::Entry(to))) => {
                        capture.renamed(from, to, result.outcome(errno))
                    }
                    // Streams are renamed within their file. A stream made a file's main content: both.
                    (from, to) => {
                        for target in [from, to].into_iter().flatten() {
                            match target {
                                Target::Stream(place) => capture.touched_name(&place, STREAM),
                                Target::Entry(name) => capture.created(name, Outcome::Unknown),
                            }
                        }
                    }
                },
            )
        })
    }
}
