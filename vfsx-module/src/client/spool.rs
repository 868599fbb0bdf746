//! What the keeper does on the disk of vfsxd's state directory: the session's spool file, and its gap flag.
//!
//! `STATE/spool/SHARE/SESSION` holds the bytes that the module would have sent: preamble, Hello, and a frame for each event. The last
//! frame, a `Sent` with the newest event's sequence, says that the session is over and nothing is missing. The file is locked until then:
//! vfsxd takes in one that is not locked, and one of a connected session when the session says that it is there.

use super::flag::{self, Lost, Standing};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use vfsx_proto::{Hello, ToDaemon, encode, preamble};

use crate::os;

/// The part of a disk that events of sessions that go on leave free, and the most of it: vfsxd's journal and catalog need room to take them
/// in.
const RESERVE: u64 = 20;
const RESERVE_MAX: u64 = 2 << 30;

/// Where a session's files are.
#[derive(Debug)]
pub(super) struct Store {
    state: PathBuf,
    hello: Hello,
    /// Bytes of the spool file at most.
    max: u64,
    spool: Option<Spool>,
}

/// A spool file, locked.
#[derive(Debug)]
struct Spool {
    file: File,
    path: PathBuf,
    /// It has its name, under which vfsxd sees it.
    is_shown: bool,
    /// Bytes of whole frames. Those behind are of one that could not be written, and are overwritten by the next.
    whole: u64,
}

/// What a session leaves when it ends.
#[derive(Debug)]
pub(super) struct Rest {
    /// Frames of the events that are not in the spool file.
    pub(super) frames: Vec<u8>,
    /// Newest event.
    pub(super) last: u64,
    /// What is lost if vfsxd does not get them.
    pub(super) lost: Lost,
    /// Nothing was dropped, and the spool may be used.
    pub(super) is_whole: bool,
    /// Events were: what vfsxd has by now says nothing of them.
    pub(super) was_dropped: bool,
    /// vfsxd is not to take the file before this process has ended.
    pub(super) keep_locked: bool,
}

/// What a session has left.
#[derive(Debug)]
pub(super) enum Legacy {
    /// vfsxd has everything.
    Nothing,
    Spool {
        path: PathBuf,
    },
    Flag {
        path: PathBuf,
        /// Why it is no spool file.
        spool: Option<io::Error>,
    },
    /// Neither could be written.
    Neither {
        path: PathBuf,
        why: io::Error,
    },
}

impl Store {
    /// `hello`: as the session says it to vfsxd.
    pub(super) fn new(state: &Path, hello: &Hello, max: u64) -> Self {
        Self {
            state: state.to_owned(),
            // The data of writes ends with this process: of them vfsxd reads the files.
            hello: Hello {
                ring: None,
                spooled: 0,
                ..hello.clone()
            },
            max,
            spool: None,
        }
    }

