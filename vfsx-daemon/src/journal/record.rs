//! What the journal keeps. Own types: the socket's messages may change without the journal's files changing.

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// One tree connect of one smbd process; `Session::DAEMON` for what vfsxd itself notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Session(pub [u8; 16]);

impl Session {
    pub const DAEMON: Self = Self([0; 16]);
}

/// Identity of an inode: survives renames, tells a reused inode number from the old file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeRef {
    /// Device as `major << 32 | minor`.
    pub dev: u64,
    pub ino: u64,
    /// Birth time in nanoseconds since the epoch; 0 where the file system keeps none.
    pub btime_ns: i64,
}

/// A directory: its identity, and where the module believed it to be (relative to the share's root, may be stale).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirRef {
    pub node: NodeRef,
    pub path_hint: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NodeKind {
    File,
    Directory,
    Symlink,
    Special,
}

/// Half-open byte range `[start, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Range {
    pub start: u64,
    pub end: u64,
}

/// Which metadata of an inode to read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Changed {
    pub stat: bool,
    pub xattrs: bool,
}

/// An inode's metadata as they were at the end of the call that changed them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds since the epoch.
    pub mtime: (i64, u32),
    pub atime: (i64, u32),
    /// All extended attributes, in any order.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why changes may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GapReason {
    /// A module's ring of unacknowledged events was full.
    RingFull,
    /// An smbd process ended while vfsxd had not acknowledged its last events.
    DaemonAbsent,
    /// A panic inside the module.
    Panic,
    /// An event the module could not express.
    Unrepresentable,
    /// A session's events came with a hole in their sequence.
    SessionHole,
    /// The journal could not be written, or was full.
    JournalFailed,
    /// Records of the journal were lost: damaged files, or an older copy of the journal put back.
    JournalDamaged,
    /// A gap flag file that could not be understood.
    Unknown,
    /// An smbd process was killed in the middle of a call.
    Killed,
    /// The machine stopped (loss of power, crash) while vfsxd ran, or after a clean stop of it while clients worked on.
    MachineStopped,
}

impl GapReason {
    /// One line for a person.
    pub fn text(self) -> &'static str {
        match self {
            Self::RingFull => "a module's event buffer was full while vfsxd did not acknowledge",
            Self::DaemonAbsent => "clients worked while vfsxd was not there",
            Self::Panic => "an internal error in the VFS module",
            Self::Unrepresentable => "an event that the VFS module could not describe",
            Self::SessionHole => "events of a session are missing",
            Self::JournalFailed => "the journal could not be written",
            Self::JournalDamaged => "records of the journal are damaged or missing",
            Self::Unknown => "a gap of unknown cause was flagged",
            Self::Killed => "an smbd process was killed in the middle of a change",
            Self::MachineStopped => "the machine stopped, and not all that was changed before is known",
        }
    }
}

