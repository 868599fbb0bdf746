//! What is told at the end.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use vfsx_daemon::control::Done;

/// Told in one line after `error: `.
pub(crate) struct Failure {
    text: String,
    usage: bool,
}

impl Failure {
    pub(crate) fn failed(text: String) -> Self {
        Self { text, usage: false }
    }

    pub(crate) fn usage(text: String) -> Self {
        Self { text, usage: true }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(if self.usage { 2 } else { 1 })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text.replace('\n', " "))
    }
}

/// Prints; `again` wipes the terminal first.
pub(crate) fn print(text: &str, again: bool) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let wipe = if again && out.is_terminal() {
        "\x1b[2J\x1b[H"
    } else {
        ""
    };
    // A closed pipe ends a --watch.
    write!(out, "{wipe}{text}")
        .and_then(|()| out.flush())
        .map_err(|e| Failure::failed(format!("standard output: {e}")))
}

/// An open gap is a warning: what was asked for is done.
pub(crate) fn tell(done: &Done, paused: bool) -> Result<(), Failure> {
    let mut text = String::new();
    match done {
        Done::Settled(shares) => {
            for settled in shares {
                let sites = if settled.sites.is_empty() {
                    "nowhere, it has no site".to_owned()
                } else {
                    settled.sites.join(", ")
                };
                text += &format!(
                    "{}: settled (journal record {}) at {sites}\n",
                    settled.share, settled.journal
                );
                warn_of_gap(&settled.share, settled.gap);
            }
        }
        Done::Synced(shares) => {
            for synced in shares {
                let p = &synced.progress;
                text += &format!(
                    "{}: {} files in {} directories compared, {} differed\n",
                    synced.share, p.files, p.directories, p.differences
                );
                warn_of_gap(&synced.share, synced.gap);
            }
        }
        Done::Changed(sites) => {
            let state = if paused { "paused" } else { "resumed" };
            for (share, site) in sites {
                text += &format!("{share} to {site}: {state}\n");
            }
        }
        Done::Status(_) | Done::Verified(_) => {
            return Err(Failure::failed("vfsxd: an answer to something else".into()));
        }
    }
    print(&text, false)
}

fn warn_of_gap(share: &str, gap: bool) {
    if gap {
        eprintln!(
            "warning: share {share}: a gap is open, so changes from then may be missing at the sites; close it with \
             `vfsxctl reconcile --share {share}`"
        );
    }
}
