//! Changes that vfsxd could not see: clients do not notice, the status says so, a sync brings them over.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vfsx_tests::lab::give_to_user;
use vfsx_tests::smb::{Session, SmbClient};
use vfsx_tests::testlab::{TestLab, with_lab};
use vfsx_tests::wait;
use vfsx_tests::work;

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn clients_work_on_without_vfsxd_and_a_sync_closes_the_gap() {
    with_lab(
        |options| options.samba.share.push("vfsx:spool = no".into()),
        |lab| {
            lab.source_tree(300, 10)?.copy_in(lab, "data")?;
            lab.settle()?;
            lab.vfsxd.stop()?;

            let with = time(|| files_of_a_client(lab, "data"))?;
            let without = time(|| files_of_a_client(lab, "plain"))?;
            // Any wait for the absent daemon would cost each of 600 calls at least a time-out. The two are measured one after the
            // other, and the machine may be busy with something else in one of them.
            ensure!(
                with < without * 3 + LIMIT,
                "with vfsx {with:?}, without {without:?}"
            );
            work::work(lab, "data", 0, &mut |_| {})?;

            lab.vfsxd.start()?;
            let gap = lab.status()?.get("gap").cloned().unwrap_or_default();
            ensure!(
                gap.get("since").is_some_and(Value::is_string),
                "no gap with a beginning in the status: {gap}"
            );
            // Once the site is connected.
            let state = || {
                let status = lab.site_status("site1").ok()?;
                (status.get("state").and_then(Value::as_str) == Some("gap")).then_some(())
            };
            wait::until("state gap", LIMIT, state, || {
                format!("{:?}", lab.site_status("site1"))
            })?;

            lab.vfsxctl(&["sync"])?;
            lab.check_no_gap().context("after a sync")?;
            lab.settle()?;
            lab.check_replica("site1")
        },
    );
}

fn time(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

fn files_of_a_client(lab: &TestLab, share: &str) -> Result<()> {
    let mut session = Session::connect(lab, share)?;
    for number in 0..200 {
        session.put(&format!("alone-{number}"), b"nobody is listening")?;
    }
    Ok(())
}

#[test]
fn a_share_with_content_is_brought_over_while_clients_write() {
    with_lab(
        |options| options.vfsxd = false,
        |lab| {
            let tree = lab.source_tree(1200, 40)?;
            move_in(&tree.dir, lab.share("data")?)?;
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let clients = scope.spawn(|| write_until(lab, &over));
                let brought = lab.vfsxd.start().and_then(|()| lab.settle());
                over.store(true, Ordering::Relaxed);
                clients
                    .join()
                    .map_err(|_| anyhow::anyhow!("a client panicked"))??;
                brought
            })?;
            lab.settle()?;
            lab.check_no_gap()?;
            lab.check_replica("site1")
        },
    );
}

/// Local content that no client wrote, with the share's owner.
fn move_in(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::rename(entry.path(), to.join(entry.file_name()))?;
    }
    give_to_user(to)
}

/// New files, changed files, renamed and deleted ones, in the middle of what is being brought over.
fn write_until(lab: &TestLab, over: &AtomicBool) -> Result<()> {
    let client = SmbClient::new(lab, "data");
    let mut session = Session::connect(lab, "data")?;
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        let name = format!("part-{}/live-{number}", number % 4);
        let handle = session.create(&name, "create")?;
        session.fill(handle, 0, 100_000, number)?;
        if number % 3 == 0 {
            session.rename_open(handle, &format!("{name}-renamed"), false)?;
        }
        session.close(handle)?;
        if number % 10 == 0 {
            client.run(&[
                format!("rename part-{0} moved-{0}", number % 4),
                format!("rename moved-{0} part-{0}", number % 4),
            ])?;
        }
        number += 1;
    }
    ensure!(
        number > 3,
        "the share was brought over before the clients did anything"
    );
    Ok(())
}

#[test]
fn local_changes_are_found_by_a_sync() {
    with_lab(
        |_| {},
        |lab| {
            lab.source_tree(200, 4)?.copy_in(lab, "data")?;
            lab.settle()?;
            let share = lab.share("data")?;
            fs::write(share.join("local"), "written past smbd")?;
            fs::rename(share.join("part-0"), share.join("renamed past smbd"))?;
            lab.vfsxctl(&["sync"])?;
            lab.settle()?;
            lab.check_replica("site1")
        },
    );
}
