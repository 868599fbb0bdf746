//! A token that is good for one bucket gets nothing of the blocks of others, however it asks, and all of its own.

use crate::common::*;
use crate::gc::{collect, noise, purge};
use bytes::Bytes;
use restfs_lib::client::{Block, Client};
use restfs_lib::content::{Difference, differing};
use restfs_lib::model::{BlockKey, Op};
use restfs_lib::wire::Code;
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::{Compression, ObjectAt, Role};
use std::time::{Duration, Instant};

const OTHER: &str = "other";
const LENGTH: usize = 60_000;
const PATIENCE: Duration = Duration::from_secs(60);

async fn bound(site: &Site, role: Role, bucket: &str) -> Client {
    let token = site.token(role, Some(bucket)).await.token;
    Client::connect(&site.endpoint().with_token(token)).await.unwrap()
}

async fn two_buckets() -> Site {
    let site = Site::start().await;
    site.bucket().await;
    let other = BucketCreateParams {
        bucket: OTHER.to_owned(),
        layout: None,
    };
    site.admin().await.call::<BucketCreate>(&other).await.unwrap();
    site
}

/// One file, with this content from change `number` on.
async fn write(client: &Client, bucket: &str, number: u64, content: &Bytes) {
    let (key, bytes, _) = block(content);
    client.put_blocks(vec![(key, bytes)]).await.unwrap();
    name(client, bucket, number, content).await.unwrap();
}

async fn name(
    client: &Client,
    bucket: &str,
    number: u64,
    content: &[u8],
) -> Result<u64, restfs_lib::client::ClientError> {
    let mut ops: Vec<Op> = file(2, "f", content);
    ops.insert(0, root());
    client.commit(bucket, &commit(1, number, number, ops)).await
}

async fn read(client: &Client, bucket: &str, point: Option<u64>) -> Bytes {
    let path = ObjectAt::path("/f");
    client.read(bucket, path, point, 0, LENGTH as u32).await.unwrap()
}

fn patch_of(base: BlockKey, made: &[u8]) -> BlockPatchParams {
    BlockPatchParams {
        patches: vec![PatchContent {
            key: block(made).0.into(),
            length: made.len() as u32,
            base: base.into(),
            pieces: Vec::new(),
            compression: Compression::None,
            content: restfs_lib::wire::Content(Bytes::new()),
        }],
    }
}

#[tokio::test]
async fn who_knows_the_key_of_another_buckets_block_gets_nothing_of_it_until_he_brings_its_content() {
    let site = two_buckets().await;
    let theirs = bound(&site, Role::Replicator, OTHER).await;
    let (key, secret) = noise(1, LENGTH);
    write(&theirs, OTHER, 1, &secret).await;
    let (nowhere, _) = noise(2, LENGTH);
    for role in [Role::Reader, Role::Writer, Role::Replicator] {
        let spy = bound(&site, role, BUCKET).await;
        for key in [key, nowhere] {
            assert_eq!(code(spy.get_blocks(&[key]).await), Code::NotFound, "{role}");
        }
    }
    let spy = bound(&site, Role::Replicator, BUCKET).await;
    // As it is with one that is nowhere.
    assert_eq!(spy.missing(&[nowhere, key]).await.unwrap(), [nowhere, key]);
    let faults = spy.check_blocks(&[nowhere, key]).await.unwrap();
    assert_eq!(
        faults,
        [(nowhere, BlockFault::Missing), (key, BlockFault::Missing)]
    );
    // Neither is it a base, of which the sums would tell, nor is it said that the block is here already.
    for made in [&secret[..], &secret[..100]] {
        let wanted = spy.call::<BlockPatch>(&patch_of(key, made)).await.unwrap().wanted;
        assert_eq!(wanted.len(), 1);
        assert_eq!(wanted[0].sums, None);
    }
    assert_eq!(
        code(name(&spy, BUCKET, 1, &secret).await),
        Code::MissingBlocks,
        "it would be read through the own bucket"
    );
    assert_eq!(code(spy.get_blocks(&[key]).await), Code::NotFound);
    // Who has the content may store it, and it takes no space twice.
    let blocks = site.admin().await.server_info().await.unwrap().blocks;
    write(&spy, BUCKET, 1, &secret).await;
    assert_eq!(read(&spy, BUCKET, None).await, secret);
    assert_eq!(spy.get_blocks(&[key]).await.unwrap(), [secret]);
    assert_eq!(site.admin().await.server_info().await.unwrap().blocks, blocks);
}

#[tokio::test]
async fn content_sent_for_one_bucket_is_no_other_buckets_before_it_is_committed() {
    let site = two_buckets().await;
    let (key, content) = noise(1, LENGTH);
    let one = bound(&site, Role::Replicator, BUCKET).await;
    one.put_blocks(vec![(key, content.clone())]).await.unwrap();
    let two = bound(&site, Role::Replicator, OTHER).await;
    assert_eq!(one.missing(&[key]).await.unwrap(), []);
    assert_eq!(one.get_blocks(&[key]).await.unwrap(), [content]);
    assert_eq!(two.missing(&[key]).await.unwrap(), [key]);
    assert_eq!(code(two.get_blocks(&[key]).await), Code::NotFound);
}

