//! Verify: what differs is told by path, what clients do meanwhile is not, and a repair leaves nothing.

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vfsx_tests::lab::{BUCKET, Site};
use vfsx_tests::rpc::Rpc;
use vfsx_tests::smb::Session;
use vfsx_tests::testlab::{TestLab, with_lab};
use vfsx_tests::wait;

const SITE: &str = "site1";
const LIMIT: Duration = Duration::from_secs(30);
/// Blocks of two files, and content that nothing can compress, so that it is in a pack as it is.
const LENGTH: u64 = 100_000;

/// What a verify of share `data` says.
struct Told {
    exit: Option<i32>,
    share: Value,
}

impl Told {
    fn of(lab: &TestLab, arguments: &[&str]) -> Result<Self> {
        let arguments = [&["verify", "data", "--json"], arguments].concat();
        let output = lab.vfsxctl_output(&arguments)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let answer: Value = serde_json::from_slice(&output.stdout).with_context(|| said.clone())?;
        let share = answer.pointer("/shares/0").cloned();
        Ok(Self {
            exit: output.status.code(),
            share: share.with_context(|| format!("{answer}; {said}"))?,
        })
    }

    /// Site, path and kind of everything that was found.
    fn found(&self) -> Vec<(String, String, String)> {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("-").to_owned();
        let all = self.share.pointer("/found/differences").and_then(Value::as_array);
        let each = |d: &Value| (text(d.get("site")), text(d.get("path")), text(d.get("kind")));
        all.into_iter().flatten().map(each).collect()
    }

    fn expect(&self, exit: i32, outcome: &str, found: &[(&str, &str, &str)]) -> Result<()> {
        let mut expected: Vec<_> = found
            .iter()
            .map(|(site, path, kind)| (site.to_string(), path.to_string(), kind.to_string()))
            .collect();
        expected.sort();
        let mut told = self.found();
        told.sort();
        let said = self.share.get("outcome").and_then(Value::as_str);
        ensure!(
            self.exit == Some(exit) && said == Some(outcome) && told == expected,
            "not exit {exit}, {outcome}, {expected:?}: exit {:?}, {:#}",
            self.exit,
            self.share
        );
        Ok(())
    }
}

fn file_of_a_client(lab: &TestLab, name: &str, seed: u64) -> Result<()> {
    let mut session = Session::connect(lab, "data")?;
    let handle = session.create(name, "create")?;
    session.fill(handle, 0, LENGTH, seed)?;
    session.close(handle)
}

/// One byte of the file becomes another one; size and times stay.
fn alter(path: &Path) -> Result<()> {
    let times = path.metadata()?;
    let times = FileTimes::new()
        .set_accessed(times.accessed()?)
        .set_modified(times.modified()?);
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    flip(&file, LENGTH / 2)?;
    file.set_times(times)?;
    Ok(())
}

fn flip(file: &File, at: u64) -> Result<()> {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[!byte[0]], at)?;
    Ok(())
}

/// A finding is shown as long as it is open.
fn open_finding(lab: &TestLab) -> Result<bool> {
    let status = lab.status()?;
    let found = status
        .pointer("/verify/found")
        .context("no verify in the status")?;
    let table = lab.vfsxctl(&["status"])?;
    ensure!(table.contains("last verify: "), "not in the table: {table}");
    Ok(!found.is_null())
}

