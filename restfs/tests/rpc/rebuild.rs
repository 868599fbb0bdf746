//! A site that lost its metadata database: made anew, it is the same in every row of every bucket at every point, and
//! sources and tokens go on as if nothing had been.

use crate::common::*;
use restfs::data_dir::DataDir;
use restfs_lib::client::Client;
use restfs_lib::model::{Kind, ObjectId, Op};
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::{ObjectAt, Role};
use restfs_lib::wire::{Code, Content, Name};
use std::fmt::Write;

const OTHER: &str = "other";
const NOTES: &str = "notes";

/// Numbers that look random and are the same every time.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % sides
    }
}

pub(crate) async fn make_bucket(site: &Site, name: &str) {
    let params = BucketCreateParams {
        bucket: name.to_owned(),
        layout: None,
    };
    site.admin().await.call::<BucketCreate>(&params).await.unwrap();
}

/// A commit's ops: content, renames, hard links, attributes, removals.
pub(crate) async fn random_ops(client: &Client, dice: &mut Dice) -> Vec<Op> {
    let mut ops = Vec::new();
    for _ in 0..=dice.roll(5) {
        let id = ObjectId(2 + dice.roll(6));
        let name = format!("f{}", dice.roll(6)).into_bytes();
        let dir = ObjectId::ROOT;
        match dice.roll(7) {
            0..=2 => {
                let content = vec![u8::try_from(dice.roll(200)).unwrap(); 100];
                let (key, bytes, _) = block(&content);
                client.put_blocks(vec![(key, bytes)]).await.unwrap();
                ops.extend(file(id.0, &String::from_utf8(name).unwrap(), &content));
            }
            3 => ops.extend([
                Op::PutObject {
                    id,
                    object: object(Kind::File, 0),
                },
                Op::PutEntry { dir, name, child: id },
            ]),
            4 => ops.push(Op::DropEntry { dir, name }),
            5 => ops.push(Op::DropObject { id }),
            _ => ops.push(Op::PutAttribute {
                id: dir,
                name: [b"user.", &name[..]].concat(),
                value: vec![1; usize::try_from(dice.roll(900)).unwrap()],
            }),
        }
    }
    ops
}

/// As a client edits, in one bucket: directories, links, renames, writes into long files.
async fn edit(client: &Client, dice: &mut Dice) {
    let path = |n: u64| Name(format!("/n{n}").into_bytes());
    let (a, b) = (path(dice.roll(5)), path(dice.roll(5)));
    let at = ObjectAt::Path(a.clone());
    let edit = match dice.roll(8) {
        0 => Edit::Mkdir { path: a, mode: 0o700 },
        1 => Edit::Create { path: a, mode: 0o600 },
        2 => Edit::Link { object: at, path: b },
        3 => Edit::Rename { from: a, to: b },
        4 => Edit::Unlink { path: a },
        5 => Edit::SetAttribute {
            object: at,
            name: "user.x".into(),
            value: Content(vec![u8::try_from(dice.roll(9)).unwrap(); 20].into()),
        },
        _ => Edit::Write {
            object: at,
            offset: dice.roll(3) * 65_536,
            content: Content(vec![u8::try_from(dice.roll(9)).unwrap(); 65_536].into()),
        },
    };
    // Many make no sense for what is there; those leave no trace.
    let _ = client.apply(NOTES, vec![edit]).await;
}

pub(crate) async fn show_tree(client: &Client, bucket: &str, point: u64, dir: ObjectId, out: &mut String) {
    let at = || ObjectAt::Id(dir.0);
    let found = match client.stat(bucket, at(), Some(point)).await {
        Ok(found) => found,
        Err(error) if error.code() == Some(Code::NotFound) => return,
        Err(error) => panic!("{error}"),
    };
    let attributes = client.attributes(bucket, at(), Some(point)).await.unwrap();
    writeln!(out, "{found:?} {attributes:?}").unwrap();
    if found.object.size > 0 {
        let content = client.read(bucket, at(), Some(point), 0, 1 << 20).await.unwrap();
        writeln!(out, "{}", blake3::hash(&content)).unwrap();
        let segments = client.segments(bucket, at(), Some(point), 0, 10).await.unwrap();
        writeln!(out, "{segments:?}").unwrap();
    }
    if let Ok((entries, _)) = client.entries(bucket, at(), Some(point), None, 100).await {
        for entry in entries {
            writeln!(out, "{point} {dir} {:?} {}", entry.name, entry.id).unwrap();
            Box::pin(show_tree(client, bucket, point, entry.id, out)).await;
        }
    }
}

