//! Content that clients write: each into a file of its own, one request of 1 MiB under way, answered when it is durable.

use crate::server::Server;
use anyhow::Result;
use restfs_lib::client::Client;
use restfs_lib::wire::Content;
use restfs_lib::wire::method::Edit;
use restfs_lib::wire::values::ObjectAt;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Bytes of a block, as buckets have them by default.
const BLOCK: usize = 64 * 1024;
const BLOCKS_PER_REQUEST: usize = 16;
const REQUEST: u64 = (BLOCK * BLOCKS_PER_REQUEST) as u64;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    server: Server,
    /// Clients, each with a connection and a file
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    clients: u64,
    /// MiB of all clients together; without, until standard input ends
    #[arg(long)]
    mib: Option<u64>,
    /// The files' names begin with this
    #[arg(long)]
    name: String,
    /// The files are there: of each four blocks the last three are written anew
    #[arg(long)]
    three_of_four: bool,
}

#[derive(serde::Serialize)]
struct Report {
    bytes: u64,
    seconds: f64,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    let clients = arguments.server.connect(arguments.clients).await?;
    let over = Arc::new(AtomicBool::new(false));
    if arguments.mib.is_none() {
        let over = Arc::clone(&over);
        // A thread of its own: reading is not ended by the end of the load.
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            over.store(true, Ordering::Relaxed);
        });
    }
    let requests = arguments
        .mib
        .map(|mib| (mib << 20).div_ceil(REQUEST * arguments.clients));
    let mut writers = Vec::new();
    for (number, client) in clients.into_iter().enumerate() {
        let path = format!("/{}-{number}", arguments.name);
        if !arguments.three_of_four {
            let create = Edit::Create {
                path: path.as_str().into(),
                mode: 0o600,
            };
            client.apply(&arguments.server.bucket, vec![create]).await?;
        }
        writers.push(Writer {
            client,
            bucket: arguments.server.bucket.clone(),
            object: ObjectAt::path(path.as_str()),
            noise: noise(&path),
            three_of_four: arguments.three_of_four,
        });
    }
    let started = Instant::now();
    let running: Vec<_> = writers
        .into_iter()
        .map(|writer| tokio::spawn(writer.run(requests, Arc::clone(&over))))
        .collect();
    let mut bytes = 0;
    for writer in running {
        bytes += writer.await??;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{}", serde_json::to_string(&Report { bytes, seconds })?);
    Ok(())
}

/// Content that nobody else has, in this run or another.
fn noise(path: &str) -> blake3::OutputReader {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    blake3::Hasher::new()
        .update(path.as_bytes())
        .update(&now.unwrap_or_default().as_nanos().to_le_bytes())
        .finalize_xof()
}

struct Writer {
    client: Client,
    bucket: String,
    object: ObjectAt,
    noise: blake3::OutputReader,
    three_of_four: bool,
}

impl Writer {
    /// How many bytes were written.
    async fn run(mut self, requests: Option<u64>, over: Arc<AtomicBool>) -> Result<u64> {
        let mut bytes = 0;
        for request in 0..requests.unwrap_or(u64::MAX) {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let edits = self.edits(request * REQUEST);
            bytes += edits.iter().map(length).sum::<u64>();
            self.client.apply(&self.bucket, edits).await?;
        }
        Ok(bytes)
    }

    fn edits(&mut self, offset: u64) -> Vec<Edit> {
        if !self.three_of_four {
            return vec![self.write(offset, BLOCKS_PER_REQUEST)];
        }
        (0..BLOCKS_PER_REQUEST / 4)
            .map(|four| self.write(offset + ((4 * four + 1) * BLOCK) as u64, 3))
            .collect()
    }

    fn write(&mut self, offset: u64, blocks: usize) -> Edit {
        let mut content = vec![0; blocks * BLOCK];
        self.noise.fill(&mut content);
        Edit::Write {
            object: self.object.clone(),
            offset,
            content: Content(content.into()),
        }
    }
}

fn length(edit: &Edit) -> u64 {
    match edit {
        Edit::Write { content, .. } => content.0.len() as u64,
        _ => 0,
    }
}
