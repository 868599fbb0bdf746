//! The threads.

use super::content::{Context, Stopped, run};
use super::{Job, Part};
use crate::catalog::shared::Shared;
use crossbeam_channel::{Receiver, Sender};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Starts readers. They end when no more jobs can come, or nobody takes their parts.
pub(in crate::catalog) fn start(
    shared: &Arc<Shared>,
    count: usize,
    jobs: &Receiver<Job>,
    parts: &Sender<Part>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let reader = |number| {
        let (shared, jobs, parts) = (Arc::clone(shared), jobs.clone(), parts.clone());
        std::thread::Builder::new()
            .name(format!("reader-{number}"))
            .spawn(move || read_all(&shared, &jobs, &parts))
    };
    (1..=count.max(1)).map(reader).collect()
}

fn read_all(shared: &Shared, jobs: &Receiver<Job>, parts: &Sender<Part>) {
    let context = Context {
        kv: &*shared.kv,
        share: &shared.share,
        cache: &shared.cache,
        bytes_read: &shared.bytes_read,
    };
    for job in jobs {
        let sent = run(&context, job, &mut |part| {
            if shared.stopping() {
                return Err(Stopped);
            }
            parts.send(part).map_err(|_| Stopped)
        });
        if sent.is_err() {
            return;
        }
    }
}
