//! Instructions and system calls that one operation more costs smbd: figures that no other load on the machine moves.

use super::client::Client;
use super::column::Stand;
use super::remove;
use crate::bench::process::{Counter, output, wait_until_listening};
use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use vfsx_tests::lab::give_to_user;

const KINDS: &[(&str, &str, u64)] = &[
    ("4 KiB random write", "random", 4096),
    ("small file", "files", 4096),
    ("rename", RENAMES, 0),
];
const RENAMES: &str = "renames";
const SLOW_CLOCK: &str = include_str!("slow_clock.c");
const SPAN: u64 = 64 << 20;
/// As in `load.c`.
const PER_DIRECTORY: u64 = 1000;
/// Operations in the two runs whose difference is taken: what a connection costs by itself is in both.
const FEW: u64 = 100;
const MANY: u64 = 600;

/// Figures of one kind of operation, by column.
#[derive(Debug, Serialize)]
pub(crate) struct Operation {
    pub(super) name: &'static str,
    /// User-space instructions of smbd, its libraries and modules.
    pub(super) instructions: BTreeMap<&'static str, f64>,
    pub(super) system_calls: BTreeMap<&'static str, f64>,
}

/// Ends the labs' smbd.
pub(super) fn measure(
    stands: &[Stand],
    client: &Client,
    scratch: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Operation>> {
    let slow_clock = compile(scratch)?;
    let mut operations = Vec::new();
    for (name, kind, size) in KINDS {
        let mut operation = Operation {
            name,
            instructions: BTreeMap::new(),
            system_calls: BTreeMap::new(),
        };
        for stand in stands {
            let slope = |count: &dyn Fn(u64) -> Result<u64>| -> Result<f64> {
                let (few, many) = (count(FEW)?, count(MANY)?);
                Ok((many as f64 - few as f64) / (MANY - FEW) as f64)
            };
            let run = |count| {
                if *kind == RENAMES {
                    make_files(stand, count)?;
                }
                client.run(stand, "counted", kind, count, *size, SPAN)?;
                remove(&stand.dir()?.join("counted"))
            };
            let calls = slope(&|count| system_calls(stand, scratch, &|| run(count)))?;
            operation.system_calls.insert(stand.name(), calls);
            stand.lab.smbd.stop()?;
            let instructions = slope(&|count| instructions(stand, scratch, &slow_clock, &|| run(count)));
            stand.lab.smbd.start()?;
            operation.instructions.insert(stand.name(), instructions?);
            progress(&format!("{name}, {}", stand.name()));
        }
        operations.push(operation);
    }
    Ok(operations)
}

fn compile(scratch: &Path) -> Result<PathBuf> {
    let (source, library) = (scratch.join("slow_clock.c"), scratch.join("slow_clock.so"));
    std::fs::write(&source, SLOW_CLOCK)?;
    let mut compile = Command::new("cc");
    compile
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .args([&library, &source]);
    output(&mut compile)?;
    Ok(library)
}

/// That of a lab's smbd, with one more library preloaded.
fn environment(stand: &Stand, slow_clock: &Path) -> BTreeMap<&'static str, OsString> {
    let of_lab = stand.lab.smbd_environment().into_iter();
    let mut all: BTreeMap<_, _> = of_lab
        .map(|(name, value)| (name, value.into_os_string()))
        .collect();
    let preloaded = all.entry("LD_PRELOAD").or_default();
    preloaded.push(":");
    preloaded.push(slow_clock);
    all
}

/// What the client renames, named as it names them, and not made by it: it is to do nothing else.
fn make_files(stand: &Stand, count: u64) -> Result<()> {
    let root = stand.dir()?.join("counted");
    for number in 0..count {
        let dir = root.join((number / PER_DIRECTORY).to_string());
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join(format!("old-{number}")), "")?;
    }
    give_to_user(&root)
}

/// System calls of smbd and of what it forks while `work` is done.
fn system_calls(stand: &Stand, scratch: &Path, work: &dyn Fn() -> Result<()>) -> Result<u64> {
    let out = scratch.join("strace.out");
    let server = stand.lab.smbd.pid().context("smbd does not run")?;
    let mut trace = Command::new("strace");
    trace
        .args(["-f", "-c", "-U", "calls,name", "-p", &server.to_string(), "-o"])
        .arg(&out);
    let counter = Counter::start(&mut trace, &scratch.join("strace.log"), "attached")?;
    work()?;
    counter.stop()?;
    let text = std::fs::read_to_string(&out)?;
    let total = text
        .lines()
        .find(|line| line.split_whitespace().nth(1) == Some("total"));
    let number = total.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("strace counted nothing:\n{text}"))
}

/// Instructions of an smbd that serves one connection in one process, under callgrind.
fn instructions(
    stand: &Stand,
    scratch: &Path,
    slow_clock: &Path,
    work: &dyn Fn() -> Result<()>,
) -> Result<u64> {
    let out = scratch.join("callgrind.out");
    let smb = &stand.lab.description.smb;
    let log = std::fs::File::create(scratch.join("callgrind.log"))?;
    let mut child = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            &format!("--callgrind-out-file={}", out.display()),
        ])
        .args(["smbd", "--interactive", "--no-process-group", "--configfile"])
        .arg(&smb.conf)
        .envs(environment(stand, slow_clock))
        // smbd's last act is to end its process group.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("run valgrind")?;
    let worked = wait_until_listening(&mut child, smb.port).and_then(|()| work());
    if worked.is_err() {
        child.kill().ok();
    }
    child.wait()?;
    worked?;
    let text = std::fs::read_to_string(&out).context("callgrind's result")?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    total
        .and_then(|total| total.trim().parse().ok())
        .context("callgrind's result has no totals")
}
