//! `vfsxctl verify`: what is printed, and what the exit code says.

use crate::client::Client;
use crate::outcome::{Failure, print};
use crate::progress::Shown;
use crate::table::bytes;
use serde_json::json;
use std::fmt::Write;
use std::path::Path;
use vfsx_daemon::control::{Done, Request};
use vfsx_daemon::engine::{Findings, Outcome, Verified};

/// The longest name of a kind.
const KIND_WIDTH: usize = 13;

pub(crate) fn run(socket: &Path, request: &Request, as_json: bool) -> Result<(), Failure> {
    let mut shown = Shown::new();
    let done = Client::ask(socket, request)?.outcome(|progress| shown.show(progress))?;
    drop(shown);
    let Done::Verified(shares) = done else {
        return Err(Failure::failed("vfsxd: an answer to something else".into()));
    };
    let text = if as_json {
        let all = json!({ "version": env!("CARGO_PKG_VERSION"), "shares": shares });
        format!("{all}\n")
    } else {
        human(&shares)
    };
    print(&text, false)?;
    judge(&shares)
}

fn judge(shares: &[Verified]) -> Result<(), Failure> {
    let bad: Vec<String> = shares.iter().filter_map(trouble).collect();
    if bad.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(bad.join("; ")))
}

fn trouble(verified: &Verified) -> Option<String> {
    let (share, differences) = (&verified.share, verified.left().count());
    match (verified.outcome, &verified.error) {
        (Outcome::Clean | Outcome::Mended, _) => None,
        (Outcome::Failed, Some(error)) => Some(format!("share {share}: the verify came to no end: {error}")),
        (_, _) if verified.after_repair.is_some() => Some(format!(
            "share {share}: {differences} differences are left after the repair"
        )),
        (_, _) => {
            let deep = if verified.deep { " --deep" } else { "" };
            Some(format!(
                "share {share}: {differences} differences; mend them with `vfsxctl verify {share}{deep} --repair`"
            ))
        }
    }
}

fn human(shares: &[Verified]) -> String {
    let mut out = String::new();
    for verified in shares {
        // Writing to a String cannot fail.
        let _ = write_share(&mut out, verified);
    }
    out
}

fn write_share(out: &mut String, verified: &Verified) -> std::fmt::Result {
    let share = &verified.share;
    write_findings(out, share, &verified.found)?;
    if let Some(left) = &verified.after_repair {
        let found = verified.found.count();
        match left.count() {
            0 => writeln!(out, "{share}: mended; nothing of the {found} differences is left")?,
            count => {
                writeln!(
                    out,
                    "{share}: {count} of {found} differences are left after the repair:"
                )?;
                write_findings(out, share, left)?;
            }
        }
    }
    let sites = match verified.sites.join(", ") {
        none if none.is_empty() => "no site".to_owned(),
        sites => sites,
    };
    let outcome = match verified.outcome {
        Outcome::Clean => "everything is equal",
        Outcome::Mended => "everything is equal now",
        Outcome::Differences => "not equal",
        Outcome::Failed => "came to no end",
    };
    let read = match verified.deep {
        false => String::new(),
        true => format!(
            "; {} files ({}) read here, {} blocks ({}) read there",
            verified.files,
            bytes(verified.bytes),
            verified.blocks,
            bytes(verified.block_bytes)
        ),
    };
    let seconds = verified.duration_ms as f64 / 1000.0;
    writeln!(out, "{share} and {sites}: {outcome}{read} in {seconds:.1} s")?;
    match verified.left().in_change {
        0 => Ok(()),
        count => writeln!(
            out,
            "{share}: {count} files or names changed whenever they were looked at; of them nothing is said"
        ),
    }
}

fn write_findings(out: &mut String, share: &str, findings: &Findings) -> std::fmt::Result {
    for difference in &findings.differences {
        let site = difference.site.as_deref().unwrap_or("(share)");
        let kind = difference.kind.to_string();
        write!(out, "{share}  {site}  {kind:KIND_WIDTH$}  {}", difference.path)?;
        match &difference.detail {
            Some(detail) => writeln!(out, "  ({detail})")?,
            None => writeln!(out)?,
        }
    }
    match findings.unlisted {
        0 => Ok(()),
        count => writeln!(out, "{share}: and {count} more"),
    }
}
