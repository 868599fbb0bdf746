//! Status for people.

use crate::outcome::Failure;
use std::fmt::Write;
use vfsx_daemon::engine::{Outcome, VerifyResult};
use vfsx_daemon::status::{ScanReport, ShareReport, SiteReport, StatusReport};

/// One line.
pub(crate) fn json(report: &StatusReport) -> Result<String, Failure> {
    let text = serde_json::to_string(report).map_err(|e| Failure::failed(e.to_string()))?;
    Ok(text + "\n")
}

pub(crate) fn human(report: &StatusReport) -> String {
    let mut out = String::new();
    for space in report.space.iter().filter(|space| space.level != "ok") {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "warning: {} free in state_dir {}, less than {}",
            bytes(space.free_bytes),
            space.path,
            match space.level.as_str() {
                "full" => format!(
                    "the reserve of {}: points may be fuzzy",
                    bytes(space.reserve_bytes)
                ),
                _ => bytes(space.warn_bytes),
            }
        );
    }
    for modules in report.modules.iter().filter(|m| m.sessions >= m.sessions_max) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "warning: all {} places for smbd sessions are taken; raise sessions_max",
            modules.sessions_max
        );
    }
    for share in &report.shares {
        // Writing to a String cannot fail.
        let _ = write_share(&mut out, share);
    }
    out
}

fn write_share(out: &mut String, share: &ShareReport) -> std::fmt::Result {
    let journal = &share.journal;
    writeln!(
        out,
        "{}  {}  mode {}  journal {} ({} of {})  {} smbd sessions",
        share.name,
        share.path,
        share.mode,
        journal.head,
        bytes(journal.bytes),
        bytes(journal.bytes_max),
        share.sessions.connected
    )?;
    if let Some(why) = &share.mode_reason {
        writeln!(out, "  map instead of copy: {why}; points may be fuzzy meanwhile")?;
    }
    if !share.exclude.is_empty() {
        writeln!(out, "  not replicated: names like {}", share.exclude)?;
    }
    let durability = &share.durability;
    if durability.journal + durability.remote > 0 || durability.waits > 0 {
        writeln!(
            out,
            "  durability: {} sessions wait for the journal, {} for a site; {} waits, {} of them given up{}",
            durability.journal,
            durability.remote,
            durability.waits,
            durability.fallbacks,
            match &durability.last_fallback {
                Some(last) => format!(", the last at {last}"),
                None => String::new(),
            }
        )?;
    }
    if let Some(gap) = &share.gap {
        writeln!(
            out,
            "  gap since {}: {}; {}",
            gap.since,
            gap.reason,
            remedy(share)
        )?;
    } else if let Some(gap) = &share.reconcile.last_gap {
        writeln!(
            out,
            "  last gap from {} to {}: {}",
            gap.since, gap.until, gap.reason
        )?;
    }
    if share.scan.state != "done" {
        writeln!(out, "  {}", scan_text(&share.scan))?;
    }
    write_verify(out, share)?;
    let catalog = &share.catalog;
    writeln!(
        out,
        "  {} objects, {} files to read ({}), {} open for writing",
        catalog.objects,
        catalog.dirty_objects,
        bytes(catalog.dirty_bytes),
        catalog.open_handles
    )?;
    if let Some(error) = &catalog.last_error {
        writeln!(out, "  last error: {error}")?;
    }
    write_sites(out, &share.sites)
}

/// What closes the gap.
fn remedy(share: &ShareReport) -> String {
    let by_hand = format!("`vfsxctl reconcile --share {}`", share.name);
    let next = share.reconcile.next.as_ref().filter(|next| next.why == "gap");
    match (&share.reconcile.running, next) {
        (Some(_), _) => "the share is being compared, which may close it".to_owned(),
        (None, Some(next)) => format!("the share is compared at {}, or now by {by_hand}", next.at),
        (None, None) => format!("close it with {by_hand}"),
    }
}

fn write_verify(out: &mut String, share: &ShareReport) -> std::fmt::Result {
    let verify = &share.verify;
    if let Some(running) = &verify.running {
        let deep = if running.deep { "deep " } else { "" };
        writeln!(out, "  a {deep}verify runs since {}", running.since)?;
    }
    if let Some(last) = &verify.last {
        writeln!(out, "  last verify: {}", result_text(last))?;
    }
    match &verify.found {
        Some(found) if verify.last.as_ref() != Some(found) => {
            writeln!(out, "  not mended since: {}", result_text(found))
        }
        _ => Ok(()),
    }
}

fn result_text(result: &VerifyResult) -> String {
    let kind = if result.deep { "deep" } else { "plain" };
    let differences = result.differences();
    let outcome = match result.outcome {
        Outcome::Clean => "everything is equal".to_owned(),
        Outcome::Mended => format!("{} differences, mended", result.found),
        Outcome::Differences => format!("{differences} DIFFERENCES"),
        Outcome::Failed => {
            let why = result.error.as_deref().unwrap_or("it came to no end");
            format!("FAILED, {differences} differences until then: {why}")
        }
    };
    let in_change = match result.in_change {
        0 => String::new(),
        count => format!(", {count} in change"),
    };
    format!("{} ({kind}): {outcome}{in_change}", result.at)
}

fn write_sites(out: &mut String, sites: &[SiteReport]) -> std::fmt::Result {
    if sites.is_empty() {
        return writeln!(out, "  no site");
    }
    let width = sites
        .iter()
        .map(|s| s.name.chars().count())
        .max()
        .unwrap_or(0)
        .max("SITE".len());
    writeln!(
        out,
        "  {:width$}  {:12}  {:>9}  {:>9}  {:>10}  {:>10}  {:>12}",
        "SITE", "STATE", "RPO", "CHANGES", "PENDING", "SENT", "LIMIT"
    )?;
    for site in sites {
        writeln!(
            out,
            "  {:width$}  {:12}  {:>9}  {:>9}  {:>10}  {:>10}  {:>12}",
            site.name,
            site.state,
            site.rpo_ms.map_or_else(|| "unknown".to_owned(), duration),
            site.pending_ops,
            bytes(site.pending_bytes),
            bytes(site.wire_bytes),
            site.limit
                .map_or_else(|| "none".to_owned(), |l| format!("{}/s", bytes(l)))
        )?;
        if let Some(error) = &site.last_error {
            writeln!(out, "  {:width$}  {error}", "")?;
        }
    }
    Ok(())
}

fn scan_text(scan: &ScanReport) -> String {
    match scan.state.as_str() {
        "needed" => "a comparison of the whole share is due".to_owned(),
        _ => format!(
            "comparing the whole share: {} files, {}, {} differ, {} to read",
            scan.files,
            bytes(scan.bytes),
            scan.differences,
            bytes(scan.unread_bytes)
        ),
    }
}

/// `1.5 MiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).unwrap_or(&"B");
    if unit == 0 {
        format!("{n} B")
    } else {
        format!("{value:.1} {name}")
    }
}

/// `250 ms`, `12 s`, `3 h 5 min`.
fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms} ms"),
        1..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
