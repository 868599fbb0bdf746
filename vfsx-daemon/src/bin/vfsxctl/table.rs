//! Status for people.

use crate::outcome::Failure;
use std::fmt::Write;
use vfsx_daemon::status::{ScanReport, ShareReport, SiteReport, StatusReport};

/// One line.
pub(crate) fn json(report: &StatusReport) -> Result<String, Failure> {
    let text = serde_json::to_string(report).map_err(|e| Failure::failed(e.to_string()))?;
    Ok(text + "\n")
}

pub(crate) fn human(report: &StatusReport) -> String {
    let mut out = String::new();
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
            "  gap since {}: {}; close it with `vfsxctl sync --share {}`",
            gap.since, gap.reason, share.name
        )?;
    }
    if share.scan.state != "done" {
        writeln!(out, "  {}", scan_text(&share.scan))?;
    }
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
