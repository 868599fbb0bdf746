//! FLUSH and CLOSE of clients that return when what they have done is durable.

use super::Capture;
use crate::client::HERE;
use std::time::{Duration, Instant};

impl Capture {
    /// Whether calls of clients wait at all.
    pub fn waits(&self) -> bool {
        self.client.waits()
    }

    /// A client's FLUSH has ended, outside of any other call. It is to return at most after this time, or when its ticket is
    /// among [`Capture::take_ended_waits`]; at once when there is `None`.
    pub fn begin_wait(&mut self, ticket: u64) -> Option<Duration> {
        let limit = self.client.begin_wait(ticket);
        // vfsxd may have to be asked for the commit.
        self.send();
        if !self.client.is_waiting(ticket) {
            self.client.forget_wait(ticket);
            return None;
        }
        limit
    }

    /// The time of this wait is over.
    pub fn expire_wait(&mut self, ticket: u64) {
        self.client.expire(ticket);
    }

    /// smbd has dropped the call.
    pub fn forget_wait(&mut self, ticket: u64) {
        self.client.forget_wait(ticket);
    }

    /// Waits that have ended, well or not.
    pub fn take_ended_waits(&mut self) -> Vec<u64> {
        self.client.take_ended()
    }

    /// A client's CLOSE has ended: it returns when what the client has done is durable, be it through this handle or by name.
    /// Closes that smbd makes in the middle of another call wait for nothing: it may hold locks.
    pub fn wait_after_close(&mut self) {
        if self.unwaited && self.depth == 0 {
            self.wait_here();
        }
    }

    /// Blocks, up to the limit, until everything noted is durable.
    pub fn wait_here(&mut self) {
        // A FLUSH that stays open leaves this as it is: the close of another file is not to return before it.
        self.unwaited = false;
        if self.begin_wait(HERE).is_none() {
            return;
        }
        while self.client.is_waiting(HERE) {
            let requests = self.client.wait_for_vfsxd();
            self.serve(requests);
            self.tick(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;
    use crate::client::tests::{Daemon, config, hello, host};
    use crate::config::Config;
    use crate::hooks::{Name, Outcome, Place};
    use std::fs::{self, File};
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStrExt;
    use vfsx_proto::Durability;

    /// Longer than a loaded machine lets a call stand still.
    const LIMIT: Duration = Duration::from_millis(500);

    #[test]
    fn a_close_waits_for_names_of_the_client_but_not_inside_of_another_call_nor_for_nothing() {
        let scratch = tempfile::tempdir().expect("scratch directory");
        let daemon = Daemon::start(scratch.path());
        let config = Config {
            durability: Durability::Journal,
            wait_limit: LIMIT,
            ..config(scratch.path(), 1 << 20)
        };
        let client = Client::new(config, host(), hello());
        let mut connection = daemon.accept();
        connection.welcome(0);
        let mut capture = Capture::new(client);
        capture.readable();
        let time = |capture: &mut Capture| {
            let start = Instant::now();
            capture.wait_after_close();
            start.elapsed()
        };

        assert!(time(&mut capture) < LIMIT, "there is nothing");
        let root = scratch.path().join("share");
        fs::create_dir(&root).expect("share");
        let open = File::open(&root).expect("open");
        let root = root.as_os_str().as_bytes();
        let place = Place::new(open.as_raw_fd(), root, b"gone", root).expect("place");
        capture.enter();
        capture.unlinked(Name::look(place), Outcome::Unknown);
        assert!(time(&mut capture) < LIMIT, "smbd may hold a lock");
        capture.leave();
        assert!(time(&mut capture) >= LIMIT, "nobody has acknowledged it");
        assert!(time(&mut capture) < LIMIT, "nothing new");
    }

    #[test]
    fn a_close_waits_for_what_a_flush_that_is_still_open_waits_for() {
        let scratch = tempfile::tempdir().expect("scratch directory");
        let daemon = Daemon::start(scratch.path());
        let config = Config {
            durability: Durability::Journal,
            wait_limit: LIMIT,
            ..config(scratch.path(), 1 << 20)
        };
        let client = Client::new(config, host(), hello());
        let mut connection = daemon.accept();
        connection.welcome(0);
        let mut capture = Capture::new(client);
        capture.readable();
        let root = scratch.path().as_os_str().as_bytes();
        let open = File::open(scratch.path()).expect("open");
        let place = Place::new(open.as_raw_fd(), root, b"gone", root).expect("place");
        capture.unlinked(Name::look(place), Outcome::Unknown);
        assert!(capture.begin_wait(7).is_some(), "another file's flush");
        let start = Instant::now();
        capture.wait_after_close();
        assert!(start.elapsed() >= LIMIT / 2, "nobody has acknowledged the name");
    }
}
