//! The two programs as an admin meets them: one-line errors, exit codes, signals.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const VFSXD: &str = env!("CARGO_BIN_EXE_vfsxd");
const VFSXCTL: &str = env!("CARGO_BIN_EXE_vfsxctl");
const PATIENCE: Duration = Duration::from_secs(30);

struct Scratch {
    directory: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        let scratch = Self {
            directory: tempfile::tempdir().expect("scratch"),
        };
        fs::create_dir(scratch.path("share")).expect("makes");
        fs::write(scratch.path("share/file"), "content").expect("writes");
        fs::write(scratch.path("token"), "restfs_1_secret").expect("writes");
        scratch.configure("vfsxd.toml", "");
        scratch
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a configuration with `more` at its end; `DIR` is the scratch directory.
    fn configure(&self, name: &str, more: &str) -> PathBuf {
        let text = format!(
            "state_dir = \"DIR/state\"\nsocket = \"DIR/socket\"\ncontrol = \"DIR/control\"\n\
             [[share]]\nname = \"data\"\npath = \"DIR/share\"\n{more}"
        );
        let path = self.path(name);
        fs::write(
            &path,
            text.replace("DIR", &self.directory.path().display().to_string()),
        )
        .expect("writes");
        path
    }

    /// Starts vfsxd and waits until it is ready.
    fn start(&self) -> Daemon {
        let mut child = Command::new(VFSXD)
            .args(["--log", "info", "--config"])
            .arg(self.path("vfsxd.toml"))
            .arg("--pid-file")
            .arg(self.path("pid"))
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let log = BufReader::new(child.stderr.take().expect("is piped"));
        let mut daemon = Daemon { child, log };
        daemon.log_says("vfsxd is ready");
        daemon
    }

    fn control(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(VFSXCTL);
        command
            .arg("--config")
            .arg(self.path("vfsxd.toml"))
            .args(arguments);
        command.output().expect("runs")
    }
}

