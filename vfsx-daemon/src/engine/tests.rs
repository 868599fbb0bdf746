//! The whole daemon but for the site, with a fake module: events in, catalog, settle, sync, status, control.

use super::{Engine, SettleError, report};
use crate::config::Config;
use crate::control::{ControlServer, Done, Reply, Request};
use crate::intake::tests::module::Module;
use crate::intake::tests::{PATIENCE, until};
use crate::status::{ShareReport, StatusReport};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::Instant;
use vfsx_proto::{DirRef, Event, NodeKind, NodeRef, Stamped, ToDaemon, ToModule};

/// A port that nothing listens on.
const NOWHERE: &str =
    "[[site]]\nname = \"nowhere\"\nurl = \"ws://127.0.0.1:1\"\ntoken_file = \"DIR/token\"\n";

/// No gap is closed without being asked for.
const LEFT_OPEN: &str = "[reconcile]\nafter_gap = \"never\"\n";
const CLOSED_SOON: &str = "[reconcile]\nafter_gap = \"1s\"\n";

struct Fixture {
    directory: tempfile::TempDir,
    engine: Engine,
}

impl Fixture {
    async fn new(sites: &str) -> Self {
        let directory = tempfile::tempdir().expect("scratch");
        let path = directory.path();
        fs::create_dir(path.join("share")).expect("makes");
        fs::write(path.join("share/before"), "content from before").expect("writes");
        fs::write(path.join("token"), "restfs_1_secret").expect("writes");
        let text = format!(
            "state_dir = \"DIR/state\"\nsocket = \"DIR/socket\"\ncontrol = \"DIR/control\"\n\
             [[share]]\nname = \"data\"\npath = \"DIR/share\"\n{sites}"
        );
        fs::write(
            path.join("vfsxd.toml"),
            text.replace("DIR", &path.display().to_string()),
        )
        .expect("writes");
        let engine = Engine::start(&load(path), None).await.expect("starts");
        Self { directory, engine }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// As after `kill -9`, but that the catalog's threads have to be ended: a process would take them along.
    async fn kill_and_restart(self) -> Self {
        let Self { directory, engine } = self;
        for share in engine.shares() {
            tokio::task::block_in_place(|| share.catalog().stop());
        }
        drop(engine);
        let engine = Engine::start(&load(directory.path()), None)
            .await
            .expect("starts again");
        Self { directory, engine }
    }

    async fn module(&self, session: u8) -> (Module, u64) {
        Module::welcome(&self.path("socket"), session).await
    }

    /// As a module that has lost changes.
    fn flag_gap(&self) {
        fs::create_dir_all(self.path("state/gaps/data")).expect("makes");
        let flag = self.path("state/gaps/data/aa");
        let line = r#"{"since_ns":1700000000000000000,"reason":"DaemonAbsent","pid":1}"#;
        fs::write(flag.with_extension("new"), line).expect("writes");
        fs::rename(flag.with_extension("new"), &flag).expect("renames");
    }

    async fn until(&self, reached: impl Fn(&ShareReport) -> bool) -> ShareReport {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let report = self.report().await;
            if reached(&report) {
                return report;
            }
            assert!(Instant::now() < deadline, "waited in vain: {report:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn report(&self) -> ShareReport {
        report(self.engine.shares()).await.shares.remove(0)
    }

    /// Settles while the module answers.
    async fn settle(&self, module: &mut Module) -> u64 {
        let share = self.engine.shares()[0].clone();
        let settle = tokio::spawn(async move { share.settle(None, Instant::now() + PATIENCE, |_| ()).await });
        loop {
            match module.receive().await {
                ToModule::SendNow { token } => break module.send(&ToDaemon::Sent { token }).await,
                ToModule::Ack { .. } => {}
                other => panic!("unexpected {other:?}"),
            }
        }
        settle.await.expect("runs").expect("settles").journal
    }
}

fn load(directory: &Path) -> Config {
    Config::load(&directory.join("vfsxd.toml")).expect("is right")
}

fn node(path: &Path) -> NodeRef {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let stat = statx(CWD, path, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME).expect("is there");
    NodeRef {
        dev: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
        ino: stat.stx_ino,
        btime_ns: stat.stx_btime.tv_sec * 1_000_000_000 + i64::from(stat.stx_btime.tv_nsec),
    }
}

/// What a module says of a new file with content.
fn creation(share: &Path, name: &str, first: u64) -> Vec<Stamped> {
    let node_of_file = node(&share.join(name));
    let dir = DirRef {
        node: node(share),
        path_hint: Vec::new(),
    };
    let events = [
        Event::Create {
            dir,
            name: name.into(),
            node: node_of_file,
            kind: NodeKind::File,
        },
        Event::Opened {
            handle: first,
            node: node_of_file,
            path_hint: name.into(),
        },
        Event::Dirty {
            handle: first,
            node: node_of_file,
            path_hint: name.into(),
            ranges: Vec::new(),
            whole: true,
        },
        Event::Closed {
            handle: first,
            node: node_of_file,
        },
    ];
    let stamp = |(at, event)| Stamped {
        sequence: first + at,
        time_ns: crate::intake::now_ns(),
        began_ns: crate::journal::monotonic_ns(),
        event,
    };
    (0..).zip(events).map(stamp).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_modules_report_is_in_the_catalog_after_settle_and_content_from_before_too() {
    let fixture = Fixture::new("").await;
    let (mut module, _) = fixture.module(1).await;
    fs::write(fixture.path("share/new"), "new content").expect("writes");
    module
        .send(&ToDaemon::Events(creation(&fixture.path("share"), "new", 1)))
        .await;
    let journal = fixture.settle(&mut module).await;
    let report = fixture.report().await;
    let catalog = report.catalog;
    assert_eq!(catalog.objects, 3, "the root, one from before, one new");
    assert!(catalog.covered >= journal && journal >= 5);
    assert_eq!((catalog.dirty_objects, catalog.open_handles), (0, 0));
    assert_eq!(report.gap, None);
    fixture.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_everything_goes_on_without_a_rescan() {
    let fixture = Fixture::new("").await;
    let (mut module, _) = fixture.module(1).await;
    fixture.settle(&mut module).await;
    fs::write(fixture.path("share/new"), "new content").expect("writes");
    module
        .send(&ToDaemon::Events(creation(&fixture.path("share"), "new", 1)))
        .await;
    module.acknowledged(4).await;

    let fixture = fixture.kill_and_restart().await;
    module.assert_closed().await;
    let (mut module, acknowledged) = fixture.module(1).await;
    assert_eq!(acknowledged, 4);
    fixture.settle(&mut module).await;
    let report = fixture.report().await;
    assert_eq!(report.catalog.objects, 3);
    assert_eq!(report.scan.state, "done");
    assert_eq!(report.catalog.bytes_read, 11, "the new file and nothing else");
    assert_eq!(report.gap, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_shown_until_a_sync_has_found_what_was_missed() {
    let fixture = Fixture::new(LEFT_OPEN).await;
    let (mut module, _) = fixture.module(1).await;
    fixture.settle(&mut module).await;
    fs::write(fixture.path("share/missed"), "nobody told").expect("writes");
    fixture.flag_gap();
    // Asking is enough to see it: the flag is looked for first.
    let gap = fixture.report().await.gap.expect("shown");
    assert_eq!(gap.since, "2023-11-14T22:13:20Z");
    let synced = fixture.engine.shares()[0].sync(|_| ()).await.expect("syncs");
    assert!(!synced.gap);
    let report = fixture.report().await;
    assert_eq!(report.gap, None);
    assert_eq!(report.catalog.objects, 3);
    let last = report.reconcile.last_gap.expect("is remembered");
    assert_eq!(last.since, "2023-11-14T22:13:20Z");
    assert!(last.until > last.since, "{last:?}");
    let fixture = fixture.kill_and_restart().await;
    assert_eq!(fixture.report().await.reconcile.last_gap, Some(last));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_closes_itself_after_its_time_and_not_before() {
    let fixture = Fixture::new(CLOSED_SOON).await;
    let (mut module, _) = fixture.module(1).await;
    fixture.settle(&mut module).await;
    fs::write(fixture.path("share/missed"), "nobody told").expect("writes");
    let flagged = Instant::now();
    fixture.flag_gap();
    assert!(fixture.report().await.gap.is_some());
    fixture.until(|report| report.reconcile.next.is_some()).await;
    let next = fixture.report().await.reconcile.next;
    assert!(next.as_ref().is_none_or(|next| next.why == "gap"), "{next:?}");
    let report = fixture.until(|report| report.gap.is_none()).await;
    assert!(flagged.elapsed() >= Duration::from_secs(1));
    assert_eq!(report.catalog.objects, 3);
    assert!(report.reconcile.last_gap.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_not_closed_before_modules_that_are_expected_back_were_heard() {
    let fixture = Fixture::new(CLOSED_SOON).await;
    let (mut module, _) = fixture.module(1).await;
    fixture.settle(&mut module).await;
    fs::write(fixture.path("share/new"), "new content").expect("writes");
    module
        .send(&ToDaemon::Events(creation(&fixture.path("share"), "new", 1)))
        .await;
    module.acknowledged(4).await;
    let fixture = fixture.kill_and_restart().await;
    let restarted = Instant::now();
    fixture.flag_gap();
    let report = fixture.report().await;
    assert!(report.gap.is_some() && report.sessions.awaited == 1, "{report:?}");
    // It waits for the module, which comes back late.
    tokio::time::sleep_until(restarted + Duration::from_secs(3)).await;
    let report = fixture.report().await;
    assert!(report.gap.is_some() && report.scan.state == "done", "{report:?}");
    let (_module, _) = fixture.module(1).await;
    fixture.until(|report| report.gap.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn local_changes_are_found_by_schedule() {
    let fixture = Fixture::new("[reconcile]\nevery = \"1s\"\n").await;
    fixture.until(|report| report.scan.state == "done").await;
    fs::write(fixture.path("share/local"), "nobody tells").expect("writes");
    let report = fixture.until(|report| report.catalog.objects == 3).await;
    assert_eq!(report.gap, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_of_the_machine_is_a_gap_and_a_clean_stop_is_none() {
    let fixture = Fixture::new(LEFT_OPEN).await;
    let (mut module, _) = fixture.module(1).await;
    fixture.settle(&mut module).await;
    let boot = fixture.path("state/boot");
    let other_boot = || {
        let text = fs::read_to_string(&boot).expect("is there while vfsxd runs");
        let mut mark: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        mark["boot"] = "another".into();
        fs::write(&boot, mark.to_string()).expect("writes");
    };
    drop(module);
    fixture.until(|report| report.sessions.connected == 0).await;
    let mut fixture = fixture.kill_and_restart().await;
    assert_eq!(fixture.report().await.gap, None, "vfsxd alone was killed");
    other_boot();
    fixture = fixture.kill_and_restart().await;
    let gap = fixture.report().await.gap.expect("the machine has stopped");
    assert_eq!(
        gap.reason,
        "the machine stopped, and not all that was changed before is known"
    );
    assert_ne!(gap.since, "unknown");
    // The gap is noted; this boot is no other one any more.
    fixture = fixture.kill_and_restart().await;
    fixture.engine.shares()[0].sync(|_| ()).await.expect("syncs");
    assert_eq!(fixture.report().await.gap, None);
    fixture.until(|report| report.sessions.awaited == 0).await;
    let Fixture { directory, engine } = fixture;
    engine.stop().await;
    let engine = Engine::start(&load(directory.path()), None)
        .await
        .expect("starts");
    fixture = Fixture { directory, engine };
    assert_eq!(fixture.report().await.gap, None, "a clean stop");
    let Fixture { directory, engine } = fixture;
    let before = jiff::Timestamp::now();
    engine.stop().await;
    other_boot();
    let engine = Engine::start(&load(directory.path()), None)
        .await
        .expect("starts");
    fixture = Fixture { directory, engine };
    let gap = fixture
        .report()
        .await
        .gap
        .expect("who was killed after the stop left no word");
    assert_eq!(
        gap.reason,
        "the machine stopped, and not all that was changed before is known"
    );
    let since: jiff::Timestamp = gap.since.parse().expect("a time");
    assert!(since >= before, "{since} < {before}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settle_says_which_site_is_missing() {
    let fixture = Fixture::new(NOWHERE).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    let outcome = fixture.engine.shares()[0].settle(None, deadline, |_| ()).await;
    match outcome {
        Err(error @ SettleError::SiteTimeout { .. }) => {
            assert!(error.to_string().contains("nowhere is unreachable"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    let site = fixture.report().await.sites.remove(0);
    assert_eq!(site.state, "unreachable");
    assert!(site.last_error.is_some() && site.rpo_ms != Some(0), "{site:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_survives_a_restart() {
    let fixture = Fixture::new(NOWHERE).await;
    fixture.engine.shares()[0]
        .set_paused(Some("nowhere"), true)
        .expect("pauses");
    let fixture = fixture.kill_and_restart().await;
    let share = fixture.engine.shares()[0].clone();
    let state = || {
        share
            .sites(None)
            .first()
            .map(|site| site.status.borrow().state.as_str())
    };
    until("it is paused", || state() == Some("paused")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_limits_and_says_what_it_cannot_change() {
    let fixture = Fixture::new(NOWHERE).await;
    let old = load(fixture.directory.path());
    let file = fixture.path("vfsxd.toml");
    let text = fs::read_to_string(&file).expect("reads") + "limit = \"5MB/s\"\n";
    fs::write(&file, text.replace("[[share]]", "age = \"2s\"\n[[share]]")).expect("writes");
    let needs = fixture.engine.reload(&old, &load(fixture.directory.path()));
    assert_eq!(needs.len(), 1, "{needs:?}");
    assert!(needs[0].starts_with("age "), "{needs:?}");
    let share = fixture.engine.shares()[0].clone();
    until("the limit is in force", || {
        share
            .sites(None)
            .first()
            .is_some_and(|site| site.status.borrow().limit == Some(5_000_000))
    })
    .await;
}

/// One request on the control socket; the last line.
async fn control(socket: &Path, request: &str) -> Reply {
    let stream = UnixStream::connect(socket).await.expect("connects");
    let (read, mut write) = stream.into_split();
    write
        .write_all(format!("{request}\n").as_bytes())
        .await
        .expect("writes");
    let mut lines = BufReader::new(read).lines();
    let mut last = None;
    while let Some(line) = lines.next_line().await.expect("reads") {
        last = Some(serde_json::from_str(&line).expect("a reply"));
    }
    last.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_socket_answers_and_refuses_in_one_line() {
    let fixture = Fixture::new(NOWHERE).await;
    let socket = fixture.path("control");
    let _server = ControlServer::start(&socket, fixture.engine.shares()).expect("listens");
    let request = serde_json::to_string(&Request::Status {}).expect("encodes");
    let Reply::Done(Done::Status(StatusReport { shares, .. })) = control(&socket, &request).await else {
        panic!("no status");
    };
    assert_eq!(shares[0].name, "data");
    let changed = control(&socket, r#"{"command":"pause","site":"nowhere"}"#).await;
    assert_eq!(
        changed,
        Reply::Done(Done::Changed(vec![("data".into(), "nowhere".into())]))
    );
    for (request, expected) in [
        (r#"{"command":"sync","share":"other"}"#, "data"),
        (r#"{"command":"settle","site":"other","timeout_ms":1}"#, "other"),
        (r#"{"command":"nonsense"}"#, "nonsense"),
        ("nonsense", "request"),
    ] {
        match control(&socket, request).await {
            Reply::Error { text, usage: true } => assert!(text.contains(expected), "{text}"),
            other => panic!("{request}: {other:?}"),
        }
    }
    let settle = control(&socket, r#"{"command":"settle","timeout_ms":3000}"#).await;
    assert!(matches!(settle, Reply::Error { usage: false, .. }), "{settle:?}");
}
