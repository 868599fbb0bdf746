//! What vfsxd missed comes to the site without anyone's help: after a gap, after a stop of the machine, and by schedule.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use vfsx_tests::testlab::{TestLab, with_lab};
use vfsx_tests::wait;
use vfsx_tests::work;

const SITE: &str = "site1";
const LIMIT: Duration = Duration::from_secs(90);

/// Long enough that the test sees the gap first.
const SOON: &str = "after_gap = \"5s\"";

fn gap_is_closed(lab: &TestLab) -> Result<Value> {
    let closed = || {
        let status = lab.status().ok()?;
        (status.get("gap") == Some(&Value::Null)).then_some(status)
    };
    wait::until("the gap is closed", LIMIT, closed, || {
        format!("{:?}", lab.status())
    })
}

#[test]
fn a_gap_of_an_absent_vfsxd_closes_itself_and_the_site_equals_the_share() {
    with_lab(
        |options| {
            options.reconcile = Some(SOON.into());
            options.samba.share.push("vfsx:spool = no".into());
        },
        |lab| {
            lab.source_tree(300, 10)?.copy_in(lab, "data")?;
            lab.settle()?;
            lab.vfsxd.kill9()?;
            work::work(lab, "data", 0, &mut |_| {})?;
            // Local content that differs from what the site has, which no event will ever tell.
            fs::write(lab.share("data")?.join("untold"), "while nobody looked")?;

            lab.vfsxd.start()?;
            let status = lab.status()?;
            let gap = status.get("gap").cloned().unwrap_or_default();
            ensure!(
                gap.get("since").is_some_and(Value::is_string),
                "who looks right after the outage sees the gap: {status}"
            );
            let status = gap_is_closed(lab)?;
            for key in ["since", "reason"] {
                let remembered = status.pointer(&format!("/reconcile/last_gap/{key}"));
                ensure!(remembered == gap.get(key), "{key} of {gap}: {status}");
            }
            lab.settle()?;
            lab.check_replica(SITE)
        },
    );
}

#[test]
fn a_stop_of_the_machine_is_a_gap_that_closes_itself_and_a_kill_of_vfsxd_is_none() {
    with_lab(
        |options| options.reconcile = Some(SOON.into()),
        |lab| {
            lab.source_tree(300, 10)?.copy_in(lab, "data")?;
            lab.settle()?;
            lab.vfsxd.kill9()?;
            lab.vfsxd.start()?;
            lab.settle()?;
            lab.check_captured(1).context("after a kill of vfsxd alone")?;

            // All ends at once, and on disk is not what vfsxd has read.
            let file = first_file(lab)?;
            lab.vfsxd.kill9()?;
            lab.smbd.kill9()?;
            let content = fs::read(&file)?;
            fs::write(&file, content.iter().map(|byte| !byte).collect::<Vec<_>>())?;
            on_another_boot(lab)?;
            lab.start_smbd()?;
            lab.vfsxd.start()?;
            let status = lab.status()?;
            ensure!(
                status.pointer("/gap/reason").and_then(Value::as_str)
                    == Some("the machine stopped, and not all that was changed before is known"),
                "no gap: {status}"
            );
            gap_is_closed(lab)?;
            lab.settle()?;
            lab.check_replica(SITE)
        },
    );
}

fn first_file(lab: &TestLab) -> Result<PathBuf> {
    let share = lab.share("data")?;
    let (files, _) = work::walk(share)?;
    let mut paths = files.iter().map(|file| share.join(file));
    let file = paths.find(|file| fs::metadata(file).is_ok_and(|file| file.len() > 1000));
    file.context("the share has no file with content")
}

/// As if the machine had been started since.
fn on_another_boot(lab: &TestLab) -> Result<()> {
    let path = lab.dir().join("vfsxd/boot");
    let mut mark: Value = serde_json::from_slice(&fs::read(&path)?)?;
    *mark.get_mut("boot").context("no boot in the mark")? = "another".into();
    Ok(fs::write(&path, mark.to_string())?)
}

#[test]
fn local_writers_are_found_by_schedule() {
    with_lab(
        |options| options.reconcile = Some("every = \"2s\"".into()),
        |lab| {
            lab.source_tree(200, 4)?.copy_in(lab, "data")?;
            lab.settle()?;
            let share = lab.share("data")?;
            fs::write(share.join("local"), "written past smbd")?;
            fs::rename(share.join("part-0"), share.join("renamed past smbd"))?;
            let file = first_file(lab)?;
            let known = fs::metadata(&file)?.modified()?;
            let content = fs::read(&file)?;
            fs::write(&file, content.iter().map(|byte| !byte).collect::<Vec<_>>())?;
            fs::File::options().write(true).open(&file)?.set_modified(known)?;

            let arrived = || {
                // While it is looked at, the next scan may be under way.
                lab.settle().ok()?;
                lab.check_replica(SITE).ok()
            };
            wait::until("the local changes at the site", LIMIT, arrived, || {
                format!("{:?}", lab.check_replica(SITE))
            })
        },
    );
}
