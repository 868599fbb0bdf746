//! The shares that are compared.

use super::cores::Halves;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;
use vfsx_tests::lab::{Binaries, LabOptions, Mode, Service};
use vfsx_tests::testlab::TestLab;

/// A share, with what is loaded into it. Another one is one more line.
pub(super) struct Column {
    pub(super) name: &'static str,
    vfs_objects: &'static str,
    mode: Mode,
    /// Further lines of the share's section.
    lines: &'static [&'static str],
}

/// The first is what the others are held against.
pub(super) const COLUMNS: &[Column] = &[
    Column {
        name: "without",
        vfs_objects: "",
        mode: Mode::Map,
        lines: &[],
    },
    Column {
        name: "vfsx",
        vfs_objects: "vfsx",
        mode: Mode::Map,
        lines: &[],
    },
    Column {
        name: "vfsx copy",
        vfs_objects: "vfsx",
        mode: Mode::Copy,
        lines: &[],
    },
    Column {
        name: "full_audit",
        vfs_objects: "full_audit",
        mode: Mode::Map,
        lines: AUDIT,
    },
];

/// Every change is logged, as someone does who wants to know what happened to a file. Into smbd's log: a machine may have no
/// syslog.
const AUDIT: &[&str] = &[
    "full_audit:success = connect disconnect create_file mkdirat openat close pwrite pwrite_recv ftruncate fallocate renameat \
     unlinkat linkat fchmod fchown fntimes fsetxattr fremovexattr fset_nt_acl sys_acl_set_fd offload_write_recv",
    "full_audit:failure = none",
    "full_audit:syslog = false",
];
/// NBENCH speaks SMB1.
const GLOBAL: &[&str] = &["server min protocol = NT1"];
/// Half of it is more data than any load writes: in mode copy a share whose journal has no room for data would be measured in
/// mode map.
const JOURNAL: u64 = 8 << 30;
/// The last two work for shares with vfsx only.
pub(super) const SERVERS: [&str; 3] = ["smbd", "vfsxd", "site"];
pub(super) const SHARE: &str = "data";
/// vfsxd logs it when a share goes from one mode to the other.
const CAPTURE_CHANGED: &str = "how changes are captured has changed";

/// A column's lab: an smbd of its own, and with vfsx also vfsxd and a recovery site, since they work on the same machine while
/// the client does.
pub(super) struct Stand {
    column: &'static Column,
    pub(super) lab: TestLab,
}

impl Stand {
    pub(super) fn start(column: &'static Column, binaries: &Binaries, cores: &Halves) -> Result<Self> {
        let mut options = LabOptions::new(binaries.clone());
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        options.samba.vfs_objects = column.vfs_objects.to_owned();
        options.samba.mode = column.mode;
        options.journal_max = Some(JOURNAL);
        options.samba.share = lines(column.lines);
        options.samba.global = lines(GLOBAL);
        options.vfsxd = column.has_module();
        let lab = TestLab::start_with(&options).with_context(|| format!("lab of {}", column.name))?;
        let pid = |service: &Service| service.pid().map(|pid| pid.as_raw());
        pid(&lab.smbd).map_or(Ok(()), |smbd| cores.keep_front(smbd))?;
        let behind = lab.sites.iter().map(|site| &site.service).chain([&lab.vfsxd]);
        for server in behind.filter_map(pid) {
            cores.keep_back(server)?;
        }
        Ok(Self { column, lab })
    }

    pub(super) fn name(&self) -> &'static str {
        self.column.name
    }

    /// The share's directory.
    pub(super) fn dir(&self) -> Result<PathBuf> {
        Ok(self.lab.share(SHARE)?.to_owned())
    }

    /// Does `work`. If the share is to work in mode copy and did not all the time: why.
    pub(super) fn watch_mode<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Option<String>)> {
        if self.column.mode != Mode::Copy {
            return Ok((work()?, None));
        }
        let log = &self.lab.vfsxd.log;
        let (mode, why) = self.lab.mode()?;
        let begin = read(log)?.len();
        let done = work()?;
        let log = read(log)?;
        let said = log.get(begin..).unwrap_or_default();
        Ok((done, map_because(&mode, why, said)))
    }

    /// Processor time so far of each of [`SERVERS`].
    pub(super) fn processor_times(&self) -> Result<[Duration; SERVERS.len()]> {
        let of = |service: &Service| {
            if self.column.has_module() {
                service.processor_time()
            } else {
                Ok(Duration::ZERO)
            }
        };
        let site = self.lab.sites.first().context("the lab has a site")?;
        Ok([
            self.lab.smbd.processor_time()?,
            of(&self.lab.vfsxd)?,
            of(&site.service)?,
        ])
    }

    /// Waits until nothing of the load is left to be done, so that the next does not pay for it.
    pub(super) fn settle(&self) -> Result<()> {
        if self.column.has_module() {
            self.lab.settle()?;
        }
        rustix::fs::sync();
        Ok(())
    }
}

fn read(log: &Path) -> Result<String> {
    std::fs::read_to_string(log).with_context(|| format!("read {}", log.display()))
}

/// Why a share was in mode map, which had this mode before and of which vfsxd has `said` this since. One without a client stays
/// what it was, and turns to copy with the first.
fn map_because(before: &str, why: Option<String>, said: &str) -> Option<String> {
    let changes = |mode: Mode| {
        let mode = format!("mode=\"{}\"", mode.as_str());
        said.lines()
            .find(|line| line.contains(CAPTURE_CHANGED) && line.contains(&mode))
    };
    if let Some(line) = changes(Mode::Map) {
        let why = line.split_once("why=").map_or(line, |(_, why)| why);
        return Some(why.trim().trim_matches('"').to_owned());
    }
    let stayed = before != Mode::Copy.as_str() && changes(Mode::Copy).is_none();
    stayed.then(|| why.unwrap_or_else(|| "no session tells data".to_owned()))
}

impl Column {
    fn has_module(&self) -> bool {
        self.vfs_objects.split_whitespace().any(|word| word == "vfsx")
    }
}

#[cfg(test)]
mod tests {
    use super::map_because;

    #[test]
    fn what_vfsxd_logs_of_the_mode_is_read() {
        let line = |mode, why| {
            format!(
                "2026-11-30T00:00:00.0Z  INFO vfsx_daemon::intake::capture: how changes are captured has changed \
                 share=\"data\" mode=\"{mode}\" why=\"{why}\"\n"
            )
        };
        let because = |before, said: &str| map_because(before, Some("none yet".to_owned()), said);
        let there_and_back = line("map", "there is a gap") + &line("copy", "");
        assert_eq!(
            because("copy", &there_and_back).as_deref(),
            Some("there is a gap")
        );
        assert_eq!(because("copy", ""), None);
        assert_eq!(because("map", "").as_deref(), Some("none yet"));
        assert_eq!(because("map", &line("copy", "")), None);
    }
}
