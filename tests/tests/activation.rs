//! vfsxd started by a service manager that has opened its socket: no client ever finds nobody there.

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use vfsx_tests::lab::{READY_LIMIT, Service};
use vfsx_tests::smb::Session;
use vfsx_tests::testlab::{TestLab, with_lab};
use vfsx_tests::wait;

/// As systemd does it: descriptors from 3 on, for the process that the shell becomes.
const HAND_OVER: &str = r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@" 3<&0 </dev/null"#;
/// The module's word for a vfsxd that cannot be connected to.
const NOBODY: &str = "no vfsxd at";

/// A vfsxd that this test has started, or what becomes it.
struct Started(Child);

impl Started {
    /// `command`, with vfsxd's command line behind it. Its pid file makes it the lab's own when it is ready.
    fn by(lab: &TestLab, command: &mut Command) -> Result<Self> {
        let vfsxd = &lab.description.vfsxd;
        let log = File::options().append(true).create(true).open(&vfsxd.log)?;
        let child = command
            .arg(&lab.binaries.vfsxd)
            .arg("--config")
            .arg(&vfsxd.config)
            .arg("--pid-file")
            .arg(&vfsxd.pid_file)
            .stderr(Stdio::from(log))
            .process_group(0)
            .spawn();
        Ok(Self(child.with_context(|| format!("run {command:?}"))?))
    }

    fn is_vfsxd(&self) -> bool {
        let name = fs::read_to_string(format!("/proc/{}/comm", self.0.id()));
        name.is_ok_and(|name| name.trim() == "vfsxd")
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for_vfsxd(lab: &TestLab) -> Result<()> {
    let ready = || (lab.status().is_ok() && lab.vfsxd.pid().is_some()).then_some(());
    wait::until("vfsxd", READY_LIMIT, ready, || lab.vfsxd.log_tail())
}

/// Listens all the time, and starts vfsxd with that.
struct Manager<'a> {
    lab: &'a TestLab,
    socket: UnixListener,
    vfsxd: Option<Started>,
}

impl<'a> Manager<'a> {
    fn listen(lab: &'a TestLab) -> Result<Self> {
        Ok(Self {
            lab,
            socket: UnixListener::bind(&lab.description.vfsxd.socket)?,
            vfsxd: None,
        })
    }

    fn start(&mut self) -> Result<()> {
        let mut command = Command::new("sh");
        command
            .args(["-c", HAND_OVER])
            .stdin(OwnedFd::from(self.socket.try_clone()?));
        self.vfsxd = Some(Started::by(self.lab, &mut command)?);
        wait_for_vfsxd(self.lab)
    }

    /// A connection that nobody has taken yet.
    fn wait_for_a_queue(&self) -> Result<()> {
        let queued = || {
            let mut sockets = [PollFd::new(&self.socket, PollFlags::IN)];
            poll(&mut sockets, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
        };
        wait::until(
            "a module in the queue",
            READY_LIMIT,
            || queued().then_some(()),
            || self.lab.smbd.log_tail(),
        )
    }
}

#[test]
fn the_first_client_starts_vfsxd_and_what_is_done_meanwhile_is_not_lost() {
    with_lab(
        |options| options.vfsxd = false,
        |lab| {
            let socket = &lab.description.vfsxd.socket;
            let mut manager = Command::new("systemd-socket-activate");
            manager.arg("--listen").arg(socket);
            let mut vfsxd = Started::by(lab, &mut manager).context("it is in Debian's package systemd")?;
            let listens = || socket.exists().then_some(());
            wait::until("the socket", READY_LIMIT, listens, || lab.vfsxd.log_tail())?;
            ensure!(!vfsxd.is_vfsxd(), "it runs before anybody is there");
            let mut session = Session::connect(lab, "data")?;
            for number in 0..50 {
                session.put(&format!("early {number}"), b"while vfsxd starts")?;
            }
            wait_for_vfsxd(lab)?;
            ensure!(vfsxd.is_vfsxd(), "another vfsxd answers");
            lab.settle()?;
            lab.check_captured(1)?;
            lab.check_replica("site1")?;
            lab.vfsxd.stop()?;
            ensure!(vfsxd.0.wait()?.success(), "a stop is no failure");
            ensure!(socket.exists(), "the manager's socket is gone");
            check_nobody_was_missed(lab)
        },
    );
}

#[test]
fn a_stop_or_a_kill_of_vfsxd_keeps_the_socket_and_costs_no_gap() {
    with_lab(
        |options| options.vfsxd = false,
        |lab| {
            let mut manager = Manager::listen(lab)?;
            let inode = || fs::metadata(&lab.description.vfsxd.socket).map(|socket| socket.ino());
            let before = inode()?;
            manager.start()?;
            let mut session = Session::connect(lab, "data")?;
            session.put("before", b"vfsxd is there")?;
            lab.settle()?;
            for (name, end) in [
                ("stop", Service::stop as fn(&Service) -> Result<()>),
                ("kill", Service::kill9),
            ] {
                end(&lab.vfsxd)?;
                session.put(&format!("{name} old"), b"by a client that was connected")?;
                let mut newcomer = Session::connect(lab, "data")?;
                newcomer.put(&format!("{name} new"), b"by one that came meanwhile")?;
                manager.wait_for_a_queue()?;
                manager.start()?;
                newcomer.put(&format!("{name} behind"), b"vfsxd is there again")?;
                lab.settle()?;
                lab.check_captured(1)?;
                lab.check_replica("site1")?;
            }
            ensure!(inode()? == before, "the socket was replaced");
            check_nobody_was_missed(lab)?;

            // That is what it would say.
            fs::remove_file(&lab.description.vfsxd.socket)?;
            let _refused = Session::connect(lab, "data")?;
            let said = || smbd_says(lab).is_ok_and(|log| log.contains(NOBODY)).then_some(());
            wait::until("a module without a vfsxd", READY_LIMIT, said, || {
                lab.smbd.log_tail()
            })
        },
    );
}

/// A module that is refused would try again by itself, and the socket would be of no use.
fn check_nobody_was_missed(lab: &TestLab) -> Result<()> {
    let log = smbd_says(lab)?;
    let missed: Vec<_> = log.lines().filter(|line| line.contains(NOBODY)).collect();
    ensure!(missed.is_empty(), "{missed:?}");
    Ok(())
}

fn smbd_says(lab: &TestLab) -> Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(&lab.smbd.log)?).into_owned())
}
