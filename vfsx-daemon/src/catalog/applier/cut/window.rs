//! What records touch that are not applied yet: of that, what is found on disk may be newer than the round.

use crate::journal::{Body, DirRef, NodeRef, Record, Session};
use rangemap::RangeSet;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// All of a file.
const WHOLE: Range<u64> = 0..u64::MAX;

#[derive(Debug, Default)]
pub(in crate::catalog::applier) struct Window {
    nodes: HashMap<NodeRef, Touched>,
    /// Directory and name.
    names: HashSet<(NodeRef, Vec<u8>)>,
    /// Opened in the window, so no row says so yet.
    opened: HashMap<Session, Vec<NodeRef>>,
    ended: Vec<Session>,
    /// Something was done that no record tells.
    has_gap: bool,
}

/// What may have changed of an inode; its metadata in any case.
#[derive(Debug, Default)]
pub(in crate::catalog::applier) struct Touched {
    /// Bytes of the content.
    pub(super) content: RangeSet<u64>,
    /// Those of them of which only the disk knows what they are. A write that was announced before, and failed, or met
    /// another one, ends so: its data may not be what was written.
    pub(super) untold: RangeSet<u64>,
}

impl Window {
    /// `known`: the identity by which the catalog knows an inode.
    pub(in crate::catalog::applier) fn of<'a>(
        records: impl Iterator<Item = &'a Record>,
        known: impl Fn(&NodeRef) -> NodeRef,
    ) -> Self {
        let mut window = Self::default();
        for record in records {
            window.add(record, &known);
        }
        window
    }

    /// Sessions that end in it: what they had open may have changed in any way.
    pub(in crate::catalog::applier) fn ended(&self) -> &[Session] {
        &self.ended
    }

    pub(in crate::catalog::applier) fn has_gap(&self) -> bool {
        self.has_gap
    }

    pub(in crate::catalog::applier) fn touch_whole(&mut self, node: NodeRef) {
        self.touch_untold(node, WHOLE);
    }

    /// `None`: nothing of it changes.
    pub(in crate::catalog::applier) fn of_node(&self, node: &NodeRef) -> Option<&Touched> {
        self.nodes.get(node)
    }

    pub(in crate::catalog::applier) fn has_name(&self, dir: &NodeRef, name: &[u8]) -> bool {
        self.names.contains(&(*dir, name.to_vec()))
    }

    fn add(&mut self, record: &Record, known: &impl Fn(&NodeRef) -> NodeRef) {
        match &record.body {
            Body::Create { dir, name, node, .. } => {
                self.name(dir, name, known);
                self.touch(known(node), 0..0);
            }
            // Of the inode itself only the change time moves, which is not kept.
            Body::Link { dir, name, .. } | Body::Unlink { dir, name, .. } | Body::Look { dir, name } => {
                self.name(dir, name, known);
            }
            Body::Rename {
                from,
                from_name,
                to,
                to_name,
                ..
            } => {
                self.name(from, from_name, known);
                self.name(to, to_name, known);
            }
            Body::Opened { node, .. } => {
                self.opened.entry(record.session).or_default().push(known(node));
            }
            Body::Dirty {
                node, ranges, whole, ..
            } => {
                let node = known(node);
                let all = [Range { start: 0, end: 0 }];
                for range in all.into_iter().chain(ranges.iter().map(|r| r.start..r.end)) {
                    self.touch_untold(node, range);
                }
                if *whole {
                    self.touch_untold(node, WHOLE);
                }
            }
            Body::Write {
                node, start, length, ..
            } => self.touch(known(node), *start..start.saturating_add(*length)),
            Body::Resized { node, size, .. } => self.touch(known(node), *size..u64::MAX),
            Body::Touched { node, .. } | Body::Metadata { node, .. } => self.touch(known(node), 0..0),
            Body::SessionEnded { .. } => {
                for node in self.opened.get(&record.session).cloned().unwrap_or_default() {
                    self.touch_untold(node, WHOLE);
                }
                self.ended.push(record.session);
            }
            Body::Gap { .. } => self.has_gap = true,
            Body::Flushed { .. } | Body::Closed { .. } | Body::SessionStarted { .. } => {}
        }
    }

    fn name(&mut self, dir: &DirRef, name: &[u8], known: &impl Fn(&NodeRef) -> NodeRef) {
        let dir = known(&dir.node);
        self.touch(dir, 0..0);
        self.names.insert((dir, name.to_vec()));
    }

    fn touch(&mut self, node: NodeRef, range: Range<u64>) {
        let touched = self.nodes.entry(node).or_default();
        if range.start < range.end {
            touched.content.insert(range);
        }
    }

    fn touch_untold(&mut self, node: NodeRef, range: Range<u64>) {
        self.touch(node, range.clone());
        if range.start < range.end {
            self.nodes.entry(node).or_default().untold.insert(range);
        }
    }
}
