//! The threads.

use super::content::Context;
use super::run::run;
use super::{Job, Part, Stopped};
use crate::catalog::shared::Shared;
use crossbeam_channel::{Receiver, RecvError, Sender, never, select_biased};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a reader with nothing to do looks whether clones can go.
const TIDY: Duration = Duration::from_secs(1);

/// Starts readers: one that reads only what clients changed, so that this never waits behind the files of an initial
/// sync, and `count` for anything. They end when no more jobs can come, or nobody takes their parts.
pub(in crate::catalog) fn start(
    shared: &Arc<Shared>,
    count: usize,
    jobs: &[Receiver<Job>; 2],
    parts: &Sender<Part>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let reader = |number| {
        let (shared, parts) = (Arc::clone(shared), parts.clone());
        let [clients, scans] = jobs.clone();
        let jobs = match number {
            0 => [clients, never()],
            _ => [clients, scans],
        };
        std::thread::Builder::new()
            .name(format!("reader-{number}"))
            .spawn(move || read_all(&shared, &jobs, &parts))
    };
    (0..=count).map(reader).collect()
}

fn read_all(shared: &Shared, jobs: &[Receiver<Job>; 2], parts: &Sender<Part>) {
    let context = Context {
        kv: &*shared.kv,
        share: &shared.share,
        cache: &shared.cache,
        clones: &shared.clones,
        bytes_read: &shared.bytes_read,
    };
    while let Ok(job) = next(jobs) {
        // Here, since to close one that is in many pieces takes a while.
        shared.tidy_clones();
        let Some(job) = job else { continue };
        let sent = run(&context, job, &mut |part| {
            if shared.stopping() {
                return Err(Stopped);
            }
            // All readers may be busy with large files for long.
            shared.tidy_clones();
            parts.send(part).map_err(|_| Stopped)
        });
        if sent.is_err() {
            return;
        }
    }
}

/// What clients changed first; `None`: nothing for a while. An error: no more can come.
fn next([clients, scans]: &[Receiver<Job>; 2]) -> Result<Option<Job>, RecvError> {
    select_biased! {
        recv(clients) -> job => job.map(Some),
        recv(scans) -> job => job.map(Some),
        default(TIDY) => Ok(None),
    }
}
