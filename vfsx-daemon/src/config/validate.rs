//! From what is written to what can be started with. Every refusal names the entry and what helps.

use super::file::{File, ReconcileEntry, ShareEntry, SiteEntry, VerifyEntry};
use super::units::Interval;
use super::{
    Config, DEFAULT_AFTER_GAP, DEFAULT_AGE, DEFAULT_SOCKET, DEFAULT_STATE_DIR, DEFAULT_VERIFY_EVERY,
    DEFAULT_VERIFY_RATE, Reconcile, Share, Site, Verify,
};
use crate::journal;
use restfs_lib::client::{Trust, Url};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Below this a journal has no room for the bursts it is there for.
const JOURNAL_MIN: u64 = 16 << 20;
const DEFAULT_CHANGES: u64 = 1_000_000;
/// A site that is away for a moment is to find what it missed.
const CHANGES_MIN: u64 = 10_000;
const AGE_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(3600);
/// Below this they would never end.
const LEAST: Duration = Duration::from_secs(1);
/// Names become directory names and keys.
const NAME_MAX: usize = 200;
/// A token file is a line; more is a mistake.
const TOKEN_MAX: u64 = 4096;
const ROOT: u32 = 0;

pub(super) fn resolve(file: File) -> Result<Config, String> {
    let mut warnings = Vec::new();
    let control = file.control();
    let mut config = Config {
        state_dir: absolute(
            "state_dir",
            file.state_dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into()),
        )?,
        socket: absolute("socket", file.socket.unwrap_or_else(|| DEFAULT_SOCKET.into()))?,
        control: absolute("control", control)?,
        allow_uids: file.allow_uids.unwrap_or_else(|| vec![ROOT]),
        changes_max: file.changes_max.unwrap_or(DEFAULT_CHANGES),
        journal_max: file
            .journal_max
            .map_or(journal::Options::DEFAULT_MAX_BYTES, |b| b.0),
        age: file.age.map_or(DEFAULT_AGE, |s| s.0),
        log: file.log,
        metrics: file.metrics,
        verify: verify(&file.verify)?,
        shares: Vec::new(),
        sites: Vec::new(),
        warnings: Vec::new(),
    };
    limits(&config)?;
    let by_default = Reconcile {
        after_gap: Some(DEFAULT_AFTER_GAP),
        every: None,
    };
    let by_default = reconcile("reconcile", &file.reconcile, by_default)?;
    for entry in file.shares {
        let share = share(entry, &config, by_default)?;
        config.shares.push(share);
    }
    if config.shares.is_empty() {
        return Err("there is no share; add [[share]] with name and path".into());
    }
    for entry in file.sites {
        let site = site(entry, &config, &mut warnings)?;
        config.sites.push(site);
    }
    warn_about_shares_without_site(&config, &mut warnings);
    same_bucket_twice(&config)?;
    config.warnings = warnings;
    Ok(config)
}

fn verify(entry: &VerifyEntry) -> Result<Verify, String> {
    Ok(Verify {
        every: interval("verify: every", entry.every, Some(DEFAULT_VERIFY_EVERY))?,
        deep_every: interval("verify: deep_every", entry.deep_every, None)?,
        rate: entry.rate.map_or(Some(DEFAULT_VERIFY_RATE), |rate| rate.0),
    })
}

fn reconcile(what: &str, entry: &ReconcileEntry, default: Reconcile) -> Result<Reconcile, String> {
    Ok(Reconcile {
        after_gap: interval(&format!("{what}: after_gap"), entry.after_gap, default.after_gap)?,
        every: interval(&format!("{what}: every"), entry.every, default.every)?,
    })
}

fn interval(
    what: &str,
    given: Option<Interval>,
    default: Option<Duration>,
) -> Result<Option<Duration>, String> {
    match given.map_or(default, |interval| interval.0) {
        Some(time) if time < LEAST => Err(format!(
            "{what} is {time:?}; it must be at least 1s, or \"never\""
        )),
        time => Ok(time),
    }
}

fn limits(config: &Config) -> Result<(), String> {
    if config.socket == config.control {
        return Err("socket and control are the same path; give each its own".into());
    }
    if config.journal_max < JOURNAL_MIN {
        return Err(format!(
            "journal_max is {} bytes; it must be at least {JOURNAL_MIN}",
            config.journal_max
        ));
    }
    if config.changes_max < CHANGES_MIN {
        return Err(format!(
            "changes_max is {}; it must be at least {CHANGES_MIN}",
            config.changes_max
        ));
    }
    if !AGE_RANGE.contains(&config.age) {
        return Err(format!("age is {:?}; it must be between 50ms and 1h", config.age));
    }
    if config.allow_uids.is_empty() {
        return Err("allow_uids is empty, so no smbd could connect; leave it out for root only".into());
    }
    Ok(())
}

fn absolute(key: &str, path: PathBuf) -> Result<PathBuf, String> {
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(format!("{key} {} is not absolute", path.display()))
    }
}

fn name(kind: &str, name: &str) -> Result<(), String> {
    let bad = name.is_empty()
        || name.len() > NAME_MAX
        || name.starts_with('.')
        || name.chars().any(|c| c == '/' || c.is_control());
    if bad {
        return Err(format!(
            "{kind} name {name:?} cannot be used; it needs 1 to {NAME_MAX} bytes, no slash, no leading dot"
        ));
    }
    Ok(())
}

