//! Older versions of files.

use crate::client::{Client, second};
use crate::stage::Action;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use vfsx_tests::lab::give_to_user;
use vfsx_tests::smb::Open;
use vfsx_tests::testlab::TestLab;

/// As Windows has it.
const READ: u32 = 0x0012_0089;
const WRITE: u32 = 0x0012_0116;

/// A snapshot as `shadow_copy2` wants it: when it was made, in seconds since 1970, and the same as its name.
type Snapshot = (u64, &'static str);
const READ_ONLY: [Snapshot; 2] = [
    (1_577_934_245, "@GMT-2020.01.02-03.04.05"),
    (1_577_934_246, "@GMT-2020.01.02-03.04.06"),
];
const KEPT: Snapshot = (1_577_934_247, "@GMT-2020.01.02-03.04.07");
const OLD: &[u8] = b"as it was then";
const NEW: &[u8] = b"as it is now";

/// With `shadow_copy2` on btrfs: older versions of files, in snapshots of the whole file system. A file and its older version have
/// one inode number there.
pub const ACTIONS: &[Action] = &[
    Action {
        name: "read an old version",
        before: |c| {
            c.file("f", OLD)
                .and(make_snapshot(c, READ_ONLY[0]))
                .and(c.write("f", 0, NEW))
        },
        act: |c| {
            let open = Open {
                access: Some(READ),
                ..old_version(READ_ONLY[0])
            };
            quietly(c, |c| {
                let handle = c.session.open(&c.at("f"), &open)?;
                let read = c.session.read(handle, 0, 100)?;
                ensure!(read == OLD, "{:?}", String::from_utf8_lossy(&read));
                c.session.close(handle)
            })
        },
        happened: |d| d.holds("f", 0, NEW),
        calls: &[],
    },
    Action {
        name: "change an old version",
        before: |c| {
            c.file("f", OLD)
                .and(make_snapshot(c, READ_ONLY[1]))
                .and(c.write("f", 0, NEW))
        },
        act: |c| {
            let old = old_version(READ_ONLY[1]);
            for (name, disposition) in [("f", "open"), ("f", "overwrite"), ("new", "create")] {
                let path = c.at(name);
                let open = Open {
                    disposition,
                    ..old.clone()
                };
                // smbd may refuse the open, or what follows it.
                if let Ok(handle) = c.session.open(&path, &open) {
                    let (write, cut) = (c.session.write(handle, 0, NEW), c.session.truncate(handle, 3));
                    ensure!(write.is_err() && cut.is_err(), "an old version was changed");
                    c.session.close(handle)?;
                }
            }
            let kept = fs::read(snapshot_of(c, READ_ONLY[1], "f")?)?;
            ensure!(
                kept == OLD,
                "the snapshot has {:?}",
                String::from_utf8_lossy(&kept)
            );
            c.lab.settle()?;
            c.lab.check_no_gap()
        },
        happened: |d| d.holds("f", 0, NEW).and(d.has_names(&["f"])),
        calls: &[],
    },
];

/// Snapshots are directories to `shadow_copy2`, and Samba 4.17 leaves it to them to be read-only.
pub const WRITABLE: &[Action] = &[Action {
    name: "change an old version that is no part of the share",
    before: |c| {
        c.file("f", NEW)?;
        let old = snapshot_of(c, KEPT, "f")?;
        fs::create_dir_all(old.parent().context("a directory")?)?;
        fs::write(&old, OLD)?;
        give_to_user(&snapshot(c, KEPT)?)
    },
    act: |c| {
        let handle = c.session.open(&c.at("f"), &old_version(KEPT))?;
        c.session.write(handle, 0, b"changed")?;
        c.session.truncate(handle, 7)?;
        c.session.close(handle)?;
        let changed = fs::read(snapshot_of(c, KEPT, "f")?)?;
        ensure!(changed == b"changed", "{:?}", String::from_utf8_lossy(&changed));
        // It has the path of the file that is in the share.
        c.restored()?.disk.holds("f", 0, NEW)
    },
    happened: |d| d.holds("f", 0, NEW),
    calls: &["pwrite_send", "ftruncate"],
}];

fn old_version((second_of_it, _): Snapshot) -> Open<'static> {
    Open {
        disposition: "open",
        access: Some(READ | WRITE),
        snapshot: Some(second(second_of_it)),
        ..Open::default()
    }
}

/// Beside the share, at the top of its file system.
fn snapshot(c: &Client<'_>, (_, name): Snapshot) -> Result<PathBuf> {
    let top = c.lab.share("data")?.parent().context("the file system's top")?;
    Ok(top.join(".snapshots").join(name))
}

/// Where the snapshot has a file.
fn snapshot_of(c: &Client<'_>, of: Snapshot, name: &str) -> Result<PathBuf> {
    let file = c.disk(name)?;
    let top = c.lab.share("data")?.parent().context("the file system's top")?;
    Ok(snapshot(c, of)?.join(file.strip_prefix(top)?))
}

fn make_snapshot(c: &Client<'_>, of: Snapshot) -> Result<()> {
    let place = snapshot(c, of)?;
    let top = c.lab.share("data")?.parent().context("the file system's top")?;
    fs::create_dir_all(place.parent().context("a directory")?)?;
    let output = Command::new("btrfs")
        .args(["subvolume", "snapshot", "-r"])
        .args([top, &place])
        .output()
        .context("run btrfs (package btrfs-progs)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "btrfs: {}", said.trim());
    Ok(())
}

/// Works, and has vfsxd hear of nothing.
fn quietly(c: &mut Client<'_>, work: impl FnOnce(&mut Client<'_>) -> Result<()>) -> Result<()> {
    let before = records(c.lab)?;
    work(c)?;
    c.lab.settle()?;
    let heard = records(c.lab)? - before;
    ensure!(heard == 0, "{heard} records of what changes nothing");
    Ok(())
}

/// In vfsxd's journal.
fn records(lab: &TestLab) -> Result<u64> {
    let status = lab.status()?;
    let head = status.pointer("/journal/head").and_then(Value::as_u64);
    head.with_context(|| format!("status without journal: {status}"))
}
