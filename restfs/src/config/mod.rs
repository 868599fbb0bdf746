//! `/etc/restfs/restfs.toml`. Unknown keys are errors; every error names the key and the line.

mod file;

use crate::service::{GcOptions, ScrubOptions};
use file::File;
use restfs_lib::disk::Watermarks;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub const DEFAULT_PATH: &str = "/etc/restfs/restfs.toml";

/// What the server runs with: checked, with defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub tls: Option<TlsFiles>,
    pub max_connections: usize,
    /// For messages under way, bytes.
    pub message_memory: usize,
    /// For blocks read lately, bytes.
    pub block_cache: usize,
    /// For metadata, bytes.
    pub metadata_cache: usize,
    pub scrub: ScrubOptions,
    pub gc: GcOptions,
    /// Of the data directory's file system.
    pub space: Watermarks,
    pub log: Log,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Log {
    /// As in `RUST_LOG`.
    pub level: Option<String>,
    pub json: bool,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error("configuration {path}: {why}; make one with `restfs init --config {path} --data DIR`")]
    Unreadable { path: String, why: String },
    #[error("configuration {path}, line {line}: {why}")]
    Line { path: String, line: usize, why: String },
    #[error("configuration {path}: {why}")]
    Whole { path: String, why: String },
}

impl Config {
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
            path: path.display().to_string(),
            why: error.to_string(),
        })?;
        Self::parse(&text, path)
    }

    /// Relative paths in it count from the folder of `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let file: File = toml::from_str(text).map_err(|error| {
            let why = error.message().replace('\n', " ");
            match error.span() {
                Some(span) => ConfigError::Line {
                    path: shown.clone(),
                    line: line_of(text, span.start),
                    why,
                },
                None => ConfigError::Whole {
                    path: shown.clone(),
                    why,
                },
            }
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        file.check(folder).map_err(|(at, why)| match at {
            Some(at) => ConfigError::Line {
                path: shown.clone(),
                line: line_of(text, at),
                why,
            },
            None => ConfigError::Whole {
                path: shown.clone(),
                why,
            },
        })
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/etc/restfs/restfs.toml")).map_err(|e| e.to_string())
    }

    #[test]
    fn the_shortest_configuration_listens_on_loopback() {
        let config = parse("data_dir = \"/srv/restfs\"\n").unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:7400");
        assert_eq!(config.tls, None);
    }

    #[test]
    fn a_mistyped_key_is_named_with_its_line() {
        let error = parse("data_dir = \"/srv\"\n\n[limits]\nconections = 3\n").unwrap_err();
        assert!(error.contains("line 4"), "{error}");
        assert!(error.contains("unknown field `conections`"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }

    #[test]
    fn values_out_of_bounds_are_named_with_their_line() {
        for (text, line, key) in [
            (
                "data_dir = \"/srv\"\nlisten = \"everywhere\"\n",
                "line 2",
                "listen",
            ),
            (
                "data_dir = \"/srv\"\n[limits]\nconnections = 0\n",
                "line 3",
                "limits.connections",
            ),
            (
                "data_dir = \"/srv\"\n[limits]\nmessage_memory_mib = 1\n",
                "line 3",
                "limits.message_memory_mib",
            ),
            ("data_dir = \"\"\n", "line 1", "data_dir"),
            ("data_dir = \"/srv\"\nlisten = 7400\n", "line 2", "string"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(line) && error.contains(key), "{error}");
        }
        assert!(
            parse("listen = \"127.0.0.1:1\"\n")
                .unwrap_err()
                .contains("data_dir")
        );
    }

    #[test]
    fn scrubs_are_scheduled_unless_told_otherwise() {
        let with = |text: &str| parse(&format!("data_dir = \"/srv\"\n{text}"));
        assert_eq!(with("").unwrap().scrub, ScrubOptions::default());
        let own = with("[scrub]\nevery_days = 7\nrate_mib = 100\n").unwrap().scrub;
        let week = std::time::Duration::from_secs(7 * 86_400);
        assert_eq!((own.every, own.rate), (Some(week), 100 << 20));
        assert_eq!(with("[scrub]\nevery_days = 0\n").unwrap().scrub.every, None);
        let error = with("[scrub]\nrate_mib = 0\n").unwrap_err();
        assert!(
            error.contains("line 3") && error.contains("scrub.rate_mib"),
            "{error}"
        );
    }

    #[test]
    fn collections_are_scheduled_unless_told_otherwise() {
        let with = |text: &str| parse(&format!("data_dir = \"/srv\"\n{text}"));
        assert_eq!(with("").unwrap().gc, GcOptions::default());
        let own = with("[gc]\nevery_days = 1\nrate_mib = 100\ngrace_minutes = 5\n")
            .unwrap()
            .gc;
        let minutes = |minutes: u64| std::time::Duration::from_secs(minutes * 60);
        assert_eq!(
            (own.every, own.rate, own.grace),
            (Some(minutes(1440)), 100 << 20, minutes(5))
        );
        assert_eq!(with("[gc]\nevery_days = 0\n").unwrap().gc.every, None);
        let error = with("[gc]\ngrace_minutes = 99999999\n").unwrap_err();
        assert!(
            error.contains("line 3") && error.contains("gc.grace_minutes"),
            "{error}"
        );
    }

    #[test]
    fn watermarks_are_in_mib_and_in_their_order() {
        let with =
            |text: &str| parse(&format!("data_dir = \"/srv\"\n[space]\n{text}")).map(|config| config.space);
        let marks = |warn, reserve| Ok(Watermarks { warn, reserve });
        assert_eq!(with(""), marks(None, None));
        assert_eq!(with("reserve_mib = 10\n"), marks(None, Some(10 << 20)));
        assert_eq!(with("reserve_mib = 0\n"), marks(None, Some(0)));
        assert_eq!(
            with("warn_mib = 30\nreserve_mib = 30\n"),
            marks(Some(30 << 20), Some(30 << 20))
        );
        let error = with("reserve_mib = 31\nwarn_mib = 30\n").unwrap_err();
        assert!(
            error.contains("line 4") && error.contains("`space.warn_mib` 30 is less"),
            "{error}"
        );
        let error = with("warn_mib = 1048577\n").unwrap_err();
        assert!(
            error.contains("line 3") && error.contains("space.warn_mib"),
            "{error}"
        );
    }

    #[test]
    fn nothing_but_loopback_is_served_without_tls_unless_told() {
        let open = "data_dir = \"/srv\"\nlisten = \"0.0.0.0:7400\"\n";
        let error = parse(open).unwrap_err();
        assert!(error.contains("line 2") && error.contains("[tls]"), "{error}");
        assert!(parse(&format!("{open}insecure = true\n")).is_ok());
        assert!(parse(&format!("{open}[tls]\ncert = \"c.pem\"\nkey = \"k.pem\"\n")).is_ok());
        let both = parse(&format!(
            "{open}insecure = true\n[tls]\ncert = \"c\"\nkey = \"k\"\n"
        ))
        .unwrap_err();
        assert!(both.contains("insecure"), "{both}");
    }

    #[test]
    fn relative_paths_count_from_the_configurations_folder() {
        let config = parse("data_dir = \"data\"\n[tls]\ncert = \"c.pem\"\nkey = \"/k.pem\"\n").unwrap();
        assert_eq!(config.data_dir, Path::new("/etc/restfs/data"));
        let tls = config.tls.unwrap();
        assert_eq!(tls.cert, Path::new("/etc/restfs/c.pem"));
        assert_eq!(tls.key, Path::new("/k.pem"));
    }
}
