//! Digests of rows, groups and trees. What is hashed is a format of its own (`docs/formats/store-metadata.md`): two
//! programs that store rows differently still have to find the same digests.

use crate::model::{Compression, Digest, HashAlgorithm, Kind, Layout, Object, ObjectId, Segment, Time};

/// Object ids in a group: the grain in which two trees are compared.
pub const GROUP_OBJECTS: u64 = 1024;

/// The group of an object, and of its rows. An entry is its directory's.
pub fn group_of(id: ObjectId) -> u64 {
    id.0 / GROUP_OBJECTS
}

/// Sums over a bucket's live rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    pub digest: Digest,
    pub objects: u64,
    /// Sum of the objects' sizes.
    pub bytes: u64,
}

/// A live row. A segment without blocks is none.
#[derive(Debug, Clone, Copy)]
pub enum Row<'a> {
    Object {
        id: ObjectId,
        object: &'a Object,
    },
    Attribute {
        id: ObjectId,
        name: &'a [u8],
        value: &'a [u8],
    },
    Entry {
        dir: ObjectId,
        name: &'a [u8],
        child: ObjectId,
    },
    Segment {
        id: ObjectId,
        number: u64,
        segment: &'a Segment,
    },
}

/// Digest of a row: of its key and its value, without serials and without the bucket.
pub fn row_digest(row: &Row<'_>) -> Digest {
    let mut bytes = Canonical::default();
    match row {
        Row::Object { id, object } => bytes.u8(b'o').u64(id.0).object(object),
        Row::Attribute { id, name, value } => bytes.u8(b'a').u64(id.0).string(name).string(value),
        Row::Entry { dir, name, child } => bytes.u8(b'e').u64(dir.0).string(name).u64(child.0),
        Row::Segment { id, number, segment } => bytes.u8(b's').u64(id.0).u64(*number).segment(segment),
    };
    Digest::from_bytes(*blake3::hash(&bytes.0).as_bytes())
}

/// Integers are big-endian, strings have their length before them.
#[derive(Default)]
struct Canonical(Vec<u8>);

impl Canonical {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u8(&mut self, number: u8) -> &mut Self {
        self.bytes(&[number])
    }

    fn u32(&mut self, number: u32) -> &mut Self {
        self.bytes(&number.to_be_bytes())
    }

    fn u64(&mut self, number: u64) -> &mut Self {
        self.bytes(&number.to_be_bytes())
    }

    fn string(&mut self, string: &[u8]) -> &mut Self {
        self.u64(string.len() as u64).bytes(string)
    }

    fn time(&mut self, time: Time) -> &mut Self {
        self.bytes(&time.seconds.to_be_bytes()).u32(time.nanoseconds)
    }

    fn object(&mut self, object: &Object) -> &mut Self {
        self.kind(&object.kind)
            .u32(object.mode)
            .u32(object.uid)
            .u32(object.gid)
            .u64(object.size);
        self.time(object.mtime)
            .time(object.atime)
            .time(object.btime)
            .layout(&object.layout)
    }

    fn kind(&mut self, kind: &Kind) -> &mut Self {
        match kind {
            Kind::File => self.u8(1),
            Kind::Directory => self.u8(2),
            Kind::Symlink { target } => self.u8(3).string(target),
            Kind::Fifo => self.u8(4),
            Kind::Socket => self.u8(5),
            Kind::CharDevice { major, minor } => self.u8(6).u32(*major).u32(*minor),
            Kind::BlockDevice { major, minor } => self.u8(7).u32(*major).u32(*minor),
        }
    }

    fn layout(&mut self, layout: &Layout) -> &mut Self {
        let compression = match layout.compression {
            Compression::None => 0,
            Compression::Zstd => 1,
        };
        self.u32(layout.block_size)
            .u32(layout.segment_blocks)
            .algorithm(layout.hash)
            .u8(compression)
    }

    fn algorithm(&mut self, algorithm: HashAlgorithm) -> &mut Self {
        self.u8(match algorithm {
            HashAlgorithm::Blake3 => 1,
            HashAlgorithm::Sha256 => 2,
            HashAlgorithm::Sha1 => 3,
        })
    }

    fn segment(&mut self, segment: &Segment) -> &mut Self {
        self.u32(segment.blocks.len() as u32);
        for (position, block, _) in &segment.blocks {
            self.u32(*position).u32(block.length).bytes(&block.key.0);
            self.algorithm(block.hash.algorithm())
                .bytes(block.hash.as_bytes());
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::hash_block;

    fn of_segment(blocks: Vec<(u32, crate::model::BlockRef, u64)>) -> Digest {
        row_digest(&Row::Segment {
            id: ObjectId(1),
            number: 0,
            segment: &Segment { blocks },
        })
    }

    #[test]
    fn serials_do_not_count_but_positions_and_content_do() {
        let (a, b) = (
            hash_block(b"a", HashAlgorithm::Sha1),
            hash_block(b"b", HashAlgorithm::Sha1),
        );
        assert_eq!(of_segment(vec![(0, a, 1)]), of_segment(vec![(0, a, 2)]));
        assert_ne!(of_segment(vec![(0, a, 1)]), of_segment(vec![(1, a, 1)]));
        assert_ne!(of_segment(vec![(0, a, 1)]), of_segment(vec![(0, b, 1)]));
    }

    #[test]
    fn the_border_between_name_and_value_counts() {
        let of = |name, value| {
            row_digest(&Row::Attribute {
                id: ObjectId(1),
                name,
                value,
            })
        };
        assert_ne!(of(b"ab", b"c"), of(b"a", b"bc"));
    }

    /// Pinned: sites and sources of different versions compare these.
    #[test]
    fn digests_are_those_of_the_format() {
        let entry = Row::Entry {
            dir: ObjectId(1),
            name: b"x",
            child: ObjectId(2),
        };
        let bytes = b"e\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01x\0\0\0\0\0\0\0\x02";
        assert_eq!(row_digest(&entry).to_bytes(), *blake3::hash(bytes).as_bytes());

        let block = hash_block(b"abc", HashAlgorithm::Blake3);
        let segment = Segment {
            blocks: vec![(5, block, 9)],
        };
        let mut bytes = b"s\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\x01\0\0\0\x05\0\0\0\x03".to_vec();
        bytes.extend(block.key.0);
        bytes.push(1);
        bytes.extend(block.key.0);
        let row = Row::Segment {
            id: ObjectId(1),
            number: 2,
            segment: &segment,
        };
        assert_eq!(row_digest(&row).to_bytes(), *blake3::hash(&bytes).as_bytes());

        let object = Object {
            kind: Kind::Symlink {
                target: b"t".to_vec(),
            },
            mode: 0o777,
            uid: 1,
            gid: 2,
            size: 0,
            mtime: Time {
                seconds: -1,
                nanoseconds: 5,
            },
            atime: Time::default(),
            btime: Time::default(),
            layout: Layout::default(),
        };
        let mut bytes =
            b"o\0\0\0\0\0\0\0\x07\x03\0\0\0\0\0\0\0\x01t\0\0\x01\xff\0\0\0\x01\0\0\0\x02".to_vec();
        bytes.extend([0; 8]);
        bytes.extend(b"\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x05");
        bytes.extend([0; 24]);
        bytes.extend(b"\0\x01\0\0\0\0\0\x40\x01\x01");
        let row = Row::Object {
            id: ObjectId(7),
            object: &object,
        };
        assert_eq!(row_digest(&row).to_bytes(), *blake3::hash(&bytes).as_bytes());
    }
}
