//! A workload is stopped, or disturbed, at every call it makes of the storage; the journal that a restart finds is
//! compared with a model.

use super::{event, of};
use crate::journal::{Body, Draft, GapReason, Journal, Options, Record, Session, SessionEnd};
use restfs_lib::disk::faulty::{EIO, ENOSPC, Fault, Faulty, Loss};
use std::collections::BTreeMap;
use std::sync::Arc;

const OPTIONS: Options = Options {
    segment_bytes: 700,
    max_bytes: 1 << 20,
    floor: 0,
};
const SESSIONS: u8 = 3;
const ROUNDS: u64 = 13;

/// What the journal must hold.
#[derive(Default)]
struct Model {
    /// By sequence: what was appended, synced or not. All versions, since one that was lost may have been replaced.
    written: BTreeMap<u64, Vec<Record>>,
    /// Synced: must be there.
    synced: BTreeMap<u64, Record>,
    /// May be gone up to here.
    trimmed: u64,
    acknowledged: BTreeMap<Session, u64>,
}

/// Appends, syncs and trims; stops when the storage has stopped. Goes on after other errors as the daemon does, and
/// says whether the last round's records are synced.
fn work(storage: &Faulty, model: &mut Model, base: u64) -> bool {
    let open = || Journal::open_on(Arc::new(storage.clone()), OPTIONS);
    let Ok(journal) = open().or_else(|_| open()) else {
        return false;
    };
    let mut whole = false;
    let mut sent: BTreeMap<u8, u64> = (1..=SESSIONS)
        .map(|s| (s, journal.acknowledged(Session([s; 16]))))
        .collect();
    for round in base..base + ROUNDS {
        whole = true;
        for session in 1..=SESSIONS {
            let last = sent.get_mut(&session).expect("filled above");
            let count = (round * u64::from(session)) % 4;
            let mut drafts: Vec<Draft> = (1..=count).map(|i| event(session, *last + i)).collect();
            if round % 5 == 4 {
                let body = Body::SessionEnded {
                    how: SessionEnd::Closed,
                };
                drafts.push(Draft {
                    session_sequence: 0,
                    body,
                    ..event(session, 0)
                });
            }
            let head = journal.status().head;
            let appended = journal.append(drafts.clone()).is_ok();
            // Of a batch that the stop came into, any part may be there.
            if appended || storage.stopped() {
                for (sequence, draft) in (head + 1..).zip(drafts) {
                    model
                        .written
                        .entry(sequence)
                        .or_default()
                        .push(of(draft, sequence));
                }
            }
            if appended {
                *last += count;
            }
            whole &= appended;
        }
        // Now and then a batch stays unsynced for longer.
        if round % 3 != 1 && journal.sync().is_ok() {
            model.note_synced(&journal);
        }
        if round % 4 == 3 {
            model.trimmed = model.trimmed.max(journal.status().synced / 2);
            // Trimmed again the next time when this fails.
            let _ = journal.trim(model.trimmed);
        }
        if journal.status().failed && journal.recover().is_ok() {
            for (session, last) in &mut sent {
                *last = journal.acknowledged(Session([*session; 16]));
            }
        }
    }
    whole &= journal.sync().is_ok();
    model.note_synced(&journal);
    whole && journal.status().synced == journal.status().head
}

impl Model {
    fn note_synced(&mut self, journal: &Journal) {
        let synced = journal.status().synced;
        for (sequence, versions) in self.written.range(..=synced) {
            let newest = versions.last().expect("never empty").clone();
            self.synced.entry(*sequence).or_insert(newest);
        }
        for session in 1..=SESSIONS {
            let session = Session([session; 16]);
            self.acknowledged.insert(session, journal.acknowledged(session));
        }
    }

