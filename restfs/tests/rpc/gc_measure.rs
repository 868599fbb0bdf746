//! What purges and collections give back, how fast, and what sources notice of them. Takes about a minute:
//! `cargo test -p restfs --test rpc --release -- --ignored --nocapture measure`

use crate::common::*;
use crate::gc::{collect, noise, purge};
use bytes::Bytes;
use restfs_lib::client::Client;
use restfs_lib::model::{BlockKey, ObjectId, Op};
use restfs_lib::wire::method::*;
use std::path::Path;
use std::time::{Duration, Instant};

const BLOCK: usize = 65_536;

fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.file_type().unwrap() {
            kind if kind.is_dir() => bytes_below(&entry.path()),
            kind if kind.is_file() => entry.metadata().unwrap().len(),
            _ => 0,
        })
        .sum()
}

async fn put(client: &Client, blocks: Vec<(BlockKey, Bytes)>) {
    client.put_blocks(blocks).await.unwrap();
}

/// A change of `count` blocks of a file of that many segments.
async fn change(client: &Client, last: u64, count: u64) {
    let blocks: Vec<_> = (0..count).map(|n| noise(last * 1_000 + n, BLOCK)).collect();
    let put_blocks = |(n, (_, bytes)): (usize, &(BlockKey, Bytes))| Op::PutBlocks {
        id: ObjectId(2),
        segment: n as u64,
        blocks: vec![(0, Some(block(bytes).2))],
    };
    let mut ops: Vec<Op> = blocks.iter().enumerate().map(put_blocks).collect();
    if last == 1 {
        ops.insert(0, root());
        ops.push(Op::PutObject {
            id: ObjectId(2),
            object: object(restfs_lib::model::Kind::File, 1 << 40),
        });
    }
    put(client, blocks).await;
    client.commit(BUCKET, &commit(1, last, last, ops)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn measure_what_a_purge_and_a_collection_give_back() {
    let mut site = Site::start().await;
    site.bucket().await;
    let admin = site.admin().await;
    let (points, kept) = (400, 20);
    for last in 1..=points {
        change(&admin, last, 16).await;
    }
    let before = bytes_below(&site.config.data_dir);
    let began = Instant::now();
    purge(&admin, points - kept + 1).await;
    let purged = began.elapsed();
    let began = Instant::now();
    let report = collect(&admin).await;
    let collected = began.elapsed();
    let after = bytes_below(&site.config.data_dir);
    println!(
        "{points} points of 1 MiB, {kept} kept: {before} bytes before, {after} after; purge {purged:?}, gc {collected:?}, {report:?}"
    );
    assert!(after < before / 10);
    drop(admin);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn measure_blocks_a_second() {
    let mut site = Site::start().await;
    site.bucket().await;
    let admin = site.admin().await;
    admin
        .commit(BUCKET, &commit(1, 1, 1, vec![root()]))
        .await
        .unwrap();
    let blocks = 400_000;
    for from in (0..blocks).step_by(4_000) {
        put(&admin, (from..from + 4_000).map(|n| noise(n, 400)).collect()).await;
    }
    // Half of them are needed.
    for (at, from) in (0..blocks / 2).step_by(1_000).enumerate() {
        let blocks = (0..1_000).map(|n| block(&noise((from + n) * 2, 400).1).2);
        let segment = Op::PutBlocks {
            id: ObjectId(2),
            segment: at as u64,
            blocks: (0..).zip(blocks.map(Some)).collect(),
        };
        let file = Op::PutObject {
            id: ObjectId(2),
            object: restfs_lib::model::Object {
                layout: restfs_lib::model::Layout {
                    segment_blocks: 1_000,
                    ..Default::default()
                },
                ..object(restfs_lib::model::Kind::File, 1 << 40)
            },
        };
        let last = at as u64 + 2;
        admin
            .commit(BUCKET, &commit(1, last, last, vec![file, segment]))
            .await
            .unwrap();
    }
    let began = Instant::now();
    let planned = crate::gc::gc(&admin, true).await;
    let weighed = began.elapsed();
    assert_eq!(planned.blocks, blocks);
    let began = Instant::now();
    let report = collect(&admin).await;
    let swept = began.elapsed();
    let rate = |time: Duration| blocks as f64 / time.as_secs_f64();
    println!(
        "{blocks} blocks, half of them needed: {:.0} blocks/s to mark and weigh, {:.0} blocks/s in all; {report:?}",
        rate(weighed),
        rate(swept)
    );
    assert!(report.removed_blocks > blocks / 2 - 1_000);
    drop(admin);
    site.stop().await;
}

/// Commits a second of one source, one after the other, for some time.
async fn ingest(client: &Client, last: &mut u64, time: Duration) -> f64 {
    let (began, first) = (Instant::now(), *last);
    while began.elapsed() < time {
        *last += 1;
        change(client, *last, 4).await;
    }
    (*last - first) as f64 / began.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn measure_ingest_beside_collections() {
    let mut site = Site::start().await;
    site.bucket().await;
    let (admin, client) = (site.admin().await, site.admin().await);
    let mut last = 0;
    for _ in 0..500 {
        last += 1;
        change(&client, last, 16).await;
    }
    let time = Duration::from_secs(5);
    for rate in [None, Some(0)] {
        let alone = ingest(&client, &mut last, time).await;
        let (ending, ended) = tokio::sync::watch::channel(false);
        let collecting = tokio::spawn({
            let admin = admin.clone();
            async move {
                let (mut runs, mut copied) = (0, 0);
                while !*ended.borrow() {
                    // A fifth and more of what is there goes, so that the rest is copied.
                    let name = BucketName {
                        bucket: BUCKET.to_owned(),
                    };
                    let bucket = admin.call::<BucketInfo>(&name).await.unwrap();
                    purge(&admin, bucket.floor + (bucket.head - bucket.floor) / 4).await;
                    let params = GcStartParams {
                        rate,
                        grace: Some(0),
                        dry_run: false,
                    };
                    admin.call::<GcStart>(&params).await.unwrap();
                    let report = loop {
                        let status = admin.call::<GcStatus>(&NoParams {}).await.unwrap();
                        match status.running {
                            None => break status.last.unwrap(),
                            Some(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                        }
                        if *ended.borrow() {
                            return (runs, copied);
                        }
                    };
                    (runs, copied) = (runs + 1, copied + report.copied_bytes);
                }
                (runs, copied)
            }
        });
        let beside = ingest(&client, &mut last, time).await;
        ending.send_replace(true);
        let (runs, copied) = collecting.await.unwrap();
        println!(
            "rate {rate:?}: {alone:.1} commits of 256 KiB a second alone, {beside:.1} beside collections ({:.2}); {runs} of them ended, {copied} bytes copied",
            beside / alone
        );
        assert!(beside > alone / 20.0);
    }
    drop((admin, client));
    site.stop().await;
}
