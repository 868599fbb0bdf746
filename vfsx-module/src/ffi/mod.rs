//! The callbacks that smbd calls: each converts its arguments, calls the next module, and tells the hooks.
//!
//! Results and errno of the next module go back untouched. All callbacks run on smbd's main thread.

mod call;
mod content;
mod descriptors;
mod event_loop;
mod gate;
mod host;
mod metadata;
mod names;
mod pairs;
mod samba;
mod shares;
mod tree;
mod waits;

use crate::sys;

/// A callback that is not set is smbd's way past this module: reading, locking, listing cost nothing.
// SAFETY: all fields are optional function pointers, for which all zeroes is `None`.
const NOT_HOOKED: sys::vfs_fn_pointers = unsafe { std::mem::zeroed() };

static CALLBACKS: sys::vfs_fn_pointers = sys::vfs_fn_pointers {
    connect_fn: Some(tree::connect),
    disconnect_fn: Some(tree::disconnect),
    create_file_fn: Some(names::create_file),
    create_dfs_pathat_fn: Some(names::create_dfs_pathat),
    mkdirat_fn: Some(names::mkdirat),
    openat_fn: Some(names::openat),
    renameat_fn: Some(names::renameat),
    unlinkat_fn: Some(names::unlinkat),
    symlinkat_fn: Some(names::symlinkat),
    linkat_fn: Some(names::linkat),
    mknodat_fn: Some(names::mknodat),
    close_fn: Some(waits::close),
    pwrite_fn: Some(content::pwrite),
    recvfile_fn: Some(content::recvfile),
    ftruncate_fn: Some(content::ftruncate),
    fallocate_fn: Some(content::fallocate),
    pwrite_send_fn: Some(pairs::pwrite_send),
    pwrite_recv_fn: Some(pairs::pwrite_recv),
    fsync_send_fn: Some(pairs::fsync_send),
    fsync_recv_fn: Some(pairs::fsync_recv),
    offload_write_send_fn: Some(pairs::offload_write_send),
    offload_write_recv_fn: Some(pairs::offload_write_recv),
    fchmod_fn: Some(metadata::fchmod),
    fchown_fn: Some(metadata::fchown),
    lchown_fn: Some(metadata::lchown),
    fntimes_fn: Some(metadata::fntimes),
    fset_dos_attributes_fn: Some(metadata::fset_dos_attributes),
    fset_nt_acl_fn: Some(metadata::fset_nt_acl),
    sys_acl_set_fd_fn: Some(metadata::sys_acl_set_fd),
    sys_acl_delete_def_fd_fn: Some(metadata::sys_acl_delete_def_fd),
    fremovexattr_fn: Some(metadata::fremovexattr),
    fsetxattr_fn: Some(metadata::fsetxattr),
    ..NOT_HOOKED
};

/// smbd calls this once after loading the module. smbd checks the interface version and says so when it differs.
#[unsafe(no_mangle)]
extern "C" fn samba_init_module(_context: *mut sys::TALLOC_CTX) -> sys::NTSTATUS {
    host::init();
    let version = sys::SMB_VFS_INTERFACE_VERSION as std::ffi::c_int;
    // SAFETY: name and table live as long as the process.
    unsafe { sys::smb_register_vfs(version, c"vfsx".as_ptr(), &CALLBACKS) }
}
