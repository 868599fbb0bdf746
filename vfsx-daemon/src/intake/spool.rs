//! Spool files: events that sessions could not hand over while vfsxd was away.
//!
//! `<state_dir>/spool/<share>/<session>`: preamble, Hello and event frames as on the socket, then, of a session that is over, a `Sent` with
//! the newest event's sequence. The events are taken in like those of a connection, so what is in the journal already counts for nothing.
//!
//! A session that goes on holds a lock on its file. It says in its Hello up to which event the file has what it has not, and is welcomed when
//! that is in the journal, synced; then it removes the file. A file without a lock is that of a session that is over: it is taken in and
//! removed here, and one without its end is a gap as well: the process was killed, and with it went what it had in memory.

use super::flags;
use super::share::{ShareIntake, State, now_ns};
use crate::journal::{self, Body, GapReason, Session};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use vfsx_proto::{Decoder, FrameError, Hello, PREAMBLE, PreambleError, Stamped, ToDaemon, check_preamble};

/// Events appended at once, and the bytes of the file that they may take.
const BATCH: usize = 1_000;
const BATCH_BYTES: usize = 1 << 20;
const READ_BYTES: usize = 64 * 1024;
/// All files of one share are taken in this time, or the rest waits for the next second: who asks for a status waits for it.
const PATIENCE: Duration = Duration::from_secs(3);
/// Spooled events are taken in while the journal has less than this part of what it may have: the rest is for events that come by
/// connections, which cannot wait.
const ROOM: u64 = 2;
/// Until the catalog has taken something in, and the journal was trimmed.
const ROOM_POLL: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
enum SpoolError {
    /// The journal does not take events now: to be tried again.
    #[error("the journal does not take them yet")]
    Journal,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Preamble(#[from] PreambleError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("it has something else than events")]
    NoEvents,
    #[error("its end is missing")]
    Torn,
    #[error("it is not this share's")]
    Foreign,
}

/// Makes the directories that modules write to: without one, a share is none of this vfsxd's, and they leave no events for it. Removes those
/// of shares that are gone, once they are empty.
pub fn prepare_spool(spool: &Path, shares: &[&str]) -> io::Result<()> {
    for share in shares {
        if flags::directories(spool, share)?.is_empty() {
            DirBuilder::new().mode(0o700).create(spool.join(share))?;
        }
    }
    for entry in fs::read_dir(spool)? {
        let entry = entry?;
        let name = entry.file_name();
        if shares.iter().any(|share| name.eq_ignore_ascii_case(share)) {
            continue;
        }
        if let Err(error) = fs::remove_dir(entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "changes of a share that is not configured are left there");
        }
    }
    Ok(())
}

