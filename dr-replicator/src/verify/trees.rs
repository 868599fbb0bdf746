//! The two trees, row by row where they differ.

use super::touched::Touched;
use super::{LISTED, PAUSE, ROUNDS, Step, Tell, Verifier, VerifyError};
use crate::resync::merge::{Side, next};
use crate::resync::pager::Pager;
use crate::site::Recounted;
use restfs_lib::model::{Digest, RowKey};
use std::collections::BTreeSet;

/// What is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The digests that both ends keep of their rows: seconds, however large the share is.
    Digests,
    /// Only the rows themselves, all of which both ends read.
    Rows,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowDifference {
    pub row: RowKey,
    pub fault: RowFault,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowFault {
    MissingAtSite,
    OnlyAtSite,
    Differs,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TreeFindings {
    /// The first [`LISTED`].
    pub differences: Vec<RowDifference>,
    pub unlisted: u64,
    /// Groups whose rows at the site are not what the site's own digest of them says.
    pub wrong_digests: Vec<u64>,
    /// Rows that changed whenever they were looked at.
    pub in_change: u64,
    /// What the site had committed by the end.
    pub sequence: u64,
}

impl TreeFindings {
    pub fn count(&self) -> u64 {
        self.differences.len() as u64 + self.unlisted + self.wrong_digests.len() as u64
    }

    fn add(&mut self, found: Group) {
        let room = LISTED - self.differences.len().min(LISTED);
        self.unlisted += found.unlisted + found.differences.len().saturating_sub(room) as u64;
        self.differences.extend(found.differences.into_iter().take(room));
        self.in_change += found.in_change;
    }
}

/// What was found in a group.
#[derive(Default)]
struct Group {
    differences: Vec<RowDifference>,
    unlisted: u64,
    in_change: u64,
}

impl Verifier {
    /// Compares the trees.
    pub async fn trees(&self, depth: Depth, tell: Tell<'_>) -> Result<TreeFindings, VerifyError> {
        let mut findings = TreeFindings::default();
        // So that a site with nothing to compare is not taken for one where everything is missing.
        self.position().await?;
        let mut groups = match depth {
            Depth::Digests => self.differing_groups().await?,
            Depth::Rows => self.recounted_groups(&mut findings, tell).await?,
        };
        for round in 1..=ROUNDS {
            let mut in_change = Vec::new();
            for group in groups {
                let found = self.compare_group(group).await?;
                if found.in_change > 0 && round < ROUNDS {
                    in_change.push(group);
                } else {
                    findings.add(found);
                }
            }
            groups = in_change;
            if groups.is_empty() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        findings.sequence = self.position().await?.sequence;
        Ok(findings)
    }

    async fn differing_groups(&self) -> Result<Vec<u64>, VerifyError> {
        let mut here = Pager::groups_of_source(&*self.source);
        let mut there = Pager::groups_of_site(&*self.site);
        let mut differing = Vec::new();
        while let Some((group, side)) = next(&mut here, &mut there).await? {
            if side != Side::Equal {
                differing.push(group);
            }
        }
        Ok(differing)
    }

    /// Groups whose rows add up to something else at the site than here.
    async fn recounted_groups(
        &self,
        findings: &mut TreeFindings,
        tell: Tell<'_>,
    ) -> Result<Vec<u64>, VerifyError> {
        let mut here = self.groups_here().await?;
        let total = here.len() as u64;
        let (mut differing, mut done) = (Vec::new(), 0);
        let mut after = None;
        loop {
            let (page, more) = self.insist(|| self.site.recount(after)).await?;
            after = page.last().map(|last| last.group).or(after);
            for there in page {
                if there.kept != there.counted {
                    findings.wrong_digests.push(there.group);
                }
                here.remove(&there.group);
                if !self.adds_up(&there).await? {
                    differing.push(there.group);
                }
                done += 1;
                tell(Step::Groups {
                    done,
                    total: total.max(done),
                });
            }
            if !more {
                break;
            }
        }
        // Of those that are left the site keeps no digest at all.
        differing.extend(here);
        Ok(differing)
    }

    async fn groups_here(&self) -> Result<BTreeSet<u64>, VerifyError> {
        let mut groups = Pager::groups_of_source(&*self.source);
        let mut found = BTreeSet::new();
        while groups.peek().await?.is_some() {
            found.extend(groups.pop().map(|(group, _)| group));
        }
        Ok(found)
    }

    async fn adds_up(&self, there: &Recounted) -> Result<bool, VerifyError> {
        let mut rows = Pager::rows_of_source(&*self.source, there.group);
        let mut sum = Digest::ZERO;
        while rows.peek().await?.is_some() {
            if let Some((_, digest)) = rows.pop() {
                sum = sum.plus(digest);
            }
        }
        Ok(sum == there.counted)
    }

    async fn compare_group(&self, group: u64) -> Result<Group, VerifyError> {
        let before = self.position().await?;
        let mut found = Group::default();
        let mut differing = Vec::new();
        {
            let mut here = Pager::rows_of_source(&*self.source, group);
            let mut there = Pager::rows_of_site(&*self.site, group);
            while let Some((row, side)) = next(&mut here, &mut there).await? {
                let fault = match side {
                    Side::Equal => continue,
                    Side::Here => RowFault::MissingAtSite,
                    Side::There => RowFault::OnlyAtSite,
                    Side::Both => RowFault::Differs,
                };
                if differing.len() < LISTED {
                    differing.push(RowDifference { row, fault });
                } else {
                    found.unlisted += 1;
                }
            }
        }
        if differing.is_empty() {
            return Ok(found);
        }
        let touched = Touched::since(&*self.source, before.sequence).await?;
        // Another epoch: the trees were being made equal while they were read.
        let same_epoch = self.position().await?.epoch == before.epoch;
        match touched.filter(|_| same_epoch) {
            None => found.in_change = differing.len() as u64 + std::mem::take(&mut found.unlisted),
            Some(touched) => {
                let (in_change, differences): (Vec<_>, Vec<_>) = differing
                    .into_iter()
                    .partition(|difference| touched.has(&difference.row));
                found.in_change = in_change.len() as u64;
                found.differences = differences;
            }
        }
        Ok(found)
    }
}
