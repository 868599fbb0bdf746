//! Metadata that changed, told once at the end of the outermost call: as new values while data is told, else as news.

use super::Capture;
use crate::inode;
use crate::os::{self, Found};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use vfsx_proto::{Changed, Event, Metadata, NodeKind, NodeRef};

/// An object whose metadata changed.
#[derive(Debug)]
pub(super) struct Touch {
    node: NodeRef,
    at: At,
    path_hint: Vec<u8>,
    changed: Changed,
}

/// Where an object's metadata can be read.
#[derive(Debug)]
pub enum At {
    Nowhere,
    /// A descriptor of smbd's, which may be another object's by then.
    Descriptor(RawFd),
    Reference(OwnedFd),
}

impl At {
    fn descriptor(&self) -> Option<RawFd> {
        match self {
            At::Nowhere => None,
            At::Descriptor(fd) => Some(*fd),
            At::Reference(fd) => Some(fd.as_raw_fd()),
        }
    }
}

impl Capture {
    /// Metadata of an open object changed. `known`: what it is, if that is known already; else gives the regular file that was found.
    pub fn touched(
        &mut self,
        fd: RawFd,
        known: Option<NodeRef>,
        path_hint: impl FnOnce() -> Vec<u8>,
        changed: Changed,
    ) -> Option<NodeRef> {
        let (node, file) = match known {
            Some(node) => (node, None),
            None => {
                let Found { node, kind, .. } = self.found_at(fd)?;
                (node, (kind == NodeKind::File).then_some(node))
            }
        };
        self.touch(node, At::Descriptor(fd), path_hint, changed);
        file
    }

    /// Metadata of this object changed. Goes out once when the outermost call ends.
    pub fn touch(&mut self, node: NodeRef, at: At, path_hint: impl FnOnce() -> Vec<u8>, changed: Changed) {
        match self.touched.iter_mut().find(|touch| touch.node == node) {
            Some(touch) => {
                touch.changed.stat |= changed.stat;
                touch.changed.xattrs |= changed.xattrs;
                if !matches!(at, At::Nowhere) {
                    touch.at = at;
                }
            }
            None => self.touched.push(Touch {
                node,
                at,
                path_hint: path_hint(),
                changed,
            }),
        }
    }

    /// A new object: its name is told, and what it is beside that, where it can be read.
    pub(super) fn describe(&mut self, node: NodeRef, at: At, path_hint: impl FnOnce() -> Vec<u8>) {
        self.touch(node, at, path_hint, Changed::default());
    }

    pub(super) fn note_touched(&mut self) {
        if self.touched.is_empty() {
            return;
        }
        self.unwaited = true;
        let mut touches = std::mem::take(&mut self.touched);
        let mut found: Vec<Option<Metadata>> = Vec::new();
        if self.copying {
            let read = |touch: &Touch| inode::metadata(touch.at.descriptor()?, &touch.node);
            let mut read_all = || found = touches.iter().map(read).collect();
            if !os::as_effective_root(&mut read_all) {
                self.client.as_root(&mut read_all);
            }
        }
        let mut found = found.into_iter();
        for touch in touches.drain(..) {
            if let Some(event) = touch.into_event(found.next().flatten()) {
                self.client.note(event);
            }
        }
        // Nothing was touched meanwhile: the next call takes the same memory.
        self.touched = touches;
    }
}

impl Touch {
    /// `None`: it is new, of which its name tells.
    fn into_event(self, metadata: Option<Metadata>) -> Option<Event> {
        let Self {
            node,
            path_hint,
            changed,
            ..
        } = self;
        match metadata {
            Some(metadata) => Some(Event::Metadata {
                node,
                path_hint,
                metadata,
            }),
            None if changed == Changed::default() => None,
            None => Some(Event::Touched {
                node,
                path_hint,
                changed,
            }),
        }
    }
}
