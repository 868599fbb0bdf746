//! Programs that benchmarks run.

use anyhow::{Context, Result, bail};
use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use vfsx_tests::wait;

/// How long a server may take until it answers.
const READY_LIMIT: Duration = Duration::from_secs(20);

/// A server process that ends with this value.
pub(super) struct Server(Child);

impl Server {
    pub(super) fn start(command: &mut Command, port: u16) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut server = Self(child.with_context(|| format!("start {name}"))?);
        let started = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = server.0.try_wait()? {
                bail!("{name} ended at its start ({status})");
            }
            if started.elapsed() > READY_LIMIT {
                bail!("{name} does not answer on port {port}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Waits until `server` listens on a port of loopback, without connecting to it.
pub(super) fn wait_until_listening(server: &mut Child, port: u16) -> Result<()> {
    wait::until(
        "a listening server",
        READY_LIMIT,
        || (listens(port) || !matches!(server.try_wait(), Ok(None))).then_some(()),
        || format!("port {port}"),
    )?;
    match server.try_wait()? {
        None => Ok(()),
        Some(status) => bail!("the server ended at its start ({status})"),
    }
}

/// From the kernel's list: local address and state (0A: listening) are the second and fourth word of a line.
fn listens(port: u16) -> bool {
    let address = format!(":{port:04X}");
    let list = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    list.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|local| local.ends_with(&address)) && words.nth(1) == Some("0A")
    })
}

/// Standard output of a program that must succeed.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {name}"))?;
    if !output.status.success() {
        bail!(
            "{name} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
