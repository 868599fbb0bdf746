//! One run of smbtorture.

use super::outcome::Outcome;
use crate::smb_client;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use vfsx_tests::lab::Lab;
use vfsx_tests::wait;

/// How long a test may take. The longest try out every number of a request or open all the files that they can: a minute or
/// two. Some need a server that is set up for them alone, and wait for ever.
const TEST_LIMIT: Duration = Duration::from_secs(200);
/// smbtorture's own time for tests that run for a given time, in seconds.
const LOAD_SECONDS: &str = "3";

/// What some tests want to be told.
const OPTIONS: [&str; 3] = ["filename=parity.dat", "offset=4096", "beyond_final_zero=8192"];

/// smbtorture with the client's configuration in a directory of its own.
pub(super) struct Torture {
    dir: PathBuf,
    port: u16,
    auth: PathBuf,
}

impl Torture {
    pub(super) fn new(lab: &Lab) -> Result<Self> {
        let dir = lab.dir().join("torture");
        fs::create_dir(&dir)?;
        smb_client::configure(&dir, "")?;
        Ok(Self {
            dir,
            port: lab.description.smb.port,
            auth: smb_client::credentials(lab),
        })
    }

    /// Starts `test` on `share`, whose directory is `dir`.
    pub(super) fn start(&self, share: &str, dir: &Path, test: &str) -> Result<Running> {
        let output = self.dir.join(format!("{share}.out"));
        let file = fs::File::create(&output)?;
        let child = Command::new("smbtorture")
            .current_dir(&self.dir)
            .args([
                "--configfile",
                "client.conf",
                "--format=subunit",
                "--fullname",
                "--target=samba3",
            ])
            .args([
                format!("--smb-ports={}", self.port),
                format!("--timelimit={LOAD_SECONDS}"),
            ])
            .args(OPTIONS.map(|option| format!("--option=torture:{option}")))
            .arg(format!("--option=torture:localdir={}", dir.display()))
            .arg("--authentication-file")
            .arg(&self.auth)
            .args([&format!("//{}/{share}", super::arena::HOST), test])
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("run smbtorture (package samba-testsuite)")?;
        Ok(Running {
            child,
            output,
            share: share.to_owned(),
            start: Instant::now(),
        })
    }
}

/// A test under way. Ends with this value.
pub(super) struct Running {
    child: Child,
    output: PathBuf,
    share: String,
    start: Instant,
}

impl Running {
    /// Waits for the end, up to the limit.
    pub(super) fn outcome(mut self) -> Result<Outcome> {
        let left = TEST_LIMIT.saturating_sub(self.start.elapsed());
        let ended: Result<ExitStatus> = wait::until(
            "smbtorture",
            left,
            || self.child.try_wait().ok().flatten(),
            String::new,
        );
        let Ok(status) = ended else {
            return Ok(Outcome::Error(format!(
                "no end within {} s",
                TEST_LIMIT.as_secs()
            )));
        };
        let text = read(&self.output)?;
        Ok(match Outcome::read(&text, &self.share) {
            // A signal is worth telling.
            Outcome::Error(why) if !status.success() => Outcome::Error(format!("{why} ({status})")),
            outcome => outcome,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Tests print names in whatever encoding.
fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
