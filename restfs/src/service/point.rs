//! `point.resolve`, `commit.list`.

use super::access::{check_point, find_bucket, no_point};
use super::{Service, now_ns};
use crate::auth::{Identity, Need};
use restfs_lib::kv::KvRead;
use restfs_lib::model::Time;
use restfs_lib::tree::bucket::Bucket;
use restfs_lib::tree::commit::{self, Commit};
use restfs_lib::tree::purge;
use restfs_lib::wire::limits::MAX_POINT_TEXT;
use restfs_lib::wire::method::{
    CommitInfo, CommitListParams, CommitListResult, PointResolveParams, PointResolveResult,
};
use restfs_lib::wire::{Code, RpcError, check};

/// A point as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PointText {
    Latest,
    Number(u64),
    /// The newest point not after this time, nanoseconds since the epoch.
    Time(i64),
}

pub(super) fn resolve(
    service: &Service,
    identity: &Identity,
    params: PointResolveParams,
) -> Result<PointResolveResult, RpcError> {
    let text = parse(&params.at, now_ns())?;
    service.metadata.read(|kv| {
        let bucket = find_bucket(kv, identity, Need::Read, &params.bucket)?;
        let point = find_point(kv, &bucket, text)?.ok_or_else(|| too_early(kv, &bucket, &params.at))?;
        check_point(kv, &bucket, point)?;
        let commit = commit::get(kv, bucket.id, point)?.ok_or_else(|| no_point(&bucket, point))?;
        Ok(PointResolveResult {
            point,
            time: time(commit.info.time_ns),
            exact: commit.info.exact,
        })
    })
}

/// The point meant, whether it exists or not. `None`: all that can be read have something later in them.
pub(super) fn find_point(kv: &dyn KvRead, bucket: &Bucket, text: PointText) -> Result<Option<u64>, RpcError> {
    let ns = match text {
        PointText::Latest => return Ok(Some(bucket.head)),
        PointText::Number(point) => return Ok(Some(point)),
        PointText::Time(ns) => ns,
    };
    let oldest = purge::oldest(kv, bucket.id)?;
    Ok(commit::point_at(kv, bucket.id, ns)?.filter(|point| *point >= oldest))
}

pub(super) fn commits(
    service: &Service,
    identity: &Identity,
    params: CommitListParams,
) -> Result<CommitListResult, RpcError> {
    let limit = check::page(params.limit)?;
    service.metadata.read(|kv| {
        let bucket = find_bucket(kv, identity, Need::Read, &params.bucket)?;
        let newest = params
            .before
            .map_or(bucket.head, |before| before.saturating_sub(1).min(bucket.head));
        let oldest = purge::oldest(kv, bucket.id)?;
        let commits = commit::list(kv, bucket.id, oldest..=newest, limit)?;
        Ok(CommitListResult {
            commits: commits.into_iter().map(info).collect(),
        })
    })
}

fn info(commit: Commit) -> CommitInfo {
    CommitInfo {
        point: commit.point,
        time: time(commit.info.time_ns),
        committed: time(commit.info.committed_ns),
        source: commit.info.source,
        epoch: commit.info.epoch,
        first: commit.info.first,
        last: commit.info.last,
        exact: commit.info.exact,
        resync: commit.info.resync,
        ops: commit.ops,
        objects: commit.totals.objects,
        bytes: commit.totals.bytes,
    }
}

pub(super) fn time(ns: i64) -> restfs_lib::wire::values::Time {
    Time::from_ns(ns.into()).into()
}

fn too_early(kv: &dyn KvRead, bucket: &Bucket, at: &str) -> RpcError {
    let mut text = format!("bucket `{}` has no recovery point as old as {at}", bucket.name);
    if let Ok(floor @ 2..) = purge::oldest(kv, bucket.id) {
        text += &format!("; points below {floor} were purged");
    }
    RpcError::new(Code::NotFound, text)
}

/// For the fuzz targets.
pub(crate) fn fuzz(text: &str) {
    for now_ns in [0, i64::MAX, i64::MIN] {
        if let Err(error) = parse(text, now_ns) {
            assert!(error.message.len() < 1024, "{error}");
        }
    }
}

