//! Reading records in order, from the files: however far behind a reader is, it costs no memory.

use super::codec::Header;
use super::open::now_ns;
use super::record::Record;
use super::segment::{self, Found, Walk};
use super::{Journal, ReadError};
use std::io;

/// Written data given out at once: one record more, and it is enough.
pub const READ_BYTES: usize = 8 << 20;

/// Gives out synced records. Damage in a segment is skipped to the segment's end: a gap is appended to the journal
/// for it, so it comes out of this reader later.
pub struct Reader {
    journal: Journal,
    /// The next record to give out.
    next: u64,
    /// Time of the last record given out.
    last_time: i64,
    place: Option<Place>,
}

struct Place {
    /// Name of the segment.
    first: u64,
    walk: Walk,
}

enum Step {
    Record(Box<Record>),
    /// The segment is finished: go to the next.
    SegmentEnd,
    Damage(String),
}

impl Reader {
    pub(super) fn new(journal: Journal, next: u64) -> Result<Self, ReadError> {
        let oldest = journal.lock().segments.front().map_or(1, |s| s.first);
        if next < oldest {
            return Err(ReadError::Trimmed { asked: next, oldest });
        }
        Ok(Self {
            journal,
            next,
            last_time: 0,
            place: None,
        })
    }

    /// Sequence of the record that comes next.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Up to `max` synced records, or fewer with [`READ_BYTES`] of data; none when there are no more now. Does not wait: see [`Journal::wait_synced`].
    pub fn read(&mut self, max: usize) -> Result<Vec<Record>, ReadError> {
        let synced = self.journal.lock().synced;
        let (mut records, mut bytes) = (Vec::new(), 0);
        while records.len() < max && bytes < READ_BYTES && self.next <= synced {
            match self.step()? {
                Step::Record(record) => {
                    self.next = record.sequence + 1;
                    self.last_time = record.time_ns;
                    bytes += record.data_len();
                    records.push(*record);
                }
                Step::SegmentEnd => {}
                // What was read so far comes first; the damage is found again.
                Step::Damage(_) if !records.is_empty() => break,
                Step::Damage(damage) => {
                    self.skip(damage)?;
                    break;
                }
            }
        }
        Ok(records)
    }

    fn step(&mut self) -> Result<Step, ReadError> {
        let mut place = match self.place.take() {
            Some(place) => place,
            None => match self.open_segment()? {
                Ok(place) => place,
                Err(damage) => return Ok(Step::Damage(damage)),
            },
        };
        let step = self.step_in(&mut place)?;
        if !matches!(step, Step::SegmentEnd) {
            self.place = Some(place);
        }
        Ok(step)
    }

    fn step_in(&mut self, place: &mut Place) -> Result<Step, ReadError> {
        loop {
            let offset = place.walk.offset();
            let path = self.path(place.first);
            let found = place.walk.next().map_err(|source| ReadError::Io {
                path: path.clone(),
                source,
            })?;
            match found {
                Found::Record(record) if record.sequence < self.next => {}
                Found::Record(record) if record.sequence == self.next => {
                    return Ok(Step::Record(record));
                }
                Found::Record(record) => {
                    let damage = format!("{path}: record {} where {} belongs", record.sequence, self.next);
                    return Ok(Step::Damage(damage));
                }
                Found::End if self.segment_after(place.first) == Some(self.next) => {
                    return Ok(Step::SegmentEnd);
                }
                Found::End => {
                    return Ok(Step::Damage(format!(
                        "{path}: ends at {offset} before record {}",
                        self.next
                    )));
                }
                Found::Damaged(e) => return Ok(Step::Damage(format!("{path}: damaged at {offset}: {e}"))),
            }
        }
    }

    /// The segment that holds the next record. The inner error is damage.
    fn open_segment(&mut self) -> Result<Result<Place, String>, ReadError> {
        let Some(first) = self.segment_of(self.next) else {
            let oldest = self.journal.lock().segments.front().map_or(1, |s| s.first);
            return Err(ReadError::Trimmed {
                asked: self.next,
                oldest,
            });
        };
        let path = self.path(first);
        let storage = &self.journal.inner.storage;
        let opened = storage.open(&segment::name(first)).and_then(Walk::open);
        match opened {
            Ok(Ok((walk, header))) => Ok(self.enter(Place { first, walk }, &header)),
            Ok(Err(e)) => Ok(Err(format!("{path}: damaged header: {e}"))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Err(format!("{path}: the file is gone"))),
            Err(source) => Err(ReadError::Io { path, source }),
        }
    }

    fn enter(&mut self, place: Place, header: &Header) -> Result<Place, String> {
        if header.first != place.first {
            return Err(format!(
                "{}: holds the records from {}",
                self.path(place.first),
                header.first
            ));
        }
        Ok(place)
    }

    /// Goes to the segment after the damaged one, after a gap was noted for what is lost.
    fn skip(&mut self, damage: String) -> Result<(), ReadError> {
        let first = self
            .place
            .take()
            .map(|p| p.first)
            .or_else(|| self.segment_of(self.next))
            .unwrap_or(0);
        if let Some(after) = self
            .segment_after(first)
            .filter(|after| self.begins_with_gap(*after))
        {
            tracing::warn!(damage, "journal records are lost; a gap is noted already");
            self.next = self.next.max(after);
            return Ok(());
        }
        tracing::error!(damage, "journal records are lost; a gap is noted");
        if let Err(source) = self.journal.note_damage(first, now_ns(), self.last_time) {
            return Err(ReadError::GapNotNoted { damage, source });
        }
        if let Some(after) = self.segment_after(first) {
            self.next = self.next.max(after);
        }
        Ok(())
    }

    fn begins_with_gap(&self, first: u64) -> bool {
        let opened = self
            .journal
            .inner
            .storage
            .open(&segment::name(first))
            .and_then(Walk::open);
        matches!(opened, Ok(Ok((_, header))) if header.broken)
    }

    fn segment_of(&self, sequence: u64) -> Option<u64> {
        let state = self.journal.lock();
        state
            .segments
            .iter()
            .rev()
            .map(|s| s.first)
            .find(|first| *first <= sequence)
    }

    fn segment_after(&self, first: u64) -> Option<u64> {
        let state = self.journal.lock();
        state.segments.iter().map(|s| s.first).find(|f| *f > first)
    }

    fn path(&self, first: u64) -> String {
        self.journal.inner.storage.describe(&segment::name(first))
    }
}
