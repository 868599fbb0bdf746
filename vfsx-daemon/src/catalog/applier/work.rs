//! One transaction of the applier: rows of the tree with their changes, and what the batch has still to look at.

use super::dirs::Dirs;
use super::looks::Agenda;
use super::memory::Memory;
use super::unread::Class;
use crate::catalog::CatalogError;
use crate::catalog::dirt::Unread;
use crate::catalog::reader::Cache;
use crate::catalog::share::Share;
use crate::catalog::store::{EndRow, Key, LogRow, NodeRow, OpRow, SinceRow, Touch, get, put};
use crate::journal::NodeRef;
use restfs_lib::content::Difference;
use restfs_lib::kv::KvWrite;
use restfs_lib::model::{BlockKey, BucketId, Layout, Object, ObjectId, Op};
use restfs_lib::tree::{self, History, Tree};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The catalog's only bucket.
pub(in crate::catalog) const BUCKET: BucketId = BucketId(1);

const LOOK_ROUNDS: usize = 4;

/// The record that a change comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) journal: u64,
    pub(super) time_ns: i64,
    pub(super) class: Class,
}

impl Cause {
    pub(super) fn client(journal: u64, time_ns: i64) -> Self {
        Self {
            journal,
            time_ns,
            class: Class::Client,
        }
    }

    pub(super) fn scan(journal: u64, time_ns: i64) -> Self {
        Self {
            journal,
            time_ns,
            class: Class::Scan,
        }
    }
}

/// Why metadata is to be read, and who wants it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Touched {
    pub(super) why: Touch,
    pub(super) class: Class,
}

/// Settings that the applier needs.
#[derive(Debug, Clone, Copy)]
pub(in crate::catalog) struct Rules {
    pub(in crate::catalog) layout: Layout,
    pub(in crate::catalog) flush_age: Duration,
    pub(in crate::catalog) grace: Duration,
    pub(in crate::catalog) change_log_rows: u64,
    /// Records in one transaction.
    pub(in crate::catalog) at_once: usize,
}

