//! Callbacks on metadata. What is new is not sent: vfsxd reads it.

use super::call::{CResult, around};
use super::samba::{File, place};
use crate::hooks::Outcome;
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

/// # Safety
/// smbd's arguments, used within the callback.
unsafe fn touching<R: CResult>(handle: Handle, fsp: Fsp, changed: Changed, next: impl FnOnce() -> R) -> R {
    // SAFETY: the caller's promise.
    let file = unsafe { File::new(fsp) }.with_metadata();
    // SAFETY: the caller's promise.
    unsafe {
        around(
            handle,
            |_| (),
            next,
            |capture, (), result, errno| {
                if result.outcome(errno) != Outcome::Refused {
                    capture.touched(file.fd(), || file.path_hint(), changed);
                }
            },
        )
    }
}

pub(super) unsafe extern "C" fn fchmod(handle: Handle, fsp: Fsp, mode: libc::mode_t) -> c_int {
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        touching(handle, fsp, STAT, || {
            sys::smb_vfs_call_fchmod((*handle).next, fsp, mode)
        })
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
        touching(handle, fsp, STAT, || {
            sys::smb_vfs_call_fchown((*handle).next, fsp, uid, gid)
        })
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
        around(handle, before, next, |capture, place, _, _| {
            if let Ok(place) = place {
                capture.touched_name(&place, STAT);
            }
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
    unsafe { touching(handle, fsp, STAT, next) }
}

pub(super) unsafe extern "C" fn fset_dos_attributes(
    handle: Handle,
    fsp: Fsp,
    attributes: u32,
) -> sys::NTSTATUS {
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        touching(handle, fsp, XATTRS, || {
            sys::smb_vfs_call_fset_dos_attributes((*handle).next, fsp, attributes)
        })
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
        touching(handle, fsp, BOTH, || {
            sys::smb_vfs_call_fset_nt_acl((*handle).next, fsp, information, descriptor)
        })
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
        touching(handle, fsp, BOTH, || {
            sys::smb_vfs_call_sys_acl_set_fd((*handle).next, fsp, kind, acl)
        })
    }
}

pub(super) unsafe extern "C" fn sys_acl_delete_def_fd(handle: Handle, fsp: Fsp) -> c_int {
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        touching(handle, fsp, BOTH, || {
            sys::smb_vfs_call_sys_acl_delete_def_fd((*handle).next, fsp)
        })
    }
}

pub(super) unsafe extern "C" fn fremovexattr(handle: Handle, fsp: Fsp, name: *const c_char) -> c_int {
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        touching(handle, fsp, of_xattr(name), || {
            sys::smb_vfs_call_fremovexattr((*handle).next, fsp, name)
        })
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
        touching(handle, fsp, of_xattr(name), || {
            sys::smb_vfs_call_fsetxattr((*handle).next, fsp, name, value, size, flags)
        })
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
