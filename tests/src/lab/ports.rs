//! Free TCP ports on loopback.

use anyhow::{Context, Result};
use std::net::{Ipv4Addr, TcpListener};

/// A port that was free a moment ago. smbd and restfs take a number, not a listening socket, so another program may
/// take it in between; then the server's start fails with a text that says so.
pub(super) fn free() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on loopback")?;
    Ok(listener.local_addr()?.port())
}
