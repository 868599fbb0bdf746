//! From what is written to what can be started with. Every refusal names the entry and what helps.

use super::file::{File, ReconcileEntry, ShareEntry, SiteEntry, SpaceEntry, VerifyEntry, Wrong};
use super::units::{Bytes, Interval, Span};
use super::{
    Config, DEFAULT_AFTER_GAP, DEFAULT_AGE, DEFAULT_CONTROL, DEFAULT_SOCKET, DEFAULT_STATE_DIR,
    DEFAULT_VERIFY_EVERY, DEFAULT_VERIFY_RATE, Reconcile, Share, Site, Verify,
};
use crate::journal;
use restfs_lib::client::{Trust, Url};
use restfs_lib::disk::Watermarks;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;

/// Below this a journal has no room for the bursts it is there for.
const JOURNAL_MIN: u64 = 16 << 20;
const DEFAULT_CHANGES: u64 = 1_000_000;
/// A site that is away for a moment is to find what it missed.
const CHANGES_MIN: u64 = 10_000;
const DEFAULT_SESSIONS: usize = 10_000;
/// As many as the head of a journal's segment has room for, with those that have ended lately.
const SESSIONS_RANGE: std::ops::RangeInclusive<usize> = 1..=60_000;
const AGE_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(3600);
/// Below this they would never end.
const LEAST: Duration = Duration::from_secs(1);
/// Names become directory names and keys.
const NAME_MAX: usize = 200;
/// A token file is a line; more is a mistake.
const TOKEN_MAX: u64 = 4096;
const ROOT: u32 = 0;

pub(super) fn resolve(file: File) -> Result<Config, Wrong> {
    let mut warnings = Vec::new();
    let mut config = Config {
        state_dir: absolute("state_dir", &file.state_dir, DEFAULT_STATE_DIR)?,
        socket: absolute("socket", &file.socket, DEFAULT_SOCKET)?,
        control: absolute("control", &file.control, DEFAULT_CONTROL)?,
        allow_uids: value(&file.allow_uids, || vec![ROOT]),
        changes_max: value(&file.changes_max, || DEFAULT_CHANGES),
        journal_max: value(&file.journal_max, || Bytes(journal::Options::DEFAULT_MAX_BYTES)).0,
        sessions_max: value(&file.sessions_max, || DEFAULT_SESSIONS),
        age: value(&file.age, || Span(DEFAULT_AGE)).0,
        log: file.log.clone(),
        metrics: file.metrics,
        verify: verify(&file.verify)?,
        space: space(&file.space)?,
        shares: Vec::new(),
        sites: Vec::new(),
        warnings: Vec::new(),
    };
    limits(&file, &config)?;
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
        return Err((None, "there is no share; add [[share]] with name and path".into()));
    }
    for entry in file.sites {
        let at = entry.name.span().start;
        let site = site(entry, &config, &mut warnings)?;
        config.sites.push(site);
        same_bucket_twice(&config).map_err(|why| (Some(at), why))?;
    }
    warn_about_shares_without_site(&config, &mut warnings);
    config.warnings = warnings;
    Ok(config)
}

/// Where it is in the file.
fn place<T>(given: &Option<Spanned<T>>) -> Option<usize> {
    given.as_ref().map(|given| given.span().start)
}

fn value<T: Clone>(given: &Option<Spanned<T>>, default: impl FnOnce() -> T) -> T {
    given
        .as_ref()
        .map_or_else(default, |given| given.get_ref().clone())
}

fn verify(entry: &VerifyEntry) -> Result<Verify, Wrong> {
    Ok(Verify {
        every: interval("verify: every", &entry.every, Some(DEFAULT_VERIFY_EVERY))?,
        deep_every: interval("verify: deep_every", &entry.deep_every, None)?,
        rate: entry.rate.map_or(Some(DEFAULT_VERIFY_RATE), |rate| rate.0),
    })
}

fn space(entry: &SpaceEntry) -> Result<Watermarks, Wrong> {
    let bytes = |given: &Option<Spanned<Bytes>>| given.as_ref().map(|given| given.get_ref().0);
    let (warn, reserve) = (bytes(&entry.warn), bytes(&entry.reserve));
    match (warn, reserve) {
        (Some(warn), Some(reserve)) if warn < reserve => {
            let why = format!("space: warn is {warn} bytes; it must be at least reserve, which is {reserve}");
            Err((place(&entry.warn), why))
        }
        (warn, reserve) => Ok(Watermarks { warn, reserve }),
    }
}

