//! What clients do on a share comes back identical: content, owner, mode, times, links, attributes, ACLs.

use anyhow::{Result, ensure};
use std::fs;
use std::process::Command;
use vfsx_tests::lab::SambaOptions;
use vfsx_tests::smb::SmbClient;
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
