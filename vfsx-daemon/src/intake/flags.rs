//! Gap flag files: what a module leaves behind when no vfsxd was there to be told.
//!
//! `<state_dir>/gaps/<share>/<session>`, one line of JSON: `{"since_ns":..,"reason":..,"pid":..,"last":..}`. With `last` nothing is
//! lost if the session's events up to that one are in the journal after all: the acknowledgement was late. The same in
//! `gaps/<share>/live/<session>` beside the socket is a standing flag: changes in the memory of a process that holds a lock on the file.
//! Once the lock is gone, the process was killed and they are lost; or, where there is a `last`, the session has ended: this is its word, for a
//! vfsxd that has not noted the end.

use super::pending_gap::PendingGap;
use crate::journal::{GapReason, Session};
use serde::Deserialize;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Files taken in one go; more wait for the next second.
const AT_ONCE: usize = 1_000;
const UNFINISHED: &str = "new";
const STANDING: &str = "live";
/// Writing a flag takes one sync.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);
/// A flag is one line.
const MAX_BYTES: u64 = 4096;

#[derive(Deserialize)]
struct Line {
    since_ns: i64,
    #[serde(default)]
    reason: String,
    last: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Flag {
    /// To be removed when it is dealt with.
    pub(super) path: PathBuf,
    pub(super) gap: PendingGap,
    /// Nothing is lost if the journal has the session's events up to this one.
    pub(super) unless: Option<(Session, u64)>,
    /// One that stood until its process, or the session, had ended.
    pub(super) stood: bool,
}

/// The flags of a share: those of sessions that are over, and the standing ones of processes that are.
pub(super) fn read(gaps: &Path, standing: &Path, share: &str) -> io::Result<Vec<Flag>> {
    let mut found = Vec::new();
    for path in session_files(gaps, share)? {
        take(path, false, &mut found)?;
    }
    for directory in directories(standing, share)? {
        for path in orphans(&directory.join(STANDING))? {
            take(path, true, &mut found)?;
        }
    }
    Ok(found)
}

fn take(path: PathBuf, stood: bool, found: &mut Vec<Flag>) -> io::Result<()> {
    match parse(path) {
        Ok(flag) => found.push(Flag { stood, ..flag }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    Ok(())
}

/// Some of the files that sessions of the share have left below `directory`.
pub(super) fn session_files(directory: &Path, share: &str) -> io::Result<Vec<PathBuf>> {
    files(directory, share, AT_ONCE)
}

/// Sessions that have left files there, all of them.
pub(super) fn sessions(directory: &Path, share: &str) -> io::Result<Vec<Option<Session>>> {
    let files = files(directory, share, usize::MAX)?;
    Ok(files.iter().map(|path| session(path)).collect())
}

/// Those that are being written are left out.
fn files(directory: &Path, share: &str, most: usize) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for directory in directories(directory, share)? {
        for entry in fs::read_dir(&directory)?.take(most) {
            let entry = entry?;
            if entry.file_type()?.is_file() && !is_being_written(&entry) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// The standing flags of the share's sessions.
pub(super) fn standing(standing: &Path, share: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for directory in directories(standing, share)? {
        let entries = match fs::read_dir(directory.join(STANDING)) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            if !is_being_written(&entry) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// The session's end is in the journal, with its events up to `acknowledged`: a word that it left of no more is not needed.
pub(super) fn drop_word(standing: &Path, share: &str, session: Session, acknowledged: u64) {
    let name = hex::encode(session.0);
    for directory in directories(standing, share).unwrap_or_default() {
        let path = directory.join(STANDING).join(&name);
        let is_word = || {
            let flag = parse(path.clone()).ok()?;
            Some(flag.unless?.1 <= acknowledged)
        };
        if is_orphan(&path) && is_word() == Some(true) {
            // One that stays is looked at with the next tending.
            let _ = fs::remove_file(path);
        }
    }
}

/// Standing flags whose process has ended.
fn orphans(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for entry in entries.take(AT_ONCE) {
        let entry = entry?;
        if is_being_written(&entry) {
            continue;
        }
        let path = entry.path();
        if is_orphan(&path) {
            found.push(path);
        }
    }
    Ok(found)
}

/// One that is not there was lowered: its changes were taken after all.
fn is_orphan(path: &Path) -> bool {
    fs::File::open(path).is_ok_and(|file| file.try_lock().is_ok())
}

/// A module writes to this name first and renames then. One that stays was left by a process that did not get that far.
fn is_being_written(entry: &fs::DirEntry) -> bool {
    let unfinished = entry.path().extension().is_some_and(|e| e == UNFINISHED);
    let age = entry
        .metadata()
        .and_then(|m| m.modified())
        .map(|time| time.elapsed().unwrap_or_default());
    unfinished && age.is_ok_and(|age| age < WRITTEN_WITHIN)
}

/// Where the session's file is, if it has left one below `directory`.
pub(super) fn file_of(directory: &Path, share: &str, session: Session) -> io::Result<Option<PathBuf>> {
    let name = hex::encode(session.0);
    let mut files = directories(directory, share)?
        .into_iter()
        .map(|directory| directory.join(&name));
    Ok(files.find(|path| path.exists()))
}

/// What a session may have begun to write.
pub(super) fn unfinished(directory: &Path, share: &str, session: Session) -> Vec<PathBuf> {
    let name = format!("{}.{UNFINISHED}", hex::encode(session.0));
    let directories = directories(directory, share).unwrap_or_default();
    directories
        .into_iter()
        .map(|directory| directory.join(&name))
        .collect()
}

/// Samba does not tell share names apart by case.
pub(super) fn directories(gaps: &Path, share: &str) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(gaps) {
        Ok(entries) => entries,
        // A socket's path that leads through a file is told of when vfsxd listens there.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let same = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.eq_ignore_ascii_case(share));
        if same && entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// One that cannot be understood still says that there was a gap, since nobody knows when: what is lost may be older than the file.
pub(super) fn parse(path: PathBuf) -> io::Result<Flag> {
    let metadata = fs::symlink_metadata(&path)?;
    let unknown = PendingGap {
        since_ns: 0,
        reason: GapReason::Unknown,
    };
    let text = if metadata.len() > MAX_BYTES {
        Vec::new()
    } else {
        fs::read(&path)?
    };
    let (gap, last) = match serde_json::from_slice::<Line>(&text) {
        Ok(line) => {
            let gap = PendingGap {
                since_ns: line.since_ns,
                reason: reason(&line.reason),
            };
            (gap, line.last)
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "gap flag cannot be understood; taken as a gap");
            (unknown, None)
        }
    };
    let unless = session(&path).zip(last);
    Ok(Flag {
        path,
        gap,
        unless,
        stood: false,
    })
}

/// The file's name.
pub(super) fn session(path: &Path) -> Option<Session> {
    let bytes = hex::decode(path.file_name()?.to_str()?).ok()?;
    bytes.try_into().ok().map(Session)
}

/// Spelling is taken lightly: `ring-full`, `ring_full` and `RingFull` are one.
fn reason(text: &str) -> GapReason {
    let letters: String = text.chars().filter(char::is_ascii_alphabetic).collect();
    match letters.to_ascii_lowercase().as_str() {
        "ringfull" => GapReason::RingFull,
        "daemonabsent" => GapReason::DaemonAbsent,
        "panic" => GapReason::Panic,
        "unrepresentable" => GapReason::Unrepresentable,
        "killed" => GapReason::Killed,
        _ => GapReason::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_found_whatever_the_case_of_the_share_and_whatever_they_hold() {
        let scratch = tempfile::tempdir().expect("scratch");
        assert!(
            read(&scratch.path().join("none"), scratch.path(), "data")
                .expect("nothing there")
                .is_empty()
        );
        let directory = scratch.path().join("Data");
        fs::create_dir(&directory).expect("makes");
        fs::create_dir(scratch.path().join("other")).expect("makes");
        fs::write(
            directory.join("aa"),
            r#"{"since_ns":7,"reason":"daemon-absent","pid":3}"#,
        )
        .expect("writes");
        fs::write(directory.join("bb"), "").expect("writes");
        fs::write(directory.join("cc.new"), "half").expect("writes");
        fs::write(scratch.path().join("other/dd"), "").expect("writes");
        let mut found = read(scratch.path(), scratch.path(), "data").expect("reads");
        found.sort_by_key(|flag| flag.path.clone());
        assert_eq!(found.len(), 2);
        assert_eq!(
            found[0].gap,
            PendingGap {
                since_ns: 7,
                reason: GapReason::DaemonAbsent
            }
        );
        assert_eq!(found[1].gap.reason, GapReason::Unknown);
        assert_eq!(found[0].unless, None);
        assert_eq!(found[1].gap.since_ns, 0, "nobody knows");

        let unfinished = fs::File::options()
            .write(true)
            .open(directory.join("cc.new"))
            .expect("opens");
        unfinished
            .set_modified(std::time::SystemTime::now() - WRITTEN_WITHIN * 2)
            .expect("sets");
        assert_eq!(
            read(scratch.path(), scratch.path(), "data").expect("reads").len(),
            3,
            "one left behind is a gap too"
        );
    }

    #[test]
    fn a_flag_may_name_the_last_event_it_is_about() {
        let scratch = tempfile::tempdir().expect("scratch");
        let directory = scratch.path().join("data");
        fs::create_dir(&directory).expect("makes");
        let line = r#"{"since_ns":7,"reason":"DaemonAbsent","pid":3,"last":9}"#;
        fs::write(directory.join("ab".repeat(16)), line).expect("writes");
        let found = read(scratch.path(), scratch.path(), "data").expect("reads");
        assert_eq!(found[0].unless, Some((Session([0xAB; 16]), 9)));
    }

    #[test]
    fn a_flag_longer_than_a_line_or_nested_without_end_is_a_gap_of_unknown_cause() {
        let scratch = tempfile::tempdir().expect("scratch");
        let directory = scratch.path().join("data");
        fs::create_dir(&directory).expect("makes");
        let line = r#"{"since_ns":7,"reason":"RingFull"}"#;
        let most = MAX_BYTES as usize;
        let reason = |text: &str| {
            fs::write(directory.join("aa"), text).expect("writes");
            read(scratch.path(), scratch.path(), "data").expect("reads")[0]
                .gap
                .reason
        };
        assert_eq!(reason(&format!("{line:most$}")), GapReason::RingFull);
        assert_eq!(reason(&format!("{line:0$}", most + 1)), GapReason::Unknown);
        assert_eq!(reason(&"[".repeat(most)), GapReason::Unknown);
        assert_eq!(reason(&"{\"since_ns\":".repeat(most / 12)), GapReason::Unknown);
    }

    #[test]
    fn a_standing_flag_counts_once_its_process_has_ended() {
        let scratch = tempfile::tempdir().expect("scratch");
        let live = scratch.path().join("data/live");
        fs::create_dir_all(&live).expect("makes");
        fs::write(
            live.join("aa"),
            r#"{"since_ns":7,"reason":"DaemonAbsent","pid":3}"#,
        )
        .expect("writes");
        let process = fs::File::open(live.join("aa")).expect("opens");
        process.try_lock().expect("locks");
        assert!(
            read(scratch.path(), scratch.path(), "data")
                .expect("reads")
                .is_empty()
        );
        drop(process);
        let found = read(scratch.path(), scratch.path(), "data").expect("reads");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].gap.since_ns, 7);
    }
}
