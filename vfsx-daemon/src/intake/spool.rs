//! Spool files: the last events of sessions that ended while vfsxd was away.
//!
//! `<state_dir>/spool/<share>/<session>`: preamble, Hello and event frames as on the socket, then a `Sent` with the newest event's
//! sequence. The events are taken in like those of a connection, so what is in the journal already counts for nothing, and the file is removed
//! when they are on disk.

use super::flags;
use super::share::{ShareIntake, now_ns};
use crate::journal::{self, Body, GapReason, Session, SessionEnd};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};
use vfsx_proto::{Decoder, FrameError, Hello, PREAMBLE, PreambleError, Stamped, ToDaemon, check_preamble};

/// Events appended at once.
const BATCH: usize = 1_000;
const READ_BYTES: usize = 64 * 1024;
/// All files of one share are taken in this time, or the rest waits for the next second: who asks for a status waits for it.
const PATIENCE: Duration = Duration::from_secs(3);

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
    #[error("its end is missing")]
    Torn,
    #[error("it is not this share's")]
    Foreign,
}

impl ShareIntake {
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
                Ok(file) => self.take_spool_file(&path, &file, until),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "a spool file cannot be opened")
                }
            }
            if Instant::now() > until {
                return;
            }
        }
    }

    /// The file's process may still write to files. Until it has ended the session counts as one that comes back, so nobody calls
    /// the share settled.
    fn expect_back(&self, path: &Path) {
        let Some(session) = flags::session(path) else {
            return;
        };
        let mut state = self.lock();
        if !state.connections.contains_key(&session) {
            let back_by = Instant::now() + super::COMES_BACK_WITHIN;
            state.awaited.insert(session, back_by);
            self.publish_awaited(&state);
        }
    }

    fn take_spool_file(&self, path: &Path, file: &File, until: Instant) {
        let session = match self.take_spooled_events(file, until) {
            Ok(session) => session,
            Err(SpoolError::Journal) => return,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "a spool file cannot be taken in; a gap is noted");
                // Events of before the file's own time are in it.
                let modified = file
                    .metadata()
                    .map_or(0, |m| m.mtime().saturating_mul(1_000_000_000));
                self.raise_gap(modified, GapReason::Unknown);
                if !self.settle_pending_gap() {
                    return;
                }
                None
            }
        };
        if let Err(error) = fs::remove_file(path) {
            tracing::error!(path = %path.display(), %error, "a spool file cannot be removed; it will be taken again");
        }
        if let Some(session) = session {
            let mut state = self.lock();
            if !state.connections.contains_key(&session) && state.awaited.remove(&session).is_some() {
                state.kept.remove(&session);
                self.end_session(&mut state, session, SessionEnd::Closed);
                self.publish_awaited(&state);
            }
        }
    }

    /// The session, when its events are in the journal, synced.
    fn take_spooled_events(&self, file: &File, until: Instant) -> Result<Option<Session>, SpoolError> {
        let mut frames = Frames::open(file)?;
        let Some(ToDaemon::Hello(hello)) = frames.next()? else {
            return Err(SpoolError::Torn);
        };
        if !self.name.eq_ignore_ascii_case(&hello.share) {
            return Err(SpoolError::Foreign);
        }
        let session = Session::from(hello.session);
        let mut events = Vec::new();
        let last = loop {
            match frames.next()? {
                Some(ToDaemon::Events(more)) => events.extend(more),
                Some(ToDaemon::Sent { token }) => break token,
                _ => return Err(SpoolError::Torn),
            }
            if events.len() >= BATCH {
                self.append_spooled(&hello, std::mem::take(&mut events))?;
            }
        };
        self.append_spooled(&hello, events)?;
        while self.journal.acknowledged(session) < last {
            let left = until.saturating_duration_since(Instant::now());
            let synced = self.journal.status().synced;
            if left.is_zero() || self.journal.wait_synced(synced, left) == synced {
                return Err(SpoolError::Journal);
            }
        }
        Ok(Some(session))
    }

    fn append_spooled(&self, hello: &Hello, events: Vec<Stamped>) -> Result<(), SpoolError> {
        let session = Session::from(hello.session);
        let mut drafts: Vec<_> = events
            .into_iter()
            .map(|stamped| journal::Draft {
                // By the clock of another boot, perhaps.
                began_ns: 0,
                ..journal::draft(session, stamped)
            })
            .collect();
        let written = self.journal.written(session);
        drafts.retain(|draft| draft.session_sequence > written);
        let Some(first) = drafts.first() else {
            return Ok(());
        };
        let started = journal::Draft {
            time_ns: first.time_ns,
            session,
            session_sequence: 0,
            began_ns: 0,
            body: Body::SessionStarted {
                pid: hello.pid,
                samba: hello.samba.clone(),
                module: hello.module.clone(),
            },
        };
        let mut state = self.lock();
        // Until the file is gone it is a session that is expected back, so that nobody calls the share settled.
        if !state.connections.contains_key(&session) && !state.awaited.contains_key(&session) {
            state
                .awaited
                .insert(session, Instant::now() + super::COMES_BACK_WITHIN);
            self.publish_awaited(&state);
            drafts.insert(0, started);
        }
        if self.append(&mut state, drafts) {
            Ok(())
        } else {
            Err(SpoolError::Journal)
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
}

impl<'a> Frames<'a> {
    fn open(mut file: &'a File) -> Result<Self, SpoolError> {
        let mut preamble = [0; PREAMBLE];
        file.read_exact(&mut preamble)?;
        check_preamble(&preamble)?;
        Ok(Self {
            file,
            decoder: Decoder::default(),
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
            self.decoder.push(buffer.get(..n).unwrap_or_default());
        }
    }
}
