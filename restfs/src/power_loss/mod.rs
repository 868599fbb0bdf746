//! A site is stopped, or disturbed, at every call that it makes of its disk, and what the next start finds is compared with
//! a model: nothing that was acknowledged is lost, no commit is half there, one that is sent again is applied once, and no
//! block that the site claims to have is missing.
//!
//! The work purges points and collects blocks, too.
//!
//! Packs and commit log are on a disk that fails and forgets. The SQLite files are real ones; what a power cut may leave
//! of them is made here: as they were when they were last synced, or with an end of the write-ahead log that is torn.

mod model;
mod site;

use model::Model;
use restfs_lib::disk::faulty::{EIO, ENOSPC, Fault, Faulty, Loss};
use site::{Site, State};

const LOSSES: [Loss; 6] = [
    Loss::All,
    Loss::Torn,
    Loss::Some(0x9E37_79B9),
    Loss::Sectors(0xDEAD_BEEF),
    Loss::Sectors(77),
    Loss::None,
];

/// What became of the SQLite files.
const DATABASES: [State; 5] = [
    State::Kept,
    State::Synced,
    State::TornEnd,
    State::Lost,
    State::Damaged,
];

fn run(disk: &Faulty, model: &mut Model) -> Site {
    let mut site = Site::new(disk.clone());
    model.work(&mut site);
    site
}

/// Each is looked at after so many of these.
const ENDS: usize = 2;

/// Works without a fault; gives the numbers of the calls, and some more: writes at once may share a transaction or not.
fn calls_of_workload() -> std::ops::Range<usize> {
    let disk = Faulty::default();
    let mut model = Model::default();
    let site = run(&disk, &mut model);
    assert!(
        model.is_whole() && disk.calls() > 150,
        "{} calls: too few to mean anything",
        disk.calls()
    );
    let calls = disk.calls();
    model.check(site.after_power_loss(Loss::All, State::Kept), "no fault");
    1..calls + calls / 20
}

#[test]
fn a_stop_at_any_call_loses_nothing_acknowledged() {
    for at in calls_of_workload() {
        let disk = Faulty::with_fault(at, Fault::Stop);
        let mut model = Model::default();
        let site = run(&disk, &mut model);
        if !disk.stopped() {
            return;
        }
        for number in 0..ENDS {
            let loss = LOSSES[(at * ENDS + number) % LOSSES.len()];
            let database = DATABASES[(at + number) % DATABASES.len()];
            let context = format!("stop at call {at}, {loss:?}, database {database:?}");
            model
                .clone()
                .check(site.after_power_loss(loss, database), &context);
        }
    }
}

#[test]
fn short_writes_and_errors_at_any_call_lose_nothing_acknowledged() {
    for at in calls_of_workload() {
        let for_good = Fault::Errors(ENOSPC, usize::MAX);
        let faults = [Fault::Short, Fault::Error(EIO), Fault::Error(ENOSPC), for_good];
        // Two of the four at each call, another two at the next.
        for number in [at % 4, (at + 1) % 4] {
            let fault = faults[number];
            let disk = Faulty::with_fault(at, fault);
            let mut model = Model::default();
            let site = run(&disk, &mut model);
            let loss = [Loss::All, Loss::Sectors(at as u64), Loss::None][(at + number) % 3];
            let database = DATABASES[(at + number) % DATABASES.len()];
            let context = format!("{fault:?} at call {at}, then {loss:?}, database {database:?}");
            model.check(site.after_power_loss(loss, database), &context);
        }
    }
}

/// A full disk is a matter of time, and not a reason to be restarted.
#[test]
fn after_a_full_disk_at_any_call_all_goes_on_without_a_restart() {
    let begun = Site::calls_of_start();
    for at in calls_of_workload().filter(|at| *at > begun) {
        // btrfs refuses what would take back a write that it has refused, too.
        let fault = [Fault::Error(ENOSPC), Fault::Errors(ENOSPC, 3)][at % 2];
        let disk = Faulty::with_fault(at, fault);
        let mut model = Model::default();
        let mut site = run(&disk, &mut model);
        if !disk.met() {
            return;
        }
        disk.heal();
        if model.failed_for_good() {
            // A sync said so: what is on disk is in doubt then.
            assert!(
                disk.failed_in_sync(),
                "call {at} was no sync, and nothing is taken any more"
            );
            continue;
        }
        let context = format!("{fault:?} at call {at}");
        model.catch_up(&mut site, &context);
        model.check(site.after_power_loss(Loss::All, State::Synced), &context);
    }
}
