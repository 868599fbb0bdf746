//! The runtime of the intake: one thread that rests between looks at its sockets while there is much to look at.
//!
//! A module's send costs smbd the more when somebody has to be woken for it: several times what the send itself does, and far more on a virtual
//! machine. While smbd works, this thread sleeps outside of `epoll_wait`, and takes at once what has come meanwhile; so sends
//! wake nobody, and clients wait for nothing. What is in a socket is safe from a kill of its smbd as before.

use crate::pace::Pace;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

/// How long it rests. Less than a socket's buffer takes to fill, and little beside the time that a change takes to a site.
const REST: Duration = Duration::from_millis(1);
/// Looks without a rest: a module that comes is greeted at once, which takes some.
const AT_ONCE: u32 = 32;

pub(super) fn runtime() -> io::Result<Runtime> {
    let pace = Mutex::new(Pace::new(REST, AT_ONCE));
    Builder::new_multi_thread()
        // One: with a second, one waits for sockets while the other rests.
        .worker_threads(1)
        .thread_name("intake")
        .enable_all()
        .on_thread_park(move || rest(&pace))
        .build()
}

/// Before each wait for sockets.
fn rest(pace: &Mutex<Pace>) {
    let mut pace = pace.lock().unwrap_or_else(PoisonError::into_inner);
    if pace.next() > Instant::now() {
        std::thread::sleep(REST);
    }
    pace.done();
}
