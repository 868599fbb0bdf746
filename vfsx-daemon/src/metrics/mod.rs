//! The status as Prometheus reads it: one page of text, and the port that gives it out.

mod page;
mod server;

pub use page::page;
pub use server::MetricsServer;
