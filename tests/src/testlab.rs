//! A lab for one test: in a scratch directory, ended with the test.

use crate::compare;
use crate::guard::Guard;
use crate::lab::{Binaries, Lab, LabOptions, Mode, READY_LIMIT, tail};
use crate::loopfs::{FileSystem, LoopFs};
use crate::wait;
use crate::work::{self, SourceTree, Wanted};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

/// How long a site may take to have everything. Tests move some hundred MiB at most.
pub const SETTLE_LIMIT: Duration = Duration::from_secs(90);

/// How long a change of the mode may take; after a start of vfsxd or a kill all sessions have to be heard of, or the share to be
/// compared.
const MODE_LIMIT: Duration = Duration::from_secs(40);
/// How long smbd may take to log what has happened.
const LOG_LIMIT: Duration = Duration::from_secs(5);

/// Ends the servers of a lab whose test was killed: they have the lab's directory on their command lines. Nothing is left to
/// be done after a test that came to its end.
const END_SERVERS: &str = r#"
for process in /proc/[0-9]*; do
    case "$(cat "$process/comm" 2>/dev/null)" in
        smbd*|samba*|rpcd_*|cleanupd|lpqd|vfsxd|restfs|systemd-socket*) ;;
        *) continue ;;
    esac
    if tr '\0' ' ' <"$process/cmdline" 2>/dev/null | grep -qF "$LAB/"; then kill -9 "${process#/proc/}"; fi
done 2>/dev/null
true
"#;

/// A lab that ends when it is dropped, and its servers also when the test is killed.
pub struct TestLab {
    lab: Lab,
    _guard: Guard,
    dir: Option<tempfile::TempDir>,
}

/// Runs `test` on a lab as `options` say, by default with one site and everything started. After a failure the lab's
/// files stay, and the ends of its logs are shown.
///
/// # Panics
/// When the lab does not start or the test fails.
pub fn with_lab(options: impl FnOnce(&mut LabOptions), test: impl FnOnce(&TestLab) -> Result<()>) {
    let mut lab = match TestLab::start(options) {
        Ok(lab) => lab,
        Err(error) => panic!("start of the lab: {error:#}"),
    };
    if let Err(error) = test(&lab) {
        lab.keep();
        panic!("{error:#}");
    }
}

/// The same with the shares on a file system of the given kind.
///
/// # Panics
/// As [`with_lab`], and when there can be no such file system.
pub fn with_lab_on(
    kind: FileSystem,
    options: impl FnOnce(&mut LabOptions),
    test: impl FnOnce(&TestLab) -> Result<()>,
) {
    let disk = match LoopFs::make(kind) {
        Ok(disk) => disk,
        Err(error) => panic!("{error:#}"),
    };
    let on_disk = |chosen: &mut LabOptions| {
        chosen.shares = Some(disk.path());
        options(chosen);
    };
    with_lab(on_disk, test);
    if let Err(error) = disk.unmount() {
        panic!("{error:#}");
    }
}

impl TestLab {
    pub fn start(change: impl FnOnce(&mut LabOptions)) -> Result<Self> {
        let mut options = LabOptions::new(Binaries::of_this_test()?);
        change(&mut options);
        Self::start_with(&options)
    }

