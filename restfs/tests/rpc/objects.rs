//! Buckets that clients write: edits, attributes, reading at points; in both encodings.

use crate::common::*;
use bytes::Bytes;
use restfs_lib::client::Client;
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::{Kind, ObjectAt, Role};
use restfs_lib::wire::{Code, Content, Encoding};

async fn site() -> (Site, Client) {
    let site = Site::start().await;
    site.bucket().await;
    let client = site.client(Role::Writer).await;
    (site, client)
}

fn path(path: &str) -> ObjectAt {
    ObjectAt::path(path)
}

fn mkdir(at: &str, mode: u32) -> Edit {
    Edit::Mkdir {
        path: at.into(),
        mode,
    }
}

fn create(at: &str, mode: u32) -> Edit {
    Edit::Create {
        path: at.into(),
        mode,
    }
}

fn rename(from: &str, to: &str) -> Edit {
    Edit::Rename {
        from: from.into(),
        to: to.into(),
    }
}

fn unlink(at: &str) -> Edit {
    Edit::Unlink { path: at.into() }
}

fn write(at: &str, offset: u64, content: &[u8]) -> Edit {
    Edit::Write {
        object: path(at),
        offset,
        content: Content(Bytes::copy_from_slice(content)),
    }
}

async fn apply<const N: usize>(client: &Client, edits: [Edit; N]) -> BucketApplyResult {
    client.apply(BUCKET, edits.to_vec()).await.unwrap()
}

async fn names(client: &Client, dir: &str, point: Option<u64>) -> Vec<String> {
    let (entries, more) = client
        .entries(BUCKET, path(dir), point, None, 1000)
        .await
        .unwrap();
    assert!(!more);
    entries
        .into_iter()
        .map(|e| String::from_utf8(e.name).unwrap())
        .collect()
}

#[tokio::test]
async fn files_are_made_written_renamed_and_removed_in_both_encodings() {
    let (site, _) = site().await;
    for encoding in Encoding::ALL {
        let token = site.token(Role::Writer, Some(BUCKET)).await.token;
        let client = Client::connect(&site.endpoint().with_token(token).with_encoding(encoding))
            .await
            .unwrap();
        let dir = format!("/{}", encoding.subprotocol());
        let at = |name: &str| format!("{dir}/{name}");
        let made = apply(
            &client,
            [
                mkdir(&dir, 0o750),
                create(&at("a"), 0o640),
                write(&at("a"), 0, &[7; 100_000]),
                Edit::Symlink {
                    path: at("l").as_str().into(),
                    target: "a".into(),
                },
                Edit::Link {
                    object: path(&at("a")),
                    path: at("b").as_str().into(),
                },
            ],
        )
        .await;
        assert_eq!(made.created.len(), 3);
        assert_eq!(names(&client, &dir, None).await, ["a", "b", "l"]);
        let content = client
            .read(BUCKET, path(&at("b")), None, 99_990, 100)
            .await
            .unwrap();
        assert_eq!(content, vec![7; 10]);
        let rename = rename(&at("a"), &at("c"));
        apply(&client, [rename, unlink(&at("b"))]).await;
        assert_eq!(names(&client, &dir, None).await, ["c", "l"]);
        assert_eq!(names(&client, &dir, Some(made.point)).await, ["a", "b", "l"]);
        let found = client.stat(BUCKET, path(&at("c")), None).await.unwrap();
        assert_eq!((found.object.size, found.object.kind), (100_000, Kind::File));
        assert_eq!(found.paths, [at("c").as_str().into()]);
    }
}

#[tokio::test]
async fn edits_of_one_call_are_all_done_or_none() {
    let (_site, client) = site().await;
    let edits = vec![mkdir("/d", 0o755), mkdir("/d", 0o755)];
    assert_eq!(code(client.apply(BUCKET, edits).await), Code::Exists);
    assert_eq!(code(client.stat(BUCKET, path("/d"), None).await), Code::NotFound);
}

