//! The machine loses power: processes end at once, and what was not synced is gone.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Duration;
use vfsx_tests::lab::give_to_user;
use vfsx_tests::smb::Session;
use vfsx_tests::testlab::{TestLab, with_lab};
use vfsx_tests::wait;

/// Longer than anything takes on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Row "machine loses power". What journals and stores keep of it is shown by tests of their own, call by call; here it is that a
/// start after another boot looks for what the share's disk has kept and the journal has not.
#[test]
fn machine_loses_power_and_what_the_journal_lacks_is_found_by_itself() {
    with_lab(
        |options| options.reconcile = Some("after_gap = \"1s\"".into()),
        |lab| {
            let mut session = Session::connect(lab, "data")?;
            session.put("changed", &[1; 100_000])?;
            session.put("unchanged", &[2; 100_000])?;
            lab.settle()?;
            lab.vfsxd.kill9()?;
            lab.smbd.kill9()?;
            drop(session);
            lose(lab)?;
            of_another_boot(lab)?;
            lab.vfsxd.start()?;
            lab.start_smbd()?;
            let closed = || lab.check_no_gap().is_ok().then_some(());
            wait::until("the gap is closed", LIMIT, closed, || {
                format!("{:?}", lab.status())
            })?;
            lab.settle()?;
            lab.check_replica("site1")?;

            // A start in the same boot has nothing to look for.
            lab.vfsxd.kill9()?;
            fs::write(lab.share("data")?.join("past smbd"), "unseen")?;
            lab.vfsxd.start()?;
            lab.settle()?;
            ensure!(lab.check_replica("site1").is_err(), "every start scans the share");
            Ok(())
        },
    );
}

/// Changes whose events did not reach the journal's disk.
fn lose(lab: &TestLab) -> Result<()> {
    let share = lab.share("data")?;
    fs::write(share.join("new"), "not in the journal")?;
    give_to_user(&share.join("new"))?;
    let file = fs::File::options().write(true).open(share.join("changed"))?;
    let times = file.metadata()?;
    file.write_all_at(&[9; 50], 70_000)?;
    // Only its ctime tells.
    let times = fs::FileTimes::new()
        .set_modified(times.modified()?)
        .set_accessed(times.accessed()?);
    Ok(file.set_times(times)?)
}

fn of_another_boot(lab: &TestLab) -> Result<()> {
    let path = lab.dir().join("vfsxd/boot");
    let known = fs::read(&path).context("vfsxd does not keep which boot it ran in")?;
    let mut mark: Value = serde_json::from_slice(&known)?;
    *mark.get_mut("boot").context("no boot in the mark")? = "another".into();
    Ok(fs::write(&path, mark.to_string())?)
}
