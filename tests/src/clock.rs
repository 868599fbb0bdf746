//! A wall clock of its own for a server, which a test sets while the server runs.
//!
//! Debian's libfaketime stands before the C library's clock. It moves what the program itself reads as the time of day, as a step of
//! the machine's clock does, and leaves the monotonic clock alone. It does not move the kernel's own stamps on files, so it covers a
//! server whose clock and whose files' times disagree by the step, and not a file whose own times go back.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

const LIBRARIES: &str = "/usr/lib";
/// The variant for programs with threads.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

#[derive(Debug)]
pub struct Clock {
    file: PathBuf,
}

impl Clock {
    /// Shows the machine's time until it is set. `dir` keeps the step.
    pub fn new(dir: &Path) -> Result<Self> {
        let clock = Self {
            file: dir.join("clock"),
        };
        clock.set(0)?;
        Ok(clock)
    }

    /// What a command line begins with so that the program has this clock.
    pub fn command(&self) -> Result<Vec<String>> {
        let words = [
            "env".to_owned(),
            format!("LD_PRELOAD={}", library()?.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display()),
            // A second after it was set, the clock is what was set.
            "FAKETIME_CACHE_DURATION=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
            "NO_FAKE_STAT=1".to_owned(),
        ];
        Ok(words.to_vec())
    }

    /// Sets it to the machine's time and `seconds`.
    pub fn set(&self, seconds: i64) -> Result<()> {
        // The program must never read half of it.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n"))?;
        fs::rename(&new, &self.file).with_context(|| self.file.display().to_string())
    }
}

/// In the directory of this machine's architecture.
fn library() -> Result<PathBuf> {
    let dirs = fs::read_dir(LIBRARIES).context(LIBRARIES)?.flatten();
    let mut found = dirs
        .map(|dir| dir.path().join(LIBRARY))
        .filter(|path| path.is_file());
    found.next().with_context(|| {
        format!("no {LIBRARY} below {LIBRARIES}: `apt-get install libfaketime`, or run `cargo xtask test`, which installs all it needs")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    /// Answers each line with the time of day and the monotonic one.
    const TELL: &str =
        "import sys, time\nfor line in sys.stdin: print(time.time(), time.monotonic(), flush=True)";

    #[test]
    fn a_step_moves_the_time_of_day_of_a_running_program_and_nothing_else() {
        let dir = tempfile::tempdir().expect("scratch directory");
        let clock = Clock::new(dir.path()).expect("clock");
        let words = clock.command().expect("libfaketime");
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .args(["/usr/bin/python3", "-c", TELL])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("run");
        let mut input = child.stdin.take().expect("input");
        let mut output = BufReader::new(child.stdout.take().expect("output"));
        let mut tell = || {
            writeln!(input).expect("ask");
            let mut line = String::new();
            output.read_line(&mut line).expect("answer");
            let mut numbers = line
                .split_whitespace()
                .map(|word| word.parse::<f64>().expect("number"));
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .expect("after 1970")
                .as_secs_f64();
            (
                numbers.next().expect("time") - now,
                numbers.next().expect("monotonic"),
            )
        };
        let (step, before) = tell();
        assert!(step.abs() < 5.0, "{step}");
        clock.set(-86_400).expect("set");
        let mut stepped = || {
            let (step, after) = tell();
            ((step + 86_400.0).abs() < 5.0).then_some(after)
        };
        let after =
            wait::until("the step", Duration::from_secs(10), &mut stepped, String::new).expect("step");
        assert!(after > before && after < before + 60.0, "{before} {after}");
        drop(input);
        child.wait().expect("end");
    }
}
