//! The way to vfsxd: one connection per tree connect, and what vfsxd has not acknowledged yet.
//!
//! Nothing here waits but [`Client::finish`] and [`Client::wait_for_vfsxd`], which have limits. The owner of the event loop calls
//! [`Client::readable`] and [`Client::flush`] when the socket is ready, and [`Client::tick`] at [`Client::deadline`].

mod absence;
mod copy;
mod durable;
pub mod flag;
mod frames;
mod keeper;
mod link;
mod outbox;
mod overflow;
mod ring;
mod shared;
mod space;
mod spool;
mod waits;

#[cfg(test)]
mod absence_tests;
#[cfg(test)]
mod outbox_tests;
#[cfg(test)]
mod overflow_tests;
#[cfg(test)]
pub(crate) mod tests;

use crate::config::Config;
pub use waits::HERE;

use crate::os;
use durable::Told;
use flag::{Lost, Standing};
use link::{Link, LinkError};
pub use outbox::HOLD;
use outbox::Held;
use overflow::Overflow;
use ring::{NotKept, Ring};
use shared::Shared;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};
use vfsx_proto::ring::Word;
use vfsx_proto::{Event, GapReason, Hello, Refusal, ToDaemon, ToModule, encode, preamble};
use waits::Waits;

/// How much is taken from the ring for one system call.
const STAGE: usize = 64 * 1024;
/// How long the end of a tree connect may wait for vfsxd's last acknowledgement. Data in the socket's buffer survives this
/// process, but not a kill of vfsxd at the same moment; only an acknowledgement tells.
pub const FINISH_LIMIT: Duration = Duration::from_millis(200);

/// smbd's log levels.
pub const ERROR: i32 = 0;
pub const NOTICE: i32 = 1;
pub const DETAIL: i32 = 3;

/// What the client needs of the process it lives in.
#[derive(Debug, Clone, Copy)]
pub struct Host {
    /// Runs a function with root's rights: smbd's requests run as the client's user.
    pub as_root: fn(&mut dyn FnMut()),
    /// One line for smbd's log.
    pub log: fn(i32, &str),
}

/// See the module's text.
#[derive(Debug)]
pub struct Client {
    config: Config,
    host: Host,
    hello: Hello,
    ring: Ring,
    link: Link,
    /// Events were dropped and no `Gap` is in the ring yet.
    lost: Option<Lost>,
    /// `Sent` answers, each due after the event of that sequence.
    answers: VecDeque<(u64, u64)>,
    /// Taken from the ring for the present connection and not yet sent.
    wire: Vec<u8>,
    /// Ended sockets that the event loop may still watch.
    ended: Vec<OwnedFd>,
    /// The connection that was last asked for acknowledgements.
    asked_by: Option<u64>,
    /// Counts connections, so that the event loop sees a change even when the descriptor's number is the same.
    connection: u64,
    /// Tells of the changes in this memory, in case that smbd is killed.
    standing: Option<Standing>,
    /// No attempt to raise it before.
    raise_again: Option<Instant>,
    /// On its way to disk, or there.
    overflow: Overflow,
    /// When vfsxd has acknowledged something last, on the present connection.
    heard: Instant,
    /// Connections that have said Hello. vfsxd may have taken the session by each of them, whether its answer was heard or not.
    greeted: u64,
    /// The last failure was logged; the next is news only after a success.
    complained: bool,
    /// Newest event that is known to be at a site.
    committed: u64,
    waits: Waits,
    told: Told,
    /// When there was memory for it.
    shared: Option<Shared>,
    held: Held,
    /// vfsxd reads the memory, as it said on the present connection.
    memory_taken: bool,
    /// Something has changed that the event loop has to know of.
    stirred: bool,
    /// The present connection has not been given the descriptor of that yet.
    to_pass: bool,
    /// vfsxd wants written data, as it said on the present connection.
    data_wanted: bool,
    /// vfsxd was told of this session, and did not refuse it.
    is_known: bool,
}

/// What vfsxd asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Send what is held back, then call [`Client::answer`] with the token.
    SendNow { token: u64 },
    /// Name open files again: the gap of dropped events is now told, or vfsxd was away and may have forgotten them.
    Announce,
}

