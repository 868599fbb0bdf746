//! A site with a reserve: it says that it is full before it is, and still takes what makes room.

use crate::common::*;
use crate::full::{Small, noise};
use restfs_lib::client::Client;
use restfs_lib::model::{ObjectId, Op};
use restfs_lib::wire::Code;
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::{ObjectAt, Role};
use std::path::Path;

const MIB: u64 = 1 << 20;
const RESERVE: u64 = 40 * MIB;

async fn free(client: &Client) -> u64 {
    client.server_info().await.unwrap().free_bytes
}

/// Takes up space until this much is free.
async fn leave(client: &Client, ballast: &Path, bytes: u64) {
    let _ = std::fs::remove_file(ballast);
    let length = free(client).await.saturating_sub(bytes);
    std::fs::write(ballast, vec![0; usize::try_from(length).unwrap()]).unwrap();
    assert!(free(client).await <= bytes);
}

fn attribute(number: u64) -> Op {
    Op::PutAttribute {
        id: ObjectId::ROOT,
        name: format!("user.{number}").into_bytes(),
        value: b"x".to_vec(),
    }
}

#[tokio::test]
async fn a_full_site_refuses_content_before_it_is_stored_and_still_takes_removals() {
    let mut small = None;
    let mut site = Site::start_with(|_, config| {
        small = Small::mount(&config.data_dir, 130);
        config.space.reserve = small.is_some().then_some(RESERVE);
        config.space.warn = Some(RESERVE + 5 * MIB);
    })
    .await;
    if small.is_none() {
        site.stop().await;
        return eprintln!("skipped: only root can mount a small file system");
    }
    let ballast = site.config.data_dir.join("ballast");
    site.bucket().await;
    let admin = site.admin().await;
    let told = admin.server_info().await.unwrap();
    assert_eq!(
        (told.reserve_bytes, told.warn_bytes),
        (RESERVE, RESERVE + 5 * MIB)
    );
    for name in ["notes", "old"] {
        let params = BucketCreateParams {
            bucket: name.to_owned(),
            layout: None,
        };
        admin.call::<BucketCreate>(&params).await.unwrap();
        let edit = Edit::Mkdir {
            path: "/dir".into(),
            mode: 0o700,
        };
        admin.apply(name, vec![edit]).await.unwrap();
    }
    let client = site.client(Role::Replicator).await;
    let mut ops = vec![root()];
    let mut stored = 0;
    let refused = loop {
        match client.put_blocks(vec![noise(stored)]).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 130);
    };
    assert_eq!(refused.code(), Some(Code::Full));
    assert!(refused.to_string().contains("free space"), "{refused}");
    let left = free(&client).await;
    assert!((RESERVE - 2 * MIB..RESERVE).contains(&left), "{left}");
    // What is here already can be named, which takes little.
    let (_, content) = noise(0);
    ops.extend(
        file(2, "kept", &content[..])
            .into_iter()
            .filter(|op| !matches!(op, Op::PutBlocks { .. })),
    );
    ops.push(Op::PutEntry {
        dir: ObjectId::ROOT,
        name: b"more".to_vec(),
        child: ObjectId(2),
    });
    client.commit(BUCKET, &commit(1, 1, 1, ops)).await.unwrap();
    // Below half of the reserve only what removes is taken.
    leave(&admin, &ballast, RESERVE / 2 - MIB).await;
    let adding = commit(1, 2, 2, vec![attribute(1)]);
    assert_eq!(code(client.commit(BUCKET, &adding).await), Code::Full);
    let mkdir = Edit::Mkdir {
        path: "/new".into(),
        mode: 0o700,
    };
    assert_eq!(code(admin.apply("notes", vec![mkdir]).await), Code::Full);
    let removing = Op::DropEntry {
        dir: ObjectId::ROOT,
        name: b"more".to_vec(),
    };
    // The one that was refused was not done.
    client
        .commit(BUCKET, &commit(1, 2, 2, vec![removing]))
        .await
        .unwrap();
    let unlink = Edit::Unlink { path: "/dir".into() };
    admin.apply("notes", vec![unlink]).await.unwrap();
    let old = BucketName {
        bucket: "old".to_owned(),
    };
    admin.call::<BucketDelete>(&old).await.unwrap();
    // A commit that was made before is answered as before.
    assert_eq!(client.commit(BUCKET, &commit(1, 2, 2, vec![])).await.unwrap(), 2);
    for number in 0..stored {
        assert_eq!(
            client.get_blocks(&[noise(number).0]).await.unwrap(),
            [noise(number).1]
        );
    }
    // It goes on by itself.
    std::fs::remove_file(&ballast).unwrap();
    client
        .commit(BUCKET, &commit(1, 3, 3, vec![attribute(1)]))
        .await
        .unwrap();
    assert_eq!(code(client.put_blocks(vec![noise(stored)]).await), Code::Full);
    client.stat(BUCKET, ObjectAt::path("/kept"), None).await.unwrap();
    drop((client, admin));
    site.stop().await;
}
