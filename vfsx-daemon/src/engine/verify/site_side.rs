//! A site against what vfsxd knows of the share.

use super::finding::{Findings, of_block, of_row};
use super::{Difference, DifferenceKind, Tell, VerifyError, VerifyOptions, VerifyProgress};
use crate::config::Site;
use crate::engine::endpoint;
use crate::engine::share::ShareEngine;
use dr_replicator::RestfsSite;
use dr_replicator::verify::{BlockFindings, Depth, RowFault, Step, TreeFindings, Verifier};
use restfs_lib::model::{ObjectId, RowKey};
use restfs_lib::tree::GROUP_OBJECTS;
use std::sync::Arc;

pub(super) struct SiteSide<'a> {
    engine: &'a ShareEngine,
    pub(super) name: String,
    target: Arc<RestfsSite>,
    pub(super) verifier: Verifier,
    pub(super) trees: TreeFindings,
    pub(super) blocks: BlockFindings,
}

impl<'a> SiteSide<'a> {
    pub(super) fn new(engine: &'a ShareEngine, site: &Site, options: &VerifyOptions) -> Self {
        let bucket = site.bucket_for(engine.name());
        let target = Arc::new(RestfsSite::new(endpoint(site), bucket));
        let source = Arc::new(engine.catalog().clone());
        let verifier = Verifier::new(source, target.clone(), site.name.clone(), options.rate);
        Self {
            engine,
            name: site.name.clone(),
            target,
            verifier,
            trees: TreeFindings::default(),
            blocks: BlockFindings::default(),
        }
    }

    pub(super) async fn look(&mut self, deep: bool, tell: Tell<'_>) -> Result<(), VerifyError> {
        self.compare(deep, tell).await?;
        if deep {
            let told = |step| tell(self.progress(step));
            let blocks = self.verifier.blocks(&told).await;
            self.blocks = blocks.map_err(|e| self.failed(e))?;
        }
        Ok(())
    }

    /// Looks at what differed once more.
    pub(super) async fn again(&mut self, deep: bool, tell: Tell<'_>) -> Result<(), VerifyError> {
        self.compare(deep, tell).await?;
        let again = self.verifier.blocks_again(&self.blocks.differences).await;
        self.blocks = again.map_err(|e| self.failed(e))?;
        Ok(())
    }

    async fn compare(&mut self, deep: bool, tell: Tell<'_>) -> Result<(), VerifyError> {
        let depth = if deep { Depth::Rows } else { Depth::Digests };
        let told = |step| tell(self.progress(step));
        let trees = self.verifier.trees(depth, &told).await;
        self.trees = trees.map_err(|e| self.failed(e))?;
        Ok(())
    }

    pub(super) fn failed(&self, source: dr_replicator::verify::VerifyError) -> VerifyError {
        VerifyError::Site {
            site: self.name.clone(),
            source,
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.trees.count() + self.blocks.count()
    }

    pub(super) async fn tell(&self, findings: &mut Findings) -> Result<(), VerifyError> {
        for difference in &self.trees.differences {
            let (id, at_site) = match &difference.row {
                RowKey::Object { id } => (*id, difference.fault == RowFault::OnlyAtSite),
                RowKey::Attribute { id, .. } | RowKey::Segment { id, .. } => (*id, false),
                RowKey::Entry { dir, .. } => (*dir, false),
            };
            let path = self.path(id, at_site).await?;
            findings.add(of_row(&self.name, &path, difference));
        }
        for place in &self.blocks.differences {
            let path = self.path(place.object, false).await?;
            let block = format!("block {}", place.block.key);
            findings.add(of_block(&self.name, &path, place.fault, &block));
        }
        for group in &self.trees.wrong_digests {
            let first = group * GROUP_OBJECTS;
            findings.add(Difference {
                site: Some(self.name.clone()),
                path: "/".to_owned(),
                kind: DifferenceKind::Digest,
                detail: Some(format!(
                    "objects {first} to {}: the site's database contradicts itself; `restfs rebuild` there makes it anew",
                    first + GROUP_OBJECTS - 1
                )),
            });
        }
        findings.unlisted += self.trees.unlisted + self.blocks.unlisted;
        findings.in_change += self.trees.in_change + self.blocks.in_change;
        Ok(())
    }

    /// Where the object is here; else, and when it is only there, where the site has it.
    async fn path(&self, id: ObjectId, at_site: bool) -> Result<Vec<u8>, VerifyError> {
        if !at_site && let Some(path) = self.engine.catalog().path_of(id)? {
            return Ok(path);
        }
        let there = self.target.path_of(id).await.map_err(|e| self.failed(e.into()))?;
        let unnamed = || format!("(object {id}, without a name)").into_bytes();
        Ok(there.map_or_else(unnamed, |path| {
            path.strip_prefix(b"/")
                .map_or_else(|| path.clone(), <[u8]>::to_vec)
        }))
    }

    fn progress(&self, step: Step) -> VerifyProgress {
        match step {
            Step::Groups { done, total } => VerifyProgress {
                stage: format!("{} counts its tree again", self.name),
                done,
                total,
                bytes: 0,
            },
            Step::Blocks { blocks, bytes } => VerifyProgress {
                stage: format!("{} reads its blocks", self.name),
                done: blocks,
                total: 0,
                bytes,
            },
        }
    }
}
