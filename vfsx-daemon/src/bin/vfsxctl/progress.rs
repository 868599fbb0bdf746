//! Progress of long commands: a bar on a terminal, plain lines elsewhere, both on standard error.

use crate::table::bytes;
use indicatif::ProgressBar;
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use vfsx_daemon::control::Progress;
use vfsx_daemon::engine::{SettleStage, SyncProgress, VerifyProgress};

/// Plain lines come no more often.
const LINE_EVERY: Duration = Duration::from_secs(2);

pub(crate) struct Shown {
    bar: Option<ProgressBar>,
    started: Instant,
    last_line: Option<Instant>,
    /// Of a verify, and since when.
    stage: String,
    stage_started: Instant,
}

impl Shown {
    pub(crate) fn new() -> Self {
        Self {
            bar: std::io::stderr().is_terminal().then(ProgressBar::new_spinner),
            started: Instant::now(),
            last_line: None,
            stage: String::new(),
            stage_started: Instant::now(),
        }
    }

    pub(crate) fn show(&mut self, progress: Progress) {
        let text = match progress {
            Progress::Settle { share, stage } => format!("{share}: {}", stage_text(&stage)),
            Progress::Sync { share, progress } => format!("{share}: {}", self.sync_text(&progress)),
            Progress::Verify { share, progress } => format!("{share}: {}", self.verify_text(&progress)),
        };
        if let Some(bar) = &self.bar {
            bar.set_message(text);
            bar.tick();
        } else if self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            eprintln!("{text}");
            self.last_line = Some(Instant::now());
        }
    }

    fn verify_text(&mut self, p: &VerifyProgress) -> String {
        if self.stage != p.stage {
            self.stage.clone_from(&p.stage);
            self.stage_started = Instant::now();
        }
        let seconds = self.stage_started.elapsed().as_secs_f64().max(0.001);
        let mut text = p.stage.clone();
        match (p.done, p.total) {
            (0, 0) => {}
            (done, 0) => text += &format!(": {done}"),
            (done, total) => text += &format!(": {done} of {total}"),
        }
        if p.bytes > 0 {
            let rate = (p.bytes as f64 / seconds) as u64;
            text += &format!(", {}, {}/s", bytes(p.bytes), bytes(rate));
        }
        if p.done > 0 && p.total > p.done {
            let left = seconds * (p.total - p.done) as f64 / p.done as f64;
            text += &format!(", about {} s left", left.ceil());
        }
        text
    }

    fn sync_text(&self, p: &SyncProgress) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        let rate = p.files as f64 / seconds;
        let done = p.files + p.directories;
        let of = match p.known > done && !p.reading {
            true => format!(" of about {}", p.known),
            false => String::new(),
        };
        let seen = format!(
            "{done}{of} files and directories, {}, {} differ, {rate:.0} files/s",
            bytes(p.bytes),
            p.differences
        );
        if p.reading {
            format!("{seen}; {} to read", bytes(p.unread_bytes))
        } else if done > 0 && p.known > done {
            let left = seconds * (p.known - done) as f64 / done as f64;
            format!("{seen}, about {} s left", left.ceil())
        } else {
            seen
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn stage_text(stage: &SettleStage) -> String {
    match stage {
        SettleStage::Modules => "smbd processes send what they hold back".into(),
        SettleStage::Catalog => "changes are read".into(),
        SettleStage::Site { site } => format!("waiting for site {site}"),
    }
}
