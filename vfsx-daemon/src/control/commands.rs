//! What each request does.

use super::protocol::{Done, Progress, Reply, Request};
use crate::engine::{self, ShareEngine, VerifyOptions};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub(super) struct Commands {
    shares: Vec<Arc<ShareEngine>>,
}

/// What the last line says when it is an error.
struct Refusal {
    text: String,
    usage: bool,
}

impl Refusal {
    fn usage(text: String) -> Self {
        Self { text, usage: true }
    }

    fn failed(error: impl std::fmt::Display) -> Self {
        Self {
            text: error.to_string(),
            usage: false,
        }
    }
}

impl Commands {
    pub(super) fn new(shares: Vec<Arc<ShareEngine>>) -> Self {
        Self { shares }
    }

    /// Sends progress and the outcome. Ends early when nobody receives them.
    pub(super) async fn run(&self, request: Request, replies: Sender<Reply>) {
        let outcome = match request {
            Request::Status {} => Ok(Done::Status(engine::report(&self.shares).await)),
            Request::Settle {
                share,
                site,
                timeout_ms,
            } => {
                self.settle(share, site, Duration::from_millis(timeout_ms), &replies)
                    .await
            }
            Request::Sync { share } => self.sync(share, &replies).await,
            Request::Verify {
                share,
                site,
                deep,
                repair,
                rate,
            } => {
                let options = VerifyOptions {
                    deep,
                    repair,
                    site,
                    rate: None,
                };
                self.verify(share, &options, rate, &replies).await
            }
            Request::Pause { share, site } => self.set_paused(share, site, true),
            Request::Resume { share, site } => self.set_paused(share, site, false),
        };
        let last = match outcome {
            Ok(done) => Reply::Done(done),
            Err(Refusal { text, usage }) => Reply::Error { text, usage },
        };
        // The receiver may be gone: then there is nobody to tell.
        let _ = replies.send(last).await;
    }

    async fn settle(
        &self,
        share: Option<String>,
        site: Option<String>,
        timeout: Duration,
        replies: &Sender<Reply>,
    ) -> Result<Done, Refusal> {
        let deadline = Instant::now() + timeout;
        let mut tasks = JoinSet::new();
        for share in self.chosen(share.as_deref(), site.as_deref())? {
            let (replies, site) = (replies.clone(), site.clone());
            tasks.spawn(async move {
                let name = share.name().to_owned();
                let tell = |stage| {
                    // Progress that nobody takes in time is left out.
                    let _ = replies.try_send(Reply::Progress(Progress::Settle {
                        share: name.clone(),
                        stage,
                    }));
                };
                share.settle(site.as_deref(), deadline, tell).await
            });
        }
        let mut settled = Vec::new();
        while let Some(outcome) = tasks.join_next().await {
            settled.push(outcome.map_err(Refusal::failed)?.map_err(Refusal::failed)?);
        }
        settled.sort_by(|a, b| a.share.cmp(&b.share));
        Ok(Done::Settled(settled))
    }

    async fn sync(&self, share: Option<String>, replies: &Sender<Reply>) -> Result<Done, Refusal> {
        let mut synced = Vec::new();
        // One after the other: they would compete for the same disks.
        for share in self.chosen(share.as_deref(), None)? {
            let tell = |progress| {
                let line = Progress::Sync {
                    share: share.name().to_owned(),
                    progress,
                };
                // Progress that nobody takes in time is left out.
                let _ = replies.try_send(Reply::Progress(line));
            };
            synced.push(share.sync(tell).await.map_err(Refusal::failed)?);
        }
        Ok(Done::Synced(synced))
    }

    async fn verify(
        &self,
        share: Option<String>,
        options: &VerifyOptions,
        rate: Option<u64>,
        replies: &Sender<Reply>,
    ) -> Result<Done, Refusal> {
        let mut verified = Vec::new();
        // One after the other, as above.
        for share in self.chosen(share.as_deref(), options.site.as_deref())? {
            let tell = |progress| {
                let line = Progress::Verify {
                    share: share.name().to_owned(),
                    progress,
                };
                // Progress that nobody takes in time is left out.
                let _ = replies.try_send(Reply::Progress(line));
            };
            let options = VerifyOptions {
                rate: rate.map_or(share.verify_rate(), NonZeroU64::new),
                ..options.clone()
            };
            verified.push(share.verify(&options, &tell).await.map_err(Refusal::failed)?);
        }
        Ok(Done::Verified(verified))
    }

    fn set_paused(&self, share: Option<String>, site: Option<String>, paused: bool) -> Result<Done, Refusal> {
        let mut changed = Vec::new();
        for share in self.chosen(share.as_deref(), site.as_deref())? {
            let outcome = tokio::task::block_in_place(|| share.set_paused(site.as_deref(), paused));
            let sites = outcome.map_err(|e| Refusal::failed(format!("share {}: {e}", share.name())))?;
            changed.extend(sites.into_iter().map(|site| (share.name().to_owned(), site)));
        }
        Ok(Done::Changed(changed))
    }

    /// Shares by name, or all; of these the ones that go to the site, when one is named.
    fn chosen(&self, share: Option<&str>, site: Option<&str>) -> Result<Vec<Arc<ShareEngine>>, Refusal> {
        let is_named =
            |engine: &&Arc<ShareEngine>| share.is_none_or(|name| engine.name().eq_ignore_ascii_case(name));
        let named: Vec<_> = self.shares.iter().filter(is_named).cloned().collect();
        if named.is_empty() {
            let known: Vec<&str> = self.shares.iter().map(|s| s.name()).collect();
            return Err(Refusal::usage(format!(
                "share {}: not in vfsxd's configuration, which has {}",
                share.unwrap_or_default(),
                known.join(", ")
            )));
        }
        let Some(site) = site else { return Ok(named) };
        let going: Vec<_> = named.into_iter().filter(|engine| engine.has_site(site)).collect();
        if going.is_empty() {
            return Err(Refusal::usage(format!("site {site}: no chosen share goes there")));
        }
        Ok(going)
    }
}
