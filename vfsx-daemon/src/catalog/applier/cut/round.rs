//! What is known of objects at the end of a round without looking at the disk: the tree of before, and what the round's
//! records say is new.

use super::super::work::Work;
use crate::catalog::CatalogError;
use crate::journal::{Metadata, NodeRef};
use bytes::Bytes;
use rangemap::RangeSet;
use restfs_lib::model::{Kind, Object, ObjectId, Time};
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// Bytes of data that one round leaves to the next.
const CARRIED: usize = 16 << 20;

/// A round: records that are applied together, and then made good by what is on disk.
#[derive(Default)]
pub(in crate::catalog::applier) struct Round {
    /// All records of calls that began by its end are applied when it is read for, none of later ones, and the tree of before
    /// was true at some moment, but for what is `known` beside it.
    pub(super) sure: bool,
    pub(super) known: Known,
    /// The newest that the round says of inodes, for those that it creates.
    described: HashMap<NodeRef, Metadata>,
    /// Names that were taken from disk.
    pub(super) looked: HashSet<(ObjectId, Vec<u8>)>,
    /// Something was created that is not there any more, and that no record describes.
    pub(super) missing: bool,
}

/// What is known of objects beside the tree of before.
#[derive(Default)]
pub(in crate::catalog::applier) struct Known {
    pub(super) rolls: HashMap<ObjectId, Roll>,
    /// By object and index of the block.
    pub(super) pieces: HashMap<(ObjectId, u64), Vec<Piece>>,
    /// Objects that are to be read since before the round: of them the tree of before may not be true.
    pub(super) doubtful: HashSet<ObjectId>,
}

/// An object as the round leaves it.
#[derive(Debug, Clone, Default)]
pub(super) struct Roll {
    /// Bytes of the file, and the fewest that it had in the round: nothing of its old content lies beyond.
    pub(super) size: u64,
    pub(super) least: u64,
    /// The size without the announced writes, which may fail.
    pub(super) sure: u64,
    /// When the newest change was noted that moves the modification time.
    pub(super) mtime: Option<Time>,
    pub(super) metadata: Option<Metadata>,
    /// Changed to what only the disk knows: size, or any other metadata.
    pub(super) vague: bool,
    /// Content that only the disk knows.
    pub(super) vague_content: RangeSet<u64>,
}

/// A change of a block's content.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    Data {
        at: usize,
        bytes: Bytes,
    },
    /// All from here on.
    Zero {
        from: usize,
    },
}

impl Roll {
    /// Of an object that the round has not changed yet.
    pub(super) fn of(object: &Object) -> Self {
        Self {
            size: object.size,
            least: object.size,
            sure: object.size,
            ..Self::default()
        }
    }
}

impl Round {
    pub(in crate::catalog::applier) fn new(
        sure: bool,
        known: Known,
        described: HashMap<NodeRef, Metadata>,
    ) -> Self {
        Self {
            sure,
            known,
            described,
            ..Self::default()
        }
    }

    pub(in crate::catalog::applier) fn miss(&mut self) {
        self.missing = true;
    }

    /// The disk decides about the name.
    pub(in crate::catalog::applier) fn look(&mut self, dir: ObjectId, name: &[u8]) {
        self.looked.insert((dir, name.to_vec()));
    }

    pub(in crate::catalog::applier) fn description(&self, node: &NodeRef) -> Option<Metadata> {
        self.described.get(node).cloned()
    }
}

impl Known {
    /// What of it is left after a round that failed: for objects that were not read the next one goes on from what this one
    /// knew. Of others that are still to be read nobody knows anything.
    pub(super) fn left(mut self, unread: &HashSet<ObjectId>, dirty: impl Iterator<Item = ObjectId>) -> Self {
        let known = |id: &ObjectId| unread.contains(id) && !self.doubtful.contains(id);
        let doubtful = dirty.filter(|id| !known(id)).collect();
        self.rolls.retain(|id, _| unread.contains(id));
        self.pieces.retain(|(id, _), _| unread.contains(id));
        self.doubtful = doubtful;
        if self.pieces.values().flatten().map(Piece::bytes).sum::<usize>() > CARRIED {
            self.doubtful.extend(self.pieces.keys().map(|(id, _)| *id));
            self.pieces.clear();
        }
        self
    }
}

impl Piece {
    fn bytes(&self) -> usize {
        match self {
            Self::Data { bytes, .. } => bytes.len(),
            Self::Zero { .. } => 0,
        }
    }
}

/// What a record says is new of an object.
pub(in crate::catalog::applier) enum News<'a> {
    /// It moves the modification time, no more.
    Time,
    /// Its metadata, as the module read them.
    Metadata(&'a Metadata),
    /// Of its metadata only the disk knows what.
    Touched,
    /// Written bytes.
    Write {
        start: u64,
        data: &'a Bytes,
    },
    /// These bytes are as the disk says.
    Range(Range<u64>),
    Size(u64),
    /// Anything may be new.
    Unknown,
}

