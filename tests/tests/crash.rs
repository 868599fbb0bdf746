//! Something is killed in the middle of a copy: nothing is lost, nothing is scanned again.

use anyhow::{Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;
use vfsx_tests::lab::{LabOptions, READY_LIMIT, Service};
use vfsx_tests::loopfs::{FileSystem, LoopFs};
use vfsx_tests::smb::Session;
use vfsx_tests::testlab::{TestLab, with_lab};
use vfsx_tests::wait;
use vfsx_tests::work::Lag;

/// Names the copy has made when the kill comes, and how many more it makes before the restart.
const BEFORE: usize = 150;
const MEANWHILE: usize = 150;
const FILES: usize = 5000;
const MEBIBYTES: u64 = 60;

/// Runs `incident` while clients copy a tree in; then everything must be at the site.
fn during_a_copy(lab: &TestLab, incident: impl FnOnce() -> Result<()>) -> Result<()> {
    let tree = lab.source_tree(FILES, MEBIBYTES)?;
    std::thread::scope(|scope| {
        let copy = scope.spawn(|| tree.copy_in(lab, "data"));
        lab.wait_for_names(BEFORE)?;
        incident()?;
        ensure!(
            !copy.is_finished(),
            "the copy was over before the incident: it showed nothing"
        );
        copy.join().unwrap_or_else(|_| Err(anyhow!("the copy panicked")))
    })
}

fn kill_and_start(lab: &TestLab, service: &Service) -> Result<()> {
    service.kill9()?;
    lab.wait_for_names(lab.names() + MEANWHILE)?;
    service.start()
}

#[test]
fn vfsxd_killed_in_a_copy_loses_nothing_and_scans_nothing() {
    with_lab(
        |_| {},
        |lab| {
            lab.settle()?;
            during_a_copy(lab, || kill_and_start(lab, &lab.vfsxd))?;
            lab.settle()?;
            lab.check_captured(1)?;
            lab.check_replica("site1")
        },
    );
}

#[test]
fn a_client_that_leaves_while_vfsxd_is_down_costs_neither_a_gap_nor_a_scan() {
    with_lab(
        |_| {},
        |lab| {
            let mut session = Session::connect(lab, "data")?;
            let open = session.create("open", "create")?;
            session.fill(open, 0, 1 << 20, 1)?;
            lab.settle()?;
            lab.vfsxd.kill9()?;
            session.random_writes(open, 20, 4096, 1 << 20, 2)?;
            session.put("new", b"nobody is listening")?;
            drop(session);
            until("a spool file", || spooled(lab) > 0)?;
            lab.vfsxd.start()?;
            lab.settle()?;
            ensure!(spooled(lab) == 0, "the spool file is still there");
            lab.check_captured(1)?;
            lab.check_replica("site1")
        },
    );
}

#[test]
fn a_client_that_comes_and_goes_while_vfsxd_is_down_costs_neither_a_gap_nor_a_scan() {
    with_lab(
        |_| {},
        |lab| {
            lab.settle()?;
            lab.vfsxd.stop()?;
            let mut session = Session::connect(lab, "data")?;
            session.put("new", b"no vfsxd has ever heard of this session")?;
            drop(session);
            until("a spool file", || spooled(lab) > 0)?;
            lab.vfsxd.start()?;
            lab.settle()?;
            lab.check_captured(1)?;
            lab.check_replica("site1")
        },
    );
}

/// More than a socket holds is in the file alone. Settle is called at once, and more often than vfsxd looks by itself.
#[test]
fn a_client_that_leaves_while_vfsxd_stands_still_is_at_the_site_after_settle() {
    with_lab(
        |_| {},
        |lab| {
            lab.settle()?;
            for round in 0..4 {
                let mut session = Session::connect(lab, "data")?;
                let frozen = lab.vfsxd.freeze()?;
                for file in 0..800 {
                    session.put(&format!("{round} {file:0200}"), b"nobody is listening")?;
                }
                drop(session);
                until("a spool file", || spooled(lab) > 0)?;
                drop(frozen);
                lab.settle()?;
                lab.check_replica("site1")?;
            }
            lab.check_captured(1)
        },
    );
}

/// The least that smb.conf can ask for.
const SMALL_RING: u64 = 512 << 10;

/// A client makes several times more changes than one session can keep in memory. Long names make long events.
fn overflow(lab: &TestLab, session: &mut Session, what: &str) -> Result<()> {
    let mut made = 0;
    while spooled(lab) < 3 * SMALL_RING {
        ensure!(made < 10_000, "{} bytes in the spool", spooled(lab));
        for _ in 0..20 {
            let name = format!("{what} {made:0200}");
            let file = session.create(&name, "create")?;
            session.fill(file, 0, 100, made)?;
            if made.is_multiple_of(3) {
                session.rename_open(file, &format!("{name} renamed"), false)?;
            }
            session.close(file)?;
            made += 1;
        }
    }
    Ok(())
}

/// Bytes in the spool of share `data`.
fn spooled(lab: &TestLab) -> u64 {
    let files = fs::read_dir(lab.dir().join("vfsxd/spool/data"));
    let lengths = files.into_iter().flatten().flatten();
    lengths.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

#[test]
fn more_changes_than_memory_holds_while_vfsxd_is_down_cost_neither_a_gap_nor_a_scan() {
    with_lab(
        |options| options.samba.share.push(format!("vfsx:ring size = {SMALL_RING}")),
        |lab| {
            let mut session = Session::connect(lab, "data")?;
            session.put("before", b"vfsxd knows of this session")?;
            lab.settle()?;
            lab.vfsxd.stop()?;
            overflow(lab, &mut session, "stopped")?;
            lab.vfsxd.start()?;
            lab.settle()?;
            lab.check_captured(1)?;
            lab.check_replica("site1")?;
            until("the spool is empty", || spooled(lab) == 0)?;

            // The file is the next absence's as if there had been none.
            lab.vfsxd.kill9()?;
            overflow(lab, &mut session, "killed")?;
            drop(session);
            until_clients_are_gone(lab)?;
            lab.vfsxd.start()?;
            lab.settle()?;
            lab.check_captured(1)?;
            lab.check_replica("site1")?;
            ensure!(spooled(lab) == 0, "the spool file is still there");
            Ok(())
        },
    );
}

#[test]
fn an_smbd_process_killed_with_changes_on_disk_and_in_memory_is_a_gap_that_heals() {
    with_lab(
        |options| {
            options.samba.share.push(format!("vfsx:ring size = {SMALL_RING}"));
            options.reconcile = Some("after_gap = \"1s\"".into());
        },
        |lab| {
            let mut session = Session::connect(lab, "data")?;
            lab.settle()?;
            lab.vfsxd.stop()?;
            overflow(lab, &mut session, "file")?;
            let process = only_client(lab)?;
            kill(process, Signal::SIGKILL)?;
            until_clients_are_gone(lab)?;
            drop(session);
            lab.vfsxd.start()?;
            until_gap_is_closed(lab)?;
            lab.settle()?;
            ensure!(spooled(lab) == 0, "the spool file is still there");
            lab.check_replica("site1")
        },
    );
}

/// As after an update: the client's smbd had the module of the release before.
#[test]
fn what_a_module_of_another_version_has_left_is_a_gap_that_heals() {
    with_lab(
        |options| options.reconcile = Some("after_gap = \"1s\"".into()),
        |lab| {
            let mut session = Session::connect(lab, "data")?;
            let open = session.create("old", "create")?;
            session.fill(open, 0, 1 << 20, 1)?;
            lab.settle()?;
            lab.vfsxd.stop()?;
            session.random_writes(open, 20, 4096, 1 << 20, 2)?;
            session.put("new", b"told in another encoding")?;
            drop(session);
            until("a spool file", || spooled(lab) > 0)?;
            until_clients_are_gone(lab)?;
            let older = make_older(&lab.dir().join("vfsxd/spool/data"))?;
            lab.vfsxd.start()?;
            let log = fs::read_to_string(&lab.vfsxd.log)?;
            let said = format!("version {older} of the vfsx protocol");
            ensure!(log.contains(&said), "{log}");
            until_gap_is_closed(lab)?;
            lab.settle()?;
            ensure!(spooled(lab) == 0, "the spool file is still there");
            lab.check_replica("site1")
        },
    );
}

/// Lets spool files be of the version before, which is behind the four bytes of their magic. That version.
fn make_older(spool: &Path) -> Result<u16> {
    let mut version = [0; 2];
    for entry in fs::read_dir(spool)? {
        let file = fs::File::options().read(true).write(true).open(entry?.path())?;
        file.read_exact_at(&mut version, 4)?;
        version = (u16::from_le_bytes(version) - 1).to_le_bytes();
        file.write_all_at(&version, 4)?;
    }
    Ok(u16::from_le_bytes(version))
}

#[test]
fn restfs_killed_in_a_copy_loses_nothing_and_scans_nothing() {
    with_lab(
        |_| {},
        |lab| {
            lab.settle()?;
            during_a_copy(lab, || kill_and_start(lab, &lab.site("site1")?.service))?;
            lab.settle()?;
            lab.check_captured(1)?;
            lab.check_replica("site1")
        },
    );
}

#[test]
fn a_site_that_is_down_all_the_time_does_not_delay_the_other() {
    with_lab(
        |options| options.sites = 2,
        |lab| {
            lab.settle()?;
            let down = lab.site("site2")?;
            down.service.kill9()?;
            during_a_copy(lab, || {
                kill_and_start(lab, &lab.vfsxd)?;
                kill_and_start(lab, &lab.site("site1")?.service)
            })?;
            lab.settle_site("site1")?;
            lab.check_replica("site1")?;
            let lag = Lag::measure(lab, lab.site("site1")?, "lag", 50)?;
            ensure!(
                lag.quantile_ms(0.5) < 1000.0,
                "site1 lags by {} ms while site2 is down",
                lag.quantile_ms(0.5)
            );
            let state = lab.site_status("site2")?;
            ensure!(
                state.get("state").and_then(Value::as_str) == Some("unreachable"),
                "{state}"
            );

            down.service.start()?;
            lab.settle()?;
            lab.check_captured(1)?;
            lab.check_replica("site1")?;
            lab.check_replica("site2")
        },
    );
}

#[test]
fn an_smbd_process_killed_in_a_write_leaves_nothing_behind() {
    with_lab(
        |_| {},
        |lab| {
            let mut session = Session::connect(lab, "data")?;
            let handle = session.create("torn", "create")?;
            session.fill(handle, 0, 8 << 20, 1)?;
            lab.settle()?;
            // Written and not closed, so nothing but the end of the process tells that it is over.
            session.random_writes(handle, 200, 4096, 8 << 20, 2)?;
            lab.smbd.kill9()?;
            lab.start_smbd()?;
            lab.settle()?;
            lab.check_replica("site1")
        },
    );
}

/// In the very second in which nobody takes what it notes.
#[test]
fn an_smbd_process_killed_right_after_vfsxd_is_a_gap_that_heals() {
    with_lab(
        |options| options.reconcile = Some("after_gap = \"1s\"".into()),
        |lab| {
            let mut session = Session::connect(lab, "data")?;
            session.put("before", b"vfsxd knows of this session")?;
            lab.settle()?;
            let process = only_client(lab)?;
            lab.vfsxd.kill9()?;
            session.put("meanwhile", b"noted in smbd's memory alone")?;
            kill(process, Signal::SIGKILL)?;
            drop(session);
            gap_heals(lab)
        },
    );
}

/// vfsxd has taken nothing of the last change, and smbd has not seen that vfsxd is gone.
#[test]
fn an_smbd_process_killed_together_with_vfsxd_is_a_gap_that_heals() {
    with_lab(
        |options| options.reconcile = Some("after_gap = \"1s\"".into()),
        |lab| {
            let mut session = Session::connect(lab, "data")?;
            session.put("before", b"vfsxd knows of this session")?;
            lab.settle()?;
            lab.check_captured(1)?;
            let process = only_client(lab)?;
            let frozen = lab.vfsxd.freeze()?;
            session.put("meanwhile", b"noted in smbd's memory alone")?;
            kill(process, Signal::SIGKILL)?;
            lab.vfsxd.kill9()?;
            drop(frozen);
            drop(session);
            gap_heals(lab)
        },
    );
}

/// The client's smbd process was killed while vfsxd does not run.
fn gap_heals(lab: &TestLab) -> Result<()> {
    until_clients_are_gone(lab)?;
    lab.vfsxd.start()?;
    until_gap_is_closed(lab)?;
    lab.settle()?;
    lab.check_replica("site1")
}

#[test]
fn a_client_that_leaves_with_nothing_untold_while_vfsxd_is_down_costs_neither_a_gap_nor_a_scan() {
    with_lab(
        |_| {},
        |lab| {
            let mut session = Session::connect(lab, "data")?;
            session.put("before", b"vfsxd has it")?;
            lab.settle()?;
            lab.vfsxd.kill9()?;
            drop(session);
            until_clients_are_gone(lab)?;
            lab.vfsxd.start()?;
            nothing_is_missed_of_who_is_gone(lab)
        },
    );
}

/// smbd has seen nothing of the kill, and vfsxd nothing of the session's end.
#[test]
fn a_client_that_leaves_in_the_moment_vfsxd_is_killed_costs_neither_a_gap_nor_a_scan() {
    with_lab(
        |options| options.samba.share = vec!["vfsx:durability = journal".into()],
        |lab| {
            let mut session = Session::connect(lab, "data")?;
            session.put("before", b"smbd has heard that vfsxd has it")?;
            lab.settle()?;
            let frozen = lab.vfsxd.freeze()?;
            drop(session);
            until_clients_are_gone(lab)?;
            lab.vfsxd.kill9()?;
            drop(frozen);
            lab.vfsxd.start()?;
            nothing_is_missed_of_who_is_gone(lab)
        },
    );
}

/// Neither a file that was open for writing nor anything noted tells of what it did last.
#[test]
fn an_smbd_process_killed_in_a_rename_is_a_gap_that_heals() {
    let disk = LoopFs::make(FileSystem::Ext4).expect("a file system");
    let options = |options: &mut LabOptions| options.shares = Some(disk.path());
    with_lab(options, |lab| {
        let mut session = Session::connect(lab, "data")?;
        session.put("old", b"content")?;
        let handle = session.create("old", "open")?;
        lab.settle()?;
        lab.check_captured(1)?;
        let process = only_client(lab)?;
        let thawed = Thaws(&disk);
        disk.freeze()?;
        std::thread::scope(|scope| {
            let rename = scope.spawn(|| session.rename_open(handle, "new", false));
            // A kill waits for the kernel to get done with the rename.
            until("smbd waits for the disk", || is_waiting_for_a_disk(process))?;
            kill(process, Signal::SIGKILL)?;
            drop(thawed);
            let answer = rename.join().map_err(|_| anyhow!("the client panicked"))?;
            ensure!(answer.is_err(), "the rename was answered: the kill came too late");
            anyhow::Ok(())
        })?;
        until("the client's process ends", || {
            !lab.smbd.children("smbd").contains(&process)
        })?;
        let share = lab.share("data")?;
        ensure!(
            share.join("new").exists(),
            "the rename was not done: this showed nothing"
        );
        until_gap_is_closed(lab)?;
        lab.settle()?;
        lab.check_replica("site1")
    });
    disk.unmount().expect("nothing uses it any more");
}

/// A disk that is frozen goes on, whatever fails.
struct Thaws<'a>(&'a LoopFs);

impl Drop for Thaws<'_> {
    fn drop(&mut self) {
        self.0.thaw().expect("thaw");
    }
}