pub(super) fn parse(text: &str, now_ns: i64) -> Result<PointText, RpcError> {
    let wrong = || {
        let shown: String = text.chars().take(MAX_POINT_TEXT).collect();
        RpcError::invalid_params(format!(
            "{shown:?} is no point: `latest`, a number, a time such as 2026-11-20T14:00:00+01:00, or -2h (s, m, h, d, w)"
        ))
    };
    if text.len() > MAX_POINT_TEXT {
        return Err(wrong());
    }
    if text == "latest" {
        return Ok(PointText::Latest);
    }
    if let Ok(number) = text.parse() {
        return Ok(PointText::Number(number));
    }
    if let Some(ago) = text.strip_prefix('-') {
        let seconds = seconds(ago).ok_or_else(wrong)?;
        return Ok(PointText::Time(
            now_ns.saturating_sub(seconds.saturating_mul(1_000_000_000)),
        ));
    }
    let time: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
    // Beyond the years of records, it is before or after all of them.
    let ns = time.as_nanosecond().clamp(i64::MIN.into(), i64::MAX.into());
    Ok(PointText::Time(ns as i64))
}

/// `90s`, `2h`.
fn seconds(text: &str) -> Option<i64> {
    let unit = text.chars().last()?;
    let scale = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return None,
    };
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<i64>().ok()?.checked_mul(scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: i64 = 1_800_000_000_000_000_000;

    proptest! {
        #[test]
        fn a_number_is_the_point_of_that_number(number: u64) {
            prop_assert_eq!(parse(&number.to_string(), NOW).ok(), Some(PointText::Number(number)));
        }

        /// However it is written: with any part of a second, and with the offset of any place.
        #[test]
        fn a_time_is_the_same_moment_everywhere(ns: i64, digits in 0u8..=9, minutes in -25 * 60..=25 * 60i32) {
            let ns = ns - ns.rem_euclid(10i64.pow(9 - u32::from(digits)));
            let time = jiff::Timestamp::from_nanosecond(ns.into()).expect("a year of records");
            let place = jiff::tz::Offset::from_seconds(minutes * 60).expect("a day and an hour at most");
            for text in [format!("{time:.*}", digits.into()), format!("{:.*}", digits.into(), time.display_with_offset(place))] {
                prop_assert_eq!(parse(&text, NOW).ok(), Some(PointText::Time(ns)), "{}", text);
            }
        }

        #[test]
        fn a_time_ago_is_counted_from_now(now: i64, number in 0..i64::MAX, shift in 0u32..63, unit in 0usize..5) {
            let (number, (unit, seconds)) = (number >> shift, [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400), ("w", 604_800)][unit]);
            let expected = number.checked_mul(seconds).map(|seconds| {
                // What is longer ago than the clock can say is at its beginning.
                let ago = (i128::from(seconds) * 1_000_000_000).min(i64::MAX.into());
                PointText::Time((i128::from(now) - ago).max(i64::MIN.into()) as i64)
            });
            prop_assert_eq!(parse(&format!("-{number}{unit}"), now).ok(), expected);
        }

        #[test]
        fn any_text_is_a_point_or_an_error_that_is_short(text in ".{0,80}", now: i64) {
            if let Err(error) = parse(&text, now) {
                prop_assert!(error.message.contains("is no point") && error.message.len() < 1024);
            }
        }
    }

    #[test]
    fn points_are_read_as_people_write_them() {
        let point = |text| parse(text, NOW).ok();
        assert_eq!(point("latest"), Some(PointText::Latest));
        assert_eq!(point("17"), Some(PointText::Number(17)));
        assert_eq!(point("-2h"), Some(PointText::Time(NOW - 7_200_000_000_000)));
        assert_eq!(point("-90s"), Some(PointText::Time(NOW - 90_000_000_000)));
        assert_eq!(
            point("1970-01-01T01:00:01+01:00"),
            Some(PointText::Time(1_000_000_000))
        );
        assert_eq!(
            point("1970-01-01T00:00:00.5Z"),
            Some(PointText::Time(500_000_000))
        );
    }

    #[test]
    fn what_is_no_point_says_what_would_be() {
        for bad in [
            "",
            "-",
            "-h",
            "-2",
            "-2y",
            "--2h",
            "yesterday",
            "2026-11-20",
            "-99999999999999999999w",
        ] {
            let error = parse(bad, NOW).unwrap_err();
            assert!(error.message.contains("is no point"), "{bad}");
        }
    }
}