#[tokio::test]
async fn edits_that_make_no_sense_are_refused() {
    let (_site, client) = site().await;
    let setup = vec![
        mkdir("/d", 0o755),
        create("/d/f", 0o644),
        mkdir("/e", 0o755),
        write("/d/f", 0, &[1; 70_000]),
    ];
    client.apply(BUCKET, setup).await.unwrap();
    for (edit, expected) in [
        (unlink("/d"), Code::Invalid),
        (unlink("/x"), Code::NotFound),
        (create("/none/f", 0o644), Code::NotFound),
        (create("/d/f/g", 0o644), Code::Invalid),
        (create("/g", 0o10000), Code::InvalidParams),
        (
            Edit::Link {
                object: path("/d"),
                path: "/d2".into(),
            },
            Code::Invalid,
        ),
        (rename("/e", "/d"), Code::Invalid),
        (rename("/d", "/d/f"), Code::Invalid),
        (rename("/d", "/e/x/y"), Code::NotFound),
        (rename("/d/f", "/e"), Code::Invalid),
        (write("/d/f", 1, b"x"), Code::Invalid),
        (write("/d/f", 0, b"x"), Code::Invalid),
        (write("/d", 0, b"x"), Code::Invalid),
        (
            Edit::Truncate {
                object: path("/d/f"),
                size: 5,
            },
            Code::Invalid,
        ),
        (
            Edit::DeleteAttribute {
                object: path("/d/f"),
                name: "restfs.x".into(),
            },
            Code::NotFound,
        ),
    ] {
        let shown = format!("{edit:?}").chars().take(80).collect::<String>();
        assert_eq!(code(client.apply(BUCKET, vec![edit]).await), expected, "{shown}");
    }
    // A directory into itself: whatever it is called, it must not happen.
    apply(&client, [mkdir("/e/in", 0o755)]).await;
    assert!(client.apply(BUCKET, vec![rename("/e", "/e/in/e")]).await.is_err());
    assert_eq!(names(&client, "/", None).await, ["d", "e"]);
}

#[tokio::test]
async fn a_rename_replaces_and_frees_what_was_there() {
    let (_site, client) = site().await;
    let setup = vec![create("/a", 0o644), create("/b", 0o644)];
    let made = client.apply(BUCKET, setup).await.unwrap();
    apply(&client, [rename("/a", "/b")]).await;
    assert_eq!(names(&client, "/", None).await, ["b"]);
    assert_eq!(
        client.stat(BUCKET, path("/b"), None).await.unwrap().id,
        made.created[0]
    );
    assert_eq!(
        code(client.stat(BUCKET, ObjectAt::Id(made.created[1]), None).await),
        Code::NotFound
    );
}

#[tokio::test]
async fn reads_see_holes_as_zeros_and_end_at_the_end() {
    let (_site, client) = site().await;
    let block = 64 * 1024;
    let edits = vec![
        create("/f", 0o644),
        write("/f", 0, b"head"),
        write("/f", 2 * block, b"tail"),
    ];
    client.apply(BUCKET, edits).await.unwrap();
    let all = client.read(BUCKET, path("/f"), None, 0, 1 << 20).await.unwrap();
    let mut expected = vec![0; 2 * block as usize + 4];
    expected[..4].copy_from_slice(b"head");
    expected[2 * block as usize..].copy_from_slice(b"tail");
    assert_eq!(all, expected);
    assert_eq!(
        client.read(BUCKET, path("/f"), None, 2, 3).await.unwrap(),
        b"ad\0".to_vec()
    );
    assert_eq!(
        client
            .read(BUCKET, path("/f"), None, 2 * block + 4, 3)
            .await
            .unwrap(),
        Vec::new()
    );
    assert_eq!(
        client
            .read(BUCKET, path("/f"), None, u64::MAX / 2, 3)
            .await
            .unwrap(),
        Vec::new()
    );
    let long = client.read(BUCKET, path("/f"), None, 0, MAX_READ + 1).await;
    assert_eq!(code(long), Code::TooLarge);
}

#[tokio::test]
async fn lists_go_on_where_the_page_before_ended() {
    let (_site, client) = site().await;
    let edits = (0..25).map(|n| create(&format!("/f{n:02}"), 0o644));
    client.apply(BUCKET, edits.collect()).await.unwrap();
    let mut seen = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let (entries, more) = client
            .entries(BUCKET, path("/"), None, after.as_deref(), 10)
            .await
            .unwrap();
        after = entries.last().map(|e| e.name.clone());
        seen.extend(entries.into_iter().map(|e| e.name));
        if !more {
            break;
        }
    }
    assert_eq!(seen.len(), 25);
    assert!(seen.is_sorted());
}

#[tokio::test]
async fn attributes_larger_than_a_message_together_are_all_listed() {
    let (_site, client) = site().await;
    let value = Bytes::from(vec![3u8; 64 * 1024]);
    for chunk in (0..150).collect::<Vec<u32>>().chunks(50) {
        let edits = chunk.iter().map(|n| Edit::SetAttribute {
            object: path("/"),
            name: format!("restfs.{n:03}").as_str().into(),
            value: Content(value.clone()),
        });
        client.apply(BUCKET, edits.collect()).await.unwrap();
    }
    let found = client.attributes(BUCKET, path("/"), None).await.unwrap();
    assert_eq!(found.len(), 150);
    assert!(found.iter().all(|(_, found)| *found == value));
}

