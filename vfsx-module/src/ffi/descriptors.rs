//! Which inodes this process's descriptors lead to, so that a file is looked at once from its open to its close.
//!
//! smbd opens and closes what is on a share through the modules. What it opens is entered when it is looked at, and forgotten with the next
//! open that gives the same number, and with the close: so it does no harm that the stream of a directory is closed past this module.

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use vfsx_proto::NodeRef;

/// Numbers from here on are looked at each time: smbd has `max open files = 16384` by default.
const MOST: usize = 65_536;

/// Bits of one of the words below.
const BITS: usize = 64;

/// A bit for each number that is known. Nearly all that is opened and closed is path walks, of which nothing is known: to see that costs
/// one load, while a thread's own memory takes a call in a library that was loaded late.
static ANY: [AtomicU64; MOST / BITS] = [const { AtomicU64::new(0) }; MOST / BITS];

thread_local! {
    /// By number.
    static KNOWN: RefCell<Vec<Option<NodeRef>>> = const { RefCell::new(Vec::new()) };
}

/// A descriptor leads there now, as somebody has just looked.
pub(super) fn note(fd: RawFd, node: NodeRef) {
    let Some(at) = usize::try_from(fd).ok().filter(|at| *at < MOST) else {
        return;
    };
    KNOWN.with_borrow_mut(|known| {
        if at >= known.len() {
            known.resize(at + 1, None);
        }
        if let Some(entry) = known.get_mut(at) {
            *entry = Some(node);
        }
    });
    if let Some((word, bit)) = bit(at) {
        word.fetch_or(bit, Ordering::Relaxed);
    }
}

fn bit(at: usize) -> Option<(&'static AtomicU64, u64)> {
    ANY.get(at / BITS).map(|word| (word, 1 << (at % BITS)))
}

/// It is opened, or about to be closed.
pub(super) fn forget(fd: RawFd) {
    let Ok(at) = usize::try_from(fd) else { return };
    let Some((word, bit)) = bit(at) else { return };
    if word.load(Ordering::Relaxed) & bit == 0 {
        return;
    }
    let was_known = KNOWN.with_borrow_mut(|known| known.get_mut(at).and_then(Option::take));
    // One that is not known here is another thread's.
    if was_known.is_some() {
        word.fetch_and(!bit, Ordering::Relaxed);
    }
}

/// `ino`: what smbd takes its inode for, where it knows.
pub(super) fn known(fd: RawFd, ino: Option<u64>) -> Option<NodeRef> {
    let at = usize::try_from(fd).ok()?;
    let node = KNOWN.with_borrow(|known| known.get(at).copied().flatten())?;
    ino.is_none_or(|ino| ino == node.ino).then_some(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeRef = NodeRef {
        dev: 1,
        ino: 2,
        btime_ns: 3,
    };

    #[test]
    fn a_number_that_was_opened_anew_or_that_smbd_takes_for_another_inode_is_not_known() {
        assert_eq!(known(5, None), None);
        for fd in [5, -1, RawFd::MAX, 100] {
            note(fd, NODE);
        }
        assert_eq!(known(5, None), Some(NODE));
        assert_eq!(known(5, Some(2)), Some(NODE));
        assert_eq!(known(5, Some(7)), None);
        assert_eq!(known(RawFd::MAX, None), None, "too large to keep");
        forget(5);
        forget(-1);
        assert_eq!(known(5, None), None);
        assert_eq!(known(100, None), Some(NODE));
    }
}
