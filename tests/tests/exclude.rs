//! Names that are not replicated (`vfsx:exclude`), and files that get such a name or lose it.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;
use vfsx_tests::compare::{self, Aspect};
use vfsx_tests::lab::LabOptions;
use vfsx_tests::rpc::Rpc;
use vfsx_tests::smb::{Session, SmbClient};
use vfsx_tests::testlab::{TestLab, with_lab};
use vfsx_tests::wait;

const PATTERNS: &str = "/~$*/*.tmp/.cache/";
/// smbd reads its configuration again, a scan runs.
const CHANGED_WITHIN: Duration = Duration::from_secs(30);

fn with_patterns(test: impl FnOnce(&TestLab) -> Result<()>) {
    let options = |options: &mut LabOptions| {
        options.samba.share = vec![format!("vfsx:exclude = {PATTERNS}")];
    };
    with_lab(options, |lab| {
        wait_for_patterns(lab, PATTERNS)?;
        lab.settle()?;
        test(lab)
    });
}

/// vfsxd hears of them with the first client that connects.
fn wait_for_patterns(lab: &TestLab, patterns: &str) -> Result<()> {
    let look = || {
        SmbClient::new(lab, "data").run(&["ls"]).ok()?;
        let status = lab.status().ok()?;
        (status.get("exclude").and_then(Value::as_str) == Some(patterns)).then_some(())
    };
    wait::until("the patterns in the status", CHANGED_WITHIN, look, || {
        format!("{:?}", lab.status())
    })
}

/// The replica has all that is on the share but these, and nothing else.
fn check_all_but(lab: &TestLab, excluded: &[&str]) -> Result<()> {
    lab.settle()?;
    let out = tempfile::tempdir()?;
    let out = out.path().join("tree");
    lab.site("site1")?.restore(None, &out)?;
    let report = compare::compare(lab.share("data")?, &out, &compare::Options::default())?;
    let missing: BTreeSet<&str> = report
        .differences
        .iter()
        .filter(|difference| difference.aspect == Aspect::OnlyA)
        .map(|difference| difference.path.as_str())
        .collect();
    let expected: BTreeSet<&str> = excluded.iter().copied().collect();
    ensure!(
        missing == expected && report.total() == expected.len() as u64,
        "only {expected:?} may be missing:\n{report}"
    );
    lab.check_no_gap()?;
    lab.wait_for_state("site1", "in-sync", CHANGED_WITHIN)
}

#[test]
fn files_that_lose_an_excluded_name_are_replicated_whole_and_those_that_get_one_are_gone() {
    with_patterns(|lab| {
        let client = SmbClient::new(lab, "data");
        let mut session = Session::connect(lab, "data")?;
        client.run(&["mkdir .cache", "mkdir .cache\\deep", "mkdir docs"])?;
        session.put(".cache/deep/file", b"cached")?;
        session.put("docs/~$report.docx", b"owner")?;
        session.put("docs/UPPER.TMP", b"temporary")?;
        session.put("docs/report.docx", &[1; 300_000])?;
        session.put("docs/other", b"other")?;
        check_all_but(lab, &[".cache", "docs/~$report.docx", "docs/UPPER.TMP"])?;

        // As Office saves: the content is written under another name, by a handle that stays open.
        let open = session.create("docs/x.tmp", "create")?;
        session.fill(open, 0, 500_000, 1)?;
        session.rename_open(open, "docs/report.docx", true)?;
        session.fill(open, 100_000, 5_000, 2)?;
        check_all_but(lab, &[".cache", "docs/~$report.docx", "docs/UPPER.TMP"])?;
        session.fill(open, 490_000, 50_000, 3)?;
        session.close(open)?;

        // The same with a rename by another smbd process, which knows nothing of the handle.
        let mut other = Session::connect(lab, "data")?;
        let open = session.create("docs/y.tmp", "create")?;
        session.fill(open, 0, 400_000, 4)?;
        rename_over(&mut other, "docs/y.tmp", "docs/report.docx")?;
        session.fill(open, 200_000, 5_000, 5)?;
        check_all_but(lab, &[".cache", "docs/~$report.docx", "docs/UPPER.TMP"])?;

        // And back: what is open gets an excluded name, the file that was there is replaced.
        rename_over(&mut other, "docs/other", "docs/~$report.docx")?;
        session.rename_open(open, "docs/z.tmp", false)?;
        session.fill(open, 0, 100_000, 6)?;
        client.run(&["rename .cache kept", "rename docs .cache"])?;
        check_all_but(lab, &[".cache"])?;
        session.close(open)?;
        client.run(&["rename .cache docs"])?;
        check_all_but(lab, &["docs/~$report.docx", "docs/UPPER.TMP", "docs/z.tmp"])?;

        let mut rpc = Rpc::connect(lab.site("site1")?)?;
        let kept = rpc.read("kept/deep/file", 100)?;
        ensure!(kept.as_deref() == Some(b"cached"), "{kept:?}");
        ensure!(rpc.read("docs/other", 100)?.is_none() && rpc.read("docs/report.docx", 100)?.is_none());
        let walked = lab.status()?;
        let walked = walked.pointer("/scan/directories").and_then(Value::as_u64);
        ensure!(walked <= Some(1), "the share was scanned: {walked:?}");
        Ok(())
    });
}

fn rename_over(session: &mut Session, from: &str, to: &str) -> Result<()> {
    let handle = session.create(from, "open")?;
    session.rename_open(handle, to, true)?;
    session.close(handle)
}

#[test]
fn other_patterns_take_in_what_was_left_out_and_drop_what_was_not() {
    with_patterns(|lab| {
        let mut session = Session::connect(lab, "data")?;
        SmbClient::new(lab, "data").run(&["mkdir .cache", "mkdir logs"])?;
        for name in [".cache/a", "b.tmp", "logs/c.log", "logs/d"] {
            session.put(name, name.as_bytes())?;
        }
        check_all_but(lab, &[".cache", "b.tmp"])?;

        let changed = "/*.LOG/.cache/";
        let conf = &lab.description.smb.conf;
        let text = fs::read_to_string(conf)?;
        ensure!(text.contains(PATTERNS), "{text}");
        fs::write(conf, text.replace(PATTERNS, changed))?;
        kill(lab.smbd.pid().context("smbd runs")?, Signal::SIGHUP)?;
        wait_for_patterns(lab, changed)?;
        check_all_but(lab, &[".cache", "logs/c.log"])?;

        // They are vfsxd's own by now, and an older client that comes back does not bring the old ones.
        lab.vfsxd.restart()?;
        session.put("e.tmp", b"taken in")?;
        session.put("e.log", b"left out")?;
        check_all_but(lab, &[".cache", "logs/c.log", "e.log"])?;
        let status = lab.status()?;
        ensure!(
            status.get("exclude").and_then(Value::as_str) == Some(changed),
            "{status}"
        );
        let text = lab.vfsxctl(&["status"])?;
        ensure!(text.contains(changed), "{text}");
        Ok(())
    });
}
