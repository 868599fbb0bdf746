//! Changes of a bucket's tree.

use super::object::{BlockRef, Object, ObjectId};

/// One change of a tree. States a new value, so applying it twice is the same as once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Creates the object or replaces its properties. A smaller size drops the blocks beyond it.
    PutObject {
        id: ObjectId,
        object: Object,
    },
    /// Removes the object with its attributes and segments. Its names are removed by `DropEntry` before.
    DropObject {
        id: ObjectId,
    },
    /// `name` in `dir` leads to `child` from now on, whatever it led to before.
    PutEntry {
        dir: ObjectId,
        name: Vec<u8>,
        child: ObjectId,
    },
    DropEntry {
        dir: ObjectId,
        name: Vec<u8>,
    },
    /// Extended attribute under its full name (`user.DOSATTRIB`, `system.posix_acl_access`), or a RestFS user
    /// attribute (`restfs.*`).
    PutAttribute {
        id: ObjectId,
        name: Vec<u8>,
        value: Vec<u8>,
    },
    DropAttribute {
        id: ObjectId,
        name: Vec<u8>,
    },
    /// Changes the named positions of one segment; `None` makes a hole.
    PutBlocks {
        id: ObjectId,
        segment: u64,
        blocks: Vec<(u32, Option<BlockRef>)>,
    },
}

/// What a row of the tree is about. Rows, without their revisions, are what [`super::Digest`] sums up.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowKey {
    Object { id: ObjectId },
    Attribute { id: ObjectId, name: Vec<u8> },
    Entry { dir: ObjectId, name: Vec<u8> },
    Segment { id: ObjectId, segment: u64 },
}
