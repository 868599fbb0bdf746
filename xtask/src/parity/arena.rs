//! A lab with three equal shares, one of which has the module.

use super::judge::Round;
use super::torture::Torture;
use anyhow::{Context, Result};
use vfsx_tests::lab::{Binaries, LabOptions, Mode};
use vfsx_tests::loopfs::{FileSystem, LoopFs};
use vfsx_tests::smb::Session;
use vfsx_tests::testlab::TestLab;

pub(super) const HOST: &str = "127.0.0.1";
/// Share with the module, shares without.
const VFSX: &str = "data";
const PLAIN: [&str; 2] = ["plain", "again"];
/// Below them NT ACLs and streams are as a client expects them; `btrfs` clones and compresses on that file system.
const ABOVE: &str = "streams_xattr acl_xattr";
const BELOW: &str = "btrfs";
/// What the suites expect of a share. Durable handles need locks and oplocks to be Samba's own.
const SHARE: &[&str] = &[
    "kernel oplocks = no",
    "kernel share modes = no",
    "posix locking = no",
    "create mask = 0777",
    "directory mask = 0777",
    "map archive = no",
    "map hidden = no",
    "map system = no",
    "map readonly = no",
    "hide files = /hidefile/",
];
/// Changes that other processes make would be told to clients twice. Requests of the suites' own make smbd lose answers, which
/// shows how clients come back.
const GLOBAL: &[&str] = &["kernel change notify = no", "smbd:FSCTL_SMBTORTURE = yes"];

pub(super) struct Arena {
    // Before the file system: fields are dropped in this order.
    lab: TestLab,
    torture: Torture,
    _disk: LoopFs,
}

/// All but the disk.
pub(super) fn options(binaries: Binaries, mode: Mode) -> LabOptions {
    let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
    let mut options = LabOptions::new(binaries);
    options.samba.mode = mode;
    options.samba.vfs_objects = format!("{ABOVE} vfsx {BELOW}");
    options.samba.more_shares = vec![(PLAIN[1].to_owned(), format!("{ABOVE} {BELOW}"))];
    options.samba.share = lines(SHARE);
    options.samba.global = lines(GLOBAL);
    options
}

impl Arena {
    /// On btrfs, since it has all that the suites ask for, and keeps attributes out of a file's allocated size.
    pub(super) fn open(options: &LabOptions) -> Result<Self> {
        let disk = LoopFs::make(FileSystem::Btrfs)?;
        let mut options = options.clone();
        options.shares = Some(disk.path());
        let lab = TestLab::start_with(&options).context("start of a lab")?;
        // Not in another one for the time, as it is during the scan at the start.
        let _client = Session::connect(&lab, VFSX)?;
        lab.wait_for_mode(options.samba.mode)?;
        let torture = Torture::new(&lab)?;
        Ok(Self {
            lab,
            torture,
            _disk: disk,
        })
    }

    /// Runs a test on all three shares at the same time, so that what else happens on the machine happens to all of them.
    pub(super) fn run(&self, test: &str) -> Result<Round> {
        let start = |share| self.torture.start(share, self.lab.share(share)?, test);
        let (plain, again, vfsx) = (start(PLAIN[0])?, start(PLAIN[1])?, start(VFSX)?);
        let [plain, again, vfsx] = [plain.outcome()?, again.outcome()?, vfsx.outcome()?];
        Ok(Round {
            plain: [plain, again],
            vfsx,
        })
    }

    /// Waits for the site and compares. `Some` says what is wrong: a difference, or a change that did not come by an event.
    pub(super) fn fault_of_replica(&self) -> Option<String> {
        let captured = self.lab.settle().and_then(|()| self.lab.check_captured(1));
        let checked = captured.and_then(|()| self.lab.check_replica("site1"));
        checked.err().map(|error| format!("{error:#}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parity::Arguments;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn the_labs_are_in_the_mode_that_is_asked_for() {
        for mode in [Mode::Map, Mode::Copy] {
            let line = Line::parse_from(["parity", "--mode", mode.as_str()]);
            let binaries = Binaries::in_dir("/nowhere".as_ref());
            let options = options(binaries, line.arguments.mode());
            assert_eq!(options.samba.mode, mode);
        }
    }
}