fn is_waiting_for_a_disk(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with('D'))
}

/// Not smbd as a whole: its children end by themselves, if there is time, when their parent is gone.
fn only_client(lab: &TestLab) -> Result<Pid> {
    match lab.smbd.children("smbd")[..] {
        [process] => Ok(process),
        ref others => bail!("{} clients", others.len()),
    }
}

fn until_clients_are_gone(lab: &TestLab) -> Result<()> {
    until("the client's process ends", || {
        lab.smbd.children("smbd").is_empty()
    })
}

/// A vfsxd that was killed waits half a minute for its sessions before it compares the share.
const GAP_LIMIT: Duration = Duration::from_secs(90);

/// One was noted, and vfsxd has compared the share since.
fn until_gap_is_closed(lab: &TestLab) -> Result<()> {
    let closed = || {
        let status = lab.status().ok()?;
        let closed = status
            .pointer("/reconcile/last_gap")
            .is_some_and(Value::is_object);
        (closed && status.get("gap") == Some(&Value::Null)).then_some(())
    };
    wait::until("a gap that has been closed", GAP_LIMIT, closed, || {
        format!("{:?}", lab.status())
    })
}

const LATE: u64 = 4 << 20;
const WRITE: u64 = 64 << 10;
/// Sent at once, to every second place of that size.
const WRITES: u64 = 8;

