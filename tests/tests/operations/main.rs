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
mod space;
mod special;
mod stage;
mod streams;
mod unix;

use anyhow::{Result, ensure};
use stage::{SMB1, Stage, hooks};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use vfsx_tests::lab::{LabOptions, Mode, give_to_user};
use vfsx_tests::loopfs::FileSystem;
use vfsx_tests::testlab::{TestLab, with_lab_on};

/// Without these smbd gives out no durable handles.
const DURABLE: [&str; 2] = ["posix locking = no", "kernel share modes = no"];
const CATIA: &str = "catia:mappings = 0x22:0xa8";
// Good for all shares or for none.
const COPYFILE: &str = "fruit:copyfile = yes";
const RECOMMENDED: &str = "catia fruit streams_xattr acl_xattr shadow_copy2 full_audit vfsx";

/// Hooks that actions reach where no log of theirs tells it: when a client comes and goes, and in a process of its own that
/// changes DFS links.
const ELSEWHERE: [&str; 3] = ["connect", "disconnect", "create_dfs_pathat"];

const EXT4: &[Stage] = &[
    Stage {
        name: "alone",
        objects: "vfsx",
        global: &[],
        share: &[],
        actions: &[
            content::ACTIONS,
            space::ACTIONS,
            names::ACTIONS,
            metadata::ACTIONS,
        ],
    },
    Stage {
        name: "acls",
        objects: "acl_xattr full_audit vfsx",
        global: &[],
        share: &[],
        actions: &[
            content::ACTIONS,
            space::ACTIONS,
            names::ACTIONS,
            metadata::ACTIONS,
            special::KEPT_ACLS,
            special::CANCELLED,
        ],
    },
    Stage {
        name: "recommended",
        objects: RECOMMENDED,
        global: &[COPYFILE],
        share: &[CATIA],
        actions: &[
            content::ACTIONS,
            space::ACTIONS,
            names::ACTIONS,
            metadata::ACTIONS,
            streams::ACTIONS,
            mac::ACTIONS,
            special::TRANSLATED,
        ],
    },
    Stage {
        name: "recycled",
        objects: "streams_xattr acl_xattr recycle shadow_copy2 vfsx",
        global: &[],
        share: &["recycle:keeptree = yes", "recycle:versions = yes"],
        actions: &[names::ACTIONS, streams::ACTIONS, special::RECYCLED],
    },
    Stage {
        name: "snapshots",
        objects: "shadow_copy2 full_audit vfsx",
        global: &[],
        share: &[],
        actions: &[special::WRITABLE_SNAPSHOTS],
    },
    Stage {
        name: "unix",
        objects: "full_audit vfsx",
        global: &[SMB1, "host msdfs = yes"],
        share: &["admin users = vfsxlab", "msdfs root = yes"],
        actions: &[unix::ACTIONS, unix::ADMIN],
    },
    Stage {
        name: "strict",
        objects: "full_audit vfsx",
        global: &["min receivefile size = 16384", "server smb encrypt = off"],
        share: &["strict allocate = yes", DURABLE[0], DURABLE[1]],
        actions: &[special::STRICT, special::RECEIVED, handles::ACTIONS],
    },
    Stage {
        name: "hasty",
        objects: "full_audit vfsx",
        global: &[],
        share: &["strict sync = no"],
        actions: &[special::SYNCED],
    },
    Stage {
        name: "careful",
        objects: "full_audit vfsx",
        global: &[],
        share: &["sync always = yes"],
        actions: &[special::SYNCED],
    },
    Stage {
        name: "mapped",
        objects: "full_audit vfsx",
        global: &["unix charset = ISO8859-1"],
        share: &[
            "store dos attributes = no",
            "create mask = 0777",
            "map archive = yes",
            "map hidden = yes",
            "map system = yes",
            "veto files = /*.veto/",
            "delete veto files = yes",
        ],
        actions: &[special::MAPPED, special::LATIN, special::VETOED],
    },
    Stage {
        name: "heirs",
        objects: "full_audit vfsx",
        global: &[],
        share: &["inherit owner = yes", "admin users = vfsxlab"],
        actions: &[unix::HEIRS],
    },
];

const XFS: &[Stage] = &[
    Stage {
        name: "depot",
        objects: "streams_depot acl_xattr full_audit vfsx",
        global: &[],
        share: &[],
        actions: &[content::ACTIONS, space::ACTIONS, names::ACTIONS, streams::ACTIONS],
    },
    Stage {
        name: "fruit",
        objects: "fruit streams_xattr acl_xattr vfsx",
        global: &[COPYFILE],
        share: &[],
        actions: &[
            content::ACTIONS,
            space::ACTIONS,
            names::ACTIONS,
            metadata::ACTIONS,
            streams::ACTIONS,
            mac::ACTIONS,
        ],
    },
    Stage {
        name: "threads",
        objects: "full_audit vfsx aio_pthread",
        // With it, which is the default, files are never opened in threads.
        global: &["server multi channel support = no"],
        share: &["aio_pthread:aio open = yes"],
        // No durable handles: nobody gets one back of a file that a thread has made.
        actions: &[
            special::OPENED_LATER,
            content::ACTIONS,
            space::ACTIONS,
            names::ACTIONS,
        ],
    },
    Stage {
        name: "bytes",
        objects: "vfsx",
        global: &[],
        share: &[],
        actions: &[special::BYTES],
    },
];

const BTRFS: &[Stage] = &[
    Stage {
        name: "clones",
        objects: "full_audit vfsx btrfs",
        global: &[],
        share: &DURABLE,
        actions: &[
            content::ACTIONS,
            space::ACTIONS,
            names::ACTIONS,
            metadata::ACTIONS,
            special::CLONED,
            special::COMPRESSED,
            handles::ACTIONS,
        ],
    },
    Stage {
        name: "rings",
        objects: "fruit streams_xattr acl_xattr vfsx io_uring",
        global: &[COPYFILE],
        share: &[],
        actions: &[content::ACTIONS, space::ACTIONS, streams::ACTIONS, mac::ACTIONS],
    },
    Stage {
        name: "snapshots",
        objects: "shadow_copy2 full_audit vfsx btrfs",
        global: &[],
        share: &[],
        actions: &[special::SNAPSHOTS],
    },
];

/// In mode `copy`, what has to do with content; all else is told the same way whatever the file system, and ext4 has all of it.
const XFS_COPY: &[Stage] = &[
    Stage {
        name: "depot",
        objects: "streams_depot acl_xattr full_audit vfsx",
        global: &[],
        share: &[],
        actions: &[content::ACTIONS, space::ACTIONS, streams::ACTIONS],
    },
    Stage {
        name: "bytes",
        objects: "vfsx",
        global: &[],
        share: &[],
        actions: &[special::BYTES],
    },
];

const BTRFS_COPY: &[Stage] = &[
    Stage {
        name: "clones",
        objects: "full_audit vfsx btrfs",
        global: &[],
        share: &[],
        actions: &[space::ACTIONS, special::CLONED, special::COMPRESSED],
    },
    Stage {
        name: "rings",
        objects: "fruit streams_xattr acl_xattr vfsx io_uring",
        global: &[COPYFILE],
        share: &[],
        actions: &[content::ACTIONS, space::ACTIONS, streams::ACTIONS, mac::ACTIONS],
    },
    Stage {
        name: "snapshots",
        objects: "shadow_copy2 full_audit vfsx btrfs",
        global: &[],
        share: &[],
        actions: &[special::SNAPSHOTS],
    },
];

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
