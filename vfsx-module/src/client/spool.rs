//! Spool files: what a session could not hand over before it ended, for the next start of vfsxd.
//!
//! `STATE/spool/SHARE/SESSION` holds the bytes that the module would have sent: preamble, Hello, and a frame for each event. The last
//! frame, a `Sent` with the newest event's sequence, says that nothing is missing.

use super::flag;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use vfsx_proto::{Hello, ToDaemon, encode, preamble};

pub(super) fn path(state: &Path, hello: &Hello) -> PathBuf {
    let directory = state.join("spool").join(flag::directory(&hello.share));
    directory.join(flag::hex(hello.session))
}

/// Writes the file so that vfsxd sees it whole or not at all, also after a loss of power. vfsxd does not take it as long as the file that
/// this gives is open: it is locked. Needs root.
pub(super) fn write<'a>(
    path: &Path,
    hello: &Hello,
    frames: impl Iterator<Item = &'a [u8]>,
    last: u64,
) -> io::Result<fs::File> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let new = path.with_extension("new");
    let written = write_to(&new, hello, frames, last).and_then(|file| {
        fs::rename(&new, path)?;
        fs::File::open(dir)?.sync_all()?;
        Ok(file)
    });
    if written.is_err() {
        // Half of it is no use, and a full disk is not to be kept full.
        let _ = fs::remove_file(&new);
        let _ = fs::remove_file(path);
    }
    written
}

fn write_to<'a>(
    path: &Path,
    hello: &Hello,
    frames: impl Iterator<Item = &'a [u8]>,
    last: u64,
) -> io::Result<fs::File> {
    let file = fs::File::create(path)?;
    file.try_lock()?;
    let mut file = BufWriter::new(file);
    file.write_all(&preamble())?;
    // The data of writes ends with this process: of them vfsxd reads the files.
    let hello = Hello {
        ring: None,
        ..hello.clone()
    };
    file.write_all(&frame(&ToDaemon::Hello(hello))?)?;
    for frame in frames {
        file.write_all(frame)?;
    }
    file.write_all(&frame(&ToDaemon::Sent { token: last })?)?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(file)
}

fn frame(message: &ToDaemon) -> io::Result<Vec<u8>> {
    let mut frame = Vec::new();
    encode(message, &mut frame).map_err(io::Error::other)?;
    Ok(frame)
}
