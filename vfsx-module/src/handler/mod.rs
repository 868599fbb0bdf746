//! The classic VFSX protocol: a process of the admin's choice, the handler, is asked before an operation goes on.
//!
//! Knows system calls and the process it lives in, nothing of Samba. The form of questions and answers is documented, with
//! what the original of 2004 did, in `docs/handler.md`.

mod answer;
mod breaker;
mod line;
mod nesting;
mod question;

#[cfg(test)]
mod tests;

pub use answer::Answer;
pub use nesting::Nesting;
pub use question::Operation;

use crate::client::{ERROR, Host};
use crate::config::{HandlerConfig, OnFailure};
use crate::os;
use breaker::Breaker;
use line::Line;
use std::io;
use std::time::Instant;

/// The handler of one tree connect.
#[derive(Debug)]
pub struct Handler {
    config: HandlerConfig,
    host: Host,
    share: String,
    origpath: Vec<u8>,
    line: Option<Line>,
    breaker: Breaker,
}

/// Why a question has no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody listens, or more wait to be accepted than the listener takes.
    Absent(io::Error),
    /// The connection ended before the answer.
    Gone,
    /// No answer within the time-out.
    Slow,
    /// An answer that is none.
    Nonsense(Vec<u8>),
}

impl Handler {
    /// Asks nothing yet. `origpath` is the share's directory as in `smb.conf`.
    pub fn new(config: HandlerConfig, host: Host, share: String, origpath: Vec<u8>) -> Self {
        Self {
            config,
            host,
            share,
            origpath,
            line: None,
            breaker: Breaker::default(),
        }
    }

    /// What the handler says of an operation that is about to be done for `user`. Waits for it, up to the time-out. Without
    /// an answer the configuration decides.
    pub fn ask(&mut self, user: &[u8], operation: &Operation) -> Answer {
        let Some(message) = operation.message(user, &self.origpath) else {
            self.log(&format!(
                "an operation has names too long to ask the handler about ({})",
                operation.name()
            ));
            return self.without_answer();
        };
        let start = Instant::now();
        if !self.breaker.may_ask(start) {
            return self.without_answer();
        }
        match self.exchange(&message, start + self.config.timeout) {
            Ok(answer) => {
                if let Some(missed) = self.breaker.answered() {
                    self.log(&format!(
                        "the handler answers again; {missed} operations were {} without it",
                        self.config.on_failure.done()
                    ));
                }
                answer
            }
            Err(failure) => {
                self.line = None;
                if self.breaker.failed(&failure, self.config.timeout, Instant::now()) {
                    self.log(&self.complaint(&failure));
                }
                self.without_answer()
            }
        }
    }

    /// The tree connect ends; nothing can be refused any more.
    pub fn finish(&mut self, user: &[u8]) {
        self.ask(user, &Operation::new("disconnect"));
        if let Some(missed) = self.breaker.answered() {
            self.log(&format!(
                "a tree connect ends; {missed} of its operations were {} without the handler",
                self.config.on_failure.done()
            ));
        }
    }

    /// What becomes of an operation that nobody was asked about.
    pub fn without_answer(&self) -> Answer {
        match self.config.on_failure {
            OnFailure::Allow => Answer::GoOn,
            OnFailure::Deny => Answer::Authorization,
        }
    }

    /// A handler that was restarted is asked again: the old connection's end says nothing of the new one.
    fn exchange(&mut self, message: &[u8], deadline: Instant) -> Result<Answer, Failure> {
        if let Some(line) = &mut self.line {
            match line.exchange(message, deadline) {
                Err(Failure::Gone) => self.line = None,
                result => return result,
            }
        }
        let line = self.connect()?;
        self.line.insert(line).exchange(message, deadline)
    }

    fn connect(&self) -> Result<Line, Failure> {
        let mut result = Err(io::Error::from(io::ErrorKind::Other));
        (self.host.as_root)(&mut || result = os::connect(&self.config.socket));
        result.map(Line::new).map_err(Failure::Absent)
    }

    fn complaint(&self, failure: &Failure) -> String {
        let what = match failure {
            Failure::Absent(e) => format!("cannot be reached: {e}"),
            Failure::Gone => "ended the connection before it answered".to_owned(),
            Failure::Slow => format!("did not answer within {} ms", self.config.timeout.as_millis()),
            Failure::Nonsense(bytes) => format!("answered {:?}", String::from_utf8_lossy(bytes)),
        };
        format!(
            "the handler at {} {what}; operations are {} without it until it answers",
            self.config.socket.display(),
            self.config.on_failure.done()
        )
    }

    /// At the level that every smbd shows: a guard that does not guard, or a share that takes no changes.
    fn log(&self, text: &str) {
        (self.host.log)(ERROR, &format!("share {}: {text}", self.share));
    }
}
