//! A socket that the service manager has opened. The tests are the manager: they hand over a descriptor as systemd does.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use vfsx_proto::{Decoder, Hello, PREAMBLE, Refusal, SessionId, ToDaemon, ToModule};

const PATIENCE: Duration = Duration::from_secs(30);
/// Descriptors from 3 on are the ones handed over. The process that is meant is the one that the shell becomes.
const ONE: &str = r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@" 3<&0 </dev/null"#;
const TWO: &str = r#"LISTEN_PID=$$ LISTEN_FDS=2 exec "$0" "$@" 3<&0 4<&0 </dev/null"#;
const FOR_ANOTHER: &str = r#"LISTEN_PID=$PPID LISTEN_FDS=1 exec "$0" "$@" 3<&0 </dev/null"#;

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        let scratch = Self(tempfile::tempdir().expect("scratch"));
        fs::create_dir(scratch.path("share")).expect("makes");
        let dir = scratch.0.path().display();
        let config = format!(
            "state_dir = \"{dir}/state\"\nsocket = \"{dir}/socket\"\ncontrol = \"{dir}/control\"\n\
             [[share]]\nname = \"data\"\npath = \"{dir}/share\"\n"
        );
        fs::write(scratch.path("vfsxd.toml"), config).expect("writes");
        scratch
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn listener(&self) -> UnixListener {
        UnixListener::bind(self.path("socket")).expect("listens")
    }

    fn command(&self, handing_over: &str, what: impl Into<OwnedFd>) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", handing_over, env!("CARGO_BIN_EXE_vfsxd"), "--config"])
            .arg(self.path("vfsxd.toml"))
            .stdin(what.into())
            .stderr(Stdio::piped());
        command
    }

    fn start(&self, handing_over: &str, what: impl Into<OwnedFd>) -> Daemon {
        let mut child = self.command(handing_over, what).spawn().expect("starts");
        let log = BufReader::new(child.stderr.take().expect("is piped"));
        let mut daemon = Daemon { child, log };
        daemon.log_says("vfsxd is ready");
        daemon
    }

    /// Why vfsxd did not start.
    fn refused(&self, handing_over: &str, what: impl Into<OwnedFd>) -> String {
        let Output { status, stderr, .. } = self.command(handing_over, what).output().expect("runs");
        let said = String::from_utf8(stderr).expect("text");
        assert_eq!(status.code(), Some(1), "{said}");
        let mut errors = said.lines().filter(|line| line.starts_with("error: "));
        let error = errors
            .next()
            .unwrap_or_else(|| panic!("no error: {said}"))
            .to_owned();
        assert_eq!(errors.next(), None, "{said}");
        error
    }
}

struct Daemon {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Daemon {
    /// Reads on until the line; the end of the log ends the test.
    fn log_says(&mut self, what: &str) {
        let mut seen = String::new();
        while !seen.contains(what) {
            let read = self.log.read_line(&mut seen).expect("reads");
            assert!(read > 0, "vfsxd has ended: {seen}");
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .expect("signals");
    }

    fn stop(mut self) {
        self.signal(rustix::process::Signal::TERM);
        assert!(self.child.wait().expect("ends").success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a module begins with, for a share that is not configured.
fn greet(scratch: &Scratch) -> UnixStream {
    let mut stream = UnixStream::connect(scratch.path("socket")).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("sets");
    let mut bytes = vfsx_proto::preamble().to_vec();
    let hello = Hello {
        session: SessionId([1; 16]),
        share: "other".to_owned(),
        ..Hello::default()
    };
    vfsx_proto::encode(&ToDaemon::Hello(hello), &mut bytes).expect("is short");
    stream.write_all(&bytes).expect("there is room");
    stream
}

fn answer(mut stream: UnixStream) -> ToModule {
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .expect("vfsxd answers, and ends it");
    let mut decoder = Decoder::default();
    decoder.push(&bytes[PREAMBLE..]);
    decoder.next().expect("a frame").expect("a whole one")
}

#[test]
fn who_connects_while_no_vfsxd_runs_is_served_by_the_next_one() {
    let scratch = Scratch::new();
    let listener = scratch.listener();
    let hand_over = || scratch.start(ONE, listener.try_clone().expect("copies"));
    let unknown = ToModule::Refused(Refusal::UnknownShare {
        share: "other".to_owned(),
    });

    let early = greet(&scratch);
    let first = hand_over();
    assert_eq!(answer(early), unknown);
    first.stop();

    let between = greet(&scratch);
    let second = hand_over();
    assert_eq!(answer(between), unknown);
    second.signal(rustix::process::Signal::KILL);
    drop(second);

    let behind = greet(&scratch);
    let third = hand_over();
    assert_eq!(answer(behind), unknown);
    third.stop();
}

#[test]
fn a_socket_that_was_handed_over_is_not_replaced_and_its_mode_stays() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let scratch = Scratch::new();
    let listener = scratch.listener();
    fs::set_permissions(scratch.path("socket"), fs::Permissions::from_mode(0o640)).expect("sets");
    let look = || {
        let metadata = fs::symlink_metadata(scratch.path("socket")).expect("is there");
        (metadata.ino(), metadata.mode() & 0o777)
    };
    let before = look();
    let daemon = scratch.start(ONE, listener);
    assert_eq!(look(), before);
    daemon.stop();
    assert_eq!(look(), before, "it is the manager's");
}

#[test]
fn one_that_vfsxd_opens_itself_goes_with_it_whatever_others_were_handed() {
    let scratch = Scratch::new();
    let elsewhere = UnixListener::bind(scratch.path("elsewhere")).expect("listens");
    let daemon = scratch.start(FOR_ANOTHER, elsewhere);
    answer(greet(&scratch));
    daemon.stop();
    assert!(!scratch.path("socket").exists());
}

#[test]
fn a_path_through_a_symbolic_link_is_the_same_path() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("run")).expect("makes");
    let listener = UnixListener::bind(scratch.path("run/socket")).expect("listens");
    std::os::unix::fs::symlink(scratch.path("run/socket"), scratch.path("socket")).expect("links");
    let daemon = scratch.start(ONE, listener);
    answer(greet(&scratch));
    daemon.stop();
}

#[test]
fn what_no_module_would_find_or_vfsxd_cannot_use_is_refused_in_one_line() {
    let scratch = Scratch::new();
    let elsewhere = UnixListener::bind(scratch.path("elsewhere")).expect("listens");
    let said = scratch.refused(ONE, elsewhere);
    assert!(
        said.contains("/elsewhere, and `socket` is") && said.ends_with("make them the same"),
        "{said}"
    );

    let file = File::open(scratch.path("vfsxd.toml")).expect("opens");
    let said = scratch.refused(ONE, file);
    assert!(said.contains("no Unix stream socket that listens"), "{said}");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("listens");
    let said = scratch.refused(ONE, tcp);
    assert!(said.contains("no Unix stream socket that listens"), "{said}");
    let (connected, _other_end) = UnixStream::pair().expect("connects");
    let said = scratch.refused(ONE, connected);
    assert!(said.contains("no Unix stream socket that listens"), "{said}");

    let listener = scratch.listener();
    let said = scratch.refused(TWO, listener.try_clone().expect("copies"));
    assert!(said.contains("2 sockets were handed over"), "{said}");
    fs::remove_file(scratch.path("socket")).expect("removes");
    let said = scratch.refused(ONE, listener);
    assert!(
        said.contains("nothing is at") && said.ends_with("restart its unit"),
        "{said}"
    );
    assert!(!scratch.path("state/lock").exists(), "nothing was begun");
}
