//! A private stack in one directory: recovery sites, vfsxd, smbd. Nothing outside the directory is used or changed
//! but a system user for the SMB login and the right to pass through the directory's parents.

mod access;
mod binaries;
mod control;
mod daemon;
mod description;
mod place;
mod ports;
mod process;
mod samba;
mod site;
mod smb_conf;

pub use access::give_to_user;
pub use binaries::Binaries;
pub use description::{
    Description, LAB_USER, ShareDescription, SiteDescription, SmbDescription, VfsxdDescription,
};
pub use place::Place;
pub use process::{Frozen, READY_LIMIT, Service, runs, tail};
pub use site::Site;
pub use smb_conf::{MODE_VARIABLE, Mode, SambaOptions};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use std::fs;
use std::path::{Path, PathBuf};

/// File in the lab's directory that says where everything is.
pub const LAB_JSON: &str = "lab.json";
/// Bucket of share `data` at every site.
pub const BUCKET: &str = "data";

#[derive(Debug, Clone)]
pub struct LabOptions {
    pub binaries: Binaries,
    /// Recovery sites, each a restfs of its own.
    pub sites: usize,
    pub samba: SambaOptions,
    /// Directory for the shares' directories; without it they are in the lab's own.
    pub shares: Option<PathBuf>,
    /// Bytes of the journal, `journal_max`; without it vfsxd's own default.
    pub journal_max: Option<u64>,
    /// Changes kept for sites that are behind, `changes_max`.
    pub changes_max: Option<u64>,
    /// smbd's tree connects, `sessions_max`.
    pub sessions_max: Option<u64>,
    /// Lines of `[reconcile]`; without them vfsxd's own defaults.
    pub reconcile: Option<String>,
    /// Lines of `[space]`, the same.
    pub space: Option<String>,
    /// Start vfsxd; without it the module finds no daemon, as after a failure.
    pub vfsxd: bool,
    pub vfsxd_place: Place,
    /// Of the recovery sites, in their order; those beyond have the lab's own.
    pub site_places: Vec<Place>,
}

impl LabOptions {
    pub fn new(binaries: Binaries) -> Self {
        Self {
            binaries,
            sites: 1,
            samba: SambaOptions::default(),
            shares: None,
            journal_max: None,
            changes_max: None,
            sessions_max: None,
            reconcile: None,
            space: None,
            vfsxd: true,
            vfsxd_place: Place::default(),
            site_places: Vec::new(),
        }
    }
}

/// A running stack. Dropping it leaves it running: [`Lab::stop`] ends it.
#[derive(Debug)]
pub struct Lab {
    dir: PathBuf,
    pub binaries: Binaries,
    pub description: Description,
    pub smbd: Service,
    pub vfsxd: Service,
    pub sites: Vec<Site>,
}

impl Lab {
    /// Prepares `dir`, which must be empty or missing, and starts everything: sites, vfsxd, smbd.
    pub fn start(dir: &Path, options: &LabOptions) -> Result<Self> {
        let lab = Self::prepare(dir, options)?;
        let started = lab.start_services(options.vfsxd);
        if started.is_err() {
            lab.stop().ok();
        }
        started?;
        Ok(lab)
    }

