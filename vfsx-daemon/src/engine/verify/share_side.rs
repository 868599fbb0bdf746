//! The share against what vfsxd knows of it, content included.

use super::finding::{Findings, LISTED, of_fault};
use super::{Tell, VerifyError, VerifyProgress};
use crate::catalog::{Audited, Catalog, CatalogError, Faults, Judgement, Reading, Steady};
use crate::engine::share::ShareEngine;
use dr_replicator::Bandwidth;
use restfs_lib::model::ObjectId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Instant;

/// Suspects judged together, behind one question to all smbd processes.
const BATCH: usize = 1024;
/// Looks at what clients change, and the time between two of them.
const ROUNDS: usize = 10;
const PAUSE: Duration = Duration::from_millis(500);
/// How long what clients did may take to be in the catalog.
const SETTLES_WITHIN: Duration = Duration::from_secs(120);

pub(super) struct ShareSide<'a> {
    engine: &'a ShareEngine,
    reader: Reader,
    /// Objects that differ.
    faults: Vec<(ObjectId, Faults)>,
    unlisted: u64,
    in_change: u64,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl<'a> ShareSide<'a> {
    pub(super) fn new(engine: &'a ShareEngine, pace: Arc<Bandwidth>) -> Self {
        Self {
            engine,
            reader: Reader {
                catalog: engine.catalog().clone(),
                pace,
                stop: Arc::default(),
            },
            faults: Vec::new(),
            unlisted: 0,
            in_change: 0,
            files: 0,
            bytes: 0,
        }
    }

    /// Reads the whole share.
    pub(super) async fn audit(&mut self, tell: Tell<'_>) -> Result<(), VerifyError> {
        let (mut suspects, mut after) = (Vec::new(), None);
        loop {
            let groups = self
                .reader
                .run(move |catalog, _| catalog.audit_groups(after))
                .await?;
            let Some(last) = groups.last() else { break };
            after = Some(*last);
            for group in groups {
                let found: Audited = self
                    .reader
                    .run(move |catalog, reading| catalog.audit_group(group, reading))
                    .await?;
                self.files += found.files;
                self.bytes += found.bytes;
                suspects.extend(found.suspects);
                tell(VerifyProgress {
                    stage: "the share is read".to_owned(),
                    done: self.files,
                    total: self.engine.catalog().status().objects.max(self.files),
                    bytes: self.bytes,
                });
                if suspects.len() >= BATCH {
                    self.judge(std::mem::take(&mut suspects), tell).await?;
                }
            }
        }
        self.judge(suspects, tell).await
    }

    /// Objects that differ, so that they can be read again.
    pub(super) fn objects(&self) -> Vec<ObjectId> {
        self.faults.iter().map(|(object, _)| *object).collect()
    }

    /// Looks at what differed once more.
    pub(super) async fn again(&mut self, tell: Tell<'_>) -> Result<(), VerifyError> {
        let suspects = self.objects();
        self.faults.clear();
        (self.unlisted, self.in_change) = (0, 0);
        for some in suspects.chunks(BATCH) {
            self.judge(some.to_vec(), tell).await?;
        }
        Ok(())
    }

    pub(super) fn tell(&self, findings: &mut Findings) -> Result<(), CatalogError> {
        for (object, faults) in &self.faults {
            let path = self.engine.catalog().path_of(*object)?.unwrap_or_default();
            for fault in &faults.list {
                findings.add(of_fault(&path, fault));
            }
            findings.unlisted += faults.more;
        }
        findings.unlisted += self.unlisted;
        findings.in_change += self.in_change;
        Ok(())
    }

    /// Suspects that differ still when everything that clients had done is in the catalog, and that did not change
    /// meanwhile, differ.
    async fn judge(&mut self, mut suspects: Vec<ObjectId>, tell: Tell<'_>) -> Result<(), VerifyError> {
        for round in 0..ROUNDS {
            if suspects.is_empty() {
                return Ok(());
            }
            if round > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            tell(VerifyProgress {
                stage: "files that differ at first sight are read again".to_owned(),
                done: 0,
                total: suspects.len() as u64,
                bytes: 0,
            });
            suspects = self.judge_once(suspects).await?;
        }
        self.in_change += suspects.len() as u64;
        Ok(())
    }

    /// Those that nothing can be said of yet.
    async fn judge_once(&mut self, suspects: Vec<ObjectId>) -> Result<Vec<ObjectId>, VerifyError> {
        let look = move |catalog: &Catalog, _: &Reading<'_>| {
            let (mut before, mut later) = (Vec::new(), Vec::new());
            for object in suspects {
                match catalog.steady(object)? {
                    Some(steady) => before.push(steady),
                    // One that is gone from the catalog is no suspect any more.
                    None if catalog.path_of(object)?.is_none() => {}
                    None => later.push(object),
                }
            }
            Ok((before, later))
        };
        let (before, mut later): (Vec<Steady>, Vec<ObjectId>) = self.reader.run(look).await?;
        self.engine.all_in(Instant::now() + SETTLES_WITHIN).await?;
        for steady in before {
            let judged = self
                .reader
                .run(move |catalog, reading| catalog.audit_again(&steady, reading))
                .await?;
            match judged {
                Judgement::Equal => {}
                Judgement::InChange => later.push(steady.object),
                Judgement::Differs(faults) if self.faults.len() < LISTED => {
                    self.faults.push((steady.object, faults));
                }
                Judgement::Differs(faults) => {
                    self.unlisted += faults.list.len() as u64 + faults.more;
                }
            }
        }
        Ok(later)
    }
}

/// Reads where it may block, until whoever asked for it is gone.
struct Reader {
    catalog: Catalog,
    pace: Arc<Bandwidth>,
    stop: Arc<AtomicBool>,
}

impl Reader {
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Catalog, &Reading<'_>) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, VerifyError> {
        let (catalog, pace, stop) = (self.catalog.clone(), self.pace.clone(), self.stop.clone());
        let runtime = Handle::current();
        let run = move || {
            let wait = |bytes| runtime.block_on(pace.take(bytes));
            let reading = Reading {
                pace: &wait,
                stop: &stop,
            };
            work(&catalog, &reading)
        };
        Ok(tokio::task::spawn_blocking(run).await??)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
