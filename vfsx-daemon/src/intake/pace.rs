//! The runtime of the intake: one thread that rests between looks at its sockets while there is much to look at.
//!
//! A module's send costs smbd the more when somebody has to be woken for it: several times what the send itself does, and far more on a virtual
//! machine. While smbd works, this thread sleeps outside of `epoll_wait`, and takes at once what has come meanwhile; so sends
//! wake nobody, and clients wait for nothing. What is in a socket is safe from a kill of its smbd as before.

use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

/// How long it rests. Less than a socket's buffer takes to fill, and little beside the time that a change takes to a site.
const REST: Duration = Duration::from_millis(1);

pub(super) fn runtime() -> io::Result<Runtime> {
    let looked = Mutex::new(None);
    Builder::new_multi_thread()
        // One: with a second, one waits for sockets while the other rests.
        .worker_threads(1)
        .thread_name("intake")
        .enable_all()
        .on_thread_park(move || rest(&looked))
        .build()
}

/// Before each wait for sockets. The first after a quiet time is not put off.
fn rest(looked: &Mutex<Option<Instant>>) {
    let mut looked = looked.lock().unwrap_or_else(PoisonError::into_inner);
    if looked.is_some_and(|looked| looked.elapsed() < REST) {
        std::thread::sleep(REST);
    }
    *looked = Some(Instant::now());
}
