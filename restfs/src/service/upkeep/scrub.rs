//! `scrub.start|status`, and the scrub itself: all packs, the commit log, then which files are concerned.

use super::lost::Found;
use super::{Asked, Upkeep};
use crate::auth::{Identity, Need};
use crate::metadata::commits::{self, Damages, REBUILD};
use crate::service::{Service, now_ns};
use crate::storage::{ScrubDamage, ScrubPosition};
use restfs_lib::model::Time;
use restfs_lib::wire::method::*;
use restfs_lib::wire::{Code, RpcError};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Read at once: long enough for a disk's pace, short enough to be told to end.
const STEP: u64 = 4 * 1024 * 1024;
const LEAST_STEP: u64 = 64 * 1024;
/// How often the position is kept: what a restart reads again.
const SAVE: Duration = Duration::from_secs(10);
/// Damaged places in a report; each is in the log.
const MAX_PLACES: usize = 1000;

/// What is kept in `DATA/scrub.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// When the schedule began, nanoseconds since the epoch.
    since_ns: i64,
    running: Option<Running>,
    /// As `scrub.status` answers it.
    last: Option<ScrubReport>,
    #[serde(skip)]
    error: Option<String>,
}

/// A scrub that has not come to its end.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Running {
    started_ns: i64,
    pack: u64,
    offset: u64,
    read_bytes: u64,
    total_bytes: u64,
    damages: u64,
    unused: u64,
    places: Vec<ScrubPlace>,
}

pub(in crate::service) async fn start(
    service: Arc<Service>,
    identity: Arc<Identity>,
    params: ScrubStartParams,
) -> Result<ScrubStatusResult, RpcError> {
    identity.check(Need::Administer)?;
    service
        .start_upkeep()
        .map_err(|e| RpcError::new(Code::Internal, format!("starting a thread: {e}")))?;
    let asked = Asked {
        rate: params.rate.unwrap_or(service.upkeep.options.rate),
        anew: params.anew,
    };
    {
        let mut signal = service.upkeep.signal();
        signal.asked = Some(asked);
        // So that who asks right after sees it running.
        signal.running = true;
    }
    service.upkeep.changed.notify_all();
    service.blocking(Service::scrub_status).await
}

pub(in crate::service) fn status(
    service: &Service,
    identity: &Identity,
    _: NoParams,
) -> Result<ScrubStatusResult, RpcError> {
    identity.check(Need::Administer)?;
    service.scrub_status()
}

impl Service {
    fn scrub_status(&self) -> Result<ScrubStatusResult, RpcError> {
        let damaged_blocks = self.blocks.stats()?.damaged_blocks;
        let running = self.upkeep.signal().running;
        let state = self.upkeep.saved.state();
        let progress = state.running.as_ref().map(|running| ScrubProgress {
            started: time(running.started_ns),
            read_bytes: running.read_bytes,
            total_bytes: running.total_bytes,
            damages: running.damages,
        });
        Ok(ScrubStatusResult {
            running: progress.or_else(|| running.then(just_begun)),
            last: state.last.clone(),
            damaged_blocks,
            error: state.error.clone(),
        })
    }

    /// What is to be scrubbed now: because somebody asked, an end was cut off, or it is time.
    pub(super) fn next_scrub(&self) -> Option<Asked> {
        if let Some(asked) = self.upkeep.signal().asked.take() {
            return Some(asked);
        }
        let options = self.upkeep.options;
        let scheduled = Asked {
            rate: options.rate,
            anew: false,
        };
        let every = i64::try_from(options.every?.as_nanos()).unwrap_or(i64::MAX);
        let mut state = self.upkeep.saved.state();
        if state.running.is_some() && state.error.is_none() {
            return Some(scheduled);
        }
        if state.since_ns == 0 {
            state.since_ns = now_ns();
            drop(state);
            self.upkeep.saved.write();
            return None;
        }
        let last = state
            .last
            .as_ref()
            .map_or(state.since_ns, |last| ns(last.started));
        (now_ns().saturating_sub(last) >= every).then_some(scheduled)
    }

    pub(super) fn scrub(&self, asked: Asked) {
        self.upkeep.signal().running = true;
        let result = self.scrub_to_end(asked);
        let mut signal = self.upkeep.signal();
        signal.running = signal.asked.is_some();
        drop(signal);
        let mut state = self.upkeep.saved.state();
        state.error = match result {
            Ok(()) => None,
            Err(error) => {
                tracing::error!("the scrub broke off: {error}; `restfs scrub` goes on from there");
                Some(error.to_string())
            }
        };
        drop(state);
        self.upkeep.saved.write();
    }

    fn scrub_to_end(&self, mut asked: Asked) -> Result<(), RpcError> {
        let mut running = self.begin(asked)?;
        let mut saved_at = Instant::now();
        loop {
            let began = Instant::now();
            let from = ScrubPosition {
                pack: running.pack,
                offset: running.offset,
            };
            let step = self.blocks.scrub(from, step_bytes(asked.rate))?;
            running.read_bytes += step.read;
            step.damages.iter().for_each(|damage| running.note(damage));
            let Some(next) = step.next else { break };
            (running.pack, running.offset) = (next.pack, next.offset);
            self.upkeep.saved.state().running = Some(running.clone());
            if saved_at.elapsed() >= SAVE || !step.damages.is_empty() {
                saved_at = Instant::now();
                self.upkeep.saved.write();
            }
            self.upkeep.pace(asked.rate, step.read, began);
            if self.upkeep.is_ending() {
                self.upkeep.saved.write();
                return Ok(());
            }
            if self.is_gc_due() {
                // That comes first; then this goes on as it was asked for.
                self.upkeep.signal().asked.get_or_insert(asked.later());
                return Ok(());
            }
            let more = self.upkeep.signal().asked.take();
            if let Some(more) = more {
                asked = more;
                running = if more.anew { self.begin(more)? } else { running };
            }
        }
        self.scrub_ended(running)
    }

