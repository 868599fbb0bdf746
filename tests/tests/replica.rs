//! What clients do on a share comes back identical: content, owner, mode, times, links, attributes, ACLs.

use anyhow::{Context, Result, ensure};
use std::process::Command;
use vfsx_tests::smb::Session;
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
fn streams_and_nt_acls_come_back_through_a_stack_of_modules() {
    with_lab(
        |options| options.samba.vfs_objects = "catia fruit streams_xattr acl_xattr vfsx".to_owned(),
        |lab| {
            lab.source_tree(200, 4)?.copy_in(lab, "data")?;
            streams(lab)?;
            work::work(lab, "data", 0, &mut |_| {})?;
            lab.settle()?;
            lab.check_replica("site1")?;
            let stored = stored_attributes(lab)?;
            ensure!(
                stored.contains("user.DosStream.note"),
                "the stream is not kept in an attribute: {stored}"
            );
            ensure!(
                stored.contains("security.NTACL"),
                "the ACL is not kept in an attribute: {stored}"
            );
            Ok(())
        },
    );
}

/// A file with an alternate stream and an ACL of its own.
fn streams(lab: &TestLab) -> Result<()> {
    let mut session = Session::connect(lab, "data")?;
    let file = session.create("noted", "create")?;
    session.write(file, 0, b"main stream")?;
    session.grant(file, "S-1-1-0", 0x0012_0089)?;
    let stream = session.create("noted:note", "create")?;
    session.write(stream, 0, b"beside it")?;
    session.close(stream)?;
    session.close(file)
}

fn stored_attributes(lab: &TestLab) -> Result<String> {
    let file = lab.share("data")?.join("noted");
    let output = Command::new("getfattr")
        .args(["--match=-", "--absolute-names"])
        .arg(file)
        .output();
    Ok(String::from_utf8_lossy(&output.context("run getfattr (package attr)")?.stdout).into_owned())
}
