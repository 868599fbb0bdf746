//! Purged points: refused at once and for good, by whoever may; kept ones are as they were, also when the database is made anew
//! and what nothing needs is collected.

use crate::common::*;
use crate::gc::{collect, gc};
use crate::rebuild::{Dice, lose_database, make_bucket, random_ops, show_tree};
use restfs::data_dir::DataDir;
use restfs_lib::client::{Client, Commit};
use restfs_lib::model::{ObjectId, Op};
use restfs_lib::wire::Code;
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::{ObjectAt, Role};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

fn params(bucket: &str, before: &str) -> BucketPurgeParams {
    BucketPurgeParams {
        bucket: bucket.to_owned(),
        before: before.to_owned(),
        dry_run: false,
    }
}

async fn info(client: &Client, bucket: &str) -> Bucket {
    let name = BucketName {
        bucket: bucket.to_owned(),
    };
    client.call::<BucketInfo>(&name).await.unwrap()
}

/// Until what only purged points needed has gone.
async fn swept(client: &Client, bucket: &str) {
    let until = Instant::now() + PATIENCE;
    while info(client, bucket).await.purging {
        assert!(Instant::now() < until, "it does not end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn purge(client: &Client, bucket: &str, before: &str) -> BucketPurgeResult {
    let result = client.call::<BucketPurge>(&params(bucket, before)).await.unwrap();
    swept(client, bucket).await;
    result
}

async fn points(client: &Client, bucket: &str) -> Vec<u64> {
    let params = CommitListParams {
        bucket: bucket.to_owned(),
        before: None,
        limit: 1000,
    };
    let found = client.call::<CommitList>(&params).await.unwrap().commits;
    found.into_iter().map(|commit| commit.point).collect()
}

async fn shown(client: &Client, bucket: &str, point: u64) -> String {
    let mut out = String::new();
    show_tree(client, bucket, point, ObjectId::ROOT, &mut out).await;
    out
}

async fn rebuild(site: &mut Site) {
    site.stop().await;
    lose_database(site);
    let data_dir = DataDir::lock(&site.config.data_dir).unwrap();
    data_dir.rebuild(&site.config, false).unwrap();
    drop(data_dir);
    site.restart().await;
}

/// What each point was when it was committed.
type Kept = BTreeMap<u64, String>;

async fn check(client: &Client, bucket: &str, kept: &Kept) {
    let oldest = *kept.keys().next().unwrap();
    assert_eq!(info(client, bucket).await.floor, oldest);
    let listed: Vec<u64> = kept.keys().rev().copied().collect();
    assert_eq!(points(client, bucket).await, listed);
    for (point, was) in kept {
        let now = shown(client, bucket, *point).await;
        assert!(&now == was, "{bucket}@{point} was:\n{was}\nis:\n{now}");
    }
    for point in [1, oldest - 1]
        .into_iter()
        .filter(|point| *point > 0 && *point < oldest)
    {
        let error = client
            .stat(bucket, ObjectAt::path("/"), Some(point))
            .await
            .unwrap_err();
        assert_eq!(error.code(), Some(Code::NotFound));
        assert!(
            error.to_string().contains(&format!("below {oldest} were purged")),
            "{error}"
        );
        let error = client
            .resolve_point(bucket, &point.to_string())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("were purged"), "{error}");
    }
}

#[tokio::test]
async fn purged_points_are_refused_and_all_others_stay_also_after_a_rebuild() {
    let mut site = Site::start().await;
    site.bucket().await;
    let mut admin = site.admin().await;
    let mut dice = Dice(11);
    let mut kept = Kept::new();
    for last in 1..=20 {
        let mut ops = random_ops(&admin, &mut dice).await;
        if last == 1 {
            ops.insert(0, root());
        }
        admin.commit(BUCKET, &commit(1, last, last, ops)).await.unwrap();
        kept.insert(last, shown(&admin, BUCKET, last).await);
    }
    let head = (
        admin.digest(BUCKET).await.unwrap(),
        admin.rows(BUCKET, 0, None, 1000).await.unwrap(),
    );
    let planned = BucketPurgeParams {
        dry_run: true,
        ..params(BUCKET, "12")
    };
    let planned = admin.call::<BucketPurge>(&planned).await.unwrap();
    assert_eq!((planned.floor, planned.points, planned.more), (12, 11, false));
    assert!(planned.rows.unwrap() >= 22, "{planned:?}");
    check(&admin, BUCKET, &kept).await;
    let done = purge(&admin, BUCKET, "12").await;
    assert_eq!((done.floor, done.points, done.rows), (12, 11, None));
    kept.retain(|point, _| *point >= 12);
    check(&admin, BUCKET, &kept).await;
    // Once more, or lower: nothing. Beyond the head, or no point at all: an error. Older than all: nothing.
    for before in ["12", "3", "1971-01-01T00:00:00Z"] {
        let done = purge(&admin, BUCKET, before).await;
        assert_eq!((done.floor, done.points), (12, 0), "{before}");
    }
    for (before, expected) in [
        ("21", Code::NotFound),
        ("0", Code::NotFound),
        ("soon", Code::InvalidParams),
    ] {
        assert_eq!(
            code(admin.call::<BucketPurge>(&params(BUCKET, before)).await),
            expected
        );
    }
    // By time: the points are a second apart.
    let time = |seconds: i64| format!("2023-11-14T22:13:{:02}.5Z", 20 + seconds);
    assert_eq!(admin.resolve_point(BUCKET, &time(14)).await.unwrap().point, 14);
    let early = admin.resolve_point(BUCKET, &time(5)).await.unwrap_err();
    assert!(
        early.to_string().contains("points below 12 were purged"),
        "{early}"
    );
    assert_eq!(purge(&admin, BUCKET, &time(14)).await.floor, 14);
    kept.retain(|point, _| *point >= 14);
    check(&admin, BUCKET, &kept).await;
    collect(&admin).await;
    check(&admin, BUCKET, &kept).await;
    drop(admin);
    rebuild(&mut site).await;
    admin = site.admin().await;
    check(&admin, BUCKET, &kept).await;
    assert_eq!(
        (
            admin.digest(BUCKET).await.unwrap(),
            admin.rows(BUCKET, 0, None, 1000).await.unwrap()
        ),
        head
    );
    // The source goes on, and the log of a file begins at the floor.
    assert_eq!(
        admin.commit(BUCKET, &commit(1, 20, 20, vec![])).await.unwrap(),
        20
    );
    assert_eq!(
        admin.commit(BUCKET, &commit(1, 21, 21, vec![])).await.unwrap(),
        21
    );
    let log = ObjectLogParams {
        bucket: BUCKET.to_owned(),
        object: ObjectAt::path("/"),
        point: None,
        before: None,
        limit: 100,
    };
    let log = admin.call::<ObjectLog>(&log).await.unwrap().revisions;
    assert_eq!(log.last().unwrap().point, 14);
    assert!(log.last().unwrap().object.is_some() && log.last().unwrap().time.0 > 0);
    // The head alone.
    let before = shown(&admin, BUCKET, 21).await;
    assert_eq!(purge(&admin, BUCKET, "latest").await.points, 7);
    check(&admin, BUCKET, &Kept::from([(21, before)])).await;
    drop(admin);
    site.stop().await;
}

#[tokio::test]
async fn only_an_admin_purges_and_collects() {
    let mut site = Site::start().await;
    site.bucket().await;
    let admin = site.admin().await;
    for last in 1..=3 {
        admin
            .commit(BUCKET, &commit(1, last, last, vec![root()]))
            .await
            .unwrap();
    }
    for role in [Role::Replicator, Role::Writer, Role::Reader] {
        let client = site.client(role).await;
        for dry_run in [false, true] {
            let params = BucketPurgeParams {
                dry_run,
                ..params(BUCKET, "3")
            };
            assert_eq!(
                code(client.call::<BucketPurge>(&params).await),
                Code::Forbidden,
                "{role}"
            );
            let params = GcStartParams {
                dry_run,
                ..GcStartParams::default()
            };
            assert_eq!(
                code(client.call::<GcStart>(&params).await),
                Code::Forbidden,
                "{role}"
            );
        }
        assert_eq!(
            code(client.call::<GcStatus>(&NoParams {}).await),
            Code::Forbidden,
            "{role}"
        );
    }
    assert_eq!(info(&admin, BUCKET).await.floor, 1);
    assert_eq!(points(&admin, BUCKET).await, [3, 2, 1]);
    drop(admin);
    site.stop().await;
}

/// Random commits, purges, collections, restarts and rebuilds, against what each point was when it was made.
#[tokio::test]
async fn whatever_is_purged_and_collected_kept_points_stay_what_they_were() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(3);
    eprintln!("SEED={seed}");
    let mut dice = Dice(seed);
    let mut site = Site::start().await;
    let names = ["a", "b"];
    for name in names {
        make_bucket(&site, name).await;
    }
    let mut admin = site.admin().await;
    let mut kept = [Kept::new(), Kept::new()];
    let mut last = [0, 0];
    for _ in 0..150 {
        let at = usize::try_from(dice.roll(2)).unwrap();
        let (name, kept, last) = (names[at], &mut kept[at], &mut last[at]);
        match dice.roll(20) {
            0..=12 => {
                let mut ops: Vec<Op> = random_ops(&admin, &mut dice).await;
                if *last == 0 {
                    ops.insert(0, root());
                }
                *last += 1;
                admin.commit(name, &commit(1, *last, *last, ops)).await.unwrap();
                kept.insert(*last, shown(&admin, name, *last).await);
            }
            13..=15 if *last > 0 => {
                let oldest = *kept.keys().next().unwrap();
                let floor = oldest + dice.roll(1 + *last - oldest);
                let waits = dice.roll(2) == 0;
                let result = admin
                    .call::<BucketPurge>(&params(name, &floor.to_string()))
                    .await
                    .unwrap();
                assert_eq!(result.points, floor - oldest);
                if waits {
                    swept(&admin, name).await;
                }
                kept.retain(|point, _| *point >= floor);
            }
            16..=17 => drop(collect(&admin).await),
            18 => {
                drop(admin);
                site.restart().await;
                admin = site.admin().await;
            }
            _ => {
                drop(admin);
                rebuild(&mut site).await;
                admin = site.admin().await;
            }
        }
        if *last > 0 {
            let point = *kept.keys().next().unwrap();
            assert_eq!(shown(&admin, name, point).await, kept[&point]);
        }
    }
    for (name, kept) in names.iter().zip(&kept) {
        swept(&admin, name).await;
        check(&admin, name, kept).await;
        admin
            .call::<BucketDelete>(&BucketName {
                bucket: (*name).to_owned(),
            })
            .await
            .unwrap();
    }
    let report = collect(&admin).await;
    assert_eq!(report.removed_blocks, report.blocks, "{report:?}");
    let left = gc(&admin, true).await;
    assert_eq!((left.blocks, left.freed_bytes), (0, 0));
    assert_eq!(admin.server_info().await.unwrap().blocks, 0);
    drop(admin);
    site.stop().await;
}

