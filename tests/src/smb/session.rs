//! One SMB connection that keeps handles open, through Python's impacket.

use crate::lab::Lab;
use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The distribution's Python: the package python3-impacket belongs to it alone.
const PYTHON: &str = "/usr/bin/python3";
const PROGRAM: &str = include_str!("../../clients/session.py");

/// An open file of a [`Session`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle(u64);

#[derive(Debug)]
pub struct Session {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    pub fn connect(lab: &Lab, share: &str) -> Result<Self> {
        let smb = &lab.description.smb;
        let mut child = Command::new(PYTHON)
            .args(["-c", PROGRAM, &smb.host, &smb.port.to_string(), share])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("run {PYTHON}"))?;
        let input = child.stdin.take().context("input of the client")?;
        let output = BufReader::new(child.stdout.take().context("output of the client")?);
        let mut session = Self { child, input, output };
        session.ask(&json!({ "user": smb.user, "password": smb.password })).context(
            "SMB client in Python: is the package python3-impacket installed? `cargo xtask test` installs all it needs",
        )?;
        Ok(session)
    }

    /// Opens a file for reading, writing and deleting; `disposition` is open, create, open_if, overwrite,
    /// overwrite_if or supersede.
    pub fn create(&mut self, path: &str, disposition: &str) -> Result<Handle> {
        let answer = self.ask(&json!({ "do": "create", "path": path, "disposition": disposition }))?;
        let handle = answer.get("handle").and_then(Value::as_u64);
        handle.map(Handle).context("no handle in the client's answer")
    }

    pub fn write(&mut self, handle: Handle, offset: u64, data: &[u8]) -> Result<()> {
        let data = STANDARD.encode(data);
        self.tell(&json!({ "do": "write", "handle": handle.0, "offset": offset, "data": data }))
    }

    /// `count` writes of `size` random bytes at distinct multiples of `size` below `span`; the same seed gives the
    /// same writes. Returns their offsets.
    pub fn random_writes(
        &mut self,
        handle: Handle,
        count: u64,
        size: u64,
        span: u64,
        seed: u64,
    ) -> Result<Vec<u64>> {
        let answer = self.ask(&json!({
            "do": "random_writes", "handle": handle.0, "count": count, "size": size, "span": span, "seed": seed
        }))?;
        let offsets = answer
            .get("offsets")
            .and_then(Value::as_array)
            .context("no offsets in the client's answer")?;
        Ok(offsets.iter().filter_map(Value::as_u64).collect())
    }

    /// `length` random bytes from `offset` on, one after another.
    pub fn fill(&mut self, handle: Handle, offset: u64, length: u64, seed: u64) -> Result<()> {
        let request =
            json!({ "do": "fill", "handle": handle.0, "offset": offset, "length": length, "seed": seed });
        self.tell(&request)
    }

    pub fn truncate(&mut self, handle: Handle, size: u64) -> Result<()> {
        self.tell(&json!({ "do": "truncate", "handle": handle.0, "size": size }))
    }

    pub fn set_sparse(&mut self, handle: Handle) -> Result<()> {
        self.tell(&json!({ "do": "set_sparse", "handle": handle.0 }))
    }

    /// Makes the bytes zero; in a sparse file that is a hole.
    pub fn zero(&mut self, handle: Handle, start: u64, end: u64) -> Result<()> {
        self.tell(&json!({ "do": "zero", "handle": handle.0, "start": start, "end": end }))
    }

    /// Copies within the server: the bytes do not come through the client.
    pub fn copy_range(&mut self, from: (Handle, u64), to: (Handle, u64), length: u64) -> Result<()> {
        let ((source, source_offset), (target, target_offset)) = (from, to);
        self.tell(&json!({
            "do": "copy_range", "source": source.0, "source_offset": source_offset,
            "target": target.0, "target_offset": target_offset, "length": length
        }))
    }

    pub fn flush(&mut self, handle: Handle) -> Result<()> {
        self.tell(&json!({ "do": "flush", "handle": handle.0 }))
    }

    pub fn close(&mut self, handle: Handle) -> Result<()> {
        self.tell(&json!({ "do": "close", "handle": handle.0 }))
    }

    /// The file goes away when its last handle is closed.
    pub fn delete_on_close(&mut self, handle: Handle) -> Result<()> {
        self.tell(&json!({ "do": "delete_on_close", "handle": handle.0 }))
    }

    /// Renames an open file; with `replace` over what the new name led to.
    pub fn rename_open(&mut self, handle: Handle, new: &str, replace: bool) -> Result<()> {
        self.tell(&json!({ "do": "rename_open", "handle": handle.0, "new": new, "replace": replace }))
    }

    /// `count` random changes among `names` files and directories, which other clients change at the same time.
    /// Returns how many of them the server took.
    pub fn storm(&mut self, seed: u64, count: u64, names: u64) -> Result<u64> {
        let answer = self.ask(&json!({ "do": "storm", "seed": seed, "count": count, "names": names }))?;
        answer
            .get("done")
            .and_then(Value::as_u64)
            .context("no count in the client's answer")
    }

    /// Adds an entry to the file's access control list.
    pub fn grant(&mut self, handle: Handle, sid: &str, mask: u32) -> Result<()> {
        self.tell(&json!({ "do": "grant", "handle": handle.0, "sid": sid, "mask": mask }))
    }

    fn tell(&mut self, request: &Value) -> Result<()> {
        self.ask(request).map(drop)
    }

    fn ask(&mut self, request: &Value) -> Result<Value> {
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

impl Drop for Session {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
