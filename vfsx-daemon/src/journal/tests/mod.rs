//! Tests of the journal: what is on disk byte by byte, crashes at every call, damage, limits.

mod codec;
mod crash;
mod damage;
mod golden;
mod limits;

use super::{Body, Draft, NodeRef, Record, Session};

/// A draft that tells its session and number, of a size that varies with the number.
pub(super) fn event(session: u8, sequence: u64) -> Draft {
    Draft {
        time_ns: (sequence as i64).wrapping_add(i64::from(session)),
        session: Session([session; 16]),
        session_sequence: sequence,
        began_ns: sequence << 20,
        body: Body::Opened {
            handle: sequence,
            node: NodeRef {
                dev: 1,
                ino: sequence,
                btime_ns: 3,
            },
            path_hint: vec![session; 1 + (sequence % 37) as usize],
        },
    }
}

pub(super) fn of(draft: Draft, sequence: u64) -> Record {
    draft.numbered(sequence)
}
