//! Instructions and system calls that one operation more costs smbd: figures that other load on the machine hardly moves.

use super::client::Client;
use super::column::{SHARE, Stand};
use super::load::NBENCH_DIR;
use super::{DBENCH_LOAD, RANDOM_WRITES, RENAMES, SMALL_FILES};
use crate::bench::process::{output, wait_until_listening};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use vfsx_tests::lab::give_to_user;
use vfsx_tests::smb::SmbClient;

/// How much slower smbd is under the tools that count, about.
const UNDER_CALLGRIND: u32 = 50;
const UNDER_STRACE: u32 = 10;
const SLOW_CLOCK: &str = include_str!("slow_clock.c");
const SPAN: u64 = 64 << 20;
/// As in `load.c`.
const PER_DIRECTORY: u64 = 1000;
/// Directory of a run in the share.
const DIR: &str = "counted";
/// A run of a share that did not work in its mode is done again, so often at most.
const REPEATS: usize = 3;

/// An operation whose cost is counted.
pub(super) struct Counted {
    name: &'static str,
    /// The load that is made of it.
    pub(super) load: &'static str,
    work: Work,
    /// Operations in the two runs whose difference is taken: what a connection costs by itself is in both.
    few: u64,
    many: u64,
}

#[derive(Clone, Copy)]
enum Work {
    /// Lines of the recorded load. The first ones fill the share.
    Replay,
    /// See `load.c`.
    Client {
        kind: &'static str,
        size: u64,
    },
    Renames,
}

/// All that can be counted.
pub(super) fn all() -> Vec<Counted> {
    let single = |name, load, work| Counted {
        name,
        load,
        work,
        few: 100,
        many: 600,
    };
    let client = |kind, size| Work::Client { kind, size };
    vec![
        Counted {
            name: "dbench load, one operation",
            load: DBENCH_LOAD,
            work: Work::Replay,
            few: 2000,
            many: 9000,
        },
        single("4 KiB random write", RANDOM_WRITES, client("random", 4096)),
        single("small file", SMALL_FILES, client("files", 4096)),
        single("rename", RENAMES, Work::Renames),
    ]
}

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
    counted: &[Counted],
    stands: &[Stand],
    client: &Client,
    scratch: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Operation>> {
    let callgrinds = compile(scratch, "callgrind", UNDER_CALLGRIND)?;
    let straces = compile(scratch, "strace", UNDER_STRACE)?;
    let mut operations = Vec::new();
    for Counted {
        name,
        work,
        few,
        many,
        ..
    } in counted
    {
        let mut operation = Operation {
            name,
            instructions: BTreeMap::new(),
            system_calls: BTreeMap::new(),
        };
        for stand in stands {
            let mut slope = |count: &dyn Fn(u64) -> Result<u64>| -> Result<f64> {
                let mut steady = |operations| in_its_mode(stand, work, &|| count(operations), progress);
                let (few_cost, many_cost) = (steady(*few)?, steady(*many)?);
                Ok((many_cost as f64 - few_cost as f64) / (many - few) as f64)
            };
            let run = |count| work.run(stand, client, count);
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

impl Work {
    /// Does it `count` times.
    fn run(self, stand: &Stand, client: &Client, count: u64) -> Result<()> {
        match self {
            Self::Replay => client.replay(stand, count),
            Self::Client { kind, size } => client.run(stand, DIR, kind, count, size, SPAN).map(drop),
            Self::Renames => {
                make_files(stand, count)?;
                client.run(stand, DIR, "renames", count, 0, SPAN).map(drop)
            }
        }
    }

    /// Directory that it leaves in the share.
    fn dir(self) -> &'static str {
        match self {
            Self::Replay => NBENCH_DIR,
            Self::Client { .. } | Self::Renames => DIR,
        }
    }
}

/// What `count` gives of a share that worked in its mode all the time.
fn in_its_mode(
    stand: &Stand,
    work: &Work,
    count: &dyn Fn() -> Result<u64>,
    progress: &mut dyn FnMut(&str),
) -> Result<u64> {
    let mut reason = String::new();
    for _ in 0..=REPEATS {
        let (figure, in_mode_map) = stand.watch_mode(count)?;
        clear(stand, work.dir())?;
        let Some(why) = in_mode_map else {
            return Ok(figure);
        };
        progress(&format!(
            "{}: once more, it worked in mode map: {why}",
            stand.name()
        ));
        reason = why;
    }
    bail!(
        "{}: the share worked in mode map in each of {} runs, the last time since: {reason}",
        stand.name(),
        REPEATS + 1
    )
}

/// Removes a directory of the share, which has no smbd. By a client: what somebody removes past smbd with a name in it that is
/// to be looked at is looked for, for minutes.
fn clear(stand: &Stand, dir: &str) -> Result<()> {
    stand.lab.smbd.start()?;
    let removed = SmbClient::new(&stand.lab, SHARE).run(&[format!("deltree {dir}")]);
    stand.settle()?;
    stand.lab.smbd.stop()?;
    removed.map(drop)
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
    let root = stand.dir()?.join(DIR);
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
