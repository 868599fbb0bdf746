//! One connection to the handler: one question and its answer at a time.

use super::Failure;
use super::answer::{self, Answer, is_mark};
use crate::os;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

#[derive(Debug)]
pub(super) struct Line {
    socket: OwnedFd,
}

impl Line {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Sends the question and waits for its answer. After an error the connection is of no use: an answer that comes late
    /// would be taken for the next question's.
    pub(super) fn exchange(&mut self, message: &[u8], deadline: Instant) -> Result<Answer, Failure> {
        self.check_idle()?;
        self.send(message, deadline)?;
        let mut bytes = Vec::new();
        loop {
            let mut buffer = [0; answer::LIMIT];
            match os::receive(&self.socket, &mut buffer) {
                Ok(0) => return Err(Failure::Gone),
                Ok(n) => bytes.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.wait(false, deadline)?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Failure::Gone),
            }
            if let Some(answer) = Answer::read(&bytes)? {
                return Ok(answer);
            }
            if bytes.len() > answer::LIMIT {
                return Err(Failure::Nonsense(bytes));
            }
        }
    }

    /// What came since the last answer: the rest of its end marks. Anything else answers no question.
    fn check_idle(&self) -> Result<(), Failure> {
        loop {
            let mut buffer = [0; answer::LIMIT];
            match os::receive(&self.socket, &mut buffer) {
                Ok(n) if n > 0 && buffer.iter().take(n).copied().all(is_mark) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                _ => return Err(Failure::Gone),
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        let mut poll = libc::pollfd {
            fd: std::os::fd::AsRawFd::as_raw_fd(&self.socket),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid entry.
        unsafe { libc::poll(&mut poll, 1, 0) == 0 }
    }

    fn send(&self, mut message: &[u8], deadline: Instant) -> Result<(), Failure> {
        while !message.is_empty() {
            match os::send(&self.socket, message) {
                Ok(n) => message = message.get(n..).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.wait(true, deadline)?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Failure::Gone),
            }
        }
        Ok(())
    }

    fn wait(&self, for_room: bool, deadline: Instant) -> Result<(), Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::Slow);
        }
        os::wait(&self.socket, for_room, left);
        Ok(())
    }
}
