//! Runs tables of actions on one lab, once for each way that smbd may be set up.

use crate::client::Client;
use crate::disk::Disk;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use vfsx_tests::lab::{Mode, SambaOptions};
use vfsx_tests::smb::{Session, Unix1};
use vfsx_tests::testlab::TestLab;

/// One thing that a client can do.
pub struct Action {
    /// Its directory has this name.
    pub name: &'static str,
    /// What must be there before; it is at the site when `act` begins, so that nothing but the action's own events can bring
    /// the action over.
    pub before: fn(&mut Client<'_>) -> Result<()>,
    pub act: fn(&mut Client<'_>) -> Result<()>,
    /// That it truly happened on the server's disk.
    pub happened: fn(&Disk) -> Result<()>,
    /// Calls of smbd's VFS that it must have led to: it may look the same on the disk when it took another way.
    pub calls: &'static [&'static str],
}

/// Nothing must be there before.
pub const NOTHING: fn(&mut Client<'_>) -> Result<()> = |_| Ok(());

/// A way to set up smbd, and what is done with it.
pub struct Stage {
    /// The directory of its actions has this name.
    name: &'static str,
    objects: &'static str,
    global: &'static [&'static str],
    share: &'static [&'static str],
    actions: &'static [&'static [Action]],
}

impl Stage {
    pub const fn new(
        name: &'static str,
        objects: &'static str,
        actions: &'static [&'static [Action]],
    ) -> Self {
        Self {
            name,
            objects,
            global: &[],
            share: &[],
            actions,
        }
    }

    pub const fn global(self, global: &'static [&'static str]) -> Self {
        Self { global, ..self }
    }

    pub const fn share(self, share: &'static [&'static str]) -> Self {
        Self { share, ..self }
    }
}

/// This protocol is off by default.
pub const SMB1: &str = "server min protocol = NT1";
/// The module that logs every call. Where a stage has it, the calls of its actions are checked.
const AUDIT: &str = "full_audit";
/// The result of a call that a thread goes on with.
const IN_PROGRESS: &str = "Operation now in progress";
/// What every line of that module begins with.
const AUDIT_MARK: &str = "vfsx-test-audit";
/// The callbacks of the module under test.
const HOOKS: &str = include_str!("../../../vfsx-module/src/ffi/mod.rs");
/// Mutations that the module has no callback for, since they come back as others.
const OTHER_CALLS: [&str; 2] = ["durable_disconnect", "durable_reconnect"];

/// What the module under test is called for.
pub fn hooks() -> BTreeSet<&'static str> {
    let lines = HOOKS
        .lines()
        .filter_map(|line| line.trim().split_once("_fn: Some("));
    lines.map(|(name, _)| name).collect()
}

/// Runs every action of the stages in that mode, and compares everything at the end. Returns the calls that were seen. `directories` is how
/// many the share has at the start.
pub fn run(lab: &TestLab, stages: &[Stage], mode: Mode, directories: u64) -> Result<BTreeSet<String>> {
    let mut seen = BTreeSet::new();
    for stage in stages {
        let calls = stage
            .run(lab, mode)
            .with_context(|| format!("stage {}", stage.name))?;
        seen.extend(calls);
    }
    lab.settle()?;
    lab.check_captured(directories)?;
    lab.check_replica("site1")?;
    Ok(seen)
}

impl Stage {
    fn run(&self, lab: &TestLab, mode: Mode) -> Result<BTreeSet<String>> {
        lab.restart_samba(&self.options(mode))?;
        let mut session = Session::connect(lab, "data")?;
        let mut other = Session::connect(lab, "data")?;
        let smb1 = self.global.contains(&SMB1);
        let mut unix1 = smb1.then(|| Unix1::connect(lab, "data")).transpose()?;
        let mut client = Client {
            lab,
            session: &mut session,
            other: &mut other,
            unix1: unix1.as_mut(),
            dir: self.name.to_owned(),
        };
        client.folder("")?;
        let mut names = BTreeSet::new();
        for action in self.actions() {
            ensure!(
                names.insert(action.name),
                "two actions are called {}",
                action.name
            );
            client.dir = self.dir(action);
            let prepared = client.folder("").and_then(|()| (action.before)(&mut client));
            prepared.with_context(|| format!("before {}", action.name))?;
        }
        lab.settle()?;
        lab.wait_for_mode(mode)?;
        let mut log = AuditLog::open(lab)?;
        let mut seen = BTreeSet::new();
        for action in self.actions() {
            client.dir = self.dir(action);
            self.one(action, &mut client, &mut log, &mut seen)
                .with_context(|| action.name)?;
        }
        Ok(seen)
    }

    fn one(
        &self,
        action: &Action,
        client: &mut Client<'_>,
        log: &mut AuditLog,
        seen: &mut BTreeSet<String>,
    ) -> Result<()> {
        log.calls()?;
        (action.act)(client)?;
        let disk = Disk {
            dir: client.disk("")?,
        };
        (action.happened)(&disk).context("it did not happen")?;
        if self.is_audited() {
            let calls = log.calls()?;
            let missing: Vec<_> = action
                .calls
                .iter()
                .filter(|call| !calls.contains(**call))
                .collect();
            ensure!(missing.is_empty(), "smbd did not call {missing:?}, but {calls:?}");
            seen.extend(calls);
        }
        Ok(())
    }

    fn actions(&self) -> impl Iterator<Item = &'static Action> {
        self.actions.iter().flat_map(|table| table.iter())
    }

    fn dir(&self, action: &Action) -> String {
        format!("{}/{}", self.name, action.name.replace(' ', "-"))
    }

    fn is_audited(&self) -> bool {
        self.objects.split(' ').any(|object| object == AUDIT)
    }

    fn options(&self, mode: Mode) -> SambaOptions {
        let lines = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
        let mut options = SambaOptions::with_objects(self.objects);
        options.mode = mode;
        options.global = lines(self.global);
        options.share = lines(self.share);
        if self.is_audited() {
            let calls: Vec<_> = hooks().into_iter().chain(OTHER_CALLS).collect();
            options.share.extend([
                format!("{AUDIT}:prefix = {AUDIT_MARK}"),
                format!("{AUDIT}:success = {}", calls.join(" ")),
                format!("{AUDIT}:failure = {}", calls.join(" ")),
                format!("{AUDIT}:syslog = no"),
            ]);
        }
        options
    }
}

/// What smbd logs of its calls.
struct AuditLog {
    path: PathBuf,
    file: File,
}

impl AuditLog {
    fn open(lab: &TestLab) -> Result<Self> {
        let path = lab.smbd.log.clone();
        let mut file = File::open(&path).with_context(|| path.display().to_string())?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { path, file })
    }

    /// Names of the calls since the last look, also of those that failed; with `later` behind it when one went on after its return.
    fn calls(&mut self) -> Result<BTreeSet<String>> {
        let mut text = Vec::new();
        self.file
            .read_to_end(&mut text)
            .with_context(|| self.path.display().to_string())?;
        let text = String::from_utf8_lossy(&text);
        let marked = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix(AUDIT_MARK));
        let mut calls = BTreeSet::new();
        for line in marked {
            let mut fields = line.split('|').skip(1);
            let Some(name) = fields.next() else { continue };
            calls.insert(name.to_owned());
            if fields.next().is_some_and(|result| result.contains(IN_PROGRESS)) {
                calls.insert(format!("{name} later"));
            }
        }
        Ok(calls)
    }
}
