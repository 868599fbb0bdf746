//! What was put in comes back: now, at a point, after a kill.

use crate::place::*;
use std::fs;
use std::path::Path;

/// Edits through the server's own socket.
pub(crate) fn apply(place: &Place, edits: Vec<restfs_lib::wire::method::Edit>) {
    use restfs_lib::client::{Client, Endpoint};
    let url = format!("unix://{}", place.path("data/restfs.sock").display());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&Endpoint::new(&url).unwrap()).await.unwrap();
        client.apply("b", edits).await.unwrap();
    });
}

/// What somebody copies from the log is the point of that line, and not the one before.
#[test]
fn a_time_as_the_log_shows_it_leads_to_its_point() {
    use restfs_lib::wire::Content;
    use restfs_lib::wire::method::Edit;
    use restfs_lib::wire::values::ObjectAt;
    let place = Place::configured();
    place.ok(&["bucket", "create", "b"]);
    let _server = place.serve();
    let create = Edit::Create {
        path: "/f".into(),
        mode: 0o600,
    };
    apply(&place, vec![create]);
    for point in 2..=9 {
        let write = Edit::Write {
            object: ObjectAt::path("/f"),
            offset: 0,
            content: Content(point.to_string().into_bytes().into()),
        };
        apply(&place, vec![write]);
    }
    for log in [place.ok(&["log", "b"]), place.ok(&["log", "b:/f"])] {
        let lines = log.lines().skip(1).map(|line| line.split_whitespace());
        let shown: Vec<_> = lines
            .filter_map(|mut words| Some((words.next()?, words.next()?)))
            .filter(|(point, _)| *point != "1")
            .collect();
        assert_eq!(shown.len(), 8, "{log}");
        for (point, time) in shown {
            assert_eq!(
                place.ok(&["cat", &format!("b@{time}:/f")]),
                point,
                "{time} in {log}"
            );
        }
    }
}

#[test]
fn what_was_written_comes_back_from_here_and_from_afar() {
    use restfs_lib::wire::Content;
    use restfs_lib::wire::method::Edit;
    use restfs_lib::wire::values::ObjectAt;
    let place = Place::configured();
    place.ok(&["bucket", "create", "b", "--block-size", "4096"]);
    let server = place.serve();
    let content: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.to_le_bytes()).collect();
    let write = |path: &str, content: &[u8]| Edit::Write {
        object: ObjectAt::path(path),
        offset: 0,
        content: Content(content.to_vec().into()),
    };
    let create = |path: &str| Edit::Create {
        path: path.into(),
        mode: 0o640,
    };
    let mkdir = Edit::Mkdir {
        path: "/dir".into(),
        mode: 0o750,
    };
    apply(
        &place,
        vec![
            mkdir,
            create("/dir/big"),
            write("/dir/big", &content),
            create("/old"),
        ],
    );
    let link = Edit::Symlink {
        path: "/dir/link".into(),
        target: "../new".into(),
    };
    apply(
        &place,
        vec![
            Edit::Rename {
                from: "/old".into(),
                to: "/new".into(),
            },
            write("/new", b"new"),
            link,
        ],
    );

    holds(
        &place.ok(&["ls", "b:/"]),
        &["drwxr-x---", " dir\n", "-rw-r-----", " new\n"],
    );
    holds(&place.ok(&["ls", "b@1:/"]), &[" old\n"]);
    holds(&place.ok(&["ls", "b:/dir/link"]), &["link -> ../new"]);
    holds(
        &place.ok(&["stat", "b:/dir/big"]),
        &["/dir/big", "12000000", "4096"],
    );
    holds(&place.ok(&["log", "b"]), &["exact"]);
    holds(&place.ok(&["log", "b:/new"]), &["content", "name"]);
    assert_eq!(place.run(&["cat", "b:/dir/big"]).stdout, content);

    let out = |name: &str| place.path(name).display().to_string();
    holds(
        &place.ok(&["restore", "b", &out("dry"), "--dry-run"]),
        &["can be restored: 2 files"],
    );
    assert!(!place.path("dry").exists());
    holds(
        &place.ok(&["restore", "b", &out("now")]),
        &["restored: 2 files", "12000003 bytes"],
    );
    assert_eq!(fs::read(place.path("now/dir/big")).unwrap(), content);
    assert_eq!(fs::read(place.path("now/new")).unwrap(), b"new");
    assert_eq!(
        fs::read_link(place.path("now/dir/link")).unwrap(),
        Path::new("../new")
    );
    place.ok(&["restore", "b@1", &out("then")]);
    assert!(place.path("then/old").is_file() && !place.path("then/new").exists());
    holds(&place.error(&["restore", "b", &out("now")]), &["not empty"]);

    let token = place.path("token");
    place.ok(&[
        "token",
        "create",
        "r",
        "--role",
        "reader",
        "--bucket",
        "b",
        "--output",
        token.to_str().unwrap(),
    ]);
    let url = format!("ws://{}", server.address);
    let remote = ["--url", &url, "--token-file", token.to_str().unwrap()];
    place.ok(&[&["restore", "b", &out("afar"), "--path", "/dir"][..], &remote].concat());
    assert_eq!(fs::read(place.path("afar/big")).unwrap(), content);
    drop(server);
    // Killed, not ended: the data is as it was, and read without a server.
    place.ok(&["restore", "b", &out("after")]);
    assert_eq!(fs::read(place.path("after/dir/big")).unwrap(), content);
}