    /// Writes frames behind those that are there. Not synced: a machine that loses power has not only lost these. After an error the file
    /// has what it had before.
    pub(super) fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        let max = self.max;
        let spool = self.open()?;
        let written = spool
            .leaves_room(frames)
            .and_then(|()| spool.put(frames, max))
            .and_then(|()| spool.show());
        self.drop_unless_shown();
        written
    }

    /// vfsxd has all that is there.
    pub(super) fn remove(&mut self) -> io::Result<()> {
        let Some(spool) = &self.spool else { return Ok(()) };
        match fs::remove_file(&spool.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => {
                self.spool = None;
                Ok(())
            }
        }
    }

    /// The session is over: its last events join the others, durably; or else the flag says that they are lost.
    pub(super) fn end(&mut self, rest: &Rest) -> Legacy {
        let why = match rest.is_whole.then(|| self.finish(rest)) {
            Some(Ok(path)) => return Legacy::Spool { path },
            Some(Err(why)) => Some(why),
            None => None,
        };
        // A file that has no end: vfsxd takes in what is there, once it is not locked any more.
        self.spool = None;
        let path = flag::path(&self.state, &self.hello.share, self.hello.session);
        // What was dropped is lost, whatever vfsxd has taken.
        let last = (!rest.was_dropped).then_some(rest.last);
        match flag::write(&path, rest.lost, self.hello.pid, last) {
            Ok(()) => Legacy::Flag { path, spool: why },
            Err(why) => Legacy::Neither { path, why },
        }
    }

    /// The session is over, and vfsxd has everything. A file that cannot be removed says that it lacks nothing.
    pub(super) fn clear(&mut self, last: u64) -> io::Result<()> {
        let removed = self.remove();
        if let (Err(_), Some(spool)) = (&removed, &mut self.spool) {
            spool.put(&frame(&ToDaemon::Sent { token: last })?, u64::MAX)?;
        }
        removed
    }

    fn finish(&mut self, rest: &Rest) -> io::Result<PathBuf> {
        let max = self.max;
        let spool = self.open()?;
        let end = frame(&ToDaemon::Sent { token: rest.last })?;
        let before = spool.whole;
        let written = spool
            .put(&[rest.frames.as_slice(), &end].concat(), max)
            .and_then(|()| spool.file.sync_all())
            .and_then(|()| spool.show())
            .and_then(|()| sync_directory(&spool.path));
        if let Err(why) = written {
            // With its end vfsxd would take it for whole, and it may not survive a loss of power.
            spool.whole = before;
            let _ = spool.cut();
            self.drop_unless_shown();
            return Err(why);
        }
        let path = spool.path.clone();
        if let Some(spool) = self.spool.take()
            && rest.keep_locked
        {
            std::mem::forget(spool.file);
        }
        Ok(path)
    }

    fn open(&mut self) -> io::Result<&mut Spool> {
        let spool = match self.spool.take() {
            Some(spool) => spool,
            None => Spool::create(&self.directory()?, &self.hello)?,
        };
        Ok(self.spool.insert(spool))
    }

    /// vfsxd makes it for each of its shares: without it, nobody would empty it.
    fn directory(&self) -> io::Result<PathBuf> {
        let spool = self.state.join("spool");
        let wanted = OsString::from(flag::directory(&self.hello.share));
        for entry in fs::read_dir(&spool)? {
            let name = entry?.file_name();
            if name.eq_ignore_ascii_case(&wanted) {
                return Ok(spool.join(name));
            }
        }
        let text = format!("vfsxd has made no directory for the share in {}", spool.display());
        Err(io::Error::new(io::ErrorKind::NotFound, text))
    }

    /// Half of a file is no use, and a full disk is not to be kept full.
    fn drop_unless_shown(&mut self) {
        if let Some(spool) = self.spool.take_if(|spool| !spool.is_shown) {
            let _ = fs::remove_file(spool.written_to());
        }
    }
}

impl Spool {
    fn create(directory: &Path, hello: &Hello) -> io::Result<Self> {
        let path = directory.join(flag::hex(hello.session));
        let new = path.with_extension("new");
        let mut spool = Self {
            file: flag::create(&new)?,
            path,
            is_shown: false,
            whole: 0,
        };
        let begun = spool.begin(hello);
        if begun.is_err() {
            let _ = fs::remove_file(&new);
        }
        begun.map(|()| spool)
    }

    fn begin(&mut self, hello: &Hello) -> io::Result<()> {
        self.file.try_lock()?;
        let hello = frame(&ToDaemon::Hello(hello.clone()))?;
        self.put(&[&preamble()[..], &hello].concat(), u64::MAX)
    }

    /// All of the bytes or none.
    fn put(&mut self, bytes: &[u8], max: u64) -> io::Result<()> {
        let end = self.whole + bytes.len() as u64;
        if end > max {
            let text = format!("it would be longer than vfsx:spool max = {max}");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        if let Err(why) = self.file.write_all_at(bytes, self.whole) {
            // A part that stays is no whole frame, and vfsxd passes over it.
            let _ = self.cut();
            return Err(why);
        }
        self.whole = end;
        Ok(())
    }

    fn cut(&self) -> io::Result<()> {
        self.file.set_len(self.whole)
    }

    fn show(&mut self) -> io::Result<()> {
        if !self.is_shown {
            fs::rename(self.written_to(), &self.path)?;
            self.is_shown = true;
        }
        Ok(())
    }

    fn written_to(&self) -> PathBuf {
        self.path.with_extension("new")
    }

    fn leaves_room(&self, frames: &[u8]) -> io::Result<()> {
        let space = os::space(&self.file)?;
        if space.free.saturating_sub(frames.len() as u64) < (space.size / RESERVE).min(RESERVE_MAX) {
            let text = "the rest of its disk is left to vfsxd's journal";
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        Ok(())
    }
}

/// Of a session that is over and has left its file or flag, or nothing: the standing flag has no meaning any more.
pub(super) fn settle_standing(standing: Option<Standing>, legacy: &Legacy) -> io::Result<()> {
    match (standing, legacy) {
        (Some(standing), Legacy::Neither { .. }) => {
            // It is the only word of what is lost, and stays until the process has ended.
            std::mem::forget(standing);
            Ok(())
        }
        (Some(standing), _) => standing.lower(),
        (None, _) => Ok(()),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn frame(message: &ToDaemon) -> io::Result<Vec<u8>> {
    let mut frame = Vec::new();
    encode(message, &mut frame).map_err(io::Error::other)?;
    Ok(frame)
}
