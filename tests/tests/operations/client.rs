//! What an action has at hand: clients on one share, in a directory that is the action's own.

use crate::disk::Disk;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::PathBuf;
use vfsx_tests::lab::BUCKET;
use vfsx_tests::smb::{Basic, Handle, Open, Session, SmbClient, Unix1};
use vfsx_tests::testlab::TestLab;

pub struct Client<'a> {
    pub lab: &'a TestLab,
    pub session: &'a mut Session,
    /// Another machine's connection: another smbd process.
    pub other: &'a mut Session,
    /// Where the stage allows SMB1.
    pub unix1: Option<&'a mut Unix1>,
    /// The action's directory, relative to the share.
    pub dir: String,
}

/// Goes away with this value.
pub struct Restored {
    pub disk: Disk,
    _scratch: tempfile::TempDir,
}

impl Client<'_> {
    /// A name of the action's directory as clients give it; an empty one is the directory itself.
    pub fn at(&self, name: &str) -> String {
        match name {
            "" => self.dir.clone(),
            name => format!("{}/{name}", self.dir),
        }
    }

    /// The same name on the server's disk.
    pub fn disk(&self, name: &str) -> Result<PathBuf> {
        Ok(self.lab.share("data")?.join(&self.dir).join(name))
    }

    /// A new file.
    pub fn file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.with(name, "create", |session, handle| {
            session.write(handle, 0, content)
        })
    }

    /// A new file with random content, always the same for one length.
    pub fn noise(&mut self, name: &str, length: u64) -> Result<()> {
        self.with(name, "create", |session, handle| {
            session.fill(handle, 0, length, length)
        })
    }

    pub fn folder(&mut self, name: &str) -> Result<()> {
        let open = Open {
            disposition: "open_if",
            directory: Some(true),
            ..Open::default()
        };
        let handle = self.session.open(&self.at(name), &open)?;
        self.session.close(handle)
    }

    /// Opens, works, closes.
    pub fn with(
        &mut self,
        name: &str,
        disposition: &str,
        work: impl FnOnce(&mut Session, Handle) -> Result<()>,
    ) -> Result<()> {
        let path = self.at(name);
        with(self.session, &path, disposition, work)
    }

    pub fn open(&mut self, name: &str, disposition: &str) -> Result<Handle> {
        let path = self.at(name);
        self.session.create(&path, disposition)
    }

    pub fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        self.moved(from, to, false)
    }

    /// Over what is there.
    pub fn replace(&mut self, from: &str, to: &str) -> Result<()> {
        self.moved(from, to, true)
    }

    pub fn link(&mut self, existing: &str, name: &str, replace: bool) -> Result<()> {
        let name = self.at(name);
        self.with(existing, "open", |session, handle| {
            session.link(handle, &name, replace)
        })
    }

    /// Into a file that is there.
    pub fn write(&mut self, name: &str, offset: u64, data: &[u8]) -> Result<()> {
        self.with(name, "open", |session, handle| {
            session.write(handle, offset, data)
        })
    }

    pub fn resize(&mut self, name: &str, size: u64) -> Result<()> {
        self.with(name, "open", |session, handle| session.truncate(handle, size))
    }

    pub fn zero(&mut self, name: &str, start: u64, end: u64) -> Result<()> {
        self.with(name, "open", |session, handle| session.zero(handle, start, end))
    }

    /// Times and DOS attributes.
    pub fn set_basic(&mut self, name: &str, basic: Basic) -> Result<()> {
        self.with(name, "open", |session, handle| session.set_basic(handle, basic))
    }

    /// A file or an empty directory.
    pub fn delete(&mut self, name: &str) -> Result<()> {
        self.with(name, "open", |session, handle| session.delete_on_close(handle))
    }

    pub fn unix1(&mut self) -> Result<&mut Unix1> {
        let client = self.unix1.as_deref_mut();
        client.context("the stage has no SMB1")
    }

    /// smbclient's commands, in which `@` stands for the action's directory.
    pub fn run(&self, client: &SmbClient, commands: &[&str]) -> Result<()> {
        let commands: Vec<_> = commands
            .iter()
            .map(|command| command.replace('@', &self.dir))
            .collect();
        client.run(&commands).map(drop)
    }

    /// An open that must be refused.
    pub fn refused(&mut self, name: &str, open: &Open<'_>) -> Result<()> {
        let path = self.at(name);
        ensure!(self.session.open(&path, open).is_err(), "{path} was opened");
        Ok(())
    }

    /// The file's modification time, as clients give it.
    pub fn written(&self, name: &str) -> Result<u64> {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(self.disk(name)?)?;
        let seconds = u64::try_from(metadata.mtime())?;
        Ok((seconds + FROM_1601_TO_1970) * UNITS + u64::try_from(metadata.mtime_nsec())? / 100)
    }

    /// The action's directory as the site gives it back, with what was done before.
    pub fn restored(&self) -> Result<Restored> {
        self.lab.settle()?;
        let scratch = tempfile::Builder::new().prefix("vfsx-restored-").tempdir()?;
        let dir = scratch.path().join("directory");
        let out = dir.display().to_string();
        let arguments = ["restore", BUCKET, &out, "--path", &format!("/{}", self.dir)];
        self.lab.site("site1")?.restfs(&arguments)?;
        Ok(Restored {
            disk: Disk { dir },
            _scratch: scratch,
        })
    }

    fn moved(&mut self, from: &str, to: &str, replace: bool) -> Result<()> {
        let to = self.at(to);
        self.with(from, "open", |session, handle| {
            session.rename_open(handle, &to, replace)
        })
    }
}

/// Seconds.
const FROM_1601_TO_1970: u64 = 11_644_473_600;
/// Of a client's time in a second.
const UNITS: u64 = 10_000_000;

/// A whole second since 1970 as clients give it.
pub const fn second(number: u64) -> u64 {
    (number + FROM_1601_TO_1970) * UNITS
}

fn with(
    session: &mut Session,
    path: &str,
    disposition: &str,
    work: impl FnOnce(&mut Session, Handle) -> Result<()>,
) -> Result<()> {
    let handle = session.create(path, disposition)?;
    work(session, handle)?;
    session.close(handle)
}