#[test]
fn a_site_altered_behind_its_back_is_told_by_path_and_brought_back() {
    with_lab(
        |_| {},
        |lab| {
            for (name, seed) in [("kept", 1), ("dropped", 2), ("renamed", 3)] {
                file_of_a_client(lab, name, seed)?;
            }
            lab.settle()?;
            Told::of(lab, &[])?.expect(0, "clean", &[])?;
            ensure!(!open_finding(lab)?);

            // A site takes nothing that does not follow: the first part of a comparison, which the source answers with one of its own, and
            // then the next part of that.
            let epoch = || lab.site_status(SITE).ok()?.get("epoch")?.as_u64();
            let before = epoch().context("no epoch")?;
            alter_tree(lab.site(SITE)?, 1)?;
            let compared = || (epoch()? == before + 2).then_some(());
            wait::until("a comparison", LIMIT, compared, String::new)?;
            lab.wait_for_state(SITE, "in-sync", LIMIT)?;
            lab.check_replica(SITE)?;
            // Paused, so that the comparison that goes on all the time does not mend it before it is told.
            lab.vfsxctl(&["pause"])?;
            lab.wait_for_state(SITE, "paused", LIMIT)?;
            alter_tree(lab.site(SITE)?, 0)?;
            let expected = [
                (SITE, "/dropped", "missing"),
                (SITE, "/renamed", "missing"),
                (SITE, "/stray", "extra"),
            ];
            Told::of(lab, &[])?.expect(1, "differences", &expected)?;
            ensure!(open_finding(lab)?, "the status does not show it");
            let refused = lab.vfsxctl_output(&["verify", "--repair"])?;
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            ensure!(
                refused.status.code() == Some(1) && said.contains("vfsxctl resume"),
                "{said}"
            );

            lab.vfsxctl(&["resume"])?;
            let repaired = Told::of(lab, &["--repair"])?;
            ensure!(repaired.exit == Some(0), "{:#}", repaired.share);
            Told::of(lab, &[])?.expect(0, "clean", &[])?;
            ensure!(!open_finding(lab)?, "a clean one does not take it away");
            lab.settle()?;
            lab.check_replica(SITE)
        },
    );
}

/// More than a comparison of a handful of rows has.
const PARTS: u64 = 10;

