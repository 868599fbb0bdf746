//! The socket file.

use crate::intake::{BindError, bind};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

#[test]
fn a_stale_socket_is_replaced_a_living_one_and_other_files_never() {
    let scratch = tempfile::tempdir().expect("scratch");
    let path = scratch.path().join("run/socket");
    let first = bind(&path, 0o600).expect("makes the directory too");
    let mode = std::fs::metadata(&path).expect("is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert!(matches!(bind(&path, 0o600), Err(BindError::InUse { .. })));
    drop(first);
    assert!(path.exists(), "stale");
    drop(bind(&path, 0o600).expect("replaces it"));

    let file = scratch.path().join("file");
    std::fs::write(&file, "precious").expect("writes");
    assert!(matches!(bind(&file, 0o600), Err(BindError::NotASocket { .. })));
    assert_eq!(std::fs::read(&file).expect("reads"), b"precious");
    let deep = scratch.path().join("no/such/socket");
    assert!(matches!(bind(&deep, 0o600), Err(BindError::Io { .. })));
}

#[test]
fn a_socket_whose_queue_is_full_is_not_stale() {
    let scratch = tempfile::tempdir().expect("scratch");
    let path = scratch.path().join("socket");
    let _listener = UnixListener::bind(&path).expect("listens");
    let error = bind(&path, 0o600).expect_err("someone listens").to_string();
    assert!(error.contains("another process listens"), "{error}");
}
