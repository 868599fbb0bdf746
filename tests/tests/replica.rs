//! What clients do on a share comes back identical: content, owner, mode, times, links, attributes, ACLs.

use anyhow::{Result, ensure};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use vfsx_tests::guard::Guard;
use vfsx_tests::lab::{Mode, SambaOptions, give_to_user};
use vfsx_tests::loopfs::{FileSystem, LoopFs};
use vfsx_tests::smb::{Session, SmbClient};
use vfsx_tests::testlab::{TestLab, with_lab};
use vfsx_tests::work;

#[test]
fn every_kind_of_change_comes_back_and_so_does_an_earlier_point() {
    with_lab(
        |_| {},
        |lab| {
            lab.source_tree(600, 24)?.copy_in(lab, "data")?;
            work::work(lab, "data", 0, &mut |_| {})?;
            lab.settle()?;
            lab.check_replica("site1")?;

            let point = lab.site("site1")?.head()?;
            let then = lab.dir().join("then");
            let copied = Command::new("cp")
                .arg("-a")
                .args([lab.share("data")?, &then])
                .status()?;
            ensure!(copied.success(), "cp of the share");
            work::work(lab, "data", 1, &mut |_| {})?;
            lab.settle()?;
            lab.check_replica("site1")?;
            lab.check_point("site1", Some(point), &then)
        },
    );
}

#[test]
fn a_wrong_order_of_modules_is_said_with_the_right_one() {
    let wrong = "io_uring vfsx streams_xattr acl_xattr recycle";
    let right = "streams_xattr acl_xattr recycle vfsx io_uring";
    with_lab(
        |options| options.samba.vfs_objects = wrong.to_owned(),
        |lab| {
            let client = SmbClient::new(lab, "data");
            client.run(&["ls"])?;
            let said = log(lab)?;
            ensure!(
                said.contains(
                    "share data: wrong order of vfs objects: io_uring before vfsx: changes are missed"
                ),
                "nothing is said: {said}"
            );
            // What is said can be pasted.
            ensure!(said.contains(&format!("set: vfs objects = {right}\n")), "{said}");

            lab.restart_samba(&SambaOptions::with_objects(right))?;
            client.run(&["ls"])?;
            let more = log(lab)?.split_off(said.len());
            ensure!(
                !more.contains("vfs objects"),
                "the right order is complained about: {more}"
            );
            Ok(())
        },
    );
}

fn log(lab: &TestLab) -> Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(&lab.smbd.log)?).into_owned())
}

/// Where rename(2) fails because the new name is on another file system, this module copies and removes.
const CROSSRENAME: &str = "streams_xattr acl_xattr crossrename vfsx";

/// A directory of the other file system stands in the share's as `other`.
const MOUNT: &str = r#"mkdir -p "$DISK/in" "$AT" && mount --bind "$DISK/in" "$AT""#;

#[test]
fn a_rename_to_another_file_system_within_the_share_comes_back_as_far_as_it_went() {
    let shares = tempfile::tempdir().expect("a directory");
    let disk = LoopFs::make(FileSystem::Ext4).expect("a file system");
    let (root, at) = (disk.path(), shares.path().join("data/other"));
    let variables = [("DISK", root.as_os_str()), ("AT", at.as_os_str())];
    let mounted = Guard::new(MOUNT, r#"umount "$AT""#, &variables).expect("a mount");
    with_lab(
        |options| {
            options.shares = Some(shares.path().to_owned());
            options.vfsxd = false;
        },
        |lab| {
            give_to_user(&at)?;
            lab.vfsxd.start()?;
            for mode in [Mode::Map, Mode::Copy] {
                let mut options = SambaOptions::with_objects(CROSSRENAME);
                options.mode = mode;
                lab.restart_samba(&options)?;
                rename_across(lab, mode)?;
            }
            lab.settle()?;
            lab.check_captured(2)?;
            lab.check_replica("site1")
        },
    );
    mounted.release().expect("nothing uses it any more");
}

/// There, and from there.
fn rename_across(lab: &TestLab, mode: Mode) -> Result<()> {
    let mut session = Session::connect(lab, "data")?;
    lab.wait_for_mode(mode)?;
    let share = lab.share("data")?;
    for (from, to) in [("here", "other/there"), ("other/here", "there")] {
        let [from, to] = [from, to].map(|name| format!("{name}-{}", mode.as_str()));
        session.put(&to, b"to be replaced")?;
        let handle = session.create(&from, "create")?;
        session.fill(handle, 0, 300_000, 1)?;
        // So that nothing but the rename's own events can bring it over.
        lab.settle()?;
        // The module of Samba 4.17 removes what has the new name, and then finds that it cannot go on.
        session.rename_open(handle, &to, true).ok();
        session.close(handle)?;
        let left = fs::read(share.join(&to)).ok();
        ensure!(left.is_none_or(|left| left.len() == 300_000), "{to} is untouched");
        let file = if share.join(&from).exists() { from } else { to };
        let is_beneath = share.join(&file).metadata()?.dev() != share.metadata()?.dev();
        ensure!(
            is_beneath == file.starts_with("other/"),
            "{file} is on the wrong disk"
        );
    }
    Ok(())
}
