//! A bit of the metadata database that is not what was written: no collection goes by what is left, nothing is lost for good,
//! and with the database made anew all is as it was.

use crate::common::*;
use crate::gc::{collect, ended, noise};
use crate::scrub::{packs, scrub};
use bytes::Bytes;
use restfs::data_dir::DataDir;
use restfs_lib::client::Client;
use restfs_lib::model::{BlockKey, Digest, ObjectId, Op};
use restfs_lib::wire::Code;
use restfs_lib::wire::method::*;
use std::path::PathBuf;

/// More than two pages of what a collection reads at once, in the first bucket.
const SEGMENTS: [u64; 3] = [1100, 20, 20];
const BUCKETS: [&str; 3] = ["data", "other", "third"];
/// So many that nothing needs that every pack is worth a sweep.
const ORPHANS: u64 = 1500;
const LENGTH: usize = 300;

/// What is in a site, and has to be there at the end.
struct Content {
    blocks: Vec<(BlockKey, Bytes)>,
    digests: Vec<(Digest, u64)>,
}

async fn fill(site: &Site) -> Content {
    let admin = site.admin().await;
    let mut all = Vec::new();
    for (number, (name, segments)) in (1..).zip(BUCKETS.iter().zip(SEGMENTS)) {
        let create = BucketCreateParams {
            bucket: (*name).to_owned(),
            layout: None,
        };
        admin.call::<BucketCreate>(&create).await.unwrap();
        let blocks: Vec<_> = (0..segments)
            .map(|n| noise(number * 10_000 + n, LENGTH))
            .collect();
        admin.put_blocks(blocks.clone()).await.unwrap();
        let id = ObjectId(2);
        let mut ops = vec![
            root(),
            Op::PutObject {
                id,
                object: object(restfs_lib::model::Kind::File, 1 << 40),
            },
        ];
        ops.extend((0..).zip(&blocks).map(|(segment, (_, bytes))| Op::PutBlocks {
            id,
            segment,
            blocks: vec![(0, Some(block(bytes).2))],
        }));
        admin.commit(name, &commit(1, 1, 1, ops)).await.unwrap();
        all.extend(blocks);
    }
    let orphans = (0..ORPHANS).map(|n| noise(1_000_000 + n, LENGTH)).collect();
    admin.put_blocks(orphans).await.unwrap();
    Content {
        blocks: all,
        digests: digests(&admin).await,
    }
}

async fn digests(client: &Client) -> Vec<(Digest, u64)> {
    let mut all = Vec::new();
    for name in BUCKETS {
        all.push(client.digest(name).await.unwrap());
    }
    all
}

/// A row as it is in the file.
struct Row {
    key: Vec<u8>,
    value: Vec<u8>,
}