#[tokio::test]
async fn all_of_the_own_bucket_is_there_after_a_restart_too() {
    let mut site = two_buckets().await;
    let (old, first) = noise(1, LENGTH);
    let (new, second) = noise(2, LENGTH);
    let client = bound(&site, Role::Replicator, BUCKET).await;
    write(&client, BUCKET, 1, &first).await;
    write(&client, BUCKET, 2, &second).await;
    let (sent, third) = noise(3, LENGTH);
    client.put_blocks(vec![(sent, third.clone())]).await.unwrap();
    drop(client);
    site.restart().await;
    for role in [Role::Reader, Role::Replicator] {
        let client = bound(&site, role, BUCKET).await;
        // History's as well.
        let got = client.get_blocks(&[old, new]).await.unwrap();
        assert_eq!(got, [first.clone(), second.clone()]);
    }
    let client = bound(&site, Role::Replicator, BUCKET).await;
    assert_eq!(client.missing(&[old, new]).await.unwrap(), []);
    assert_eq!(client.check_blocks(&[old, new]).await.unwrap(), []);
    // A block of the own history is a base, and may be named again without being sent.
    let mut next = first.to_vec();
    next[..4096].copy_from_slice(&second[..4096]);
    let before = client.wire().total();
    let block = Block {
        key: block(&next).0,
        content: next.clone().into(),
        since: Some(Difference::new(old, differing(&first, &next))),
    };
    client.put_blocks(vec![block]).await.unwrap();
    assert!(client.wire().total() - before < 5000);
    name(&client, BUCKET, 3, &next).await.unwrap();
    name(&client, BUCKET, 4, &first).await.unwrap();
    assert_eq!(read(&client, BUCKET, Some(3)).await, next);
    assert_eq!(read(&client, BUCKET, None).await, first);
    // What was sent and not committed before the restart is sent once more.
    assert_eq!(code(name(&client, BUCKET, 5, &third).await), Code::MissingBlocks);
    write(&client, BUCKET, 5, &third).await;
}

/// Of a version that does not know them, or of the time after such a one was used again.
#[tokio::test]
async fn a_store_without_rows_of_held_blocks_gets_them_at_the_start() {
    let mut site = two_buckets().await;
    let (key, secret) = noise(1, LENGTH);
    write(&site.admin().await, OTHER, 1, &secret).await;
    let contents: Vec<_> = (2..40).map(|number| noise(number, LENGTH)).collect();
    let client = bound(&site, Role::Replicator, BUCKET).await;
    for (number, (_, content)) in (1..).zip(&contents) {
        write(&client, BUCKET, number, content).await;
    }
    drop(client);
    site.stop().await;
    let gone = forget_held(&site);
    assert_eq!(gone, contents.len() + 1 + 2, "with how far each bucket's go");
    site.restart().await;
    let keys: Vec<BlockKey> = contents.iter().map(|(key, _)| *key).collect();
    let client = bound(&site, Role::Replicator, BUCKET).await;
    let until = Instant::now() + PATIENCE;
    while !client.missing(&keys).await.unwrap().is_empty() {
        assert!(Instant::now() < until);
        // Nobody has to wait for it to get his own.
        assert_eq!(
            client.get_blocks(&keys[..1]).await.unwrap(),
            [contents[0].1.clone()]
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    while client.get_blocks(&[key]).await.is_ok() {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(
        client.get_blocks(&keys[7..8]).await.unwrap(),
        [contents[7].1.clone()]
    );
}

#[tokio::test]
async fn rows_of_blocks_that_were_collected_go_with_them() {
    let mut site = two_buckets().await;
    let client = bound(&site, Role::Replicator, BUCKET).await;
    let contents: Vec<_> = (1..=4).map(|number| noise(number, LENGTH)).collect();
    for (number, (_, content)) in (1..).zip(&contents) {
        write(&client, BUCKET, number, content).await;
    }
    let admin = site.admin().await;
    purge(&admin, 4).await;
    assert_eq!(collect(&admin).await.removed_blocks, 3);
    assert_eq!(client.missing(&[contents[3].0]).await.unwrap(), []);
    assert_eq!(
        client.get_blocks(&[contents[3].0]).await.unwrap(),
        [contents[3].1.clone()]
    );
    drop((client, admin));
    site.stop().await;
    assert_eq!(forget_held(&site), 1 + 1);
}

/// Removes the rows; how many there were.
fn forget_held(site: &Site) -> usize {
    let database = rusqlite::Connection::open(site.config.data_dir.join("metadata.db")).unwrap();
    let sql = "DELETE FROM kv WHERE k >= x'6b' AND k < x'6c'";
    database.execute(sql, []).unwrap()
}