/// All that can be asked.
async fn show(site: &Site) -> String {
    let client = site.admin().await;
    let mut out = String::new();
    let buckets = client.call::<BucketList>(&NoParams {}).await.unwrap().buckets;
    for bucket in buckets {
        writeln!(out, "{bucket:?}").unwrap();
        let name = &bucket.bucket;
        let commits = CommitListParams {
            bucket: name.clone(),
            before: None,
            limit: 1000,
        };
        writeln!(out, "{:?}", client.call::<CommitList>(&commits).await.unwrap()).unwrap();
        writeln!(out, "{:?}", client.digest(name).await.unwrap()).unwrap();
        writeln!(out, "{:?}", client.groups(name, None, 100).await.unwrap()).unwrap();
        for source in [SOURCE, "another"] {
            writeln!(
                out,
                "{:?}",
                client.position(name, source).await.map_err(|e| e.to_string())
            )
            .unwrap();
        }
        for point in 1..=bucket.head {
            show_tree(&client, name, point, ObjectId::ROOT, &mut out).await;
        }
    }
    writeln!(out, "{:?}", client.call::<TokenList>(&NoParams {}).await.unwrap()).unwrap();
    out
}

pub(crate) fn lose_database(site: &Site) {
    for name in ["metadata.db", "metadata.db-wal", "metadata.db-shm"] {
        let _ = std::fs::remove_file(site.config.data_dir.join(name));
    }
}

#[tokio::test]
async fn a_lost_database_is_made_anew_with_all_buckets_points_positions_and_tokens() {
    let mut site = Site::start().await;
    for name in [BUCKET, OTHER, NOTES, "gone"] {
        make_bucket(&site, name).await;
    }
    let admin = site.admin().await;
    let token = site.token(Role::Replicator, Some(BUCKET)).await.token;
    let revoked = site.token(Role::Reader, None).await;
    admin
        .call::<TokenRevoke>(&TokenRevokeParams { id: revoked.id })
        .await
        .unwrap();
    let mut dice = Dice(7);
    for last in 1..=20 {
        for bucket in [BUCKET, OTHER] {
            let mut ops = random_ops(&admin, &mut dice).await;
            if last == 1 {
                ops.insert(0, root());
            }
            admin.commit(bucket, &commit(3, last, last, ops)).await.unwrap();
        }
        for _ in 0..3 {
            edit(&admin, &mut dice).await;
        }
    }
    // A bucket that changed hands, and one that was deleted.
    let set = BucketSetParams {
        bucket: OTHER.to_owned(),
        layout: None,
        release_source: true,
    };
    admin.call::<BucketSet>(&set).await.unwrap();
    let (key, bytes, _) = block(b"taken");
    admin.put_blocks(vec![(key, bytes)]).await.unwrap();
    let taken = restfs_lib::client::Commit {
        source: "another".to_owned(),
        resync: true,
        ..commit(1, 0, 5, file(9, "taken", b"taken"))
    };
    admin.commit(OTHER, &taken).await.unwrap();
    let gone = BucketName {
        bucket: "gone".to_owned(),
    };
    admin.call::<BucketDelete>(&gone).await.unwrap();
    drop(admin);
    let before = show(&site).await;
    assert!(before.lines().count() > 500, "{}", before.lines().count());
    site.stop().await;
    lose_database(&site);
    let data_dir = DataDir::lock(&site.config.data_dir).unwrap();
    let refused = data_dir.open(&site.config).err().unwrap().to_string();
    assert!(refused.contains("restfs rebuild"), "{refused}");
    data_dir.rebuild(&site.config, false).unwrap();
    drop(data_dir);
    site.restart().await;
    let after = show(&site).await;
    assert!(before == after, "before:\n{before}\nafter:\n{after}");
    // The source goes on: what it sends again is known, what follows is taken, and its old token is good.
    let client = Client::connect(&site.endpoint().with_token(token)).await.unwrap();
    assert_eq!(
        client.commit(BUCKET, &commit(3, 20, 20, vec![])).await.unwrap(),
        20
    );
    assert_eq!(
        client.commit(BUCKET, &commit(3, 21, 21, vec![])).await.unwrap(),
        21
    );
    assert_eq!(
        code(client.commit(BUCKET, &commit(2, 22, 22, vec![])).await),
        Code::Fenced
    );
    drop(client);
    site.stop().await;
}
