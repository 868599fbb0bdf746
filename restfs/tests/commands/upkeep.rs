//! What an admin does when something of the site is lost or damaged.

use crate::place::*;
use std::fs;

fn lose_database(place: &Place) {
    for name in ["metadata.db", "metadata.db-wal", "metadata.db-shm"] {
        let _ = fs::remove_file(place.path("data").join(name));
    }
}

#[test]
fn a_site_without_its_database_says_what_to_do_and_is_made_anew() {
    let place = Place::configured();
    place.ok(&["bucket", "create", "b"]);
    let token = place.ok(&["token", "create", "x", "--role", "reader"]);
    let buckets = place.ok(&["--json", "bucket", "list"]);
    let tokens = place.ok(&["--json", "token", "list"]);
    let refused = place.error(&["rebuild"]);
    holds(&refused, &["metadata.db is there", "--replace"]);
    lose_database(&place);
    let refused = place.error(&["bucket", "list"]);
    holds(&refused, &["metadata.db is gone", "`restfs rebuild`"]);
    holds(&place.error(&["serve"]), &["metadata.db is gone"]);
    holds(&place.ok(&["rebuild"]), &["1 buckets, 1 tokens", "BUCKET"]);
    assert_eq!(place.ok(&["--json", "bucket", "list"]), buckets);
    assert_eq!(place.ok(&["--json", "token", "list"]), tokens);
    assert!(token.contains("restfs_"));
    // Garbage instead of a database.
    lose_database(&place);
    fs::write(place.path("data/metadata.db"), vec![0x5A; 10_000]).unwrap();
    holds(&place.error(&["bucket", "list"]), &["`restfs rebuild --replace`"]);
    holds(&place.ok(&["rebuild", "--replace"]), &["metadata.db.replaced"]);
    assert_eq!(place.ok(&["--json", "bucket", "list"]), buckets);
    let mut server = place.serve();
    let refused = place.error(&["rebuild", "--replace"]);
    holds(&refused, &["in use by another restfs process; stop it first"]);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_site_without_database_and_commit_log_does_not_begin_anew() {
    let place = Place::configured();
    place.ok(&["bucket", "create", "b"]);
    lose_database(&place);
    fs::remove_dir_all(place.path("data/commits")).unwrap();
    for words in [&["serve"][..], &["rebuild"], &["bucket", "list"]] {
        holds(&place.error(words), &["no commit log", "put back a copy"]);
    }
    assert!(!place.path("data/metadata.db").exists());
}

#[test]
fn damaged_metadata_fails_scrubs_and_collections_until_it_is_made_anew() {
    let place = Place::configured();
    place.ok(&["bucket", "create", "b"]);
    place.ok(&["scrub"]);
    // What the next bucket's id is: nothing else needs that row.
    let database = rusqlite::Connection::open(place.path("data/metadata.db")).unwrap();
    let spoil = "UPDATE kv SET v = zeroblob(length(v)) WHERE k = x'42'";
    assert_eq!(database.execute(spoil, []), Ok(1));
    drop(database);
    for words in [&["scrub"][..], &["scrub", "--status"]] {
        let output = place.run(words);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        let said = text(&output.stdout);
        holds(
            &said,
            &[
                "metadata: the row with key 42 is not",
                "`restfs rebuild --replace`",
            ],
        );
    }
    for words in [&["gc"][..], &["gc", "--dry-run"]] {
        let output = place.run(words);
        assert_eq!(output.status.code(), Some(1));
        holds(
            &text(&output.stderr),
            &["nothing was collected", "key 42", "`restfs rebuild --replace`"],
        );
    }
    place.ok(&["rebuild", "--replace"]);
    for words in [&["scrub"][..], &["scrub", "--status"], &["gc"]] {
        place.ok(words);
    }
    place.ok(&["bucket", "create", "c"]);
}

#[test]
fn a_scrub_runs_with_and_without_a_server_and_fails_when_something_is_damaged() {
    let place = Place::configured();
    place.ok(&["bucket", "create", "b"]);
    holds(
        &place.ok(&["scrub", "--status"]),
        &["no scrub came to its end yet"],
    );
    holds(&place.ok(&["scrub"]), &["0 damaged blocks, 0 files concerned"]);
    let mut server = place.serve();
    holds(&place.ok(&["scrub", "--now"]), &["0 damaged blocks"]);
    let json = place.ok(&["--json", "scrub", "--status"]);
    let status: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(status["last"]["damages"], 0, "{json}");
    // A file header that nothing needs is told of, and no failure.
    let pack = place.path("data/blocks/packs/00000001.pack");
    let mut bytes = fs::read(&pack).unwrap();
    bytes[13] ^= 1;
    fs::write(&pack, bytes).unwrap();
    holds(
        &place.ok(&["scrub", "--now"]),
        &["1 damaged places hold nothing that is needed"],
    );
    assert_eq!(server.stop(), Some(0));
    let wrong = place.run(&["scrub", "--rate", "fast"]);
    assert_eq!(wrong.status.code(), Some(2));
}
