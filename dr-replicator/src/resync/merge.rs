//! Walking two ordered listings side by side.

use super::pager::Pager;
use crate::trouble::Trouble;
use std::cmp::Ordering;

/// Where a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// At the source alone.
    Here,
    /// At the site alone.
    There,
    /// At both ends, and they differ.
    Both,
    Equal,
}

/// The next key of either listing.
pub(crate) async fn next<K: Ord + Clone>(
    here: &mut Pager<'_, K>,
    there: &mut Pager<'_, K>,
) -> Result<Option<(K, Side)>, Trouble> {
    let order = match (here.peek().await?, there.peek().await?) {
        (None, None) => return Ok(None),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (Some((here, _)), Some((there, _))) => here.cmp(there),
    };
    let found = match order {
        Ordering::Less => here.pop().map(|(key, _)| (key, Side::Here)),
        Ordering::Greater => there.pop().map(|(key, _)| (key, Side::There)),
        Ordering::Equal => here
            .pop()
            .zip(there.pop())
            .map(|((key, here), (_, there))| (key, if here == there { Side::Equal } else { Side::Both })),
    };
    Ok(found)
}
