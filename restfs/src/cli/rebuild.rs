//! `restfs rebuild`.

use super::Common;
use super::access::Access;
use super::output::{self, Output};
use crate::config::Config;
use crate::data_dir::DataDir;
use anyhow::{Result, bail};
use clap::Args;
use restfs_lib::wire::method::{Bucket, BucketList, NoParams, TokenList};

#[derive(Debug, Args)]
pub(super) struct Rebuild {
    /// Put a database that is there aside (as metadata.db.replaced), and make it anew
    #[arg(long)]
    replace: bool,
}

/// What was made.
#[derive(serde::Serialize)]
struct Made {
    /// Rows of the image that it began with.
    rows: u64,
    /// Commits behind the image.
    commits: u64,
    /// Of a commit that was not finished when the server ended.
    cut_bytes: u64,
    replaced: Option<String>,
    buckets: Vec<Bucket>,
    tokens: usize,
}

impl Rebuild {
    pub(super) async fn run(self, common: &Common, out: Output) -> Result<()> {
        if common.remote.url.is_some() {
            bail!("rebuild: it works on this machine, with the server stopped; leave --url out");
        }
        let config = Config::read(&common.config)?;
        let rebuilt = {
            let data_dir = DataDir::lock(&config.data_dir)?;
            tokio::task::block_in_place(|| data_dir.rebuild(&config, self.replace))?
        };
        let access = Access::in_process(&config).await?;
        let found = look(&access).await;
        access.close().await;
        let (buckets, tokens) = found?;
        let made = Made {
            rows: rebuilt.rows,
            commits: rebuilt.commits,
            cut_bytes: rebuilt.cut_bytes,
            replaced: rebuilt.replaced.map(|path| path.display().to_string()),
            buckets,
            tokens,
        };
        out.show(&made, report)
    }
}

async fn look(access: &Access) -> Result<(Vec<Bucket>, usize)> {
    let client = access.client();
    let buckets = client.call::<BucketList>(&NoParams {}).await?.buckets;
    let tokens = client.call::<TokenList>(&NoParams {}).await?.tokens.len();
    Ok((buckets, tokens))
}

fn report(made: &Made) -> String {
    let mut text = format!(
        "the metadata store is made anew: {} rows of an image and {} commits behind it; {} buckets, {} tokens\n",
        made.rows,
        made.commits,
        made.buckets.len(),
        made.tokens
    );
    if made.cut_bytes > 0 {
        text += &format!(
            "{} bytes at the log's end were no whole commit: nobody was told that it is done\n",
            made.cut_bytes
        );
    }
    if let Some(replaced) = &made.replaced {
        text += &format!("the database that was there is {replaced}; remove it when all is well\n");
    }
    let row = |b: &Bucket| {
        vec![
            b.bucket.clone(),
            b.head.to_string(),
            b.objects.to_string(),
            b.bytes.to_string(),
        ]
    };
    let rows: Vec<_> = made.buckets.iter().map(row).collect();
    text + &output::table(&["BUCKET", ">POINT", ">OBJECTS", ">BYTES"], &rows)
}
