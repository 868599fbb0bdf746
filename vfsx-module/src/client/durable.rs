//! Waits of clients for vfsxd: the connection's part.

use super::waits::{HERE, Known};
use super::{Client, NOTICE, Request};
use crate::os;
use std::time::{Duration, Instant};
use vfsx_proto::{ToDaemon, Waits, encode};

/// vfsxd is told of the numbers this long after they changed, or with the next event.
const TELL_AFTER: Duration = Duration::from_secs(1);
/// Least time between lines of smbd's log about calls that did not wait to the end.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// What was told of the waits, and when to tell more.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// To vfsxd, on the present connection.
    waits: Option<Waits>,
    due: Option<Instant>,
    /// The newest event that this connection was asked to tell the commit of.
    awaited: u64,
    /// Fallbacks, and those of them that smbd's log speaks of.
    seen: u64,
    logged: u64,
    log_again: Option<Instant>,
    last_fallback_ns: i64,
}

impl Client {
    /// Whether calls of clients wait at all.
    pub fn waits(&self) -> bool {
        self.waits.is_on()
    }

    /// A call is to return when everything noted is durable: at most after this time, or at once when there is `None`. The
    /// ticket of one that ends before is among [`Client::take_ended`].
    pub fn begin_wait(&mut self, ticket: u64) -> Option<Duration> {
        let (known, now) = (self.known(), Instant::now());
        let limit = self.waits.begin(ticket, known, now);
        self.count(now);
        limit
    }

    /// The time of this wait is over.
    pub fn expire(&mut self, ticket: u64) {
        let (known, now) = (self.known(), Instant::now());
        self.waits.expire(ticket, known, now);
        self.count(now);
    }

    /// Who waits is gone.
    pub fn forget_wait(&mut self, ticket: u64) {
        self.waits.forget(ticket);
    }

    /// Waits that have ended, well or not.
    pub fn take_ended(&mut self) -> Vec<u64> {
        self.waits.take_ended()
    }

    /// The wait goes on.
    pub fn is_waiting(&self, ticket: u64) -> bool {
        self.waits.until(ticket).is_some()
    }

    /// Blocks until vfsxd says something, takes more, or the wait in place is over.
    pub fn wait_for_vfsxd(&mut self) -> Vec<Request> {
        if let (Some(until), Some(socket)) = (self.waits.until(HERE), self.link.socket()) {
            let left = until.saturating_duration_since(Instant::now());
            os::wait(socket, !self.wire.is_empty(), left);
        }
        let requests = self.readable();
        self.review();
        requests
    }

    /// Something has changed that waits may have waited for.
    pub(super) fn review(&mut self) {
        let (known, now) = (self.known(), Instant::now());
        self.waits.update(known, now);
        self.count(now);
    }

    /// The session is over: nobody waits any more.
    pub(super) fn give_up_waits(&mut self) {
        self.waits.give_up();
        self.count(Instant::now());
        self.log_fallbacks();
        self.told.due = Some(Instant::now());
        self.stir();
    }

    /// When vfsxd is to be told of the numbers. Never while it does not read.
    pub(super) fn tell_at(&self) -> Option<Instant> {
        self.told
            .due
            .filter(|_| self.link.is_up() && self.wire.is_empty())
    }

    /// A new connection knows nothing.
    pub(super) fn forget_told(&mut self) {
        self.told.waits = None;
        self.told.awaited = 0;
        self.told.due = (self.waits.calls > 0).then(Instant::now);
    }

    /// Puts on the wire what is to be told of the waits.
    pub(super) fn stage_waits(&mut self) {
        let wanted = self.waits.wanted();
        if wanted > self.told.awaited && wanted > self.committed && wanted <= self.ring.last_given() {
            self.told.awaited = wanted;
            // Cannot fail: one integer. The same holds below.
            let _ = encode(&ToDaemon::Await { sequence: wanted }, &mut self.wire);
        }
        let waits = self.totals();
        let is_due = self.told.due.is_some_and(|due| due <= Instant::now());
        if (is_due || !self.wire.is_empty()) && waits.calls > 0 && self.told.waits != Some(waits) {
            self.told.waits = Some(waits);
            self.told.due = None;
            let _ = encode(&ToDaemon::Waits(waits), &mut self.wire);
        }
    }

    fn known(&self) -> Known {
        Known {
            last: self.ring.last(),
            acknowledged: self.ring.acknowledged(),
            committed: self.committed,
            connected: self.link.socket().is_some(),
            lost: self.lost.is_some(),
        }
    }

    fn totals(&self) -> Waits {
        Waits {
            calls: self.waits.calls,
            fallbacks: self.waits.fallbacks,
            last_fallback_ns: self.told.last_fallback_ns,
        }
    }

