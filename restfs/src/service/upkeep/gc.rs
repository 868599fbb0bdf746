//! `gc.start|status`, and the collection itself: which blocks any file of any point needs, then what can go of the packs.

use super::scrub::{ns, time};
use super::{Asked, Upkeep};
use crate::auth::{Identity, Need};
use crate::metadata::commits::{Damages, REBUILD, Reached};
use crate::service::{Service, now_ns};
use crate::storage::{CollectOptions, Collection, Swept, Weighed};
use restfs_lib::kv::KvError;
use restfs_lib::model::BucketId;
use restfs_lib::tree::blocks::{After, revisions};
use restfs_lib::tree::bucket;
use restfs_lib::wire::method::*;
use restfs_lib::wire::{Code, RpcError};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Segments looked at in one read transaction: others write meanwhile, and SQLite's log must not grow behind it.
const PAGE: usize = if cfg!(test) { 3 } else { 500 };
/// Packs with less that nothing needs, in hundredths, are left: rewriting them costs more than it gives.
const LEAST_DEAD: u8 = 20;

/// When to collect what nothing needs, how fast, and what to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcOptions {
    /// Bytes a second, read and copied; 0: as fast as it goes.
    pub rate: u64,
    /// From one beginning to the next; `None`: only when asked.
    pub every: Option<Duration>,
    /// Blocks stored within this time stay.
    pub grace: Duration,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self {
            rate: 32 * 1024 * 1024,
            every: Some(Duration::from_secs(7 * 86_400)),
            grace: Duration::from_secs(3600),
        }
    }
}

/// A collection that somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AskedGc {
    /// `None`: as configured.
    rate: Option<u64>,
    grace: Duration,
    dry_run: bool,
}

/// What is kept in `DATA/gc.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// When the schedule began, or the last collection; nanoseconds since the epoch.
    since_ns: i64,
    /// One was begun, and has come to no end yet.
    begun: bool,
    last: Option<GcReport>,
    /// How far the metadata was when it was last looked at.
    #[serde(default)]
    metadata: Option<Reached>,
    #[serde(skip)]
    planned: Option<GcReport>,
    #[serde(skip)]
    progress: Option<GcProgress>,
    #[serde(skip)]
    error: Option<String>,
}

pub(in crate::service) async fn start(
    service: Arc<Service>,
    identity: Arc<Identity>,
    params: GcStartParams,
) -> Result<GcStatusResult, RpcError> {
    identity.check(Need::Administer)?;
    service
        .start_upkeep()
        .map_err(|e| RpcError::new(Code::Internal, format!("starting a thread: {e}")))?;
    let asked = AskedGc {
        rate: params.rate,
        grace: params
            .grace
            .map_or(service.upkeep.gc_options.grace, Duration::from_secs),
        dry_run: params.dry_run,
    };
    {
        let mut signal = service.upkeep.signal();
        signal.gc = Some(asked);
        // So that who asks right after sees it running.
        signal.gc_running = true;
    }
    service.upkeep.changed.notify_all();
    Ok(service.gc_status())
}

pub(in crate::service) fn status(
    service: &Service,
    identity: &Identity,
    _: NoParams,
) -> Result<GcStatusResult, RpcError> {
    identity.check(Need::Administer)?;
    Ok(service.gc_status())
}

impl Service {
    fn gc_status(&self) -> GcStatusResult {
        let running = self.upkeep.signal().gc_running;
        let state = self.upkeep.gc.state();
        let just_begun = || GcProgress {
            started: time(now_ns()),
            phase: GcPhase::default(),
            done: 0,
            total: 0,
            freed_bytes: 0,
        };
        GcStatusResult {
            running: running.then(|| state.progress.unwrap_or_else(just_begun)),
            last: state.last,
            planned: state.planned,
            error: state.error.clone(),
        }
    }

    /// At a start, and now and then. Metadata that is older than it was, from a copy that somebody put back, names less than what
    /// may still turn up: nothing is collected by it until somebody asks, or the time has passed once more.
    pub(super) fn note_metadata(&self) {
        let reached = match self.upkeep.commits.reached() {
            Ok(reached) => reached,
            Err(error) => return tracing::warn!("looking how far the metadata is: {error}"),
        };
        let mut state = self.upkeep.gc.state();
        let before = state.metadata.replace(reached.clone());
        if before.as_ref() == Some(&reached) {
            return;
        }
        if before.is_some_and(|before| !reached.follows(&before)) {
            tracing::warn!(
                "the metadata is older than it was, or another: no block is collected by itself for as long as between two collections"
            );
            (state.begun, state.since_ns) = (false, now_ns());
        }
        drop(state);
        self.upkeep.gc.write();
    }

