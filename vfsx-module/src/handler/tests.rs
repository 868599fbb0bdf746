//! A handler that is asked, against listeners that behave well or not.

use super::*;
use crate::config::{HandlerConfig, OnFailure};
use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

/// Short, since tests wait for it; far longer than a thread here takes to answer.
const TIMEOUT: Duration = Duration::from_millis(400);
/// For a loaded machine that lets the test stand still: far below what a thousand time-outs take.
const PAUSES: Duration = TIMEOUT.saturating_mul(10);

thread_local! {
    static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn logged() -> Vec<String> {
    LOG.with(|log| log.take())
}

fn asker(socket: PathBuf, on_failure: OnFailure) -> Handler {
    let config = HandlerConfig {
        socket,
        timeout: TIMEOUT,
        on_failure,
    };
    let host = Host {
        as_root: |work| work(),
        log: |_, text| LOG.with(|log| log.borrow_mut().push(text.to_owned())),
    };
    Handler::new(config, host, "data".into(), b"/srv/data".to_vec())
}

fn unlink(name: &str) -> Operation {
    Operation::new("unlink").text(name.as_bytes())
}

/// The next question on a connection; `None` when the module has closed it.
fn question(stream: &mut UnixStream) -> Option<String> {
    let mut text = Vec::new();
    loop {
        let mut block = [0; 512];
        stream.read_exact(&mut block).ok()?;
        text.extend_from_slice(&block);
        if block[511] == 0 {
            let end = text.iter().position(|byte| *byte == 0)?;
            text.truncate(end);
            return String::from_utf8(text).ok();
        }
    }
}

/// Accepts one connection after another; `answer` gives the bytes to send, `None` ends the connection.
fn serve(
    dir: &Path,
    connections: usize,
    mut answer: impl FnMut(&str) -> Option<Vec<u8>> + Send + 'static,
) -> (PathBuf, JoinHandle<Vec<String>>) {
    let socket = dir.join("handler");
    let listener = UnixListener::bind(&socket).expect("listener");
    let thread = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().expect("a connection");
            while let Some(text) = question(&mut stream) {
                let reply = answer(&text);
                asked.push(text);
                let Some(reply) = reply else { break };
                stream.write_all(&reply).expect("answer sent");
            }
        }
        asked
    });
    (socket, thread)
}

#[test]
fn answers_decide_and_all_questions_use_one_connection() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let (socket, server) = serve(dir.path(), 1, |text| {
        let answer = if text.ends_with("no") {
            "-2"
        } else if text.ends_with("error") {
            "-1\n"
        } else {
            "0"
        };
        Some(answer.into())
    });
    let mut asker = asker(socket, OnFailure::Deny);
    for (name, errno) in [
        ("yes", None),
        ("no", Some(libc::EACCES)),
        ("error", Some(libc::EIO)),
        ("yes", None),
    ] {
        assert_eq!(asker.ask(b"user", &unlink(name)).errno(), errno, "{name}");
    }
    asker.finish(b"user");
    drop(asker);
    let asked = server.join().expect("the handler ends with the connection");
    assert_eq!(asked.len(), 5);
    assert_eq!(asked[1], "unlink:user:/srv/data:no");
    assert_eq!(asked[4], "disconnect:user:/srv/data");
    assert_eq!(logged(), [""; 0], "nothing to tell");
}

#[test]
fn a_long_question_arrives_whole() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let (socket, server) = serve(dir.path(), 1, |_| Some(b"0".to_vec()));
    let mut asker = asker(socket, OnFailure::Deny);
    let name = "n".repeat(60_000);
    assert_eq!(asker.ask(b"user", &unlink(&name)), Answer::GoOn);
    drop(asker);
    assert_eq!(
        server.join().expect("served"),
        [format!("unlink:user:/srv/data:{name}")]
    );
}

#[test]
fn an_absent_handler_costs_no_time_and_the_option_decides() {
    let dir = tempfile::tempdir().expect("scratch directory");
    for (on_failure, answer) in [
        (OnFailure::Allow, Answer::GoOn),
        (OnFailure::Deny, Answer::Authorization),
    ] {
        let mut asker = asker(dir.path().join("nobody"), on_failure);
        let start = Instant::now();
        for _ in 0..1000 {
            assert_eq!(asker.ask(b"user", &unlink("a")), answer);
        }
        assert!(start.elapsed() < PAUSES, "{:?}", start.elapsed());
        assert_eq!(logged().len(), 1, "one line when it begins");
    }
}

