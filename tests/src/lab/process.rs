//! One server of the lab: started by a script of its own, stopped by its process id.

use crate::wait;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a server may take to be ready. Starts take well below a second; recovery of a large journal more.
pub const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long a server may take to end after SIGTERM before it is an error.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Linux's unit of times in `/proc`, the same on all architectures that Samba runs on.
const TICKS_PER_SECOND: u64 = 100;
/// Lines of the log that go into an error.
const TAIL_LINES: usize = 15;

/// A server process that outlives the program that started it.
#[derive(Debug, Clone)]
pub struct Service {
    pub name: String,
    /// Starts the server in a session of its own, writes `pid_file`, waits until it is ready, ends.
    pub start_script: PathBuf,
    pub pid_file: PathBuf,
    /// Standard output and standard error of the server, appended.
    pub log: PathBuf,
}

impl Service {
    /// Writes the start script. `ready` is a shell command that ends with 0 when the server can be used.
    pub(super) fn write_script(&self, argv: &[String], ready: &str) -> Result<()> {
        let script = format!(
            "#!/bin/sh\n\
             # Starts {name} and returns when it is ready.\n\
             export PATH=\"$PATH:/usr/sbin:/sbin\"\n\
             setsid {argv} </dev/null >>{log} 2>&1 &\n\
             pid=$!\n\
             echo $pid >{pid}.new && mv {pid}.new {pid}\n\
             steps={steps}\n\
             until {ready} >/dev/null 2>&1; do\n\
             \x20 state=$(sed 's/.*) //' /proc/$pid/stat 2>/dev/null | cut -c1)\n\
             \x20 case \"$state\" in ''|Z) echo \"error: {name} ended at its start\" >&2; exit 1;; esac\n\
             \x20 steps=$((steps - 1))\n\
             \x20 [ $steps -gt 0 ] || {{ echo \"error: {name} is not ready after {limit} s\" >&2; exit 1; }}\n\
             \x20 sleep 0.05\n\
             done\n",
            name = self.name,
            argv = argv.iter().map(|a| quote(a)).collect::<Vec<_>>().join(" "),
            log = quote_path(&self.log),
            pid = quote_path(&self.pid_file),
            steps = READY_LIMIT.as_millis() / 50,
            limit = READY_LIMIT.as_secs(),
        );
        fs::write(&self.start_script, script).with_context(|| self.start_script.display().to_string())?;
        fs::set_permissions(&self.start_script, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    pub fn start(&self) -> Result<()> {
        let output = Command::new(&self.start_script)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("start {}: {}", self.name, self.start_script.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{}; the end of {}:\n{}",
                said.trim(),
                self.log.display(),
                self.log_tail()
            );
        }
        Ok(())
    }

    /// The process id from the pid file while that process runs.
    pub fn pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(&self.pid_file).ok()?;
        let pid = text.trim().parse::<i32>().ok().filter(|pid| *pid > 1)?;
        (runs(Pid::from_raw(pid)) && self.is_ours(pid)).then(|| Pid::from_raw(pid))
    }

