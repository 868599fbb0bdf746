//! The page: Prometheus' text format, version 0.0.4.

use crate::engine::{Outcome, VerifyResult};
use crate::intake::CaptureMode;
use crate::status::{ShareReport, SiteReport, StatusReport};
use std::fmt::Write;

/// All states that there are: each is a series, 1 for the one that a site is in.
const STATES: [&str; 9] = [
    "initial-sync",
    "in-sync",
    "catching-up",
    "gap",
    "paused",
    "unreachable",
    "full",
    "fenced",
    "failed",
];
const LEVELS: [&str; 3] = ["ok", "low", "full"];
const OUTCOMES: [(&str, Outcome); 4] = [
    ("clean", Outcome::Clean),
    ("differences", Outcome::Differences),
    ("mended", Outcome::Mended),
    ("failed", Outcome::Failed),
];

/// Every number of the status that changes.
pub fn page(report: &StatusReport) -> String {
    let mut page = Page::default();
    page.of_shares(report, "journal_head", "Newest journal record.", |s| {
        Some(s.journal.head as f64)
    });
    page.of_shares(report, "journal_bytes", "Bytes of the journal.", |s| {
        Some(s.journal.bytes as f64)
    });
    page.of_shares(
        report,
        "journal_bytes_max",
        "Bytes that the journal may have.",
        |s| Some(s.journal.bytes_max as f64),
    );
    page.of_shares(report, "gap", "1 while changes may be missing.", |s| {
        Some(f64::from(u8::from(s.gap.is_some())))
    });
    page.of_shares(
        report,
        "last_gap_since_seconds",
        "Begin of the gap that was closed last, since the epoch; absent when unknown.",
        |s| seconds(&s.reconcile.last_gap.as_ref()?.since),
    );
    page.of_shares(
        report,
        "last_gap_until_seconds",
        "When the gap that was closed last was closed, since the epoch.",
        |s| seconds(&s.reconcile.last_gap.as_ref()?.until),
    );
    page.of_shares(
        report,
        "reconciling",
        "1 while the share is compared with what vfsxd knows of it.",
        |s| Some(f64::from(u8::from(s.reconcile.running.is_some()))),
    );
    page.of_shares(
        report,
        "next_reconcile_seconds",
        "When that is due next, since the epoch; absent when it is not.",
        |s| seconds(&s.reconcile.next.as_ref()?.at),
    );
    page.of_shares(
        report,
        "copying",
        "1 while written data comes with the records, so that points are exact (mode copy).",
        |s| Some(f64::from(u8::from(s.mode == CaptureMode::Copy.as_str()))),
    );
    page.of_shares(
        report,
        "exact_states_total",
        "Exact states of the share that were made in mode copy.",
        |s| Some(s.points.exact as f64),
    );
    page.of_shares(
        report,
        "fuzzy_states_total",
        "Times that sites got a state that is not exact in mode copy.",
        |s| Some(s.points.fuzzy as f64),
    );
    page.of_shares(report, "sessions", "Connected smbd sessions.", |s| {
        Some(s.sessions.connected as f64)
    });
    page.of_shares(report, "objects", "Files and directories.", |s| {
        Some(s.catalog.objects as f64)
    });
    page.of_shares(report, "unread_files", "Files that wait to be read.", |s| {
        Some(s.catalog.dirty_objects as f64)
    });
    page.of_shares(
        report,
        "unread_bytes",
        "Bytes that wait to be read, at most.",
        |s| Some(s.catalog.dirty_bytes as f64),
    );
    page.of_shares(
        report,
        "read_errors_total",
        "Errors of the share's file system.",
        |s| Some(s.catalog.read_errors as f64),
    );
    page.of_sites(
        report,
        "rpo_seconds",
        "Age of the oldest change that is not at the site; absent when unknown.",
        |s| s.rpo_ms.map(|ms| ms as f64 / 1000.0),
    );
    page.of_sites(
        report,
        "pending_changes",
        "Changes that the site does not have.",
        |s| Some(s.pending_ops as f64),
    );
    page.of_sites(report, "pending_bytes", "Plain bytes of blocks in them.", |s| {
        Some(s.pending_bytes as f64)
    });
    page.of_sites(
        report,
        "wire_bytes_total",
        "Bytes on the wire, both directions.",
        |s| Some(s.wire_bytes as f64),
    );
    page.of_sites(report, "commits_total", "Commits acknowledged.", |s| {
        Some(s.commits as f64)
    });
    page.of_sites(
        report,
        "mismatches_total",
        "Comparisons that found the trees different.",
        |s| Some(s.mismatches as f64),
    );
    page.of_sites(
        report,
        "lag_p50_seconds",
        "From the note of a change to its commit at the site, median of the last ones; absent before the first.",
        |s| s.lag_ms_p50.map(|ms| ms as f64 / 1000.0),
    );
    page.of_sites(report, "lag_p99_seconds", "The same, 99th percentile.", |s| {
        s.lag_ms_p99.map(|ms| ms as f64 / 1000.0)
    });
    page.states(report);
    page.space(report);
    page.modules(report);
    page.verifies(report);
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, help: &str) {
        let kind = if name.ends_with("_total") {
            "counter"
        } else {
            "gauge"
        };
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# HELP vfsx_{name} {help}\n# TYPE vfsx_{name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<_> = labels
            .iter()
            .map(|(k, v)| format!("{k}=\"{}\"", escaped(v)))
            .collect();
        let _ = writeln!(self.0, "vfsx_{name}{{{}}} {value}", labels.join(","));
    }

    fn of_shares(
        &mut self,
        report: &StatusReport,
        name: &str,
        help: &str,
        value: impl Fn(&ShareReport) -> Option<f64>,
    ) {
        let name = format!("share_{name}");
        self.head(&name, help);
        for share in &report.shares {
            if let Some(value) = value(share) {
                self.sample(&name, &[("share", &share.name)], value);
            }
        }
    }

    fn of_sites(
        &mut self,
        report: &StatusReport,
        name: &str,
        help: &str,
        value: impl Fn(&SiteReport) -> Option<f64>,
    ) {
        let name = format!("site_{name}");
        self.head(&name, help);
        for share in &report.shares {
            for site in &share.sites {
                if let Some(value) = value(site) {
                    self.sample(&name, &[("share", &share.name), ("site", &site.name)], value);
                }
            }
        }
    }

    fn states(&mut self, report: &StatusReport) {
        let name = "site_state";
        self.head(name, "1 for the state that the site is in.");
        for share in &report.shares {
            for site in &share.sites {
                for state in STATES {
                    let labels = [("share", &*share.name), ("site", &*site.name), ("state", state)];
                    self.sample(name, &labels, f64::from(u8::from(site.state == state)));
                }
            }
        }
    }

    fn space(&mut self, report: &StatusReport) {
        let Some(space) = &report.space else { return };
        let labels = [("path", &*space.path)];
        for (name, help, value) in [
            ("free", "Free bytes on the disk of state_dir.", space.free_bytes),
            ("warn", "With less free than this vfsxd warns.", space.warn_bytes),
            (
                "reserve",
                "With less free than this vfsxd keeps no written data, and states are full.",
                space.reserve_bytes,
            ),
        ] {
            let name = format!("state_dir_{name}_bytes");
            self.head(&name, help);
            self.sample(&name, &labels, value as f64);
        }
        let name = "state_dir_level";
        self.head(name, "1 for what the free space amounts to: ok, low or full.");
        for level in LEVELS {
            let labels = [("path", &*space.path), ("level", level)];
            self.sample(name, &labels, f64::from(u8::from(space.level == level)));
        }
    }

    fn modules(&mut self, report: &StatusReport) {
        let Some(modules) = &report.modules else { return };
        for (name, help, value) in [
            (
                "sessions_max",
                "smbd sessions that there may be, of all shares.",
                modules.sessions_max as f64,
            ),
            (
                "sessions_turned_away_total",
                "Times that a session found no place.",
                modules.turned_away as f64,
            ),
            (
                "accept_failures_total",
                "Times that a module's connection could not be accepted.",
                modules.accept_failures as f64,
            ),
        ] {
            self.head(name, help);
            self.sample(name, &[], value);
        }
    }

    fn verifies(&mut self, report: &StatusReport) {
        let of_last =
            |share: &ShareReport, value: &dyn Fn(&VerifyResult) -> f64| share.verify.last.as_ref().map(value);
        self.of_shares(
            report,
            "verify_time_seconds",
            "When the last verify ended, since the epoch.",
            |s| seconds(&s.verify.last.as_ref()?.at),
        );
        self.of_shares(report, "verify_differences", "Left by the last verify.", |s| {
            of_last(s, &|last| last.differences() as f64)
        });
        self.of_shares(
            report,
            "verify_in_change",
            "Of which the last verify could say nothing.",
            |s| of_last(s, &|last| last.in_change as f64),
        );
        self.of_shares(
            report,
            "verify_open_differences",
            "Found by a verify, and not looked at again as closely with nothing found.",
            |s| Some(s.verify.found.as_ref().map_or(0, VerifyResult::differences) as f64),
        );
        let name = "share_verify_outcome";
        self.head(name, "1 for the outcome of the last verify, by its kind.");
        for share in &report.shares {
            let Some(last) = &share.verify.last else { continue };
            let kind = if last.deep { "deep" } else { "plain" };
            for (text, outcome) in OUTCOMES {
                let labels = [("share", &*share.name), ("kind", kind), ("outcome", text)];
                self.sample(name, &labels, f64::from(u8::from(last.outcome == outcome)));
            }
        }
    }
}

fn seconds(time: &str) -> Option<f64> {
    let time: jiff::Timestamp = time.parse().ok()?;
    Some(time.as_second() as f64)
}

fn escaped(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_break_the_page() {
        let mut page = Page::default();
        page.sample("x", &[("share", "a\"b\\c\nd")], 1.0);
        assert_eq!(page.0, "vfsx_x{share=\"a\\\"b\\\\c\\nd\"} 1\n");
    }
}
