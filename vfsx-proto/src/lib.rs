//! Messages and frames of the Unix socket between `vfsx-module` (in every smbd process) and `vfsxd`.
//!
//! The module connects once per tree connect, sends [`Hello`], and after [`Welcome`] sends [`ToDaemon::Events`]
//! frames. `vfsxd` acknowledges an event after its journal has it on disk. The byte layout is drawn in
//! `docs/formats/socket.md` and pinned by golden-byte tests.

mod event;
mod frame;
mod message;
mod packed;
pub mod ring;

pub use event::{Changed, DirRef, Event, GapReason, InRing, Metadata, NodeKind, NodeRef, Range, Stamped};
pub use frame::{Decoder, FrameError, MAX_FRAME, decode, encode, encode_event};
pub use message::{
    Durability, Exclude, Hello, MAGIC, PREAMBLE, PROTOCOL_VERSION, PreambleError, Refusal, SessionId,
    ToDaemon, ToModule, Waits, Welcome, check_preamble, preamble,
};
pub use ring::{LONG_WRITE, MAX_WRITE, MAX_XATTRS};
