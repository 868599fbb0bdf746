//! Requests of many clients at a RestFS server, beside redis.

use super::process::{Server, free_port, output};
use super::site::Site;
use crate::build::Profile;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The load of the 2012 RestFS benchmark.
const CLIENTS: u32 = 50;
const REQUESTS: u32 = 100_000;
const QUICK_REQUESTS: u32 = 10_000;
const VALUE_BYTES: u32 = 256;

#[derive(Serialize)]
pub(super) struct Row {
    name: &'static str,
    /// What an answer to `set` promises.
    durable: &'static str,
    set_per_second: f64,
    get_per_second: f64,
}

#[derive(Serialize)]
pub(super) struct Report {
    clients: u32,
    requests: u32,
    value_bytes: u32,
    rows: Vec<Row>,
}

pub(super) const PACKAGES: &[&str] = &["redis-server", "redis-tools"];

pub(super) fn run(quick: bool, profile: Profile) -> Result<Report> {
    let requests = if quick { QUICK_REQUESTS } else { REQUESTS };
    let scratch = tempfile::tempdir().context("scratch directory")?;
    let report = Report {
        clients: CLIENTS,
        requests,
        value_bytes: VALUE_BYTES,
        rows: vec![
            restfs(scratch.path(), requests, profile)?,
            redis(
                scratch.path(),
                requests,
                "redis, appendfsync always",
                "on disk",
                &["--appendonly", "yes", "--appendfsync", "always"],
            )?,
            redis(
                scratch.path(),
                requests,
                "redis, no persistence",
                "in memory",
                &["--appendonly", "no"],
            )?,
        ],
    };
    print(&report);
    Ok(report)
}

fn print(report: &Report) {
    println!(
        "\n{} clients, {} set and {} get requests of {} bytes, one connection and one request under way each",
        report.clients, report.requests, report.requests, report.value_bytes
    );
    println!("{:<30} {:<10} {:>12} {:>12}", "", "set is", "set/s", "get/s");
    for row in &report.rows {
        println!(
            "{:<30} {:<10} {:>12.0} {:>12.0}",
            row.name, row.durable, row.set_per_second, row.get_per_second
        );
    }
    if let [restfs, peers @ ..] = &*report.rows {
        for peer in peers {
            println!(
                "restfs / {:<21} {:<10} {:>11.2}x {:>11.2}x",
                peer.name.trim_start_matches("redis, "),
                "",
                restfs.set_per_second / peer.set_per_second,
                restfs.get_per_second / peer.get_per_second
            );
        }
    }
}

fn restfs(scratch: &Path, requests: u32, profile: Profile) -> Result<Row> {
    let site = Site::start(scratch, profile)?;
    let text = output(
        site.load("requests")
            .args(["--json", "--clients", &CLIENTS.to_string()])
            .args(["--requests", &requests.to_string()])
            .args(["--size", &VALUE_BYTES.to_string()]),
    )?;
    let figures: serde_json::Value = serde_json::from_str(&text).context("figures of restfs-bench")?;
    let per_second = |kind: &str| {
        figures[kind]["per_second"]
            .as_f64()
            .context("figures of restfs-bench")
    };
    Ok(Row {
        name: "restfs",
        durable: "on disk",
        set_per_second: per_second("set")?,
        get_per_second: per_second("get")?,
    })
}

fn redis(
    scratch: &Path,
    requests: u32,
    name: &'static str,
    durable: &'static str,
    options: &[&str],
) -> Result<Row> {
    let port = free_port()?;
    let dir = scratch.join(format!("redis-{port}"));
    fs::create_dir(&dir)?;
    let _server = Server::start(
        Command::new("redis-server")
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--dir",
            ])
            .arg(&dir)
            .args(options),
        port,
    )?;
    let text = output(
        Command::new("redis-benchmark")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &port.to_string(),
                "-t",
                "set,get",
                "--csv",
            ])
            .args([
                "-n",
                &requests.to_string(),
                "-c",
                &CLIENTS.to_string(),
                "-d",
                &VALUE_BYTES.to_string(),
            ]),
    )?;
    Ok(Row {
        name,
        durable,
        set_per_second: redis_figure(&text, "SET")?,
        get_per_second: redis_figure(&text, "GET")?,
    })
}

/// Second column of the line of a test in `redis-benchmark --csv`.
fn redis_figure(csv: &str, test: &str) -> Result<f64> {
    let prefix = format!("\"{test}\",\"");
    let rest = csv.lines().find_map(|line| line.strip_prefix(&prefix));
    let figure = rest
        .and_then(|rest| rest.split('"').next())
        .and_then(|text| text.parse().ok());
    figure.with_context(|| format!("redis-benchmark printed no figure for {test}:\n{csv}"))
}