/// What happened. Names are single path components; handles are numbered within a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// A name now leads to `node`.
    Create {
        dir: DirRef,
        name: Vec<u8>,
        node: NodeRef,
        kind: NodeKind,
    },
    /// One more name for an existing node.
    Link {
        dir: DirRef,
        name: Vec<u8>,
        node: NodeRef,
    },
    /// `replaced` is what `to_name` led to before.
    Rename {
        from: DirRef,
        from_name: Vec<u8>,
        to: DirRef,
        to_name: Vec<u8>,
        node: NodeRef,
        replaced: Option<NodeRef>,
    },
    Unlink {
        dir: DirRef,
        name: Vec<u8>,
        node: NodeRef,
    },
    /// The outcome of a namespace call is unknown: look at this name again.
    Look {
        dir: DirRef,
        name: Vec<u8>,
    },
    /// First write on a handle: content is open until `Closed` for it, or `SessionEnded`.
    Opened {
        handle: u64,
        node: NodeRef,
        path_hint: Vec<u8>,
    },
    /// These bytes may have been written; `whole`: any byte.
    Dirty {
        handle: u64,
        node: NodeRef,
        path_hint: Vec<u8>,
        ranges: Vec<Range>,
        whole: bool,
    },
    Flushed {
        handle: u64,
        node: NodeRef,
    },
    Closed {
        handle: u64,
        node: NodeRef,
    },
    Touched {
        node: NodeRef,
        path_hint: Vec<u8>,
        changed: Changed,
    },
    /// Changes may have been missed since `since_ns` (wall clock, nanoseconds since the epoch). From a module, or
    /// from vfsxd itself (`Session::DAEMON`).
    Gap {
        since_ns: i64,
        reason: GapReason,
    },
    /// First record of a session. Repeated when it reconnects.
    SessionStarted {
        pid: u32,
        samba: String,
        module: String,
    },
    /// The session will send no more; its open handles can no longer be written to by it.
    SessionEnded {
        how: SessionEnd,
    },
    /// `length` bytes were about to be written at `start`: noted before the write began.
    Write {
        handle: u64,
        node: NodeRef,
        start: u64,
        length: u64,
        /// The bytes; `None`: they are only in the file, once the write has ended.
        data: Option<Bytes>,
    },
    /// The file was cut or extended to this size.
    Resized {
        handle: u64,
        node: NodeRef,
        size: u64,
    },
    /// The inode's metadata changed to this.
    Metadata {
        node: NodeRef,
        path_hint: Vec<u8>,
        metadata: Metadata,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SessionEnd {
    /// Its socket was closed.
    Closed,
    /// It was open when vfsxd stopped and did not come back.
    NotBack,
}

/// A record to append; the journal gives it its sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// When it was noted, nanoseconds since the epoch.
    pub time_ns: i64,
    pub session: Session,
    /// 1, 2, 3 ... of a session's events; 0 for what vfsxd notes itself, session starts and ends.
    pub session_sequence: u64,
    /// See [`Record::began_ns`].
    pub began_ns: u64,
    pub body: Body,
}

impl Draft {
    /// What vfsxd notes about a session, or of itself, now.
    pub fn note(session: Session, time_ns: i64, body: Body) -> Self {
        Self {
            time_ns,
            session,
            session_sequence: 0,
            began_ns: monotonic_ns(),
            body,
        }
    }
}

/// The clock that all processes of a machine share and nobody sets: nanoseconds since its boot.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default()
}

/// A record of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// 1, 2, 3 ... within the share.
    pub sequence: u64,
    pub time_ns: i64,
    pub session: Session,
    pub session_sequence: u64,
    /// When the call began that did it, on the clock that all processes of the machine share ([`monotonic_ns`]): of two
    /// calls of which one ended before the other began, it has the lower one. Journal order does not tell that of calls
    /// of different processes. 0: not known.
    pub began_ns: u64,
    pub body: Body,
}

impl Record {
    /// Bytes of written data in it.
    pub fn data_len(&self) -> usize {
        self.body.data_len()
    }
}

impl Body {
    /// Bytes of written data in it.
    pub fn data_len(&self) -> usize {
        match self {
            Self::Write { data, .. } => data.as_ref().map_or(0, Bytes::len),
            _ => 0,
        }
    }
}

impl From<vfsx_proto::SessionId> for Session {
    fn from(id: vfsx_proto::SessionId) -> Self {
        Self(id.0)
    }
}

impl From<vfsx_proto::NodeRef> for NodeRef {
    fn from(n: vfsx_proto::NodeRef) -> Self {
        Self {
            dev: n.dev,
            ino: n.ino,
            btime_ns: n.btime_ns,
        }
    }
}

impl From<vfsx_proto::DirRef> for DirRef {
    fn from(d: vfsx_proto::DirRef) -> Self {
        Self {
            node: d.node.into(),
            path_hint: d.path_hint,
        }
    }
}

