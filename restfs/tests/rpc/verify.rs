//! What a source that verifies its copy is told.

use crate::common::*;
use restfs_lib::model::ObjectId;
use restfs_lib::wire::method::BlockFault;
use restfs_lib::wire::values::Role;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Not to be compressed, so that it is in a pack as it is.
fn noise(seed: u64) -> Vec<u8> {
    let mut content = vec![0; 10_000];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut content);
    content
}

/// One bit of the stored copy.
fn damage(data: &Path, content: &[u8]) {
    for pack in fs::read_dir(data.join("blocks/packs")).unwrap() {
        let path = pack.unwrap().path();
        let stored = fs::read(&path).unwrap();
        let wanted = &content[100..200];
        if let Some(at) = stored.windows(wanted.len()).position(|some| some == wanted) {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&[!wanted[0]], at as u64).unwrap();
            return;
        }
    }
    panic!("the content is in no pack");
}

#[tokio::test]
async fn a_block_is_checked_on_the_disk_whatever_the_cache_has_and_healed_by_putting_it() {
    let site = Site::start().await;
    site.bucket().await;
    let client = site.client(Role::Replicator).await;
    let contents = [noise(1), noise(2)];
    let blocks = contents.each_ref().map(|content| {
        let (key, content, _) = block(content);
        (key, content)
    });
    let keys = blocks.each_ref().map(|(key, _)| *key);
    client.put_blocks(blocks.to_vec()).await.unwrap();
    client
        .commit(BUCKET, &commit(1, 1, 1, vec![root()]))
        .await
        .unwrap();
    client.get_blocks(&keys).await.unwrap();
    assert_eq!(client.check_blocks(&keys).await.unwrap(), []);

    damage(&site.config.data_dir, &contents[1]);
    let (gone, ..) = block(b"never put");
    let asked = [keys[0], keys[1], gone];
    assert_eq!(
        client.check_blocks(&asked).await.unwrap(),
        [(keys[1], BlockFault::Damaged), (gone, BlockFault::Missing)]
    );
    assert_eq!(client.missing(&keys).await.unwrap(), [keys[1]]);
    client.put_blocks(vec![blocks[1].clone()]).await.unwrap();
    assert_eq!(client.check_blocks(&keys).await.unwrap(), []);
}

#[tokio::test]
async fn rows_that_were_changed_past_the_server_do_not_add_up() {
    let site = Site::start().await;
    site.bucket().await;
    let client = site.client(Role::Replicator).await;
    let (key, content, _) = block(b"content");
    client.put_blocks(vec![(key, content)]).await.unwrap();
    let mut ops = vec![root()];
    ops.extend(file(2, "a", b"content"));
    // A group of its own.
    ops.extend(file(5000, "b", b"content"));
    client.commit(BUCKET, &commit(1, 1, 7, ops)).await.unwrap();
    let (groups, more) = client.recount(BUCKET, None).await.unwrap();
    assert_eq!((groups.len(), more), (2, false));
    assert!(groups.iter().all(|group| group.kept == group.counted));

    let database = rusqlite::Connection::open(site.config.data_dir.join("metadata.db")).unwrap();
    // The object row of id 5000: its key begins with `o`, bucket and id.
    let id = hex::encode(ObjectId(5000).0.to_be_bytes());
    let removed = database
        .execute(
            "DELETE FROM kv WHERE substr(hex(k), 1, 2) = '6F' AND hex(k) LIKE ?1",
            [format!("%{}%", id.to_uppercase())],
        )
        .unwrap();
    assert_eq!(removed, 1);
    let (groups, _) = client.recount(BUCKET, None).await.unwrap();
    let wrong: Vec<_> = groups
        .iter()
        .filter(|group| group.kept != group.counted)
        .map(|group| group.group)
        .collect();
    assert_eq!(wrong, [4]);
    let (behind, _) = client.recount(BUCKET, Some(0)).await.unwrap();
    assert_eq!(behind.len(), 1);
}
