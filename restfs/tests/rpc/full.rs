//! A recovery site without space: nothing is acknowledged that is not stored, and it goes on once there is space.

use crate::common::*;
use bytes::Bytes;
use restfs_lib::client::ClientError;
use restfs_lib::model::BlockKey;
use restfs_lib::wire::Code;
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::{ObjectAt, Role};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system of its own, taken away at the end.
pub(crate) struct Small(PathBuf);

impl Small {
    /// `None`: only root can, and not on every machine.
    pub(crate) fn mount(at: &Path, mib: u32) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let options = format!("size={mib}m,mode=700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "none"])
            .arg(at)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then(|| Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

pub(crate) fn noise(seed: u64) -> (BlockKey, Bytes) {
    let mut content = vec![0; 1 << 20];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut content);
    let (key, content, _) = block(&content);
    (key, content)
}

#[tokio::test]
async fn a_full_site_says_so_and_goes_on_when_there_is_space() {
    let mut small = None;
    let mut ballast = PathBuf::new();
    let mut site = Site::start_with(|_, config| {
        small = Small::mount(&config.data_dir, 100);
        ballast = config.data_dir.join("ballast");
        if small.is_some() {
            std::fs::write(&ballast, vec![0; 50 << 20]).unwrap();
        }
    })
    .await;
    if small.is_none() {
        site.stop().await;
        return eprintln!("skipped: only root can mount a small file system");
    }
    site.bucket().await;
    let client = site.client(Role::Replicator).await;
    client
        .commit(BUCKET, &commit(1, 1, 1, vec![root()]))
        .await
        .unwrap();
    let mut seed = 0;
    let full = loop {
        seed += 1;
        assert!(seed < 100, "100 MiB hold more than 100");
        if let Err(error) = client.put_blocks(vec![noise(seed)]).await {
            break error;
        }
    };
    assert!(
        matches!(full, ClientError::Remote { code: Code::Full, .. }),
        "{full}"
    );
    assert!(full.is_transient());
    // Metadata goes on while its own log has space; then it is full too, and says so.
    let mut last = 1;
    let full = loop {
        assert!(last < 10_000, "commits never fill the rest");
        let value = restfs_lib::model::Op::PutAttribute {
            id: restfs_lib::model::ObjectId::ROOT,
            name: format!("user.{last}").into_bytes(),
            value: vec![7; 60_000],
        };
        match client
            .commit(BUCKET, &commit(1, last + 1, last + 1, vec![value]))
            .await
        {
            Ok(_) => last += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(full, ClientError::Remote { code: Code::Full, .. }),
        "{full}"
    );
    // What was acknowledged is there and can be read.
    assert_eq!(
        client.position(BUCKET, SOURCE).await.unwrap().unwrap().sequence,
        last
    );
    client.stat(BUCKET, ObjectAt::path("/"), None).await.unwrap();
    assert_eq!(client.missing(&[noise(seed).0]).await.unwrap(), [noise(seed).0]);
    std::fs::remove_file(&ballast).unwrap();
    client.put_blocks(vec![noise(seed)]).await.unwrap();
    client
        .commit(BUCKET, &commit(1, last + 1, last + 1, vec![]))
        .await
        .unwrap();
    drop(client);
    site.restart().await;
    let client = site.client(Role::Replicator).await;
    assert_eq!(
        client.position(BUCKET, SOURCE).await.unwrap().unwrap().sequence,
        last + 1
    );
    for seed in 1..seed {
        assert_eq!(
            client.get_blocks(&[noise(seed).0]).await.unwrap(),
            [noise(seed).1]
        );
    }
    let attributes = client
        .attributes(BUCKET, ObjectAt::path("/"), None)
        .await
        .unwrap();
    assert_eq!(attributes.len() as u64, last - 1);
    let name = BucketName {
        bucket: BUCKET.to_owned(),
    };
    assert_eq!(client.call::<BucketInfo>(&name).await.unwrap().head, last + 1);
    drop(client);
    site.stop().await;
}
