//! Sizes, rates and durations as people write them.

use serde::Deserialize;
use std::num::NonZeroU64;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct UnitError {
    text: String,
    expected: &'static str,
}

const BYTES: &str = "a size such as 500MB, 4GiB or 1048576";
const RATE: &str = "a rate such as 10MB/s, 500KiB/s or `none`";
const DURATION: &str = "a duration such as 500ms, 2s or 5m";
const INTERVAL: &str = "a duration such as 12h or 7d, or `never`";

/// `1048576`, `500MB` (powers of 1000), `4GiB` (powers of 1024); whole numbers only.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    split(text)
        .and_then(|(n, unit)| n.checked_mul(byte_unit(unit)?))
        .ok_or_else(|| wrong(text, BYTES))
}

/// Bytes per second: a size, with or without `/s`; `none` for no limit.
pub fn parse_rate(text: &str) -> Result<Option<NonZeroU64>, UnitError> {
    if text.trim() == "none" {
        return Ok(None);
    }
    let size = text.trim().strip_suffix("/s").unwrap_or(text);
    let bytes = parse_bytes(size).map_err(|_| wrong(text, RATE))?;
    // A limit of nothing would be a pause that does not say so.
    NonZeroU64::new(bytes).map(Some).ok_or_else(|| wrong(text, RATE))
}

pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let parsed = split(text).and_then(|(n, unit)| match unit {
        "ms" => Some(Duration::from_millis(n)),
        "s" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_secs(n.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(n.checked_mul(3600)?)),
        "d" => Some(Duration::from_secs(n.checked_mul(24 * 3600)?)),
        _ => None,
    });
    parsed.ok_or_else(|| wrong(text, DURATION))
}

/// How often something is done; `None`: never.
pub fn parse_interval(text: &str) -> Result<Option<Duration>, UnitError> {
    match text.trim() {
        "never" => Ok(None),
        other => parse_duration(other).map(Some).map_err(|_| wrong(text, INTERVAL)),
    }
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit.trim_start()))
}

fn byte_unit(unit: &str) -> Option<u64> {
    Some(match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    })
}

fn wrong(text: &str, expected: &'static str) -> UnitError {
    UnitError {
        text: text.to_owned(),
        expected,
    }
}

/// A number or a text.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a number or a text with a unit")]
enum Written {
    Number(u64),
    Text(String),
}

macro_rules! written {
    ($name:ident, $value:ty, $number:expr, $text:expr) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
        #[serde(try_from = "Written")]
        pub(super) struct $name(pub(super) $value);

        impl TryFrom<Written> for $name {
            type Error = UnitError;

            fn try_from(written: Written) -> Result<Self, UnitError> {
                match written {
                    Written::Number(n) => $number(n).map(Self),
                    Written::Text(text) => $text(&text).map(Self),
                }
            }
        }
    };
}

written!(Bytes, u64, Ok, parse_bytes);
written!(
    Rate,
    Option<NonZeroU64>,
    |n: u64| parse_rate(&n.to_string()),
    parse_rate
);
written!(
    Span,
    Duration,
    |n: u64| Err(wrong(&n.to_string(), DURATION)),
    parse_duration
);
written!(
    Interval,
    Option<Duration>,
    |n: u64| Err(wrong(&n.to_string(), INTERVAL)),
    parse_interval
);
