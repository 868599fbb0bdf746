//! Commits of a source: exactly once, in order, complete, by one source.

use crate::common::*;
use restfs_lib::client::{Client, ClientError, Commit};
use restfs_lib::model::{BlockKey, Digest, ObjectId, Op};
use restfs_lib::wire::Code;
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::{ObjectAt, Role};

async fn site() -> (Site, Client) {
    let site = Site::start().await;
    site.bucket().await;
    let client = site.client(Role::Replicator).await;
    (site, client)
}

async fn head(site: &Site) -> u64 {
    let name = BucketName {
        bucket: BUCKET.to_owned(),
    };
    site.admin().await.call::<BucketInfo>(&name).await.unwrap().head
}

async fn content(site: &Site, path: &str, point: Option<u64>) -> Vec<u8> {
    let client = site.admin().await;
    client
        .read(BUCKET, ObjectAt::path(path), point, 0, 1024)
        .await
        .unwrap()
        .to_vec()
}

#[tokio::test]
async fn what_was_committed_can_be_read_at_every_point() {
    let (site, client) = site().await;
    let (one, two) = (block(b"one"), block(b"two!"));
    client
        .put_blocks(vec![(one.0, one.1), (two.0, two.1)])
        .await
        .unwrap();
    let mut ops = vec![root()];
    ops.extend(file(2, "a", b"one"));
    assert_eq!(client.commit(BUCKET, &commit(1, 1, 4, ops)).await.unwrap(), 1);
    assert_eq!(
        client
            .commit(BUCKET, &commit(1, 5, 7, file(2, "a", b"two!")))
            .await
            .unwrap(),
        2
    );
    assert_eq!(content(&site, "/a", None).await, b"two!");
    assert_eq!(content(&site, "/a", Some(1)).await, b"one");
    let position = client.position(BUCKET, SOURCE).await.unwrap().unwrap();
    assert_eq!((position.epoch, position.sequence, position.point), (1, 7, 2));
}

#[tokio::test]
async fn a_commit_sent_again_is_answered_with_its_point_and_not_done_again() {
    let (site, client) = site().await;
    let first = commit(1, 1, 1, vec![root()]);
    assert_eq!(client.commit(BUCKET, &first).await.unwrap(), 1);
    assert_eq!(client.commit(BUCKET, &first).await.unwrap(), 1);
    assert_eq!(head(&site).await, 1);
    // The same end with another beginning is not the same commit.
    assert_eq!(client.commit(BUCKET, &commit(1, 2, 3, vec![])).await.unwrap(), 2);
    assert_eq!(
        code(client.commit(BUCKET, &commit(1, 1, 3, vec![])).await),
        Code::OutOfOrder
    );
}

#[tokio::test]
async fn one_commit_sent_by_many_connections_at_once_is_one_point() {
    let (site, _) = site().await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let client = site.client(Role::Replicator).await;
        tasks.push(tokio::spawn(async move {
            client.commit(BUCKET, &commit(1, 1, 1, vec![root()])).await
        }));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), 1);
    }
    assert_eq!(head(&site).await, 1);
}

