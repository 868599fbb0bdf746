//! What a session leaves on disk when vfsxd does not take its events.

use super::tests::{
    NOTHING, PATIENCE, config, connected, event, hello, host, make_spool, refused, traces, word,
};
use super::*;
use vfsx_proto::{Decoder, PREAMBLE, SessionId};

#[test]
fn an_end_without_a_daemon_leaves_the_flag_and_does_not_wait() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let mut client = Client::new(config(dir.path(), 1 << 20), host(), hello());
    client.note(event(1));
    let start = Instant::now();
    client.finish(PATIENCE, false);
    assert!(start.elapsed() < PATIENCE / 2);
    let flag = flag::path(&dir.path().join("state"), "data", SessionId([7; 16]));
    let text = std::fs::read_to_string(flag).expect("the flag");
    assert!(text.contains("\"reason\":\"DaemonAbsent\",\"pid\":42"), "{text}");
}

#[test]
fn an_end_with_a_silent_daemon_is_bounded_and_leaves_all_that_it_did_not_take_in_the_spool() {
    let (dir, _daemon, mut connection, mut client) = connected(1 << 20);
    let spool = make_spool(dir.path());
    client.note(event(1));
    client.flush();
    assert_eq!(connection.sequences(1), [1]);
    connection.send(&ToModule::Ack { sequence: 1 });
    client.note(event(2));
    client.note(event(3));
    client.finish(Duration::from_millis(30), false);
    let file = spool.join("07".repeat(16));
    let spooled = std::fs::read(&file).expect("the spool file");
    assert_eq!(traces(dir.path()), [file], "no flag, and no other file");
    let (head, frames) = spooled.split_at(PREAMBLE);
    assert_eq!(head, preamble());
    let mut decoder = Decoder::default();
    decoder.push(frames);
    assert_eq!(decoder.next(), Ok(Some(ToDaemon::Hello(hello()))));
    for n in [2, 3] {
        let Ok(Some(ToDaemon::Events(events))) = decoder.next() else {
            panic!("event {n} is missing")
        };
        assert_eq!(events.iter().map(|e| e.sequence).collect::<Vec<_>>(), [n]);
    }
    assert_eq!(decoder.next(), Ok(Some(ToDaemon::Sent { token: 3 })));
    assert_eq!(decoder.pending(), 0);
}

#[test]
fn without_a_spool_or_after_a_loss_an_end_leaves_the_flag() {
    for lossy in [false, true] {
        let (dir, _daemon, _connection, mut client) = connected(1 << 20);
        make_spool(dir.path());
        client.config.spool = lossy;
        client.note(event(1));
        if lossy {
            client.lose(GapReason::RingFull);
        }
        client.finish(Duration::from_millis(30), false);
        let flag = flag::path(&dir.path().join("state"), "data", SessionId([7; 16]));
        let text = std::fs::read_to_string(&flag).expect("the flag");
        assert_eq!(text.contains("last"), !lossy, "{text}");
        assert_eq!(traces(dir.path()), [flag]);
    }
}

/// Without the directory nobody would take the file: no vfsxd has this share.
#[test]
fn a_spool_that_cannot_be_written_or_has_no_directory_leaves_the_flag() {
    for obstacle in [true, false] {
        let (dir, _daemon, _connection, mut client) = connected(1 << 20);
        client.note(event(1));
        if obstacle {
            let path = make_spool(dir.path()).join("07".repeat(16)).with_extension("new");
            std::fs::create_dir(path).expect("in the way");
        }
        client.finish(Duration::from_millis(30), false);
        let flag = flag::path(&dir.path().join("state"), "data", SessionId([7; 16]));
        assert_eq!(traces(dir.path()), [flag]);
    }
}

#[test]
fn a_session_that_no_vfsxd_ever_took_goes_to_the_spool_of_its_share_whatever_the_case_of_its_name() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let spool = dir.path().join("state/spool/DATA");
    std::fs::create_dir_all(&spool).expect("directory");
    let mut client = Client::new(config(dir.path(), 1 << 20), host(), hello());
    client.note(event(1));
    client.finish(PATIENCE, false);
    assert_eq!(traces(dir.path()), [spool.join("07".repeat(16))]);
}

/// Else vfsxd, when it is back, would take it for the session of a process that was killed.
#[test]
fn an_end_whose_daemon_has_taken_all_leaves_word_that_nothing_is_lost() {
    for (keep_open, is_away) in [(false, true), (true, true), (false, false)] {
        let (dir, daemon, mut connection, mut client) = connected(1 << 20);
        client.note(event(1));
        client.flush();
        assert_eq!(connection.sequences(1), [1]);
        connection.send(&ToModule::Ack { sequence: 1 });
        client.readable();
        assert_eq!(traces(dir.path()), NOTHING);
        let there = (daemon, connection);
        let there = (!is_away).then_some(there);
        client.readable();
        client.finish(PATIENCE, keep_open);
        let [word] = word(dir.path());
        assert_eq!(traces(dir.path()), std::slice::from_ref(&word));
        let text = std::fs::read_to_string(&word).expect("word");
        assert!(text.contains("\"last\":1}"), "{text}");
        drop((client, there));
        let is_over = std::fs::File::open(&word).expect("opens").try_lock().is_ok();
        assert_eq!(is_over, !keep_open, "its threads may still write");
    }
}

/// Nobody would take it away.
#[test]
fn a_session_that_vfsxd_refused_leaves_no_word() {
    let (dir, _daemon, mut client) = refused();
    client.finish(PATIENCE, false);
    assert_eq!(traces(dir.path()), NOTHING);
}

#[test]
fn nothing_noted_means_no_flag_even_without_a_daemon() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let mut client = Client::new(config(dir.path(), 1 << 20), host(), hello());
    client.finish(PATIENCE, false);
    assert_eq!(traces(dir.path()), NOTHING);
}
