//! That an action truly happened: what the server's disk has afterwards.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// An action's directory on the server's disk.
pub struct Disk {
    pub dir: PathBuf,
}

impl Disk {
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn holds(&self, name: &str, offset: usize, content: &[u8]) -> Result<()> {
        let all = self.content(name)?;
        let part = all.get(offset..offset + content.len());
        ensure!(part == Some(content), "{name} has something else at {offset}");
        Ok(())
    }

    pub fn has_size(&self, name: &str, size: u64) -> Result<()> {
        let is = self.stat(name)?.size();
        ensure!(is == size, "{name} has {is} bytes, not {size}");
        Ok(())
    }

    pub fn is_zero(&self, name: &str, range: Range<usize>) -> Result<()> {
        let all = self.content(name)?;
        let part = all
            .get(range.clone())
            .with_context(|| format!("{name} ends before {range:?}"))?;
        ensure!(
            part.iter().all(|byte| *byte == 0),
            "{name} has more than zeros in {range:?}"
        );
        Ok(())
    }

    pub fn same(&self, a: &str, b: &str) -> Result<()> {
        ensure!(
            self.content(a)? == self.content(b)?,
            "{a} and {b} are not the same"
        );
        Ok(())
    }

    /// Exactly these names are in the directory.
    pub fn has_names(&self, names: &[&str]) -> Result<()> {
        let found: BTreeSet<_> = self.names()?;
        let expected: BTreeSet<_> = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        let text = |names: &BTreeSet<Vec<u8>>| -> Vec<_> {
            names
                .iter()
                .map(|name| String::from_utf8_lossy(name).into_owned())
                .collect()
        };
        ensure!(
            found == expected,
            "{:?} instead of {:?}",
            text(&found),
            text(&expected)
        );
        Ok(())
    }

    pub fn names(&self) -> Result<BTreeSet<Vec<u8>>> {
        use std::os::unix::ffi::OsStringExt;
        let entries = fs::read_dir(&self.dir).with_context(|| self.dir.display().to_string())?;
        entries.map(|entry| Ok(entry?.file_name().into_vec())).collect()
    }

    pub fn is_one_file(&self, a: &str, b: &str) -> Result<()> {
        ensure!(
            self.stat(a)?.ino() == self.stat(b)?.ino(),
            "{a} and {b} are two files"
        );
        Ok(())
    }

    /// In whole seconds since 1970.
    pub fn was_modified(&self, name: &str, second: u64) -> Result<()> {
        let is = self.stat(name)?.mtime();
        ensure!(
            u64::try_from(is) == Ok(second),
            "{name} was modified at {is}, not {second}"
        );
        Ok(())
    }

    /// In whole seconds since 1970, and not a nanosecond off.
    pub fn was_accessed(&self, name: &str, second: u64) -> Result<()> {
        let stat = self.stat(name)?;
        let is = (u64::try_from(stat.atime())?, stat.atime_nsec());
        ensure!(is == (second, 0), "{name} was accessed at {is:?}, not {second}");
        Ok(())
    }

    /// Bytes that the file has on disk are no more than these.
    pub fn takes_at_most(&self, name: &str, bytes: u64) -> Result<()> {
        let is = self.stat(name)?.blocks() * 512;
        ensure!(is <= bytes, "{name} has {is} bytes on disk, more than {bytes}");
        Ok(())
    }

    pub fn has_mode(&self, name: &str, mode: u32) -> Result<()> {
        let is = self.stat(name)?.mode() & 0o7777;
        ensure!(is == mode, "{name} has mode {is:o}, not {mode:o}");
        Ok(())
    }

    pub fn belongs_to(&self, name: &str, uid: u32, gid: u32) -> Result<()> {
        let stat = self.stat(name)?;
        let is = (stat.uid(), stat.gid());
        ensure!(is == (uid, gid), "{name} belongs to {is:?}");
        Ok(())
    }

    pub fn has_attribute(&self, name: &str, attribute: &str, value: &[u8]) -> Result<()> {
        match self.attribute(name, attribute)? {
            Some(is) if is == value => Ok(()),
            Some(is) => bail!("{attribute} of {name} is {:?}", String::from_utf8_lossy(&is)),
            None => bail!("{name} has no {attribute}"),
        }
    }

    pub fn has_no_attribute(&self, name: &str, attribute: &str) -> Result<()> {
        ensure!(
            self.attribute(name, attribute)?.is_none(),
            "{name} has {attribute}"
        );
        Ok(())
    }

    /// Value of an extended attribute.
    pub fn attribute(&self, name: &str, attribute: &str) -> Result<Option<Vec<u8>>> {
        let mut value = vec![0; 64 * 1024];
        match rustix::fs::lgetxattr(self.path(name), OsStr::new(attribute), value.as_mut_slice()) {
            Ok(length) => {
                value.truncate(length);
                Ok(Some(value))
            }
            Err(rustix::io::Errno::NODATA) => Ok(None),
            Err(error) => bail!("{attribute} of {name}: {error}"),
        }
    }

    /// DOS attributes, and the birth time as clients give it: Samba keeps them in one extended attribute.
    pub fn dos(&self, name: &str) -> Result<(u32, u64)> {
        let value = self
            .attribute(name, "user.DOSATTRIB")?
            .context("no DOS attributes")?;
        let (Some(bits), Some(birth)) = (value.get(12..16), value.get(16..24)) else {
            bail!("DOS attributes of another version: {value:?}")
        };
        Ok((
            u32::from_le_bytes(bits.try_into()?),
            u64::from_le_bytes(birth.try_into()?),
        ))
    }

    pub fn stat(&self, name: &str) -> Result<Metadata> {
        self.path(name)
            .symlink_metadata()
            .with_context(|| name.to_owned())
    }

    fn content(&self, name: &str) -> Result<Vec<u8>> {
        read(&self.path(name))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}
