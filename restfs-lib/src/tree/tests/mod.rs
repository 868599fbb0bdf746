mod buckets;
mod checks;
mod commits;
mod model;
mod purge;
mod random;
mod rows;

use super::{Applied, At, Checks, History, Tree, TreeError, apply, apply_all};
use crate::content::hash_block;
use crate::kv::{Kv, MemoryKv, transact};
use crate::model::{BlockRef, BucketId, HashAlgorithm, Kind, Layout, Object, ObjectId, Op, Time};

const BUCKET: BucketId = BucketId(1);
const BLOCK: u32 = 4096;
const LAYOUT: Layout = Layout {
    block_size: BLOCK,
    segment_blocks: 4,
    hash: HashAlgorithm::Blake3,
    compression: crate::model::Compression::Zstd,
};

fn object(kind: Kind, size: u64) -> Object {
    Object {
        kind,
        mode: 0o640,
        uid: 1000,
        gid: 100,
        size,
        mtime: Time {
            seconds: 1,
            nanoseconds: 2,
        },
        atime: Time::default(),
        btime: Time {
            seconds: -1,
            nanoseconds: 999_999_999,
        },
        layout: LAYOUT,
    }
}

fn put_file(id: u64, blocks: u64) -> Op {
    Op::PutObject {
        id: ObjectId(id),
        object: object(Kind::File, blocks * u64::from(BLOCK)),
    }
}

fn put_dir(id: u64) -> Op {
    Op::PutObject {
        id: ObjectId(id),
        object: object(Kind::Directory, 0),
    }
}

fn drop_object(id: u64) -> Op {
    Op::DropObject { id: ObjectId(id) }
}

fn put_entry(dir: u64, name: &str, child: u64) -> Op {
    Op::PutEntry {
        dir: ObjectId(dir),
        name: name.into(),
        child: ObjectId(child),
    }
}

fn drop_entry(dir: u64, name: &str) -> Op {
    Op::DropEntry {
        dir: ObjectId(dir),
        name: name.into(),
    }
}

fn put_attribute(id: u64, name: &str, value: &str) -> Op {
    Op::PutAttribute {
        id: ObjectId(id),
        name: name.into(),
        value: value.into(),
    }
}

fn put_block(id: u64, segment: u64, position: u32, content: &str) -> Op {
    Op::PutBlocks {
        id: ObjectId(id),
        segment,
        blocks: vec![(position, Some(block(content)))],
    }
}

fn punch(id: u64, segment: u64, position: u32) -> Op {
    Op::PutBlocks {
        id: ObjectId(id),
        segment,
        blocks: vec![(position, None)],
    }
}

fn block(content: &str) -> BlockRef {
    BlockRef {
        length: BLOCK,
        ..hash_block(content.as_bytes(), HashAlgorithm::Blake3)
    }
}

/// A store with one bucket, for commits with history.
struct Store(MemoryKv);

impl Store {
    fn new() -> Self {
        Self(MemoryKv::new())
    }

    fn commit(&self, checks: Checks, point: u64, ops: &[Op]) -> Result<Applied, TreeError> {
        transact(&self.0, |txn| {
            apply_all(txn, BUCKET, point, History::Keep, checks, ops)
        })
    }

    fn mirror(&self, point: u64, ops: &[Op]) -> Applied {
        self.commit(Checks::Mirror, point, ops).unwrap()
    }

    fn apply(&self, point: u64, op: &Op) -> Result<Applied, TreeError> {
        transact(&self.0, |txn| apply(txn, BUCKET, point, History::HeadOnly, op))
    }

    fn at<T>(&self, at: At, look: impl FnOnce(&Tree<'_>) -> T) -> T {
        let read = self.0.read().unwrap();
        look(&Tree::new(read.as_ref(), BUCKET, at))
    }

    fn head<T>(&self, look: impl FnOnce(&Tree<'_>) -> T) -> T {
        self.at(At::Head, look)
    }

    fn rows(&self) -> usize {
        use std::ops::Bound::Unbounded;
        self.0
            .read()
            .unwrap()
            .scan(Unbounded, Unbounded, usize::MAX)
            .unwrap()
            .len()
    }
}
