//! `restfs restore`.

use super::access::Access;
use super::output::{self, Output};
use super::target::{self, Target};
use crate::remote::Remote;
use crate::restore::{Options, Progress, Summary, restore};
use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use restfs_lib::wire::method::{CommitInfo, CommitList, CommitListParams};
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::runtime::Handle;

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// BUCKET[@POINT]; POINT is a number, a time (2026-11-20T14:00:00+01:00), or a time ago (-2h)
    #[arg(value_parser = target::parser())]
    target: Target,
    /// A new or empty directory
    dest: PathBuf,
    /// Restore only this file or directory
    #[arg(long, value_name = "PATH")]
    path: Option<PathBuf>,
    /// Read and check everything, write nothing
    #[arg(long)]
    dry_run: bool,
    /// Restore into a directory that has something in it, replacing what is in the way
    #[arg(long)]
    into_existing: bool,
    /// Files written at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64))]
    workers: u64,
}

impl Restore {
    /// Fails when anything could not be restored as it was.
    pub(super) async fn run(self, access: &Access, out: Output) -> Result<ExitCode> {
        let client = access.client().clone();
        let bucket = self.target.bucket.clone();
        let text = self.target.point.as_deref().unwrap_or("latest");
        let point = client.resolve_point(&bucket, text).await?;
        let options = self.options()?;
        let params = CommitListParams {
            bucket: bucket.clone(),
            before: Some(point.point + 1),
            limit: 1,
        };
        let commit = client
            .call::<CommitList>(&params)
            .await?
            .commits
            .into_iter()
            .next();
        let source = Remote::new(client, bucket, Some(point.point), Handle::current());
        let (dest, bar) = (
            self.dest.clone(),
            bar(commit.as_ref().filter(|_| options.path.is_empty()), out),
        );
        let shown = bar.clone();
        let summary =
            tokio::task::spawn_blocking(move || restore(&source, &dest, &options, &shown)).await??;
        bar.0.finish_and_clear();
        for problem in &summary.problems {
            eprintln!(
                "warning: {}: {}",
                output::name(problem.path.as_bytes()),
                output::name(problem.what.as_bytes())
            );
        }
        let report = Report {
            point: point.point,
            time: output::point_time(point.time),
            exact: point.exact,
            summary,
        };
        out.show(&report, |report| self.sentence(report))?;
        Ok(if report.summary.problem_count == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn options(&self) -> Result<Options> {
        let path = match (&self.path, &self.target.path) {
            (Some(_), Some(_)) => bail!("restore: the path is given twice, after `:` and by --path"),
            (Some(path), None) => path.as_os_str().as_bytes().to_vec(),
            (None, Some(path)) => path.clone(),
            (None, None) => Vec::new(),
        };
        Ok(Options {
            path,
            dry_run: self.dry_run,
            into_existing: self.into_existing,
            workers: self.workers as usize,
        })
    }

    fn sentence(&self, report: &Report) -> String {
        let s = &report.summary;
        let done = if self.dry_run {
            "can be restored"
        } else {
            "restored"
        };
        let moment = if report.exact {
            ""
        } else {
            "; files being written then may be torn"
        };
        let mut text = format!(
            "point {} of {}{moment}\n{done}: {} files, {} directories, {} symbolic links, {} others, {} hard links, {} bytes\n",
            report.point, report.time, s.files, s.directories, s.symlinks, s.special, s.hard_links, s.bytes
        );
        if s.problem_count > 0 {
            text += &format!(
                "{} problems: those files are missing or differ\n",
                s.problem_count
            );
        }
        text
    }
}

#[derive(serde::Serialize)]
struct Report {
    point: u64,
    time: String,
    exact: bool,
    #[serde(flatten)]
    summary: Summary,
}

#[derive(Clone)]
struct Bar(ProgressBar);

/// On a terminal only.
fn bar(commit: Option<&CommitInfo>, out: Output) -> Bar {
    if out.json || !std::io::stderr().is_terminal() {
        return Bar(ProgressBar::hidden());
    }
    let bar = match commit {
        Some(commit) => ProgressBar::new(commit.bytes),
        None => ProgressBar::no_length(),
    };
    let style = "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    Bar(bar.with_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar())))
}

impl Progress for Bar {
    fn advanced(&self, _objects: u64, bytes: u64) {
        self.0.inc(bytes);
    }
}
