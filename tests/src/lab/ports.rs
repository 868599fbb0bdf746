//! Free TCP ports on loopback.

use anyhow::{Result, bail};
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

/// Below the ports that the kernel gives to outgoing connections (from 32768 on), so that none of those takes the port
/// before the server does.
const FIRST: u16 = 20_000;
const COUNT: u64 = 12_000;
const TRIES: u32 = 200;

/// A port that is free now. smbd and restfs take a number, not a listening socket, so another server may take it
/// before them; then the start fails with a text that says so.
pub(super) fn free() -> Result<u16> {
    for attempt in 0..TRIES {
        // Random, so that labs that start at the same time do not choose the same one.
        let chosen = FIRST + (RandomState::new().hash_one(attempt) % COUNT) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, chosen)).is_ok() {
            return Ok(chosen);
        }
    }
    bail!("no free port on loopback from {FIRST} on, after {TRIES} tries")
}