/// The root need not be in the first commits of a source.
#[test]
fn a_bucket_without_a_root_yet_is_called_empty_and_not_missing() {
    use restfs_lib::client::{Client, Commit, Endpoint};
    let place = Place::configured();
    let server = place.serve();
    place.ok(&["bucket", "create", "b"]);
    holds(
        &place.error(&["restore", "b", "/nowhere"]),
        &["no recovery point yet"],
    );
    let endpoint = Endpoint::new(&format!("unix://{}", place.path("data/restfs.sock").display())).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let commit = Commit {
            source: "source".to_owned(),
            epoch: 1,
            first: 1,
            last: 1,
            resync: false,
            time_ns: 1,
            exact: true,
            ops: Vec::new(),
        };
        let client = Client::connect(&endpoint).await.unwrap();
        client.commit("b", &commit).await.unwrap();
    });
    let dest = place.path("out");
    for words in [&["ls", "b:/"][..], &["restore", "b", dest.to_str().unwrap()]] {
        let error = place.error(words);
        holds(&error, &["bucket is empty so far"]);
        assert!(!error.contains("does not exist"), "{error}");
    }
    drop(server);
}

#[test]
fn a_killed_server_has_every_commit_that_it_acknowledged_and_takes_the_next() {
    use restfs_lib::client::{Client, Commit, Endpoint};
    use restfs_lib::content::hash_block;
    use restfs_lib::model::{HashAlgorithm, ObjectId, Op};
    const SOURCE: &str = "source";
    let place = Place::configured();
    place.ok(&["bucket", "create", "b"]);
    let endpoint = Endpoint::new(&format!("unix://{}", place.path("data/restfs.sock").display())).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let commit = |sequence: u64, ops| Commit {
        source: SOURCE.to_owned(),
        epoch: 1,
        first: sequence,
        last: sequence,
        resync: false,
        time_ns: i64::try_from(sequence).unwrap(),
        exact: true,
        ops,
    };
    let mut acknowledged = 0;
    for round in 0..4u64 {
        let mut server = place.serve();
        // Killed while commits run, whenever that is: at least one more was acknowledged.
        let killed = std::thread::scope(|scope| {
            let (first, seen) = std::sync::mpsc::channel();
            let work = scope.spawn({
                let (endpoint, runtime, commit) = (&endpoint, &runtime, &commit);
                let mut sequence = acknowledged;
                move || {
                    runtime.block_on(async {
                        let client = Client::connect(endpoint).await.unwrap();
                        let at = client
                            .position("b", SOURCE)
                            .await
                            .unwrap()
                            .map_or(0, |p| p.sequence);
                        // An answer may have been lost, a commit never.
                        assert!(at == sequence || at == sequence + 1, "{at} {sequence}");
                        sequence = at;
                        loop {
                            let content = format!("content {}", sequence + 1);
                            let block = hash_block(content.as_bytes(), HashAlgorithm::Blake3);
                            let mut ops = ops_of_file(block);
                            if sequence == 0 {
                                ops.insert(
                                    0,
                                    Op::PutObject {
                                        id: ObjectId::ROOT,
                                        object: directory(),
                                    },
                                );
                            }
                            if client
                                .put_blocks(vec![(block.key, content.into())])
                                .await
                                .is_err()
                            {
                                return sequence;
                            }
                            if client.commit("b", &commit(sequence + 1, ops)).await.is_err() {
                                return sequence;
                            }
                            sequence += 1;
                            let _ = first.send(());
                        }
                    })
                }
            });
            for _ in 0..=(round * 7) {
                seen.recv_timeout(PATIENCE).unwrap();
            }
            server.child.kill().unwrap();
            server.child.wait().unwrap();
            work.join().unwrap()
        });
        acknowledged = killed;
        let found: serde_json::Value =
            serde_json::from_str(&place.ok(&["--json", "bucket", "info", "b"])).unwrap();
        let sequence = found["source"]["sequence"].as_u64().unwrap();
        assert!(
            sequence == acknowledged || sequence == acknowledged + 1,
            "{sequence} {acknowledged}"
        );
        for point in [1, acknowledged, sequence] {
            assert_eq!(
                place.ok(&["cat", &format!("b@{point}:/f")]),
                format!("content {point}")
            );
        }
    }
}

fn directory() -> restfs_lib::model::Object {
    use restfs_lib::model::{Kind, Layout, Object, Time};
    let time = Time::default();
    Object {
        kind: Kind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: time,
        atime: time,
        btime: time,
        layout: Layout::default(),
    }
}

fn ops_of_file(block: restfs_lib::model::BlockRef) -> Vec<restfs_lib::model::Op> {
    use restfs_lib::model::{Kind, Object, ObjectId, Op};
    let id = ObjectId(2);
    let object = Object {
        kind: Kind::File,
        size: block.length.into(),
        ..directory()
    };
    vec![
        Op::PutObject { id, object },
        Op::PutEntry {
            dir: ObjectId::ROOT,
            name: b"f".to_vec(),
            child: id,
        },
        Op::PutBlocks {
            id,
            segment: 0,
            blocks: vec![(0, Some(block))],
        },
    ]
}