fn share(entry: ShareEntry, config: &Config, by_default: Reconcile) -> Result<Share, String> {
    name("share", &entry.name)?;
    let what = format!("share {}", entry.name);
    if config
        .shares
        .iter()
        .any(|s| s.name.eq_ignore_ascii_case(&entry.name))
    {
        return Err(format!(
            "{what} is there twice; Samba does not tell names apart by case"
        ));
    }
    let given = absolute(&format!("{what}: path"), entry.path)?;
    let path = given.canonicalize().map_err(|e| {
        format!(
            "{what}: path {}: {e}; create it or correct the path",
            given.display()
        )
    })?;
    if !path.is_dir() {
        return Err(format!("{what}: path {} is not a directory", path.display()));
    }
    let state = config
        .state_dir
        .canonicalize()
        .unwrap_or_else(|_| config.state_dir.clone());
    if state.starts_with(&path) {
        // Each change of the state would be a change of the share.
        return Err(format!(
            "{what}: state_dir {} lies in it; put the state outside of all shares",
            state.display()
        ));
    }
    let reconcile = reconcile(&format!("{what}: reconcile"), &entry.reconcile, by_default)?;
    Ok(Share {
        reconcile,
        name: entry.name,
        path,
        mode: entry.mode,
    })
}

fn site(entry: SiteEntry, config: &Config, warnings: &mut Vec<String>) -> Result<Site, String> {
    name("site", &entry.name)?;
    let what = format!("site {}", entry.name);
    if config.sites.iter().any(|s| s.name == entry.name) {
        return Err(format!("{what} is there twice; give each site its own name"));
    }
    for share in entry.shares.iter().flatten() {
        if !config.shares.iter().any(|s| &s.name == share) {
            return Err(format!(
                "{what}: there is no share {share}; add it as [[share]] or remove it here"
            ));
        }
    }
    let url: Url = entry.url.parse().map_err(|e| format!("{what}: {e}"))?;
    let trust = trust(&what, &entry, &url)?;
    let token = match &entry.token_file {
        Some(path) => Some(token(&what, path, warnings)?),
        None if matches!(url, Url::Unix(_)) => None,
        None => {
            return Err(format!(
                "{what}: token_file is missing; make one with `restfs token create`"
            ));
        }
    };
    Ok(Site {
        name: entry.name,
        url,
        token,
        trust,
        bucket: entry.bucket,
        limit: entry.limit.and_then(|rate| rate.0),
        shares: entry.shares,
    })
}

fn trust(what: &str, entry: &SiteEntry, url: &Url) -> Result<Trust, String> {
    match (url, &entry.ca_file, &entry.fingerprint) {
        (_, Some(_), Some(_)) => Err(format!("{what}: ca_file and fingerprint exclude each other")),
        (Url::Tcp { tls: true, .. }, None, None) => Err(format!(
            "{what}: wss:// needs ca_file or fingerprint to know the server by"
        )),
        (Url::Tcp { tls: true, .. }, Some(path), None) => ca_file(what, path),
        (Url::Tcp { tls: true, .. }, None, Some(text)) => {
            Trust::from_fingerprint(text).map_err(|e| format!("{what}: {e}"))
        }
        (_, Some(_), None) | (_, None, Some(_)) => Err(format!(
            "{what}: ca_file and fingerprint are for wss:// only; this URL would not use them"
        )),
        (Url::Tcp { tls: false, host, .. }, None, None) if !is_loopback(host) && !entry.insecure => {
            Err(format!(
                "{what}: ws:// would send content and token in the clear; use wss://, or set insecure = true"
            ))
        }
        _ => Ok(Trust::Nobody),
    }
}

fn ca_file(what: &str, path: &Path) -> Result<Trust, String> {
    let path = absolute(&format!("{what}: ca_file"), path.to_owned())?;
    let text = std::fs::read_to_string(&path).map_err(|e| {
        format!(
            "{what}: ca_file {}: {e}; copy it from the recovery site",
            path.display()
        )
    })?;
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(format!(
            "{what}: ca_file {} holds no PEM certificate",
            path.display()
        ));
    }
    Ok(Trust::CaFile(path))
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn token(what: &str, path: &Path, warnings: &mut Vec<String>) -> Result<String, String> {
    let path = absolute(&format!("{what}: token_file"), path.to_owned())?;
    let shown = path.display();
    let fail = |e: std::io::Error| {
        format!("{what}: token_file {shown}: {e}; write the output of `restfs token create` into it")
    };
    let metadata = std::fs::metadata(&path).map_err(fail)?;
    if metadata.len() > TOKEN_MAX {
        return Err(format!(
            "{what}: token_file {shown} has more than {TOKEN_MAX} bytes; it holds one line"
        ));
    }
    if metadata.mode() & 0o077 != 0 {
        warnings.push(format!(
            "{what}: token_file {shown} can be read by others; chmod 600 it"
        ));
    }
    let text = std::fs::read_to_string(&path).map_err(fail)?;
    match text.trim() {
        "" => Err(format!("{what}: token_file {shown} is empty")),
        token if token.contains(char::is_whitespace) => Err(format!(
            "{what}: token_file {shown} holds more than one word; it holds the token only"
        )),
        token => Ok(token.to_owned()),
    }
}

/// Two shares in one bucket would overwrite each other.
fn same_bucket_twice(config: &Config) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for site in &config.sites {
        for share in config.shares.iter().filter(|s| site.takes(&s.name)) {
            let bucket = site.bucket_for(&share.name);
            if !seen.insert((site.url.to_string(), bucket.to_owned())) {
                return Err(format!(
                    "site {}: bucket {bucket} would take more than one share; one bucket holds one share",
                    site.name
                ));
            }
        }
    }
    Ok(())
}

fn warn_about_shares_without_site(config: &Config, warnings: &mut Vec<String>) {
    for share in &config.shares {
        if !config.sites.iter().any(|site| site.takes(&share.name)) {
            warnings.push(format!(
                "share {} has no site: its changes are noted and go nowhere",
                share.name
            ));
        }
    }
}