#[test]
fn a_handler_that_hangs_costs_one_time_out_and_then_nothing() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let listener = UnixListener::bind(dir.path().join("handler")).expect("listener");
    let mut asker = asker(dir.path().join("handler"), OnFailure::Allow);
    let start = Instant::now();
    assert_eq!(asker.ask(b"user", &unlink("a")), Answer::GoOn);
    let first = start.elapsed();
    assert!(first >= TIMEOUT && first < TIMEOUT + PAUSES, "{first:?}");
    let start = Instant::now();
    for _ in 0..1000 {
        asker.ask(b"user", &unlink("a"));
    }
    assert!(start.elapsed() < PAUSES, "{:?}", start.elapsed());
    asker.finish(b"user");
    let log = logged();
    assert!(log[0].contains("did not answer within 400 ms"), "{log:?}");
    assert!(log[1].contains("1002 of its operations were allowed"), "{log:?}");
    drop(listener);
}

#[test]
fn the_end_of_a_failure_is_told_with_what_was_missed() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let mut asker = asker(dir.path().join("handler"), OnFailure::Allow);
    asker.ask(b"user", &unlink("a"));
    let (_, server) = serve(dir.path(), 1, |_| Some(b"-2".to_vec()));
    let deadline = Instant::now() + Duration::from_secs(20);
    while asker.ask(b"user", &unlink("b")) == Answer::GoOn {
        assert!(Instant::now() < deadline, "the handler is never asked again");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(asker);
    let asked = server.join().expect("served");
    assert_eq!(asked.len(), 1);
    let log = logged();
    assert!(log[1].contains("answers again"), "{log:?}");
}

#[test]
fn a_restarted_handler_is_asked_at_once() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let mut count = 0;
    // The first connection ends after one answer, in the middle of the second question.
    let (socket, server) = serve(dir.path(), 2, move |_| {
        count += 1;
        (count != 2).then(|| b"-2".to_vec())
    });
    let mut asker = asker(socket, OnFailure::Allow);
    for _ in 0..3 {
        assert_eq!(asker.ask(b"user", &unlink("a")), Answer::Authorization);
    }
    drop(asker);
    assert_eq!(
        server.join().expect("served").len(),
        4,
        "one question was asked twice"
    );
    assert_eq!(logged(), [""; 0]);
}

#[test]
fn nonsense_is_no_answer_and_breaks_the_circuit() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let (socket, server) = serve(dir.path(), 1, |_| Some(b"ok".to_vec()));
    let mut asker = asker(socket, OnFailure::Deny);
    for _ in 0..3 {
        assert_eq!(asker.ask(b"user", &unlink("a")), Answer::Authorization);
    }
    assert_eq!(server.join().expect("served").len(), 1);
    let log = logged();
    assert!(log.len() == 1 && log[0].contains("answered \"ok\""), "{log:?}");
}

#[test]
fn a_second_answer_is_not_taken_for_the_next_questions() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let socket = dir.path().join("handler");
    let listener = UnixListener::bind(&socket).expect("listener");
    let mut asker = asker(socket, OnFailure::Deny);
    let (said, told) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        let (mut first, _) = listener.accept().expect("a connection");
        question(&mut first).expect("a question");
        first.write_all(b"0").expect("answer sent");
        // Waits until the module has taken the answer: then this one is nobody's.
        told.recv().expect("told");
        first.write_all(b"0").expect("answer sent");
        said_back(&listener)
    });
    assert_eq!(asker.ask(b"user", &unlink("a")), Answer::GoOn);
    said.send(()).expect("sent");
    // Until the stray answer has arrived, the question would be asked on the old connection, which nobody reads.
    let deadline = Instant::now() + Duration::from_secs(20);
    let line = asker.line.as_ref().expect("connected");
    while line.is_idle() {
        assert!(Instant::now() < deadline, "the stray answer does not come");
    }
    assert_eq!(asker.ask(b"user", &unlink("b")), Answer::Authorization);
    server.join().expect("served");
}

fn said_back(listener: &UnixListener) {
    let (mut second, _) = listener.accept().expect("a connection");
    question(&mut second).expect("the second question, on a new connection");
    second.write_all(b"-2").expect("answer sent");
}

#[test]
fn an_answer_in_two_pieces_is_one() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let socket = dir.path().join("handler");
    let listener = UnixListener::bind(&socket).expect("listener");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        question(&mut stream).expect("a question");
        stream.write_all(b"-").expect("half an answer");
        std::thread::sleep(Duration::from_millis(50));
        stream.write_all(b"2").expect("the other half");
        question(&mut stream)
    });
    let mut asker = asker(socket, OnFailure::Allow);
    assert_eq!(asker.ask(b"user", &unlink("a")), Answer::Authorization);
    drop(asker);
    assert_eq!(server.join().expect("served"), None);
}

#[test]
fn a_question_too_long_to_ask_is_decided_by_the_option() {
    let dir = tempfile::tempdir().expect("scratch directory");
    let mut asker = asker(dir.path().join("nobody"), OnFailure::Deny);
    let name = "n".repeat(70_000);
    assert_eq!(asker.ask(b"user", &unlink(&name)), Answer::Authorization);
    assert!(logged()[0].contains("too long"));
}
