//! Tree connect and disconnect.

use super::event_loop::{self, Watch};
use super::gate;
use super::host::{self, HOST};
use super::shares::{self, Share};
use super::waits;
use crate::client::{Client, ERROR};
use crate::config::{
    self, Config, DEFAULT_DATA_RING, DEFAULT_RING, DEFAULT_SOCKET, DEFAULT_SPOOL_MAX, DEFAULT_STATE,
    MAX_EXCLUDE, MIN_RING, Mode,
};
use crate::hooks::{Capture, order};
use crate::{os, sys};
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use vfsx_proto::{Durability, Exclude, Hello, SessionId};

/// smbd's `case sensitive = yes`. With `auto`, the default, SMB clients do not tell case.
const CASE_SENSITIVE: c_int = 1;

pub(super) unsafe extern "C" fn connect(
    handle: *mut sys::vfs_handle_struct,
    service: *const c_char,
    user: *const c_char,
) -> c_int {
    // SAFETY: smbd's arguments, passed on.
    let next = || unsafe { sys::smb_vfs_call_connect((*handle).next, service, user) };
    // SAFETY: `conn` lives as long as its handles. The IPC$ share has no files.
    if unsafe { (*(*handle).conn).ipc } {
        return next();
    }
    let key = shares::new_key();
    // SAFETY: smbd's arguments.
    let refused = catch_unwind(AssertUnwindSafe(|| unsafe { gate::open(handle, key, user) }));
    if let Some(errno) = refused.unwrap_or_else(|_| {
        host::log(ERROR, "the handler was not asked about a tree connect");
        None
    }) {
        os::set_errno(errno);
        return -1;
    }
    let result = next();
    let errno = os::errno();
    if result < 0 {
        gate::close(key);
        os::set_errno(errno);
        return result;
    }
    // SAFETY: the handle is valid for the callback.
    unsafe {
        (*handle).data = key as *mut c_void;
        (*handle).free_data = Some(free_data);
    }
    // SAFETY: as above.
    if catch_unwind(AssertUnwindSafe(|| unsafe { begin(handle, key) })).is_err() {
        host::log(
            ERROR,
            "a tree connect is not captured; run `vfsxctl sync` for the share",
        );
    }
    os::set_errno(errno);
    result
}

pub(super) unsafe extern "C" fn disconnect(handle: *mut sys::vfs_handle_struct) {
    // SAFETY: the handle is valid for the callback; `data` is a key or NULL.
    unsafe {
        end((*handle).data as u64);
        (*handle).data = std::ptr::null_mut();
        sys::smb_vfs_call_disconnect((*handle).next);
    }
}

/// smbd frees a connection; one whose connect failed further down sees no disconnect.
unsafe extern "C" fn free_data(data: *mut *mut c_void) {
    // SAFETY: the handle's `data` field, a key or NULL.
    unsafe {
        end(*data as u64);
        *data = std::ptr::null_mut();
    }
}

/// # Safety
/// The handle is valid for the callback.
unsafe fn begin(handle: *mut sys::vfs_handle_struct, key: u64) {
    // SAFETY: `params` is set before connect. Names and versions are read and copied at once.
    let (snum, share, samba) = unsafe {
        let snum = (*(*(*handle).conn).params).service;
        (snum, share_name(snum), text(sys::samba_version_string()))
    };
    let session = match os::random() {
        Ok(bytes) => SessionId(bytes),
        Err(e) => {
            return host::log(
                ERROR,
                &format!("share {share} is not captured: no random numbers: {e}"),
            );
        }
    };
    // SAFETY: smbd's list, valid until it reads smb.conf again.
    for complaint in order::complaints(unsafe { vfs_objects(snum) }.iter().map(String::as_str)) {
        // Samba's own log level is 0: anything above is read by nobody.
        host::log(ERROR, &format!("share {share}: {complaint}"));
    }
    // SAFETY: the watch ends at disconnect or in `free_data`, before the handle.
    let Some(watch) = (unsafe { Watch::new(handle, key) }) else {
        return host::log(ERROR, &format!("share {share} is not captured: no memory"));
    };
    let (config, exclude) = (config(snum, &share), exclude(snum, &share));
    let hello = Hello {
        session,
        share,
        pid: std::process::id(),
        samba,
        module: env!("CARGO_PKG_VERSION").to_owned(),
        durability: config.durability,
        exclude,
        // The client knows, when it has the memory.
        ring: None,
        spooled: 0,
    };
    let capture = Capture::new(Client::new(config, HOST, hello));
    shares::insert(key, Share { capture, watch });
    shares::with(key, event_loop::follow);
}

fn end(key: u64) {
    let errno = os::errno();
    if let Some(Share { mut capture, watch }) = shares::remove(key) {
        watch.end();
        if catch_unwind(AssertUnwindSafe(|| capture.finish())).is_err() {
            host::log(ERROR, "the end of a tree connect was not reported");
        }
        let _ = catch_unwind(AssertUnwindSafe(|| waits::finish(&mut capture)));
    }
    gate::close(key);
    os::set_errno(errno);
}

