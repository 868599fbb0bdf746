//! Collections in a running site: what goes, what stays, and what others notice of it.

use crate::common::*;
use crate::full::Small;
use bytes::Bytes;
use restfs_lib::client::Client;
use restfs_lib::model::{BlockKey, ObjectId, Op};
use restfs_lib::wire::Code;
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::{ObjectAt, Role};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

async fn status(client: &Client) -> GcStatusResult {
    client.call::<GcStatus>(&NoParams {}).await.unwrap()
}

/// At once, whatever is how young.
pub(crate) async fn gc(client: &Client, dry_run: bool) -> GcReport {
    let params = GcStartParams {
        rate: Some(0),
        grace: Some(0),
        dry_run,
    };
    client.call::<GcStart>(&params).await.unwrap();
    let ended = ended(client).await;
    assert_eq!(ended.error, None);
    if dry_run { ended.planned } else { ended.last }.unwrap()
}

pub(crate) async fn collect(client: &Client) -> GcReport {
    gc(client, false).await
}

pub(crate) async fn ended(client: &Client) -> GcStatusResult {
    let until = Instant::now() + PATIENCE;
    loop {
        let now = status(client).await;
        match now.running {
            None => return now,
            Some(_) => assert!(Instant::now() < until, "it does not end: {now:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn noise(number: u64, length: usize) -> (BlockKey, Bytes) {
    let mut bytes = vec![0; length];
    blake3::Hasher::new()
        .update(&number.to_be_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    let (key, bytes, _) = block(&bytes);
    (key, bytes)
}

/// A file of one block, overwritten at each point.
async fn overwrite(client: &Client, points: std::ops::RangeInclusive<u64>) {
    for last in points {
        let (key, bytes) = noise(last, 60_000);
        client.put_blocks(vec![(key, bytes.clone())]).await.unwrap();
        let mut ops = file(2, "budget", &bytes);
        if last == 1 {
            ops.insert(0, root());
        }
        client.commit(BUCKET, &commit(1, last, last, ops)).await.unwrap();
    }
}

async fn read(client: &Client, point: u64) -> Bytes {
    client
        .read(BUCKET, ObjectAt::path("/budget"), Some(point), 0, 100_000)
        .await
        .unwrap()
}

pub(crate) async fn purge(client: &Client, before: u64) {
    let params = BucketPurgeParams {
        bucket: BUCKET.to_owned(),
        before: before.to_string(),
        dry_run: false,
    };
    client.call::<BucketPurge>(&params).await.unwrap();
    let name = BucketName {
        bucket: BUCKET.to_owned(),
    };
    let until = Instant::now() + PATIENCE;
    while client.call::<BucketInfo>(&name).await.unwrap().purging {
        assert!(Instant::now() < until, "it does not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn purged_history_deleted_buckets_and_uploads_that_were_never_committed_give_their_space_back() {
    let mut site = Site::start().await;
    site.bucket().await;
    let admin = site.admin().await;
    overwrite(&admin, 1..=40).await;
    // An upload that nobody commits, and a bucket of its own content.
    let orphans: Vec<_> = (1000..1010).map(|n| noise(n, 60_000)).collect();
    admin.put_blocks(orphans.clone()).await.unwrap();
    let other = BucketName {
        bucket: "other".to_owned(),
    };
    let create = BucketCreateParams {
        bucket: other.bucket.clone(),
        layout: None,
    };
    admin.call::<BucketCreate>(&create).await.unwrap();
    let edits = vec![
        Edit::Create {
            path: "/f".into(),
            mode: 0o600,
        },
        Edit::Write {
            object: ObjectAt::path("/f"),
            offset: 0,
            content: restfs_lib::wire::Content(noise(2000, 60_000).1),
        },
    ];
    admin.apply("other", edits).await.unwrap();
    let before = admin.server_info().await.unwrap();
    assert_eq!(before.blocks, 51);
    // What is within the grace stays.
    let params = GcStartParams {
        grace: Some(3600),
        ..GcStartParams::default()
    };
    admin.call::<GcStart>(&params).await.unwrap();
    let report = ended(&admin).await.last.unwrap();
    assert_eq!((report.dead_blocks, report.removed_blocks), (10, 0));
    assert!(report.young_bytes > 600_000, "{report:?}");
    purge(&admin, 31).await;
    admin.call::<BucketDelete>(&other).await.unwrap();
    let planned = gc(&admin, true).await;
    assert_eq!(planned.dead_blocks, 41);
    assert_eq!(admin.server_info().await.unwrap().blocks, 51);
    let report = collect(&admin).await;
    assert_eq!(
        (report.removed_blocks, report.freed_bytes),
        (41, planned.freed_bytes)
    );
    let after = admin.server_info().await.unwrap();
    assert_eq!(after.blocks, 10);
    assert!(
        after.stored_bytes < before.stored_bytes / 4,
        "{} of {}",
        after.stored_bytes,
        before.stored_bytes
    );
    for point in 31..=40 {
        assert_eq!(read(&admin, point).await, noise(point, 60_000).1);
    }
    let keys: Vec<BlockKey> = orphans.iter().map(|(key, _)| *key).collect();
    assert_eq!(admin.missing(&keys).await.unwrap(), keys);
    // It is known after a restart, and nothing is left to do.
    drop(admin);
    site.restart().await;
    let admin = site.admin().await;
    assert_eq!(status(&admin).await.last, Some(report));
    assert_eq!(gc(&admin, true).await.freed_bytes, 0);
    drop(admin);
    site.stop().await;
}

/// It was told that the block is here, then a collection took it: the commit is refused before it is acknowledged.
#[tokio::test]
async fn a_commit_that_names_a_block_that_was_collected_is_refused_and_taken_when_it_is_sent_again() {
    let mut site = Site::start().await;
    site.bucket().await;
    let admin = site.admin().await;
    let client = site.client(Role::Replicator).await;
    overwrite(&client, 1..=2).await;
    let (key, bytes) = noise(77, 60_000);
    client.put_blocks(vec![(key, bytes.clone())]).await.unwrap();
    assert_eq!(client.missing(&[key]).await.unwrap(), []);
    collect(&admin).await;
    let named = || commit(1, 3, 3, file(3, "late", &bytes));
    assert_eq!(code(client.commit(BUCKET, &named()).await), Code::MissingBlocks);
    assert_eq!(client.missing(&[key]).await.unwrap(), [key]);
    client.put_blocks(vec![(key, bytes.clone())]).await.unwrap();
    client.commit(BUCKET, &named()).await.unwrap();
    collect(&admin).await;
    assert_eq!(client.get_blocks(&[key]).await.unwrap(), [bytes]);
    drop((client, admin));
    site.stop().await;
}

/// One collection after the other while sources write as fast as they can, and what they were told holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn sources_go_on_beside_collections_and_nothing_acknowledged_is_lost() {
    let mut site = Site::start().await;
    site.bucket().await;
    let admin = site.admin().await;
    overwrite(&admin, 1..=1).await;
    let client = site.client(Role::Replicator).await;
    let (ending, mut ended) = tokio::sync::watch::channel(false);
    // Blocks come, go with the purges, and come again: what is asked for is often what a collection has just condemned.
    let writing = tokio::spawn(async move {
        let (mut last, mut refused) = (1, 0_u64);
        while !*ended.borrow_and_update() {
            last += 1;
            let blocks: Vec<_> = (0..8).map(|n| noise((last * 5 + n) % 60, 20_000)).collect();
            let keys: Vec<BlockKey> = blocks.iter().map(|(key, _)| *key).collect();
            let ops: Vec<Op> = (0..8)
                .flat_map(|n| file(10 + n, &format!("f{n}"), &blocks[usize::try_from(n).unwrap()].1))
                .collect();
            loop {
                let missing = client.missing(&keys).await.unwrap();
                let sent: Vec<_> = blocks
                    .iter()
                    .filter(|(key, _)| missing.contains(key))
                    .cloned()
                    .collect();
                if !sent.is_empty() {
                    client.put_blocks(sent).await.unwrap();
                }
                match client.commit(BUCKET, &commit(1, last, last, ops.clone())).await {
                    Ok(_) => break,
                    Err(error) if error.code() == Some(Code::MissingBlocks) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            for (n, (_, bytes)) in blocks.iter().enumerate() {
                let read = client
                    .read(BUCKET, ObjectAt::Id(10 + n as u64), None, 0, 100_000)
                    .await
                    .unwrap();
                assert!(read == *bytes, "file {n} after change {last}");
            }
        }
        (last, refused)
    });
    let mut removed = 0;
    for _ in 0..15 {
        let name = BucketName {
            bucket: BUCKET.to_owned(),
        };
        let head = admin.call::<BucketInfo>(&name).await.unwrap().head;
        purge(&admin, head).await;
        removed += collect(&admin).await.removed_blocks;
    }
    ending.send_replace(true);
    let (last, refused) = writing.await.unwrap();
    eprintln!("{last} commits, {refused} of them sent again, {removed} blocks removed");
    assert!(removed > 0 && last > 15);
    // As it is on disk.
    site.restart().await;
    let admin = site.admin().await;
    let head = last;
    for n in 0..8 {
        let read = admin
            .read(BUCKET, ObjectAt::Id(10 + n), Some(head), 0, 100_000)
            .await
            .unwrap();
        assert!(read == noise((last * 5 + n) % 60, 20_000).1);
    }
    assert_eq!(admin.server_info().await.unwrap().damaged_blocks, 0);
    drop(admin);
    site.stop().await;
}

#[tokio::test]
async fn a_scrub_under_way_waits_for_a_collection_and_goes_on() {
    let mut site = Site::start().await;
    site.bucket().await;
    let admin = site.admin().await;
    overwrite(&admin, 1..=20).await;
    let slowly = ScrubStartParams {
        rate: Some(200_000),
        anew: true,
    };
    admin.call::<ScrubStart>(&slowly).await.unwrap();
    purge(&admin, 20).await;
    let report = collect(&admin).await;
    assert_eq!(report.removed_blocks, 19);
    assert!(
        admin
            .call::<ScrubStatus>(&NoParams {})
            .await
            .unwrap()
            .running
            .is_some()
    );
    let fast = ScrubStartParams {
        rate: Some(0),
        anew: false,
    };
    admin.call::<ScrubStart>(&fast).await.unwrap();
    let until = Instant::now() + PATIENCE;
    let ended = loop {
        let status = admin.call::<ScrubStatus>(&NoParams {}).await.unwrap();
        if status.running.is_none() {
            break status;
        }
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let last = ended.last.unwrap();
    assert_eq!(
        (ended.error, last.damages, last.files, last.unused),
        (None, 0, 0, 0)
    );
    drop(admin);
    site.stop().await;
}

#[tokio::test]
async fn one_that_is_due_comes_by_itself() {
    let mut site = Site::start_with(|_, config| {
        config.gc.grace = Duration::ZERO;
        config.gc.every = Some(Duration::from_millis(1));
    })
    .await;
    site.bucket().await;
    let admin = site.admin().await;
    admin.put_blocks(vec![noise(1, 1000)]).await.unwrap();
    let until = Instant::now() + PATIENCE;
    while admin.server_info().await.unwrap().blocks > 0 {
        assert!(Instant::now() < until, "nothing comes");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(admin);
    site.stop().await;
}

/// The blocks of a file that differs at each point, and the ops that put it.
fn mebibyte(point: u64) -> (Vec<(BlockKey, Bytes)>, Vec<Op>) {
    let blocks: Vec<_> = (0..16).map(|n| noise(point * 100 + n, 65_536)).collect();
    let id = ObjectId(2);
    let mut ops = vec![
        root(),
        Op::PutObject {
            id,
            object: object(restfs_lib::model::Kind::File, 1 << 40),
        },
    ];
    ops.extend(blocks.iter().enumerate().map(|(n, (_, bytes))| Op::PutBlocks {
        id,
        segment: n as u64,
        blocks: vec![(0, Some(block(bytes).2))],
    }));
    (blocks, ops)
}

/// Deletes, purges and collections are not refused, and afterwards there is space.
#[tokio::test]
async fn a_full_site_purges_and_collects_and_takes_content_again() {
    const MIB: u64 = 1 << 20;
    let mut small = None;
    let mut site = Site::start_with(|_, config| {
        small = Small::mount(&config.data_dir, 160);
        config.space.reserve = small.is_some().then_some(60 * MIB);
    })
    .await;
    if small.is_none() {
        site.stop().await;
        return eprintln!("skipped: only root can mount a small file system");
    }
    site.bucket().await;
    let admin = site.admin().await;
    let mut last = 0;
    loop {
        let (blocks, ops) = mebibyte(last + 1);
        if let Err(error) = admin.put_blocks(blocks).await {
            assert_eq!(error.code(), Some(Code::Full));
            break;
        }
        last += 1;
        admin.commit(BUCKET, &commit(1, last, last, ops)).await.unwrap();
    }
    assert!(last > 40, "{last}");
    // Below half of the reserve nothing is taken that adds.
    let ballast = site.config.data_dir.join("ballast");
    let free = admin.server_info().await.unwrap().free_bytes;
    std::fs::write(&ballast, vec![0; usize::try_from(free - 25 * MIB).unwrap()]).unwrap();
    let adding = Op::PutAttribute {
        id: ObjectId::ROOT,
        name: b"user.x".to_vec(),
        value: b"x".to_vec(),
    };
    assert_eq!(
        code(
            admin
                .commit(BUCKET, &commit(1, last + 1, last + 1, vec![adding]))
                .await
        ),
        Code::Full
    );
    purge(&admin, last).await;
    let report = collect(&admin).await;
    // What was sent before it was full, and nobody named, has gone with it.
    assert!(report.removed_blocks >= 16 * (last - 1), "{report:?}");
    assert_eq!(report.packs_no_room, 0);
    assert!(report.freed_bytes > (last - 2) * MIB);
    let now = admin.server_info().await.unwrap().free_bytes;
    assert!(now > 25 * MIB + (last - 5) * MIB, "{now} bytes are free");
    std::fs::remove_file(&ballast).unwrap();
    let (blocks, ops) = mebibyte(last + 1);
    admin.put_blocks(blocks).await.unwrap();
    admin
        .commit(BUCKET, &commit(1, last + 1, last + 1, ops))
        .await
        .unwrap();
    drop(admin);
    site.stop().await;
}
