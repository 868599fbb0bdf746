//! smbclient, one process per call.

use crate::lab::Lab;
use anyhow::{Context, Result, bail, ensure};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What smbclient prints when the server refused something. Its exit code tells only of the last command.
const REFUSALS: [&str; 5] = [
    "NT_STATUS_",
    "ERRDOS",
    "ERRSRV",
    "command not found",
    "does not exist",
];

/// A share as seen through smbclient.
#[derive(Debug, Clone)]
pub struct SmbClient {
    unc: String,
    port: u16,
    auth: PathBuf,
    options: &'static [&'static str],
}

impl SmbClient {
    pub fn new(lab: &Lab, share: &str) -> Self {
        let smb = &lab.description.smb;
        Self {
            unc: format!("//{}/{share}", smb.host),
            port: smb.port,
            auth: lab.dir().join("samba/private/auth"),
            options: &[],
        }
    }

    /// By SMB1, which has commands for POSIX calls; smbd wants `server min protocol = NT1` for it.
    pub fn by_smb1(self) -> Self {
        Self {
            options: &["-m", "NT1", "--option=client min protocol=NT1"],
            ..self
        }
    }

    /// Runs smbclient's commands one after another in one connection; an error when any of them was refused.
    pub fn run<S: AsRef<str>>(&self, commands: &[S]) -> Result<String> {
        self.run_in(Path::new("/"), commands)
    }

    /// The same with `local` as smbclient's local directory.
    pub fn run_in<S: AsRef<str>>(&self, local: &Path, commands: &[S]) -> Result<String> {
        let output = self.output(local, commands)?;
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let refused = text
            .lines()
            .find(|line| REFUSALS.iter().any(|word| line.contains(word)));
        if let Some(line) = refused {
            bail!("smbclient {}: {}", self.unc, line.trim());
        }
        ensure!(
            output.status.success(),
            "smbclient {}: {}: {}",
            self.unc,
            output.status,
            text.trim()
        );
        Ok(text)
    }

    /// The same without judging what came out: for clients whose server may go away.
    pub fn output<S: AsRef<str>>(&self, local: &Path, commands: &[S]) -> Result<Output> {
        let mut child = self
            .command("smbclient")
            .arg(&self.unc)
            .current_dir(local)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("run smbclient")?;
        let input = child.stdin.take().context("smbclient's input")?;
        let script: String = commands
            .iter()
            .map(|command| format!("{}\n", command.as_ref()))
            .collect();
        // Written beside the reading of its output: a long script and long answers would block each other.
        let writer = std::thread::spawn(move || {
            let mut input = input;
            input.write_all(script.as_bytes()).ok();
        });
        let output = child.wait_with_output()?;
        writer.join().ok();
        Ok(output)
    }

    /// Copies everything in `local` to the share's directory `to`, which must exist.
    pub fn put_tree(&self, local: &Path, to: &str) -> Result<()> {
        self.run_in(
            local,
            &[
                format!("cd {}", quote(to)),
                "prompt OFF".into(),
                "recurse ON".into(),
                "mput *".into(),
            ],
        )?;
        Ok(())
    }

    pub fn put(&self, local: &Path, to: &str) -> Result<()> {
        self.run(&[format!("put \"{}\" {}", local.display(), quote(to))])?;
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // The machine's own smb.conf has no say here.
        command
            .args(["-s", "/dev/null", "-p", &self.port.to_string(), "-A"])
            .arg(&self.auth)
            .args(self.options);
        command
    }
}

/// A path on the share as one word of an smbclient command.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('/', "\\"))
}
