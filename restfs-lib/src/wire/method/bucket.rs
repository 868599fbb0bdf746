//! Buckets, their recovery points, edits by hand.

use super::{Done, NoParams, methods};
use crate::wire::bytes::{Content, Name};
use crate::wire::values::{Layout, ObjectAt, Time};
use serde::{Deserialize, Serialize};

methods! {
    BucketCreate = "bucket.create": BucketCreateParams => Bucket;
    BucketList = "bucket.list": NoParams => BucketListResult;
    BucketInfo = "bucket.info": BucketName => Bucket;
    BucketSet = "bucket.set": BucketSetParams => Bucket;
    BucketDelete = "bucket.delete": BucketName => Done;
    BucketPurge = "bucket.purge": BucketPurgeParams => BucketPurgeResult;
    /// Edits in one transaction, one recovery point. Refused for a bucket that a source replicates into.
    BucketApply = "bucket.apply": BucketApplyParams => BucketApplyResult;
    CommitList = "commit.list": CommitListParams => CommitListResult;
    PointResolve = "point.resolve": PointResolveParams => PointResolveResult;
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketName {
    pub bucket: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketCreateParams {
    pub bucket: String,
    /// Layout of files made in it by `bucket.apply`; a source brings its own. Absent: the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketSetParams {
    pub bucket: String,
    /// For files made by `bucket.apply` from now on; absent: as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// Lets another source take the bucket over, for a primary that is lost for good. The old one is fenced until the next
    /// release.
    #[serde(default)]
    pub release_source: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    pub bucket: String,
    pub layout: Layout,
    pub created: Time,
    /// Newest recovery point; 0: none yet.
    pub head: u64,
    /// Oldest recovery point: those below were purged.
    #[serde(default)]
    pub floor: u64,
    /// What only purged points needed is being removed.
    #[serde(default)]
    pub purging: bool,
    /// In the head's tree.
    pub objects: u64,
    /// Sum of the sizes of the head's files.
    pub bytes: u64,
    /// The source that replicates into it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<BucketSource>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketSource {
    pub source: String,
    pub epoch: u64,
    /// Last change committed.
    pub sequence: u64,
    /// Recovery point of its last commit.
    pub point: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketListResult {
    pub buckets: Vec<Bucket>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketPurgeParams {
    pub bucket: String,
    /// The point that is to be the oldest one, as in [`PointResolveParams::at`]. A time before all points: nothing is purged.
    pub before: String,
    /// Only says what would go.
    #[serde(default)]
    pub dry_run: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketPurgeResult {
    /// The oldest point from now on.
    pub floor: u64,
    pub time: Time,
    /// How many points were purged.
    pub points: u64,
    /// With `dry_run`: rows of metadata that would go, or so many of them that counting was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// There are more rows than were counted.
    #[serde(default)]
    pub more: bool,
}

/// A change by hand. Paths start with `/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Edit {
    /// A directory; its parent exists, it does not.
    Mkdir {
        path: Name,
        mode: u32,
    },
    /// An empty file that does not exist yet.
    Create {
        path: Name,
        mode: u32,
    },
    Symlink {
        path: Name,
        target: Name,
    },
    /// One more name for a file.
    Link {
        object: ObjectAt,
        path: Name,
    },
    /// Writes content at `offset`, which starts a block; it ends with a block, or at or beyond the file's end.
    Write {
        object: ObjectAt,
        offset: u64,
        content: Content,
    },
    /// Sets the size. A new end inside a block must be at the old end or a block's start.
    Truncate {
        object: ObjectAt,
        size: u64,
    },
    /// Removes a name: of a file, or of an empty directory.
    Unlink {
        path: Name,
    },
    /// What `to` led to before is removed; a directory there must be empty.
    Rename {
        from: Name,
        to: Name,
    },
    /// Absent members stay as they are.
    Set {
        object: ObjectAt,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gid: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mtime: Option<Time>,
    },
    SetAttribute {
        object: ObjectAt,
        name: Name,
        value: Content,
    },
    DeleteAttribute {
        object: ObjectAt,
        name: Name,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketApplyParams {
    pub bucket: String,
    /// Later ones see what earlier ones did.
    pub edits: Vec<Edit>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketApplyResult {
    pub point: u64,
    /// Ids of the objects that `mkdir`, `create` and `symlink` made, in order.
    pub created: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitListParams {
    pub bucket: String,
    /// Newest first, from the one before this; absent: from the head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    pub limit: u32,
}

/// A recovery point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitInfo {
    pub point: u64,
    /// When the newest change in it was made, by the source's clock.
    pub time: Time,
    /// When the site committed it, by its own clock.
    pub committed: Time,
    pub source: String,
    pub epoch: u64,
    pub first: u64,
    pub last: u64,
    /// Every file in it is one moment's content; else files being written then may be torn.
    pub exact: bool,
    /// A part of a resync by difference: the tree between the parts is no state that the source ever had.
    pub resync: bool,
    pub ops: u64,
    /// In the tree after it.
    pub objects: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitListResult {
    pub commits: Vec<CommitInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointResolveParams {
    pub bucket: String,
    /// `latest`, a point's number, an RFC 3339 time (the newest point not after it), or a time ago: `-90s`, `-10m`,
    /// `-2h`, `-3d`, `-1w`.
    pub at: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointResolveResult {
    pub point: u64,
    pub time: Time,
    pub exact: bool,
}
