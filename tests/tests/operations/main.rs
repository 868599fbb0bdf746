//! Everything that a client can change, by real clients on a real smbd: each action happens on the server's disk, each is captured
//! by its own events, and what the site gives back is what the disk has.

// A program has no outside: `pub` says what the other modules may use.
#![allow(unreachable_pub)]

mod client;
mod content;
mod disk;
mod handles;
mod mac;
mod metadata;
mod names;
mod snapshots;
mod space;
mod special;
mod stage;
mod stages;
mod streams;
mod unix;

use anyhow::{Result, ensure};
use stage::{Stage, hooks};
use stages::{BTRFS, BTRFS_COPY, EXT4, XFS, XFS_COPY};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use vfsx_tests::lab::{LabOptions, Mode, give_to_user};
use vfsx_tests::loopfs::FileSystem;
use vfsx_tests::testlab::{TestLab, with_lab_on};

/// Hooks that actions reach where no log of theirs tells it: when a client comes and goes, and in a process of its own that
/// changes DFS links.
const ELSEWHERE: [&str; 3] = ["connect", "disconnect", "create_dfs_pathat"];

fn on_ext4(mode: Mode) {
    with_lab_on(
        FileSystem::Ext4,
        |options| options.samba.mode = mode,
        |lab| {
            let seen = stage::run(lab, EXT4, mode, 1)?;
            let hooks = hooks();
            ensure!(
                hooks.len() > ELSEWHERE.len(),
                "the hooks are not found in the source any more"
            );
            let reached = |hook: &&str| seen.contains(*hook) || ELSEWHERE.contains(hook);
            let unreached: Vec<_> = hooks.iter().copied().filter(|hook| !reached(hook)).collect();
            ensure!(unreached.is_empty(), "no action leads to {unreached:?}");
            Ok(())
        },
    );
}

fn on_xfs(stages: &[Stage], mode: Mode) {
    let prepared = |options: &mut LabOptions| {
        options.vfsxd = false;
        options.samba.mode = mode;
    };
    with_lab_on(FileSystem::Xfs, prepared, |lab| {
        let directories = names_of_bytes(lab)?;
        lab.vfsxd.start()?;
        stage::run(lab, stages, mode, directories).map(drop)
    });
}

fn on_btrfs(stages: &[Stage], mode: Mode) {
    with_lab_on(
        FileSystem::Btrfs,
        |options| options.samba.mode = mode,
        |lab| stage::run(lab, stages, mode, 1).map(drop),
    );
}

#[test]
fn every_change_comes_back_from_ext4_and_every_hook_is_reached() {
    on_ext4(Mode::Map);
}

#[test]
fn every_change_comes_back_from_ext4_and_every_hook_is_reached_in_mode_copy() {
    on_ext4(Mode::Copy);
}

#[test]
fn every_change_comes_back_from_xfs() {
    on_xfs(XFS, Mode::Map);
}

#[test]
fn every_change_comes_back_from_xfs_in_mode_copy() {
    on_xfs(XFS_COPY, Mode::Copy);
}

#[test]
fn every_change_comes_back_from_btrfs() {
    on_btrfs(BTRFS, Mode::Map);
}

#[test]
fn every_change_comes_back_from_btrfs_in_mode_copy() {
    on_btrfs(BTRFS_COPY, Mode::Copy);
}

/// A tree with names that are no UTF-8, which no client can have made. Returns how many directories the share has.
fn names_of_bytes(lab: &TestLab) -> Result<u64> {
    let odd = |bytes: &'static [u8]| OsStr::from_bytes(bytes);
    let stage = lab.share("data")?.join("bytes");
    let holder = stage.join("rename-what-holds-them/a");
    let deep = holder.join(odd(b"caf\xe9"));
    fs::create_dir_all(&deep)?;
    fs::write(holder.join(odd(b"\xff\xfe.txt")), "from another time")?;
    fs::write(deep.join(odd(b"\xc3(")), "from another time")?;
    give_to_user(&stage)?;
    Ok(5)
}
