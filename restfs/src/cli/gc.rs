//! `restfs gc`.

use super::access::Access;
use super::output::{self, Output};
use super::scrub::{ASK, rate, target};
use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use restfs_lib::client::Client;
use restfs_lib::wire::method::*;

#[derive(Debug, Args)]
pub(super) struct Gc {
    /// Only say what could be given back
    #[arg(long)]
    dry_run: bool,
    /// Most bytes to read and copy a second: a number, or one with K, M or G behind it; without, as configured
    #[arg(long, value_name = "BYTES", value_parser = rate)]
    rate: Option<u64>,
    /// Leave blocks stored within this time: 0, or a number with s, m, h or d behind it; without, as configured
    #[arg(long, value_name = "TIME", value_parser = grace)]
    grace: Option<u64>,
    /// Only show how far it is, and what the last one did
    #[arg(long, conflicts_with_all = ["dry_run", "rate", "grace"])]
    status: bool,
}

impl Gc {
    pub(super) async fn run(self, access: &Access, out: Output) -> Result<()> {
        let client = access.client();
        if self.status {
            let status = client.call::<GcStatus>(&NoParams {}).await?;
            return out.show(&status, report);
        }
        let params = GcStartParams {
            rate: self.rate,
            grace: self.grace,
            dry_run: self.dry_run,
        };
        let begun = client.call::<GcStart>(&params).await?;
        let status = wait(client, begun).await?;
        if let Some(error) = &status.error {
            bail!("the collection broke off: {error}");
        }
        match self.dry_run {
            true => out.show(&status, |status| {
                status.planned.as_ref().map_or_else(String::new, planned)
            }),
            false => out.show(&status, report),
        }
    }
}

async fn wait(client: &Client, mut status: GcStatusResult) -> Result<GcStatusResult> {
    let bar = ProgressBar::with_draw_target(None, target());
    let style =
        |text: &str| ProgressStyle::with_template(text).unwrap_or_else(|_| ProgressStyle::default_bar());
    while let Some(progress) = &status.running {
        match progress.phase {
            GcPhase::Marking => {
                bar.set_style(style("{spinner} looking for what is needed: {pos} segments"));
            }
            GcPhase::Weighing => {
                bar.set_style(style("{bar:30} {pos} of {len} blocks counted, {eta} left"));
            }
            GcPhase::Sweeping => {
                bar.set_style(style(
                    "{bar:30} {bytes} of {total_bytes} of packs, {bytes_per_sec}, {eta} left",
                ));
            }
        }
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        tokio::time::sleep(ASK).await;
        status = client.call::<GcStatus>(&NoParams {}).await?;
    }
    bar.finish_and_clear();
    Ok(status)
}

fn report(status: &GcStatusResult) -> String {
    let mut text = String::new();
    if let Some(progress) = &status.running {
        let at = match progress.phase {
            GcPhase::Marking => format!("{} segments looked at", progress.done),
            GcPhase::Weighing => format!("{} of {} blocks counted", progress.done, progress.total),
            GcPhase::Sweeping => format!(
                "{} of {} bytes of packs read, {} given back",
                progress.done, progress.total, progress.freed_bytes
            ),
        };
        text += &format!("under way since {}: {at}\n", output::time(progress.started));
    }
    if let Some(error) = &status.error {
        text += &format!("the last one broke off: {error}\n");
    }
    match &status.last {
        None if status.running.is_none() => text += "no collection came to its end yet\n",
        None => {}
        Some(last) => text += &ended(last),
    }
    text
}

fn ended(last: &GcReport) -> String {
    let mut text = format!(
        "{} to {}: {} bytes given back, {} of {} blocks and {} packs removed, {} bytes copied\n",
        output::time(last.started),
        output::time(last.ended),
        last.freed_bytes,
        last.removed_blocks,
        last.blocks,
        last.packs_removed,
        last.copied_bytes
    );
    text += &left(last);
    if last.packs_damaged > 0 {
        text += &format!(
            "{} packs stay for a block that is needed and damaged; see `restfs scrub`\n",
            last.packs_damaged
        );
    }
    if last.packs_no_room > 0 {
        text += &format!(
            "{} packs stay since there is no space to copy what is needed of them\n",
            last.packs_no_room
        );
    }
    text
}

fn planned(planned: &GcReport) -> String {
    let mut text = format!(
        "{} bytes could be given back, {} copied for it: nothing needs {} of {} blocks\n",
        planned.freed_bytes, planned.copied_bytes, planned.dead_blocks, planned.blocks
    );
    text += &left(planned);
    text
}

fn left(report: &GcReport) -> String {
    let mut text = String::new();
    if report.young_bytes > 0 {
        text += &format!(
            "{} bytes that nothing needs stay since they were stored lately; see --grace\n",
            report.young_bytes
        );
    }
    if report.sparse_bytes > 0 {
        text += &format!(
            "{} bytes that nothing needs stay among others that are needed\n",
            report.sparse_bytes
        );
    }
    text
}

/// `0`, `90s`, `1h`, in seconds.
fn grace(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no time, such as 0, 30m or 1h");
    let (digits, scale) = match text.chars().last() {
        Some('s') => (&text[..text.len() - 1], 1),
        Some('m') => (&text[..text.len() - 1], 60),
        Some('h') => (&text[..text.len() - 1], 3_600),
        Some('d') => (&text[..text.len() - 1], 86_400),
        _ if text == "0" => (text, 1),
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(scale).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::grace;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("0", 0),
            ("0s", 0),
            ("90s", 90),
            ("30m", 1800),
            ("1h", 3600),
            ("2d", 172_800),
        ] {
            assert_eq!(grace(text), Ok(seconds));
        }
        for bad in ["", "5", "h", "-1h", "1y", "1H", "99999999999999999999d"] {
            assert!(grace(bad).is_err(), "{bad}");
        }
    }
}
