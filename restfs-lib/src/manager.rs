//! What the service manager (systemd) is told: ready, reloading, stopping, and that all is well. Without one nobody is told. And what is
//! taken of the limits that it sets.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// A reload under way; when it is dropped the manager hears that it is over.
#[must_use]
pub struct Reload(());

/// Raises this process's limit of open files to what it may have at most, which is given back; `None`: there is no limit.
pub fn raise_open_files() -> std::io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised)?;
    Ok(limit.maximum)
}

pub fn ready() {
    tell(&[NotifyState::Ready]);
}

pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

pub fn reloading() -> Reload {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
    Reload(())
}

impl Drop for Reload {
    fn drop(&mut self) {
        ready();
    }
}

/// Told from the loop that answers signals, so a process whose threads all hang is killed and started again.
pub struct Watchdog(Option<Interval>);

impl Watchdog {
    /// As the environment asks for (`WatchdogSec` of the unit): twice in that time.
    pub fn from_environment() -> Self {
        let mut limit_us = 0;
        let wanted = sd_notify::watchdog_enabled(false, &mut limit_us);
        Self(wanted.then(|| {
            let mut every = interval(Duration::from_micros((limit_us / 2).max(1)));
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            every
        }))
    }

    /// Tells the manager when it is time again. Ends each time, or never when it is not asked for.
    pub async fn tell(&mut self) {
        match &mut self.0 {
            Some(every) => {
                every.tick().await;
                tell(&[NotifyState::Watchdog]);
            }
            None => std::future::pending().await,
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}
