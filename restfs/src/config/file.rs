//! The file as it is written.

use super::{Config, Log, TlsFiles};
use crate::service::{GcOptions, ScrubOptions};
use restfs_lib::client::DEFAULT_PORT;
use restfs_lib::disk::Watermarks;
use restfs_lib::wire::limits::MAX_MESSAGE;
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;

const MIB: usize = 1024 * 1024;
const DEFAULT_CONNECTIONS: u32 = 1024;
const DEFAULT_MESSAGE_MEMORY_MIB: u32 = 256;
const DEFAULT_BLOCK_CACHE_MIB: u32 = 64;
const DEFAULT_METADATA_CACHE_MIB: u32 = 64;
/// As often as disks are usually read through.
const DEFAULT_SCRUB_DAYS: u32 = 30;
const MAX_SCRUB_DAYS: u32 = 3650;
/// A tenth of what a single disk reads: 1 TiB in 18 hours.
const DEFAULT_SCRUB_MIB: u32 = 16;
/// A site gives back what was purged within a week.
const DEFAULT_GC_DAYS: u32 = 7;
/// Read and written on the disk that takes commits in: a site that is full does not keep to it.
const DEFAULT_GC_MIB: u32 = 32;
/// A source that lost its connection in the middle of an upload comes back sooner.
const DEFAULT_GRACE_MINUTES: u32 = 60;
const MAX_GRACE_MINUTES: u32 = 365 * 24 * 60;
/// Two of the longest messages, one each way.
const MIN_MESSAGE_MEMORY_MIB: u32 = (2 * MAX_MESSAGE / MIB) as u32;
const MAX_MIB: u32 = 1024 * 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    data_dir: Spanned<PathBuf>,
    listen: Option<Spanned<String>>,
    insecure: Option<Spanned<bool>>,
    tls: Option<Tls>,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    cache: Cache,
    #[serde(default)]
    scrub: Scrub,
    #[serde(default)]
    gc: Gc,
    #[serde(default)]
    space: Space,
    #[serde(default)]
    log: LogFile,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    cert: PathBuf,
    key: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    connections: Option<Spanned<u32>>,
    message_memory_mib: Option<Spanned<u32>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cache {
    blocks_mib: Option<Spanned<u32>>,
    metadata_mib: Option<Spanned<u32>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Space {
    reserve_mib: Option<Spanned<u32>>,
    warn_mib: Option<Spanned<u32>>,
}

impl Space {
    fn check(self) -> Result<Watermarks, Wrong> {
        let at = self.warn_mib.as_ref().map(|warn| warn.span().start);
        let bytes = |value: Option<Spanned<u32>>, key| match value {
            None => Ok(None),
            value => bounded(value, key, 0..=MAX_MIB, 0).map(|mib| Some(u64::from(mib) * MIB as u64)),
        };
        let reserve = bytes(self.reserve_mib, "space.reserve_mib")?;
        let warn = bytes(self.warn_mib, "space.warn_mib")?;
        if let (Some(warn), Some(reserve)) = (warn, reserve)
            && warn < reserve
        {
            let (warn, reserve) = (warn / MIB as u64, reserve / MIB as u64);
            let text = format!(
                "`space.warn_mib` {warn} is less than `space.reserve_mib` {reserve}: nothing would be warned of before new content is refused"
            );
            return Err((at, text));
        }
        Ok(Watermarks { warn, reserve })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scrub {
    every_days: Option<Spanned<u32>>,
    rate_mib: Option<Spanned<u32>>,
}

impl Scrub {
    fn check(self) -> Result<ScrubOptions, Wrong> {
        let days = bounded(
            self.every_days,
            "scrub.every_days",
            0..=MAX_SCRUB_DAYS,
            DEFAULT_SCRUB_DAYS,
        )?;
        let rate = bounded(self.rate_mib, "scrub.rate_mib", 1..=MAX_MIB, DEFAULT_SCRUB_MIB)?;
        Ok(ScrubOptions {
            rate: u64::from(rate) * MIB as u64,
            every: (days > 0).then(|| Duration::from_secs(u64::from(days) * 86_400)),
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Gc {
    every_days: Option<Spanned<u32>>,
    rate_mib: Option<Spanned<u32>>,
    grace_minutes: Option<Spanned<u32>>,
}

impl Gc {
    fn check(self) -> Result<GcOptions, Wrong> {
        let days = bounded(
            self.every_days,
            "gc.every_days",
            0..=MAX_SCRUB_DAYS,
            DEFAULT_GC_DAYS,
        )?;
        let mib = bounded(self.rate_mib, "gc.rate_mib", 1..=MAX_MIB, DEFAULT_GC_MIB)?;
        let minutes = bounded(
            self.grace_minutes,
            "gc.grace_minutes",
            0..=MAX_GRACE_MINUTES,
            DEFAULT_GRACE_MINUTES,
        )?;
        Ok(GcOptions {
            rate: u64::from(mib) * MIB as u64,
            every: (days > 0).then(|| Duration::from_secs(u64::from(days) * 86_400)),
            grace: Duration::from_secs(u64::from(minutes) * 60),
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogFile {
    level: Option<String>,
    #[serde(default)]
    json: bool,
}

/// Where in the file, and what is wrong.
type Wrong = (Option<usize>, String);

impl File {
    pub(super) fn check(self, folder: &Path) -> Result<Config, Wrong> {
        let data_dir = self.data_dir.get_ref();
        if data_dir.as_os_str().is_empty() {
            return Err((Some(self.data_dir.span().start), "`data_dir` is empty".to_owned()));
        }
        let data_dir = folder.join(data_dir);
        let listen = self.listen()?;
        let mib = |value, key, least, default| {
            bounded(value, key, least..=MAX_MIB, default).map(|n| n as usize * MIB)
        };
        Ok(Config {
            data_dir,
            listen,
            tls: self.tls.map(|tls| TlsFiles {
                cert: folder.join(tls.cert),
                key: folder.join(tls.key),
            }),
            max_connections: bounded(
                self.limits.connections,
                "limits.connections",
                1..=100_000,
                DEFAULT_CONNECTIONS,
            )? as usize,
            message_memory: mib(
                self.limits.message_memory_mib,
                "limits.message_memory_mib",
                MIN_MESSAGE_MEMORY_MIB,
                DEFAULT_MESSAGE_MEMORY_MIB,
            )?,
            block_cache: mib(
                self.cache.blocks_mib,
                "cache.blocks_mib",
                1,
                DEFAULT_BLOCK_CACHE_MIB,
            )?,
            metadata_cache: mib(
                self.cache.metadata_mib,
                "cache.metadata_mib",
                1,
                DEFAULT_METADATA_CACHE_MIB,
            )?,
            scrub: self.scrub.check()?,
            gc: self.gc.check()?,
            space: self.space.check()?,
            log: Log {
                level: self.log.level,
                json: self.log.json,
            },
        })
    }

    /// Tokens and content do not cross a network in the clear by accident.
    fn listen(&self) -> Result<SocketAddr, Wrong> {
        let Some(listen) = &self.listen else {
            return Ok((Ipv4Addr::LOCALHOST, DEFAULT_PORT).into());
        };
        let at = listen.span().start;
        let address: SocketAddr = listen.get_ref().parse().map_err(|_| {
            let text = format!(
                "`listen` {:?} is no address with port, such as 0.0.0.0:7400",
                listen.get_ref()
            );
            (Some(at), text)
        })?;
        let insecure = self.insecure.as_ref().filter(|insecure| *insecure.get_ref());
        match (&self.tls, insecure) {
            (Some(_), Some(insecure)) => {
                let text = "`insecure` and [tls] exclude each other: remove one".to_owned();
                Err((Some(insecure.span().start), text))
            }
            (None, None) if !address.ip().is_loopback() => {
                let text = format!(
                    "`listen` {address} can be reached from other machines: set `cert` and `key` in [tls] (`restfs init` makes them), or `insecure = true` inside a network that you trust"
                );
                Err((Some(at), text))
            }
            _ => Ok(address),
        }
    }
}

fn bounded(
    value: Option<Spanned<u32>>,
    key: &str,
    bounds: std::ops::RangeInclusive<u32>,
    default: u32,
) -> Result<u32, Wrong> {
    let Some(value) = value else { return Ok(default) };
    if bounds.contains(value.get_ref()) {
        return Ok(*value.get_ref());
    }
    let text = format!(
        "`{key}` {} is not from {} to {}",
        value.get_ref(),
        bounds.start(),
        bounds.end()
    );
    Err((Some(value.span().start), text))
}