    /// `may_doubt`: writes were lost out of order, so a gap for suspected damage is right.
    fn check(&self, storage: &Faulty, may_doubt: bool, context: &str) {
        let journal = Journal::open_on(Arc::new(storage.clone()), OPTIONS)
            .unwrap_or_else(|e| panic!("{context}: does not open: {e}"));
        let found = read_all(&journal, self.trimmed + 1);
        for pair in found.windows(2) {
            assert!(pair[0].sequence < pair[1].sequence, "{context}: out of order");
        }
        for record in &found {
            let known = self
                .written
                .get(&record.sequence)
                .is_some_and(|v| v.contains(record));
            let doubt = matches!(
                record.body,
                Body::Gap {
                    reason: GapReason::JournalDamaged,
                    ..
                }
            );
            assert!(known || (doubt && may_doubt), "{context}: invented {record:?}");
        }
        let found: BTreeMap<u64, Record> = found.into_iter().map(|r| (r.sequence, r)).collect();
        for (sequence, record) in self.synced.range(self.trimmed + 1..) {
            assert_eq!(
                found.get(sequence),
                Some(record),
                "{context}: a synced record is missing"
            );
        }
        assert_eq!(
            storage.bytes(),
            journal.status().bytes,
            "{context}: bytes that nobody counts"
        );
        let given_out = found.into_values().collect::<Vec<_>>();
        let again = Journal::open_on(Arc::new(storage.after_crash(Loss::All)), OPTIONS)
            .unwrap_or_else(|e| panic!("{context}: does not open again: {e}"));
        assert!(
            read_all(&again, self.trimmed + 1) == given_out,
            "{context}: what was given out is not what the next crash leaves"
        );
        for (session, acknowledged) in &self.acknowledged {
            let now = journal.acknowledged(*session);
            assert!(
                now >= *acknowledged,
                "{context}: acknowledged {acknowledged}, now only {now}"
            );
        }
    }
}

fn read_all(journal: &Journal, from: u64) -> Vec<Record> {
    let mut reader = journal.read_from(from).expect("not trimmed beyond the model");
    let mut all = Vec::new();
    loop {
        let records = reader.read(7).expect("a whole journal can be read");
        if records.is_empty() && reader.position() > journal.status().synced {
            return all;
        }
        all.extend(records);
    }
}

const LOSSES: [Loss; 9] = [
    Loss::None,
    Loss::All,
    Loss::Torn,
    Loss::Some(0x9E37_79B9),
    Loss::Some(0xDEAD_BEEF),
    Loss::Some(77),
    Loss::Sectors(0x9E37_79B9),
    Loss::Sectors(0xDEAD_BEEF),
    Loss::Sectors(77),
];

fn calls_of_workload() -> usize {
    let storage = Faulty::default();
    work(&storage, &mut Model::default(), 0);
    let calls = storage.calls();
    assert!(
        calls > 60,
        "the workload is too small to mean anything: {calls} calls"
    );
    calls
}

#[test]
fn a_stop_at_any_call_loses_nothing_synced_and_invents_nothing() {
    for at in 1..=calls_of_workload() {
        for loss in LOSSES {
            let context = format!("stop at call {at}, {loss:?}");
            let storage = Faulty::with_fault(at, Fault::Stop);
            let mut model = Model::default();
            work(&storage, &mut model, 0);
            assert!(storage.stopped(), "{context}: the fault was not met");
            let restarted = storage.after_crash(loss);
            model.check(&restarted, loss.reorders(), &context);
        }
    }
}

#[test]
fn work_after_a_restart_survives_the_next_crash() {
    for at in (1..=calls_of_workload()).step_by(5) {
        for loss in LOSSES {
            let context = format!("stop at call {at}, {loss:?}, second run");
            let storage = Faulty::with_fault(at, Fault::Stop);
            let mut model = Model::default();
            work(&storage, &mut model, 0);
            let restarted = storage.after_crash(loss);
            work(&restarted, &mut model, ROUNDS);
            model.check(&restarted.after_crash(Loss::All), loss.reorders(), &context);
        }
    }
}

#[test]
fn short_writes_and_errors_at_any_call_lose_nothing_synced() {
    let faults = [Fault::Short, Fault::Error(EIO), Fault::Error(ENOSPC)];
    for at in 1..=calls_of_workload() {
        for fault in faults {
            for loss in [Loss::None, Loss::All] {
                let context = format!("{fault:?} at call {at}, then {loss:?}");
                let storage = Faulty::with_fault(at, fault);
                let mut model = Model::default();
                work(&storage, &mut model, 0);
                // The fault is over: what could not be done before has to go now.
                let works = work(&storage, &mut model, ROUNDS);
                assert!(works, "{context}: the journal does not work again");
                model.check(&storage.after_crash(loss), false, &context);
            }
        }
    }
}
