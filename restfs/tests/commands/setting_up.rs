//! The way from `init` to a server with its source.

use crate::place::*;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

#[test]
fn init_makes_all_that_a_server_and_its_source_need() {
    let place = Place::new();
    let (data, config) = (place.path("site/data"), place.config());
    let words = [
        "--json",
        "init",
        "--host",
        "recovery.example",
        "--listen",
        "127.0.0.1:0",
        "--data",
    ];
    let made = place.ok(&[&words[..], &[data.to_str().unwrap()]].concat());
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let key = Path::new(made["key"].as_str().unwrap());
    assert_eq!(fs::metadata(key).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&data).unwrap().mode() & 0o777, 0o700);
    assert!(config.is_file());
    holds(
        &place.error(&["init", "--data", data.to_str().unwrap()]),
        &["it exists"],
    );
    let server = place.serve();
    let url = format!("wss://{}", server.address);
    let (token, fingerprint) = (
        made["token"].as_str().unwrap(),
        made["fingerprint"].as_str().unwrap(),
    );
    let remote = ["--url", &url, "--token", token];
    place.ok(&[
        &["bucket", "info", "data"][..],
        &remote,
        &["--fingerprint", fingerprint],
    ]
    .concat());
    place.ok(&[
        &["bucket", "info", "data"][..],
        &remote,
        &["--ca-file", made["cert"].as_str().unwrap()],
    ]
    .concat());
    let wrong = "00".repeat(32);
    let refused = place.error(&[&["bucket", "list"][..], &remote, &["--fingerprint", &wrong]].concat());
    holds(&refused, &["fingerprint"]);
    // A replicator commits; it does not administer.
    let refused = place.error(
        &[
            &["bucket", "create", "x"][..],
            &remote,
            &["--fingerprint", fingerprint],
        ]
        .concat(),
    );
    holds(&refused, &["role replicator"]);
}

#[test]
fn commands_work_with_and_without_a_server() {
    let place = Place::configured();
    place.ok(&[
        "bucket",
        "create",
        "b",
        "--block-size",
        "4096",
        "--hash",
        "sha256",
    ]);
    let mut server = place.serve();
    let info: serde_json::Value =
        serde_json::from_str(&place.ok(&["--json", "bucket", "info", "b"])).unwrap();
    assert_eq!(
        (&info["layout"]["block_size"], &info["layout"]["hash"]),
        (&4096.into(), &"sha256".into())
    );
    holds(
        &place.ok(&["bucket", "set", "b", "--block-size", "8192"]),
        &["8192", "sha256"],
    );
    place.ok(&[
        "token",
        "create",
        "someone",
        "--role",
        "reader",
        "--output",
        place.path("t").to_str().unwrap(),
    ]);
    assert_eq!(fs::metadata(place.path("t")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(server.stop(), Some(0));
    assert!(!place.path("data/restfs.sock").exists());
    let tokens = place.ok(&["token", "list"]);
    holds(&tokens, &["someone", "reader", "(all)", "valid"]);
    let id = tokens.lines().nth(1).unwrap().split(' ').next().unwrap();
    place.ok(&["token", "revoke", id]);
    holds(&place.ok(&["token", "list"]), &["revoked"]);
    place.ok(&["bucket", "delete", "b", "--yes"]);
    holds(&place.error(&["bucket", "info", "b"]), &["does not exist"]);
}