fn reconcile(what: &str, entry: &ReconcileEntry, default: Reconcile) -> Result<Reconcile, Wrong> {
    Ok(Reconcile {
        after_gap: interval(&format!("{what}: after_gap"), &entry.after_gap, default.after_gap)?,
        every: interval(&format!("{what}: every"), &entry.every, default.every)?,
    })
}

fn interval(
    what: &str,
    given: &Option<Spanned<Interval>>,
    default: Option<Duration>,
) -> Result<Option<Duration>, Wrong> {
    match value(given, || Interval(default)).0 {
        Some(time) if time < LEAST => {
            let why = format!("{what} is {time:?}; it must be at least 1s, or \"never\"");
            Err((place(given), why))
        }
        time => Ok(time),
    }
}

fn limits(file: &File, config: &Config) -> Result<(), Wrong> {
    let refuse = |at, why: String| Err((at, why));
    if config.socket == config.control {
        let at = place(&file.control).or(place(&file.socket));
        return refuse(
            at,
            "socket and control are the same path; give each its own".into(),
        );
    }
    if config.journal_max < JOURNAL_MIN {
        let why = format!(
            "journal_max is {} bytes; it must be at least {JOURNAL_MIN}",
            config.journal_max
        );
        return refuse(place(&file.journal_max), why);
    }
    if config.changes_max < CHANGES_MIN {
        let why = format!(
            "changes_max is {}; it must be at least {CHANGES_MIN}",
            config.changes_max
        );
        return refuse(place(&file.changes_max), why);
    }
    if !SESSIONS_RANGE.contains(&config.sessions_max) {
        let (least, most) = (SESSIONS_RANGE.start(), SESSIONS_RANGE.end());
        let why = format!(
            "sessions_max is {}; it must be from {least} to {most}",
            config.sessions_max
        );
        return refuse(place(&file.sessions_max), why);
    }
    if !AGE_RANGE.contains(&config.age) {
        let why = format!("age is {:?}; it must be between 50ms and 1h", config.age);
        return refuse(place(&file.age), why);
    }
    if config.allow_uids.is_empty() {
        let why = "allow_uids is empty, so no smbd could connect; leave it out for root only";
        return refuse(place(&file.allow_uids), why.into());
    }
    Ok(())
}

fn absolute(key: &str, given: &Option<Spanned<PathBuf>>, default: &str) -> Result<PathBuf, Wrong> {
    let path = value(given, || default.into());
    if path.is_absolute() {
        Ok(path)
    } else {
        Err((place(given), format!("{key} {} is not absolute", path.display())))
    }
}