pub(super) struct Work<'a> {
    pub(super) kv: &'a mut dyn KvWrite,
    pub(super) memory: &'a mut Memory,
    pub(super) share: &'a Share,
    pub(super) cache: &'a Cache,
    pub(super) rules: Rules,
    pub(super) now: Instant,
    pub(super) now_ns: i64,
    pub(super) cause: Cause,
    pub(super) agenda: Agenda,
    pub(super) dirs: Dirs,
    /// Metadata to be read again at the end of the batch.
    pub(super) touched: BTreeMap<ObjectId, Touched>,
    /// What is to be read of objects, as far as it differs from the rows.
    pub(super) unsaved: BTreeMap<ObjectId, Unread>,
    /// `covered` and the oldest unread change before this transaction.
    covered: u64,
    oldest_ns: Option<i64>,
    changes: Vec<(LogRow, Vec<(u32, Difference)>)>,
    /// The newest change behind which the tree is exact, when this transaction says so.
    pub(super) marked: Option<u64>,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        kv: &'a mut dyn KvWrite,
        memory: &'a mut Memory,
        share: &'a Share,
        cache: &'a Cache,
        rules: Rules,
        now_ns: i64,
    ) -> Self {
        let (covered, oldest_ns) = (memory.covered(), memory.dirty.oldest_ns());
        let cause = Cause::client(memory.head.applied + 1, now_ns);
        Self {
            kv,
            memory,
            share,
            cache,
            rules,
            now: Instant::now(),
            now_ns,
            cause,
            agenda: Agenda::default(),
            dirs: Dirs::default(),
            touched: BTreeMap::new(),
            unsaved: BTreeMap::new(),
            covered,
            oldest_ns,
            changes: Vec::new(),
            marked: None,
        }
    }

    /// When something that a client changed is to be read at the latest: in a round at once, since the round waits for it.
    pub(super) fn due(&self) -> Instant {
        match self.memory.round {
            Some(_) => self.now,
            None => self.now + self.rules.flush_age,
        }
    }

    /// What was covered before the changes to come.
    pub(super) fn restart_covered(&mut self) {
        (self.covered, self.oldest_ns) = (self.memory.covered(), self.memory.dirty.oldest_ns());
    }

    /// The tree is exact behind the last change of this transaction. `false`: there is none.
    pub(super) fn mark_last_change(&mut self) -> bool {
        match self.changes.last_mut() {
            Some((last, _)) => {
                last.end = EndRow::Exact;
                true
            }
            None => false,
        }
    }

    /// What comes after the records of the batch stands for the first of them, so that it holds up all of them.
    pub(super) fn settle_cause(&mut self, records: Option<(u64, i64)>) {
        let (journal, time_ns) = records.unwrap_or((self.memory.head.applied + 1, self.now_ns));
        self.cause = Cause::client(journal, time_ns);
    }

    /// Metadata of the object may differ.
    pub(super) fn touched(&mut self, id: ObjectId) {
        self.touched_by(id, Touch::Looked);
    }

    pub(super) fn touched_by(&mut self, id: ObjectId, why: Touch) {
        let class = self.cause.class;
        let touched = self.touched.entry(id).or_insert(Touched { why, class });
        touched.why = touched.why.max(why);
        touched.class = touched.class.min(class);
    }

    /// Looks at all names, and reads all metadata, that the batch has touched.
    pub(super) fn look_and_refresh(&mut self) -> Result<(), CatalogError> {
        // Metadata may show that an inode is another one, and that is looked at once more.
        for _ in 0..LOOK_ROUNDS {
            self.run_agenda()?;
            self.run_refresh()?;
            if self.agenda.is_empty() && self.touched.is_empty() {
                return Ok(());
            }
        }
        self.run_agenda()
    }

    pub(super) fn tree(&self) -> Tree<'_> {
        Tree::head(&*self.kv, BUCKET)
    }

    pub(super) fn object(&self, id: ObjectId) -> Result<Option<Object>, CatalogError> {
        Ok(self.tree().object(id)?.map(|(object, _)| object))
    }

    /// The object that the inode is.
    pub(super) fn known(&self, node: &NodeRef) -> Result<Option<ObjectId>, CatalogError> {
        match self.kv.get(&Key::Node(*node).bytes())? {
            None => Ok(None),
            Some(bytes) => {
                let id = bytes
                    .try_into()
                    .map_err(|_| CatalogError::Damaged("node -> object row".to_owned()))?;
                Ok(Some(ObjectId(u64::from_be_bytes(id))))
            }
        }
    }

    pub(super) fn node_row(&self, id: ObjectId) -> Result<Option<NodeRow>, CatalogError> {
        get(&*self.kv, &Key::Object(id))
    }

    pub(super) fn put_node_row(&mut self, id: ObjectId, row: &NodeRow) -> Result<(), CatalogError> {
        put(self.kv, &Key::Object(id), row)
    }

    /// Applies an op to the tree, and notes it as a change when it was one.
    pub(super) fn emit(&mut self, op: Op) -> Result<bool, CatalogError> {
        self.emit_since(op, Vec::new())
    }

    /// The same for an op that puts blocks. `since`: how those at these positions differ from the ones there before.
    pub(super) fn emit_since(&mut self, op: Op, since: Vec<(u32, Difference)>) -> Result<bool, CatalogError> {
        let sequence = self.memory.head.change + 1;
        let applied = tree::apply(self.kv, BUCKET, sequence, History::HeadOnly, &op)?;
        if !applied.changed() {
            return Ok(false);
        }
        let weight = dr_replicator::weight(&op);
        self.memory.unmarked = self.memory.unmarked.saturating_add(weight);
        let op = OpRow::from(op);
        let named = op.bytes();
        let row = LogRow {
            journal: self.cause.journal,
            time_ns: self.cause.time_ns,
            covered: self.covered,
            oldest_ns: self
                .oldest_ns
                .map_or(self.cause.time_ns, |ns| ns.min(self.cause.time_ns)),
            bytes: self.memory.head.bytes,
            end: EndRow::Within,
            op,
        };
        self.changes.push((row, since));
        self.memory.head.change = sequence;
        self.memory.head.bytes += named;
        Ok(true)
    }

    /// Writes what is to be read, and the changes to the log. Gives the blocks that they name, with the change.
    pub(super) fn save(&mut self) -> Result<Vec<(u64, BlockKey)>, CatalogError> {
        self.save_unread()?;
        let mut changes = std::mem::take(&mut self.changes);
        if let Some((last, _)) = changes.last_mut()
            && last.end == EndRow::Within
        {
            last.end = EndRow::Whole;
        }
        let first = self.memory.head.change + 1 - changes.len() as u64;
        let mut named = Vec::new();
        for (sequence, (row, since)) in (first..).zip(&changes) {
            put(self.kv, &Key::Log(sequence), row)?;
            if !since.is_empty() {
                put(self.kv, &Key::Since(sequence), &SinceRow::from(&since[..]))?;
            }
            named.extend(row.op.keys().map(|key| (sequence, key)));
        }
        Ok(named)
    }
}