impl Client {
    /// Connects at once if vfsxd is there.
    pub fn new(config: Config, host: Host, mut hello: Hello) -> Self {
        let shared = copy::share_memory(&config, host, &mut hello);
        let ring = Ring::new(config.ring);
        let waits = Waits::new(config.durability, config.wait_limit);
        let mut client = Self {
            config,
            host,
            hello,
            ring,
            link: Link::new(),
            lost: None,
            answers: VecDeque::new(),
            wire: Vec::new(),
            ended: Vec::new(),
            asked_by: None,
            connection: 0,
            standing: None,
            raise_again: None,
            overflow: Overflow::default(),
            heard: Instant::now(),
            greeted: 0,
            complained: false,
            committed: 0,
            waits,
            told: Told::default(),
            shared,
            held: Held::default(),
            memory_taken: false,
            stirred: true,
            to_pass: false,
            data_wanted: false,
            is_known: false,
        };
        client.connect();
        client
    }

    /// vfsxd takes events.
    pub fn is_up(&self) -> bool {
        self.link.is_up()
    }

    /// Keeps the event until vfsxd has acknowledged it. Sends nothing yet: see [`Client::flush`].
    /// Gives its sequence; `None`: it is not kept, and a gap is on record.
    pub fn note(&mut self, event: Event) -> Option<u64> {
        if self.lost.is_some() {
            // Its place in the order is after the `Gap` that is not in the ring yet.
            return None;
        }
        let mut kept = self.keep(&event, os::wall_clock());
        if kept == Err(NotKept::Full) {
            self.spill();
            kept = self.keep(&event, os::wall_clock());
        }
        match kept {
            Ok(()) => return Some(self.ring.last()),
            // Never a `Gap` at once: it is small and may still fit, and there is no room for what follows it.
            Err(NotKept::Full) => self.lose(GapReason::RingFull),
            Err(NotKept::TooLarge) => self.gap(GapReason::Unrepresentable),
        }
        None
    }

    fn keep(&mut self, event: &Event, time_ns: i64) -> Result<(), NotKept> {
        let (began_ns, may_hold) = (self.began_ns(), self.may_hold());
        self.ring.push(event, time_ns, began_ns)?;
        self.stir();
        self.tell(Word::Noted, self.ring.last());
        if may_hold {
            self.hold();
        }
        Ok(())
    }

    /// Changes may be missed from now on.
    pub fn gap(&mut self, reason: GapReason) {
        let since_ns = os::wall_clock();
        // A `Gap` that is not in the ring yet covers this one too.
        if self.lost.is_some() || self.keep(&Event::Gap { since_ns, reason }, since_ns).is_err() {
            self.lose(reason);
        } else {
            self.log_gap(reason);
        }
    }

    /// Nothing is kept from now on until [`Client::tell_gap`]. The ring holds something then, whose acknowledgement leads there:
    /// an empty one has room for every frame.
    fn lose(&mut self, reason: GapReason) {
        self.log_gap(reason);
        self.lost.get_or_insert(Lost {
            since_ns: os::wall_clock(),
            reason,
        });
        self.review();
    }

    fn log_gap(&self, reason: GapReason) {
        let text = format!("share {}: changes may be missed: {reason:?}", self.hello.share);
        (self.host.log)(ERROR, &text);
    }

    /// Sends what the socket takes, unless it is safe where it is and its time has not come.
    pub fn flush(&mut self) -> Vec<Request> {
        // Between connect and `Welcome` the answer may be there already, before the event loop looks.
        let mut requests = if self.link.is_up() {
            Vec::new()
        } else {
            self.readable()
        };
        if self.overflows() {
            requests.extend(self.overflow());
        }
        if !self.is_held() && !self.has_nothing_to_send() {
            self.send();
        }
        requests
    }

    /// Receives what is there.
    pub fn readable(&mut self) -> Vec<Request> {
        match self.link.receive() {
            Ok(messages) => messages
                .into_iter()
                .filter_map(|message| self.take(message))
                .collect(),
            Err(why) => {
                self.end(&why);
                Vec::new()
            }
        }
    }

    /// The answer to [`Request::SendNow`]: follows all events noted so far, and the `Gap` of those that were dropped, which is
    /// the next that the ring takes.
    pub fn answer(&mut self, token: u64) {
        let after = self.ring.last() + u64::from(self.lost.is_some());
        self.answers.push_back((after, token));
    }

    /// Tries to connect when it is time, sends what was held, and raises the standing flag when changes stay unacknowledged; makes room in
    /// the ring.
    pub fn tick(&mut self, now: Instant) -> Vec<Request> {
        self.stir();
        if self.held_until().is_some_and(|until| until <= now) {
            self.send();
        }
        if self.link.retry_at().is_some_and(|at| at <= now) {
            self.connect();
        }
        self.give_memory_back(now);
        let mut requests = match self.overflows() {
            true => self.overflow(),
            false => Vec::new(),
        };
        if !self.is_standing_due(now) {
            return requests;
        }
        // The acknowledgement may be there, and smbd was busy elsewhere.
        requests.extend(self.readable());
        if self.is_standing_due(now) {
            self.raise_standing(now);
        }
        requests
    }

