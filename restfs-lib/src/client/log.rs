//! What of the libraries below may be in a program's log.

use tracing::{Level, Metadata};

/// The WebSocket library writes down whole handshakes and messages: tokens, and content of files.
const TELL_ALL: [&str; 2] = ["tungstenite", "tokio_tungstenite"];

/// To be asked by every program that has a client or a server, whatever the level of its log.
pub fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    let library = metadata.target().split("::").next().unwrap_or_default();
    !TELL_ALL.contains(&library) || *metadata.level() <= Level::INFO
}