    /// Whether there is to be a collection now: somebody asked, one was cut off, or it is time.
    pub(super) fn is_gc_due(&self) -> bool {
        if self.upkeep.signal().gc.is_some() {
            return true;
        }
        let every = self.upkeep.gc_options.every;
        let mut state = self.upkeep.gc.state();
        if state.begun {
            return true;
        }
        let Some(every) = every.map(|every| i64::try_from(every.as_nanos()).unwrap_or(i64::MAX)) else {
            return false;
        };
        // A clock that was ahead must not keep it from being due for as long as it was.
        if state.since_ns == 0 || state.since_ns > now_ns() {
            state.since_ns = now_ns();
            drop(state);
            self.upkeep.gc.write();
            return false;
        }
        now_ns().saturating_sub(state.since_ns) >= every
    }

    pub(super) fn gc(&self) {
        let asked = {
            let mut signal = self.upkeep.signal();
            signal.gc_running = true;
            signal.gc.take().unwrap_or(AskedGc {
                rate: None,
                grace: self.upkeep.gc_options.grace,
                dry_run: false,
            })
        };
        let result = self.gc_to_end(asked);
        let mut state = self.upkeep.gc.state();
        state.progress = None;
        match result {
            Ok(Some(report)) if asked.dry_run => (state.planned, state.error) = (Some(report), None),
            Ok(Some(report)) => {
                say(&report);
                (state.last, state.error, state.begun) = (Some(report), None, false);
            }
            // Begun again at the next start, or by who asked for another one.
            Ok(None) => state.error = None,
            Err(error) => {
                tracing::error!("the collection of blocks broke off: {error}");
                (state.error, state.begun) = (Some(error.to_string()), false);
            }
        }
        drop(state);
        self.upkeep.gc.write();
        let mut signal = self.upkeep.signal();
        signal.gc_running = signal.gc.is_some();
    }

    /// All that nothing needs, however young, without the thread.
    #[cfg(test)]
    pub(crate) fn collect_now(&self) -> Result<(), RpcError> {
        let asked = AskedGc {
            rate: Some(0),
            grace: Duration::ZERO,
            dry_run: false,
        };
        self.gc_to_end(asked).map(|_| ())
    }

    /// `None`: it was told to end.
    fn gc_to_end(&self, asked: AskedGc) -> Result<Option<GcReport>, RpcError> {
        let started_ns = now_ns();
        if !asked.dry_run {
            let mut state = self.upkeep.gc.state();
            (state.begun, state.since_ns) = (true, started_ns);
            drop(state);
            self.upkeep.gc.write();
        }
        let mut collection = self.blocks.collect(CollectOptions {
            grace: asked.grace,
            least_dead: LEAST_DEAD,
            dry_run: asked.dry_run,
        })?;
        // Blocks that a commit looked for before the collection could see it are in its rows behind this.
        drop(self.naming.blocking_write());
        // A commit that failed half may be there after a restart, with blocks that no row names now.
        self.upkeep.commits.is_whole().map_err(KvError::from)?;
        let progress = Progress {
            upkeep: &self.upkeep,
            started_ns,
        };
        if !self.mark(collection.as_mut(), &progress).map_err(nothing_done)? || !self.is_as_written()? {
            return Ok(None);
        }
        let total = self.blocks.stats()?.blocks;
        let weighed = collection.weigh(&mut |done| progress.tell(GcPhase::Weighing, done, total, 0))?;
        if self.upkeep.is_ending() {
            return Ok(None);
        }
        if asked.dry_run {
            let swept = Swept {
                freed_bytes: weighed.free_bytes + weighed.copy_bytes,
                copied_bytes: weighed.copy_bytes,
                ..Swept::default()
            };
            return Ok(Some(report(started_ns, &weighed, &swept)));
        }
        let swept = self.sweep_packs(collection.as_mut(), asked, &weighed, &progress)?;
        let ended = self.upkeep.is_ending() || !self.drop_held(&*collection)?;
        Ok((!ended && !self.upkeep.is_ending()).then(|| report(started_ns, &weighed, &swept)))
    }

