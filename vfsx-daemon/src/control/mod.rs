//! The control socket: what `vfsxctl` asks of a running vfsxd.
//!
//! One request per connection, as a line of JSON; replies are lines of JSON, progress first, then the outcome.

mod commands;
mod protocol;
mod server;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::share_report;

pub use protocol::{Done, Progress, Reply, Request};
pub use server::ControlServer;
