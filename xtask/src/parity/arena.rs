//! A lab with three equal shares, one of which has the module.

use super::judge::Round;
use super::torture::Torture;
use anyhow::{Context, Result};
use vfsx_tests::lab::{Binaries, LabOptions};
use vfsx_tests::testlab::TestLab;

pub(super) const HOST: &str = "127.0.0.1";
/// Stack below which NT ACLs and streams are as a client expects them.
const OBJECTS: &str = "streams_xattr acl_xattr";
/// The share without the module that the lab does not have by itself.
const AGAIN: &str = "again";
/// What the suites expect of a server that is not told otherwise: durable handles need locks and oplocks to be Samba's own.
const SHARE: &[&str] = &[
    "kernel oplocks = no",
    "kernel share modes = no",
    "posix locking = no",
    "durable handles = yes",
    "inherit owner = no",
    "create mask = 0777",
    "directory mask = 0777",
    "map archive = no",
    "map hidden = no",
    "map system = no",
    "map readonly = no",
];
const GLOBAL: &[&str] = &["smb2 leases = yes", "server multi channel support = yes"];

pub(super) struct Arena {
    lab: TestLab,
    torture: Torture,
}

impl Arena {
    pub(super) fn open(binaries: &Binaries) -> Result<Self> {
        let mut options = LabOptions::new(binaries.clone());
        options.samba.vfs_objects = format!("{OBJECTS} vfsx");
        options.samba.more_shares = vec![(AGAIN.to_owned(), OBJECTS.to_owned())];
        options.samba.share = SHARE.iter().map(|line| (*line).to_owned()).collect();
        options.samba.global = GLOBAL.iter().map(|line| (*line).to_owned()).collect();
        let lab = TestLab::start_with(&options).context("start of a lab")?;
        let torture = Torture::new(&lab)?;
        Ok(Self { lab, torture })
    }

    /// Runs a test on all three shares at the same time, so that what else happens on the machine happens to all of them.
    pub(super) fn run(&self, test: &str) -> Result<Round> {
        let [plain, again, vfsx] = ["plain", AGAIN, "data"].map(|share| self.torture.start(share, test));
        let (plain, again, vfsx) = (plain?, again?, vfsx?);
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
