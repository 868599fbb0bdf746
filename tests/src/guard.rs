//! Cleaning up that happens whatever becomes of the test: by a process of its own.

use anyhow::{Context, Result, ensure};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// What the shell says when the set-up is done.
const READY: &str = "ready";
/// `cat` ends when the last process that holds the other end of the pipe has ended or closed it. Signals that end a test
/// from the terminal, and a test that can no longer read what is said, do not end the guard.
const FRAME: &str = r#"
trap '' HUP INT QUIT PIPE TERM
PATH="$PATH:/usr/sbin:/sbin"
set_up() { :; {set_up}
}
set_up >&2 </dev/null || exit 1
echo ready
cat >/dev/null
{clean_up}
"#;

/// A shell that cleans up when this value is dropped or this process ends in any other way, by a kill too.
#[derive(Debug)]
pub struct Guard {
    shell: Child,
    /// Closed by the kernel when this process ends.
    trigger: Option<ChildStdin>,
}

impl Guard {
    /// Runs the shell commands `set_up` now and `clean_up` at the end, in one process, so that neither can happen without the
    /// other. `variables` are in the environment of both.
    pub fn new(set_up: &str, clean_up: &str, variables: &[(&str, &OsStr)]) -> Result<Self> {
        let script = FRAME.replace("{set_up}", set_up).replace("{clean_up}", clean_up);
        let mut shell = Command::new("sh")
            .args(["-c", &script])
            .envs(variables.iter().copied())
            // A signal to the group of the test, SIGKILL too, does not reach it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("run sh")?;
        let trigger = shell.stdin.take();
        let output = shell.stdout.take().context("output of the guard")?;
        let mut guard = Self { shell, trigger };
        guard.wait_until_ready(output)?;
        Ok(guard)
    }

    /// Cleans up now.
    pub fn release(mut self) -> Result<()> {
        self.clean_up()
    }

    fn wait_until_ready(&mut self, output: ChildStdout) -> Result<()> {
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line.trim() == READY, "{}", self.said());
        Ok(())
    }

    fn clean_up(&mut self) -> Result<()> {
        if self.trigger.take().is_none() {
            return Ok(());
        }
        let said = self.said();
        let status = self.shell.wait()?;
        ensure!(status.success(), "cleaning up: {said}");
        Ok(())
    }

    /// What the shell's commands said, up to its end.
    fn said(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut output) = self.shell.stderr.take() {
            output.read_to_string(&mut text).ok();
        }
        text.trim().to_owned()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(error) = self.clean_up() {
            eprintln!("{error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;
    use std::path::Path;
    use std::time::Duration;

    const LIMIT: Duration = Duration::from_secs(10);
    /// Makes the program below a guard's owner that is then killed.
    const ROLE: &str = "VFSX_GUARD_FILE";

    fn guard(file: &Path) -> Guard {
        let commands = ("touch \"$FILE\"", "rm \"$FILE\"");
        Guard::new(commands.0, commands.1, &[("FILE", file.as_os_str())]).expect("guard")
    }

    #[test]
    fn what_was_set_up_is_gone_when_the_value_is() {
        let dir = tempfile::tempdir().expect("scratch directory");
        let file = dir.path().join("made");
        let guard = guard(&file);
        assert!(file.exists());
        guard.release().expect("clean-up");
        assert!(!file.exists());
    }

    #[test]
    fn a_failed_set_up_says_why() {
        let error = Guard::new("ls /nowhere/at/all", "", &[]).expect_err("nothing is there");
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }

    #[test]
    fn what_a_killed_process_set_up_is_gone_too() {
        if let Some(file) = std::env::var_os(ROLE) {
            let guard = guard(Path::new(&file));
            nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL).ok();
            drop(guard);
            return;
        }
        let dir = tempfile::tempdir().expect("scratch directory");
        let file = dir.path().join("made");
        let name = "guard::tests::what_a_killed_process_set_up_is_gone_too";
        let output = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", name, "--nocapture"])
            .env(ROLE, &file)
            .output()
            .expect("this program again");
        assert!(!output.status.success(), "it was not killed");
        let gone = || (!file.exists()).then_some(());
        wait::until("clean-up", LIMIT, gone, || "the file is there".to_owned()).expect("clean-up");
    }
}
