//! Whether sessions are asked for written data, and what status says of it.

use super::share::{ShareIntake, State};
use std::sync::atomic::Ordering;
use tokio::sync::watch;

/// Data is not taken any more when journal and kept contents have this part of the journal's bound: what is left is for
/// the records without data, which must find room.
const FULL_AT: u64 = 2;
/// And taken again when they have this part.
const ROOM_AT: u64 = 4;

/// What the share's catalog says of data that would be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// The share is compared with the catalog: meanwhile no state is exact, and data of no use.
    pub scan: bool,
    /// The same, until it is.
    pub gap: bool,
    /// No state was exact for a while though data came.
    pub rest: bool,
    /// Bytes of contents that the catalog keeps for sites, which count like the journal's.
    pub kept: u64,
}

/// How a share's changes are captured now, for status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureMode {
    /// Written data comes with the records.
    Copy,
    /// Ranges only. Why, when sessions have data to tell.
    Map(Option<&'static str>),
}

impl CaptureMode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Map(_) => "map",
        }
    }

    /// Why it is map though smbd offers copy.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Copy => None,
            Self::Map(why) => why,
        }
    }
}

pub(super) struct Capture {
    /// vfsxd's configuration takes data from sessions that have it.
    allowed: bool,
    demand: Demand,
    full: bool,
    /// Of `state_dir`: its disk is below the reserve.
    short: bool,
    /// The newest session tells data: while there is none, so will the next.
    newest: bool,
}

impl Capture {
    pub(super) fn new(allowed: bool) -> Self {
        Self {
            allowed,
            demand: Demand::default(),
            full: false,
            short: false,
            newest: false,
        }
    }
}

/// Of the connected sessions.
struct Rings {
    with: usize,
    without: usize,
}

fn rings(state: &State) -> Rings {
    let with = state.connections.values().filter(|c| c.ring().is_some()).count();
    Rings {
        with,
        without: state.connections.len() - with,
    }
}

impl ShareIntake {
    /// All sessions are asked for written data. Without any session it stays as it was.
    pub fn copying(&self) -> bool {
        *self.copy.borrow()
    }

    /// For status.
    pub fn mode(&self) -> CaptureMode {
        let state = self.lock();
        mode(&state, self.copying())
    }

    /// How often sessions were asked for something else than before.
    pub(super) fn copy_changes(&self) -> u64 {
        self.copy_changes.load(Ordering::SeqCst)
    }

    pub fn note_demand(&self, demand: Demand) {
        let mut state = self.lock();
        state.capture.demand = demand;
        self.decide(&mut state);
    }

    /// Whether the disk of `state_dir` has only its reserve, which is for records without data.
    pub fn note_short(&self, short: bool) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.capture.short, short) != short {
            self.decide(&mut state);
        }
    }

    /// A session is registered.
    pub(super) fn arrived(&self, state: &mut State, with_ring: bool) {
        state.capture.newest = with_ring;
        self.decide(state);
    }

    /// To be called when a session has gone, or the journal has grown by much.
    pub(super) fn decide(&self, state: &mut State) {
        let journal = self.journal.status();
        let Rings { with, without } = rings(state);
        let capture = &mut state.capture;
        let bytes = journal.bytes + capture.demand.kept;
        let bound = journal.bytes_max / if capture.full { ROOM_AT } else { FULL_AT };
        capture.full = bytes > bound;
        let Demand { scan, gap, rest, .. } = capture.demand;
        let useful = !scan && !gap && !rest;
        let possible = capture.allowed && !capture.full && !capture.short && useful;
        let changed = self.copy.send_if_modified(|on| {
            let was = *on;
            // One that tells ranges only makes the others' data useless: no state of the share would be exact.
            *on = possible && without == 0 && (with > 0 || was);
            // Before anybody can be told.
            self.copy_changes
                .fetch_add(u64::from(*on != was), Ordering::SeqCst);
            *on != was
        });
        if changed {
            let mode = mode(state, self.copying());
            let why = mode.reason().unwrap_or_default();
            tracing::info!(
                share = self.name,
                mode = mode.as_str(),
                why,
                "how changes are captured has changed"
            );
        }
    }

    /// Changes when a session that has been told nothing yet is to begin, or to stop, telling written data.
    pub(super) fn told_copy(&self) -> watch::Receiver<bool> {
        let mut told = self.copy.subscribe();
        if self.copying() {
            told.mark_changed();
        }
        told
    }
}

fn mode(state: &State, on: bool) -> CaptureMode {
    let Rings { with, without } = rings(state);
    let capture = &state.capture;
    if on {
        return CaptureMode::Copy;
    }
    if with == 0 && (without > 0 || !capture.newest) {
        return CaptureMode::Map(None);
    }
    let why = match capture {
        Capture { allowed: false, .. } => "vfsxd.toml has mode = \"map\"",
        Capture { full: true, .. } => "the journal has no room for data",
        Capture { short: true, .. } => "the disk of state_dir has only its reserve left",
        Capture { demand, .. } if demand.gap => "there is a gap",
        Capture { demand, .. } if demand.scan => "the share is compared",
        Capture { demand, .. } if demand.rest => "exact states cannot be had for the time",
        _ if without > 0 => "a session tells no data",
        _ => "no session has told data yet",
    };
    CaptureMode::Map(Some(why))
}
