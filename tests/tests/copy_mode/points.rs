//! A site's recovery points.

use super::bank;
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use vfsx_tests::lab::BUCKET;
use vfsx_tests::rpc::Rpc;
use vfsx_tests::testlab::TestLab;

/// Asked for at once.
const PAGE: u32 = 1000;
/// Points that are restored as an admin does; all others are looked at where they are.
const RESTORED: usize = 4;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    pub(crate) number: u64,
    pub(crate) exact: bool,
}

/// All points of the first site after point `after`, oldest first.
pub(crate) fn points(lab: &TestLab, after: u64) -> Result<Vec<Point>> {
    let mut rpc = Rpc::connect(lab.site("site1")?)?;
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let params = json!({ "bucket": BUCKET, "before": before, "limit": PAGE });
        let page = rpc.call("commit.list", params)?.map_err(|error| anyhow!(error))?;
        let commits = page
            .get("commits")
            .and_then(Value::as_array)
            .context("no commits")?;
        for commit in commits {
            let number = commit.get("point").and_then(Value::as_u64).context("no number")?;
            let exact = commit.get("exact").and_then(Value::as_bool).context("no mark")?;
            if number <= after {
                found.reverse();
                return Ok(found);
            }
            before = Some(number);
            found.push(Point { number, exact });
        }
        if commits.is_empty() {
            found.reverse();
            return Ok(found);
        }
    }
}

/// Every point that is marked as exact has numbers that the share had, in the order in which it had them. How many of `points`
/// that were, and the last numbers.
pub(crate) fn check(lab: &TestLab, points: &[Point]) -> Result<(usize, bank::Numbers)> {
    let site = lab.site("site1")?;
    let mut rpc = Rpc::connect(site)?;
    let (mut exact, mut last) = (Vec::new(), [0; bank::NUMBERS]);
    for point in points.iter().filter(|point| point.exact) {
        let Some(numbers) = bank::at_point(&mut rpc, point.number)? else {
            continue;
        };
        bank::check(&numbers).with_context(|| format!("point {}, marked as exact", point.number))?;
        let later = numbers.iter().zip(&last).all(|(now, before)| now >= before);
        ensure!(
            later,
            "point {} is before the one below it: {numbers:?} after {last:?}",
            point.number
        );
        last = numbers;
        exact.push((point.number, numbers));
    }
    let every = (exact.len() / RESTORED).max(1);
    for (point, numbers) in exact.iter().step_by(every) {
        let out = tempfile::Builder::new().prefix("vfsx-point-").tempdir()?;
        let out = out.path().join("tree");
        site.restore(Some(*point), &out)?;
        let restored = bank::in_directory(&out)?;
        ensure!(
            restored == *numbers,
            "point {point}: {restored:?} restored, {numbers:?} seen"
        );
    }
    Ok((exact.len(), last))
}
