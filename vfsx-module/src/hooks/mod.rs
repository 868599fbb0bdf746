//! From operations and their results to events. Knows system calls and the client, nothing of Samba.

mod content;
mod copy;
mod durable;
mod metadata;
mod names;
pub mod order;
mod outcome;
mod place;
mod ranges;
mod running;

#[cfg(test)]
mod copy_tests;
#[cfg(test)]
mod tests;

pub use content::{AGE, Descriptor, Going, Planned};
pub use metadata::At;
pub use names::Name;
pub use outcome::Outcome;
pub use place::{Place, share_path};
pub use ranges::{MAX_RANGES, Span};

use crate::client::{Client, FINISH_LIMIT, Request};
use crate::os::{self, Found};
use content::WrittenFile;
use metadata::Touch;
use running::Running;
use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::time::Instant;
use vfsx_proto::{GapReason, NodeRef};

/// What a call is about to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The content of a file that vfsxd knows to be written: it compares it when this process is killed.
    Content,
    /// Names or metadata. vfsxd has to be told, or to see that the call was cut short.
    Tree,
}

/// One tree connect.
///
/// Calls nest: `fset_nt_acl` comes back as several ACL and attribute calls. What they note of metadata goes out when the
/// outermost one ends, for one object once. Names and first writes are noted at once.
#[derive(Debug)]
pub struct Capture {
    client: Client,
    files: BTreeMap<u64, WrittenFile>,
    next_handle: u64,
    depth: u32,
    /// Of the call that is about to change names or metadata, or has, and not all of it is noted.
    changing: Option<u32>,
    touched: Vec<Touch>,
    /// Since the last wait of a client something was noted that its calls have done, other than the content of open files.
    unwaited: bool,
    /// Ranges of some file are not noted yet: none is older than this. Kept here, since there may be thousands of open files.
    holds_back: Option<Instant>,
    /// Data is told: see [`copy`].
    copying: bool,
    /// It never will be.
    unfit: bool,
    running: Running,
}

impl Capture {
    pub fn new(client: Client) -> Self {
        Self {
            client,
            files: BTreeMap::new(),
            next_handle: 1,
            depth: 0,
            changing: None,
            touched: Vec::new(),
            unwaited: false,
            holds_back: None,
            copying: false,
            unfit: false,
            running: Running::default(),
        }
    }

    /// A call of smbd begins.
    pub fn enter(&mut self) {
        self.depth += 1;
        if self.depth == 1 {
            self.client.begin_call();
        }
    }

    /// It may change something.
    pub fn about_to_change(&mut self, what: Change) {
        if what == Change::Tree && self.changing.is_none() {
            self.changing = Some(self.depth);
            self.client.begin_change();
        }
        let requests = self.client.about_to_change();
        self.serve(requests);
    }

    /// It ends.
    pub fn leave(&mut self) {
        let depth = self.depth;
        self.depth = depth.saturating_sub(1);
        if self.depth > 0 {
            if self.changing.is_some_and(|began| began >= depth) && self.touched.is_empty() {
                self.changing = None;
                self.client.end_change();
            }
            return;
        }
        self.changing = None;
        self.note_touched();
        if self.copying {
            self.send_all_ranges();
        }
        self.send();
        self.follow_mode();
        self.client.end_call();
    }

    /// A call went through without capture.
    pub fn panicked(&mut self) {
        self.client.gap(GapReason::Panic);
    }

    /// vfsxd has sent something.
    pub fn readable(&mut self) {
        let requests = self.client.readable();
        self.serve(requests);
        self.send();
    }

    /// The socket has room again.
    pub fn writable(&mut self) {
        self.send();
    }

    /// Call at [`Capture::deadline`].
    pub fn tick(&mut self, now: Instant) {
        let requests = self.client.tick(now);
        self.serve(requests);
        if self.client.is_up() {
            self.send_old_ranges(now);
        }
        self.send();
    }

    /// When [`Capture::tick`] has something to do, or somewhat earlier. Ranges are held back as long as vfsxd is away: they only get fewer.
    pub fn deadline(&self) -> Option<Instant> {
        let oldest = self.holds_back.filter(|_| self.client.is_up());
        let age = oldest.map(|since| since + AGE);
        self.client.deadline().into_iter().chain(age).min()
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    /// The tree connect ends.
    pub fn finish(&mut self) {
        self.enter();
        self.note_touched();
        self.send_all_ranges();
        self.leave();
        let keep_open = self.has_abandoned();
        self.client.finish(FINISH_LIMIT, keep_open);
    }

    /// Identity of an open object, `None` if it cannot be had, which is then a gap.
    pub fn node_of(&mut self, fd: RawFd) -> Option<NodeRef> {
        self.found_at(fd).map(|found| found.node)
    }

    fn found_at(&mut self, fd: RawFd) -> Option<Found> {
        let found = os::identify(fd);
        if found.is_err() {
            self.client.gap(GapReason::Unrepresentable);
        }
        found.ok()
    }

    fn send(&mut self) {
        let requests = self.client.flush();
        if !requests.is_empty() {
            self.serve(requests);
            // Answers only: flush gives no new requests on a connection that is up.
            self.client.flush();
        }
    }

    fn serve(&mut self, requests: Vec<Request>) {
        for request in requests {
            match request {
                Request::SendNow { token } => {
                    self.note_touched();
                    self.send_all_ranges();
                    self.client.answer(token);
                }
                Request::Announce => self.announce_files(),
            }
        }
    }
}