/// As the source itself would: one name is dropped, another one leads elsewhere. `epochs_on`: 0 is the next part of the comparison that was the
/// last; how many it had is found by trying.
fn alter_tree(site: &Site, epochs_on: u64) -> Result<()> {
    let mut rpc = Rpc::connect(site)?;
    let mut call =
        |method: &str, params: Value| rpc.call(method, params)?.map_err(|e| anyhow!("{method}: {e}"));
    let info = call("bucket.info", json!({ "bucket": BUCKET }))?;
    let source = info.get("source").context("no source")?;
    let object = json!({ "path": "/renamed" });
    let stat = call("object.stat", json!({ "bucket": BUCKET, "object": object }))?;
    let ops = json!([
        { "drop_entry": { "dir": 1, "name": "dropped" } },
        { "drop_entry": { "dir": 1, "name": "renamed" } },
        { "put_entry": { "dir": 1, "name": "stray", "child": stat.get("id") } },
    ]);
    let epoch = source.get("epoch").and_then(Value::as_u64).context("no epoch")?;
    let mut commit = |part: u64| {
        let params = json!({
            "bucket": BUCKET, "source": source.get("source"), "epoch": epoch + epochs_on,
            "first": part, "last": source.get("sequence"), "resync": true,
            "time": [1_800_000_000, 0], "exact": false, "ops": ops,
        });
        call("replication.commit", params)
    };
    let mut refused = None;
    for part in 1..=PARTS {
        match commit(part) {
            Ok(_) => return Ok(()),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.context("no part")?)
}

#[test]
fn a_block_that_went_bad_at_the_site_is_found_by_a_deep_verify_alone_and_healed() {
    with_lab(
        |_| {},
        |lab| {
            file_of_a_client(lab, "good", 1)?;
            file_of_a_client(lab, "bad", 2)?;
            lab.settle()?;
            let site = lab.site(SITE)?;
            site.service.stop()?;
            let content = fs::read(lab.share("data")?.join("bad"))?;
            damage(site, content.get(1000..1064).context("content")?)?;
            site.service.start()?;
            lab.wait_for_state(SITE, "in-sync", LIMIT)?;

            Told::of(lab, &[])?.expect(0, "clean", &[])?;
            Told::of(lab, &["--deep"])?.expect(1, "differences", &[(SITE, "/bad", "block-damaged")])?;
            // Not in sync: the copy cannot be restored.
            lab.wait_for_state(SITE, "failed", LIMIT)?;
            Told::of(lab, &[])?;
            ensure!(open_finding(lab)?, "a plain one cannot tell that it is mended");

            // The site asks for a block that it knows to be bad, so the comparison that goes on all the time may be quicker.
            let repaired = Told::of(lab, &["--deep", "--repair"])?;
            let outcome = repaired.share.get("outcome").and_then(Value::as_str);
            ensure!(
                repaired.exit == Some(0) && matches!(outcome, Some("mended" | "clean")),
                "{:#}",
                repaired.share
            );
            ensure!(!open_finding(lab)?);
            lab.wait_for_state(SITE, "in-sync", LIMIT)?;
            // From the disk, not from what the server has in memory.
            site.service.restart()?;
            Told::of(lab, &["--deep"])?.expect(0, "clean", &[])?;
            lab.check_replica(SITE)
        },
    );
}

#[test]
fn what_only_the_past_needs_comes_from_another_site() {
    with_lab(
        |options| options.sites = 2,
        |lab| {
            file_of_a_client(lab, "file", 1)?;
            lab.settle()?;
            let (site, path) = (lab.site(SITE)?, lab.share("data")?.join("file"));
            let (point, old) = (site.head()?, fs::read(&path)?);
            let mut session = Session::connect(lab, "data")?;
            let handle = session.create("file", "open")?;
            session.fill(handle, 0, LENGTH, 2)?;
            session.close(handle)?;
            lab.settle()?;
            ensure!(fs::read(&path)? != old);

            site.service.stop()?;
            damage(site, old.get(1000..1064).context("content")?)?;
            site.service.start()?;
            lab.wait_for_state(SITE, "in-sync", LIMIT)?;
            let scrub = site.restfs_output(&["scrub", "--now"])?;
            ensure!(scrub.status.code() == Some(1), "{scrub:?}");
            // The newest tree is whole.
            lab.check_replica(SITE)?;

            let restored = || {
                let out = tempfile::tempdir().ok()?;
                let tree = out.path().join("tree");
                site.restore(Some(point), &tree).ok()?;
                (fs::read(tree.join("file")).ok()? == old).then_some(())
            };
            let why = || format!("{:?}", site.restfs_output(&["scrub", "--status"]));
            wait::until("the old content", LIMIT, restored, why)?;
            site.service.restart()?;
            let scrub = site.restfs_output(&["scrub", "--now"])?;
            ensure!(scrub.status.success(), "{scrub:?}");
            restored().context("from the disk")?;
            lab.settle()?;
            lab.check_replica(SITE)
        },
    );
}

/// One bit of what is stored after these bytes.
fn damage(site: &Site, bytes: &[u8]) -> Result<()> {
    let packs = fs::read_dir(site.data_dir().join("blocks/packs"))
        .or_else(|_| fs::read_dir(site.data_dir().join("packs")))?;
    for pack in packs {
        let path = pack?.path();
        let content = fs::read(&path)?;
        if let Some(at) = content.windows(bytes.len()).position(|some| some == bytes) {
            return flip(&OpenOptions::new().read(true).write(true).open(path)?, at as u64);
        }
    }
    Err(anyhow!("the content is in no pack"))
}

#[test]
fn what_was_changed_past_smbd_with_size_and_times_restored_is_found_by_a_deep_verify_alone() {
    with_lab(
        |_| {},
        |lab| {
            for (name, seed) in [("altered", 1), ("chmod", 2), ("lost", 3), ("same", 4)] {
                file_of_a_client(lab, name, seed)?;
            }
            lab.settle()?;
            let share = lab.share("data")?;
            alter(&share.join("altered"))?;
            fs::set_permissions(share.join("chmod"), fs::Permissions::from_mode(0o600))?;
            fs::remove_file(share.join("lost"))?;
            fs::write(share.join("new"), "nobody has told of it")?;
            Told::of(lab, &[])?.expect(0, "clean", &[])?;

            let expected = [
                ("-", "/", "metadata"),
                ("-", "/altered", "content"),
                ("-", "/chmod", "metadata"),
                ("-", "/lost", "extra"),
                ("-", "/new", "missing"),
            ];
            Told::of(lab, &["--deep"])?.expect(1, "differences", &expected)?;
            // Not in sync: it is not the copy of what the share holds.
            lab.wait_for_state(SITE, "gap", LIMIT)?;
            Told::of(lab, &["--deep"])?.expect(1, "differences", &expected)?;

            Told::of(lab, &["--deep", "--repair"])?.expect(0, "mended", &expected)?;
            lab.wait_for_state(SITE, "in-sync", LIMIT)?;
            lab.check_replica(SITE)
        },
    );
}

#[test]
fn what_clients_do_during_a_verify_is_no_difference() {
    with_lab(
        |_| {},
        |lab| {
            lab.source_tree(150, 4)?.copy_in(lab, "data")?;
            lab.settle()?;
            let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
            std::thread::scope(|scope| {
                let clients = [1, 2].map(|seed| {
                    let (over, done) = (&over, &done);
                    scope.spawn(move || work_until(lab, seed, over, done))
                });
                let told = verify_often(lab, &done);
                over.store(true, Ordering::Relaxed);
                for client in clients {
                    client.join().map_err(|_| anyhow!("a client panicked"))??;
                }
                told
            })?;
            lab.settle()?;
            Told::of(lab, &["--deep"])?.expect(0, "clean", &[])?;
            lab.check_replica(SITE)
        },
    );
}

/// As long as clients have not done so much: what a verify is to be confused by.
const CLIENTS_WORK: u64 = 150;

fn verify_often(lab: &TestLab, done: &AtomicU64) -> Result<()> {
    let start = Instant::now();
    while done.load(Ordering::Relaxed) < CLIENTS_WORK {
        ensure!(start.elapsed() < LIMIT * 2, "the clients did next to nothing");
        Told::of(lab, &[])?.expect(0, "clean", &[])?;
        let deep = Told::of(lab, &["--deep", "--rate", "none"])?;
        deep.expect(0, "clean", &[])?;
        ensure!(
            deep.share.get("files").and_then(Value::as_u64) > Some(100)
                && deep.share.get("blocks").and_then(Value::as_u64) > Some(0),
            "nothing was read: {:#}",
            deep.share
        );
    }
    Ok(())
}

/// One file that is always being written, and others that come, change and go.
fn work_until(lab: &TestLab, seed: u64, over: &AtomicBool, done: &AtomicU64) -> Result<()> {
    let mut session = Session::connect(lab, "data")?;
    let always = session.create(&format!("always-{seed}"), "create")?;
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        session.fill(always, number % 10 * 4096, 9000, number)?;
        let name = format!("part-{}/busy-{seed}-{}", number % 4, number % 7);
        let handle = session.create(&name, "overwrite_if")?;
        session.fill(handle, 0, LENGTH, number)?;
        match number % 3 {
            0 => session.rename_open(handle, &format!("{name}-renamed"), true)?,
            1 => session.delete_on_close(handle)?,
            _ => session.truncate(handle, 50_000)?,
        }
        session.close(handle)?;
        number += 1;
        done.fetch_add(1, Ordering::Relaxed);
    }
    session.close(always)
}