    /// When [`Client::tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let due = [
            self.link.retry_at(),
            self.standing_at(),
            self.tell_at(),
            self.idle_at(),
            self.held_until(),
            self.look_at(),
        ];
        due.into_iter().flatten().min()
    }

    /// Something becomes due that [`Client::deadline`] did not speak of.
    pub fn stir(&mut self) {
        self.stirred = true;
    }

    /// Whether [`Client::watch`] or the deadline may be others than when this was asked last: after most calls of smbd they are not.
    pub fn take_stirred(&mut self) -> bool {
        std::mem::take(&mut self.stirred)
    }

    /// What to watch: the connection's number, its socket, and whether it waits for room.
    pub fn watch(&self) -> (u64, Option<RawFd>, bool) {
        (
            self.connection,
            self.link.socket().map(AsRawFd::as_raw_fd),
            !self.wire.is_empty(),
        )
    }

    /// Closes ended sockets. Call when the event loop no longer watches them.
    pub fn close_ended(&mut self) {
        self.ended.clear();
    }

    /// Nothing is unacknowledged and nothing was lost.
    pub fn is_settled(&self) -> bool {
        self.ring.is_all_acknowledged() && self.lost.is_none()
    }

    /// The tree connect ends: sends the rest, waits up to `limit` for the acknowledgement, and without it has the keeper leave what is
    /// unacknowledged in the spool, or the gap flag, which has a limit of its own.
    /// `keep_open` leaves the socket open, or the spool file locked, until the process ends: only then no thread writes any more.
    pub fn finish(&mut self, limit: Duration, keep_open: bool) {
        let deadline = Instant::now() + limit;
        self.give_up_waits();
        if self.link.socket().is_none() && !self.is_settled() {
            self.connect();
        }
        loop {
            for request in self.flush().into_iter().chain(self.readable()) {
                if let Request::SendNow { token } = request {
                    self.answer(token);
                }
            }
            // A `Welcome` or an acknowledgement that just came may have made more to send: vfsxd waits for it.
            self.send();
            self.ask_to_acknowledge();
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(socket) = self.link.socket() else { break };
            if self.is_settled() && self.wire.is_empty() || left.is_zero() {
                break;
            }
            os::wait(socket, !self.wire.is_empty(), left);
        }
        self.leave_rest(keep_open);
        if let Some(socket) = self.link.end(false)
            && keep_open
        {
            std::mem::forget(socket);
        }
    }

    /// Once by each connection: vfsxd tells who waits for nothing only now and then.
    fn ask_to_acknowledge(&mut self) {
        if !self.link.is_up() || self.is_settled() || self.asked_by == Some(self.connection) {
            return;
        }
        self.asked_by = Some(self.connection);
        // Cannot fail: it has no content.
        let _ = encode(&ToDaemon::AckNow, &mut self.wire);
        self.send();
    }

    fn take(&mut self, message: ToModule) -> Option<Request> {
        self.stir();
        match message {
            ToModule::Welcome(welcome) if welcome.acknowledged < self.ring.left() => {
                let why = "it has not taken in the spool file that it was told of";
                self.end(&LinkError::Protocol(why.to_owned()));
                None
            }
            ToModule::Welcome(welcome) => {
                self.link.welcome();
                self.forget_spooled();
                self.memory_taken = welcome.memory;
                self.acknowledge(welcome.acknowledged);
                self.ring.rewind();
                let level = if self.complained { NOTICE } else { DETAIL };
                self.complained = false;
                (self.host.log)(level, &format!("share {}: vfsxd takes changes", self.hello.share));
                let again = self.greeted > 1;
                self.acknowledged().or(again.then_some(Request::Announce))
            }
            ToModule::Ack { sequence } => {
                self.acknowledge(sequence);
                self.acknowledged()
            }
            ToModule::SendNow { token } => Some(Request::SendNow { token }),
            ToModule::Committed { sequence } => {
                self.committed = self.committed.max(sequence);
                self.review();
                None
            }
            ToModule::Copy { on } => {
                self.data_wanted = on;
                None
            }
            ToModule::Refused(refusal) => {
                self.refused(&refusal);
                None
            }
        }
    }

    /// vfsxd may also have found them in the outbox.
    fn acknowledge(&mut self, sequence: u64) {
        self.heard = Instant::now();
        self.ring.acknowledge(sequence);
        self.held.limit(self.ring.waiting());
    }

    fn acknowledged(&mut self) -> Option<Request> {
        self.free_data();
        let request = self.tell_gap();
        self.review();
        if self.is_settled() {
            self.lower_standing();
        }
        request
    }

    /// Puts the `Gap` of dropped events into the ring once half of it is free again.
    fn tell_gap(&mut self) -> Option<Request> {
        let Lost { since_ns, reason } = self.lost?;
        if !self.ring.has_room()
            || self
                .keep(&Event::Gap { since_ns, reason }, os::wall_clock())
                .is_err()
        {
            return None;
        }
        self.lost = None;
        Some(Request::Announce)
    }

    fn connect(&mut self) {
        self.stir();
        let mut result = Err(io::Error::from(io::ErrorKind::Other));
        (self.host.as_root)(&mut || result = os::connect(&self.config.socket));
        match result {
            Ok(socket) => {
                self.connection += 1;
                self.greeted += 1;
                self.is_known = true;
                self.look_at_keeper();
                self.leave_written();
                self.link.greet(socket);
                self.ring.rewind();
                self.forget_told();
                self.to_pass = self.shared.is_some();
                self.wire.clear();
                self.wire.extend_from_slice(&preamble());
                let hello = Hello {
                    spooled: self.ring.left(),
                    ..self.hello.clone()
                };
                // Cannot fail: a share's name and two versions are far smaller than a frame.
                if encode(&ToDaemon::Hello(hello), &mut self.wire).is_ok() {
                    self.send();
                }
            }
            Err(e) => self.end(&LinkError::Closed(e)),
        }
    }

    fn send(&mut self) {
        self.send_wire();
        self.held = Held::default();
        if self.wire.is_empty() && self.ring.waiting() == 0 {
            self.empty_outbox();
        }
    }

    fn send_wire(&mut self) {
        // Whether the socket has room may change.
        self.stir();
        loop {
            if self.wire.is_empty() {
                self.stage();
            }
            let Some(socket) = self.link.socket() else { return };
            if self.wire.is_empty() {
                return;
            }
            let sent = match &self.shared {
                Some(shared) if self.to_pass => {
                    os::send_with_descriptor(socket, &self.wire, shared.memory.descriptor())
                }
                _ => os::send(socket, &self.wire),
            };
            match sent {
                Ok(n) => {
                    self.to_pass = false;
                    self.wire.drain(..n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return self.end(&LinkError::Closed(e)),
            }
        }
    }

    /// Fills the empty wire with whole frames.
    fn stage(&mut self) {
        if self.link.is_up() {
            self.stage_ring();
            self.stage_waits();
        }
    }

    /// Each `Sent` comes right after the event it waits for.
    fn stage_ring(&mut self) {
        while self.wire.len() < STAGE {
            if let Some(&(after, token)) = self.answers.front()
                && after <= self.ring.last_given()
            {
                self.answers.pop_front();
                // Cannot fail: two integers.
                let _ = encode(&ToDaemon::Sent { token }, &mut self.wire);
                continue;
            }
            let Some((_, frame)) = self.ring.give() else {
                return;
            };
            self.wire.extend_from_slice(frame);
        }
    }

    fn refused(&mut self, refusal: &Refusal) {
        let why = match refusal {
            Refusal::UnknownShare { share } => {
                format!(
                    "it has no share {share}: add it to vfsxd.toml, or take vfsx out of this share's vfs objects"
                )
            }
            Refusal::NotAllowed { uid } => format!("user {uid} may not report changes"),
        };
        self.complain(&format!("vfsxd refuses this share: {why}"));
        self.is_known = false;
        self.drop_link(true);
    }

    fn end(&mut self, why: &LinkError) {
        let socket = self.config.socket.display().to_string();
        match why {
            LinkError::Closed(e) if self.link.is_up() => {
                self.complain(&format!("vfsxd at {socket} went away: {e}"))
            }
            LinkError::Closed(e) => {
                self.complain(&format!("no vfsxd at {socket}: {e}; changes are kept in memory"))
            }
            LinkError::Protocol(e) => self.complain(&format!("vfsxd at {socket}: {e}")),
        }
        self.drop_link(matches!(why, LinkError::Protocol(_)));
    }

    fn drop_link(&mut self, refused: bool) {
        self.stir();
        self.lose_link();
        self.ended.extend(self.link.end(refused));
        self.connection += 1;
        self.ring.rewind();
        self.wire.clear();
        self.held = Held::default();
        self.memory_taken = false;
        self.empty_outbox();
        // A token belongs to the connection that it came over.
        self.answers.clear();
        self.review();
    }

    fn complain(&mut self, text: &str) {
        if !self.complained {
            self.complained = true;
            (self.host.log)(NOTICE, &format!("share {}: {text}", self.hello.share));
        }
    }
}
