//! Purges and collections as an admin sees them, and a server that is killed in the middle of one.

use crate::content::apply;
use crate::place::*;
use restfs_lib::wire::Content;
use restfs_lib::wire::method::Edit;
use restfs_lib::wire::values::ObjectAt;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

const BLOCK: usize = 65_536;

fn noise(number: u64) -> Vec<u8> {
    let mut content = vec![0; 32 * BLOCK];
    blake3::Hasher::new()
        .update(&number.to_be_bytes())
        .finalize_xof()
        .fill(&mut content);
    content
}

/// Points at each of which the whole file is another one; the first one makes it.
fn overwrite(place: &Place, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let create = Edit::Create {
            path: "/f".into(),
            mode: 0o600,
        };
        let write = Edit::Write {
            object: ObjectAt::path("/f"),
            offset: 0,
            content: Content(noise(number).into()),
        };
        let edits = match number {
            1 => vec![create, write],
            _ => vec![write],
        };
        apply(place, edits);
    }
}

fn assert_points(place: &Place, points: std::ops::RangeInclusive<u64>) {
    for point in points {
        let read = place.run(&["cat", &format!("b@{point}:/f")]);
        assert!(read.status.success(), "point {point}: {}", text(&read.stderr));
        assert!(read.stdout == noise(point), "point {point}");
    }
}

fn stored_bytes(place: &Place) -> u64 {
    let packs = fs::read_dir(place.path("data/blocks/packs")).unwrap();
    packs.map(|pack| pack.unwrap().metadata().unwrap().len()).sum()
}