    /// Writes every file of the lab and starts nothing but what the set-up itself needs.
    pub fn prepare(dir: &Path, options: &LabOptions) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "the lab runs smbd and needs root: run it as root or with sudo"
        );
        ensure!(options.sites > 0, "the lab needs at least one recovery site");
        let dir = empty_dir(dir)?;
        samba::check_installed()?;
        let shares = options.shares.clone().unwrap_or_else(|| dir.join("share"));
        let own = ["bin", "log", "run", "sites", "start"].map(|sub| dir.join(sub));
        let more = options.samba.more_shares.iter().map(|(name, _)| name.as_str());
        let places: Vec<_> = ["data", "plain"]
            .into_iter()
            .chain(more)
            .map(|share| shares.join(share))
            .collect();
        for place in own.iter().chain(&places) {
            fs::create_dir_all(place).with_context(|| format!("create {}", place.display()))?;
        }
        let user = samba::ensure_user()?;
        access::grant_traverse(&dir, &shares, &user)?;
        access::check_xattrs(&shares.join("data"))?;

        let binaries = options.binaries.copied_to(&dir.join("bin"))?;
        let mut sites = Vec::new();
        for number in 1..=options.sites {
            let place = options.site_places.get(number - 1).cloned().unwrap_or_default();
            sites.push(Site::prepare(&dir, number, &binaries, &place)?);
        }
        let vfsxd = daemon::prepare(&dir, &binaries, &shares.join("data"), &sites, options)?;
        let (smb, smbd) = samba::prepare(
            &dir,
            &user,
            &binaries,
            &vfsxd.description.socket,
            &shares,
            &options.samba,
        )?;
        let description = Description {
            smb,
            settle: daemon::vfsxctl(&binaries, &vfsxd.description, &["settle"]),
            export: site::export_argv(&dir, &binaries),
            vfsxd: vfsxd.description,
            sites: sites.iter().map(|site| site.description.clone()).collect(),
        };
        description.write(&dir)?;
        Ok(Self {
            dir,
            binaries,
            description,
            smbd,
            vfsxd: vfsxd.service,
            sites,
        })
    }

    /// A lab started earlier, perhaps by another program.
    pub fn open(dir: &Path) -> Result<Self> {
        let dir = dir
            .canonicalize()
            .with_context(|| format!("open lab {}", dir.display()))?;
        let description = Description::read(&dir)?;
        let sites = description
            .sites
            .iter()
            .map(|site| Site::open(&dir, site))
            .collect();
        Ok(Self {
            smbd: service(&dir, "smbd"),
            vfsxd: service(&dir, "vfsxd"),
            binaries: Binaries::in_dir(&dir.join("bin")),
            sites,
            description,
            dir,
        })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Directory on disk of a share of the lab.
    pub fn share(&self, name: &str) -> Result<&Path> {
        let share = self.description.smb.shares.get(name);
        share
            .map(|share| share.path.as_path())
            .with_context(|| format!("the lab has no share {name}"))
    }

    pub fn site(&self, name: &str) -> Result<&Site> {
        let site = self.sites.iter().find(|site| site.description.name == name);
        site.with_context(|| format!("the lab has no site {name}"))
    }

    /// Environment in which smbd finds the module, for who starts it another way than the lab.
    pub fn smbd_environment(&self) -> [(&'static str, PathBuf); 2] {
        samba::environment(&self.dir, &self.binaries)
    }

    /// Every server of the lab, in the order of their starts.
    pub fn services(&self) -> Vec<&Service> {
        let sites = self.sites.iter().map(|site| &site.service);
        sites.chain([&self.vfsxd, &self.smbd]).collect()
    }

    /// Ends everything, clients' side first, so that nothing is lost on the way. Goes on after an error and gives
    /// the first one.
    pub fn stop(&self) -> Result<()> {
        let mut first = samba::stop(&self.smbd, &self.description.smb.conf);
        first = first.and(self.vfsxd.stop());
        for site in &self.sites {
            first = first.and(site.service.stop());
        }
        first.and(access::revoke_traverse(&self.dir))
    }

    /// Starts smbd anew with other options. Connections of clients end.
    pub fn restart_samba(&self, options: &SambaOptions) -> Result<()> {
        self.smbd.stop()?;
        smb_conf::write(
            &self.dir,
            &self.description.smb,
            &self.description.vfsxd.socket,
            options,
        )?;
        self.smbd.start()
    }

    /// Has smbd read other options. Clients stay connected, as what they were connected with.
    pub fn reconfigure_samba(&self, options: &SambaOptions) -> Result<()> {
        smb_conf::write(
            &self.dir,
            &self.description.smb,
            &self.description.vfsxd.socket,
            options,
        )?;
        let smbd = self.smbd.pid().context("smbd does not run")?;
        kill(smbd, Signal::SIGHUP).context("tell smbd")
    }

    fn start_services(&self, vfsxd: bool) -> Result<()> {
        for site in &self.sites {
            site.service.start()?;
        }
        if vfsxd {
            self.vfsxd.start()?;
        }
        self.smbd.start()
    }
}

/// Whether this process may run smbd.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn service(dir: &Path, name: &str) -> Service {
    Service {
        name: name.to_owned(),
        start_script: dir.join("start").join(name),
        pid_file: dir.join("run").join(format!("{name}.pid")),
        log: dir.join("log").join(format!("{name}.log")),
    }
}

/// An error when there is something in `dir`: a lab starts in a new or empty directory.
pub fn check_unused(dir: &Path) -> Result<()> {
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!(
            "{} is not empty: name a new directory, or end the lab in it with --stop and remove it",
            dir.display()
        );
    }
    Ok(())
}

fn empty_dir(dir: &Path) -> Result<PathBuf> {
    check_unused(dir)?;
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    dir.canonicalize().with_context(|| dir.display().to_string())
}
