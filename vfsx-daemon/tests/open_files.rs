//! vfsxd with no open files left: it tells, takes no processor time for that, and goes on.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const VFSXD: &str = env!("CARGO_BIN_EXE_vfsxd");
const VFSXCTL: &str = env!("CARGO_BIN_EXE_vfsxctl");
const PATIENCE: Duration = Duration::from_secs(30);
/// vfsxd itself needs some forty.
const FILES: usize = 120;
const WATCHED: Duration = Duration::from_secs(2);

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn status(config: &Path) -> Output {
    let mut command = Command::new(VFSXCTL);
    command.arg("--config").arg(config).args(["status", "--json"]);
    command.output().expect("runs")
}

/// Processor time that the process has taken, in ticks of 10 ms.
fn ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("runs");
    let (_, fields) = stat.rsplit_once(") ").expect("as proc(5) says");
    let fields: Vec<_> = fields.split(' ').collect();
    [fields[11], fields[12]]
        .iter()
        .map(|ticks| ticks.parse::<u64>().expect("a number"))
        .sum()
}

#[test]
fn without_open_files_connections_wait_and_that_is_told_and_costs_nothing() {
    let scratch = tempfile::tempdir().expect("scratch");
    let path = |name: &str| scratch.path().join(name);
    fs::create_dir(path("share")).expect("makes");
    let text = "state_dir = \"DIR/state\"\nsocket = \"DIR/socket\"\ncontrol = \"DIR/control\"\n\
                [[share]]\nname = \"data\"\npath = \"DIR/share\"\n";
    let config = path("vfsxd.toml");
    fs::write(
        &config,
        text.replace("DIR", &scratch.path().display().to_string()),
    )
    .expect("writes");
    let log = || fs::read_to_string(path("log")).expect("reads");
    let mut command = Command::new("sh");
    // The soft limit is lower still: vfsxd is to raise it.
    command.args([
        "-c",
        &format!("ulimit -Sn 60; ulimit -Hn {FILES}; exec \"$0\" \"$@\""),
        VFSXD,
        "--config",
    ]);
    command
        .arg(&config)
        .stdin(Stdio::null())
        .stderr(fs::File::create(path("log")).expect("makes"));
    let daemon = Daemon(command.spawn().expect("starts"));
    until("vfsxd is ready", || {
        log().contains("vfsxd is ready").then_some(())
    });
    assert!(
        log().contains(&format!("{FILES} files may be open at once, which is too few")),
        "{}",
        log()
    );

    // They say nothing, so each is there for 5 s; those that are accepted take all that there is.
    let many: Vec<_> = (0..2 * FILES)
        .map(|_| UnixStream::connect(path("socket")).expect("the queue has room"))
        .collect();
    until("it is told", || {
        log().contains("connection cannot be accepted").then_some(())
    });
    let process = daemon.0.id();
    let open = fs::read_dir(format!("/proc/{process}/fd"))
        .expect("lists")
        .count();
    assert!(open > 60, "{open} files: the limit was not raised");
    let before = ticks(process);
    std::thread::sleep(WATCHED);
    let taken = ticks(process) - before;
    assert!(taken < 50, "{taken} ticks of the processor in {WATCHED:?}");
    assert_eq!(log().matches("cannot be accepted").count(), 1, "once a minute");
    drop(many);

    let report = until("it answers again", || {
        let output = status(&config);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        (report.pointer("/modules/accept_failures")?.as_u64()? > 0).then_some(report)
    });
    assert_eq!(report.pointer("/modules/sessions"), Some(&0.into()), "{report}");
    let mut again = UnixStream::connect(path("socket")).expect("connects");
    let mut said = [0; 1];
    std::io::Read::read_exact(&mut again, &mut said).expect("is greeted");
}
