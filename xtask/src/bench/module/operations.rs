//! Instructions and system calls that one operation more costs smbd: figures that other load on the machine hardly moves.

use super::client::Client;
use super::column::Stand;
use super::remove;
use crate::bench::process::{output, wait_until_listening};
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
/// How much slower smbd is under the tools that count, about.
const UNDER_CALLGRIND: u32 = 50;
const UNDER_STRACE: u32 = 10;
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
    let callgrinds = compile(scratch, "callgrind", UNDER_CALLGRIND)?;
    let straces = compile(scratch, "strace", UNDER_STRACE)?;
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
            stand.lab.smbd.stop()?;
            let calls = slope(&|count| system_calls(stand, scratch, &straces, &|| run(count)));
            let instructions = slope(&|count| instructions(stand, scratch, &callgrinds, &|| run(count)));
            stand.lab.smbd.start()?;
            operation.system_calls.insert(stand.name(), calls?);
            operation.instructions.insert(stand.name(), instructions?);
            progress(&format!("{name}, {}", stand.name()));
        }
        operations.push(operation);
    }
    Ok(operations)
}

fn compile(scratch: &Path, tool: &str, slower: u32) -> Result<PathBuf> {
    let source = scratch.join("slow_clock.c");
    let library = scratch.join(format!("slow_clock_{tool}.so"));
    std::fs::write(&source, SLOW_CLOCK)?;
    let mut compile = Command::new("cc");
    compile
        .arg(format!("-DSLOWER={slower}"))
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

/// System calls of an smbd that serves one connection in one process.
fn system_calls(stand: &Stand, scratch: &Path, clock: &Path, work: &dyn Fn() -> Result<()>) -> Result<u64> {
    let out = scratch.join("strace.out");
    let mut trace = Command::new("strace");
    trace
        .args(["-f", "-c", "-U", "calls,name"])
        // The slow clock asks the kernel each time; the true one does not.
        .args(["-e", "trace=!clock_gettime", "-o"])
        .arg(&out);
    serve(stand, scratch, clock, trace, work)?;
    let text = std::fs::read_to_string(&out)?;
    let total = text
        .lines()
        .find(|line| line.split_whitespace().nth(1) == Some("total"));
    let number = total.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("strace counted nothing:\n{text}"))
}

/// Instructions of the same, under callgrind.
fn instructions(stand: &Stand, scratch: &Path, clock: &Path, work: &dyn Fn() -> Result<()>) -> Result<u64> {
    let out = scratch.join("callgrind.out");
    let mut valgrind = Command::new("valgrind");
    valgrind.args([
        "--tool=callgrind",
        &format!("--callgrind-out-file={}", out.display()),
    ]);
    serve(stand, scratch, clock, valgrind, work)?;
    let text = std::fs::read_to_string(&out).context("callgrind's result")?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    total
        .and_then(|total| total.trim().parse().ok())
        .context("callgrind's result has no totals")
}

/// Runs an smbd under a tool that counts, until the client of `work` has left.
fn serve(
    stand: &Stand,
    scratch: &Path,
    clock: &Path,
    mut tool: Command,
    work: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let smb = &stand.lab.description.smb;
    let log = std::fs::File::create(scratch.join("counting.log"))?;
    let mut child = tool
        .args(["smbd", "--interactive", "--no-process-group", "--configfile"])
        .arg(&smb.conf)
        .envs(environment(stand, clock))
        // smbd's last act is to end its process group.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("run {}", tool.get_program().to_string_lossy()))?;
    let worked = wait_until_listening(&mut child, smb.port).and_then(|()| work());
    if worked.is_err() {
        child.kill().ok();
    }
    child.wait()?;
    worked
}
