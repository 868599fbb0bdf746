//! Where clients stand still together: nobody has asked for anything that is not answered.

use crate::wait;
use anyhow::Result;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A client comes to the gate between two operations, or when its connection is lost: smbd answers within some seconds, or is killed.
const PARK_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Light {
    Go,
    Stop,
    Over,
}

#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    light: Light,
    waiting: usize,
    clients: usize,
}

impl Gate {
    pub(super) fn new(clients: usize) -> Self {
        let state = State {
            light: Light::Stop,
            waiting: 0,
            clients,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// A client comes by: it waits while the gate is closed. False when it is to end.
    pub(super) fn pass(&self) -> bool {
        let mut state = self.lock();
        state.waiting += 1;
        while state.light == Light::Stop {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        state.light == Light::Go
    }

    /// A client has ended and is waited for no more.
    pub(super) fn leave(&self) {
        self.lock().clients -= 1;
    }

    pub(super) fn open(&self) {
        self.set(Light::Go);
    }

    /// Returns when no client does anything.
    pub(super) fn close(&self) -> Result<()> {
        self.set(Light::Stop);
        let quiet = || {
            let state = self.lock();
            (state.waiting == state.clients).then_some(())
        };
        wait::until("clients to stand still", PARK_LIMIT, quiet, || {
            format!("{:?}", self.lock())
        })
    }

    /// All clients end.
    pub(super) fn end(&self) {
        self.set(Light::Over);
    }

    fn set(&self, light: Light) {
        self.lock().light = light;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