/// Asks until the answer is as it is to be.
fn until(place: &Place, words: &[&str], mut is: impl FnMut(&serde_json::Value) -> bool) {
    let patience = Instant::now() + PATIENCE;
    loop {
        let now = serde_json::from_str(&place.ok(words)).unwrap();
        if is(&now) {
            return;
        }
        assert!(Instant::now() < patience, "{now}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_purge_and_a_collection_give_space_back_with_and_without_a_server() {
    let place = Place::configured();
    place.ok(&["bucket", "create", "b"]);
    holds(
        &place.ok(&["gc", "--status"]),
        &["no collection came to its end yet"],
    );
    let mut server = place.serve();
    overwrite(&place, 1..9);
    let before = stored_bytes(&place);
    holds(
        &place.ok(&["purge", "b", "--before", "4", "--dry-run"]),
        &[
            "3 points would be purged with",
            "rows of metadata, 4 of ",
            "is the oldest then",
        ],
    );
    assert_points(&place, 1..=8);
    holds(
        &place.ok(&["purge", "b", "--before", "4"]),
        &["3 points purged, 4 of ", "`restfs gc`"],
    );
    holds(
        &place.ok(&["purge", "b", "--before", "-3w"]),
        &["nothing to purge, 4 of "],
    );
    for words in [
        &["ls", "b@3:/"][..],
        &["cat", "b@1:/f"],
        &["log", "b@2:/f"],
        &["restore", "b@3", "/nowhere"],
    ] {
        holds(
            &place.error(words),
            &["points of bucket `b` below 4 were purged; 4 is the oldest"],
        );
    }
    holds(
        &place.error(&["ls", "b@-3w:/"]),
        &["no recovery point as old as -3w; points below 4 were purged"],
    );
    holds(
        &place.error(&["purge", "b", "--before", "9"]),
        &["has no point 9; the newest is 8"],
    );
    let log = place.ok(&["log", "b"]);
    assert_eq!(log.lines().count(), 1 + 5, "{log}");
    holds(&place.ok(&["bucket", "info", "b"]), &["oldest point", "4\n"]);
    // All of it is young.
    holds(
        &place.ok(&["gc"]),
        &["0 bytes given back", "were stored lately; see --grace"],
    );
    holds(
        &place.ok(&["gc", "--dry-run", "--grace", "0"]),
        &["bytes could be given back", "nothing needs 96 of 256 blocks"],
    );
    assert_eq!(stored_bytes(&place), before);
    assert_eq!(server.stop(), Some(0));
    holds(
        &place.ok(&["gc", "--grace", "0"]),
        &["96 of 256 blocks and 1 packs removed", "bytes copied"],
    );
    assert!(stored_bytes(&place) < before * 2 / 3);
    assert_points(&place, 4..=8);
    holds(
        &place.ok(&["scrub", "--now"]),
        &["0 damaged blocks, 0 files concerned"],
    );
    holds(
        &place.ok(&["purge", "b", "--before", "latest"]),
        &["4 points purged, 8 of "],
    );
    holds(&place.ok(&["gc", "--grace", "0"]), &["128 of 160 blocks"]);
    assert_points(&place, 8..=8);
    holds(&place.ok(&["gc", "--status"]), &["128 of 160 blocks"]);
    let wrong = place.run(&["gc", "--grace", "soon"]);
    assert_eq!(wrong.status.code(), Some(2));
}

/// As an admin may put it back after a failure of the disk, while what it lacks may still turn up.
#[test]
fn a_collection_that_was_cut_off_does_not_go_on_by_metadata_of_an_earlier_time() {
    const METADATA: [&str; 4] = ["metadata.db", "metadata.db-wal", "metadata.db-shm", "commits"];
    let place = Place::configured();
    let config = fs::read_to_string(place.path("restfs.toml")).unwrap();
    fs::write(
        place.path("restfs.toml"),
        format!("{config}\n[gc]\ngrace_minutes = 0\n"),
    )
    .unwrap();
    let put_away = |from: &str, to: &str| {
        fs::create_dir_all(place.path(to)).unwrap();
        for name in METADATA {
            let from = place.path(from).join(name);
            if from.exists() {
                fs::rename(from, place.path(to).join(name)).unwrap();
            }
        }
    };
    place.ok(&["bucket", "create", "b"]);
    let mut server = place.serve();
    overwrite(&place, 1..3);
    assert_eq!(server.stop(), Some(0));
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([place.path("data"), place.path("copy")])
        .status();
    assert!(copied.unwrap().success());
    let mut server = place.serve();
    overwrite(&place, 3..6);
    assert_eq!(server.stop(), Some(0));

    put_away("data", "newer");
    put_away("copy", "data");
    let state = place.path("data/gc.json");
    let mut cut_off: serde_json::Value = serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
    cut_off["begun"] = true.into();
    fs::write(&state, cut_off.to_string()).unwrap();
    let mut server = place.serve();
    until(&place, &["--json", "gc", "--status"], |now| {
        let state: serde_json::Value = serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
        now["running"].is_null() && state["begun"] == false
    });
    assert_points(&place, 1..=2);
    assert_eq!(server.stop(), Some(0));

    put_away("data", "older");
    put_away("newer", "data");
    let _server = place.serve();
    assert_points(&place, 1..=5);
}

#[test]
fn a_server_that_is_killed_in_a_collection_or_a_purge_has_lost_nothing_and_ends_it_later() {
    let place = Place::configured();
    place.ok(&["bucket", "create", "b"]);
    let mut head = 0;
    for round in 0..6_u64 {
        let mut server = place.serve();
        overwrite(&place, head + 1..head + 7);
        head += 6;
        let oldest = head - 2;
        let mut purging = place
            .command(&["purge", "b", "--before", &oldest.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until(&place, &["--json", "bucket", "info", "b"], |now| {
            now["floor"] == oldest
        });
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        let _ = purging.wait();
        let mut server = place.serve();
        holds(
            &place.error(&["ls", &format!("b@{}:/", oldest - 1)]),
            &["were purged"],
        );
        // It goes on by itself.
        until(&place, &["--json", "bucket", "info", "b"], |now| {
            now["purging"] == false
        });
        let mut collecting = place
            .command(&["gc", "--grace", "0", "--rate", "6M"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Killed at another place each time: as soon as so much was read, if not before.
        until(&place, &["--json", "gc", "--status"], |now| {
            let running = &now["running"];
            let reached =
                running["phase"] == "sweeping" && running["done"].as_u64() >= Some(round * 2_000_000);
            reached || collecting.try_wait().unwrap().is_some()
        });
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        let _ = collecting.wait();
        assert_points(&place, head - 2..=head);
    }
    let mut server = place.serve();
    assert_points(&place, head - 2..=head);
    holds(
        &place.ok(&["scrub", "--now"]),
        &["0 damaged blocks, 0 files concerned"],
    );
    place.ok(&["gc", "--grace", "0"]);
    place.ok(&["gc", "--grace", "0"]);
    let needed = 3 * noise(1).len() as u64;
    let stored = stored_bytes(&place);
    assert!(
        (needed..needed * 5 / 4 + 100_000).contains(&stored),
        "{stored} bytes for {needed}"
    );
    assert_points(&place, head - 2..=head);
    assert_eq!(server.stop(), Some(0));
}