/// Of a site that is stopped, in the order of their keys.
fn rows(site: &Site, first: u8, bucket: u64) -> Vec<Row> {
    let database = rusqlite::Connection::open(database(site)).unwrap();
    let mut statement = database
        .prepare("SELECT k, v FROM kv WHERE substr(k, 1, 9) = ?1 ORDER BY k")
        .unwrap();
    let prefix = [&[first][..], &bucket.to_be_bytes()].concat();
    let rows = statement.query_map([prefix], |row| {
        Ok(Row {
            key: row.get(0)?,
            value: row.get(1)?,
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn database(site: &Site) -> PathBuf {
    site.config.data_dir.join("metadata.db")
}

/// Flips a bit of the row's key or of what is behind it, wherever the file has it.
fn flip(site: &Site, row: &Row, byte: usize, bit: u8) {
    let mut file = std::fs::read(database(site)).unwrap();
    let bytes = [&row.key[..], &row.value[..]].concat();
    let at: Vec<usize> = (0..file.len() - bytes.len())
        .filter(|at| file[*at..].starts_with(&bytes))
        .collect();
    assert!(!at.is_empty(), "the row is not in the file");
    for at in at {
        file[at + byte] ^= bit;
    }
    std::fs::write(database(site), file).unwrap();
}

fn sizes(site: &Site) -> Vec<(PathBuf, u64)> {
    let size = |path: PathBuf| {
        let size = std::fs::metadata(&path).unwrap().len();
        (path, size)
    };
    packs(site).into_iter().map(size).collect()
}

async fn refused(admin: &Client, dry_run: bool) {
    let params = GcStartParams {
        rate: Some(0),
        grace: Some(0),
        dry_run,
    };
    admin.call::<GcStart>(&params).await.unwrap();
    let ended = ended(admin).await;
    let error = ended.error.expect("it was collected by damaged metadata");
    for part in ["nothing was collected", "damaged", "`restfs rebuild --replace`"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!((ended.last, ended.planned), (None, None));
}

/// What `spoil` does to the database shows, costs nothing, and goes away.
async fn shows_costs_nothing_and_goes_away(spoil: impl FnOnce(&Site)) {
    let mut site = Site::start().await;
    let content = fill(&site).await;
    site.stop().await;
    spoil(&site);
    site.restart().await;
    let before = sizes(&site);
    let admin = site.admin().await;
    refused(&admin, false).await;
    refused(&admin, true).await;
    let after = sizes(&site);
    assert!(
        before.iter().all(|pack| after.contains(pack)),
        "{before:?} {after:?}"
    );
    let report = scrub(&admin).await.last.unwrap();
    assert!(!report.metadata.is_empty());
    assert_eq!((report.damages, report.files), (0, 0));
    drop(admin);
    site.stop().await;
    let data_dir = DataDir::lock(&site.config.data_dir).unwrap();
    data_dir.rebuild(&site.config, true).unwrap();
    drop(data_dir);
    site.restart().await;
    let admin = site.admin().await;
    assert_eq!(scrub(&admin).await.last.unwrap().metadata, Vec::<String>::new());
    assert_eq!(collect(&admin).await.removed_blocks, ORPHANS);
    assert_eq!(digests(&admin).await, content.digests);
    for blocks in content.blocks.chunks(100) {
        let keys: Vec<BlockKey> = blocks.iter().map(|(key, _)| *key).collect();
        let bytes = admin.get_blocks(&keys).await.unwrap();
        assert!(blocks.iter().map(|(_, bytes)| bytes).eq(&bytes));
    }
    drop(admin);
    site.stop().await;
}

#[tokio::test]
async fn in_the_name_of_a_block() {
    shows_costs_nothing_and_goes_away(|site| {
        let row = &rows(site, b's', 1)[700];
        let name = noise(10_700, LENGTH).0.0;
        let at = row.value.windows(32).position(|part| part == name).unwrap();
        flip(site, row, row.key.len() + at + 20, 1);
    })
    .await;
}

#[tokio::test]
async fn in_the_kind_of_a_row() {
    shows_costs_nothing_and_goes_away(|site| flip(site, &rows(site, b's', 1)[300], 0, 8)).await;
}

#[tokio::test]
async fn in_the_bucket_of_a_row() {
    shows_costs_nothing_and_goes_away(|site| flip(site, &rows(site, b's', 1)[300], 8, 2)).await;
}

/// With it the row still is where it belongs by its order: only nobody reads it.
#[tokio::test]
async fn in_the_bucket_of_the_last_row() {
    shows_costs_nothing_and_goes_away(|site| flip(site, rows(site, b's', 3).last().unwrap(), 8, 4)).await;
}

/// What comes after it would be looked for behind a place that is far behind.
#[tokio::test]
async fn in_the_object_of_the_last_row_of_a_page() {
    shows_costs_nothing_and_goes_away(|site| flip(site, &rows(site, b's', 1)[499], 10, 1)).await;
}

#[tokio::test]
async fn in_the_mark_that_a_bucket_was_deleted() {
    shows_costs_nothing_and_goes_away(|site| {
        let row = &rows(site, b'B', 2)[0];
        // The last byte before the checksum.
        flip(site, row, row.key.len() + row.value.len() - 5, 1);
    })
    .await;
}

#[tokio::test]
async fn a_row_that_is_not_what_was_written_is_not_served() {
    let mut site = Site::start().await;
    fill(&site).await;
    site.stop().await;
    let row = &rows(&site, b'o', 1)[1];
    // The lowest bit of the mode, behind version and kind.
    flip(&site, row, row.key.len() + 2, 1);
    site.restart().await;
    let admin = site.admin().await;
    let at = || restfs_lib::wire::values::ObjectAt::Id(2);
    assert_eq!(code(admin.stat("data", at(), None).await), Code::Corrupt);
    assert_eq!(admin.stat("other", at(), None).await.unwrap().object.mode, 0o640);
    drop(admin);
    site.stop().await;
}

/// An image of a damaged database would take the place of the logs that it is made anew from.
#[tokio::test]
async fn a_damaged_commit_log_is_not_replaced_from_a_damaged_database() {
    let mut site = Site::start().await;
    fill(&site).await;
    site.stop().await;
    flip(&site, &rows(&site, b's', 1)[300], 8, 2);
    let folder = site.config.data_dir.join("commits");
    let files = || {
        let entries = std::fs::read_dir(&folder).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let image = files()
        .into_iter()
        .find(|path| path.extension().is_some_and(|e| e == "image"))
        .unwrap();
    site.restart().await;
    let mut bytes = std::fs::read(&image).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&image, bytes).unwrap();
    let before = files();
    let admin = site.admin().await;
    let report = scrub(&admin).await.last.unwrap();
    assert_eq!(report.logs, [image.display().to_string()]);
    assert!(!report.metadata.is_empty());
    assert_eq!(files(), before);
    drop(admin);
    site.stop().await;
}