#[tokio::test]
async fn a_hole_or_a_step_back_is_refused_and_the_position_told() {
    let (_site, client) = site().await;
    assert_eq!(client.position(BUCKET, SOURCE).await.unwrap(), None);
    assert_eq!(
        code(client.commit(BUCKET, &commit(1, 2, 2, vec![])).await),
        Code::OutOfOrder
    );
    client
        .commit(BUCKET, &commit(1, 1, 5, vec![root()]))
        .await
        .unwrap();
    for (first, last) in [(7, 9), (5, 6), (1, 4), (3, 3)] {
        match client
            .commit(BUCKET, &commit(1, first, last, vec![]))
            .await
            .unwrap_err()
        {
            ClientError::Remote {
                code: Code::OutOfOrder,
                data,
                ..
            } => {
                assert_eq!((data.epoch, data.sequence), (Some(1), Some(5)));
            }
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn an_older_epoch_is_fenced_and_told_the_newer_one() {
    let (_site, client) = site().await;
    client
        .commit(BUCKET, &commit(1, 1, 5, vec![root()]))
        .await
        .unwrap();
    client.commit(BUCKET, &commit(3, 6, 6, vec![])).await.unwrap();
    match client.commit(BUCKET, &commit(2, 7, 7, vec![])).await.unwrap_err() {
        ClientError::Remote {
            code: Code::Fenced,
            data,
            ..
        } => assert_eq!(data.epoch, Some(3)),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_commit_without_its_blocks_changes_nothing_and_names_them() {
    let (site, client) = site().await;
    let (there, gone) = (block(b"there"), block(b"gone"));
    client.put_blocks(vec![(there.0, there.1)]).await.unwrap();
    let mut ops = vec![root()];
    ops.extend(file(2, "a", b"there"));
    ops.extend(file(3, "b", b"gone"));
    let sent = commit(1, 1, 7, ops);
    match client.commit(BUCKET, &sent).await.unwrap_err() {
        ClientError::Remote {
            code: Code::MissingBlocks,
            data,
            ..
        } => {
            let missing: Vec<BlockKey> = data.missing.into_iter().map(Into::into).collect();
            assert_eq!(missing, [gone.0]);
        }
        other => panic!("{other}"),
    }
    assert_eq!(head(&site).await, 0);
    assert_eq!(client.missing(&[there.0, gone.0]).await.unwrap(), [gone.0]);
    client.put_blocks(vec![(gone.0, gone.1)]).await.unwrap();
    assert_eq!(client.commit(BUCKET, &sent).await.unwrap(), 1);
}

#[tokio::test]
async fn a_block_under_a_wrong_key_is_refused() {
    let (_site, client) = site().await;
    let (key, _, _) = block(b"right");
    let sent = client
        .put_blocks(vec![(key, bytes::Bytes::from_static(b"wrong"))])
        .await;
    assert_eq!(code(sent), Code::InvalidParams);
    assert_eq!(client.missing(&[key]).await.unwrap(), [key]);
}

#[tokio::test]
async fn a_restart_forgets_nothing_that_was_acknowledged() {
    let (mut site, client) = site().await;
    let (key, content_, _) = block(b"kept");
    client.put_blocks(vec![(key, content_)]).await.unwrap();
    let mut ops = vec![root()];
    ops.extend(file(2, "a", b"kept"));
    let sent = commit(1, 1, 4, ops);
    client.commit(BUCKET, &sent).await.unwrap();
    drop(client);
    site.restart().await;
    let client = site.client(Role::Replicator).await;
    assert_eq!(client.commit(BUCKET, &sent).await.unwrap(), 1);
    assert_eq!(content(&site, "/a", None).await, b"kept");
    assert_eq!(client.missing(&[key]).await.unwrap(), []);
}

#[tokio::test]
async fn a_second_source_is_kept_out_until_it_is_let_in() {
    let (site, client) = site().await;
    let (key, content_, _) = block(b"x");
    client.put_blocks(vec![(key, content_)]).await.unwrap();
    let mut ops = vec![root()];
    ops.extend(file(2, "a", b"x"));
    client.commit(BUCKET, &commit(1, 1, 4, ops)).await.unwrap();
    let other = |commit: Commit| Commit {
        source: "other".to_owned(),
        ..commit
    };
    assert_eq!(
        code(client.commit(BUCKET, &other(commit(1, 1, 1, vec![]))).await),
        Code::Conflict
    );
    let release = BucketSetParams {
        bucket: BUCKET.to_owned(),
        layout: None,
        release_source: true,
    };
    site.admin().await.call::<BucketSet>(&release).await.unwrap();
    // The old one may be alive, and must not be faster than the other.
    let old_ones = |epoch| Commit {
        resync: true,
        ..commit(epoch, 0, 5, vec![])
    };
    assert_eq!(code(client.position(BUCKET, SOURCE).await), Code::Fenced);
    assert_eq!(code(client.commit(BUCKET, &old_ones(1)).await), Code::Fenced);
    // Its log would be laid over a tree that is not its own.
    assert_eq!(
        code(client.commit(BUCKET, &other(commit(1, 1, 1, vec![]))).await),
        Code::OutOfOrder
    );
    let resync = Commit {
        resync: true,
        first: 0,
        last: 40,
        ..other(commit(1, 0, 40, vec![]))
    };
    client.commit(BUCKET, &resync).await.unwrap();
    client
        .commit(BUCKET, &other(commit(1, 41, 41, vec![])))
        .await
        .unwrap();
    for epoch in [1, 2] {
        assert_eq!(code(client.commit(BUCKET, &old_ones(epoch)).await), Code::Fenced);
    }
    // And the way back.
    site.admin().await.call::<BucketSet>(&release).await.unwrap();
    assert_eq!(client.position(BUCKET, SOURCE).await.unwrap(), None);
    client.commit(BUCKET, &old_ones(1)).await.unwrap();
    let resync = Commit {
        epoch: 2,
        ..resync.clone()
    };
    assert_eq!(code(client.commit(BUCKET, &resync).await), Code::Fenced);
}

#[tokio::test]
async fn a_new_source_is_told_whose_bucket_it_is_whatever_its_epoch() {
    let (_site, client) = site().await;
    client
        .commit(BUCKET, &commit(4, 1, 5, vec![root()]))
        .await
        .unwrap();
    for resync in [false, true] {
        let stranger = Commit {
            source: "other".to_owned(),
            resync,
            ..commit(1, u64::from(!resync), 9, vec![])
        };
        let error = client.commit(BUCKET, &stranger).await.unwrap_err();
        assert_eq!(error.code(), Some(Code::Conflict));
        assert!(error.to_string().contains("--release-source"), "{error}");
    }
}

#[tokio::test]
async fn a_newer_epoch_takes_over_by_resync() {
    let (_site, client) = site().await;
    client
        .commit(BUCKET, &commit(1, 1, 5, vec![root()]))
        .await
        .unwrap();
    let resync = Commit {
        source: "other".to_owned(),
        resync: true,
        ..commit(2, 0, 9, vec![])
    };
    client.commit(BUCKET, &resync).await.unwrap();
    assert_eq!(client.position(BUCKET, SOURCE).await.unwrap(), None);
    assert_eq!(
        client.position(BUCKET, "other").await.unwrap().unwrap().sequence,
        9
    );
    assert_eq!(
        code(client.commit(BUCKET, &commit(1, 6, 6, vec![])).await),
        Code::Fenced
    );
}

#[tokio::test]
async fn a_bucket_that_clients_wrote_is_not_replicated_into() {
    let (site, client) = site().await;
    site.admin()
        .await
        .apply(
            BUCKET,
            vec![Edit::Mkdir {
                path: "/d".into(),
                mode: 0o755,
            }],
        )
        .await
        .unwrap();
    assert_eq!(
        code(client.commit(BUCKET, &commit(1, 1, 1, vec![])).await),
        Code::Conflict
    );
}

#[tokio::test]
async fn a_replica_is_not_edited_by_hand() {
    let (site, client) = site().await;
    client
        .commit(BUCKET, &commit(1, 1, 1, vec![root()]))
        .await
        .unwrap();
    let writer = site.client(Role::Writer).await;
    let edit = writer
        .set_attribute(BUCKET, ObjectAt::path("/"), b"restfs.x", bytes::Bytes::new())
        .await;
    assert_eq!(code(edit), Code::Conflict);
}

#[tokio::test]
async fn numbers_that_make_no_sense_are_refused() {
    let (_site, client) = site().await;
    for wrong in [
        commit(0, 1, 1, vec![]),
        commit(1, 0, 1, vec![]),
        commit(1, 2, 1, vec![]),
        Commit {
            source: "a b".to_owned(),
            ..commit(1, 1, 1, vec![])
        },
        Commit {
            source: String::new(),
            ..commit(1, 1, 1, vec![])
        },
    ] {
        assert_eq!(
            code(client.commit(BUCKET, &wrong).await),
            Code::InvalidParams,
            "{wrong:?}"
        );
    }
    let many = commit(1, 1, 1, vec![Op::DropObject { id: ObjectId(5) }; 10_001]);
    assert_eq!(code(client.commit(BUCKET, &many).await), Code::TooLarge);
}

#[tokio::test]
async fn digests_groups_and_rows_come_page_by_page() {
    let (_site, client) = site().await;
    let (key, content_, _) = block(b"x");
    client.put_blocks(vec![(key, content_)]).await.unwrap();
    let mut ops = vec![root()];
    for id in [2, 3, 5_000, 9_000] {
        ops.extend(file(id, &format!("f{id}"), b"x"));
    }
    client.commit(BUCKET, &commit(1, 1, 9, ops)).await.unwrap();
    let (digest, point) = client.digest(BUCKET).await.unwrap();
    assert_eq!(point, 1);
    let groups = client.groups(BUCKET, None, 100).await.unwrap();
    assert_eq!(groups.len(), 3);
    let sum = groups
        .iter()
        .fold(Digest::ZERO, |sum, (_, digest)| sum.plus(*digest));
    assert_eq!(sum, digest);
    assert_eq!(
        client.groups(BUCKET, Some(groups[0].0), 1).await.unwrap(),
        groups[1..2]
    );
    let mut sum = Digest::ZERO;
    for (group, digest) in &groups {
        let rows = client.rows(BUCKET, *group, None, 1000).await.unwrap();
        let of_rows = rows
            .iter()
            .fold(Digest::ZERO, |sum, (_, digest)| sum.plus(*digest));
        assert_eq!(of_rows, *digest);
        assert!(rows.is_sorted_by(|a, b| a.0 < b.0));
        sum = sum.plus(of_rows);
    }
    assert_eq!(sum, digest);
}

/// Somebody recorded what a source sent and plays it back, in any order: nothing of it is done again, and nothing goes back.
#[tokio::test]
async fn messages_played_back_in_any_order_change_nothing() {
    let (site, client) = site().await;
    let mut sent = Vec::new();
    for n in 1..=4u64 {
        let text = format!("content {n}");
        let (key, content_, _) = block(text.as_bytes());
        client.put_blocks(vec![(key, content_)]).await.unwrap();
        let mut ops = if n == 1 { vec![root()] } else { Vec::new() };
        ops.extend(file(2, "a", text.as_bytes()));
        sent.push(commit(1, n * 10 - 9, n * 10, ops));
        client.commit(BUCKET, sent.last().unwrap()).await.unwrap();
    }
    let (key, content_, _) = block(b"compared");
    client.put_blocks(vec![(key, content_)]).await.unwrap();
    let part = part(2, 1, 50, file(2, "a", b"compared"));
    client.commit(BUCKET, &part).await.unwrap();
    let (key, content_, _) = block(b"newest");
    client.put_blocks(vec![(key, content_)]).await.unwrap();
    let newest = commit(2, 51, 60, file(2, "a", b"newest"));
    client.commit(BUCKET, &newest).await.unwrap();
    sent.push(part);
    let (digest, head_) = (client.digest(BUCKET).await.unwrap(), head(&site).await);
    let position = client.position(BUCKET, SOURCE).await.unwrap();
    // Backwards, and forwards, by another connection, too.
    let other = site.client(Role::Replicator).await;
    for client in [&client, &other] {
        for old in sent.iter().rev().chain(&sent) {
            let answer = client.commit(BUCKET, old).await;
            assert!(
                matches!(&answer, Err(e) if matches!(e.code(), Some(Code::Fenced | Code::OutOfOrder))),
                "{answer:?}"
            );
        }
        // The last one is known: the answer is the point made then.
        assert_eq!(client.commit(BUCKET, &newest).await.unwrap(), head_);
    }
    assert_eq!(client.digest(BUCKET).await.unwrap(), digest);
    assert_eq!(client.position(BUCKET, SOURCE).await.unwrap(), position);
    assert_eq!(head(&site).await, head_);
    assert_eq!(content(&site, "/a", None).await, b"newest");
}

fn part(epoch: u64, number: u64, base: u64, ops: Vec<Op>) -> Commit {
    Commit {
        resync: true,
        ..commit(epoch, number, base, ops)
    }
}

/// None of these is taken, and nothing has changed behind them.
async fn assert_refused(site: &Site, client: &Client, commits: impl IntoIterator<Item = &Commit>) {
    let state = async || {
        let position = client.position(BUCKET, SOURCE).await.unwrap();
        (head(site).await, client.digest(BUCKET).await.unwrap(), position)
    };
    let before = state().await;
    for commit in commits {
        let answer = client.commit(BUCKET, commit).await;
        assert!(
            matches!(&answer, Err(e) if matches!(e.code(), Some(Code::Fenced | Code::OutOfOrder))),
            "{commit:?}: {answer:?}"
        );
    }
    assert_eq!(state().await, before);
}

/// A file that has another content in each part.
async fn parts(client: &Client, epoch: u64, base: u64) -> Vec<Commit> {
    let mut parts = Vec::new();
    for number in 1..=4 {
        let text = format!("part {number} of {epoch}");
        let (key, bytes, _) = block(text.as_bytes());
        client.put_blocks(vec![(key, bytes)]).await.unwrap();
        parts.push(part(epoch, number, base, file(2, "a", text.as_bytes())));
    }
    parts
}

#[tokio::test]
async fn parts_of_a_comparison_are_taken_in_their_order_and_once() {
    let (mut site, client) = site().await;
    client
        .commit(BUCKET, &commit(1, 1, 9, vec![root()]))
        .await
        .unwrap();
    let first = parts(&client, 2, 9).await;
    assert_refused(&site, &client, &first[1..]).await;
    let another_base = |commit: &Commit| Commit {
        last: commit.last + 1,
        ..commit.clone()
    };
    for (taken, part) in first.iter().enumerate() {
        client.commit(BUCKET, part).await.unwrap();
        let other = another_base(&first[(taken + 1).min(3)]);
        let wrong = first[..=taken]
            .iter()
            .chain(first.iter().skip(taken + 2))
            .chain([&other]);
        assert_refused(&site, &client, wrong).await;
    }
    assert_eq!(content(&site, "/a", None).await, b"part 4 of 2");
    // A comparison that broke off is begun anew, and nothing of the other one comes in between.
    let second = parts(&client, 3, 9).await;
    client.commit(BUCKET, &second[0]).await.unwrap();
    drop(client);
    site.restart().await;
    let client = site.client(Role::Replicator).await;
    assert_refused(
        &site,
        &client,
        first.iter().chain(&second[..1]).chain(&second[2..]),
    )
    .await;
    for part in &second[1..] {
        client.commit(BUCKET, part).await.unwrap();
    }
    let unnumbered = part(3, 0, 9, vec![]);
    let later = part(3, 0, 10, vec![]);
    let recorded = || first.iter().chain(&second).chain([&unnumbered, &later]);
    assert_refused(&site, &client, recorded()).await;
    client.commit(BUCKET, &commit(3, 10, 10, vec![])).await.unwrap();
    assert_refused(&site, &client, recorded()).await;
    assert_eq!(content(&site, "/a", None).await, b"part 4 of 3");
}

#[tokio::test]
async fn parts_that_an_older_source_does_not_number_are_taken_while_its_comparison_goes_on() {
    let (site, client) = site().await;
    client
        .commit(BUCKET, &commit(1, 1, 9, vec![root()]))
        .await
        .unwrap();
    assert_refused(&site, &client, &[part(1, 0, 9, vec![]), part(1, 0, 12, vec![])]).await;
    for _ in 0..3 {
        client.commit(BUCKET, &part(2, 0, 9, vec![])).await.unwrap();
    }
    assert_refused(&site, &client, &[part(2, 0, 12, vec![]), part(2, 1, 9, vec![])]).await;
    client.commit(BUCKET, &commit(2, 10, 10, vec![])).await.unwrap();
    assert_refused(&site, &client, &[part(2, 0, 9, vec![]), part(2, 0, 10, vec![])]).await;
    client.commit(BUCKET, &part(3, 1, 10, vec![])).await.unwrap();
}

#[tokio::test]
async fn a_server_of_an_older_version_gets_parts_without_numbers_and_is_asked_once() {
    let (endpoint, server) = crate::patch::older_server().await;
    let client = Client::connect(&endpoint).await.unwrap();
    for number in 1..=3 {
        assert_eq!(
            client.commit(BUCKET, &part(2, number, 9, vec![])).await.unwrap(),
            5
        );
    }
    drop(client);
    let calls = ["commit 1", "commit 0", "commit 0", "commit 0"];
    assert_eq!(server.await.unwrap(), calls);
}

#[tokio::test]
async fn a_replicator_bound_to_one_bucket_gets_at_no_other() {
    let (site, client) = site().await;
    client
        .commit(BUCKET, &commit(1, 1, 1, vec![root()]))
        .await
        .unwrap();
    let mine = BucketCreateParams {
        bucket: "mine".to_owned(),
        layout: None,
    };
    site.admin().await.call::<BucketCreate>(&mine).await.unwrap();
    let token = site.token(Role::Replicator, Some("mine")).await.token;
    let bound = Client::connect(&site.endpoint().with_token(token)).await.unwrap();
    bound
        .commit("mine", &commit(1, 1, 1, vec![root()]))
        .await
        .unwrap();
    assert_eq!(
        code(bound.commit(BUCKET, &commit(1, 2, 2, vec![])).await),
        Code::Forbidden
    );
    assert_eq!(code(bound.position(BUCKET, SOURCE).await), Code::Forbidden);
    assert_eq!(code(bound.digest(BUCKET).await), Code::Forbidden);
    assert_eq!(code(bound.groups(BUCKET, None, 1).await), Code::Forbidden);
    assert_eq!(
        code(bound.stat(BUCKET, ObjectAt::path("/"), None).await),
        Code::Forbidden
    );
    assert_eq!(
        code(bound.read(BUCKET, ObjectAt::path("/a"), None, 0, 1).await),
        Code::Forbidden
    );
    assert_eq!(code(bound.resolve_point(BUCKET, "latest").await), Code::Forbidden);
}