/// A path of an entry; also where it is.
fn named(what: &str, key: &str, path: &Spanned<PathBuf>) -> Result<(PathBuf, Option<usize>), Wrong> {
    let at = Some(path.span().start);
    let path = path.get_ref();
    if path.is_absolute() {
        Ok((path.clone(), at))
    } else {
        Err((at, format!("{what}: {key} {} is not absolute", path.display())))
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

fn share(entry: ShareEntry, config: &Config, by_default: Reconcile) -> Result<Share, Wrong> {
    let at = Some(entry.name.span().start);
    let share = entry.name.into_inner();
    name("share", &share).map_err(|why| (at, why))?;
    let what = format!("share {share}");
    if config.shares.iter().any(|s| s.name.eq_ignore_ascii_case(&share)) {
        let why = format!("{what} is there twice; Samba does not tell names apart by case");
        return Err((at, why));
    }
    let (given, at) = named(&what, "path", &entry.path)?;
    let path = given.canonicalize().map_err(|e| {
        let path = given.display();
        (
            at,
            format!("{what}: path {path}: {e}; create it or correct the path"),
        )
    })?;
    if !path.is_dir() {
        let why = format!("{what}: path {} is not a directory", path.display());
        return Err((at, why));
    }
    let state = config
        .state_dir
        .canonicalize()
        .unwrap_or_else(|_| config.state_dir.clone());
    if state.starts_with(&path) {
        // Each change of the state would be a change of the share.
        let why = format!(
            "{what}: state_dir {} lies in it; put the state outside of all shares",
            state.display()
        );
        return Err((at, why));
    }
    Ok(Share {
        reconcile: reconcile(&format!("{what}: reconcile"), &entry.reconcile, by_default)?,
        name: share,
        path,
        mode: entry.mode,
    })
}

fn site(entry: SiteEntry, config: &Config, warnings: &mut Vec<String>) -> Result<Site, Wrong> {
    let at = Some(entry.name.span().start);
    let site = entry.name.get_ref().clone();
    name("site", &site).map_err(|why| (at, why))?;
    let what = format!("site {site}");
    if config.sites.iter().any(|s| s.name == site) {
        return Err((at, format!("{what} is there twice; give each site its own name")));
    }
    for share in entry.shares.iter().flatten() {
        if !config.shares.iter().any(|s| s.name == *share.get_ref()) {
            let why = format!(
                "{what}: there is no share {}; add it as [[share]] or remove it here",
                share.get_ref()
            );
            return Err((Some(share.span().start), why));
        }
    }
    let url: Url = entry
        .url
        .get_ref()
        .parse()
        .map_err(|e| (Some(entry.url.span().start), format!("{what}: {e}")))?;
    let trust = trust(&what, &entry, &url)?;
    let token = match &entry.token_file {
        Some(path) => Some(token(&what, path, warnings)?),
        None if matches!(url, Url::Unix(_)) => None,
        None => {
            let why = format!("{what}: token_file is missing; make one with `restfs token create`");
            return Err((at, why));
        }
    };
    let shares = entry.shares;
    Ok(Site {
        name: site,
        url,
        token,
        trust,
        bucket: entry.bucket,
        limit: entry.limit.and_then(|rate| rate.0),
        shares: shares.map(|shares| shares.into_iter().map(Spanned::into_inner).collect()),
    })
}

fn trust(what: &str, entry: &SiteEntry, url: &Url) -> Result<Trust, Wrong> {
    let at = Some(entry.url.span().start);
    match (url, &entry.ca_file, &entry.fingerprint) {
        (_, Some(ca_file), Some(_)) => {
            let why = format!("{what}: ca_file and fingerprint exclude each other");
            Err((Some(ca_file.span().start), why))
        }
        (Url::Tcp { tls: true, .. }, None, None) => {
            let why = format!("{what}: wss:// needs ca_file or fingerprint to know the server by");
            Err((at, why))
        }
        (Url::Tcp { tls: true, .. }, Some(path), None) => ca_file(what, path),
        (Url::Tcp { tls: true, .. }, None, Some(text)) => Trust::from_fingerprint(text.get_ref())
            .map_err(|e| (Some(text.span().start), format!("{what}: {e}"))),
        (_, Some(_), None) | (_, None, Some(_)) => {
            let why =
                format!("{what}: ca_file and fingerprint are for wss:// only; this URL would not use them");
            Err((place(&entry.ca_file).or(place(&entry.fingerprint)), why))
        }
        (Url::Tcp { tls: false, host, .. }, None, None) if !is_loopback(host) && !entry.insecure => {
            let why = format!(
                "{what}: ws:// would send content and token in the clear; use wss://, or set insecure = true"
            );
            Err((at, why))
        }
        _ => Ok(Trust::Nobody),
    }
}

fn ca_file(what: &str, path: &Spanned<PathBuf>) -> Result<Trust, Wrong> {
    let (path, at) = named(what, "ca_file", path)?;
    let text = std::fs::read_to_string(&path).map_err(|e| {
        let path = path.display();
        (
            at,
            format!("{what}: ca_file {path}: {e}; copy it from the recovery site"),
        )
    })?;
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        let why = format!("{what}: ca_file {} holds no PEM certificate", path.display());
        return Err((at, why));
    }
    Ok(Trust::CaFile(path))
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn token(what: &str, path: &Spanned<PathBuf>, warnings: &mut Vec<String>) -> Result<String, Wrong> {
    let (path, at) = named(what, "token_file", path)?;
    let token = read_token(what, &path, warnings);
    token.map_err(|why| (at, why))
}

fn read_token(what: &str, path: &Path, warnings: &mut Vec<String>) -> Result<String, String> {
    let shown = path.display();
    let fail = |e: std::io::Error| {
        format!("{what}: token_file {shown}: {e}; write the output of `restfs token create` into it")
    };
    let metadata = std::fs::metadata(path).map_err(fail)?;
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
    let text = std::fs::read_to_string(path).map_err(fail)?;
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
