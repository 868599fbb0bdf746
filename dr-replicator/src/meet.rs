//! Where shipping goes on, once a site has told its position.

use crate::site::{Position, Site};
use crate::source::{BatchLimits, ChangeSource, Cursor, SourceError};
use crate::trouble::Trouble;
use restfs_lib::model::{ObjectId, RowKey};

/// How source and site come together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start {
    /// The change log, after `sequence`.
    Follow {
        epoch: u64,
        sequence: u64,
        point: u64,
        initial: bool,
    },
    /// The difference of the trees, under a new epoch.
    Compare(Compare),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compare {
    /// The epoch to begin.
    pub(crate) epoch: u64,
    /// The site has nothing of this source.
    pub(crate) initial: bool,
    /// For people.
    pub(crate) why: String,
}

/// What is known of the site's tree when it has no position of this source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bare {
    /// Nothing but a root directory.
    pub(crate) empty: bool,
    /// The change log begins with change 1.
    pub(crate) whole_log: bool,
}

/// Asks the site for its position and decides.
pub(crate) async fn meet(
    source: &dyn ChangeSource,
    site: &dyn Site,
    cursor: Option<Cursor>,
) -> Result<Start, Trouble> {
    let position = site.position(&source.source_id()).await?;
    let head = *source.head().borrow();
    match position {
        Some(position) => Ok(decide(position, cursor, head)),
        None => Ok(begin(Bare {
            empty: is_empty(site).await?,
            whole_log: has_whole_log(source).await?,
        })),
    }
}

/// A site that knows this source. Equal epochs mean that the site's tree is the source's as of the site's sequence: the
/// cursor takes a new epoch only when the tree it begins with is whole.
pub(crate) fn decide(position: Position, cursor: Option<Cursor>, head: u64) -> Start {
    let epoch = position.epoch.saturating_add(1);
    let compare = |why: &str| {
        Start::Compare(Compare {
            epoch,
            initial: false,
            why: why.to_owned(),
        })
    };
    match cursor {
        Some(cursor) if cursor.epoch == 0 => compare("the last comparison of the trees did not end"),
        Some(cursor) if cursor.epoch != position.epoch => compare("the site is at another epoch"),
        None => compare("this end has no cursor of the site"),
        Some(_) if position.sequence > head => compare("the site has changes that this end does not know"),
        Some(_) => Start::Follow {
            epoch: position.epoch,
            sequence: position.sequence,
            point: position.point,
            initial: false,
        },
    }
}

/// A site that does not know this source.
pub(crate) fn begin(bare: Bare) -> Start {
    match bare {
        Bare {
            empty: true,
            whole_log: true,
        } => Start::Follow {
            epoch: 1,
            sequence: 0,
            point: 0,
            initial: true,
        },
        Bare { .. } => Start::Compare(Compare {
            epoch: 1,
            initial: true,
            why: "the site has nothing of this source".to_owned(),
        }),
    }
}

async fn is_empty(site: &dyn Site) -> Result<bool, Trouble> {
    let groups = site.groups(None, 2).await?;
    match groups.as_slice() {
        [] => Ok(true),
        [(group, _)] => {
            let rows = site.rows(*group, None, 2).await?;
            Ok(rows
                .iter()
                .all(|(row, _)| *row == RowKey::Object { id: ObjectId::ROOT }))
        }
        _ => Ok(false),
    }
}

async fn has_whole_log(source: &dyn ChangeSource) -> Result<bool, Trouble> {
    match source.changes(0, BatchLimits::of_log(1)).await {
        Ok(_) => Ok(true),
        Err(SourceError::TooOld { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64, sequence: u64) -> Position {
        Position {
            epoch,
            sequence,
            point: 7,
        }
    }

    fn cursor(epoch: u64, sequence: u64) -> Option<Cursor> {
        Some(Cursor { epoch, sequence })
    }

    fn follows(start: Start) -> Option<u64> {
        match start {
            Start::Follow { sequence, .. } => Some(sequence),
            Start::Compare(_) => None,
        }
    }

    #[test]
    fn the_sites_position_wins_when_an_answer_was_lost_or_the_site_was_put_back() {
        assert_eq!(follows(decide(at(1, 20), cursor(1, 10), 30)), Some(20));
        assert_eq!(follows(decide(at(1, 5), cursor(1, 10), 30)), Some(5));
    }

    #[test]
    fn a_restored_catalog_does_not_follow_a_log_that_the_site_has_seen_otherwise() {
        assert_eq!(follows(decide(at(1, 31), cursor(1, 10), 30)), None);
    }

    #[test]
    fn half_a_comparison_counts_as_none() {
        assert_eq!(follows(decide(at(2, 30), cursor(0, 30), 30)), None);
        assert_eq!(follows(decide(at(2, 30), cursor(1, 30), 30)), None);
        assert_eq!(follows(decide(at(2, 30), None, 30)), None);
        let Start::Compare(compare) = decide(at(2, 30), None, 30) else {
            panic!("it follows")
        };
        assert_eq!(compare.epoch, 3);
    }

    #[test]
    fn only_an_empty_site_is_filled_from_the_log() {
        let bare = |empty, whole_log| follows(begin(Bare { empty, whole_log }));
        assert_eq!(bare(true, true), Some(0));
        assert_eq!(bare(true, false), None);
        assert_eq!(bare(false, true), None);
    }
}
