//! smbd's structures, read through pointers that are valid for one callback.

use super::descriptors;
use crate::hooks::{Place, share_path};
use crate::{os, sys};
use std::ffi::{CStr, c_char};
use std::io;
use std::os::fd::RawFd;
use vfsx_proto::NodeRef;

/// An open file, directory, or path reference.
#[derive(Clone, Copy)]
pub(super) struct File(*const sys::files_struct);

impl File {
    /// # Safety
    /// `fsp` is smbd's; the result is used within the callback only.
    pub(super) unsafe fn new(fsp: *const sys::files_struct) -> Self {
        Self(fsp)
    }

    /// Works on path references too; -1 when there is none.
    pub(super) fn fd(self) -> RawFd {
        // SAFETY: valid by `new`'s promise.
        unsafe { sys::fsp_get_pathref_fd(self.0) }
    }

    /// The inode that it leads to, if that was looked at since it was opened. Of a stream kept as an attribute there is none.
    pub(super) fn known_node(self) -> Option<NodeRef> {
        // SAFETY: valid by `new`'s promise; an open file has a name. The numbers are valid when the count of links is.
        let ino = unsafe {
            let stat = &(*(*self.0).fsp_name).st;
            (stat.st_ex_nlink != 0).then_some(stat.st_ex_ino)
        };
        descriptors::known(self.fd(), ino)
    }

    /// Name as smbd believes it, relative to the share's root.
    pub(super) fn path_hint(self) -> Vec<u8> {
        // SAFETY: valid by `new`'s promise; `conn` outlives its files.
        unsafe { share_path(root((*self.0).conn), b"", name((*self.0).fsp_name)) }
    }

    /// Name as the kernel has it now, with the stream's. As smbd believes it where the kernel has none.
    pub(super) fn current_path(self) -> Vec<u8> {
        let main = self.with_metadata();
        let mut path = match os::current_path_of(main.fd()) {
            Some(path) => self.share_path(&path),
            None => main.path_hint(),
        };
        // SAFETY: valid by `new`'s promise.
        unsafe { add_stream(&mut path, (*self.0).fsp_name) };
        path
    }

    /// An absolute path, relative to the share's root if it is inside.
    pub(super) fn share_path(self, path: &[u8]) -> Vec<u8> {
        // SAFETY: valid by `new`'s promise; `conn` outlives its files.
        unsafe { share_path(root((*self.0).conn), b"", path) }
    }

    /// A client has it open, or a stream of it, rather than smbd on the way to something. The close of a stream that is kept as an
    /// attribute ends above this module; smbd's own open file of what it belongs to is closed after it.
    pub(super) fn is_clients(self) -> bool {
        // SAFETY: valid by `new`'s promise.
        unsafe { (*self.0).fsp_flags.is_fsa() }
    }

    pub(super) fn is_stream(self) -> bool {
        // SAFETY: valid by `new`'s promise.
        unsafe { sys::fsp_is_alternate_stream(self.0) }
    }

    /// The file that has the metadata: of a stream, the one that it belongs to.
    pub(super) fn with_metadata(self) -> Self {
        // SAFETY: valid by `new`'s promise; a stream's base outlives it.
        let base = unsafe { (*self.0).base_fsp };
        if base.is_null() || !self.is_stream() {
            self
        } else {
            Self(base)
        }
    }
}

/// The share's directory as smbd knows it now: its final form comes only after the connect callback.
///
/// # Safety
/// `conn` is valid, and the result is used within the callback.
unsafe fn root<'a>(conn: *const sys::connection_struct) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe { bytes((*conn).connectpath) }
}

/// # Safety
/// `name` is NULL or valid, and the result is used within the callback.
pub(super) unsafe fn name<'a>(name: *const sys::smb_filename) -> &'a [u8] {
    if name.is_null() {
        b""
    } else {
        // SAFETY: the caller's promise.
        unsafe { bytes((*name).base_name) }
    }
}

/// Adds the name of the stream, if `name` is one's, behind two slashes, which no path has elsewhere: a colon, which smbd puts
/// before it, may also be a part of a name on disk.
///
/// # Safety
/// `name` is NULL or valid.
unsafe fn add_stream(path: &mut Vec<u8>, name: *const sys::smb_filename) {
    if name.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    if let [b':', stream @ ..] = unsafe { bytes((*name).stream_name) } {
        path.extend_from_slice(b"//");
        path.extend_from_slice(stream);
    }
}

/// # Safety
/// `text` is NULL or ends with NUL, and the result is used within the callback.
pub(super) unsafe fn bytes<'a>(text: *const c_char) -> &'a [u8] {
    if text.is_null() {
        b""
    } else {
        // SAFETY: the caller's promise.
        unsafe { CStr::from_ptr(text) }.to_bytes()
    }
}

/// # Safety
/// As for [`File::new`].
pub(super) unsafe fn names_stream(name: *const sys::smb_filename) -> bool {
    // SAFETY: the caller's promise.
    unsafe { !(*name).stream_name.is_null() && sys::is_named_stream(name) }
}

/// Where an `*at` call acts. `dir` is `conn->cwd_fsp` where smbd has changed into the directory instead of opening it; its
/// name is absolute then. NULL means the working directory.
///
/// # Safety
/// As for [`File::new`], for all three.
pub(super) unsafe fn place(
    handle: *const sys::vfs_handle_struct,
    dir: *const sys::files_struct,
    path: *const sys::smb_filename,
) -> io::Result<Place> {
    // SAFETY: the caller's promise; `cwd_fsp` lives as long as `conn`.
    unsafe {
        let conn = (*handle).conn;
        let dir = if dir.is_null() {
            (*conn).cwd_fsp.cast_const()
        } else {
            dir
        };
        Place::new(
            sys::fsp_get_pathref_fd(dir),
            name((*dir).fsp_name),
            name(path),
            root(conn),
        )
    }
}

/// What an `*at` call names, relative to the share's root, as the kernel has its directory now. With the stream's name.
///
/// # Safety
/// As for [`place`].
pub(super) unsafe fn current_path(
    handle: *const sys::vfs_handle_struct,
    dir: *const sys::files_struct,
    path: *const sys::smb_filename,
) -> Vec<u8> {
    // SAFETY: the caller's promise.
    unsafe {
        let mut current = match place(handle, dir, path) {
            Ok(place) => place.current_path(share_directory(handle)),
            // The share's root itself, which smbd names ".".
            Err(_) => name(path).to_vec(),
        };
        add_stream(&mut current, path);
        current
    }
}

/// The share's directory as smbd knows it now, which is that of `smb.conf` until the connect callback returns.
///
/// # Safety
/// `handle` is valid, and the result is used within the callback.
pub(super) unsafe fn share_directory<'a>(handle: *const sys::vfs_handle_struct) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe { root((*handle).conn) }
}

/// The user whose request is being served.
///
/// # Safety
/// `handle` is smbd's, valid for the callback.
pub(super) unsafe fn user(handle: *const sys::vfs_handle_struct) -> Vec<u8> {
    // SAFETY: the caller's promise; copied at once.
    unsafe { bytes(sys::vfsx_shim_user(handle)).to_vec() }
}
