//! What goes wrong between a source and a site, and what is done about it.

use crate::site::SiteError;
use crate::source::SourceError;
use crate::status::SiteState;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    Site(#[from] SiteError),
    #[error("{0}")]
    Source(#[from] SourceError),
    /// Both ends answer, and it does not go on all the same.
    #[error("{0}")]
    Stuck(String),
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Ask for the site's position again after a pause.
    Retry { state: SiteState, pause: Pause },
    /// Ship the difference of the trees.
    Compare,
    /// Never write there again.
    Fence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    Growing,
    Fixed(Duration),
}

/// A disk that is full, there or here, is looked at again after this long: an admin who made space wants to see it used.
const FULL: Duration = Duration::from_secs(5);
/// A refusal needs a person, whose change should be noticed without a further command.
const FAILED: Duration = Duration::from_secs(30);

impl Trouble {
    pub(crate) fn remedy(&self) -> Remedy {
        let retry = |state, pause| Remedy::Retry { state, pause };
        match self {
            Self::Site(SiteError::Unreachable(_)) => retry(SiteState::Unreachable, Pause::Growing),
            Self::Site(SiteError::Full(_)) | Self::Source(SourceError::Full(_)) => {
                retry(SiteState::Full, Pause::Fixed(FULL))
            }
            Self::Site(SiteError::OutOfOrder { .. }) => retry(SiteState::CatchingUp, Pause::Growing),
            Self::Site(SiteError::Refused(_)) => retry(SiteState::Failed, Pause::Fixed(FAILED)),
            Self::Site(SiteError::MissingBlocks(_)) | Self::Stuck(_) => {
                retry(SiteState::Failed, Pause::Fixed(FAILED))
            }
            Self::Source(SourceError::Failed(_)) => retry(SiteState::Failed, Pause::Growing),
            Self::Site(SiteError::Fenced { .. }) => Remedy::Fence,
            Self::Site(SiteError::Inapplicable(_)) | Self::Source(SourceError::TooOld { .. }) => {
                Remedy::Compare
            }
        }
    }
}

/// Pauses that double from 100 ms to 30 s, each shortened at random by up to half so that many sources that lost a site
/// at once do not come back at once.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    pub(crate) const LONGEST: Duration = Duration::from_secs(30);

    pub(crate) fn next(&mut self) -> Duration {
        let full = Self::FIRST
            .saturating_mul(1 << self.attempts.min(16))
            .min(Self::LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        full.mul_f64(1.0 - 0.5 * random_fraction())
    }

    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// 0 to 1. Without a source of randomness pauses are just not spread.
fn random_fraction() -> f64 {
    getrandom::u32().map_or(0.0, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_a_tenth_of_a_second_to_half_a_minute_and_start_over() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..20).map(|_| backoff.next()).collect();
        assert!(pauses[0] >= Duration::from_millis(50) && pauses[0] <= Duration::from_millis(100));
        assert!(pauses[19] >= Duration::from_secs(15) && pauses[19] <= Duration::from_secs(30));
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(100));
    }
}