/// A client is gone while the disk hangs with its writes: smbd forgets them and closes the file, and its threads finish them
/// before the process ends.
#[test]
fn writes_that_reach_the_disk_after_their_client_is_gone_are_found() {
    let scratch = tempfile::tempdir().expect("scratch directory");
    let hold = scratch.path().join("hold");
    with_lab(
        |options| options.samba.hold = Some(hold.clone()),
        |lab| {
            let mut session = Session::connect(lab, "data")?;
            let handle = session.create("late", "create")?;
            session.fill(handle, 0, LATE, 1)?;
            lab.settle()?;
            let process = only_client(lab)?;
            let file = lab.share("data")?.join("late");
            let before = fs::read(&file)?;
            let open = || open_handles(process, &file);
            ensure!(open() == 1, "{} handles of a file open once", open());

            fs::write(&hold, "")?;
            for number in 0..WRITES {
                session.post(handle, number * 2 * WRITE, WRITE, number)?;
            }
            until("all writes are at the disk", || open() == 1 + WRITES as usize)?;
            drop(session);
            until("smbd closes the file", || open() == WRITES as usize)?;
            ensure!(fs::read(&file)? == before, "a write was not held up");
            fs::remove_file(&hold)?;
            until("the process ends", || {
                !lab.smbd.children("smbd").contains(&process)
            })?;

            let written = fs::read(&file)?;
            for (place, block) in before.chunks(WRITE as usize).enumerate() {
                let is_new = written.chunks(WRITE as usize).nth(place) != Some(block);
                let was_sent = place % 2 == 0 && place < 2 * WRITES as usize;
                ensure!(is_new == was_sent, "block {place}: new {is_new}, sent {was_sent}");
            }
            lab.settle()?;
            lab.check_captured(1)?;
            lab.check_replica("site1")
        },
    );
}

/// Of one process, its threads' included.
fn open_handles(process: Pid, file: &Path) -> usize {
    let handles = fs::read_dir(format!("/proc/{process}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    let targets = handles.filter_map(|handle| fs::read_link(handle.path()).ok());
    targets.filter(|target| target == file).count()
}

/// The session of a client that left is over for vfsxd, which knows all it did.
fn nothing_is_missed_of_who_is_gone(lab: &TestLab) -> Result<()> {
    until("its session is over", || {
        let status = lab.status().unwrap_or_default();
        status.pointer("/sessions/awaited") == Some(&Value::from(0))
    })?;
    lab.settle()?;
    lab.check_captured(1)?;
    lab.check_replica("site1")
}

fn until(what: &str, condition: impl Fn() -> bool) -> Result<()> {
    wait::until(what, READY_LIMIT, || condition().then_some(()), String::new)
}
