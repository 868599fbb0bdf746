//! `restfs bucket`.

use super::access::Access;
use super::output::{self, Output};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use restfs_lib::model;
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::{Compression, Layout};

#[derive(Debug, Subcommand)]
pub(super) enum BucketCommand {
    /// Make a bucket
    Create {
        name: String,
        #[command(flatten)]
        layout: LayoutOptions,
    },
    /// List buckets
    List,
    /// Show a bucket
    Info { name: String },
    /// Change a bucket
    Set {
        name: String,
        #[command(flatten)]
        layout: LayoutOptions,
        /// Let another source replicate into it, and keep the present one out until this is said again: when the primary
        /// is lost for good
        #[arg(long)]
        release_source: bool,
    },
    /// Delete a bucket with all files and their history
    Delete {
        name: String,
        /// Really
        #[arg(long)]
        yes: bool,
    },
}

/// How files that clients write are cut and kept. A source that replicates brings its own.
#[derive(Debug, Args)]
pub(super) struct LayoutOptions {
    /// Bytes in a block: a power of two from 4096 to 4194304
    #[arg(long, value_name = "BYTES")]
    block_size: Option<u32>,
    /// Blocks in a segment: 1 to 1024
    #[arg(long, value_name = "COUNT")]
    segment_blocks: Option<u32>,
    /// Hash of blocks: blake3, sha256 or sha1
    #[arg(long)]
    hash: Option<model::HashAlgorithm>,
    /// Compress blocks where it helps: zstd or none
    #[arg(long, value_parser = compression)]
    compression: Option<Compression>,
}

impl LayoutOptions {
    /// `None`: nothing is said of it.
    fn over(&self, base: Layout) -> Option<Layout> {
        let layout = Layout {
            block_size: self.block_size.unwrap_or(base.block_size),
            segment_blocks: self.segment_blocks.unwrap_or(base.segment_blocks),
            hash: self.hash.map_or(base.hash, Into::into),
            compression: self.compression.unwrap_or(base.compression),
        };
        let said = self.block_size.is_some()
            || self.segment_blocks.is_some()
            || self.hash.is_some()
            || self.compression.is_some();
        said.then_some(layout)
    }
}

fn compression(text: &str) -> Result<Compression, String> {
    match text {
        "zstd" => Ok(Compression::Zstd),
        "none" => Ok(Compression::None),
        _ => Err("it is zstd or none".to_owned()),
    }
}

impl BucketCommand {
    pub(super) async fn run(self, access: &Access, out: Output) -> Result<()> {
        let client = access.client();
        match self {
            Self::Create { name, layout } => {
                let layout = layout.over(model::Layout::default().into());
                let made = client
                    .call::<BucketCreate>(&BucketCreateParams { bucket: name, layout })
                    .await?;
                out.show(&made, |made| format!("bucket {} is made\n", made.bucket))
            }
            Self::List => out.show(&client.call::<BucketList>(&NoParams {}).await?, |found| {
                many(&found.buckets)
            }),
            Self::Info { name } => out.show(
                &client.call::<BucketInfo>(&BucketName { bucket: name }).await?,
                one,
            ),
            Self::Set {
                name,
                layout,
                release_source,
            } => {
                let now = client
                    .call::<BucketInfo>(&BucketName { bucket: name.clone() })
                    .await?;
                let layout = layout.over(now.layout);
                if layout.is_none() && !release_source {
                    bail!("bucket {name}: nothing to set; see `restfs bucket set --help`");
                }
                let params = BucketSetParams {
                    bucket: name,
                    layout,
                    release_source,
                };
                out.show(&client.call::<BucketSet>(&params).await?, one)
            }
            Self::Delete { name, yes } => {
                if !yes {
                    bail!(
                        "bucket {name}: all its files and their history would be gone; say --yes if you mean it"
                    );
                }
                let text = format!("bucket {name} is deleted\n");
                let done = client.call::<BucketDelete>(&BucketName { bucket: name }).await?;
                out.show(&done, |_| text)
            }
        }
    }
}

fn many(buckets: &[Bucket]) -> String {
    let row = |b: &Bucket| {
        let source = b.source.as_ref().map_or("-".to_owned(), |s| s.source.clone());
        vec![
            b.bucket.clone(),
            b.head.to_string(),
            b.objects.to_string(),
            b.bytes.to_string(),
            source,
        ]
    };
    output::table(
        &["BUCKET", ">POINT", ">OBJECTS", ">BYTES", "SOURCE"],
        &buckets.iter().map(row).collect::<Vec<_>>(),
    )
}

fn one(b: &Bucket) -> String {
    let layout = model::Layout::try_from(b.layout).unwrap_or_default();
    let compression = if b.layout.compression == Compression::Zstd {
        "zstd"
    } else {
        "none"
    };
    let mut pairs = vec![
        ("bucket", b.bucket.clone()),
        ("created", output::time(b.created)),
        ("newest point", b.head.to_string()),
        ("oldest point", b.floor.to_string()),
        ("objects", b.objects.to_string()),
        ("bytes", b.bytes.to_string()),
        ("block size", b.layout.block_size.to_string()),
        ("segment blocks", b.layout.segment_blocks.to_string()),
        ("hash", layout.hash.to_string()),
        ("compression", compression.to_owned()),
    ];
    if let Some(source) = &b.source {
        pairs.push(("source", source.source.clone()));
        pairs.push(("epoch", source.epoch.to_string()));
        pairs.push(("sequence", source.sequence.to_string()));
    }
    output::list(&pairs)
}