impl ShareIntake {
    /// Of sessions that are over.
    pub(super) fn take_spool(&self) {
        let until = Instant::now() + PATIENCE;
        let files = match flags::session_files(&self.left.spool, &self.name) {
            Ok(files) => files,
            Err(error) => {
                self.complain(&mut self.lock(), "the spool cannot be read", &error);
                return self.raise_gap(now_ns(), GapReason::Unknown);
            }
        };
        for path in files {
            match File::open(&path) {
                Ok(file) if file.try_lock().is_err() => self.expect_back(&path),
                // Its session has removed it meanwhile.
                Ok(file) if file.metadata().is_ok_and(|metadata| metadata.nlink() == 0) => {}
                Ok(file) => self.take_spool_file(&path, &file, until),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "a spool file cannot be opened")
                }
            }
            if Instant::now() > until {
                return;
            }
        }
    }

    /// What the session has in its spool file alone, as its Hello says. False when it is to be tried again: the session is not to be
    /// welcomed yet. What cannot be read is a gap.
    pub(super) fn take_spool_of(&self, hello: &Hello, until: Instant) -> bool {
        let session = Session::from(hello.session);
        // What ends while another is taken in may be all that there was to do, and remove the file.
        let _turn = self.spooling.lock().unwrap_or_else(PoisonError::into_inner);
        if self.journal.acknowledged(session) >= hello.spooled {
            return true;
        }
        self.expect(&mut self.lock(), session);
        let mut taken = Taken::default();
        let why = match self.take_up_to(session, hello.spooled, &mut taken, until) {
            Ok(()) => return true,
            Err(SpoolError::Journal) => return false,
            Err(why) => why,
        };
        let (share, pid) = (&self.name, hello.pid);
        tracing::error!(share, pid, error = %why, "what smbd has written to its spool file cannot be taken in; a gap is noted");
        self.raise_gap(taken.newest_ns, GapReason::Unknown);
        self.settle_pending_gap()
    }

    fn take_up_to(
        &self,
        session: Session,
        up_to: u64,
        taken: &mut Taken,
        until: Instant,
    ) -> Result<(), SpoolError> {
        let path = flags::file_of(&self.left.spool, &self.name, session)?;
        let file = File::open(path.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?)?;
        self.take_spooled_events(&file, Some(up_to), taken, until)?;
        match taken.newest >= up_to {
            true => Ok(()),
            false => Err(SpoolError::Torn),
        }
    }

    /// The file's process may still write to files, or comes back and tells of the file. Until it has ended the session counts as one
    /// that comes back, so nobody calls the share settled.
    fn expect_back(&self, path: &Path) {
        let Some(session) = flags::session(path) else {
            return;
        };
        let mut state = self.lock();
        // It may have ended meanwhile, and removed the file before.
        if path.exists() {
            self.expect(&mut state, session);
        }
    }

    fn expect(&self, state: &mut State, session: Session) {
        if !state.connections.contains_key(&session) {
            let back_by = Instant::now() + super::COMES_BACK_WITHIN;
            state.awaited.insert(session, back_by);
        }
    }

    fn take_spool_file(&self, path: &Path, file: &File, until: Instant) {
        let _turn = self.spooling.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = Taken::default();
        let outcome = self.take_spooled_events(file, None, &mut taken, until);
        if let Err(error) = outcome {
            let reason = match error {
                SpoolError::Journal => return,
                // As a standing flag of such a process says.
                SpoolError::Torn => GapReason::DaemonAbsent,
                _ => GapReason::Unknown,
            };
            tracing::error!(path = %path.display(), %error, "a spool file is not whole; what can be read of it is taken in, and a gap is noted");
            self.raise_gap(taken.newest_ns, reason);
            if !self.settle_pending_gap() {
                return;
            }
        }
        if let Err(error) = fs::remove_file(path) {
            tracing::error!(path = %path.display(), %error, "a spool file cannot be removed; it will be taken again");
        }
        if let Some(session) = taken.session.or_else(|| flags::session(path)) {
            self.end_awaited(&mut self.lock(), session);
        }
    }

    /// All whole frames up to the file's end, or to the event `up_to`, are in the journal, synced, when this returns; also with an error of
    /// the file.
    fn take_spooled_events(
        &self,
        file: &File,
        up_to: Option<u64>,
        taken: &mut Taken,
        until: Instant,
    ) -> Result<(), SpoolError> {
        let mut frames = Frames::open(file)?;
        let hello = match frames.next()? {
            Some(ToDaemon::Hello(hello)) => hello,
            Some(_) => return Err(SpoolError::NoEvents),
            None => return Err(SpoolError::Torn),
        };
        if !self.name.eq_ignore_ascii_case(&hello.share) {
            return Err(SpoolError::Foreign);
        }
        let session = Session::from(hello.session);
        taken.session = Some(session);
        let mut intake = SpoolIntake {
            share: self,
            is_known: self.journal.open_sessions().contains(&session),
            hello,
            events: Vec::new(),
            until,
        };
        let end = loop {
            match frames.next() {
                Ok(Some(ToDaemon::Events(events))) => {
                    if let Some(newest) = events.last() {
                        taken.newest = newest.sequence;
                        taken.newest_ns = newest.time_ns;
                    }
                    intake.events.extend(events);
                }
                Ok(Some(ToDaemon::Sent { .. })) => break Ok(()),
                Ok(Some(_)) => break Err(SpoolError::NoEvents),
                Ok(None) => break Err(SpoolError::Torn),
                Err(error) => break Err(error),
            }
            if up_to.is_some_and(|up_to| taken.newest >= up_to) {
                break Ok(());
            }
            if intake.events.len() >= BATCH || frames.read >= BATCH_BYTES {
                frames.read = 0;
                intake.append()?;
            }
        };
        intake.append()?;
        self.wait_until_acknowledged(session, taken.newest, until)?;
        end
    }

    fn wait_until_acknowledged(
        &self,
        session: Session,
        sequence: u64,
        until: Instant,
    ) -> Result<(), SpoolError> {
        self.journal.hurry();
        while self.journal.acknowledged(session) < sequence {
            let left = until.saturating_duration_since(Instant::now());
            let synced = self.journal.status().synced;
            if left.is_zero() || self.journal.wait_synced(synced, left) == synced {
                return Err(SpoolError::Journal);
            }
        }
        Ok(())
    }
}

