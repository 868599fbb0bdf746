//! What happens when: the rows of the fault table (`docs/faults.md`) that no other test shows, each named after its row.

mod failover;
mod power;
mod primary;
mod share;
mod site;

use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;
use std::time::Duration;
use vfsx_tests::lab::Lab;
use vfsx_tests::relay::Relay;
use vfsx_tests::smb::Session;
use vfsx_tests::testlab::TestLab;

/// Until something is noticed: sites that are gone or full are tried again within 30 s, trees at rest are compared every 15 s.
const NOTICED_WITHIN: Duration = Duration::from_secs(60);

/// Puts a relay between vfsxd and a site, which counts what goes through. For a vfsxd that is started afterwards.
fn relay(lab: &Lab, site: &str) -> Result<Relay> {
    let url = &lab.site(site)?.description.url;
    let (host, port) = url.rsplit_once(':').context("a url with a port")?;
    let relay = Relay::start(port.parse()?)?;
    let config = &lab.description.vfsxd.config;
    let text = fs::read_to_string(config)?;
    fs::write(config, text.replace(url, &format!("{host}:{}", relay.port)))?;
    Ok(relay)
}

/// New files of random bytes, from number `from` on.
fn put_files(session: &mut Session, prefix: &str, from: u64, count: u64, bytes: u64) -> Result<()> {
    for number in from..from + count {
        let handle = session.create(&format!("{prefix} {number}"), "create")?;
        session.fill(handle, 0, bytes, number)?;
        session.close(handle)?;
    }
    Ok(())
}

/// The status says how far the site is, or that it cannot be known.
fn state(lab: &TestLab, site: &str) -> Result<String> {
    let status = lab.site_status(site)?;
    let state = status.get("state").and_then(Value::as_str);
    Ok(state.context("a site without state")?.to_owned())
}

fn number(status: &Value, pointer: &str) -> Result<u64> {
    let found = status.pointer(pointer).and_then(Value::as_u64);
    found.with_context(|| format!("no number {pointer} in {status}"))
}