#[tokio::test]
async fn only_user_attributes_are_set_by_their_method() {
    let (_site, client) = site().await;
    for name in [&b"user.x"[..], b"restfs.", b"security.capability", b""] {
        let set = client.set_attribute(BUCKET, path("/"), name, Bytes::new()).await;
        assert_eq!(code(set), Code::InvalidParams, "{name:?}");
    }
    assert_eq!(
        code(client.get_attribute(BUCKET, path("/"), b"restfs.none").await),
        Code::NotFound
    );
    assert_eq!(
        code(client.get_attribute(BUCKET, path("/none"), b"restfs.none").await),
        Code::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_clients_set_and_get_at_once_and_lose_nothing() {
    const CLIENTS: usize = 50;
    const ROUNDS: usize = 20;
    let (site, admin) = site().await;
    admin.apply(BUCKET, vec![create("/o", 0o644)]).await.unwrap();
    let token = site.token(Role::Writer, None).await.token;
    let mut tasks = Vec::new();
    for number in 0..CLIENTS {
        let endpoint = site.endpoint().with_token(token.clone());
        tasks.push(tokio::spawn(async move {
            let client = Client::connect(&endpoint).await.unwrap();
            let name = format!("restfs.{number}");
            for round in 0..ROUNDS {
                let value = Bytes::from(vec![round as u8; 256]);
                client
                    .set_attribute(BUCKET, path("/o"), name.as_bytes(), value.clone())
                    .await
                    .unwrap();
                assert_eq!(
                    client
                        .get_attribute(BUCKET, path("/o"), name.as_bytes())
                        .await
                        .unwrap(),
                    value
                );
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let info = admin
        .call::<BucketInfo>(&BucketName {
            bucket: BUCKET.to_owned(),
        })
        .await
        .unwrap();
    assert_eq!(info.head, 1 + (CLIENTS * ROUNDS) as u64);
    let first = client_log(&admin, "/o", 1000).await;
    assert_eq!(first.len(), 1000);
}

async fn client_log(client: &Client, at: &str, limit: u32) -> Vec<Revision> {
    let params = ObjectLogParams {
        bucket: BUCKET.to_owned(),
        object: path(at),
        point: None,
        before: None,
        limit,
    };
    client.call::<ObjectLog>(&params).await.unwrap().revisions
}

#[tokio::test]
async fn an_objects_history_says_what_changed_when() {
    let (_site, client) = site().await;
    apply(&client, [create("/f", 0o644)]).await;
    apply(&client, [write("/f", 0, b"x")]).await;
    client
        .set_attribute(BUCKET, path("/f"), b"restfs.a", Bytes::from_static(b"1"))
        .await
        .unwrap();
    apply(&client, [rename("/f", "/g")]).await;
    let log = client_log(&client, "/g", 10).await;
    let points: Vec<u64> = log.iter().map(|r| r.point).collect();
    assert_eq!(points, [4, 3, 2, 1]);
    assert!(log[0].names && !log[0].content);
    assert!(log[1].attributes && !log[1].names);
    assert!(log[2].content && log[2].properties);
    assert!(log[3].properties && log[3].names);
    assert_eq!(log[2].object.as_ref().map(|o| o.size), Some(1));
}

#[tokio::test]
async fn points_are_found_by_number_time_and_age() {
    let (_site, client) = site().await;
    let resolve = async |at: &str| client.resolve_point(BUCKET, at).await;
    assert_eq!(code(resolve("latest").await), Code::NotFound);
    apply(&client, [mkdir("/a", 0o755)]).await;
    apply(&client, [mkdir("/b", 0o755)]).await;
    assert_eq!(resolve("latest").await.unwrap().point, 2);
    assert_eq!(resolve("1").await.unwrap().point, 1);
    assert_eq!(resolve("-0s").await.unwrap().point, 2);
    assert_eq!(resolve("2999-01-01T00:00:00Z").await.unwrap().point, 2);
    for (bad, expected) in [
        ("0", Code::NotFound),
        ("3", Code::NotFound),
        ("-1h", Code::NotFound),
        ("1999-01-01T00:00:00Z", Code::NotFound),
        ("sometime", Code::InvalidParams),
    ] {
        assert_eq!(code(resolve(bad).await), expected, "{bad}");
    }
    assert_eq!(
        code(client.stat(BUCKET, path("/"), Some(3)).await),
        Code::NotFound
    );
    let commits = CommitListParams {
        bucket: BUCKET.to_owned(),
        before: Some(2),
        limit: 5,
    };
    let commits = client.call::<CommitList>(&commits).await.unwrap().commits;
    assert_eq!(commits.iter().map(|c| c.point).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn a_deleted_bucket_is_gone_and_its_name_free() {
    let (site, client) = site().await;
    apply(&client, [mkdir("/a", 0o755)]).await;
    let name = BucketName {
        bucket: BUCKET.to_owned(),
    };
    site.admin().await.call::<BucketDelete>(&name).await.unwrap();
    assert_eq!(code(client.call::<BucketInfo>(&name).await), Code::NotFound);
    site.bucket().await;
    assert_eq!(client.call::<BucketInfo>(&name).await.unwrap().head, 0);
    let again = BucketCreateParams {
        bucket: BUCKET.to_owned(),
        layout: None,
    };
    assert_eq!(
        code(site.admin().await.call::<BucketCreate>(&again).await),
        Code::Exists
    );
}
