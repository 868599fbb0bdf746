//! Whether the machine has stopped while nobody could know of all that clients had changed.
//!
//! Under a running vfsxd: what they changed in the last moments before may then be neither in the journal nor on disk, and what was read
//! from the share may be newer than what is there. Under one that was stopped: sessions that were killed meanwhile have left word of that
//! beside the socket only, in memory, which a boot empties.
//!
//! A file says on which boot of the machine vfsxd runs, or ran last. Only when the machine itself goes down is it removed: smbd has ended
//! by then (it is ordered after vfsxd), and nothing changes any more.

use super::wall_clock::{Now, WallClock};
use rustix::fs::syncfs;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often it is noted that the shares have changed.
pub(super) const NOTE_EVERY: Duration = Duration::from_secs(30);
/// How often it is looked whether the wall clock was set.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The kernel writes changes to the disk within this time, unless it is told otherwise (35 s, and up to 5 s until the file
/// system's own journal is written).
pub(super) const WRITTEN_WITHIN: Duration = Duration::from_secs(60);
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// What the service manager says of itself takes milliseconds.
const ASKED_WITHIN: Duration = Duration::from_secs(2);
const ASK_STEP: Duration = Duration::from_millis(10);

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    boot: String,
    /// When the shares were last known to change, nanoseconds since the epoch; by the earliest that the clock was within
    /// [`WRITTEN_WITHIN`] before.
    changed_ns: i64,
    /// vfsxd was stopped then, with all that it knew of the shares on their disks.
    #[serde(default)]
    stopped: bool,
}

pub(super) struct Boot {
    path: PathBuf,
    id: String,
    /// The mark of a run before on this boot, which may have ended a moment ago.
    earlier: Option<i64>,
}

impl Boot {
    /// Gives the time from which on changes may be lost, when the machine has stopped since the last start; 0: nobody knows. The file
    /// is left as it is: whoever was told and ends is told again.
    pub(super) fn look(state_dir: &Path) -> io::Result<(Self, Option<i64>)> {
        let mut boot = Self {
            path: state_dir.join("boot"),
            id: fs::read_to_string(BOOT_ID)?.trim().to_owned(),
            earlier: None,
        };
        let since = match fs::read(&boot.path) {
            // It is written whole, so damage is a disk's.
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(mark) => boot.lost_since(&mark),
                Err(_) => Some(0),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        Ok((boot, since))
    }

    /// The wall clock, with what is known of it from before.
    pub(super) fn clock(&self) -> WallClock {
        WallClock::new(WRITTEN_WITHIN, Now::look(), self.earlier)
    }

    fn lost_since(&mut self, mark: &Mark) -> Option<i64> {
        if mark.boot == self.id {
            self.earlier = (!mark.stopped).then_some(mark.changed_ns);
            return None;
        }
        let not_written = match mark.stopped {
            true => Duration::ZERO,
            false => WRITTEN_WITHIN,
        };
        let not_written = not_written.as_nanos() as i64;
        Some(mark.changed_ns.saturating_sub(not_written).max(0))
    }

    /// vfsxd runs, and the shares have changed by now, which is `changed_ns` as [`WallClock::earliest`] has it. Durable.
    pub(super) fn note(&self, changed_ns: i64) -> io::Result<()> {
        self.write(changed_ns, false)
    }

    /// vfsxd stops at `now_ns` with all that it knows of the shares on their disks; `for_good`: so does the machine, and nobody changes
    /// anything meanwhile. Durable.
    pub(super) fn end(&self, now_ns: i64, for_good: bool) -> io::Result<()> {
        if !for_good {
            return self.write(now_ns, true);
        }
        fs::remove_file(&self.path)?;
        self.sync_directory()
    }

    fn write(&self, changed_ns: i64, stopped: bool) -> io::Result<()> {
        let mark = Mark {
            boot: self.id.clone(),
            changed_ns,
            stopped,
        };
        let temporary = self.path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&mark)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        self.sync_directory()
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()
    }
}

/// Brings everything that was written on the directory's file system to the disk.
pub(super) fn write_back(directory: &Path) -> io::Result<()> {
    Ok(syncfs(File::open(directory)?)?)
}

/// Whether the machine goes down, as far as systemd knows: without it nobody does.
pub(super) fn machine_goes_down() -> bool {
    says("systemctl", &["is-system-running"]) == Some("stopping".to_owned())
}

