//! 4 KiB written at a thousand random places of a big file: what is read and shipped for it.

use crate::report::{Report, size};
use anyhow::Result;
use std::collections::HashSet;
use vfsx_tests::lab::{Lab, Site};
use vfsx_tests::smb::{Session, SmbClient};
use vfsx_tests::work;

const SIZE: u64 = 4 << 30;
/// Where the disk has little space.
const SMALL_SIZE: u64 = 256 << 20;
/// The file before it is copied in, on the share, as blocks at the site, restored; and the rest of the demo.
const SPACE: u64 = 5 * SIZE;
const WRITE: u64 = 4096;
const WRITES: u64 = 1000;
/// Block size of the catalog: the unit that is read.
const BLOCK: u64 = 64 << 10;
const NAME: &str = "big-file";

pub struct Shipped {
    /// Bytes that were written.
    pub changed: u64,
    /// Bytes of the blocks that they are in.
    pub blocks: u64,
    /// Bytes on the wire for them, in both directions.
    pub wire: u64,
    /// Bytes that vfsxd read from the share for them.
    pub read: u64,
}

/// Counters since the start of vfsxd.
struct Meters {
    wire: u64,
    share: u64,
    /// What the kernel counts for the process.
    all: u64,
}

impl Meters {
    fn read(lab: &Lab, site: &str) -> Result<Self> {
        Ok(Self {
            wire: lab.wire_bytes(site)?,
            share: lab.share_bytes_read()?,
            all: lab.vfsxd.bytes_read()?,
        })
    }
}

pub fn play(report: &Report, lab: &Lab, site: &Site) -> Result<Shipped> {
    let site = site.description.name.as_str();
    let bytes = if free_space(lab)? > SPACE {
        SIZE
    } else {
        SMALL_SIZE
    };
    let local = lab.dir().join(NAME);
    work::random_file(&local, bytes, 1)?;
    SmbClient::new(lab, "data").put(&local, NAME)?;
    std::fs::remove_file(&local)?;
    report.line(format!("a file of {} of random bytes written", size(bytes)));
    super::settle(report, lab)?;

    let before = Meters::read(lab, site)?;
    let mut session = Session::connect(lab, "data")?;
    let handle = session.create(NAME, "open")?;
    let offsets = session.random_writes(handle, WRITES, WRITE, bytes, 2)?;
    session.close(handle)?;
    super::settle(report, lab)?;
    let after = Meters::read(lab, site)?;

    let blocks: HashSet<_> = offsets.iter().map(|offset| offset / BLOCK).collect();
    let shipped = Shipped {
        changed: WRITES * WRITE,
        blocks: blocks.len() as u64 * BLOCK,
        wire: after.wire - before.wire,
        read: after.share - before.share,
    };
    report.line(format!(
        "{WRITES} writes of {WRITE} bytes, {} together, in {} blocks",
        size(shipped.changed),
        blocks.len()
    ));
    report.line(format!(
        "{} on the wire, {:.2} times what was written; vfsxd read {} of the share, {} with its own databases and sockets",
        size(shipped.wire),
        shipped.wire as f64 / shipped.changed as f64,
        size(shipped.read),
        size(after.all - before.all)
    ));
    Ok(shipped)
}

fn free_space(lab: &Lab) -> Result<u64> {
    let stat = rustix::fs::statvfs(lab.dir())?;
    Ok(stat.f_bavail * stat.f_frsize)
}
