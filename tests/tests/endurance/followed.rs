//! Clients that are followed at the site all the time.

use crate::{LIMIT, beside_others};
use anyhow::{Context, Result, anyhow, ensure};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vfsx_tests::lab::Mode;
use vfsx_tests::rpc::Rpc;
use vfsx_tests::smb::{Handle, Session};
use vfsx_tests::testlab::{TestLab, with_lab};
use vfsx_tests::work::{Marks, mark_at};

const BLOCK: u64 = 64 << 10;
/// A module keeps a write into a file that stays open for so long: vfsxd does not know of it.
const KEPT: Duration = Duration::from_secs(1);
/// A busy machine is late.
const NOISE: Duration = Duration::from_millis(500);

/// Works with `work` while the site's files `paths` are looked at for marks. Nothing on the way may be further behind than
/// [`LIMIT`], and vfsxd has to say how far it is, but for what modules have `kept`.
fn never_far_behind(
    lab: &TestLab,
    paths: &[&str],
    kept: Duration,
    work: impl FnOnce(&Marks) -> Result<()>,
) -> Result<()> {
    let (marks, over) = (Marks::default(), AtomicBool::new(false));
    let site = lab.site("site1")?;
    let behind = std::thread::scope(|scope| {
        let watch = scope.spawn(|| marks.watch(lab, site, paths, &over));
        let worked = work(&marks);
        over.store(true, Ordering::Relaxed);
        let behind = watch
            .join()
            .unwrap_or_else(|_| Err(anyhow!("the watch panicked")));
        worked.and(behind)
    })?;
    println!(
        "worst of {} looks: {:?} seen, {:?} told by vfsxd, which was {:?} less than what was seen",
        behind.looks, behind.seen, behind.told, behind.untold
    );
    ensure!(behind.newest > 0, "the site never had a mark");
    ensure!(
        behind.seen <= LIMIT && behind.told <= LIMIT,
        "too far behind: {behind:?}"
    );
    ensure!(
        behind.told > Duration::ZERO && behind.untold <= kept + NOISE,
        "vfsxd says too little: {behind:?}"
    );
    Ok(())
}

/// Blocks of the file, of which one after another gets a mark.
const PLACES: u64 = 500;
/// Between two marks.
const PAUSE: Duration = Duration::from_millis(15);

/// A file that a client keeps open and writes all the time, as a database does.
fn file_that_stays_open(time: Duration, mode: Mode) {
    let _machine = beside_others();
    with_lab(
        |options| options.samba.mode = mode,
        |lab| {
            let mut session = Session::connect(lab, "data")?;
            let file = session.create("database", "create")?;
            session.fill(file, 0, (PLACES + 1) * BLOCK, 1)?;
            session.write(file, 0, &Marks::content(0))?;
            lab.settle()?;
            lab.wait_for_mode(mode)?;
            never_far_behind(lab, &["database"], KEPT, |marks| {
                write_for(lab, time, &mut session, file, marks)
            })?;
            session.close(file)?;
            lab.settle()?;
            lab.check_captured(1)?;
            lab.check_replica("site1")
        },
    );
}

fn write_for(
    lab: &TestLab,
    time: Duration,
    session: &mut Session,
    file: Handle,
    marks: &Marks,
) -> Result<()> {
    let mut rpc = Rpc::connect(lab.site("site1")?)?;
    let start = Instant::now();
    let mut written = Vec::new();
    while start.elapsed() < time {
        let mark = written.len() as u64 + 1;
        session.write(file, place(mark), &Marks::content(mark))?;
        session.write(file, 0, &Marks::content(mark))?;
        marks.wrote(mark);
        written.push(Instant::now());
        check_places(&mut rpc, &written)?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

fn place(mark: u64) -> u64 {
    (1 + mark % PLACES) * BLOCK
}

/// What is older than the limit must be at the site wherever in the file it is; one place is looked at, another one each time.
fn check_places(rpc: &mut Rpc, written: &[Instant]) -> Result<()> {
    let old = written.partition_point(|when| when.elapsed() > LIMIT) as u64;
    let looked = old.saturating_sub(written.len() as u64 * 7 % PLACES);
    if looked == 0 {
        return Ok(());
    }
    let found = mark_at(rpc, "database", place(looked))?.context("the site's file ends too early")?;
    // A later mark may be at the place by now; what was there before all marks is random and far greater.
    ensure!(
        found >= looked && found <= written.len() as u64,
        "mark {looked} is older than {LIMIT:?} and not at the site, which has {found}"
    );
    Ok(())
}

#[test]
fn a_file_that_stays_open_for_20_s_is_never_5_s_behind() {
    file_that_stays_open(Duration::from_secs(20), Mode::Map);
}

#[test]
fn a_file_that_stays_open_for_20_s_is_never_5_s_behind_in_mode_copy() {
    file_that_stays_open(Duration::from_secs(20), Mode::Copy);
}

#[test]
#[ignore = "10 minutes: cargo xtask test --long"]
fn a_file_that_stays_open_for_10_minutes_is_never_5_s_behind() {
    file_that_stays_open(Duration::from_secs(600), Mode::Map);
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Names that go round, each over one that is there: every object that was replaced is gone at the site, and no change waits for
/// another.
fn names_that_go_round(rounds: u64, mode: Mode) {
    let _machine = beside_others();
    with_lab(
        |options| options.samba.mode = mode,
        |lab| {
            let mut session = Session::connect(lab, "data")?;
            for name in NAMES {
                session.put(name, &Marks::content(0))?;
            }
            lab.settle()?;
            lab.wait_for_mode(mode)?;
            let start = Instant::now();
            never_far_behind(lab, &NAMES, Duration::ZERO, |marks| {
                (1..=rounds).try_for_each(|round| go_round(&mut session, round, marks))
            })?;
            println!("{rounds} rounds in {:?}", start.elapsed());
            lab.settle()?;
            lab.check_captured(1)?;
            lab.check_replica("site1")
        },
    );
}

/// One file takes each name in turn and is written at the end; the two that were replaced are made again.
fn go_round(session: &mut Session, round: u64, marks: &Marks) -> Result<()> {
    let [first, second, third] = NAMES;
    for (from, to) in [(first, second), (second, third), (third, first)] {
        let handle = session.create(from, "open")?;
        session.rename_open(handle, to, true)?;
        session.close(handle)?;
    }
    for name in NAMES {
        let handle = session.create(name, "open_if")?;
        session.write(handle, 0, &Marks::content(round))?;
        session.close(handle)?;
    }
    marks.wrote(round);
    Ok(())
}

#[test]
fn names_that_go_round_200_times_do_not_pile_up() {
    names_that_go_round(200, Mode::Map);
}

#[test]
fn names_that_go_round_200_times_do_not_pile_up_in_mode_copy() {
    names_that_go_round(200, Mode::Copy);
}

#[test]
#[ignore = "minutes: cargo xtask test --long"]
fn names_that_go_round_10000_times_do_not_pile_up() {
    names_that_go_round(10_000, Mode::Map);
}