/// The first word that a program says in time.
fn says(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let until = Instant::now() + ASKED_WITHIN;
    while let Ok(None) = child.try_wait() {
        if Instant::now() >= until {
            // One that cannot be killed is left to the system.
            let _ = child.kill();
            return None;
        }
        std::thread::sleep(ASK_STEP);
    }
    let mut said = String::new();
    child.stdout.take()?.read_to_string(&mut said).ok()?;
    said.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTED: i64 = 1_700_000_000_000_000_000;

    fn since(state: &Path) -> Option<i64> {
        Boot::look(state).expect("reads").1
    }

    #[test]
    fn a_kill_of_vfsxd_alone_loses_nothing_and_neither_does_a_clean_stop() {
        let scratch = tempfile::tempdir().expect("scratch");
        assert_eq!(since(scratch.path()), None, "the first start");
        let (boot, _) = Boot::look(scratch.path()).expect("reads");
        boot.note(NOTED).expect("writes");
        assert_eq!(since(scratch.path()), None, "killed");
        boot.end(NOTED, false).expect("writes");
        assert_eq!(since(scratch.path()), None, "stopped");
        boot.end(NOTED, true).expect("removes");
        assert_eq!(since(scratch.path()), None, "stopped with the machine");
    }

    /// The clock may have been set forward between the two runs.
    #[test]
    fn what_a_run_before_may_have_left_unwritten_is_in_doubt_by_its_own_clock() {
        let scratch = tempfile::tempdir().expect("scratch");
        let (boot, _) = Boot::look(scratch.path()).expect("reads");
        let now = Now::look();
        assert!((boot.clock().earliest(now) - now.wall).abs() < 1_000_000_000);
        boot.note(NOTED).expect("writes");
        let (boot, _) = Boot::look(scratch.path()).expect("reads");
        let earliest = boot.clock().earliest(Now::look());
        assert!((NOTED..NOTED + 1_000_000_000).contains(&earliest), "{earliest}");
        boot.end(NOTED, false).expect("writes");
        let (boot, _) = Boot::look(scratch.path()).expect("reads");
        assert!(boot.clock().earliest(now) > NOTED, "all was on the disk");
    }

    /// Sessions that were killed after the stop have left no trace that outlives a boot.
    #[test]
    fn a_machine_that_stopped_after_a_clean_stop_leaves_what_came_after_it_in_doubt() {
        let scratch = tempfile::tempdir().expect("scratch");
        let (mut boot, _) = Boot::look(scratch.path()).expect("reads");
        boot.id = "another".to_owned();
        boot.note(NOTED - 1).expect("writes");
        boot.end(NOTED, false).expect("writes");
        assert_eq!(since(scratch.path()), Some(NOTED), "the rest was on the disk");
        boot.end(NOTED, true).expect("removes");
        assert_eq!(since(scratch.path()), None, "the machine was shut down");
    }

    #[test]
    fn the_mark_of_a_release_that_did_not_know_of_stops_is_that_of_a_running_vfsxd() {
        let scratch = tempfile::tempdir().expect("scratch");
        let mark = format!(r#"{{"boot":"another","changed_ns":{NOTED}}}"#);
        fs::write(scratch.path().join("boot"), mark).expect("writes");
        assert_eq!(
            since(scratch.path()),
            Some(NOTED - WRITTEN_WITHIN.as_nanos() as i64)
        );
    }

    #[test]
    fn a_program_is_asked_for_its_first_word_and_not_waited_for() {
        assert_eq!(says("echo", &["stopping", "now"]), Some("stopping".to_owned()));
        assert_eq!(says("false", &[]), None);
        assert_eq!(says("/nonexistent", &[]), None);
        let asked = Instant::now();
        assert_eq!(says("sleep", &["60"]), None);
        assert!(asked.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn what_may_not_have_reached_the_disk_when_the_machine_stopped_is_in_doubt_until_it_is_noted() {
        let scratch = tempfile::tempdir().expect("scratch");
        let (mut boot, _) = Boot::look(scratch.path()).expect("reads");
        boot.id = "another".to_owned();
        boot.note(NOTED).expect("writes");
        let expected = Some(NOTED - WRITTEN_WITHIN.as_nanos() as i64);
        assert_eq!(since(scratch.path()), expected);
        assert_eq!(since(scratch.path()), expected, "until it is noted");
        fs::write(&boot.path, b"{\"boot\":").expect("writes");
        assert_eq!(since(scratch.path()), Some(0), "damaged");
    }
}
