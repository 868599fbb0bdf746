//! One SMB connection that keeps handles open, through a client in Python.

use super::program::Program;
use crate::lab::Lab;
use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// An open file of a [`Session`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Handle(u64);

/// What an open asks for beside the name.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Open<'a> {
    /// open, create, open_if, overwrite, overwrite_if or supersede
    pub disposition: &'a str,
    /// A directory, or not one; `None` takes both.
    pub directory: Option<bool>,
    pub delete_on_close: bool,
    /// The handle outlives the connection for a while.
    pub durable: bool,
    /// As a Mac asks, with its own extension.
    pub apple: bool,
    /// What is asked for, as Windows has it; `None`: everything.
    pub access: Option<u32>,
    /// As it was at that time, in units of 100 ns since 1601: a version that a snapshot has kept.
    pub snapshot: Option<u64>,
    /// Space that is kept for a new file.
    pub allocation: Option<u64>,
    /// Extended attributes of a new file.
    pub extended: Option<BTreeMap<&'a str, &'a str>>,
    /// Access rights of a new file.
    pub descriptor: Option<Descriptor<'a>>,
}

/// A security descriptor: what is `None` is not set.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Descriptor<'a> {
    pub owner: Option<&'a str>,
    pub group: Option<&'a str>,
    pub entries: Option<Vec<Entry<'a>>>,
    /// Nothing is inherited from the directory.
    pub protected: bool,
}

/// An entry of an access control list.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Entry<'a> {
    pub sid: &'a str,
    pub mask: u32,
    /// What inherits it: 1 files, 2 directories.
    pub flags: u8,
    pub deny: bool,
}

/// Times in units of 100 ns since 1601, and DOS attributes; 0 leaves them.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Basic {
    pub created: u64,
    pub accessed: u64,
    pub written: u64,
    pub attributes: u32,
}

#[derive(Debug)]
pub struct Session(Program);

impl Session {
    pub fn connect(lab: &Lab, share: &str) -> Result<Self> {
        Program::start(lab, "session.py", share).map(Self)
    }

    /// Opens a file for reading, writing and deleting.
    pub fn create(&mut self, path: &str, disposition: &str) -> Result<Handle> {
        let open = Open {
            disposition,
            ..Open::default()
        };
        self.open(path, &open)
    }

    pub fn open(&mut self, path: &str, open: &Open<'_>) -> Result<Handle> {
        let mut request = serde_json::to_value(open)?;
        let members = request.as_object_mut().context("an open has members")?;
        members.insert("do".into(), "create".into());
        members.insert("path".into(), path.into());
        handle(&self.0.ask(&request)?)
    }

    /// Opens, writes and closes in one packet.
    pub fn create_write_close(&mut self, path: &str, data: &[u8]) -> Result<()> {
        let data = STANDARD.encode(data);
        self.0
            .tell(&json!({ "do": "create_write_close", "path": path, "data": data }))
    }

    /// As when the cable is cut. Only [`Session::reconnect`] may follow.
    pub fn lose_connection(&mut self) -> Result<()> {
        self.0.tell(&json!({ "do": "lose_connection" }))
    }

    /// Comes back to a durable handle after the connection was lost.
    pub fn reconnect(&mut self, to: Handle) -> Result<Handle> {
        handle(&self.0.ask(&json!({ "do": "reconnect", "handle": to }))?)
    }

    /// A new file.
    pub fn put(&mut self, path: &str, content: &[u8]) -> Result<()> {
        let handle = self.create(path, "create")?;
        self.write(handle, 0, content)?;
        self.close(handle)
    }

    pub fn write(&mut self, handle: Handle, offset: u64, data: &[u8]) -> Result<()> {
        let data = STANDARD.encode(data);
        self.0
            .tell(&json!({ "do": "write", "handle": handle, "offset": offset, "data": data }))
    }

    /// At most 64 KiB.
    pub fn read(&mut self, handle: Handle, offset: u64, length: u64) -> Result<Vec<u8>> {
        let answer = self
            .0
            .ask(&json!({ "do": "read", "handle": handle, "offset": offset, "length": length }))?;
        let data = answer.get("data").and_then(Value::as_str);
        Ok(STANDARD.decode(data.context("no data in the client's answer")?)?)
    }