struct Daemon {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Daemon {
    /// Reads the log up to a line that holds the text. Ends at the latest with the process.
    fn log_says(&mut self, text: &str) {
        let mut seen = String::new();
        loop {
            let from = seen.len();
            assert!(
                self.log.read_line(&mut seen).expect("reads") > 0,
                "the log ended without {text:?}: {seen}"
            );
            if seen[from..].contains(text) {
                return;
            }
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .expect("signals");
    }

    fn exit(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("waits") {
                return status;
            }
            assert!(Instant::now() < deadline, "vfsxd does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Standard error of a vfsxd that cannot start.
fn refusal(config: &Path) -> String {
    let output = Command::new(VFSXD)
        .args(["--log", "off", "--config"])
        .arg(config)
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(1));
    one_line(&output)
}

fn one_line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("is text");
    assert!(
        text.starts_with("error: ") && text.lines().count() == 1,
        "not one line: {text}"
    );
    text
}

#[test]
fn a_second_vfsxd_is_refused_by_state_directory_and_by_socket() {
    let scratch = Scratch::new();
    let _daemon = scratch.start();
    assert!(refusal(&scratch.path("vfsxd.toml")).contains("another vfsxd uses it"));
    let text = fs::read_to_string(scratch.path("vfsxd.toml")).expect("reads");
    let other = scratch.path("other.toml");
    fs::write(&other, text.replace("/state\"", "/state2\"")).expect("writes");
    assert!(refusal(&other).contains("another process listens there"));
    assert!(
        scratch.control(&["status"]).status.success(),
        "the first one goes on"
    );
}

#[test]
fn a_start_that_cannot_be_is_one_line_that_says_why() {
    let scratch = Scratch::new();
    assert!(refusal(&scratch.path("none.toml")).contains("cannot be read"));
    let wrong = scratch.configure("wrong.toml", "colour = 1\n");
    let error = refusal(&wrong);
    assert!(error.contains("line 7") && error.contains("colour"), "{error}");
    fs::write(scratch.path("state"), "a file where the directory should be").expect("writes");
    assert!(refusal(&scratch.path("vfsxd.toml")).contains("state_dir"));
}

#[test]
fn a_full_disk_at_start_is_one_line() {
    if !rustix::process::geteuid().is_root() {
        // Only root can mount; what follows then is a failing write like any other.
        return;
    }
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("state")).expect("makes");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(scratch.path("state"))
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("skipped: mounting is not allowed here");
        return;
    }
    // It may fail half-way: that is the point.
    let _ = fs::write(scratch.path("state/fill"), vec![0; 1 << 20]);
    let error = std::panic::catch_unwind(|| refusal(&scratch.path("vfsxd.toml")));
    let unmounted = Command::new("umount")
        .arg(scratch.path("state"))
        .status()
        .expect("runs");
    assert!(unmounted.success());
    let error = error.expect("refused in one line");
    assert!(error.contains("space") || error.contains("full"), "{error}");
}

#[test]
fn a_stop_is_clean_and_the_next_start_does_not_scan_again() {
    let scratch = Scratch::new();
    let mut daemon = scratch.start();
    assert!(scratch.control(&["settle", "--timeout", "20s"]).status.success());
    let pid = fs::read_to_string(scratch.path("pid")).expect("is there");
    assert_eq!(pid.trim(), daemon.child.id().to_string());
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.exit().code(), Some(0));
    for left in ["pid", "socket", "control"] {
        assert!(!scratch.path(left).exists(), "{left} is left behind");
    }
    let _daemon = scratch.start();
    let output = scratch.control(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("is JSON");
    let share = &status["shares"][0];
    assert_eq!(
        (&share["scan"]["state"], &share["catalog"]["bytes_read"]),
        (&"done".into(), &0.into())
    );
    assert_eq!(share["catalog"]["objects"], 2);
}

#[test]
fn after_a_kill_the_stale_sockets_are_replaced() {
    let scratch = Scratch::new();
    let mut daemon = scratch.start();
    daemon.signal(rustix::process::Signal::KILL);
    daemon.exit();
    assert!(scratch.path("socket").exists(), "stale");
    let _daemon = scratch.start();
    assert!(scratch.control(&["settle", "--timeout", "40s"]).status.success());
}

#[test]
fn a_reload_with_an_error_changes_nothing_and_a_good_one_is_taken() {
    let scratch = Scratch::new();
    let mut daemon = scratch.start();
    scratch.configure("vfsxd.toml", "colour = 1\n");
    daemon.signal(rustix::process::Signal::HUP);
    daemon.log_says("the configuration in force stays");
    let text = fs::read_to_string(scratch.configure("vfsxd.toml", "")).expect("reads");
    fs::write(scratch.path("vfsxd.toml"), format!("age = \"3s\"\n{text}")).expect("writes");
    daemon.signal(rustix::process::Signal::HUP);
    daemon.log_says("age has changed; restart vfsxd");
    assert!(scratch.control(&["status"]).status.success());
}

#[test]
fn vfsxctl_has_its_exit_codes() {
    let scratch = Scratch::new();
    let absent = scratch.control(&["status"]);
    assert_eq!(absent.status.code(), Some(1));
    assert!(one_line(&absent).contains("vfsxd does not run there"));

    let site = "[[site]]\nname = \"b\"\nurl = \"ws://127.0.0.1:1\"\ntoken_file = \"DIR/token\"\n";
    scratch.configure("vfsxd.toml", site);
    let _daemon = scratch.start();
    assert_eq!(
        scratch.control(&["settle", "--share", "other"]).status.code(),
        Some(2)
    );
    assert_eq!(scratch.control(&["nonsense"]).status.code(), Some(2));
    assert_eq!(
        scratch.control(&["settle", "--timeout", "fast"]).status.code(),
        Some(2)
    );
    let late = scratch.control(&["settle", "--timeout", "4s"]);
    assert_eq!(late.status.code(), Some(1));
    let text = String::from_utf8_lossy(&late.stderr).into_owned();
    assert!(
        text.lines()
            .last()
            .is_some_and(|l| l.starts_with("error: ") && l.contains("unreachable")),
        "{text}"
    );
    assert!(scratch.control(&["pause", "--site", "b"]).status.success());
    let status = scratch.control(&["status"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("paused"));
    assert!(scratch.control(&["resume"]).status.success());
    let sync = scratch.control(&["sync", "--share", "data"]);
    assert!(sync.status.success());
    assert!(String::from_utf8_lossy(&sync.stdout).contains("0 differed"));
}

#[test]
fn only_root_controls() {
    if !rustix::process::geteuid().is_root() {
        // Only root can become someone else.
        return;
    }
    let scratch = Scratch::new();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(scratch.directory.path(), open).expect("mode");
    let _daemon = scratch.start();
    // The program may lie where others cannot get at it, so it is run from a place where they can.
    let program = scratch.path("vfsxctl");
    fs::copy(VFSXCTL, &program).expect("copies");
    let ask = |program: &Path| {
        let mut command = Command::new(program);
        command.uid(65_534).gid(65_534);
        command.arg("--socket").arg(scratch.path("control")).arg("status");
        let deadline = Instant::now() + PATIENCE;
        loop {
            match command.output() {
                // Another test has forked while the copy was open for writing, and not executed yet.
                Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                other => return other,
            }
        }
    };
    let refused = ask(&program).expect("runs");
    assert_eq!(refused.status.code(), Some(1));
    assert!(one_line(&refused).contains("only root"));
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    fs::set_permissions(scratch.path("control"), open).expect("mode");
    let refused = ask(&program).expect("runs");
    assert!(
        one_line(&refused).contains("only root"),
        "the daemon checks for itself"
    );
}

/// The token of a site, sent to it and nowhere else.
#[test]
fn the_token_of_a_site_is_in_no_log_at_any_level() {
    use std::io::{Read, Write};
    const SECRET: &str = "2323232323232323232323232323232323232323232323232323232323232323";
    let scratch = Scratch::new();
    let site = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
    let address = site.local_addr().expect("has one");
    fs::write(scratch.path("token"), format!("restfs_0101010101010101_{SECRET}")).expect("writes");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(scratch.path("token"), mode).expect("mode");
    scratch.configure(
        "vfsxd.toml",
        &format!("[[site]]\nname = \"b\"\nurl = \"ws://{address}\"\ntoken_file = \"DIR/token\"\n"),
    );
    let log = fs::File::create(scratch.path("log")).expect("makes");
    let mut child = Command::new(VFSXD)
        .args(["--log", "trace", "--config"])
        .arg(scratch.path("vfsxd.toml"))
        .stderr(log)
        .spawn()
        .expect("starts");
    // What it asks with has the token in it, so the log was written while it had reason to tell.
    site.set_nonblocking(true).expect("sets");
    let deadline = Instant::now() + PATIENCE;
    let mut stream = loop {
        match site.accept() {
            Ok((stream, _)) => break stream,
            Err(_) => {
                assert!(Instant::now() < deadline, "vfsxd does not come to the site");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    };
    stream.set_nonblocking(false).expect("sets");
    stream.set_read_timeout(Some(PATIENCE)).expect("sets");
    let (mut asked, mut bytes) = (Vec::new(), [0; 1024]);
    while !String::from_utf8_lossy(&asked).contains("\r\n\r\n") {
        let count = stream.read(&mut bytes).expect("asks");
        assert!(count > 0, "vfsxd closed the connection");
        asked.extend_from_slice(&bytes[..count]);
    }
    assert!(String::from_utf8_lossy(&asked).contains(SECRET));
    stream
        .write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
        .expect("answers");
    drop(stream);
    // Not ended before it has told of the answer.
    let told = || fs::read_to_string(scratch.path("log")).is_ok_and(|log| log.contains("refuses the token"));
    while Instant::now() < deadline + PATIENCE && !told() {
        std::thread::sleep(Duration::from_millis(10));
    }
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::TERM,
    )
    .expect("signals");
    let mut daemon_ended = false;
    while Instant::now() < deadline + PATIENCE && !daemon_ended {
        daemon_ended = child.try_wait().expect("waits").is_some();
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
    let log = fs::read_to_string(scratch.path("log")).expect("reads");
    assert!(
        log.contains("refuses the token"),
        "the log does not reach so far: {log}"
    );
    assert!(!log.contains(&SECRET[..32]), "the token is in the log");
}
