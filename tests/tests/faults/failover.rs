//! The file server comes back after another one has taken its place.

use super::{NOTICED_WITHIN, number};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use vfsx_tests::lab::{Lab, LabOptions};
use vfsx_tests::smb::Session;
use vfsx_tests::testlab::{TestLab, with_lab};
use vfsx_tests::wait;

/// As an admin does whose file server is gone: its bucket is released, and another server with the restored files goes on with it.
const RELEASE: [&str; 4] = ["bucket", "set", "data", "--release-source"];

/// Row "old primary comes back after a failover".
#[test]
fn old_primary_comes_back_after_a_failover_is_fenced_and_keeps_its_journal() {
    let without_vfsxd = |options: &mut LabOptions| options.vfsxd = false;
    with_lab(
        |_| {},
        |old| {
            let mut of_old = Session::connect(old, "data")?;
            of_old.put("before", b"on both servers")?;
            old.settle()?;
            old.wait_for_state("site1", "in-sync", NOTICED_WITHIN)?;
            old.vfsxd.kill9()?;
            let result = std::cell::Cell::new(None);
            with_lab(without_vfsxd, |new| {
                result.set(Some(fails_over(old, &mut of_old, new)));
                Ok(())
            });
            result.take().context("the new server was not started")??;

            // The new server is given up: what the old one has kept is brought back.
            old.site("site1")?.restfs(&RELEASE)?;
            old.vfsxctl(&["resume"])?;
            old.settle()?;
            old.wait_for_state("site1", "in-sync", NOTICED_WITHIN)?;
            old.check_no_gap()?;
            old.check_replica("site1")
        },
    );
}

fn fails_over(old: &TestLab, of_old: &mut Session, new: &TestLab) -> Result<()> {
    let site = old.site("site1")?;
    let share = new.share("data")?;
    fs::remove_dir(share)?;
    site.restore(None, share)?;
    use_site_of(new, old)?;
    site.restfs(&RELEASE)?;
    new.vfsxd.start()?;
    let mut of_new = Session::connect(new, "data")?;
    of_new.put("after", b"on the new server")?;
    new.settle()?;
    old.check_point("site1", None, share)?;

    old.vfsxd.start()?;
    of_old.put("late", b"on the old server")?;
    for _ in 0..2 {
        old.wait_for_state("site1", "fenced", NOTICED_WITHIN)?;
        let status = old.site_status("site1")?;
        let said = status["last_error"].as_str().unwrap_or_default();
        ensure!(said.contains("--release-source"), "no advice in {status}");
        let is_kept = || (number(&old.site_status("site1").ok()?, "/pending_ops").ok()? > 0).then_some(());
        let why = || format!("{:?}", old.site_status("site1"));
        wait::until("a change that waits", NOTICED_WITHIN, is_kept, why)?;
        let settled = old.vfsxctl_output(&["settle", "--timeout", "20s"])?;
        ensure!(!settled.status.success(), "it is said to be at the site");
        old.vfsxd.restart()?;
    }
    of_new.put("after that", b"on the new server")?;
    new.settle()?;
    old.check_point("site1", None, share)
}

/// The same bucket, too.
fn use_site_of(new: &Lab, old: &Lab) -> Result<()> {
    let read = |lab: &Lab| fs::read_to_string(&lab.description.vfsxd.config);
    let (text, other) = (read(new)?, read(old)?);
    let site = |text: &str| text.find("[[site]]").context("a site");
    let (own, given) = (site(&text)?, site(&other)?);
    write(
        &new.description.vfsxd.config,
        &format!("{}{}", &text[..own], &other[given..]),
    )
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())
}
