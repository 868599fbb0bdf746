//! Clients quick enough not to hide the server: a small program on Samba's client library for single operations, and NBENCH of
//! smbtorture for a mixture. Both are C, and answer a request in less time than smbd serves one.

use super::column::{SHARE, Stand};
use crate::bench::process::output;
use crate::smb_client;
use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SOURCE: &str = include_str!("load.c");
/// What Debian's dbench replays.
const LOAD_FILE: &str = "/usr/share/dbench/client.txt";
const NBENCH_CLIENTS: u32 = 4;
/// NBENCH ends at once at a line like this.
const END_OF_LOAD: &str = "SMBend of_load NT_STATUS_OK";
/// More seconds than any part of a load takes.
const WITHOUT_END: u64 = 1_000_000;

pub(super) struct Client {
    program: PathBuf,
    conf: PathBuf,
    dir: PathBuf,
}

impl Client {
    /// Compiles the program in `dir`.
    pub(super) fn build(dir: &Path) -> Result<Self> {
        let (source, program) = (dir.join("load.c"), dir.join("load"));
        std::fs::write(&source, SOURCE)?;
        let flags = output(Command::new("pkg-config").args(["--cflags", "--libs", "smbclient"]))?;
        let mut compile = Command::new("cc");
        compile
            .args(["-O2", "-o"])
            .args([&program, &source])
            .args(flags.split_whitespace());
        output(&mut compile)?;
        let conf = smb_client::configure(dir, "client min protocol = NT1\n")?;
        Ok(Self {
            program,
            conf,
            dir: dir.to_owned(),
        })
    }

    /// Does `count` operations in the share's directory `dir`; gives the seconds that they took.
    pub(super) fn run(
        &self,
        stand: &Stand,
        dir: &str,
        kind: &str,
        count: u64,
        size: u64,
        span: u64,
    ) -> Result<f64> {
        let smb = &stand.lab.description.smb;
        let mut child = Command::new(&self.program)
            .arg(&self.conf)
            .args([
                smb.port.to_string(),
                smb.user.clone(),
                format!("{SHARE}/{dir}"),
                kind.to_owned(),
            ])
            .args([count, size, span].map(|number| number.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("run the client")?;
        if let Some(mut input) = child.stdin.take() {
            writeln!(input, "{}", smb.password)?;
        }
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the client failed: {}", said.trim());
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim()
            .parse()
            .with_context(|| format!("figure of the client: {text}"))
    }

    /// Runs NBENCH; gives at each second how many operations were done.
    pub(super) fn nbench(&self, stand: &Stand, seconds: u64) -> Result<Vec<(f64, f64)>> {
        let text = output(&mut self.smbtorture(stand, Path::new(LOAD_FILE), NBENCH_CLIENTS, seconds))?;
        let points: Vec<_> = text.split(['\r', '\n']).filter_map(point).collect();
        ensure!(
            !points.is_empty() && text.contains("success: nbench"),
            "NBENCH did not run to its end:\n{text}"
        );
        Ok(points)
    }

    /// Lets one client do the first operations of the same load.
    pub(super) fn replay(&self, stand: &Stand, operations: u64) -> Result<()> {
        let load = std::fs::read_to_string(LOAD_FILE).with_context(|| format!("read {LOAD_FILE}"))?;
        let file = self.dir.join("replayed.txt");
        std::fs::write(&file, beginning(&load, operations)?)?;
        let output = self
            .smbtorture(stand, &file, 1, WITHOUT_END)
            .stdin(Stdio::null())
            .output()
            .context("run smbtorture")?;
        let text = String::from_utf8_lossy(&output.stdout);
        // It calls this end a failure.
        ensure!(
            text.contains(&end_of_replay(operations)),
            "NBENCH did not do {operations} operations:\n{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    fn smbtorture(&self, stand: &Stand, load: &Path, clients: u32, seconds: u64) -> Command {
        let smb = &stand.lab.description.smb;
        let mut command = Command::new("smbtorture");
        command
            .current_dir(&self.dir)
            .arg("--configfile")
            .arg(&self.conf)
            .arg("--authentication-file")
            .arg(smb_client::credentials(&stand.lab))
            .args([
                format!("--smb-ports={}", smb.port),
                format!("--timelimit={seconds}"),
                format!("--num-progs={clients}"),
                format!("--loadfile={}", load.display()),
                format!("//{}/{SHARE}", smb.host),
                "bench.nbench".to_owned(),
            ]);
        command
    }
}

/// The first operations of a load, and its end.
fn beginning(load: &str, operations: u64) -> Result<String> {
    let operations = usize::try_from(operations)?;
    let lines: Vec<_> = load.lines().take(operations).chain([END_OF_LOAD]).collect();
    ensure!(
        lines.len() > operations,
        "{LOAD_FILE} has fewer than {operations} lines"
    );
    Ok(lines.join("\n") + "\n")
}

/// What NBENCH says where such a load ends.
fn end_of_replay(operations: u64) -> String {
    format!("[{}] client 0 exiting with status 1", operations + 1)
}

/// `   4       684  42.36 MB/sec  execute 1 sec  latency 0.00 msec`: seconds and operations.
fn point(line: &str) -> Option<(f64, f64)> {
    let mut words = line.split_whitespace();
    let operations = words.nth(1)?.parse().ok()?;
    let seconds = words.skip_while(|word| *word != "execute").nth(1)?.parse().ok()?;
    Some((seconds, operations))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_of_nbench_is_read() {
        assert_eq!(
            point("   4       684  42.36 MB/sec  execute 3 sec  latency 0.00 msec "),
            Some((3.0, 684.0))
        );
        assert_eq!(point("   2     13844  22.90 MB/sec  cleanup 8 sec   "), None);
        assert_eq!(point("Throughput 22.8988 MB/sec"), None);
    }

    #[test]
    fn a_load_is_cut_behind_its_first_operations() {
        let load = "Mkdir \"\\clients\" NT_STATUS_OK\nClose 1 NT_STATUS_OK\nClose 2 NT_STATUS_OK\n";
        let cut = beginning(load, 2).expect("it has two");
        let lines: Vec<_> = cut.lines().collect();
        assert_eq!(lines[1..], ["Close 1 NT_STATUS_OK", END_OF_LOAD]);
        assert!(beginning(load, 4).is_err(), "the figures would be of fewer");
    }
}