/// What was found in a file.
#[derive(Debug, Default)]
struct Taken {
    session: Option<Session>,
    /// Sequence of the newest event.
    newest: u64,
    /// When it was noted. 0, before one is found: what is lost may be older than the file by any time, and what was read of the share
    /// meanwhile says nothing.
    newest_ns: i64,
}

/// Events of a file on their way into the journal.
struct SpoolIntake<'a> {
    share: &'a ShareIntake,
    /// The journal has an open session of that.
    is_known: bool,
    hello: Hello,
    events: Vec<Stamped>,
    until: Instant,
}

impl SpoolIntake<'_> {
    fn append(&mut self) -> Result<(), SpoolError> {
        let session = Session::from(self.hello.session);
        let written = self.share.journal.written(session);
        let events = std::mem::take(&mut self.events);
        let new = events.into_iter().filter(|event| event.sequence > written);
        let mut drafts: Vec<_> = new
            .map(|stamped| journal::Draft {
                // By the clock of another boot, perhaps.
                began_ns: 0,
                ..journal::draft(session, stamped)
            })
            .collect();
        let Some(first) = drafts.first() else {
            return Ok(());
        };
        if !self.is_known {
            let started = self.started(session, first.time_ns);
            drafts.insert(0, started);
        }
        // Until all is in, nobody calls the share settled.
        self.share.expect(&mut self.share.lock(), session);
        self.wait_for_room()?;
        match self.share.append(&mut self.share.lock(), drafts) {
            true => {
                self.is_known = true;
                Ok(())
            }
            false => Err(SpoolError::Journal),
        }
    }

    fn started(&self, session: Session, time_ns: i64) -> journal::Draft {
        journal::Draft {
            time_ns,
            session,
            session_sequence: 0,
            began_ns: 0,
            body: Body::SessionStarted {
                pid: self.hello.pid,
                samba: self.hello.samba.clone(),
                module: self.hello.module.clone(),
            },
        }
    }

    /// A journal that the catalog is still to take in is no failure: what is in a file can wait.
    fn wait_for_room(&self) -> Result<(), SpoolError> {
        loop {
            let status = self.share.journal.status();
            if status.bytes < status.bytes_max / ROOM {
                return Ok(());
            }
            if Instant::now() >= self.until {
                return Err(SpoolError::Journal);
            }
            std::thread::sleep(ROOM_POLL);
        }
    }
}

/// What [`ShareIntake::take_spool`] would read, for the fuzz targets.
pub(super) fn read_whole(file: &File) {
    let Ok(mut frames) = Frames::open(file) else {
        return;
    };
    while let Ok(Some(_)) = frames.next() {}
}

/// The messages of a spool file.
struct Frames<'a> {
    file: &'a File,
    decoder: Decoder,
    /// Bytes of the file, since somebody has set this to 0.
    read: usize,
}

impl<'a> Frames<'a> {
    fn open(mut file: &'a File) -> Result<Self, SpoolError> {
        let mut preamble = [0; PREAMBLE];
        file.read_exact(&mut preamble)?;
        check_preamble(&preamble)?;
        Ok(Self {
            file,
            decoder: Decoder::default(),
            read: 0,
        })
    }

    fn next(&mut self) -> Result<Option<ToDaemon>, SpoolError> {
        loop {
            if let Some(message) = self.decoder.next()? {
                return Ok(Some(message));
            }
            let mut buffer = vec![0; READ_BYTES];
            let n = self.file.read(&mut buffer)?;
            if n == 0 {
                return Ok(None);
            }
            self.read += n;
            self.decoder.push(buffer.get(..n).unwrap_or_default());
        }
    }
}