    /// For programs that are no tests and say where the binaries are.
    pub fn start_with(options: &LabOptions) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("vfsx-test-").tempdir()?;
        let guard = Guard::new("", END_SERVERS, &[("LAB", dir.path().as_os_str())])?;
        let lab = Lab::start(dir.path(), options)?;
        Ok(Self {
            lab,
            _guard: guard,
            dir: Some(dir),
        })
    }

    /// A tree of this machine's files beside the share, not yet in it.
    pub fn source_tree(&self, files: usize, mebibytes: u64) -> Result<SourceTree> {
        let wanted = Wanted {
            files,
            bytes: mebibytes << 20,
            parts: 4,
        };
        SourceTree::make(&self.lab.dir().join("source"), wanted)
    }

    /// Names in share `data`, at any depth.
    pub fn names(&self) -> usize {
        let share = self.lab.share("data").ok();
        // Clients work on the tree while it is walked: what cannot be listed is counted at the next look.
        share
            .and_then(|share| work::walk(share).ok())
            .map_or(0, |(files, dirs)| files.len() + dirs.len())
    }

    /// Waits until share `data` has at least `count` names.
    pub fn wait_for_names(&self, count: usize) -> Result<()> {
        let what = format!("{count} names in the share");
        wait::until(
            &what,
            SETTLE_LIMIT,
            || (self.names() >= count).then_some(()),
            || format!("{}", self.names()),
        )
    }

    /// Waits until every site has what was done before.
    pub fn settle(&self) -> Result<()> {
        self.settle_within(SETTLE_LIMIT)
    }

    /// The same for more than tests move by default.
    pub fn settle_within(&self, limit: Duration) -> Result<()> {
        self.lab.settle(None, limit)
    }

    /// Waits until one site has what was done before.
    pub fn settle_site(&self, site: &str) -> Result<()> {
        self.lab.settle(Some(site), SETTLE_LIMIT)
    }

    /// Starts smbd after a kill: until its port is free again, that fails.
    pub fn start_smbd(&self) -> Result<()> {
        let smbd = &self.lab.smbd;
        wait::until(
            "restart of smbd",
            READY_LIMIT,
            || smbd.start().ok(),
            || smbd.log_tail(),
        )
    }

    /// The mode in force for share `data`, and the reason for it, as the status says.
    pub fn mode(&self) -> Result<(String, Option<String>)> {
        let status = self.lab.status()?;
        let text = |key| status.get(key).and_then(Value::as_str).map(str::to_owned);
        Ok((text("mode").context("no mode")?, text("mode_reason")))
    }

    /// Waits until the share works in that mode. With a client that is connected: a share without one is in none.
    pub fn wait_for_mode(&self, wanted: Mode) -> Result<()> {
        let is_so = || {
            let mode = self.mode();
            mode.is_ok_and(|(mode, _)| mode == wanted.as_str()).then_some(())
        };
        wait::until(&format!("mode {}", wanted.as_str()), MODE_LIMIT, is_so, || {
            format!("{:?}", self.lab.status())
        })
    }

    pub fn check_no_gap(&self) -> Result<()> {
        let status = self.lab.status()?;
        ensure!(
            status.get("gap") == Some(&Value::Null),
            "there is a gap: {status}"
        );
        Ok(())
    }

    /// Everything that was done came by events: there is no gap, and the share was not walked but once at the first start of
    /// vfsxd, when it had at most `before` directories.
    pub fn check_captured(&self, before: u64) -> Result<()> {
        self.check_no_gap()?;
        let status = self.lab.status()?;
        let walked = status.pointer("/scan/directories").and_then(Value::as_u64);
        ensure!(
            walked.unwrap_or(0) <= before,
            "the share was scanned again: {status}"
        );
        // The scan of a gap may walk as few directories as the first one.
        let healed = status.pointer("/reconcile/last_gap");
        ensure!(healed == Some(&Value::Null), "there was a gap: {status}");
        Ok(())
    }

    /// Restores share `data` from `site` and compares it with the share as it is.
    pub fn check_replica(&self, site: &str) -> Result<()> {
        self.check_point(site, None, self.lab.share("data")?)
    }

    /// Restores share `data` as of `point`, or the newest one, and compares it with `expected`.
    pub fn check_point(&self, site: &str, point: Option<u64>, expected: &Path) -> Result<()> {
        let out = tempfile::Builder::new().prefix("vfsx-replica-").tempdir()?;
        let out = out.path().join("tree");
        self.lab.site(site)?.restore(point, &out)?;
        let report = compare::compare(expected, &out, &compare::Options::default())?;
        ensure!(
            report.identical,
            "the replica at {site} is not identical:\n{report}"
        );
        Ok(())
    }

    /// Waits until smbd's log has the text, and gives the line.
    pub fn wait_for_smbd_line(&self, text: &str) -> Result<String> {
        let line = || {
            let log = fs::read(&self.lab.smbd.log).ok()?;
            let log = String::from_utf8_lossy(&log);
            log.lines().find(|line| line.contains(text)).map(str::to_owned)
        };
        wait::until(&format!("{text:?} in smbd's log"), LOG_LIMIT, line, || {
            self.lab.smbd.log_tail()
        })
    }

    /// Leaves the lab's files in place, and shows the ends of its logs.
    pub fn keep(&mut self) {
        let Some(dir) = self.dir.take() else { return };
        eprintln!("the lab's files are kept in {}", dir.keep().display());
        for service in self.lab.services() {
            eprintln!("the end of {}:\n{}", service.log.display(), tail(&service.log));
        }
    }
}

impl Deref for TestLab {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl Drop for TestLab {
    fn drop(&mut self) {
        if let Err(error) = self.lab.stop() {
            eprintln!("end of the lab: {error:#}");
        }
        if std::thread::panicking() {
            self.keep();
        }
    }
}