    /// A write that is on the server's disk when it is answered.
    pub fn write_through(&mut self, handle: Handle, offset: u64, data: &[u8]) -> Result<()> {
        let data = STANDARD.encode(data);
        let request =
            json!({ "do": "write", "handle": handle, "offset": offset, "data": data, "through": true });
        self.0.tell(&request)
    }

    /// Sends a write of random bytes and does not wait for its answer. Nothing else may be asked afterwards.
    pub fn post(&mut self, handle: Handle, offset: u64, length: u64, seed: u64) -> Result<()> {
        let request =
            json!({ "do": "post", "handle": handle, "offset": offset, "length": length, "seed": seed });
        self.0.tell(&request)
    }

    /// A write whose last `missing` bytes never come, since the connection is lost. Only [`Session::reconnect`] may follow.
    pub fn cut_write(&mut self, handle: Handle, offset: u64, data: &[u8], missing: usize) -> Result<()> {
        let data = STANDARD.encode(data);
        self.0
            .tell(&json!({ "do": "cut_write", "handle": handle, "offset": offset, "data": data, "missing": missing }))
    }

    /// A write that is cancelled as soon as it is sent, which the server may heed or not.
    pub fn cancelled_write(&mut self, handle: Handle, offset: u64, data: &[u8]) -> Result<()> {
        let data = STANDARD.encode(data);
        self.0
            .tell(&json!({ "do": "cancelled_write", "handle": handle, "offset": offset, "data": data }))
    }

    /// Bytes that nobody else may write. Waits while another client has them.
    pub fn lock(&mut self, handle: Handle, offset: u64, length: u64) -> Result<()> {
        self.0
            .tell(&json!({ "do": "lock", "handle": handle, "offset": offset, "length": length }))
    }

