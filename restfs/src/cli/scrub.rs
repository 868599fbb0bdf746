//! `restfs scrub`.

use super::access::Access;
use super::output::{self, Output};
use crate::metadata::commits::REBUILD;
use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use restfs_lib::client::Client;
use restfs_lib::wire::method::*;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

/// Between two questions how far it is.
pub(super) const ASK: Duration = Duration::from_millis(300);

#[derive(Debug, Args)]
pub(super) struct Scrub {
    /// Most bytes to read a second: a number, or one with K, M or G behind it; without, as configured
    #[arg(long, value_name = "BYTES", value_parser = rate)]
    rate: Option<u64>,
    /// From the beginning, and as fast as it goes unless --rate says how fast
    #[arg(long)]
    now: bool,
    /// Only show how far it is, and what the last one found
    #[arg(long, conflicts_with_all = ["rate", "now"])]
    status: bool,
}

impl Scrub {
    /// Fails when something is damaged: for scripts.
    pub(super) async fn run(self, access: &Access, out: Output) -> Result<ExitCode> {
        let client = access.client();
        let status = match self.status {
            true => client.call::<ScrubStatus>(&NoParams {}).await?,
            false => {
                let params = ScrubStartParams {
                    rate: self.rate.or(self.now.then_some(0)),
                    anew: self.now,
                };
                let begun = client.call::<ScrubStart>(&params).await?;
                wait(client, begun).await?
            }
        };
        if let Some(error) = &status.error {
            bail!("the scrub broke off: {error}");
        }
        out.show(&status, report)?;
        let found = status
            .last
            .as_ref()
            .is_some_and(|last| last.damages + last.files > 0);
        let metadata = status.last.as_ref().is_some_and(|last| !last.metadata.is_empty());
        Ok(
            match status.damaged_blocks > 0 || metadata || (found && !self.status) {
                true => ExitCode::FAILURE,
                false => ExitCode::SUCCESS,
            },
        )
    }
}

async fn wait(client: &Client, mut status: ScrubStatusResult) -> Result<ScrubStatusResult> {
    let bar = ProgressBar::with_draw_target(None, target());
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left{msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    while let Some(progress) = &status.running {
        bar.set_length(progress.total_bytes.max(progress.read_bytes));
        bar.set_position(progress.read_bytes);
        if progress.damages > 0 {
            bar.set_message(format!(", {} damaged blocks", progress.damages));
        }
        tokio::time::sleep(ASK).await;
        status = client.call::<ScrubStatus>(&NoParams {}).await?;
        if status.error.is_some() {
            break;
        }
    }
    bar.finish_and_clear();
    Ok(status)
}

/// Only people look at a bar.
pub(super) fn target() -> ProgressDrawTarget {
    match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    }
}

fn report(status: &ScrubStatusResult) -> String {
    let mut text = String::new();
    if let Some(progress) = &status.running {
        text += &format!(
            "under way since {}: {} of {} bytes read, {} damaged blocks\n",
            output::time(progress.started),
            progress.read_bytes,
            progress.total_bytes,
            progress.damages
        );
    }
    match &status.last {
        None if status.running.is_none() => text += "no scrub came to its end yet\n",
        None => {}
        Some(last) => text += &ended(last),
    }
    if status.damaged_blocks > 0 {
        text += &format!(
            "{} blocks are damaged or gone now; their sources send those that files still have by themselves\n",
            status.damaged_blocks
        );
    }
    text
}

fn ended(last: &ScrubReport) -> String {
    let mut text = format!(
        "{} to {}: {} bytes read, {} damaged blocks, {} files concerned\n",
        output::time(last.started),
        output::time(last.ended),
        last.read_bytes,
        last.damages,
        last.files
    );
    if last.unused > 0 {
        text += &format!("{} damaged places hold nothing that is needed\n", last.unused);
    }
    for damage in &last.metadata {
        text += &format!("metadata: {damage}\n");
    }
    if !last.metadata.is_empty() {
        text += &format!("the metadata is damaged: {REBUILD}\n");
    }
    for log in &last.logs {
        text += &match last.metadata.is_empty() {
            true => format!("commit log: {log} was damaged, and was replaced\n"),
            false => format!("commit log: {log} is damaged\n"),
        };
    }
    if !last.objects.is_empty() {
        let row = |o: &ScrubObject| {
            let path = o
                .path
                .as_ref()
                .map_or(format!("(object {})", o.object), |path| output::name(&path.0));
            let when = if o.head { "now" } else { "earlier points only" };
            vec![
                o.blocks.to_string(),
                o.from.to_string(),
                when.to_owned(),
                format!("{}:{path}", o.bucket),
            ]
        };
        let rows: Vec<_> = last.objects.iter().map(row).collect();
        text += &output::table(&[">BLOCKS", ">FROM POINT", "NEEDED", "FILE"], &rows);
    }
    text
}

/// `500K`, `16M`.
pub(super) fn rate(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no rate, such as 16M or 500000");
    let (digits, scale) = match text.chars().last() {
        Some('K') => (&text[..text.len() - 1], 1 << 10),
        Some('M') => (&text[..text.len() - 1], 1 << 20),
        Some('G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number
        .checked_mul(scale)
        .filter(|rate| *rate > 0)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::rate;

    #[test]
    fn rates_are_read_as_people_write_them() {
        assert_eq!(rate("16M"), Ok(16 << 20));
        assert_eq!(rate("500000"), Ok(500_000));
        assert_eq!(rate("1G"), Ok(1 << 30));
        for bad in ["", "M", "-1", "0", "16m", "16MB", "99999999999G"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