impl Work<'_> {
    /// The tree has something in it of which the round's records do not tell.
    pub(in crate::catalog::applier) fn doubt_round(&mut self) {
        if let Some(round) = &mut self.memory.round {
            round.sure = false;
        }
    }

    /// Takes in what a record says of the object; nothing outside of a round.
    pub(in crate::catalog::applier) fn roll(
        &mut self,
        id: ObjectId,
        news: News<'_>,
    ) -> Result<(), CatalogError> {
        if self.memory.round.is_none() {
            return Ok(());
        }
        let Some(object) = self.object(id)? else {
            return Ok(());
        };
        let block = u64::from(object.layout.block_size);
        let now = Time::from_ns(self.cause.time_ns.into());
        let Some(round) = &mut self.memory.round else {
            return Ok(());
        };
        let roll = round.known.rolls.entry(id).or_insert_with(|| Roll::of(&object));
        match news {
            News::Time => roll.mtime = Some(now),
            News::Metadata(metadata) => {
                roll.mtime = Time::new(metadata.mtime.0, metadata.mtime.1);
                roll.metadata = Some(metadata.clone());
            }
            News::Touched => roll.vague = true,
            News::Unknown => {
                roll.vague = true;
                roll.vague_content.insert(0..u64::MAX);
            }
            _ if object.kind != Kind::File => {}
            News::Range(range) => {
                roll.mtime = Some(now);
                // It may be what is told of a write that failed, or more.
                roll.vague |= range.end > roll.sure;
                if range.start < range.end {
                    roll.vague_content.insert(range);
                }
            }
            News::Size(size) => {
                roll.mtime = Some(now);
                (roll.size, roll.sure, roll.least) = (size, size, roll.least.min(size));
                forget(&mut roll.vague_content, size..u64::MAX);
                cut(&mut round.known.pieces, id, size, block);
            }
            News::Write { start, data } => {
                roll.mtime = Some(now);
                let end = start.saturating_add(data.len() as u64);
                roll.size = roll.size.max(end);
                forget(&mut roll.vague_content, start..end);
                write(&mut round.known.pieces, id, start, data, block);
            }
        }
        Ok(())
    }
}

fn forget(ranges: &mut RangeSet<u64>, range: Range<u64>) {
    if range.start < range.end {
        ranges.remove(range);
    }
}

type Pieces = HashMap<(ObjectId, u64), Vec<Piece>>;

fn write(pieces: &mut Pieces, id: ObjectId, start: u64, data: &Bytes, block: u64) {
    let mut done = 0;
    while done < data.len() {
        let offset = start.saturating_add(done as u64);
        let at = (offset % block) as usize;
        let length = (block as usize - at).min(data.len() - done);
        let piece = Piece::Data {
            at,
            bytes: data.slice(done..done + length),
        };
        pieces.entry((id, offset / block)).or_default().push(piece);
        done += length;
    }
}

/// The file ends at `size`: what was beyond is zeros if it grows again.
fn cut(pieces: &mut Pieces, id: ObjectId, size: u64, block: u64) {
    let last = size / block;
    pieces.retain(|(object, index), _| *object != id || *index <= last);
    let zero = Piece::Zero {
        from: (size % block) as usize,
    };
    pieces.entry((id, last)).or_default().push(zero);
}

/// Lays pieces over a block; which bytes they have set.
pub(super) fn lay(pieces: &[Piece], block: &mut Vec<u8>, length: usize) -> RangeSet<usize> {
    block.resize(length, 0);
    let mut set = RangeSet::new();
    for piece in pieces {
        match piece {
            Piece::Data { at, bytes } => {
                let end = (at + bytes.len()).min(length);
                let Some(target) = block.get_mut(*at..end) else {
                    continue;
                };
                if let Some(source) = bytes.get(..target.len()) {
                    target.copy_from_slice(source);
                }
                if *at < end {
                    set.insert(*at..end);
                }
            }
            Piece::Zero { from } => {
                if let Some(target) = block.get_mut(*from..) {
                    target.fill(0);
                }
                if *from < length {
                    set.insert(*from..length);
                }
            }
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCK: u64 = 16;

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        Size(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..60, proptest::collection::vec(1u8.., 1..40)).prop_map(|(at, data)| Step::Write(at, data)),
            1 => (0u64..70).prop_map(Step::Size),
        ]
    }

    proptest! {
        /// Pieces over the old content make the file that writes and cuts in the same order make, and bytes that they
        /// claim to have set do not depend on the old content.
        #[test]
        fn pieces_make_the_content_that_the_calls_made(steps in proptest::collection::vec(step(), 0..12), old in 0u64..70) {
            let before = vec![7u8; old as usize];
            let mut file = before.clone();
            let (mut pieces, mut least, mut size) = (Pieces::new(), old, old);
            let id = ObjectId(1);
            for step in steps {
                match step {
                    Step::Write(at, data) => {
                        let end = at as usize + data.len();
                        file.resize(file.len().max(end), 0);
                        file[at as usize..end].copy_from_slice(&data);
                        size = size.max(end as u64);
                        write(&mut pieces, id, at, &Bytes::from(data), BLOCK);
                    }
                    Step::Size(new) => {
                        file.resize(new as usize, 0);
                        (size, least) = (new, least.min(new));
                        cut(&mut pieces, id, new, BLOCK);
                    }
                }
            }
            prop_assert_eq!(file.len() as u64, size);
            for index in 0..size.div_ceil(BLOCK) {
                let start = index * BLOCK;
                let length = (size - start).min(BLOCK) as usize;
                let mut block = match start >= least {
                    true => Vec::new(),
                    false => before[start as usize..before.len().min((start + BLOCK) as usize)].to_vec(),
                };
                let none = Vec::new();
                let of = pieces.get(&(id, index)).unwrap_or(&none);
                let set = lay(of, &mut block, length);
                let expected = &file[start as usize..start as usize + length];
                prop_assert_eq!(&block[..], expected);
                let mut other = vec![99; length];
                lay(of, &mut other, length);
                for at in set.into_iter().flatten() {
                    prop_assert_eq!(other[at], expected[at]);
                }
            }
        }
    }
}
