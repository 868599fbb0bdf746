//! What the demo found.

use super::big_file::Shipped;
use serde_json::{Value, json};
use vfsx_tests::compare::Report;
use vfsx_tests::work::Lag;

pub struct Outcome {
    /// Newest state after the work, against the share.
    pub now: Report,
    /// The earlier point against the copy made then.
    pub past: Report,
    /// Newest state at the end, with the many small files and the big one, against the share.
    pub end: Report,
    pub lag: Lag,
    pub big: Shipped,
}

impl Outcome {
    pub fn identical(&self) -> bool {
        [&self.now, &self.past, &self.end]
            .iter()
            .all(|report| report.identical)
    }

    /// `changed_bytes` and `wire_bytes` are those of the small writes into the big file: what they wrote, and what went
    /// over the wire for it.
    pub fn json(&self) -> Value {
        json!({
            "files": self.end.files,
            "bytes": self.end.bytes,
            "identical": self.identical(),
            "lag_ms_p50": self.lag.quantile_ms(0.5),
            "lag_ms_p99": self.lag.quantile_ms(0.99),
            "changed_bytes": self.big.changed,
            "wire_bytes": self.big.wire,
            "block_bytes": self.big.blocks,
            "read_bytes": self.big.read,
        })
    }
}