#[tokio::test]
async fn a_part_of_a_resync_is_never_all_that_a_purge_leaves() {
    let site = Site::start().await;
    site.bucket().await;
    let admin = site.admin().await;
    for last in 1..=3 {
        let ops = if last == 1 { vec![root()] } else { vec![] };
        admin.commit(BUCKET, &commit(1, last, last, ops)).await.unwrap();
    }
    for number in 1..=3 {
        let part = Commit {
            resync: true,
            ..commit(2, number, 9, vec![])
        };
        admin.commit(BUCKET, &part).await.unwrap();
    }
    for (before, floor, purged) in [("5", 3, 2), ("latest", 3, 0), ("6", 3, 0)] {
        let done = purge(&admin, BUCKET, before).await;
        assert_eq!((done.floor, done.points), (floor, purged), "{before}");
    }
    admin.commit(BUCKET, &commit(2, 10, 10, vec![])).await.unwrap();
    let done = purge(&admin, BUCKET, "latest").await;
    assert_eq!((done.floor, done.points), (7, 4));
}

/// The tests' points are years old: by the clock of the site all would be.
#[tokio::test]
async fn an_age_counts_back_from_the_newest_point_and_a_time_to_come_is_refused() {
    let site = Site::start().await;
    site.bucket().await;
    let admin = site.admin().await;
    let times: Vec<i64> = (0..4).map(|day| 1_700_000_000 + day * 86_400).collect();
    for (number, seconds) in times.iter().enumerate() {
        let last = number as u64 + 1;
        let ops = if last == 1 { vec![root()] } else { vec![] };
        let commit = Commit {
            time_ns: seconds * 1_000_000_000,
            ..commit(1, last, last, ops)
        };
        admin.commit(BUCKET, &commit).await.unwrap();
    }
    let done = purge(&admin, BUCKET, "-25h").await;
    assert_eq!((done.floor, done.points), (2, 1));
    let done = purge(&admin, BUCKET, "-1w").await;
    assert_eq!((done.floor, done.points), (2, 0));
    let refused = admin
        .call::<BucketPurge>(&params(BUCKET, "2999-01-01T00:00:00Z"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Some(Code::Invalid));
    assert!(refused.to_string().contains("is in the future"), "{refused}");
    assert_eq!(points(&admin, BUCKET).await, [4, 3, 2]);
}