impl From<vfsx_proto::NodeKind> for NodeKind {
    fn from(kind: vfsx_proto::NodeKind) -> Self {
        match kind {
            vfsx_proto::NodeKind::File => Self::File,
            vfsx_proto::NodeKind::Directory => Self::Directory,
            vfsx_proto::NodeKind::Symlink => Self::Symlink,
            vfsx_proto::NodeKind::Special => Self::Special,
        }
    }
}

impl From<vfsx_proto::GapReason> for GapReason {
    fn from(reason: vfsx_proto::GapReason) -> Self {
        match reason {
            vfsx_proto::GapReason::RingFull => Self::RingFull,
            vfsx_proto::GapReason::DaemonAbsent => Self::DaemonAbsent,
            vfsx_proto::GapReason::Panic => Self::Panic,
            vfsx_proto::GapReason::Unrepresentable => Self::Unrepresentable,
        }
    }
}

/// Data of writes is left out: it is not in the event.
impl From<vfsx_proto::Event> for Body {
    fn from(event: vfsx_proto::Event) -> Self {
        use vfsx_proto::Event as E;
        match event {
            E::Create {
                dir,
                name,
                node,
                kind,
            } => Self::Create {
                dir: dir.into(),
                name,
                node: node.into(),
                kind: kind.into(),
            },
            E::Link { dir, name, node } => Self::Link {
                dir: dir.into(),
                name,
                node: node.into(),
            },
            E::Rename {
                from,
                from_name,
                to,
                to_name,
                node,
                replaced,
            } => Self::Rename {
                from: from.into(),
                from_name,
                to: to.into(),
                to_name,
                node: node.into(),
                replaced: replaced.map(Into::into),
            },
            E::Unlink { dir, name, node } => Self::Unlink {
                dir: dir.into(),
                name,
                node: node.into(),
            },
            E::Look { dir, name } => Self::Look {
                dir: dir.into(),
                name,
            },
            E::Opened {
                handle,
                node,
                path_hint,
            } => Self::Opened {
                handle,
                node: node.into(),
                path_hint,
            },
            E::Dirty {
                handle,
                node,
                path_hint,
                ranges,
                whole,
            } => Self::Dirty {
                handle,
                node: node.into(),
                path_hint,
                ranges: ranges
                    .into_iter()
                    .map(|r| Range {
                        start: r.start,
                        end: r.end,
                    })
                    .collect(),
                whole,
            },
            E::Flushed { handle, node } => Self::Flushed {
                handle,
                node: node.into(),
            },
            E::Closed { handle, node } => Self::Closed {
                handle,
                node: node.into(),
            },
            E::Touched {
                node,
                path_hint,
                changed,
            } => Self::Touched {
                node: node.into(),
                path_hint,
                changed: Changed {
                    stat: changed.stat,
                    xattrs: changed.xattrs,
                },
            },
            E::Gap { since_ns, reason } => Self::Gap {
                since_ns,
                reason: reason.into(),
            },
            E::Write {
                handle,
                node,
                start,
                length,
                data: _,
            } => Self::Write {
                handle,
                node: node.into(),
                start,
                length,
                data: None,
            },
            E::Resized { handle, node, size } => Self::Resized {
                handle,
                node: node.into(),
                size,
            },
            E::Metadata {
                node,
                path_hint,
                metadata,
            } => Self::Metadata {
                node: node.into(),
                path_hint,
                metadata: metadata.into(),
            },
        }
    }
}

impl From<vfsx_proto::Metadata> for Metadata {
    fn from(m: vfsx_proto::Metadata) -> Self {
        Self {
            mode: m.mode,
            uid: m.uid,
            gid: m.gid,
            mtime: m.mtime,
            atime: m.atime,
            xattrs: m.xattrs,
        }
    }
}

/// A module's event as the session's next record, without the data of a write.
pub fn draft(session: Session, stamped: vfsx_proto::Stamped) -> Draft {
    Draft {
        time_ns: stamped.time_ns,
        session,
        session_sequence: stamped.sequence,
        began_ns: stamped.began_ns,
        body: stamped.event.into(),
    }
}
