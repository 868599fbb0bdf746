//! What happened on the share, as one smbd process saw it.

use crate::packed::Packed;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Identity of an inode: survives renames, tells a reused inode number from the old file.
/// Taken with `statx` (`STATX_INO | STATX_BTIME`), never from smbd's own stat, whose birth time may come from
/// the DOS attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "Packed", from = "Packed")]
pub struct NodeRef {
    /// Device as `major << 32 | minor`.
    pub dev: u64,
    pub ino: u64,
    /// Birth time in nanoseconds since the epoch; 0 where the file system keeps none.
    pub btime_ns: i64,
}

impl From<NodeRef> for Packed {
    fn from(node: NodeRef) -> Self {
        Self::new([node.dev, node.ino, node.btime_ns.cast_unsigned()])
    }
}

impl From<Packed> for NodeRef {
    fn from(packed: Packed) -> Self {
        let [dev, ino, btime_ns] = packed.numbers();
        Self {
            dev,
            ino,
            btime_ns: btime_ns.cast_signed(),
        }
    }
}

/// A directory: its identity, and where the module believes it to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirRef {
    pub node: NodeRef,
    /// Path relative to the share's root (empty: the root itself). A hint: stale after another client's rename.
    #[serde(with = "serde_bytes")]
    pub path_hint: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NodeKind {
    File,
    Directory,
    Symlink,
    /// Fifo, socket or device node.
    Special,
}

/// Half-open byte range `[start, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Range {
    pub start: u64,
    pub end: u64,
}

/// Which metadata of an inode to read again. The new values are not sent: the daemon reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Changed {
    /// Mode, owner, size, times.
    pub stat: bool,
    /// Extended attributes, among them ACLs, `user.DOSATTRIB`, `security.NTACL` and streams.
    pub xattrs: bool,
}

/// Where the bytes of a write are in the session's ring: see [`crate::ring`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InRing {
    /// Counted on around the ring since the session began: never less than that of an earlier write.
    pub position: u64,
    /// CRC32C of the bytes.
    pub checksum: u32,
}

/// An inode's metadata as they were at the end of the call that changed them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds since the epoch.
    pub mtime: (i64, u32),
    pub atime: (i64, u32),
    /// All extended attributes, in any order; at most [`crate::MAX_XATTRS`] bytes of names and values.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why changes may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GapReason {
    /// The ring of unacknowledged events was full while no daemon answered.
    RingFull,
    /// The smbd process ended while no daemon had acknowledged its last events.
    DaemonAbsent,
    /// A panic inside the module; the call went through without capture.
    Panic,
    /// An event too large for a frame, or one whose object could not be identified.
    Unrepresentable,
}

/// One change. Names are single path components as on disk: any bytes but `/` and NUL.
///
/// Namespace events are applied to the catalog by identity, so events of different smbd processes may arrive in
/// another order than they happened; inode events say "read this again", so repeating one does no harm. `Write`, `Resized`
/// and `Metadata` also say what is new: with it vfsxd knows a file as it was at a moment, though it goes on changing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A name now leads to `node`: open that created, mkdir, symlink, mknod.
    Create {
        dir: DirRef,
        #[serde(with = "serde_bytes")]
        name: Vec<u8>,
        node: NodeRef,
        kind: NodeKind,
    },
    /// One more name for an existing node.
    Link {
        dir: DirRef,
        #[serde(with = "serde_bytes")]
        name: Vec<u8>,
        node: NodeRef,
    },
    /// `replaced` is what `to_name` led to before.
    Rename {
        from: DirRef,
        #[serde(with = "serde_bytes")]
        from_name: Vec<u8>,
        to: DirRef,
        #[serde(with = "serde_bytes")]
        to_name: Vec<u8>,
        node: NodeRef,
        replaced: Option<NodeRef>,
    },
    /// The name is gone; `node` is what it led to.
    Unlink {
        dir: DirRef,
        #[serde(with = "serde_bytes")]
        name: Vec<u8>,
        node: NodeRef,
    },
    /// The outcome of a namespace call is unknown (it failed, or was abandoned): look at this name again.
    Look {
        dir: DirRef,
        #[serde(with = "serde_bytes")]
        name: Vec<u8>,
    },
    /// First write on a handle, sent before the write: until `Closed` comes for `handle`, or the session ends,
    /// the node's content is open. `path_hint` is relative to the share's root.
    Opened {
        handle: u64,
        node: NodeRef,
        #[serde(with = "serde_bytes")]
        path_hint: Vec<u8>,
    },
    /// These bytes were or may have been written. `whole` means any byte may have changed.
    Dirty {
        handle: u64,
        node: NodeRef,
        #[serde(with = "serde_bytes")]
        path_hint: Vec<u8>,
        ranges: Vec<Range>,
        whole: bool,
    },
    /// The client asked for the data to be stable (SMB FLUSH, write-through).
    Flushed { handle: u64, node: NodeRef },
    /// The handle is closed; its dirty ranges were all sent before.
    Closed { handle: u64, node: NodeRef },
    /// Read this inode's metadata again.
    Touched {
        node: NodeRef,
        #[serde(with = "serde_bytes")]
        path_hint: Vec<u8>,
        changed: Changed,
    },
    /// Changes may have been missed since `since_ns` (wall clock, nanoseconds since the epoch).
    Gap { since_ns: i64, reason: GapReason },
    /// These bytes are about to be written; sent before the write begins. When it fails, or writes less, or takes longer
    /// than [`crate::LONG_WRITE`], a `Dirty` of the range follows when it has ended.
    Write {
        handle: u64,
        node: NodeRef,
        start: u64,
        /// At most [`crate::MAX_WRITE`] when there is `data`.
        length: u64,
        /// `None`: not kept; a `Dirty` of the range follows when the write has ended.
        data: Option<InRing>,
    },
    /// The file was cut or extended to this size.
    Resized { handle: u64, node: NodeRef, size: u64 },
    /// Instead of `Touched`, where the module could read what is new.
    Metadata {
        node: NodeRef,
        #[serde(with = "serde_bytes")]
        path_hint: Vec<u8>,
        metadata: Metadata,
    },
}

/// An event with its place in the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamped {
    /// 1, 2, 3 ... within the session, without holes.
    pub sequence: u64,
    /// Wall clock when the module noted it, nanoseconds since the epoch.
    pub time_ns: i64,
    /// `CLOCK_MONOTONIC` when the call of smbd that did it began, in nanoseconds: of two calls on this machine of which
    /// one ended before the other began, it has the lower one.
    pub began_ns: u64,
    pub event: Event,
}

impl Stamped {
    /// All but the event.
    pub(crate) fn head(sequence: u64, time_ns: i64, began_ns: u64) -> Packed {
        Packed::new([sequence, time_ns.cast_unsigned(), began_ns])
    }
}

impl Serialize for Stamped {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let head = Self::head(self.sequence, self.time_ns, self.began_ns);
        (head, &self.event).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Stamped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (head, event) = <(Packed, Event)>::deserialize(deserializer)?;
        let [sequence, time_ns, began_ns] = head.numbers();
        Ok(Self {
            sequence,
            time_ns: time_ns.cast_signed(),
            began_ns,
            event,
        })
    }
}
