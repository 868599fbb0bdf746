//! A client in Python: it gets one request a line and answers each.

use crate::lab::Lab;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The distribution's Python: the package python3-impacket belongs to it alone.
const PYTHON: &str = "/usr/bin/python3";
const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients");

#[derive(Debug)]
pub(super) struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Program {
    /// Starts the program of this name, which connects to a share.
    pub(super) fn start(lab: &Lab, name: &str, share: &str) -> Result<Self> {
        let smb = &lab.description.smb;
        let mut child = Command::new(PYTHON)
            // Nothing is written beside the programs.
            .arg("-B")
            .arg(Path::new(PROGRAMS).join(name))
            .args([&smb.host, &smb.port.to_string(), share])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("run {PYTHON}"))?;
        let input = child.stdin.take().context("input of the client")?;
        let output = BufReader::new(child.stdout.take().context("output of the client")?);
        let mut program = Self { child, input, output };
        program.ask(&json!({ "user": smb.user, "password": smb.password })).context(
            "SMB client in Python: is the package python3-impacket installed? `cargo xtask test` installs all it needs",
        )?;
        Ok(program)
    }

    pub(super) fn tell(&mut self, request: &Value) -> Result<()> {
        self.ask(request).map(drop)
    }

    pub(super) fn ask(&mut self, request: &Value) -> Result<Value> {
        writeln!(self.input, "{request}").context("the SMB client has ended; its message is above")?;
        self.input.flush()?;
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("the SMB client has ended; its message is above");
        }
        let answer: Value =
            serde_json::from_str(&line).with_context(|| format!("answer of the client: {line}"))?;
        match (answer.get("ok"), answer.get("refused")) {
            (Some(ok), _) => Ok(ok.clone()),
            (None, Some(refused)) => bail!("refused by smbd: {refused}: {request}"),
            (None, None) => bail!("answer of the client: {line}"),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