    /// Tells of every block that a row names, whichever point it is of. False: it was told to end.
    ///
    /// Pages are of different moments. A commit that comes in between names its blocks where the collection sees it; those that
    /// a segment has from its revision before are in both, and those stand side by side, so they are in the same page or in
    /// the pages to come. A bucket made meanwhile has only such commits.
    fn mark(&self, collection: &mut dyn Collection, progress: &Progress<'_>) -> Result<bool, RpcError> {
        let buckets = self.metadata.read(|kv| Ok(bucket::alive(kv)?))?;
        let mut segments = 0;
        for bucket in buckets {
            if !self.mark_bucket(bucket, collection, progress, &mut segments)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A row that is not what was written may name a block that never was in place of one that is needed, and one with
    /// another key may have kept others from being read at all. So nothing goes before the whole database was looked at. Behind
    /// the marking: what was wrong then is wrong now. False: it was told to end.
    fn is_as_written(&self) -> Result<bool, RpcError> {
        let upkeep = Arc::clone(&self.upkeep);
        match self.upkeep.commits.check(move || !upkeep.is_ending())? {
            None => Ok(false),
            Some(checked) if checked.damages.is_empty() => Ok(true),
            Some(checked) => {
                let damaged = Damages(&checked.damages).to_string();
                Err(nothing_done(RpcError::new(Code::Corrupt, damaged)))
            }
        }
    }

    fn mark_bucket(
        &self,
        bucket: BucketId,
        collection: &mut dyn Collection,
        progress: &Progress<'_>,
        segments: &mut u64,
    ) -> Result<bool, RpcError> {
        let mut after: Option<After> = None;
        loop {
            let (page, next) = self
                .metadata
                .read(|kv| Ok(revisions(kv, bucket, after.as_ref(), PAGE)?))?;
            for revision in &page {
                revision.keys().for_each(|key| collection.keep(key));
            }
            *segments += page.len() as u64;
            if !progress.tell(GcPhase::Marking, *segments, 0, 0) {
                return Ok(false);
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(true),
            }
        }
    }

    fn sweep_packs(
        &self,
        collection: &mut dyn Collection,
        mut asked: AskedGc,
        weighed: &Weighed,
        progress: &Progress<'_>,
    ) -> Result<Swept, RpcError> {
        let total = weighed.free_bytes + weighed.copy_bytes;
        let (mut began, mut before) = (Instant::now(), 0);
        let mut go_on = |swept: &Swept| {
            // Who asks for the same gets this one, at another rate.
            let same = |more: &mut AskedGc| !more.dry_run && more.grace == asked.grace;
            let more = self.upkeep.signal().gc.take_if(same);
            asked = more.unwrap_or(asked);
            let bytes = swept.disk_bytes;
            self.upkeep
                .pace_gc(self.rate_now(asked.rate), bytes.saturating_sub(before), began);
            (began, before) = (Instant::now(), bytes);
            let freed = swept.freed_bytes.saturating_sub(swept.copied_bytes);
            progress.tell(GcPhase::Sweeping, swept.seen_bytes, total, freed)
        };
        Ok(collection.sweep(&mut go_on)?)
    }

    /// A site that is full has nothing better to do.
    fn rate_now(&self, asked: Option<u64>) -> u64 {
        match (asked, self.space.is_full()) {
            (Some(rate), _) => rate,
            (None, true) => 0,
            (None, false) => self.upkeep.gc_options.rate,
        }
    }
}

struct Progress<'a> {
    upkeep: &'a Upkeep,
    started_ns: i64,
}

impl Progress<'_> {
    /// False: it is to end.
    fn tell(&self, phase: GcPhase, done: u64, total: u64, freed_bytes: u64) -> bool {
        self.upkeep.gc.state().progress = Some(GcProgress {
            started: time(self.started_ns),
            phase,
            done,
            total: total.max(if phase == GcPhase::Marking { 0 } else { done }),
            freed_bytes,
        });
        !self.upkeep.is_ending()
    }
}

impl Upkeep {
    /// As [`Upkeep::pace`], whoever asks for a scrub meanwhile.
    fn pace_gc(&self, rate: u64, bytes: u64, began: Instant) {
        if rate == 0 {
            return;
        }
        let due = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let left = due.saturating_sub(began.elapsed());
        if !left.is_zero() {
            self.rest_until(left, |signal| signal.stop);
        }
    }
}

impl Asked {
    /// The same scrub, once something else is done.
    pub(super) fn later(self) -> Self {
        Self { anew: false, ..self }
    }
}

/// The metadata cannot be gone by.
fn nothing_done(error: RpcError) -> RpcError {
    match error.code {
        Code::Corrupt => RpcError::new(
            Code::Corrupt,
            format!(
                "nothing was collected, since the metadata is damaged: {}; {REBUILD}",
                error.message
            ),
        ),
        _ => error,
    }
}

fn report(started_ns: i64, weighed: &Weighed, swept: &Swept) -> GcReport {
    GcReport {
        started: time(started_ns),
        ended: time(now_ns()),
        blocks: weighed.blocks,
        dead_blocks: weighed.dead_blocks,
        removed_blocks: swept.blocks,
        freed_bytes: swept.freed_bytes.saturating_sub(swept.copied_bytes),
        copied_bytes: swept.copied_bytes,
        packs_removed: swept.packs_removed,
        young_bytes: weighed.young_bytes,
        sparse_bytes: weighed.sparse_bytes,
        packs_damaged: swept.packs_damaged,
        packs_no_room: swept.packs_no_room,
    }
}

fn say(report: &GcReport) {
    tracing::info!(
        seconds = (ns(report.ended) - ns(report.started)) / 1_000_000_000,
        blocks = report.blocks,
        removed = report.removed_blocks,
        copied_bytes = report.copied_bytes,
        "collection of blocks: {} bytes given back",
        report.freed_bytes
    );
    if report.packs_damaged + report.packs_no_room > 0 {
        tracing::warn!(
            "collection of blocks: {} packs stayed for a damaged block that is needed, {} for want of space",
            report.packs_damaged,
            report.packs_no_room
        );
    }
}
