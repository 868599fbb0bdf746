//! How long after a client's close a file can be read at the recovery site.

use crate::lab::{Lab, Site};
use crate::rpc::Rpc;
use crate::smb::Session;
use crate::wait;
use anyhow::Result;
use std::time::{Duration, Instant};

/// Bytes of each file.
const FILE: usize = 4096;
/// A file that is not at the site by then is an error, not a slow one.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks: a small part of what is measured.
const STEP: Duration = Duration::from_millis(1);

/// Times from the return of the client's close until a client of the site reads the content: the commit is durable
/// then. One file at a time, so the link is idle at each close.
#[derive(Debug, Clone)]
pub struct Lag {
    sorted: Vec<Duration>,
}

impl Lag {
    /// Writes `count` small files into the new directory `folder` of share `data`.
    pub fn measure(lab: &Lab, site: &Site, folder: &str, count: usize) -> Result<Self> {
        crate::smb::SmbClient::new(lab, "data").run(&[format!("mkdir {folder}")])?;
        let mut session = Session::connect(lab, "data")?;
        let mut rpc = Rpc::connect(site)?;
        let mut sorted = Vec::with_capacity(count);
        for number in 0..count {
            let path = format!("{folder}/{number}");
            let content = super::random::Random(number as u64).bytes(FILE);
            let handle = session.create(&path, "create")?;
            session.write(handle, 0, &content)?;
            session.close(handle)?;
            let closed = Instant::now();
            wait_for(&mut rpc, &path, &content)?;
            sorted.push(closed.elapsed());
        }
        sorted.sort();
        Ok(Self { sorted })
    }

    pub fn files(&self) -> usize {
        self.sorted.len()
    }

    /// The time that `part` of all files (0 to 1) did not exceed, in milliseconds.
    pub fn quantile_ms(&self, part: f64) -> f64 {
        let last = self.sorted.len().saturating_sub(1);
        let at = (part * self.sorted.len() as f64).ceil() as usize;
        let time = self
            .sorted
            .get(at.saturating_sub(1).min(last))
            .copied()
            .unwrap_or_default();
        (time.as_secs_f64() * 10_000.0).round() / 10.0
    }
}

fn wait_for(rpc: &mut Rpc, path: &str, content: &[u8]) -> Result<()> {
    let there = || match rpc.read(path, content.len()) {
        Ok(found) => (found.as_deref() == Some(content)).then_some(Ok(())),
        Err(error) => Some(Err(error)),
    };
    wait::until_often(STEP, &format!("{path} at the site"), LIMIT, there, String::new)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_taken_from_the_right_end() {
        let lag = Lag {
            sorted: (1..=1000).map(Duration::from_millis).collect(),
        };
        assert_eq!(lag.quantile_ms(0.5), 500.0);
        assert_eq!(lag.quantile_ms(0.99), 990.0);
        assert_eq!(lag.quantile_ms(1.0), 1000.0);
    }
}
