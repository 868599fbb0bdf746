//! Damage in the packs: found, told by file, never served, and mended by what a source does when trees differ.

use crate::common::*;
use crate::rebuild::Dice;
use restfs_lib::client::Client;
use restfs_lib::model::{BlockKey, Digest, Kind, ObjectId, Op, RowKey};
use restfs_lib::wire::Code;
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::{ObjectAt, Role};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

async fn status(client: &Client) -> ScrubStatusResult {
    client.call::<ScrubStatus>(&NoParams {}).await.unwrap()
}

/// As fast as it goes, from the beginning to the end.
pub(crate) async fn scrub(client: &Client) -> ScrubStatusResult {
    let params = ScrubStartParams {
        rate: Some(0),
        anew: true,
    };
    client.call::<ScrubStart>(&params).await.unwrap();
    ended(client).await
}

async fn ended(client: &Client) -> ScrubStatusResult {
    let until = Instant::now() + PATIENCE;
    loop {
        let now = status(client).await;
        assert_eq!(now.error, None);
        match now.running {
            None => return now,
            Some(_) => assert!(Instant::now() < until, "it does not end: {now:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn packs(site: &Site) -> Vec<PathBuf> {
    let folder = site.config.data_dir.join("blocks/packs");
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    found.sort();
    found
}

/// Flips a bit in the payload of the block with this content.
fn spoil(path: &Path, content: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    let key = blake3::hash(content);
    let at = bytes.windows(32).position(|w| w == key.as_bytes()).unwrap();
    // Behind the key are two checksums.
    bytes[at + 32 + 8] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

async fn put(client: &Client, content: &[u8]) -> BlockKey {
    let (key, bytes, _) = block(content);
    client.put_blocks(vec![(key, bytes)]).await.unwrap();
    key
}

/// Differs from others by number, and does not compress.
fn noise(number: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new()
        .update(&[number])
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

async fn filled() -> (Site, Client) {
    let site = Site::start().await;
    site.bucket().await;
    let client = site.client(Role::Replicator).await;
    let (old, new, other) = (noise(1, 500), noise(2, 500), noise(3, 500));
    for content in [&old, &new, &other] {
        put(&client, content).await;
    }
    let mut ops = vec![root()];
    ops.extend(file(2, "budget", &old));
    ops.extend(file(3, "other", &other));
    client.commit(BUCKET, &commit(1, 1, 1, ops)).await.unwrap();
    client
        .commit(BUCKET, &commit(1, 2, 2, file(2, "budget", &new)))
        .await
        .unwrap();
    (site, client)
}

async fn rows(client: &Client) -> Vec<(RowKey, Digest)> {
    client.rows(BUCKET, 0, None, 1000).await.unwrap()
}

#[tokio::test]
async fn blocks_that_any_point_needs_are_asked_for_by_who_replicates_into_the_bucket() {
    let (site, client) = filled().await;
    let wanted = async |after, limit| client.wanted(BUCKET, after, limit).await.unwrap();
    assert_eq!(wanted(None, 10).await, []);
    let pack = packs(&site)[0].clone();
    let contents = [1, 2, 3].map(|number| noise(number, 500));
    contents.iter().for_each(|content| spoil(&pack, content));
    let never_named = put(&client, &noise(4, 500)).await;
    // So that it is synced.
    client.commit(BUCKET, &commit(1, 3, 3, vec![])).await.unwrap();
    spoil(&pack, &noise(4, 500));
    let admin = site.admin().await;
    scrub(&admin).await;
    assert_eq!(client.missing(&[never_named]).await.unwrap(), [never_named]);
    let mut keys = contents.each_ref().map(|content| block(content).0);
    keys.sort();
    assert_eq!(wanted(None, 10).await, keys);
    assert_eq!(wanted(None, 2).await, keys[..2]);
    assert_eq!(wanted(Some(keys[0]), 10).await, keys[1..]);
    for content in &contents[..2] {
        put(&client, content).await;
    }
    assert_eq!(wanted(None, 10).await, [block(&contents[2]).0]);
    put(&client, &contents[2]).await;
    assert_eq!(wanted(None, 10).await, []);
    let other = BucketCreateParams {
        bucket: "other".to_owned(),
        layout: None,
    };
    admin.call::<BucketCreate>(&other).await.unwrap();
    let token = site.token(Role::Replicator, Some("other")).await.token;
    let stranger = Client::connect(&site.endpoint().with_token(token)).await.unwrap();
    assert_eq!(code(stranger.wanted(BUCKET, None, 10).await), Code::Forbidden);
    assert_eq!(stranger.wanted("other", None, 10).await.unwrap(), []);
}

#[tokio::test]
async fn damage_is_found_in_the_last_of_more_than_a_thousand_buckets() {
    let (site, client) = filled().await;
    let admin = site.admin().await;
    let create = |number| {
        let params = BucketCreateParams {
            bucket: format!("a{number}"),
            layout: None,
        };
        let admin = &admin;
        async move { admin.call::<BucketCreate>(&params).await }
    };
    for result in futures_util::future::join_all((0..1001).map(create)).await {
        result.unwrap();
    }
    spoil(&packs(&site)[0], &noise(2, 500));
    let last = scrub(&admin).await.last.unwrap();
    assert_eq!((last.files, &last.objects[0].bucket[..]), (1, BUCKET));
    assert_eq!(client.wanted(BUCKET, None, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn damage_is_told_by_file_makes_the_trees_differ_and_a_resync_mends_it() {
    let (mut site, client) = filled().await;
    let admin = site.admin().await;
    let clean = scrub(&admin).await;
    let last = clean.last.unwrap();
    assert_eq!(
        (last.damages, last.unused, last.files, clean.damaged_blocks),
        (0, 0, 0, 0)
    );
    let whole = (client.digest(BUCKET).await.unwrap().0, rows(&client).await);
    let pack = packs(&site)[0].clone();
    for number in [1, 2] {
        spoil(&pack, &noise(number, 500));
    }
    let found = scrub(&admin).await;
    assert_eq!(found.damaged_blocks, 2);
    let last = found.last.unwrap();
    assert_eq!((last.damages, last.files), (2, 1));
    let file_now = &last.objects[0];
    let path = file_now.path.clone().unwrap().0;
    assert_eq!(
        (
            &file_now.bucket[..],
            &path[..],
            file_now.blocks,
            file_now.head,
            file_now.from
        ),
        (BUCKET, &b"/budget"[..], 2, true, 1)
    );
    // Never served.
    let read = client
        .read(BUCKET, ObjectAt::path("/budget"), None, 0, 1000)
        .await;
    assert_eq!(code(read), Code::Corrupt);
    // The source sees it, and nothing else: the groups say what the tree says, the rows what the groups say.
    let differs = client.digest(BUCKET).await.unwrap().0;
    assert_ne!(differs, whole.0);
    let groups = client.groups(BUCKET, None, 10).await.unwrap();
    assert_eq!(groups, [(0, differs)]);
    let now = rows(&client).await;
    let different: Vec<_> = now.iter().filter(|row| !whole.1.contains(row)).collect();
    let lost = RowKey::Segment {
        id: ObjectId(2),
        segment: 0,
    };
    assert_eq!(different, [&(lost, Digest::ZERO)]);
    let sum = now
        .iter()
        .fold(Digest::ZERO, |sum, (_, digest)| sum.plus(*digest));
    assert_eq!(sum, differs);
    // It is known after a restart.
    drop((client, admin));
    site.restart().await;
    let client = site.client(Role::Replicator).await;
    let until = Instant::now() + PATIENCE;
    while client.digest(BUCKET).await.unwrap().0 == whole.0 {
        assert!(Instant::now() < until, "the damage was forgotten");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What a source does then.
    let (now, before) = (noise(2, 500), noise(1, 500));
    let resync = || restfs_lib::client::Commit {
        resync: true,
        ..commit(2, 0, 2, file(2, "budget", &now))
    };
    assert_eq!(code(client.commit(BUCKET, &resync()).await), Code::MissingBlocks);
    put(&client, &now).await;
    client.commit(BUCKET, &resync()).await.unwrap();
    assert_eq!(client.digest(BUCKET).await.unwrap().0, whole.0);
    let read = client
        .read(BUCKET, ObjectAt::path("/budget"), None, 0, 1000)
        .await;
    assert_eq!(read.unwrap(), now);
    // Only an earlier point lacks one now.
    let admin = site.admin().await;
    let found = scrub(&admin).await;
    assert_eq!(found.damaged_blocks, 1);
    let objects = found.last.unwrap().objects;
    assert_eq!((objects.len(), objects[0].head, objects[0].from), (1, false, 1));
    put(&client, &before).await;
    let found = scrub(&admin).await;
    assert_eq!((found.damaged_blocks, found.last.unwrap().files), (0, 0));
    drop((client, admin));
    site.stop().await;
}

#[tokio::test]
async fn blocks_of_a_pack_that_is_gone_are_told_by_file_even_without_the_index() {
    for without_index in [false, true] {
        let (mut site, client) = filled().await;
        drop(client);
        site.stop().await;
        std::fs::remove_file(&packs(&site)[0]).unwrap();
        if without_index {
            for name in ["index.db", "index.db-wal", "index.db-shm"] {
                let _ = std::fs::remove_file(site.config.data_dir.join("blocks").join(name));
            }
        }
        site.restart().await;
        let admin = site.admin().await;
        let found = scrub(&admin).await;
        assert_eq!(found.damaged_blocks, 3);
        let mut objects: Vec<(Vec<u8>, u64)> = found
            .last
            .unwrap()
            .objects
            .into_iter()
            .map(|o| (o.path.unwrap().0, o.blocks))
            .collect();
        objects.sort();
        assert_eq!(objects, [(b"/budget".to_vec(), 2), (b"/other".to_vec(), 1)]);
        drop(admin);
        site.stop().await;
    }
}

#[tokio::test]
async fn blocks_behind_the_end_of_a_pack_that_was_cut_off_are_told_by_file() {
    let (mut site, client) = filled().await;
    drop(client);
    site.stop().await;
    // Behind the first of three records, of 56 bytes and 500 of content, and in the middle of the second.
    let pack = std::fs::OpenOptions::new()
        .write(true)
        .open(&packs(&site)[0])
        .unwrap();
    assert_eq!(pack.metadata().unwrap().len(), 24 + 3 * 556);
    pack.set_len(24 + 556 + 100).unwrap();
    site.restart().await;
    let admin = site.admin().await;
    let found = scrub(&admin).await;
    assert_eq!(found.damaged_blocks, 2);
    let report = found.last.unwrap();
    let mut objects: Vec<(Vec<u8>, u64, u64)> = report
        .objects
        .into_iter()
        .map(|o| (o.path.unwrap().0, o.blocks, o.from))
        .collect();
    objects.sort();
    assert_eq!(objects, [(b"/budget".to_vec(), 1, 2), (b"/other".to_vec(), 1, 1)]);
    let read = |path: &'static str, point| admin.read(BUCKET, ObjectAt::path(path), point, 0, 1000);
    assert_eq!(read("/budget", Some(1)).await.unwrap(), noise(1, 500));
    for path in ["/budget", "/other"] {
        assert_eq!(code(read(path, None).await), Code::NotFound);
    }
    drop(admin);
    site.stop().await;
}

/// Every other block or so is hit, in its content, its checksums, its lengths or its name.
#[tokio::test]
async fn of_a_thousand_flipped_bits_none_is_served_and_a_source_mends_all() {
    const BLOCKS: u64 = 2000;
    const LENGTH: usize = 4096;
    let content = |n: u64| crate::gc::noise(n, LENGTH).1;
    let put_block = |n: u64| Op::PutBlocks {
        id: ObjectId(2),
        segment: n,
        blocks: vec![(0, Some(block(&content(n)).2))],
    };
    let mut site = Site::start().await;
    site.bucket().await;
    let client = site.client(Role::Replicator).await;
    for n in (0..BLOCKS).step_by(500) {
        let blocks = (n..n + 500).map(|n| crate::gc::noise(n, LENGTH)).collect();
        client.put_blocks(blocks).await.unwrap();
    }
    let mut ops = vec![
        root(),
        Op::PutObject {
            id: ObjectId(2),
            object: object(Kind::File, 1 << 40),
        },
    ];
    ops.extend((0..BLOCKS).map(put_block));
    client.commit(BUCKET, &commit(1, 1, 1, ops)).await.unwrap();
    let whole = client.digest(BUCKET).await.unwrap();
    drop(client);
    site.stop().await;
    let pack = packs(&site)[0].clone();
    let mut bytes = std::fs::read(&pack).unwrap();
    let mut dice = Dice(11);
    for _ in 0..1000 {
        let bit = dice.roll(bytes.len() as u64 * 8);
        bytes[usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
    }
    std::fs::write(&pack, bytes).unwrap();
    site.restart().await;
    let client = site.client(Role::Replicator).await;
    let admin = site.admin().await;
    // How many are as they were; all others are refused.
    let read_all = async || {
        let mut good = 0;
        for n in 0..BLOCKS {
            let (key, _) = crate::gc::noise(n, LENGTH);
            match client.get_blocks(&[key]).await {
                Ok(bytes) => {
                    assert_eq!(bytes, [content(n)]);
                    good += 1;
                }
                Err(error) => assert_eq!(error.code(), Some(Code::Corrupt), "{error}"),
            }
        }
        good
    };
    let good = read_all().await;
    assert!((BLOCKS / 3..BLOCKS * 5 / 6).contains(&good), "{good}");
    let found = scrub(&admin).await;
    assert_eq!(found.damaged_blocks, BLOCKS - good);
    let report = found.last.unwrap();
    assert_eq!((report.files, report.objects[0].blocks), (1, BLOCKS - good));
    // As a source does when the trees differ.
    assert_ne!(client.digest(BUCKET).await.unwrap(), whole);
    let rows = client.rows(BUCKET, 0, None, 10_000).await.unwrap();
    let lost: Vec<u64> = rows
        .into_iter()
        .filter_map(|(row, digest)| match row {
            RowKey::Segment { segment, .. } if digest == Digest::ZERO => Some(segment),
            _ => None,
        })
        .collect();
    assert_eq!(lost.len() as u64, BLOCKS - good);
    for some in lost.chunks(500) {
        let blocks: Vec<_> = some.iter().map(|n| crate::gc::noise(*n, LENGTH)).collect();
        let keys: Vec<BlockKey> = blocks.iter().map(|(key, _)| *key).collect();
        assert_eq!(client.missing(&keys).await.unwrap(), keys);
        client.put_blocks(blocks).await.unwrap();
    }
    let resync = restfs_lib::client::Commit {
        resync: true,
        ..commit(2, 0, 1, lost.into_iter().map(put_block).collect())
    };
    client.commit(BUCKET, &resync).await.unwrap();
    assert_eq!(client.digest(BUCKET).await.unwrap().0, whole.0);
    let found = scrub(&admin).await;
    assert_eq!((found.damaged_blocks, found.last.unwrap().files), (0, 0));
    assert_eq!(read_all().await, BLOCKS);
    // What was damaged goes, what took its place stays.
    assert_eq!(crate::gc::collect(&admin).await.packs_removed, 1);
    assert_eq!(read_all().await, BLOCKS);
    let found = scrub(&admin).await.last.unwrap();
    assert_eq!((found.damages, found.unused, found.files), (0, 0, 0));
    drop((client, admin));
    site.stop().await;
}

#[tokio::test]
async fn a_scrub_goes_on_after_a_restart_where_it_was() {
    let (mut site, client) = filled().await;
    for number in 0..30 {
        put(&client, &noise(number, 65_536)).await;
    }
    let ops = file(9, "last", &noise(1, 500));
    client.commit(BUCKET, &commit(1, 3, 3, ops)).await.unwrap();
    let admin = site.admin().await;
    let slowly = ScrubStartParams {
        rate: Some(400_000),
        anew: false,
    };
    client.call::<ScrubStart>(&slowly).await.unwrap_err();
    admin.call::<ScrubStart>(&slowly).await.unwrap();
    let until = Instant::now() + PATIENCE;
    let read = loop {
        let running = status(&admin).await.running.unwrap();
        if running.read_bytes > 0 {
            break running.read_bytes;
        }
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(read < 1_500_000, "the rate was not kept: {read}");
    drop((admin, client));
    site.restart().await;
    let admin = site.admin().await;
    let before = status(&admin).await.running.unwrap();
    assert!(before.read_bytes >= read);
    let fast = ScrubStartParams {
        rate: Some(0),
        anew: false,
    };
    admin.call::<ScrubStart>(&fast).await.unwrap();
    let last = ended(&admin).await.last.unwrap();
    assert_eq!(last.started, before.started);
    let stored: u64 = packs(&site)
        .iter()
        .map(|p| std::fs::metadata(p).unwrap().len())
        .sum();
    assert_eq!((last.read_bytes, last.damages), (stored, 0));
    drop(admin);
    site.stop().await;
}

#[tokio::test]
async fn a_damaged_commit_log_is_replaced() {
    let (mut site, client) = filled().await;
    drop(client);
    let folder = site.config.data_dir.join("commits");
    let mut logs: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    logs.sort();
    let log = logs.pop().unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let admin = site.admin().await;
    let found = scrub(&admin).await;
    assert_eq!(found.last.unwrap().logs, [log.display().to_string()]);
    assert_eq!(scrub(&admin).await.last.unwrap().logs, Vec::<String>::new());
    drop(admin);
    site.stop().await;
}
