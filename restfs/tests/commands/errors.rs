//! What the program says when something is wrong.

use crate::place::*;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

#[test]
fn a_missing_configuration_says_how_to_make_one() {
    let place = Place::new();
    for words in [&["serve"][..], &["bucket", "list"]] {
        holds(
            &place.error(words),
            &["restfs.toml", "No such file", "restfs init"],
        );
    }
}

#[test]
fn a_wrong_key_is_named_with_its_line() {
    let place = Place::new();
    place.configure("lissten = 1\n");
    holds(
        &place.error(&["serve"]),
        &["restfs.toml, line 3", "unknown field `lissten`"],
    );
    place.configure("[tls]\ncert = \"c\"\n");
    holds(&place.error(&["serve"]), &["line 3", "missing field `key`"]);
    place.configure("[limits]\nconnections = -1\n");
    holds(&place.error(&["serve"]), &["line 4"]);
}

#[test]
fn a_missing_or_wrong_certificate_says_what_to_set() {
    let place = Place::new();
    place.configure("[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n");
    holds(
        &place.error(&["serve"]),
        &["certificate", "cert.pem", "No such file", "restfs init"],
    );
    fs::write(place.path("cert.pem"), "not a certificate\n").unwrap();
    holds(&place.error(&["serve"]), &["certificate", "no certificate in it"]);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(place.path("cert.pem"), made.cert.pem()).unwrap();
    holds(&place.error(&["serve"]), &["key ", "key.pem", "No such file"]);
    let other = rcgen::KeyPair::generate().unwrap();
    fs::write(place.path("key.pem"), other.serialize_pem()).unwrap();
    holds(&place.error(&["serve"]), &["key ", "key.pem", "tls.cert"]);
}

#[test]
fn a_data_directory_that_others_can_read_is_refused() {
    let place = Place::configured();
    fs::create_dir(place.path("data")).unwrap();
    fs::set_permissions(place.path("data"), fs::Permissions::from_mode(0o755)).unwrap();
    holds(&place.error(&["serve"]), &["data directory", "chmod 700"]);
    fs::remove_dir(place.path("data")).unwrap();
    fs::write(place.path("data"), "").unwrap();
    holds(&place.error(&["serve"]), &["data directory", "not a directory"]);
}

#[test]
fn a_data_directory_below_nothing_is_not_made() {
    let place = Place::new();
    fs::write(
        place.config(),
        format!("data_dir = {:?}\n", place.path("not/mounted")),
    )
    .unwrap();
    holds(&place.error(&["serve"]), &["data directory", "No such file"]);
}

#[test]
fn a_port_in_use_is_named() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    fs::write(
        place.config(),
        format!("data_dir = {:?}\nlisten = \"{address}\"\n", place.path("data")),
    )
    .unwrap();
    holds(&place.error(&["serve"]), &[&address, "in use", "`listen`"]);
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let place = Place::configured();
    let _first = place.serve();
    holds(
        &place.error(&["serve"]),
        &["data directory", "in use by another restfs"],
    );
}

#[test]
fn a_missing_bucket_path_or_point_is_named() {
    let place = Place::configured();
    for words in [
        &["bucket", "info", "none"][..],
        &["ls", "none:/"],
        &["restore", "none", "/nowhere"],
        &["log", "none"],
        &["token", "create", "x", "--role", "reader", "--bucket", "none"],
    ] {
        holds(&place.error(words), &["bucket `none` does not exist"]);
    }
    place.ok(&["bucket", "create", "b"]);
    holds(&place.error(&["ls", "b:/none"]), &["/none does not exist"]);
    holds(&place.error(&["cat", "b@7:/x"]), &["no recovery point yet"]);
    holds(
        &place.error(&["token", "revoke", "77"]),
        &["token `77` does not exist"],
    );
    holds(&place.error(&["bucket", "delete", "b"]), &["--yes"]);
    holds(&place.error(&["bucket", "create", "B/"]), &["bucket"]);
}

#[test]
fn a_wrong_token_or_address_is_told() {
    let place = Place::configured();
    let server = place.serve();
    let url = format!("ws://{}", server.address);
    holds(
        &place.error(&["bucket", "list", "--url", &url, "--token", "restfs_1_2"]),
        &[&url, "token"],
    );
    holds(
        &place.error(&["bucket", "list", "--url", &url]),
        &[&url, "restfs token create"],
    );
    holds(
        &place.error(&["bucket", "list", "--url", &url, "--token-file", "/none"]),
        &["/none", "No such file"],
    );
    holds(
        &place.error(&["bucket", "list", "--url", "http://x"]),
        &["http://x", "wss://"],
    );
    let wss = format!("wss://{}", server.address);
    holds(&place.error(&["bucket", "list", "--url", &wss]), &["fingerprint"]);
    drop(server);
    holds(
        &place.error(&["bucket", "list", "--url", &url, "--token", "x"]),
        &[&url, "refused"],
    );
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    let place = Place::configured();
    for words in [
        &["lss"][..],
        &["ls"],
        &["ls", "@1:/"],
        &["serve", "--port", "1"],
        &["token", "create", "x", "--role", "king"],
        &["bucket", "create", "b", "--hash", "md5"],
    ] {
        assert_eq!(place.run(words).status.code(), Some(2), "{words:?}");
    }
}

#[test]
fn an_unprivileged_user_is_turned_away_from_the_socket() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can act for another user");
    }
    let place = Place::configured();
    let _server = place.serve();
    // May reach the socket, is not its owner.
    for (path, mode) in [("", 0o755), ("data", 0o711), ("data/restfs.sock", 0o666)] {
        fs::set_permissions(place.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    let program = place.path("restfs");
    fs::copy(env!("CARGO_BIN_EXE_restfs"), &program).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(program)
        .args(["bucket", "list", "--config"])
        .arg(place.config())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    holds(&text(&output.stderr), &["error: socket", "root"]);
}

#[test]
fn log_output_is_plain_text_or_json_without_colours() {
    let place = Place::new();
    place.configure("[log]\njson = true\n");
    let mut child = place.command(&["serve"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    while !line.contains("ready") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0);
    }
    let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(entry["fields"]["message"], "ready");
    let mut serving = Serving {
        child,
        address: String::new(),
    };
    assert_eq!(serving.stop(), Some(0));
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains('\u{1b}'));
}

#[test]
fn a_full_disk_at_the_start_is_told() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can mount a small file system");
    }
    let place = Place::configured();
    let data = place.path("data");
    fs::create_dir(&data).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m,mode=700", "none"])
        .arg(&data)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return eprintln!("skipped: this machine lets nobody mount");
    }
    let output = place.run(&["serve"]);
    let unmounted = Command::new("umount").arg(&data).status().unwrap();
    assert!(unmounted.success());
    assert_eq!(output.status.code(), Some(1));
    holds(
        &text(&output.stderr),
        &["error: data directory", "bytes are free", "free space"],
    );
}