    /// A pid file may be older than the machine's last start, and its number another process's by now. The lab's
    /// servers have a path of the lab on their command lines.
    fn is_ours(&self, pid: i32) -> bool {
        let lab = self
            .pid_file
            .ancestors()
            .nth(2)
            .unwrap_or(&self.pid_file)
            .display()
            .to_string();
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&lab)
    }

    /// SIGTERM to the server and its children, then waits until all of them have ended.
    pub fn stop(&self) -> Result<()> {
        self.end(Signal::SIGTERM)
    }

    /// SIGKILL to the server and its children: what a crash looks like.
    pub fn kill9(&self) -> Result<()> {
        self.end(Signal::SIGKILL)
    }

    /// The server, and its children, do nothing until what this gives is dropped: what a hanging disk or host looks like.
    pub fn freeze(&self) -> Result<Frozen> {
        let leader = self
            .pid()
            .with_context(|| format!("{} does not run", self.name))?;
        let members = group_members(leader);
        for member in &members {
            kill(*member, Signal::SIGSTOP).with_context(|| format!("stop {}", self.name))?;
        }
        Ok(Frozen(members))
    }

    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        self.start()
    }

    /// Processes that the server has started and that have this name: of smbd, `smbd` gives one for each client.
    pub fn children(&self, name: &str) -> Vec<Pid> {
        let Some(leader) = self.pid() else {
            return Vec::new();
        };
        let is_child = |stat: &Stat| stat.parent == leader.as_raw() && stat.name == name && stat.state != 'Z';
        processes(is_child)
    }

    /// Bytes the server has read by system calls since its start, from files, sockets and its databases: more than
    /// what it read of the share.
    pub fn bytes_read(&self) -> Result<u64> {
        let pid = self
            .pid()
            .with_context(|| format!("{} does not run", self.name))?;
        let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
        let read = io.lines().find_map(|line| line.strip_prefix("rchar: "));
        read.and_then(|text| text.parse().ok())
            .context("no rchar in /proc/PID/io")
    }

    /// How many processes the server consists of.
    pub fn processes(&self) -> usize {
        self.pid().map_or(0, |leader| group_members(leader).len())
    }

    /// Processor time of the server and its children since its start, also of those that have ended.
    pub fn processor_time(&self) -> Result<Duration> {
        let leader = self
            .pid()
            .with_context(|| format!("{} does not run", self.name))?;
        let ticks: u64 = group_members(leader)
            .into_iter()
            .filter_map(|pid| ticks(pid.as_raw()))
            .sum();
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }

    /// The last lines of the log, indented.
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }

    fn end(&self, signal: Signal) -> Result<()> {
        let Some(leader) = self.pid() else { return Ok(()) };
        let members = group_members(leader);
        match (signal, kill(leader, signal)) {
            (_, Err(Errno::ESRCH)) | (Signal::SIGTERM, Ok(())) => {}
            (_, result) => result.with_context(|| format!("stop {}", self.name))?,
        }
        if signal == Signal::SIGKILL {
            for member in &members {
                kill(*member, signal).ok();
            }
        }
        wait::until(
            &format!("end of {}", self.name),
            STOP_LIMIT,
            || members.iter().all(|pid| !runs(*pid)).then_some(()),
            || format!("the end of {}:\n{}", self.log.display(), self.log_tail()),
        )?;
        fs::remove_file(&self.pid_file).ok();
        Ok(())
    }
}

/// A server that was told to stand still.
#[derive(Debug)]
pub struct Frozen(Vec<Pid>);

impl Drop for Frozen {
    fn drop(&mut self) {
        for member in &self.0 {
            // It may have been killed meanwhile.
            kill(*member, Signal::SIGCONT).ok();
        }
    }
}

/// The last lines of a log file, indented.
pub fn tail(log: &Path) -> String {
    let text = fs::read(log)
        .map(|b| String::from_utf8_lossy(&b).into_owned())
        .unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    lines
        .iter()
        .skip(from)
        .map(|line| format!("  {line}\n"))
        .collect()
}

/// One word of a shell command.
pub(super) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn quote_path(path: &Path) -> String {
    quote(&path.display().to_string())
}

/// Processes whose process group is `leader`, the leader among them. A server is its group's leader because its
/// script starts it by setsid.
fn group_members(leader: Pid) -> Vec<Pid> {
    let mut members = processes(|stat| stat.group == leader.as_raw());
    if !members.contains(&leader) {
        members.push(leader);
    }
    members
}

fn processes(chosen: impl Fn(&Stat) -> bool) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| Stat::read(*pid).is_some_and(|stat| chosen(&stat)))
        .map(Pid::from_raw)
        .collect()
}

/// A zombie has ended: nothing but its parent's wait is missing. Unless it has threads: one that waits for the disk outlives
/// the first by that time, and keeps open files and their locks.
pub fn runs(pid: Pid) -> bool {
    let pid = pid.as_raw();
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    Stat::read(pid).is_some_and(|stat| stat.state != 'Z' || threads() > 1)
}

/// A part of `/proc/PID/stat`.
struct Stat {
    name: String,
    state: char,
    parent: i32,
    group: i32,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (before, after) = stat.rsplit_once(") ")?;
        let mut fields = after.split(' ');
        Some(Self {
            name: before.split_once('(')?.1.to_owned(),
            state: fields.next()?.chars().next()?,
            parent: fields.next()?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
        })
    }
}

/// Processor time of a process and of its children that have ended: four fields of `/proc/PID/stat`, of which the state is
/// field 3.
fn ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    let times = after_name.split(' ').skip(14 - 3).take(4);
    Some(times.filter_map(|field| field.parse::<u64>().ok()).sum())
}
