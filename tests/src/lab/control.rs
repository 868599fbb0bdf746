//! What a person asks the running lab: vfsxctl.

use super::Lab;
use crate::wait;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::process::{Command, Output};
use std::time::Duration;

impl Lab {
    /// Runs vfsxctl on this lab's vfsxd.
    pub fn vfsxctl(&self, arguments: &[&str]) -> Result<String> {
        let output = self.vfsxctl_output(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "vfsxctl {}: {}",
            arguments.join(" "),
            said.trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub fn vfsxctl_output(&self, arguments: &[&str]) -> Result<Output> {
        let argv = super::daemon::vfsxctl(&self.binaries, &self.description.vfsxd, arguments);
        let (program, rest) = argv.split_first().context("a command has a program")?;
        Command::new(program)
            .args(rest)
            .output()
            .with_context(|| format!("run {}", self.binaries.vfsxctl.display()))
    }

    /// Waits until everything done before is committed at `site`, or at every site.
    pub fn settle(&self, site: Option<&str>, limit: Duration) -> Result<()> {
        let limit = format!("{}s", limit.as_secs());
        let mut arguments = vec!["settle", "--timeout", &limit];
        arguments.extend(site.iter().flat_map(|site| ["--site", site]));
        self.vfsxctl(&arguments).map(drop)
    }

    /// What `vfsxctl status --json` says of share `data`.
    pub fn status(&self) -> Result<Value> {
        let text = self.vfsxctl(&["status", "--json"])?;
        let status: Value = serde_json::from_str(&text).with_context(|| format!("status: {text}"))?;
        let shares = status
            .get("shares")
            .and_then(Value::as_array)
            .context("status without shares")?;
        let data = shares
            .iter()
            .find(|share| share.get("name").and_then(Value::as_str) == Some("data"));
        data.cloned()
            .with_context(|| format!("status without share data: {text}"))
    }

    /// What the status says of one site of share `data`.
    pub fn site_status(&self, site: &str) -> Result<Value> {
        let status = self.status()?;
        let sites = status
            .get("sites")
            .and_then(Value::as_array)
            .context("status without sites")?;
        let found = sites
            .iter()
            .find(|entry| entry.get("name").and_then(Value::as_str) == Some(site));
        found
            .cloned()
            .with_context(|| format!("status without site {site}: {status}"))
    }

    /// Waits until the status says that of the site.
    pub fn wait_for_state(&self, site: &str, wanted: &str, limit: Duration) -> Result<()> {
        let is_so = || {
            let site = self.site_status(site).ok()?;
            (site.get("state")?.as_str() == Some(wanted)).then_some(())
        };
        let why = || format!("{:?}", self.site_status(site));
        wait::until(&format!("state {wanted} of {site}"), limit, is_so, why)
    }

    /// Bytes on the wire to and from `site` since vfsxd's start.
    pub fn wire_bytes(&self, site: &str) -> Result<u64> {
        let status = self.site_status(site)?;
        status
            .get("wire_bytes")
            .and_then(Value::as_u64)
            .context("status without wire_bytes")
    }

    /// Bytes that vfsxd has read from share `data` since its start.
    pub fn share_bytes_read(&self) -> Result<u64> {
        let status = self.status()?;
        status
            .pointer("/catalog/bytes_read")
            .and_then(Value::as_u64)
            .context("status without bytes_read")
    }
}
