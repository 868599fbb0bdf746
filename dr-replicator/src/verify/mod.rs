//! Verify: whether a site has what the source has. Looking changes nothing.
//!
//! Both ends go on changing meanwhile. What counts as a difference is therefore only what no change explains: the site was
//! asked for its position before, and no change behind that position speaks of the row. What is explained is looked at
//! again, and said to be in change when that does not end.

mod blocks;
mod touched;
mod trees;

#[cfg(test)]
mod tests;

pub use blocks::{BlockDifference, BlockFindings};
pub use trees::{Depth, RowDifference, RowFault, TreeFindings};

use crate::bandwidth::Bandwidth;
use crate::site::{Position, Site, SiteError};
use crate::source::{ChangeSource, SourceError};
use crate::trouble::Trouble;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Differences of a kind that are kept one by one; beyond, they are counted.
pub const LISTED: usize = 10_000;
/// Looks at what is in change, and the time between two of them.
const ROUNDS: usize = 40;
const PAUSE: Duration = Duration::from_millis(250);
/// How long a site may be away, or be brought over by difference, before that is the outcome.
const PATIENCE: Duration = Duration::from_secs(60);
const AWAY_PAUSE: Duration = Duration::from_secs(1);

/// How far a look is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Groups of 1,024 objects whose rows were compared, of so many.
    Groups { done: u64, total: u64 },
    /// Blocks that the site has read, and their bytes.
    Blocks { blocks: u64, bytes: u64 },
}

pub type Tell<'a> = &'a (dyn Fn(Step) + Send + Sync);

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Site(#[from] SiteError),
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There is nothing to compare yet.
    #[error("{0}; verify again when it is in sync")]
    NotInStep(&'static str),
    #[error("{0}")]
    Stuck(String),
}

impl From<Trouble> for VerifyError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Site(error) => Self::Site(error),
            Trouble::Source(error) => Self::Source(error),
            Trouble::Stuck(why) => Self::Stuck(why),
        }
    }
}

/// Looks at one site, beside the task that ships to it.
pub struct Verifier {
    source: Arc<dyn ChangeSource>,
    site: Arc<dyn Site>,
    /// As in [`crate::SiteOptions::name`].
    name: String,
    /// Of what the site reads from its disk.
    pace: Bandwidth,
}

impl Verifier {
    /// `rate`: most bytes per second of blocks that the site is made to read.
    pub fn new(
        source: Arc<dyn ChangeSource>,
        site: Arc<dyn Site>,
        name: impl Into<String>,
        rate: Option<NonZeroU64>,
    ) -> Self {
        Self {
            source,
            site,
            name: name.into(),
            pace: Bandwidth::new(rate),
        }
    }

    /// What the site has committed of the change log.
    async fn position(&self) -> Result<Position, VerifyError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let source = self.source.source_id();
            let position = self.insist(|| self.site.position(&source)).await?;
            let cursor = self.source.load_cursor(&self.name).await?;
            let why = match (position, cursor) {
                (Some(position), Some(cursor)) if cursor.epoch != 0 && cursor.epoch == position.epoch => {
                    return Ok(position);
                }
                (None, _) => "the site has nothing of this share yet",
                _ => "the site is being brought over by tree difference",
            };
            if Instant::now() >= until {
                return Err(VerifyError::NotInStep(why));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Calls again while the site cannot be reached, so that a look of hours survives a lost connection.
    async fn insist<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T, SiteError>
    where
        F: Future<Output = Result<T, SiteError>>,
    {
        let until = Instant::now() + PATIENCE;
        loop {
            match call().await {
                Err(SiteError::Unreachable(why)) if Instant::now() < until => {
                    tracing::debug!(site = self.name, "verify: {why}; asked again");
                    tokio::time::sleep(AWAY_PAUSE).await;
                }
                other => return other,
            }
        }
    }
}