#[test]
fn a_verify_on_schedule_finds_it_and_status_and_metrics_show_it() {
    with_lab(
        |_| {},
        |lab| {
            file_of_a_client(lab, "altered", 1)?;
            lab.settle()?;
            alter(&lab.share("data")?.join("altered"))?;
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let config = &lab.description.vfsxd.config;
            let text = fs::read_to_string(config)?;
            fs::write(
                config,
                format!("metrics = \"127.0.0.1:{port}\"\n{text}\n[verify]\ndeep_every = \"1s\"\n"),
            )?;
            lab.vfsxd.restart()?;
            wait::until(
                "the scheduled verify's finding",
                LIMIT,
                || open_finding(lab).ok().filter(|open| *open),
                || format!("{:?}", lab.status()),
            )?;
            let page = metrics(port)?;
            for line in [
                "vfsx_share_verify_open_differences{share=\"data\"} 1",
                "vfsx_share_verify_outcome{share=\"data\",kind=\"deep\",outcome=\"differences\"} 1",
                "vfsx_site_state{share=\"data\",site=\"site1\",state=\"gap\"} 1",
                "vfsx_site_state{share=\"data\",site=\"site1\",state=\"in-sync\"} 0",
            ] {
                ensure!(page.lines().any(|l| l == line), "{line} is not in:\n{page}");
            }
            Ok(())
        },
    );
}

fn metrics(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    Ok(answer)
}
