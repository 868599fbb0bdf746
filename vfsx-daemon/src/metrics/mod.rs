//! The status as Prometheus reads it: one page of text, and the port that gives it out.

mod page;
mod server;

#[cfg(test)]
mod tests;

pub use page::page;
pub use server::MetricsServer;
