//! A relay in front of a site that counts what goes through: bytes on the wire, seen from outside.

use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Runs as long as the program; ends with it.
#[derive(Debug)]
pub struct Relay {
    pub port: u16,
    bytes: Arc<AtomicU64>,
}

impl Relay {
    /// Takes connections for the server at `port` of this machine.
    pub fn start(port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("relay")?;
        let own = listener.local_addr()?.port();
        let bytes = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&bytes);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is gone: the client sees its connection end.
                if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
                    let _ = pass_both_ways(&client, &server, &count);
                }
            }
        });
        Ok(Self { port: own, bytes })
    }

    /// Bytes passed on so far, both directions.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn pass_both_ways(client: &TcpStream, server: &TcpStream, count: &Arc<AtomicU64>) -> std::io::Result<()> {
    for (from, to) in [(client, server), (server, client)] {
        let (from, to, count) = (from.try_clone()?, to.try_clone()?, Arc::clone(count));
        to.set_nodelay(true)?;
        thread::spawn(move || pass(from, to, &count));
    }
    Ok(())
}

fn pass(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        count.fetch_add(length as u64, Ordering::Relaxed);
        let Some(read) = buffer.get(..length) else { break };
        if to.write_all(read).is_err() {
            break;
        }
    }
    // Whoever is still there learns that the other one is not.
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
