//! Callbacks on metadata. What is new is not sent: vfsxd reads it.

use super::call::{CResult, around};
use super::descriptors;
use super::gate::{Refused, asked};
use super::samba::{File, bytes, current_path, place};
use crate::handler::Operation;
use crate::hooks::{Capture, Change, Outcome};
use crate::sys;
use std::ffi::{CStr, c_char, c_int, c_void};
use vfsx_proto::Changed;

type Handle = *mut sys::vfs_handle_struct;
type Fsp = *mut sys::files_struct;

const STAT: Changed = Changed {
    stat: true,
    xattrs: false,
};
const XATTRS: Changed = Changed {
    stat: false,
    xattrs: true,
};
/// ACLs are attributes on disk and change the mode.
const BOTH: Changed = Changed {
    stat: true,
    xattrs: true,
};

fn on(name: &'static str, path: &[u8]) -> Operation {
    Operation::new(name).text(path)
}

/// Metadata of an open file changed.
pub(super) fn touched(capture: &mut Capture, file: File, changed: Changed) {
    let fd = file.fd();
    if let Some(node) = capture.touched(fd, file.known_node(), || file.path_hint(), changed) {
        descriptors::note(fd, node);
    }
}

/// # Safety
/// smbd's arguments, used within the callback.
unsafe fn touching<R: CResult + Refused>(
    handle: Handle,
    fsp: Fsp,
    changed: Changed,
    operation: impl FnOnce(&[u8]) -> Operation,
    next: impl FnOnce() -> R,
) -> R {
    // SAFETY: the caller's promise.
    let given = unsafe { File::new(fsp) };
    let file = given.with_metadata();
    let operation = || operation(&given.current_path());
    // SAFETY: the caller's promise.
    unsafe {
        asked(handle, operation, || {
            around(
                handle,
                Change::Tree,
                |_| (),
                next,
                |capture, (), result, errno| {
                    if result.outcome(errno) != Outcome::Refused {
                        touched(capture, file, changed);
                    }
                },
            )
        })
    }
}

pub(super) unsafe extern "C" fn fchmod(handle: Handle, fsp: Fsp, mode: libc::mode_t) -> c_int {
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        touching(
            handle,
            fsp,
            STAT,
            |path| on("chmod", path).number(mode),
            || sys::smb_vfs_call_fchmod((*handle).next, fsp, mode),
        )
    }
}

pub(super) unsafe extern "C" fn fchown(
    handle: Handle,
    fsp: Fsp,
    uid: libc::uid_t,
    gid: libc::gid_t,
) -> c_int {
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        touching(
            handle,
            fsp,
            STAT,
            |path| on("chown", path).number(uid).number(gid),
            || sys::smb_vfs_call_fchown((*handle).next, fsp, uid, gid),
        )
    }
}

pub(super) unsafe extern "C" fn lchown(
    handle: Handle,
    path: *const sys::smb_filename,
    uid: libc::uid_t,
    gid: libc::gid_t,
) -> c_int {
    // SAFETY: smbd's arguments, within the callback. The path is relative to the working directory.
    let before = |_: &mut _| unsafe { place(handle, std::ptr::null(), path) };
    // SAFETY: smbd's arguments, passed on.
    let next = || unsafe { sys::smb_vfs_call_lchown((*handle).next, path, uid, gid) };
    // SAFETY: the handle is smbd's.
    unsafe {
        let operation = || {
            on("chown", &current_path(handle, std::ptr::null(), path))
                .number(uid)
                .number(gid)
        };
        asked(handle, operation, || {
            around(handle, Change::Tree, before, next, |capture, place, _, _| {
                if let Ok(place) = place {
                    capture.touched_name(&place, STAT);
                }
            })
        })
    }
}

pub(super) unsafe extern "C" fn fntimes(handle: Handle, fsp: Fsp, times: *mut sys::smb_file_time) -> c_int {
    // SAFETY: smbd's arguments, passed on.
    let next = || unsafe { sys::smb_vfs_call_fntimes((*handle).next, fsp, times) };
    // SAFETY: valid for the callback; looked at before, since modules below change it.
    if unsafe { sys::vfsx_shim_times_are_all_omitted(times) } {
        return next();
    }
    // SAFETY: smbd's arguments.
    unsafe { touching(handle, fsp, STAT, |path| on("utimes", path), next) }
}

pub(super) unsafe extern "C" fn fset_dos_attributes(
    handle: Handle,
    fsp: Fsp,
    attributes: u32,
) -> sys::NTSTATUS {
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        touching(
            handle,
            fsp,
            XATTRS,
            |path| on("set_dos_attributes", path).number(attributes),
            || sys::smb_vfs_call_fset_dos_attributes((*handle).next, fsp, attributes),
        )
    }
}

pub(super) unsafe extern "C" fn fset_nt_acl(
    handle: Handle,
    fsp: Fsp,
    information: u32,
    descriptor: *const sys::security_descriptor,
) -> sys::NTSTATUS {
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        touching(
            handle,
            fsp,
            BOTH,
            |path| on("set_nt_acl", path).number(information),
            || sys::smb_vfs_call_fset_nt_acl((*handle).next, fsp, information, descriptor),
        )
    }
}

pub(super) unsafe extern "C" fn sys_acl_set_fd(
    handle: Handle,
    fsp: Fsp,
    kind: sys::SMB_ACL_TYPE_T,
    acl: sys::SMB_ACL_T,
) -> c_int {
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        touching(
            handle,
            fsp,
            BOTH,
            |path| on("set_acl", path).number(kind),
            || sys::smb_vfs_call_sys_acl_set_fd((*handle).next, fsp, kind, acl),
        )
    }
}

pub(super) unsafe extern "C" fn sys_acl_delete_def_fd(handle: Handle, fsp: Fsp) -> c_int {
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        touching(
            handle,
            fsp,
            BOTH,
            |path| on("delete_default_acl", path),
            || sys::smb_vfs_call_sys_acl_delete_def_fd((*handle).next, fsp),
        )
    }
}

pub(super) unsafe extern "C" fn fremovexattr(handle: Handle, fsp: Fsp, name: *const c_char) -> c_int {
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        touching(
            handle,
            fsp,
            of_xattr(name),
            |path| on("removexattr", path).text(bytes(name)),
            || sys::smb_vfs_call_fremovexattr((*handle).next, fsp, name),
        )
    }
}

pub(super) unsafe extern "C" fn fsetxattr(
    handle: Handle,
    fsp: Fsp,
    name: *const c_char,
    value: *const c_void,
    size: usize,
    flags: c_int,
) -> c_int {
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        touching(
            handle,
            fsp,
            of_xattr(name),
            |path| on("setxattr", path).text(bytes(name)),
            || sys::smb_vfs_call_fsetxattr((*handle).next, fsp, name, value, size, flags),
        )
    }
}

/// An ACL set as an attribute changes the mode.
///
/// # Safety
/// `name` ends with NUL.
unsafe fn of_xattr(name: *const c_char) -> Changed {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    if name.starts_with(b"system.") {
        BOTH
    } else {
        XATTRS
    }
}