    /// Waits for bytes that another client has locked, and cancels that. Gives the status of the end.
    pub fn cancelled_lock(&mut self, handle: Handle, offset: u64, length: u64) -> Result<String> {
        let answer = self
            .0
            .ask(&json!({ "do": "cancelled_lock", "handle": handle, "offset": offset, "length": length }))?;
        let status = answer.get("status").and_then(Value::as_str);
        Ok(status.context("no status in the client's answer")?.to_owned())
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
        let answer = self.0.ask(&json!({
            "do": "random_writes", "handle": handle, "count": count, "size": size, "span": span, "seed": seed
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
            json!({ "do": "fill", "handle": handle, "offset": offset, "length": length, "seed": seed });
        self.0.tell(&request)
    }

    pub fn truncate(&mut self, handle: Handle, size: u64) -> Result<()> {
        self.0
            .tell(&json!({ "do": "truncate", "handle": handle, "size": size }))
    }

    /// Sets the space that is kept for the file; less than its size cuts it.
    pub fn allocate(&mut self, handle: Handle, size: u64) -> Result<()> {
        self.0
            .tell(&json!({ "do": "allocate", "handle": handle, "size": size }))
    }

    pub fn set_sparse(&mut self, handle: Handle) -> Result<()> {
        self.0.tell(&json!({ "do": "set_sparse", "handle": handle }))
    }

    /// Makes the bytes zero; in a sparse file that is a hole.
    pub fn zero(&mut self, handle: Handle, start: u64, end: u64) -> Result<()> {
        self.0
            .tell(&json!({ "do": "zero", "handle": handle, "start": start, "end": end }))
    }

    /// Has the server's file system compress the file, or what is made in the directory from now on.
    pub fn compress(&mut self, handle: Handle) -> Result<()> {
        self.0.tell(&json!({ "do": "compress", "handle": handle }))
    }

    /// Copies within the server: the bytes do not come through the client.
    pub fn copy_range(&mut self, from: (Handle, u64), to: (Handle, u64), length: u64) -> Result<()> {
        self.copy("copy_range", from, to, length)
    }

    /// Makes two files have the same space on disk.
    pub fn duplicate_range(&mut self, from: (Handle, u64), to: (Handle, u64), length: u64) -> Result<()> {
        self.copy("duplicate_range", from, to, length)
    }

    /// Copies a whole file within the server, as a Mac asks for it.
    pub fn copy_file(&mut self, source: Handle, target: Handle) -> Result<()> {
        self.0
            .tell(&json!({ "do": "copy_file", "source": source, "target": target }))
    }

    pub fn flush(&mut self, handle: Handle) -> Result<()> {
        self.0.tell(&json!({ "do": "flush", "handle": handle }))
    }

    /// Sends a flush; its answer is waited for by [`Session::end_flush`], and other requests may come between.
    pub fn begin_flush(&mut self, handle: Handle) -> Result<()> {
        self.0.tell(&json!({ "do": "begin_flush", "handle": handle.0 }))
    }

    pub fn end_flush(&mut self) -> Result<()> {
        self.0.tell(&json!({ "do": "end_flush" }))
    }

    pub fn close(&mut self, handle: Handle) -> Result<()> {
        self.0.tell(&json!({ "do": "close", "handle": handle }))
    }

    /// The file goes away when its last handle is closed.
    pub fn delete_on_close(&mut self, handle: Handle) -> Result<()> {
        self.0.tell(&json!({ "do": "delete_on_close", "handle": handle }))
    }

    /// Renames an open file; with `replace` over what the new name led to. A stream's new name begins with a colon.
    pub fn rename_open(&mut self, handle: Handle, new: &str, replace: bool) -> Result<()> {
        self.0
            .tell(&json!({ "do": "rename_open", "handle": handle, "new": new, "replace": replace }))
    }

    /// Gives an open file one more name.
    pub fn link(&mut self, handle: Handle, new: &str, replace: bool) -> Result<()> {
        self.0
            .tell(&json!({ "do": "link", "handle": handle, "new": new, "replace": replace }))
    }

    pub fn set_basic(&mut self, handle: Handle, basic: Basic) -> Result<()> {
        let Basic {
            created,
            accessed,
            written,
            attributes,
        } = basic;
        self.0.tell(&json!({
            "do": "set_basic", "handle": handle, "created": created, "accessed": accessed, "written": written,
            "attributes": attributes
        }))
    }

    /// Sets extended attributes; one with an empty value is removed.
    pub fn set_extended(&mut self, handle: Handle, attributes: &[(&str, &str)]) -> Result<()> {
        let attributes: BTreeMap<_, _> = attributes.iter().copied().collect();
        self.0
            .tell(&json!({ "do": "set_extended", "handle": handle, "attributes": attributes }))
    }

    pub fn set_security(&mut self, handle: Handle, descriptor: &Descriptor<'_>) -> Result<()> {
        self.0
            .tell(&json!({ "do": "set_security", "handle": handle, "descriptor": descriptor }))
    }

    /// Adds an entry to the file's access control list.
    pub fn grant(&mut self, handle: Handle, sid: &str, mask: u32) -> Result<()> {
        self.0
            .tell(&json!({ "do": "grant", "handle": handle, "sid": sid, "mask": mask }))
    }

    /// `count` random changes among `names` files and directories, which other clients change at the same time.
    /// Returns how many of them the server took.
    pub fn storm(&mut self, seed: u64, count: u64, names: u64) -> Result<u64> {
        let answer = self
            .0
            .ask(&json!({ "do": "storm", "seed": seed, "count": count, "names": names }))?;
        let done = answer.get("done").and_then(Value::as_u64);
        done.context("no count in the client's answer")
    }

    fn copy(&mut self, how: &str, from: (Handle, u64), to: (Handle, u64), length: u64) -> Result<()> {
        let ((source, source_offset), (target, target_offset)) = (from, to);
        self.0.tell(&json!({
            "do": how, "source": source, "source_offset": source_offset,
            "target": target, "target_offset": target_offset, "length": length
        }))
    }
}

fn handle(answer: &Value) -> Result<Handle> {
    let number = answer.get("handle").and_then(Value::as_u64);
    number.map(Handle).context("no handle in the client's answer")
}