fn config(snum: c_int, share: &str) -> Config {
    let durability = durability(snum, share);
    let wait_limit = match ulong(snum, c"wait limit", usize::MAX) {
        usize::MAX => None,
        millis => Some(millis as u64),
    };
    let ring = ulong(snum, c"ring size", DEFAULT_RING);
    let data_ring = ulong(snum, c"data ring size", DEFAULT_DATA_RING);
    let spool_max = usize::try_from(DEFAULT_SPOOL_MAX).unwrap_or(usize::MAX);
    Config {
        socket: path(snum, c"socket", DEFAULT_SOCKET),
        state: path(snum, c"state", DEFAULT_STATE),
        spool: spool(snum, share),
        spool_max: ulong(snum, c"spool max", spool_max) as u64,
        ring: ring.max(MIN_RING),
        mode: mode(snum, share),
        data_ring: config::data_ring(data_ring),
        durability,
        wait_limit: config::wait_limit(durability, wait_limit),
        ..Config::default()
    }
}

/// As the share's configuration is now: it is given to vfsxd, and nothing here depends on it.
fn exclude(snum: c_int, share: &str) -> Exclude {
    let mut patterns = path(snum, c"exclude", "").into_os_string().into_vec();
    if patterns.len() > MAX_EXCLUDE {
        host::log(
            ERROR,
            &format!(
                "share {share}: vfsx:exclude is longer than {MAX_EXCLUDE} bytes and counts for nothing: all is replicated"
            ),
        );
        patterns.clear();
    }
    Exclude {
        patterns,
        // SAFETY: smbd's own table of shares.
        case_sensitive: unsafe { sys::lp_case_sensitive(snum) } == CASE_SENSITIVE,
        read_ns: os::wall_clock(),
    }
}

fn mode(snum: c_int, share: &str) -> Mode {
    let word = path(snum, c"mode", "map");
    let word = word.to_string_lossy();
    Mode::parse(&word).unwrap_or_else(|| {
        host::log(
            ERROR,
            &format!(
                "share {share}: vfsx:mode = {word}: ranges are told, as with map; the modes are map and copy"
            ),
        );
        Mode::Map
    })
}

fn spool(snum: c_int, share: &str) -> bool {
    let word = path(snum, c"spool", "yes");
    let word = word.to_string_lossy();
    if word.is_empty() {
        return true;
    }
    config::switch(&word).unwrap_or_else(|| {
        host::log(
            ERROR,
            &format!(
                "share {share}: vfsx:spool = {word}: it is yes or no, and taken for yes; the files are in vfsx:state"
            ),
        );
        true
    })
}

fn durability(snum: c_int, share: &str) -> Durability {
    let word = path(snum, c"durability", "noted");
    let word = word.to_string_lossy();
    config::durability(&word).unwrap_or_else(|| {
        host::log(
            ERROR,
            &format!("share {share}: vfsx:durability = {word}: clients wait for nothing, as with noted; the levels are noted, journal, remote"),
        );
        Durability::Noted
    })
}

/// An option that is a path or a word.
pub(super) fn path(snum: c_int, option: &CStr, default: &str) -> PathBuf {
    let default = CString::new(default).unwrap_or_default();
    // SAFETY: all strings end with NUL; the result is smbd's or `default`, copied at once.
    let value = unsafe {
        let value = sys::lp_parm_const_string(snum, c"vfsx".as_ptr(), option.as_ptr(), default.as_ptr());
        if value.is_null() {
            default.as_c_str()
        } else {
            CStr::from_ptr(value)
        }
    };
    OsStr::from_bytes(value.to_bytes()).into()
}

pub(super) fn ulong(snum: c_int, option: &CStr, default: usize) -> usize {
    let default = std::ffi::c_ulong::try_from(default).unwrap_or(std::ffi::c_ulong::MAX);
    // SAFETY: all strings end with NUL.
    let value = unsafe { sys::lp_parm_ulong(snum, c"vfsx".as_ptr(), option.as_ptr(), default) };
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// # Safety
/// Called within a callback of smbd.
pub(super) unsafe fn share_name(snum: c_int) -> String {
    // SAFETY: the caller's promise; the name is copied at once.
    unsafe { text(sys::lp_const_servicename(snum)) }
}

/// # Safety
/// Called within a callback of smbd.
unsafe fn vfs_objects(snum: c_int) -> Vec<String> {
    let mut names = Vec::new();
    // SAFETY: smbd's list of strings, which ends with NULL.
    unsafe {
        let mut entry = sys::lp_vfs_objects(snum);
        while !entry.is_null() && !(*entry).is_null() {
            names.push(text(*entry));
            entry = entry.add(1);
        }
    }
    names
}

/// # Safety
/// `text` is NULL or ends with NUL.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
