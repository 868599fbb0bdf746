//! Requests per second of the RPC interface under many clients.
//!
//! The load of the 2012 RestFS benchmark and of `redis-benchmark -t set,get`: each client has a connection of its own
//! and one request under way; first every request sets an attribute of an object, then every request gets one.

use crate::server::Server;
use anyhow::{Result, bail};
use bytes::Bytes;
use hdrhistogram::Histogram;
use restfs_lib::client::Client;
use restfs_lib::wire::values::ObjectAt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest time one request may take in the histogram: beyond it the client has given up long ago.
const SLOWEST: Duration = Duration::from_secs(600);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Its bucket's root object gets the attributes
    #[command(flatten)]
    server: Server,
    /// Connections, each with one request under way
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    clients: u64,
    /// Requests of each kind
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    requests: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    size: u64,
    /// Different attributes that the requests are spread over
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    keys: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Figures {
    requests: u64,
    seconds: f64,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

#[derive(serde::Serialize)]
struct Report {
    clients: u64,
    size: u64,
    keys: u64,
    set: Figures,
    get: Figures,
}

#[derive(Clone, Copy)]
enum Kind {
    Set,
    Get,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    let clients = arguments.server.connect(arguments.clients).await?;
    let set = phase(arguments, &clients, Kind::Set).await?;
    let get = phase(arguments, &clients, Kind::Get).await?;
    let report = Report {
        clients: arguments.clients,
        size: arguments.size,
        keys: arguments.keys,
        set,
        get,
    };
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
        return Ok(());
    }
    println!(
        "{:<4} {:>12} {:>10} {:>10} {:>10}",
        "", "requests/s", "p50 ms", "p99 ms", "max ms"
    );
    for (name, figures) in [("set", &report.set), ("get", &report.get)] {
        println!(
            "{name:<4} {:>12.0} {:>10.2} {:>10.2} {:>10.2}",
            figures.per_second, figures.p50_ms, figures.p99_ms, figures.max_ms
        );
    }
    Ok(())
}

async fn phase(arguments: &Arguments, clients: &[Client], kind: Kind) -> Result<Figures> {
    let next = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut tasks = Vec::new();
    for client in clients {
        let work = Work {
            client: client.clone(),
            bucket: arguments.server.bucket.clone(),
            kind,
            value: Bytes::from(vec![b'x'; usize::try_from(arguments.size)?]),
            keys: arguments.keys.min(arguments.requests),
            requests: arguments.requests,
            next: Arc::clone(&next),
        };
        tasks.push(tokio::spawn(work.run()));
    }
    let mut times = histogram()?;
    for task in tasks {
        times.add(task.await??)?;
    }
    let seconds = started.elapsed().as_secs_f64();
    if times.len() != arguments.requests {
        bail!("{} of {} requests were answered", times.len(), arguments.requests);
    }
    let ms = |micros: u64| micros as f64 / 1000.0;
    Ok(Figures {
        requests: arguments.requests,
        seconds,
        per_second: arguments.requests as f64 / seconds,
        p50_ms: ms(times.value_at_quantile(0.50)),
        p99_ms: ms(times.value_at_quantile(0.99)),
        max_ms: ms(times.max()),
    })
}

struct Work {
    client: Client,
    bucket: String,
    kind: Kind,
    value: Bytes,
    keys: u64,
    requests: u64,
    next: Arc<AtomicU64>,
}

impl Work {
    async fn run(self) -> Result<Histogram<u64>> {
        let mut times = histogram()?;
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.requests {
                return Ok(times);
            }
            let started = Instant::now();
            self.request(&format!("restfs.bench.{}", number % self.keys))
                .await?;
            let micros = u64::try_from(started.elapsed().as_micros())?;
            times.record(micros)?;
        }
    }

    async fn request(&self, name: &str) -> Result<()> {
        let root = ObjectAt::path("/");
        match self.kind {
            Kind::Set => {
                self.client
                    .set_attribute(&self.bucket, root, name.as_bytes(), self.value.clone())
                    .await?;
            }
            Kind::Get => {
                let value = self
                    .client
                    .get_attribute(&self.bucket, root, name.as_bytes())
                    .await?;
                if value != self.value {
                    bail!("attribute {name} came back with {} other bytes", value.len());
                }
            }
        }
        Ok(())
    }
}

fn histogram() -> Result<Histogram<u64>> {
    let slowest = u64::try_from(SLOWEST.as_micros())?;
    Ok(Histogram::new_with_bounds(1, slowest, 3)?)
}