    fn begin(&self, asked: Asked) -> Result<Running, RpcError> {
        let total_bytes = self.blocks.stats()?.stored_bytes;
        let mut state = self.upkeep.saved.state();
        let running = match state.running.take() {
            Some(running) if !asked.anew => running,
            _ => Running {
                started_ns: now_ns(),
                total_bytes,
                ..Running::default()
            },
        };
        state.running = Some(running.clone());
        Ok(running)
    }

    fn scrub_ended(&self, running: Running) -> Result<(), RpcError> {
        let Some(metadata) = self.check_metadata()? else {
            return Ok(());
        };
        let logs = self.check_log(metadata.is_empty())?;
        if self.upkeep.is_ending() {
            return Ok(());
        }
        let Found { files, objects } = match self.find_lost() {
            // It breaks off where it comes to a row that is no good.
            Err(_) if !metadata.is_empty() => Found::default(),
            found => found?,
        };
        let report = ScrubReport {
            started: time(running.started_ns),
            ended: time(now_ns()),
            read_bytes: running.read_bytes,
            damages: running.damages,
            unused: running.unused,
            places: running.places,
            files,
            objects,
            logs,
            metadata,
        };
        match report.damages
            + report.unused
            + report.files
            + (report.logs.len() + report.metadata.len()) as u64
        {
            0 => tracing::info!("scrub: {} bytes read, all good", report.read_bytes),
            _ => tracing::error!(
                "scrub: {} damaged blocks, {} damaged places that nothing needs, {} files concerned, {} files of the commit log; see `restfs scrub --status`",
                report.damages,
                report.unused,
                report.files,
                report.logs.len()
            ),
        }
        let mut state = self.upkeep.saved.state();
        state.running = None;
        state.last = Some(report);
        Ok(())
    }

    /// What is wrong with the metadata. `None`: it was told to end.
    fn check_metadata(&self) -> Result<Option<Vec<String>>, RpcError> {
        let upkeep = Arc::clone(&self.upkeep);
        let checked = self.upkeep.commits.check(move || !upkeep.is_ending())?;
        let damages = checked.map(|checked| checked.damages);
        if let Some(damages) = damages.as_ref().filter(|damages| !damages.is_empty()) {
            tracing::error!("the metadata is damaged: {}; {REBUILD}", Damages(damages));
        }
        Ok(damages)
    }

    /// Files of the commit log that are no good. If the store is whole it has what they should say, and an image takes their
    /// place.
    fn check_log(&self, replace: bool) -> Result<Vec<String>, RpcError> {
        let log = |error: commits::LogError| RpcError::new(Code::Internal, error.to_string());
        let damages = commits::check(&self.upkeep.commits, |_| !self.upkeep.is_ending()).map_err(log)?;
        for damage in &damages {
            tracing::error!(
                "the commit log is damaged: {}, offset {}: {}; {}",
                damage.path.display(),
                damage.offset,
                damage.reason,
                match replace {
                    true => "it is replaced by an image of the metadata",
                    false => "so is the metadata that it could be replaced from",
                }
            );
        }
        if replace && !damages.is_empty() {
            self.upkeep.commits.write_image().map_err(log)?;
        }
        Ok(damages
            .into_iter()
            .map(|d| d.path.display().to_string())
            .collect())
    }
}

impl Running {
    fn note(&mut self, damage: &ScrubDamage) {
        match damage.key {
            Some(_) => self.damages += 1,
            None => self.unused += 1,
        }
        tracing::error!(
            pack = damage.pack,
            offset = damage.offset,
            "scrub: {}{}",
            damage.reason,
            if damage.key.is_some() {
                ""
            } else {
                "; no block that is needed"
            }
        );
        if self.places.len() < MAX_PLACES {
            self.places.push(ScrubPlace {
                pack: damage.pack,
                offset: damage.offset,
                key: damage.key.map(Into::into),
                reason: damage.reason.clone(),
            });
        }
    }
}

impl Upkeep {
    /// Waits until so many bytes may have been read since `began`.
    fn pace(&self, rate: u64, bytes: u64, began: Instant) {
        if rate == 0 {
            return;
        }
        let due = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let left = due.saturating_sub(began.elapsed());
        if !left.is_zero() {
            self.rest(left);
        }
    }
}

/// About a quarter of a second's worth.
fn step_bytes(rate: u64) -> u64 {
    match rate {
        0 => STEP,
        rate => (rate / 4).clamp(LEAST_STEP, STEP),
    }
}

fn just_begun() -> ScrubProgress {
    ScrubProgress {
        started: time(now_ns()),
        read_bytes: 0,
        total_bytes: 0,
        damages: 0,
    }
}

pub(super) fn time(ns: i64) -> restfs_lib::wire::values::Time {
    Time::from_ns(ns.into()).into()
}

pub(super) fn ns(time: restfs_lib::wire::values::Time) -> i64 {
    time.0
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(time.1))
}
