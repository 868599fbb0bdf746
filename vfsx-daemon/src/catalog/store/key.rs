//! Keys: a letter, then fixed-width big-endian fields, so that rows lie in the order in which they are walked. Capital
//! letters; the tree's keys begin with small ones, its bucket with `B`.

use crate::journal::{NodeRef, Session};
use restfs_lib::model::ObjectId;

/// A kind of row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::catalog) enum Prefix {
    Node = b'I' as isize,
    Object = b'N' as isize,
    Dirt = b'D' as isize,
    Intent = b'W' as isize,
    Displaced = b'Z' as isize,
    Look = b'Q' as isize,
    Lost = b'U' as isize,
    List = b'S' as isize,
    Log = b'L' as isize,
    Since = b'H' as isize,
    Meta = b'M' as isize,
}

impl Prefix {
    pub(in crate::catalog) fn byte(self) -> u8 {
        self as u8
    }
}

/// A row's key, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::catalog) enum Key {
    /// Inode -> object.
    Node(NodeRef),
    /// Object -> inode, and how it was last seen.
    Object(ObjectId),
    /// Object -> what of it is to be read.
    Dirt(ObjectId),
    /// Open for writing.
    Intent(Session, u64),
    /// Object without a name.
    Displaced(ObjectId),
    /// Name to be looked at when its directory can be reached.
    Look(ObjectId, Vec<u8>),
    /// Directory that events named and that is not known.
    Lost(NodeRef),
    /// Directory to be listed.
    List(ObjectId),
    /// Change.
    Log(u64),
    /// Change -> how blocks that it put differ from those that were there.
    Since(u64),
    Meta(Vec<u8>),
}

impl Key {
    pub(in crate::catalog) fn meta(name: &str) -> Self {
        Self::Meta(name.as_bytes().to_vec())
    }

    pub(in crate::catalog) fn bytes(&self) -> Vec<u8> {
        let mut out = vec![self.prefix().byte()];
        match self {
            Self::Node(node) | Self::Lost(node) => {
                out.extend_from_slice(&node.dev.to_be_bytes());
                out.extend_from_slice(&node.ino.to_be_bytes());
                out.extend_from_slice(&node.btime_ns.to_be_bytes());
            }
            Self::Object(id) | Self::Dirt(id) | Self::Displaced(id) | Self::List(id) => {
                out.extend_from_slice(&id.0.to_be_bytes());
            }
            Self::Look(id, name) => {
                out.extend_from_slice(&id.0.to_be_bytes());
                out.extend_from_slice(name);
            }
            Self::Intent(session, handle) => {
                out.extend_from_slice(&session.0);
                out.extend_from_slice(&handle.to_be_bytes());
            }
            Self::Log(sequence) | Self::Since(sequence) => out.extend_from_slice(&sequence.to_be_bytes()),
            Self::Meta(name) => out.extend_from_slice(name),
        }
        out
    }

    fn prefix(&self) -> Prefix {
        match self {
            Self::Node(_) => Prefix::Node,
            Self::Object(_) => Prefix::Object,
            Self::Dirt(_) => Prefix::Dirt,
            Self::Intent(..) => Prefix::Intent,
            Self::Displaced(_) => Prefix::Displaced,
            Self::Look(..) => Prefix::Look,
            Self::Lost(_) => Prefix::Lost,
            Self::List(_) => Prefix::List,
            Self::Log(_) => Prefix::Log,
            Self::Since(_) => Prefix::Since,
            Self::Meta(_) => Prefix::Meta,
        }
    }

    /// `None` when these are not the bytes of such a key.
    pub(in crate::catalog) fn parse(bytes: &[u8]) -> Option<Self> {
        let (prefix, rest) = bytes.split_first()?;
        let mut fields = Fields(rest);
        let key = match prefix {
            b'I' => Self::Node(fields.node()?),
            b'U' => Self::Lost(fields.node()?),
            b'N' => Self::Object(fields.id()?),
            b'D' => Self::Dirt(fields.id()?),
            b'Z' => Self::Displaced(fields.id()?),
            b'S' => Self::List(fields.id()?),
            b'Q' => Self::Look(fields.id()?, fields.rest()),
            b'W' => Self::Intent(Session(fields.take()?), u64::from_be_bytes(fields.take()?)),
            b'L' => Self::Log(u64::from_be_bytes(fields.take()?)),
            b'H' => Self::Since(u64::from_be_bytes(fields.take()?)),
            b'M' => Self::Meta(fields.rest()),
            _ => return None,
        };
        fields.0.is_empty().then_some(key)
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn id(&mut self) -> Option<ObjectId> {
        self.take().map(|bytes| ObjectId(u64::from_be_bytes(bytes)))
    }

    fn node(&mut self) -> Option<NodeRef> {
        Some(NodeRef {
            dev: u64::from_be_bytes(self.take()?),
            ino: u64::from_be_bytes(self.take()?),
            btime_ns: i64::from_be_bytes(self.take()?),
        })
    }

    fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0).to_vec()
    }
}
