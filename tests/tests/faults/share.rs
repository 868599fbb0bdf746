//! The share's disk: full, or replaced by another one with the files restored.

use super::{NOTICED_WITHIN, put_files, relay, state};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use vfsx_tests::guard::Guard;
use vfsx_tests::lab::{Lab, LabOptions};
use vfsx_tests::loopfs::{FileSystem, LoopFs};
use vfsx_tests::smb::Session;
use vfsx_tests::testlab::with_lab;

const FILE: u64 = 1 << 20;

/// Row "share's disk full".
#[test]
fn share_disk_full_clients_hear_of_it_and_vfsxd_keeps_up() {
    let disk = LoopFs::make(FileSystem::Ext4).expect("a file system");
    let options = |options: &mut LabOptions| options.shares = Some(disk.path());
    with_lab(options, |lab| {
        let mut session = Session::connect(lab, "data")?;
        put_files(&mut session, "before", 0, 4, FILE)?;
        disk.fill(8 * FILE)?;
        let mut refused = None;
        for number in 0..64 {
            if let Err(error) = put_files(&mut session, "filling", number, 1, FILE) {
                refused = Some(format!("{error:#}"));
                break;
            }
        }
        let refused = refused.context("the share takes 64 MiB more than it has room for")?;
        ensure!(
            refused.to_uppercase().contains("DISK_FULL"),
            "the client hears something else: {refused}"
        );
        // vfsxd writes nothing there: to it this is a share on which little changes.
        for _ in 0..10 {
            let state = state(lab, "site1")?;
            let goes_on = ["catching-up", "in-sync"].contains(&&*state);
            ensure!(
                goes_on,
                "{state} for a disk that is the clients': {}",
                lab.status()?
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        // What there was room for is brought over, and so are changes that need none.
        let mut session = Session::connect(lab, "data")?;
        let handle = session.create("before 0", "open")?;
        session.rename_open(handle, "renamed", false)?;
        session.random_writes(handle, 10, 4096, FILE, 7)?;
        session.close(handle)?;
        lab.settle()?;
        lab.check_captured(1)?;
        lab.check_replica("site1")?;

        disk.free()?;
        put_files(&mut session, "after", 0, 8, FILE)?;
        lab.settle()?;
        lab.check_captured(1)?;
        lab.check_replica("site1")
    });
    disk.unmount().expect("nothing uses it any more");
}

const FILES: u64 = 24;

/// Row "share's disk replaced, files restored".
#[test]
fn share_disk_replaced_and_files_restored_is_no_full_copy() {
    let shares = tempfile::Builder::new()
        .prefix("vfsx-shares-")
        .tempdir()
        .expect("scratch");
    let disk = LoopFs::make(FileSystem::Ext4).expect("a file system");
    let mut mounted = None;
    let options = |options: &mut LabOptions| {
        options.shares = Some(shares.path().to_owned());
        options.vfsxd = false;
    };
    with_lab(options, |lab| {
        let wire = relay(lab, "site1")?;
        lab.vfsxd.start()?;
        let mut session = Session::connect(lab, "data")?;
        put_files(&mut session, "file", 0, FILES, FILE)?;
        drop(session);
        lab.source_tree(300, 4)?.copy_in(lab, "data")?;
        lab.settle()?;
        lab.wait_for_state("site1", "in-sync", NOTICED_WITHIN)?;
        let first = wire.bytes();
        ensure!(first > FILES * FILE, "the relay saw only {first} bytes");

        lab.smbd.stop()?;
        lab.vfsxd.stop()?;
        let share = lab.share("data")?;
        let before = fs::metadata(share.join("file 0"))?;
        mounted = Some(restore_to(&disk, share)?);
        let after = fs::metadata(share.join("file 0"))?;
        ensure!(before.dev() != after.dev(), "the files are on the old disk");
        // What vfsxd says when it is started now, and then the site.
        ensure!(
            lab.vfsxd.start().is_err(),
            "vfsxd takes another disk for the share"
        );
        let said = fs::read_to_string(&lab.vfsxd.log)?;
        ensure!(said.contains("remove the catalog"), "no advice in: {said}");
        remove_catalog(lab)?;
        let release = ["bucket", "set", "data", "--release-source"];
        lab.site("site1")?.restfs(&release)?;
        lab.vfsxd.start()?;
        lab.start_smbd()?;
        // What was journaled before the catalog was removed is of the old disk.
        lab.vfsxctl(&["sync"])?;
        lab.settle()?;
        lab.wait_for_state("site1", "in-sync", NOTICED_WITHIN)?;
        let sent = wire.bytes() - first;
        println!("{sent} bytes on the wire after the restore, {first} at first");
        ensure!(sent < first / 10, "{sent} of {first} bytes were sent again");
        lab.check_replica("site1")
    });
    drop(mounted);
    disk.unmount().expect("nothing uses it any more");
}

fn remove_catalog(lab: &Lab) -> Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let catalog = lab.dir().join(format!("vfsxd/shares/data/catalog.db{suffix}"));
        match fs::remove_file(&catalog) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Copies the files to the disk, which then takes the place of the share's directory.
fn restore_to(disk: &LoopFs, share: &Path) -> Result<Guard> {
    let restored = disk.path().join("data");
    let copied = Command::new("rsync")
        .args(["-aHAX", "--numeric-ids"])
        .arg(share)
        .arg(disk.path())
        .output()
        .context("run rsync (package rsync)")?;
    let said = String::from_utf8_lossy(&copied.stderr);
    ensure!(copied.status.success(), "rsync: {}", said.trim());
    let places = [("FROM", restored.as_os_str()), ("TO", share.as_os_str())];
    Guard::new("mount --bind \"$FROM\" \"$TO\"", "umount \"$TO\"", &places)
}
