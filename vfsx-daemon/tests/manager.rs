//! What the service manager is told: on a notify socket of the test's own.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
const WATCHDOG: Duration = Duration::from_millis(400);

struct Daemon {
    child: Child,
    told: UnixDatagram,
    _scratch: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Self {
        let scratch = tempfile::tempdir().expect("scratch");
        let dir = scratch.path().display();
        fs::create_dir(scratch.path().join("share")).expect("makes");
        let config = format!(
            "state_dir = \"{dir}/state\"\nsocket = \"{dir}/socket\"\ncontrol = \"{dir}/control\"\n\
             [[share]]\nname = \"data\"\npath = \"{dir}/share\"\n"
        );
        fs::write(scratch.path().join("vfsxd.toml"), config).expect("writes");
        let told = UnixDatagram::bind(scratch.path().join("notify")).expect("binds");
        told.set_read_timeout(Some(PATIENCE)).expect("sets");
        // The process that is meant, as systemd says it.
        let child = Command::new("sh")
            .args([
                "-c",
                "WATCHDOG_PID=$$ exec \"$0\" \"$@\"",
                env!("CARGO_BIN_EXE_vfsxd"),
            ])
            .arg("--config")
            .arg(scratch.path().join("vfsxd.toml"))
            .env("NOTIFY_SOCKET", scratch.path().join("notify"))
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
            .spawn()
            .expect("starts");
        Self {
            child,
            told,
            _scratch: scratch,
        }
    }

    /// The next message.
    fn hear(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.told.recv(&mut buffer).expect("vfsxd says something");
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    }

    /// The next one that is not about the watchdog.
    fn hear_news(&self) -> String {
        std::iter::repeat_with(|| self.hear())
            .find(|said| said != "WATCHDOG=1")
            .expect("endless")
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .expect("signals");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_service_manager_hears_of_start_reload_and_end() {
    let mut daemon = Daemon::start();
    assert_eq!(daemon.hear_news(), "READY=1");
    daemon.signal(rustix::process::Signal::HUP);
    let reloading = daemon.hear_news();
    let (first, second) = reloading.split_once('\n').expect("two lines");
    assert_eq!(first, "RELOADING=1");
    assert!(second.starts_with("MONOTONIC_USEC="), "{second}");
    assert_eq!(daemon.hear_news(), "READY=1");
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.hear_news(), "STOPPING=1");
    assert!(daemon.child.wait().expect("ends").success());
}

#[test]
fn the_watchdog_is_told_in_time_and_not_by_one_that_stands_still() {
    let daemon = Daemon::start();
    assert_eq!(daemon.hear_news(), "READY=1");
    let begun = Instant::now();
    for _ in 0..6 {
        assert_eq!(daemon.hear(), "WATCHDOG=1");
    }
    // The first comes at once, each of the others after half the time.
    assert!(begun.elapsed() >= WATCHDOG * 2, "{:?}", begun.elapsed());
    daemon.signal(rustix::process::Signal::STOP);
    let quiet = WATCHDOG * 4;
    // What was said before the stop is heard first.
    let nothing_more = || {
        daemon.told.set_read_timeout(Some(quiet)).expect("sets");
        daemon.told.recv(&mut [0; 64]).is_err()
    };
    let deadline = Instant::now() + PATIENCE;
    while !nothing_more() {
        assert!(
            Instant::now() < deadline,
            "a process that stands still says that it is alive"
        );
    }
}
