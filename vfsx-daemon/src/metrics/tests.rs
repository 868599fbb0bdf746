//! The page says what the status says.

use super::page;
use crate::control::share_report;
use crate::draw::{Draw, draw};
use crate::engine::VerifyReport;
use crate::status::{ModulesReport, SpaceReport, StatusReport};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;

/// Series with share and site, the place in the site's status, and how many of its units are one of the series'.
const OF_SITES: [(&str, &str, f64); 8] = [
    ("rpo_seconds", "rpo_ms", 1000.0),
    ("lag_p50_seconds", "lag_ms_p50", 1000.0),
    ("lag_p99_seconds", "lag_ms_p99", 1000.0),
    ("pending_changes", "pending_ops", 1.0),
    ("pending_bytes", "pending_bytes", 1.0),
    ("wire_bytes_total", "wire_bytes", 1.0),
    ("commits_total", "commits", 1.0),
    ("mismatches_total", "mismatches", 1.0),
];
const OF_ALL: [(&str, &str); 6] = [
    ("state_dir_free_bytes{path=\"/state\"}", "/space/free_bytes"),
    ("state_dir_warn_bytes{path=\"/state\"}", "/space/warn_bytes"),
    ("state_dir_reserve_bytes{path=\"/state\"}", "/space/reserve_bytes"),
    ("sessions_max{}", "/modules/sessions_max"),
    ("sessions_turned_away_total{}", "/modules/turned_away"),
    ("accept_failures_total{}", "/modules/accept_failures"),
];
const STATES: [&str; 4] = ["in-sync", "full", "gap", "failed"];

fn report(draw: &mut Draw) -> StatusReport {
    let mut report = StatusReport {
        version: String::new(),
        space: draw.maybe(|draw| SpaceReport {
            path: "/state".into(),
            level: draw.one_of(&["ok", "low", "full"]).to_owned(),
            free_bytes: draw.u64(),
            warn_bytes: draw.u64(),
            reserve_bytes: draw.u64(),
        }),
        modules: draw.maybe(|draw| ModulesReport {
            sessions: draw.usize(),
            sessions_max: draw.usize(),
            turned_away: draw.u64(),
            accept_failures: draw.u64(),
        }),
        shares: draw.some(share_report),
    };
    for (number, share) in report.shares.iter_mut().enumerate() {
        share.name = format!("share{number}");
        // Its counts are added up, and what is drawn is more than fits.
        share.verify = VerifyReport::default();
        for (number, site) in share.sites.iter_mut().enumerate() {
            site.name = format!("site{number}");
            site.state = draw.one_of(&STATES).to_owned();
        }
    }
    report
}

/// By name with labels.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        let name = name.strip_prefix("vfsx_").expect("is ours");
        (name.to_owned(), value.parse().expect("a number"))
    };
    lines.map(sample).collect()
}

proptest! {
    #[test]
    fn each_number_is_that_of_the_status_and_absent_where_that_knows_none(mut draw in draw()) {
        let report = report(&mut draw);
        let samples = samples(&page(&report));
        let status = serde_json::to_value(&report).expect("encodes");
        for share in &report.shares {
            for site in &share.sites {
                let told = serde_json::to_value(site).expect("encodes");
                let labels = format!("share=\"{}\",site=\"{}\"", share.name, site.name);
                for (series, key, unit) in OF_SITES {
                    let expected = told[key].as_u64().map(|value| value as f64 / unit);
                    let found = samples.get(&format!("site_{series}{{{labels}}}"));
                    prop_assert_eq!(found, expected.as_ref(), "{}", series);
                }
                for state in STATES {
                    let found = samples[&format!("site_state{{{labels},state=\"{state}\"}}")];
                    prop_assert_eq!(found, f64::from(u8::from(site.state == state)), "{}", state);
                }
            }
        }
        for (series, pointer) in OF_ALL {
            let expected = status.pointer(pointer).and_then(Value::as_u64).map(|value| value as f64);
            prop_assert_eq!(samples.get(series), expected.as_ref(), "{}", series);
        }
        if let Some(space) = &report.space {
            for level in ["ok", "low", "full"] {
                let found = samples[&format!("state_dir_level{{path=\"/state\",level=\"{level}\"}}")];
                prop_assert_eq!(found, f64::from(u8::from(space.level == level)));
            }
        }
    }
}
