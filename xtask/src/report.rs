//! What a person reads while a long command works.

use anyhow::Error;
use std::time::Instant;

/// Lines with the time since the start.
pub struct Report {
    start: Instant,
}

impl Report {
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    pub fn section(&self, title: &str) {
        println!("\n{title}");
    }

    pub fn line(&self, text: impl AsRef<str>) {
        println!("{:7.1} s  {}", self.start.elapsed().as_secs_f32(), text.as_ref());
    }
}

/// An error with its causes in one line.
pub fn one_line(error: &Error) -> String {
    format!("{error:#}")
}

/// Bytes for people.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while value >= 1024.0 && units.len() > 0 {
        value /= 1024.0;
        unit = units.next();
    }
    format!("{value:.1} {}", unit.unwrap_or(&"TiB"))
}
