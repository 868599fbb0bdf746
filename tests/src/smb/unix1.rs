//! An SMB1 connection with the UNIX extensions: the only way for a client to make special files and symbolic links, and to set
//! owners and POSIX ACLs directly, before SMB3 got such things.

use super::program::Program;
use crate::lab::Lab;
use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// smbd wants `server min protocol = NT1` for it.
#[derive(Debug)]
pub struct Unix1(Program);

/// One entry of a POSIX ACL: what it is for, its rights as a number up to 7, and the id where it has one.
pub type AclEntry<'a> = (&'a str, u8, Option<u32>);

impl Unix1 {
    pub fn connect(lab: &Lab, share: &str) -> Result<Self> {
        Program::start(lab, "unix1.py", share).map(Self)
    }

    /// Opens a file that is there, as POSIX does: it may be renamed and unlinked meanwhile. Gives its number.
    pub fn open(&mut self, path: &str) -> Result<u64> {
        let answer = self.0.ask(&json!({ "do": "open", "path": path }))?;
        let file = answer.get("file").and_then(Value::as_u64);
        file.context("no file in the client's answer")
    }

    pub fn close(&mut self, file: u64) -> Result<()> {
        self.0.tell(&json!({ "do": "close", "file": file }))
    }

    /// By the oldest command for it: without data it sets the file's size to `offset`.
    pub fn write(&mut self, file: u64, offset: u64, data: &[u8]) -> Result<()> {
        self.write_by("write", file, offset, data)
    }

    /// By the usual command.
    pub fn write_andx(&mut self, file: u64, offset: u64, data: &[u8]) -> Result<()> {
        self.write_by("write_andx", file, offset, data)
    }

    pub fn unlink(&mut self, path: &str) -> Result<()> {
        self.0.tell(&json!({ "do": "unlink", "path": path }))
    }

    pub fn rename(&mut self, path: &str, new: &str) -> Result<()> {
        self.0.tell(&json!({ "do": "rename", "path": path, "new": new }))
    }

    fn write_by(&mut self, how: &str, file: u64, offset: u64, data: &[u8]) -> Result<()> {
        let data = STANDARD.encode(data);
        self.0
            .tell(&json!({ "do": how, "file": file, "offset": offset, "data": data }))
    }

    /// `kind` is fifo, socket, character or block.
    pub fn mknod(&mut self, path: &str, kind: &str, mode: u32, device: (u32, u32)) -> Result<()> {
        let (major, minor) = device;
        self.0.tell(&json!({
            "do": "mknod", "path": path, "kind": kind, "mode": mode, "major": major, "minor": minor
        }))
    }

    pub fn chmod(&mut self, path: &str, kind: &str, mode: u32) -> Result<()> {
        self.0
            .tell(&json!({ "do": "chmod", "path": path, "kind": kind, "mode": mode }))
    }

    /// Of a symbolic link itself when `kind` is symlink.
    pub fn chown(&mut self, path: &str, kind: &str, uid: u32, gid: u32) -> Result<()> {
        self.0
            .tell(&json!({ "do": "chown", "path": path, "kind": kind, "uid": uid, "gid": gid }))
    }

    pub fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.0
            .tell(&json!({ "do": "symlink", "path": path, "target": target }))
    }

    pub fn hard_link(&mut self, path: &str, existing: &str) -> Result<()> {
        self.0
            .tell(&json!({ "do": "hard_link", "path": path, "existing": existing }))
    }

    /// Only a directory has a `default`.
    pub fn set_acl(
        &mut self,
        path: &str,
        access: &[AclEntry<'_>],
        default: Option<&[AclEntry<'_>]>,
    ) -> Result<()> {
        self.0
            .tell(&json!({ "do": "set_acl", "path": path, "access": access, "default": default }))
    }
}
