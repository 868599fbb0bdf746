//! What an admin gets wrong, and what a machine runs out of: one line that says what failed and what helps.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use vfsx_tests::lab::{Lab, SambaOptions};
use vfsx_tests::smb::Session;
use vfsx_tests::testlab::{TestLab, with_lab};
use vfsx_tests::wait;

/// A start that fails does so at once; one that hangs is a failure of its own.
const FAILS_WITHIN: Duration = Duration::from_secs(20);
/// How long vfsxd may take to find out what is wrong with a site.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);

/// Runs a server that must refuse to start, and gives its one line of error.
fn refusal(command: &mut Command) -> Result<String> {
    let output = run_until(command, FAILS_WITHIN).with_context(|| format!("{command:?}"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.code() == Some(1),
        "exit {:?} instead of 1: {text}",
        output.status
    );
    // The log goes to standard error too; the error is its last line.
    let errors: Vec<_> = text
        .lines()
        .filter(|line| !line.contains(" INFO ") && !line.contains(" WARN "))
        .collect();
    let [line] = errors[..] else {
        bail!("not one line of error:\n{text}")
    };
    ensure!(line.starts_with("error: "), "not an error line: {line}");
    Ok(line.to_owned())
}

fn run_until(command: &mut Command, limit: Duration) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let ended = wait::until(
        "the end of the program",
        limit,
        || child.try_wait().ok().flatten(),
        String::new,
    );
    if ended.is_err() {
        child.kill()?;
        let output = child.wait_with_output()?;
        bail!(
            "still running after {limit:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(child.wait_with_output()?)
}

fn expect(line: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(line.contains(word), "{word:?} is missing in: {line}");
    }
    Ok(())
}

/// The lab's vfsxd configuration with changes, under another name.
fn vfsxd_with(lab: &Lab, replace: &[(&str, &str)]) -> Result<Command> {
    let config = lab.dir().join("wrong-vfsxd.toml");
    fs::write(&config, changed(&lab.description.vfsxd.config, replace)?)?;
    let mut command = Command::new(&lab.binaries.vfsxd);
    command.arg("--config").arg(config);
    Ok(command)
}

fn restfs_with(lab: &Lab, replace: &[(&str, &str)]) -> Result<Command> {
    let good = &lab.site("site1")?.description.config;
    let config = good.with_file_name("wrong-restfs.toml");
    fs::write(&config, changed(good, replace)?)?;
    let mut command = Command::new(&lab.binaries.restfs);
    command.args(["serve", "--config"]).arg(config);
    Ok(command)
}

fn changed(file: &Path, replace: &[(&str, &str)]) -> Result<String> {
    let mut text = fs::read_to_string(file)?;
    for (from, to) in replace {
        ensure!(text.contains(from), "{} has no {from:?}: {text}", file.display());
        text = text.replace(from, to);
    }
    Ok(text)
}

/// Paths of a second vfsxd that do not get in the first one's way.
fn elsewhere(lab: &Lab) -> [(String, String); 3] {
    let dir = lab.dir().display().to_string();
    [
        (format!("{dir}/vfsxd\""), format!("{dir}/vfsxd2\"")),
        (format!("{dir}/run/vfsxd.sock"), format!("{dir}/run/vfsxd2.sock")),
        (
            format!("{dir}/run/control.sock"),
            format!("{dir}/run/control2.sock"),
        ),
    ]
}

#[test]
fn vfsxd_refuses_to_start_with_one_line_that_helps() {
    with_lab(
        |_| {},
        |lab| {
            let own = elsewhere(lab);
            let own: Vec<_> = own
                .iter()
                .map(|(from, to)| (from.as_str(), to.as_str()))
                .collect();
            let [state, socket, control] = own[..] else {
                bail!("three places")
            };
            let start = |change: &[(&str, &str)]| refusal(&mut vfsxd_with(lab, &[&own, change].concat())?);

            expect(
                &start(&[("state_dir", "colour = 1\nstate_dir")])?,
                &["line 1", "colour"],
            )?;
            expect(&start(&[("cert.pem", "none.pem")])?, &["none.pem"])?;
            expect(
                &start(&[("replicator.token", "none.token")])?,
                &["none.token", "restfs token create"],
            )?;
            expect(&start(&[("share/data", "share/none")])?, &["share/none"])?;
            expect(
                &start(&[("/run/vfsxd2.sock", "/granted/vfsxd.sock")])?,
                &["granted/vfsxd.sock", "directory"],
            )?;

            let line = refusal(&mut vfsxd_with(lab, &[socket, control])?)?;
            expect(&line, &["another vfsxd"])?;
            let line = refusal(&mut vfsxd_with(lab, &[state, control])?)?;
            expect(&line, &["vfsxd.sock", "another process listens"])
        },
    );
}

#[test]
fn restfs_refuses_to_start_with_one_line_that_helps() {
    with_lab(
        |_| {},
        |lab| {
            let site = lab.site("site1")?;
            let elsewhere = [("/data\"", "/data2\"")];
            let start =
                |change: &[(&str, &str)]| refusal(&mut restfs_with(lab, &[&elsewhere, change].concat())?);

            expect(
                &start(&[("data_dir", "colour = 1\ndata_dir")])?,
                &["colour", "line"],
            )?;
            expect(&start(&[("cert.pem", "none.pem")])?, &["none.pem"])?;
            let address = site.description.url.replace("wss://localhost", "127.0.0.1");
            expect(&start(&[])?, &[&address, "in use"])?;
            expect(&start(&[("127.0.0.1", "192.0.2.1")])?, &["192.0.2.1"])?;
            let line = refusal(&mut restfs_with(
                lab,
                &[("listen = \"127.0.0.1:", "listen = \"127.0.0.2:")],
            )?)?;
            expect(&line, &["data", "another restfs"])
        },
    );
}

#[test]
fn a_full_disk_at_the_start_is_one_line() {
    with_lab(
        |_| {},
        |lab| {
            let own = elsewhere(lab);
            let own: Vec<_> = own
                .iter()
                .map(|(from, to)| (from.as_str(), to.as_str()))
                .collect();
            let state = lab.dir().join("vfsxd2");
            let line = refusal(&mut on_a_full_disk(&state, &vfsxd_with(lab, &own)?)?)?;
            expect(&line, &["space"])?;

            let data = lab.site("site1")?.data_dir().with_file_name("data2");
            let change = [("/data\"", "/data2\""), ("127.0.0.1:", "127.0.0.3:")];
            let line = refusal(&mut on_a_full_disk(&data, &restfs_with(lab, &change)?)?)?;
            expect(&line, &["space"])
        },
    );
}

/// The command with a full file system at `place`, in a mount namespace of its own.
fn on_a_full_disk(place: &Path, command: &Command) -> Result<Command> {
    fs::create_dir_all(place)?;
    let script = "mount -t tmpfs -o size=16k,mode=0700 tmpfs \"$0\" && dd if=/dev/zero of=\"$0/filler\" 2>/dev/null; exec \"$@\"";
    let mut wrapped = Command::new("unshare");
    wrapped
        .args(["--mount", "sh", "-c", script])
        .arg(place)
        .arg(command.get_program())
        .args(command.get_args());
    Ok(wrapped)
}

#[test]
fn what_is_wrong_with_a_site_is_said_in_the_status() {
    with_lab(
        |options| options.vfsxd = false,
        |lab| {
            let good = fs::read_to_string(&lab.description.vfsxd.config)?;
            let other = lab.dir().join("other.pem");
            certificate(&other)?;
            let bad_token = lab.dir().join("bad.token");
            fs::write(&bad_token, "restfs_0000000000000000_0000\n")?;
            fs::set_permissions(&bad_token, fs::Permissions::from_mode(0o600))?;
            let path = |path: PathBuf| path.display().to_string();
            let site = lab.site("site1")?;

            let cases = [
                (path(site.token.clone()), path(bad_token), "failed", "token"),
                (
                    path(site.certificate.clone()),
                    path(other),
                    "failed",
                    "certificate",
                ),
                (
                    "bucket = \"data\"".into(),
                    "bucket = \"none\"".into(),
                    "failed",
                    "none",
                ),
                (
                    site.description.url.clone(),
                    "wss://localhost:1".into(),
                    "unreachable",
                    "localhost:1",
                ),
            ];
            for (from, to, state, word) in cases {
                ensure!(good.contains(&from), "the configuration has no {from}");
                fs::write(&lab.description.vfsxd.config, good.replace(&from, &to))?;
                lab.vfsxd.start()?;
                let error = site_error(lab, state).with_context(|| format!("{to} instead of {from}"))?;
                ensure!(error.lines().count() == 1, "not one line: {error}");
                expect(&error, &[word])?;
                lab.vfsxd.stop()?;
            }
            // Set right, everything goes on from where it is.
            fs::write(&lab.description.vfsxd.config, good)?;
            lab.vfsxd.start()?;
            lab.settle()?;
            lab.check_replica("site1")
        },
    );
}

/// `last_error` of the site once it is in `state`.
fn site_error(lab: &TestLab, state: &str) -> Result<String> {
    let look = || {
        let status = lab.site_status("site1").ok()?;
        let is = status.get("state").and_then(Value::as_str) == Some(state);
        let error = status.get("last_error").and_then(Value::as_str)?;
        is.then(|| error.to_owned())
    };
    wait::until(&format!("state {state}"), NOTICED_WITHIN, look, || {
        format!("{:?}", lab.site_status("site1"))
    })
}

fn certificate(path: &Path) -> Result<()> {
    let output = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ed25519",
            "-nodes",
            "-subj",
            "/CN=other",
            "-days",
            "2",
            "-keyout",
        ])
        .arg(path.with_extension("key"))
        .arg("-out")
        .arg(path)
        .output()
        .context("run openssl (package openssl)")?;
    ensure!(
        output.status.success(),
        "openssl: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[test]
fn modules_that_hide_changes_are_said_at_the_log_level_that_samba_has_by_default() {
    let wrong = "streams_xattr fruit vfsx recycle acl_tdb xattr_tdb";
    with_lab(
        |options| options.samba = with_objects(wrong),
        |lab| {
            Session::connect(lab, "data")?;
            lab.wait_for_smbd_line("recycle behind vfsx")?;
            let line = lab.wait_for_smbd_line("fruit has to stand before streams_xattr")?;
            // As the share has it, so that it can be taken over.
            expect(
                &line,
                &[
                    "vfs objects = fruit streams_xattr recycle acl_tdb xattr_tdb",
                    "vfsx",
                ],
            )?;
            for module in ["acl_tdb", "xattr_tdb"] {
                let line = lab.wait_for_smbd_line(&format!("{module} keeps"))?;
                expect(&line, &["share data", "not replicated"])?;
            }
            // With what is right there is nothing to say.
            lab.smbd.stop()?;
            fs::write(&lab.smbd.log, "")?;
            lab.restart_samba(&with_objects("fruit streams_xattr acl_xattr recycle vfsx"))?;
            Session::connect(lab, "data")?.put("file", b"content")?;
            let log = fs::read_to_string(&lab.smbd.log)?;
            ensure!(
                !log.contains("vfs objects"),
                "a complaint about the right order: {log}"
            );
            Ok(())
        },
    );
}

/// An admin may think that the place of the spool is to be given: that must not turn it off.
#[test]
fn a_path_in_place_of_a_switch_is_said_and_leaves_the_spool_on() {
    let mut samba = with_objects("vfsx");
    samba.share.push("vfsx:spool = /var/spool/vfsx".to_owned());
    with_lab(
        |options| options.samba = samba,
        |lab| {
            let mut session = Session::connect(lab, "data")?;
            session.put("before", b"1")?;
            lab.settle()?;
            let line = lab.wait_for_smbd_line("vfsx:spool = /var/spool/vfsx")?;
            expect(&line, &["share data", "yes or no", "taken for yes"])?;
            lab.vfsxd.stop()?;
            session.put("spooled", b"2")?;
            drop(session);
            wait::until(
                "end of the client's smbd process",
                NOTICED_WITHIN,
                || lab.smbd.children("smbd").is_empty().then_some(()),
                || format!("{:?}", lab.smbd.children("smbd")),
            )?;
            lab.vfsxd.start()?;
            lab.settle()?;
            // Without the spool file the end of the session would be a gap.
            lab.check_captured(1)?;
            lab.check_replica("site1")
        },
    );
}

fn with_objects(objects: &str) -> SambaOptions {
    let mut options = SambaOptions::with_objects(objects);
    options.global.push("log level = 0".to_owned());
    options
}

#[test]
fn an_unprivileged_process_cannot_report_changes() {
    with_lab(
        |_| {},
        |lab| {
            let socket = &lab.description.vfsxd.socket;
            // The way to the socket is open, so what is refused is refused by the socket.
            for dir in [lab.dir(), &lab.dir().join("run")] {
                fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
            }
            let said = as_nobody(socket)?;
            ensure!(said.contains("Permission denied"), "nobody was let in: {said}");

            // Even where an admin opened the socket to all, the daemon looks at who is there.
            fs::set_permissions(socket, fs::Permissions::from_mode(0o777))?;
            let said = as_nobody(socket)?;
            ensure!(said.contains("turned away"), "nobody may report changes: {said}");
            Ok(())
        },
    );
}

/// What user `nobody` gets from the socket: an error, or what follows on a greeting and some events.
fn as_nobody(socket: &Path) -> Result<String> {
    const PROGRAM: &str = r#"
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(10)
try:
    s.connect(sys.argv[1])
    # The preamble of the protocol: enough to be asked who it is.
    s.sendall(b"VFSX\x03\x00")
    got = b""
    while part := s.recv(4096):
        got += part
    print("turned away after", len(got), "bytes")
except OSError as error:
    print(error)
"#;
    let output = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "/usr/bin/python3",
            "-c",
            PROGRAM,
        ])
        .arg(socket)
        .output()
        .context("run setpriv (package util-linux)")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}
