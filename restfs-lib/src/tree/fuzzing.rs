//! The store's rows and keys for the fuzz targets. No interface: it changes with what it leads to.

use super::bucket::Bucket;
use super::codec::*;
use super::commit::{Commit, CommitInfo, Position};
use super::keys::{self, KeyParts};
use super::{Totals, TreeError};
use crate::content::hash_block;
use crate::model::*;

/// The first byte says which kind of row the rest is. Panics when what was taken is not what it is written as.
pub fn row(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    match kind {
        0 => same(bytes, decode_object, encode_object, use_object),
        1 => same(bytes, decode_segment, encode_segment, |_| ()),
        2 => same(bytes, |b| decode_bucket(BucketId(1), b), encode_bucket, |_| ()),
        3 => same(bytes, |b| decode_commit(1, b), encode_commit, |_| ()),
        4 => same(bytes, decode_position, |p| encode_position(*p), |_| ()),
        5 => same(bytes, decode_totals, |t| encode_totals(*t), |_| ()),
        6 => same(bytes, decode_group, |d| encode_group(*d), |_| ()),
        7 => same(bytes, decode_child, |c| encode_child(*c), |_| ()),
        8 => same(bytes, decode_bucket_id, |b| encode_bucket_id(*b), |_| ()),
        9 => drop(decode_attribute(bytes)),
        _ => key(bytes),
    }
}

/// One of each kind.
pub fn rows() -> Vec<Vec<u8>> {
    let object = |kind, size| Object {
        kind,
        mode: 0o640,
        uid: 1000,
        gid: 1000,
        size,
        mtime: Time::default(),
        atime: Time::default(),
        btime: Time::default(),
        layout: Layout::default(),
    };
    let target = b"to".to_vec();
    let blocks = [HashAlgorithm::Blake3, HashAlgorithm::Sha1].map(|hash| hash_block(b"abc", hash));
    let segment = Segment {
        blocks: vec![(0, blocks[0], 1), (200, blocks[1], 128)],
    };
    let bucket = Bucket {
        id: BucketId(1),
        name: "data".to_owned(),
        layout: Layout::default(),
        created_ns: 5,
        head: 6,
        next_object: ObjectId(7),
        source: Some("source".to_owned()),
        epoch: 8,
        deleted: false,
    };
    let totals = Totals {
        digest: Digest([1, 2, 3, 4]),
        objects: 2,
        bytes: 3,
    };
    let commit = Commit {
        point: 1,
        info: CommitInfo {
            time_ns: 1,
            committed_ns: 2,
            source: "source".to_owned(),
            epoch: 3,
            first: 4,
            last: 5,
            exact: true,
            resync: false,
        },
        ops: 6,
        totals,
    };
    let position = Position {
        epoch: 1,
        sequence: 2,
        point: 3,
    };
    let entry = keys::entry(BucketId(1), ObjectId(2), b"name");
    [
        (0, encode_object(&object(Kind::File, 1 << 40))),
        (0, encode_object(&object(Kind::Symlink { target }, 0))),
        (1, encode_segment(&segment)),
        (2, encode_bucket(&bucket)),
        (3, encode_commit(&commit)),
        (4, encode_position(position)),
        (5, encode_totals(totals)),
        (6, encode_group(totals.digest)),
        (7, encode_child(ObjectId(300))),
        (8, encode_bucket_id(BucketId(300))),
        (9, encode_attribute(b"value")),
        (10, keys::revision(&entry, 9).to_vec()),
    ]
    .into_iter()
    .map(|(kind, bytes)| [&[kind][..], &bytes].concat())
    .collect()
}

/// What was decoded is what its bytes are decoded to. Not always the same bytes: numbers have longer forms.
fn same<T: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, TreeError>,
    encode: impl Fn(&T) -> Vec<u8>,
    used: impl Fn(&T),
) {
    if let Ok(row) = decode(bytes) {
        used(&row);
        assert_eq!(decode(&encode(&row)).as_ref(), Ok(&row));
    }
}

/// As whoever reads the object reckons.
fn use_object(object: &Object) {
    let last = object.layout.block_of(object.size);
    let (segment, position) = object.layout.place_of(last);
    assert_eq!(object.layout.block_at(segment, position), last);
    assert!(object.layout.segments_in(object.size) <= object.layout.blocks_in(object.size));
}

fn key(bytes: &[u8]) {
    if let Ok((row, point)) = keys::split_revision(bytes.to_vec()) {
        assert_eq!(&keys::revision(&row, point)[..], bytes);
        let _ = (keys::last_name(&row), keys::last_number(&row));
    }
    let mut parts = KeyParts::new(bytes);
    while parts.number().is_ok() {}
    let _ = parts.name();
}
