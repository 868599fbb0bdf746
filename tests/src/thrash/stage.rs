//! What a round plays on: a lab whose vfsxd and sites have a network namespace, a clock and a small disk each.

use super::plan::{Action, Disk, Phase, SITES, Server};
use crate::clock::Clock;
use crate::lab::{Binaries, LabOptions, Mode, Place, READY_LIMIT, Service};
use crate::loopfs::{FileSystem, LoopFs};
use crate::network::{Condition, Network};
use crate::testlab::TestLab;
use crate::wait;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// What the server keeps is in a directory of the disk, because the disk's root has more in it.
const DATA: &str = "data";

pub(super) struct Stage {
    // Fields are dropped in this order: servers, then what they stand on.
    pub(super) lab: TestLab,
    network: Network,
    /// Of vfsxd, then of the sites.
    clocks: Vec<Clock>,
    /// In the same order.
    disks: Vec<LoopFs>,
    _dir: TempDir,
}

impl Stage {
    pub(super) fn set_up(binaries: Binaries, mode: Mode, seed: u64, heals_itself: bool) -> Result<Self> {
        let network = Network::make(SITES, seed)?;
        let dir = tempfile::Builder::new().prefix("vfsx-clocks-").tempdir()?;
        let (mut clocks, mut disks, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..=SITES {
            let disk = LoopFs::make(FileSystem::Ext4)?;
            let clock_dir = dir.path().join(number.to_string());
            fs::create_dir(&clock_dir)?;
            let clock = Clock::new(&clock_dir)?;
            let at = match number {
                0 => network.at_primary(),
                site => network.at_site(site),
            };
            let data = disk.path().join(DATA);
            fs::create_dir(&data)?;
            places.push(Place {
                command: at.into_iter().chain(clock.command()?).collect(),
                data: Some(data),
                address: (number > 0).then(|| Network::address(number)),
            });
            clocks.push(clock);
            disks.push(disk);
        }
        let mut options = LabOptions::new(binaries);
        options.samba.mode = mode;
        let after_gap = if heals_itself { "1s" } else { "never" };
        options.reconcile = Some(format!("after_gap = \"{after_gap}\""));
        options.sites = SITES;
        options.vfsxd_place = places.remove(0);
        options.site_places = places;
        Ok(Self {
            lab: TestLab::start_with(&options)?,
            network,
            clocks,
            disks,
            _dir: dir,
        })
    }

    /// Does it. A server that cannot start, because its disk is full, is started when the phase is over.
    pub(super) fn act(&self, action: Action) -> Result<()> {
        match action {
            Action::Kill(server) => self.service(server)?.kill9(),
            Action::Stop(server) => self.service(server)?.stop(),
            Action::Start(server) => {
                if let Err(error) = self.start(server) {
                    eprintln!("{server:?} does not start: {error:#}");
                }
                Ok(())
            }
            Action::KillProcess(which) => {
                self.kill_process(which);
                Ok(())
            }
            Action::KillTogether(which) => {
                self.kill_process(which);
                self.lab.vfsxd.kill9()
            }
            Action::Link(site, condition) => self.network.set(site, condition),
            Action::Clock(server, seconds) => self.clock(server)?.set(seconds),
            Action::Fill(disk) => self.disk(disk)?.fill(0),
            Action::Free(disk) => self.disk(disk)?.free(),
        }
    }

    /// Everything is well again, and every server runs.
    pub(super) fn heal(&self, phase: &Phase) -> Result<()> {
        for site in 1..=SITES {
            self.network.set(site, Condition::default())?;
            self.disk(Disk::Site(site))?.free()?;
        }
        self.disk(Disk::State)?.free()?;
        self.clocks.iter().try_for_each(|clock| clock.set(0))?;
        phase.order.iter().try_for_each(|server| {
            // The port of a killed server may be taken for a moment more.
            let start = || self.start(*server).ok();
            let why = || format!("{:?}", self.start(*server));
            wait::until(&format!("start of {server:?}"), READY_LIMIT, start, why)
        })
    }

    /// Leaves everything as it is for a person to look at. The disks go, so what is on them is copied first.
    pub(super) fn keep(mut self) -> Result<()> {
        self.lab.stop()?;
        let state = self.lab.dir().join("vfsxd");
        let sites = self.lab.sites.iter().map(|site| site.data_dir());
        let links: Vec<PathBuf> = [state].into_iter().chain(sites).collect();
        for link in links {
            let data = fs::read_link(&link).with_context(|| link.display().to_string())?;
            fs::remove_file(&link)?;
            let copied = Command::new("cp").arg("-a").args([&data, &link]).status()?;
            ensure!(copied.success(), "cp of {}", data.display());
        }
        self.lab.keep();
        Ok(())
    }

    fn start(&self, server: Server) -> Result<()> {
        let service = self.service(server)?;
        match service.pid() {
            Some(_) => Ok(()),
            None => service.start(),
        }
    }

    fn kill_process(&self, which: u64) {
        let processes = self.lab.smbd.children("smbd");
        let chosen = which.checked_rem(processes.len() as u64).unwrap_or_default();
        if let Some(process) = processes.get(chosen as usize) {
            // It may have ended by itself meanwhile.
            kill(*process, Signal::SIGKILL).ok();
        }
    }

    fn service(&self, server: Server) -> Result<&Service> {
        let lab = &self.lab;
        Ok(match server {
            Server::Smbd => &lab.smbd,
            Server::Vfsxd => &lab.vfsxd,
            Server::Site(number) => {
                let site = number.checked_sub(1).and_then(|at| lab.sites.get(at));
                &site.with_context(|| format!("no site {number}"))?.service
            }
        })
    }

    /// smbd reads the time for file systems and clients only.
    fn clock(&self, server: Server) -> Result<&Clock> {
        let at = match server {
            Server::Site(number) => number,
            Server::Smbd | Server::Vfsxd => 0,
        };
        self.clocks.get(at).context("no clock")
    }

    fn disk(&self, disk: Disk) -> Result<&LoopFs> {
        let at = match disk {
            Disk::State => 0,
            Disk::Site(number) => number,
        };
        self.disks.get(at).context("no disk")
    }
}
