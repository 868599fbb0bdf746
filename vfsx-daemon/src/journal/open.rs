//! Opening: what a crash left behind becomes a journal that can be appended to.
//!
//! Only the newest segment can have a torn end, since a segment is synced before the next is begun. What cannot be
//! decoded there is cut off. But when whole records follow it, the damage may be older than the last sync and
//! acknowledged records may be in it: the segment is then left as it is and a new one begun, with a gap as its first
//! record. Damage elsewhere is found by the readers.

use super::codec::{self, Header};
use super::record::{Body, Draft, GapReason, Session};
use super::segment::{self, Found, TEMPORARY, Walk};
use super::sessions::Sessions;
use super::{OpenError, Options, SegmentInfo, State};
use restfs_lib::disk::{Storage, StorageFile};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

pub(super) fn open(storage: &dyn Storage, options: &Options) -> Result<State, OpenError> {
    let fail = |what: &'static str, name: &str| {
        let path = storage.describe(name);
        move |source: io::Error| OpenError::Io { what, path, source }
    };
    let firsts = prepare(storage).map_err(fail("read the journal's directory", ""))?;
    let mut segments = VecDeque::new();
    for first in &firsts {
        let name = segment::name(*first);
        let bytes = storage
            .open(&name)
            .and_then(|f| f.length())
            .map_err(fail("open", &name))?;
        segments.push_back(SegmentInfo { first: *first, bytes });
    }
    let end = match firsts.last() {
        None => End::nothing(options.floor),
        Some(first) => {
            let name = segment::name(*first);
            let file = storage.open(&name).map_err(fail("open", &name))?;
            examine(file, *first, options.floor, &storage.describe(&name)).map_err(fail("read", &name))?
        }
    };
    match end {
        End::Whole {
            file,
            last,
            end,
            sessions,
        } => {
            if let Some(info) = segments.back_mut() {
                info.bytes = end;
            }
            Ok(state(segments, file, end, last, sessions))
        }
        End::Begin { first, sessions, gap } => {
            let name = segment::name(first);
            begin(storage, segments, first, sessions, gap).map_err(fail("begin the journal segment", &name))
        }
    }
}

/// How the journal goes on.
enum End {
    /// In the newest segment.
    Whole {
        file: Arc<dyn StorageFile>,
        last: u64,
        end: u64,
        sessions: Sessions,
    },
    /// In a new one.
    Begin {
        first: u64,
        sessions: Sessions,
        /// Records before it are lost; changes may have been missed since this time.
        gap: Option<i64>,
    },
}

impl End {
    fn nothing(floor: u64) -> Self {
        Self::Begin {
            first: floor + 1,
            sessions: Sessions::default(),
            gap: (floor > 0).then_some(0),
        }
    }
}

/// Removes what a crash left of a segment under construction; lists the others.
fn prepare(storage: &dyn Storage) -> io::Result<Vec<u64>> {
    if storage.list()?.iter().any(|name| name == TEMPORARY) {
        storage.remove(TEMPORARY)?;
    }
    segment::list(storage)
}

fn examine(file: Arc<dyn StorageFile>, first: u64, floor: u64, path: &str) -> io::Result<End> {
    let (mut walk, header) = match Walk::open(Arc::clone(&file))? {
        Ok(opened) => opened,
        Err(error) => {
            tracing::error!(path, %error, "the newest journal segment has a damaged header");
            let highest = Walk::at(file, 0).highest_beyond(first)?.unwrap_or(first);
            let first = highest.max(first).max(floor).saturating_add(1);
            return Ok(End::Begin {
                first,
                sessions: Sessions::default(),
                gap: Some(0),
            });
        }
    };
    let mut sessions = Sessions::from_rows(&header.sessions);
    let mut last = first - 1;
    let mut last_time = 0;
    let (end, torn) = loop {
        let end = walk.offset();
        match walk.next()? {
            Found::Record(record) if record.sequence == last + 1 => {
                last = record.sequence;
                last_time = record.time_ns;
                sessions.note_written(&record);
            }
            Found::End => break (end, false),
            Found::Record(_) | Found::Damaged(_) => break (end, true),
        }
    };
    sessions.all_synced();
    if torn && let Some(highest) = Walk::at(Arc::clone(&file), end + 1).highest_beyond(last + 1)? {
        tracing::error!(
            path,
            offset = end,
            "damage in the newest journal segment; a gap is noted"
        );
        let first = highest.max(last).max(floor).saturating_add(1);
        return Ok(End::Begin {
            first,
            sessions,
            gap: Some(last_time),
        });
    }
    if torn {
        tracing::warn!(path, offset = end, "cut the torn end of the journal");
        file.set_len(end)?;
    }
    file.write_again(0..end)?;
    file.sync_data()?;
    if floor > last {
        tracing::error!(
            path,
            last,
            floor,
            "the journal ends before what the catalog has applied; a gap is noted"
        );
        return Ok(End::Begin {
            first: floor + 1,
            sessions,
            gap: Some(last_time),
        });
    }
    Ok(End::Whole {
        file,
        last,
        end,
        sessions,
    })
}

fn begin(
    storage: &dyn Storage,
    mut segments: VecDeque<SegmentInfo>,
    first: u64,
    sessions: Sessions,
    gap: Option<i64>,
) -> io::Result<State> {
    let mut records = Vec::new();
    let mut last = first - 1;
    if let Some(since_ns) = gap {
        let body = Body::Gap {
            since_ns,
            reason: GapReason::JournalDamaged,
        };
        let draft = Draft::note(Session::DAEMON, now_ns(), body);
        codec::encode_record(&draft.numbered(first), &mut records).map_err(io::Error::other)?;
        last = first;
    }
    let header = Header {
        first,
        broken: gap.is_some(),
        sessions: sessions.rows(),
    };
    let (file, end) = segment::create(storage, &header, &records)?;
    segments.push_back(SegmentInfo { first, bytes: end });
    Ok(state(segments, file, end, last, sessions))
}

fn state(
    segments: VecDeque<SegmentInfo>,
    current: Arc<dyn StorageFile>,
    end: u64,
    last: u64,
    sessions: Sessions,
) -> State {
    State {
        segments,
        current,
        end,
        synced_end: end,
        next: last + 1,
        synced: last,
        unsynced: VecDeque::new(),
        newly_synced: BTreeMap::new(),
        sessions,
        failed: false,
        trouble: None,
        hurried: false,
        resting: false,
    }
}

pub(super) fn now_ns() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