    /// Notes what has become of calls.
    fn count(&mut self, now: Instant) {
        if self.waits.calls > 0 && self.told.waits != Some(self.totals()) {
            self.stir();
            self.told.due.get_or_insert(now + TELL_AFTER);
        }
        if self.waits.fallbacks == self.told.seen {
            return;
        }
        self.told.seen = self.waits.fallbacks;
        self.told.last_fallback_ns = os::wall_clock();
        if self.told.log_again.is_none_or(|again| again <= now) {
            self.told.log_again = Some(now + LOG_EVERY);
            self.log_fallbacks();
        }
    }

    fn log_fallbacks(&mut self) {
        let count = self.waits.fallbacks - self.told.logged;
        self.told.logged = self.waits.fallbacks;
        if count > 0 {
            let text = format!(
                "share {}: {count} calls of this client have returned before their changes were durable ({:?}): {}",
                self.hello.share,
                self.hello.durability,
                self.why(),
            );
            (self.host.log)(NOTICE, &text);
        }
    }

    fn why(&self) -> String {
        match (self.lost, self.link.socket()) {
            (Some(_), _) => "changes were dropped".to_owned(),
            (None, None) => "there is no connection to vfsxd".to_owned(),
            (None, Some(_)) => format!(
                "vfsxd has not said so within vfsx:wait limit = {}",
                self.config.wait_limit.as_millis()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::{Connection, Daemon, config, hello, host};
    use crate::config::Config;
    use crate::hooks::Capture;
    use vfsx_proto::{Durability, Event, NodeRef, ToModule};

    const LIMIT: Duration = Duration::from_millis(300);
    /// Longer than anything here takes, so that a hang fails.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn event(n: u64) -> Event {
        Event::Flushed {
            handle: n,
            node: NodeRef {
                dev: 1,
                ino: n,
                btime_ns: 0,
            },
        }
    }

    fn connected(level: Durability, limit: Duration) -> (tempfile::TempDir, Daemon, Connection, Client) {
        let dir = tempfile::tempdir().expect("scratch directory");
        let daemon = Daemon::start(dir.path());
        let config = Config {
            durability: level,
            wait_limit: limit,
            ..config(dir.path(), 1 << 20)
        };
        let mut client = Client::new(config, host(), hello());
        let mut connection = daemon.accept();
        connection.welcome(0);
        client.flush();
        assert!(client.is_up());
        (dir, daemon, connection, client)
    }

    fn note(client: &mut Client, n: u64) {
        client.note(event(n));
        client.flush();
    }

    /// The next message that is no event.
    fn other(connection: &mut Connection) -> ToDaemon {
        loop {
            match connection.message() {
                ToDaemon::Events(_) => {}
                other => return other,
            }
        }
    }

    #[test]
    fn a_flush_is_ended_by_the_acknowledgement_of_what_came_before_it() {
        let (_dir, _daemon, mut connection, mut client) = connected(Durability::Journal, PATIENCE);
        note(&mut client, 1);
        note(&mut client, 2);
        assert_eq!(client.begin_wait(7), Some(PATIENCE));
        note(&mut client, 3);
        connection.send(&ToModule::Ack { sequence: 1 });
        client.readable();
        assert_eq!(client.take_ended(), []);
        connection.send(&ToModule::Ack { sequence: 2 });
        client.readable();
        assert_eq!(client.take_ended(), [7]);
    }

    #[test]
    fn a_commit_is_asked_for_behind_its_event_and_waited_for() {
        let (_dir, _daemon, mut connection, mut client) = connected(Durability::Remote, PATIENCE);
        note(&mut client, 1);
        assert!(client.begin_wait(7).is_some());
        client.flush();
        assert_eq!(connection.events(1)[0].sequence, 1);
        assert_eq!(connection.message(), ToDaemon::Await { sequence: 1 });
        connection.send(&ToModule::Ack { sequence: 1 });
        client.readable();
        assert_eq!(client.take_ended(), [], "in the journal is not at the site");
        connection.send(&ToModule::Committed { sequence: 1 });
        client.readable();
        assert_eq!(client.take_ended(), [7]);
    }

    #[test]
    fn after_a_reconnect_the_commit_is_asked_for_again_behind_what_is_sent_again() {
        let (dir, daemon, mut connection, mut client) = connected(Durability::Remote, PATIENCE);
        note(&mut client, 1);
        client.begin_wait(7);
        client.flush();
        assert_eq!(other(&mut connection), ToDaemon::Await { sequence: 1 });
        drop((connection, daemon));
        client.readable();
        assert_eq!(client.take_ended(), [7], "nobody is there to wait for");
        assert_eq!(client.begin_wait(8), None);

        let daemon = Daemon::start(dir.path());
        let deadline = Instant::now() + PATIENCE;
        while client.link.retry_at().is_some() {
            assert!(Instant::now() < deadline, "no connection");
            std::thread::sleep(Duration::from_millis(5));
            client.tick(Instant::now());
        }
        let mut connection = daemon.accept();
        connection.welcome(0);
        client.flush();
        assert_eq!(connection.events(1)[0].sequence, 1);
        assert_eq!(connection.message(), ToDaemon::Await { sequence: 1 });
        let ToDaemon::Waits(told) = connection.message() else {
            panic!("a new connection is told all")
        };
        assert_eq!((told.calls, told.fallbacks), (2, 2));
        assert!(told.last_fallback_ns > 0);
    }

    #[test]
    fn a_close_blocks_until_it_is_durable_and_serves_vfsxd_meanwhile() {
        let (_dir, _daemon, mut connection, mut client) = connected(Durability::Journal, PATIENCE);
        note(&mut client, 1);
        let daemon = std::thread::spawn(move || {
            connection.events(1);
            connection.send(&ToModule::SendNow { token: 5 });
            assert_eq!(other(&mut connection), ToDaemon::Sent { token: 5 });
            connection.send(&ToModule::Ack { sequence: 1 });
            connection
        });
        let mut capture = Capture::new(client);
        let start = Instant::now();
        capture.wait_here();
        assert!(start.elapsed() < PATIENCE / 2);
        assert!(capture.client().is_settled());
        drop(daemon.join().expect("daemon"));
    }

    #[test]
    fn a_close_on_a_vfsxd_that_hangs_takes_the_limit_once_and_the_next_ones_nothing() {
        let (_dir, _daemon, mut connection, mut client) = connected(Durability::Journal, LIMIT);
        note(&mut client, 1);
        let mut capture = Capture::new(client);
        let start = Instant::now();
        capture.wait_here();
        let first = start.elapsed();
        assert!(first >= LIMIT && first < LIMIT * 10, "{first:?}");
        let start = Instant::now();
        for n in 2..50 {
            note(capture.client_mut(), n);
            capture.wait_here();
        }
        // Each on its own would take the limit; a machine that stands still for a moment is no failure.
        assert!(start.elapsed() < LIMIT * 5, "{:?}", start.elapsed());
        // The numbers come with a later event, or after a second.
        connection.events(1);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let ToDaemon::Waits(told) = other(&mut connection)
                && told.calls == told.fallbacks
            {
                assert!(told.calls > 0 && Instant::now() < deadline);
                break;
            }
        }
        connection.send(&ToModule::Ack { sequence: 49 });
        capture.readable();
        note(capture.client_mut(), 50);
        let start = Instant::now();
        let daemon = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            connection.send(&ToModule::Ack { sequence: 50 });
            connection
        });
        capture.wait_here();
        assert!(
            start.elapsed() >= Duration::from_millis(20),
            "it has caught up, so it is waited for again"
        );
        assert!(capture.client().is_settled());
        drop(daemon.join().expect("daemon"));
    }

    #[test]
    fn numbers_that_no_event_follows_are_told_at_the_deadline() {
        let (_dir, _daemon, mut connection, mut client) = connected(Durability::Journal, PATIENCE);
        note(&mut client, 1);
        connection.send(&ToModule::Ack { sequence: 1 });
        client.readable();
        assert_eq!(client.begin_wait(7), None, "it is durable");
        let at = client.deadline().expect("something is to be told");
        assert!(at <= Instant::now() + TELL_AFTER);
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        client.tick(Instant::now());
        client.flush();
        let ToDaemon::Waits(told) = other(&mut connection) else {
            panic!("the numbers")
        };
        assert_eq!((told.calls, told.fallbacks), (1, 0));
        assert_eq!(client.deadline(), None, "once is enough");
    }

    #[test]
    fn the_end_of_a_session_ends_its_waits_and_tells_the_numbers() {
        let (_dir, _daemon, mut connection, mut client) = connected(Durability::Journal, PATIENCE);
        note(&mut client, 1);
        client.begin_wait(7);
        let daemon = std::thread::spawn(move || {
            connection.events(1);
            connection.send(&ToModule::Ack { sequence: 1 });
            other(&mut connection)
        });
        client.finish(PATIENCE, false);
        assert_eq!(client.take_ended(), [7]);
        let told = daemon.join().expect("daemon");
        assert!(
            matches!(told, ToDaemon::Waits(Waits { calls: 1, .. })),
            "{told:?}"
        );
    }
}
