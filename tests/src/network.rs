//! Network namespaces: one of the primary and one of each recovery site, with a link between them that can be cut in each
//! direction, slow, late and lossy. Nothing is changed in the namespace that the test runs in.

use crate::guard::Guard;
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

const MAKE: &str = r#"
for name in $NAMES; do
    ip netns add "$name" && ip -n "$name" link set lo up || return 1
done
"#;
/// What still runs there would keep the namespace.
const REMOVE: &str = r#"
for name in $NAMES; do
    pids=$(ip netns pids "$name") && [ -z "$pids" ] || kill -9 $pids 2>/dev/null
    ip netns delete "$name"
done
"#;
const LINK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/link.py");
const PYTHON: &str = "/usr/bin/python3";
/// Names of a link's devices, each in its namespace.
const TO_PRIMARY: &str = "primary";
/// A slow line: 64 kbit/s, as over an old modem. `burst` holds some packets of 1,500 bytes; what would wait longer than
/// `latency` is dropped.
const SLOW: [&str; 7] = ["tbf", "rate", "64kbit", "burst", "5kb", "latency", "2s"];

/// One direction of a link.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Way {
    /// Nothing arrives, and nobody is told.
    pub cut: bool,
    pub delay_ms: u32,
    /// Part of the packets that do not arrive, 0 to 1.
    pub loss: f64,
}

impl Way {
    pub const CUT: Self = Self {
        cut: true,
        delay_ms: 0,
        loss: 0.0,
    };
}

/// What a link is like. `there` is from the primary to the site.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Condition {
    pub there: Way,
    pub back: Way,
    /// Both directions are at 64 kbit/s.
    #[serde(skip)]
    pub slow: bool,
}

/// The namespaces, which go when this value is dropped or this process ends in any other way.
#[derive(Debug)]
pub struct Network {
    name: String,
    links: Vec<Link>,
    // After the links: fields are dropped in this order.
    _guard: Guard,
}

#[derive(Debug)]
struct Link {
    relay: Child,
    line: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Network {
    /// Needs root, iproute2 and `/dev/net/tun`. `seed` chooses which packets are lost.
    pub fn make(sites: usize, seed: u64) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("vfsx-{}-{count}", std::process::id());
        let names: Vec<_> = (0..=sites).map(|number| format!("{name}-{number}")).collect();
        let guard = Guard::new(MAKE, REMOVE, &[("NAMES", OsStr::new(&names.join(" ")))])
            .context("make network namespaces (package iproute2)")?;
        let mut network = Self {
            name,
            links: Vec::new(),
            _guard: guard,
        };
        for site in 1..=sites {
            let link = network
                .link(site, seed)
                .with_context(|| format!("link to site {site}"))?;
            network.links.push(link);
        }
        Ok(network)
    }

    /// What a command line begins with to run at the primary.
    pub fn at_primary(&self) -> Vec<String> {
        self.inside(0)
    }

    /// The same for a site, from 1 on.
    pub fn at_site(&self, site: usize) -> Vec<String> {
        self.inside(site)
    }

    /// Of the site as the primary sees it.
    pub fn address(site: usize) -> Ipv4Addr {
        end(site, 2)
    }

    /// Makes the link to a site, from 1 on, what `condition` says.
    pub fn set(&self, site: usize, condition: Condition) -> Result<()> {
        let link = self
            .links
            .get(site.wrapping_sub(1))
            .with_context(|| format!("no site {site}"))?;
        link.tell(&serde_json::to_string(&condition)?)?;
        for (namespace, device) in [(0, to_site(site)), (site, TO_PRIMARY.to_owned())] {
            self.shape(namespace, &device, condition.slow)?;
        }
        Ok(())
    }

