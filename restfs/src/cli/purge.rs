//! `restfs purge`.

use super::access::Access;
use super::output::{self, Output};
use super::scrub::{ASK, target};
use anyhow::Result;
use clap::Args;
use indicatif::ProgressBar;
use restfs_lib::client::Client;
use restfs_lib::wire::method::*;

#[derive(Debug, Args)]
pub(super) struct Purge {
    bucket: String,
    /// The oldest point to keep: its number, or a time such as -30d: then the newest point not after it
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    before: String,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

impl Purge {
    pub(super) async fn run(self, access: &Access, out: Output) -> Result<()> {
        let client = access.client();
        let params = BucketPurgeParams {
            bucket: self.bucket.clone(),
            before: self.before,
            dry_run: self.dry_run,
        };
        let result = client.call::<BucketPurge>(&params).await?;
        if !self.dry_run {
            wait(client, &self.bucket).await?;
        }
        out.show(&result, |result| match self.dry_run {
            true => planned(&self.bucket, result),
            false => done(&self.bucket, result),
        })
    }
}

/// The points are gone already; what they needed goes on the side.
async fn wait(client: &Client, bucket: &str) -> Result<()> {
    let spinner = ProgressBar::with_draw_target(None, target());
    spinner.set_message("removing what only purged points needed");
    let name = BucketName {
        bucket: bucket.to_owned(),
    };
    while client.call::<BucketInfo>(&name).await?.purging {
        spinner.tick();
        tokio::time::sleep(ASK).await;
    }
    spinner.finish_and_clear();
    Ok(())
}

fn done(bucket: &str, result: &BucketPurgeResult) -> String {
    let oldest = oldest(result);
    match result.points {
        0 => format!("bucket {bucket}: nothing to purge, {oldest}\n"),
        points => format!(
            "bucket {bucket}: {points} points purged, {oldest}; `restfs gc` gives back what their blocks take\n"
        ),
    }
}

fn planned(bucket: &str, result: &BucketPurgeResult) -> String {
    let oldest = oldest(result);
    let rows = result.rows.unwrap_or_default();
    let more = if result.more { " and more" } else { "" };
    match result.points {
        0 => format!("bucket {bucket}: nothing to purge, {oldest}\n"),
        points => format!(
            "bucket {bucket}: {points} points would be purged with {rows}{more} rows of metadata, {oldest} then\n"
        ),
    }
}

fn oldest(result: &BucketPurgeResult) -> String {
    format!(
        "{} of {} is the oldest",
        result.floor,
        output::point_time(result.time)
    )
}