    fn shape(&self, namespace: usize, device: &str, slow: bool) -> Result<()> {
        let namespace = self.namespace(namespace);
        let words = ["-n", &namespace, "qdisc"];
        let output = if slow {
            tc(&[&words[..], &["replace", "dev", device, "root"], &SLOW].concat())?
        } else {
            let shown = tc(&[&words[..], &["show", "dev", device]].concat())?;
            if !String::from_utf8_lossy(&shown.stdout).contains("tbf") {
                return Ok(());
            }
            tc(&[&words[..], &["delete", "dev", device, "root"]].concat())?
        };
        ensure!(
            output.status.success(),
            "tc: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    fn link(&self, site: usize, seed: u64) -> Result<Link> {
        let mut relay = Command::new(PYTHON)
            .args(["-B", LINK, &format!("{seed}-{site}")])
            .args([self.namespace(0), to_site(site), end(site, 1).to_string()])
            .args([
                self.namespace(site),
                TO_PRIMARY.to_owned(),
                end(site, 2).to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("run {PYTHON}"))?;
        let input = relay.stdin.take().context("input of the link")?;
        let output = BufReader::new(relay.stdout.take().context("output of the link")?);
        let mut line = (input, output);
        hear(&mut line.1)?;
        Ok(Link {
            relay,
            line: Mutex::new(line),
        })
    }

    fn inside(&self, number: usize) -> Vec<String> {
        let net = format!("--net=/run/netns/{}", self.namespace(number));
        vec!["nsenter".to_owned(), net]
    }

    fn namespace(&self, number: usize) -> String {
        format!("{}-{number}", self.name)
    }
}

impl Link {
    fn tell(&self, words: &str) -> Result<()> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(line.0, "{words}").context("the link has ended; its message is above")?;
        hear(&mut line.1)
    }
}

fn hear(output: &mut impl BufRead) -> Result<()> {
    let mut answer = String::new();
    output.read_line(&mut answer)?;
    ensure!(answer.trim() == "ok", "the link has ended; its message is above");
    Ok(())
}

impl Drop for Link {
    fn drop(&mut self) {
        self.relay.kill().ok();
        self.relay.wait().ok();
    }
}

fn to_site(site: usize) -> String {
    format!("site{site}")
}

/// Each link is a network of its own. In namespaces of their own, the same addresses serve every test.
fn end(site: usize, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 213, u8::try_from(site).unwrap_or(u8::MAX), host)
}

fn tc(words: &[&str]) -> Result<std::process::Output> {
    Command::new("/usr/sbin/tc")
        .args(words)
        .output()
        .context("run tc (package iproute2)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// Whether the primary gets an answer from site 1 within a second, and when.
    fn answer(network: &Network) -> Option<Duration> {
        let mut words = network.at_primary();
        words.extend([PYTHON, "-c", ASK, &Network::address(1).to_string()].map(str::to_owned));
        let output = Command::new(&words[0]).args(&words[1..]).output().expect("ask");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.trim().parse().ok().map(Duration::from_secs_f64)
    }

    const ASK: &str = r#"
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
begun = time.monotonic()
s.sendto(b"x" * 1000, (sys.argv[1], 7777))
s.recv(2000)
print(time.monotonic() - begun)
"#;
    const ECHO: &str = r#"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 7777))
print("ready", flush=True)
while True:
    data, whom = s.recvfrom(2000)
    s.sendto(data, whom)
"#;

    fn echo(network: &Network) -> Child {
        let words = network.at_site(1);
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .args([PYTHON, "-c", ECHO])
            .stdout(Stdio::piped())
            .spawn()
            .expect("echo");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("output"))
            .read_line(&mut line)
            .expect("ready");
        child
    }

    #[test]
    fn a_link_is_what_it_was_told_to_be_and_nothing_is_left_of_it() {
        let network = Network::make(1, 1).expect("namespaces");
        let mut server = echo(&network);
        let with = |condition| {
            network.set(1, condition).expect("condition");
            answer(&network)
        };
        let late = Way {
            delay_ms: 200,
            ..Way::default()
        };
        let good = Condition::default();
        assert!(with(good).is_some_and(|took| took < Duration::from_millis(150)));
        let there = Condition {
            there: Way::CUT,
            ..good
        };
        assert_eq!(with(there), None);
        let back = Condition {
            back: Way::CUT,
            ..good
        };
        assert_eq!(with(back), None);
        let late = Condition { back: late, ..good };
        assert!(with(late).is_some_and(|took| took >= Duration::from_millis(200)));
        // 12 packets of 1,042 bytes: what goes beyond the burst of 5 KiB takes 920 ms at 64 kbit/s. Told once: the burst begins
        // anew each time.
        let slow = Condition { slow: true, ..good };
        network.set(1, slow).expect("condition");
        let begun = Instant::now();
        let answers = (0..12).filter(|_| answer(&network).is_some()).count();
        assert_eq!(answers, 12);
        assert!(
            begun.elapsed() > Duration::from_millis(800),
            "{:?}",
            begun.elapsed()
        );
        assert!(with(good).is_some());
        server.kill().expect("kill");
        server.wait().expect("end");
        let name = network.name.clone();
        drop(network);
        let left = Command::new("ip").args(["netns", "list"]).output().expect("ip");
        assert!(!String::from_utf8_lossy(&left.stdout).contains(&name));
    }
}
