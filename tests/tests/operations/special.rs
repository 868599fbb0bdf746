//! What only some ways to set up smbd lead to.

use crate::client::{Client, second};
use crate::space::copy;
use crate::stage::{Action, NOTHING};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use vfsx_tests::lab::give_to_user;
use vfsx_tests::smb::{Basic, Open, Session};
use vfsx_tests::testlab::TestLab;

const HIDDEN: u32 = 2;
const SYSTEM: u32 = 4;
/// As Windows has it.
const READ: u32 = 0x0012_0089;
const WRITE: u32 = 0x0012_0116;

/// With `strict allocate = yes`.
pub const STRICT: &[Action] = &[
    Action {
        name: "allocate more",
        before: |c| c.noise("f", 10_000),
        act: |c| c.with("f", "open", |session, handle| session.allocate(handle, 1 << 20)),
        happened: |d| {
            let blocks = d.stat("f")?.blocks();
            ensure!(blocks >= 2048, "{blocks} blocks are allocated");
            d.has_size("f", 10_000)
        },
        calls: &["fallocate"],
    },
    Action {
        name: "grow",
        before: |c| c.noise("f", 100_001),
        act: |c| c.resize("f", 400_000),
        happened: |d| d.has_size("f", 400_000),
        calls: &["ftruncate", "fallocate"],
    },
    Action {
        name: "write beyond the end",
        before: |c| c.noise("f", 10_000),
        act: |c| c.write("f", 500_000, b"far"),
        happened: |d| d.holds("f", 500_000, b"far"),
        calls: &["pwrite_send"],
    },
    Action {
        name: "zeros",
        before: |c| c.noise("f", 300_000),
        act: |c| c.zero("f", 65_536, 200_000),
        happened: |d| d.is_zero("f", 65_536..200_000),
        calls: &["fallocate"],
    },
    Action {
        name: "new file that is refused in the end",
        before: NOTHING,
        act: |c| {
            // More space than the disk has: smbd finds out when the file is there.
            let open = Open {
                disposition: "create",
                allocation: Some(1 << 50),
                ..Open::default()
            };
            c.refused("f", &open)
        },
        happened: |d| d.has_names(&["f"]),
        calls: &["openat"],
    },
];

/// With `min receivefile size`, and without encryption: smbd takes the data from the socket into the file.
pub const RECEIVED: &[Action] = &[
    Action {
        name: "new file from the socket",
        before: NOTHING,
        act: |c| c.file("f", &[b'r'; 3_000_000]),
        happened: |d| d.holds("f", 2_999_000, &[b'r'; 1000]),
        calls: &["recvfile"],
    },
    Action {
        name: "write from the socket into a file",
        before: |c| c.noise("f", 400_000),
        act: |c| c.write("f", 70_000, &[b'r'; 200_000]),
        happened: |d| d.holds("f", 70_000, &[b'r'; 200_000]),
        calls: &["recvfile"],
    },
];

/// With `aio_pthread:aio open`: a thread makes the file, and smbd asks again when it is there.
pub const OPENED_LATER: &[Action] = &[Action {
    name: "new file by a thread",
    before: NOTHING,
    act: |c| c.file("f", b"made by a thread"),
    happened: |d| d.holds("f", 0, b"made by a thread"),
    calls: &["openat", "openat later", "pwrite_send"],
}];

/// Whatever smbd makes of a FLUSH and of a write that is to be on the disk when it is answered.
pub const SYNCED: &[Action] = &[
    Action {
        name: "flush",
        before: |c| c.noise("f", 100_000),
        act: |c| {
            c.with("f", "open", |session, handle| {
                session.write(handle, 70_000, b"flushed")?;
                session.flush(handle)?;
                session.write(handle, 90_000, b"after")
            })
        },
        happened: |d| {
            d.holds("f", 70_000, b"flushed")
                .and(d.holds("f", 90_000, b"after"))
        },
        calls: &["pwrite_send"],
    },
    Action {
        name: "write through",
        before: |c| c.noise("f", 100_000),
        act: |c| {
            c.with("f", "open", |session, handle| {
                session.write_through(handle, 70_000, b"through")
            })
        },
        happened: |d| d.holds("f", 70_000, b"through"),
        calls: &["pwrite_send"],
    },
    Action {
        name: "new file in one packet",
        before: NOTHING,
        act: |c| {
            let path = c.at("f");
            c.session.create_write_close(&path, b"compound")
        },
        happened: |d| d.holds("f", 0, b"compound"),
        calls: &["pwrite"],
    },
];

/// What a client has asked for and does not want any more.
pub const CANCELLED: &[Action] = &[
    Action {
        name: "write that is cancelled",
        before: |c| c.noise("f", 100_000),
        act: |c| {
            c.with("f", "open", |session, handle| {
                session.cancelled_write(handle, 50_000, &[7; 1 << 20])
            })
        },
        // smbd does not heed it.
        happened: |d| d.has_size("f", 50_000 + (1 << 20)),
        calls: &["pwrite_send"],
    },
    Action {
        name: "wait for a lock that is cancelled",
        before: |c| c.noise("f", 100_000),
        act: |c| {
            let (mine, path) = (c.open("f", "open")?, c.at("f"));
            let others = c.other.create(&path, "open")?;
            c.other.lock(others, 0, 1000)?;
            let status = c.session.cancelled_lock(mine, 0, 1000)?;
            ensure!(status == "STATUS_CANCELLED", "{status}");
            c.session.write(mine, 50_000, b"beside the lock")?;
            ensure!(
                c.session.write(mine, 10, b"locked").is_err(),
                "locked bytes were written"
            );
            c.other.write(others, 10, b"in the lock")?;
            c.other.close(others)?;
            c.session.close(mine)
        },
        happened: |d| {
            d.holds("f", 10, b"in the lock")
                .and(d.holds("f", 50_000, b"beside the lock"))
        },
        calls: &["pwrite_send"],
    },
];

/// With DOS attributes kept in the mode.
pub const MAPPED: &[Action] = &[Action {
    name: "hide a file",
    before: |c| c.noise("f", 1000),
    act: |c| {
        c.set_basic(
            "f",
            Basic {
                attributes: HIDDEN | SYSTEM,
                ..Basic::default()
            },
        )
    },
    happened: |d| {
        let mode = d.stat("f")?.mode();
        ensure!(mode & 0o011 == 0o011, "{mode:o}");
        Ok(())
    },
    calls: &["fchmod"],
}];

/// With `unix charset = ISO8859-1`: names on the disk are not UTF-8.
pub const LATIN: &[Action] = &[
    Action {
        name: "new names",
        before: NOTHING,
        act: |c| {
            c.file("Ärger", b"1")
                .and(c.folder("größe"))
                .and(c.noise("größe/ß", 100_000))
        },
        happened: |d| {
            ensure!(d.names()?.contains(&b"\xc4rger"[..]), "{:?}", d.names()?);
            Ok(())
        },
        calls: &["openat", "mkdirat"],
    },
    Action {
        name: "other names",
        before: |c| {
            c.folder("größe")
                .and(c.noise("größe/ß", 100_000))
                .and(c.file("é", b"1"))
        },
        act: |c| {
            c.rename("größe", "ö")?;
            c.write("ö/ß", 70_000, b"changed")?;
            c.delete("é")
        },
        happened: |d| {
            ensure!(d.names()? == [b"\xf6".to_vec()].into(), "{:?}", d.names()?);
            Ok(())
        },
        calls: &["renameat", "pwrite_send", "unlinkat"],
    },
];

/// On a tree that had such names before vfsxd knew it.
pub const BYTES: &[Action] = &[Action {
    name: "rename what holds them",
    before: NOTHING,
    act: |c| c.rename("a", "z").and(c.file("z/new", b"beside them")),
    happened: |d| d.has_names(&["z"]).and(d.stat("z/new").map(drop)),
    calls: &[],
}];

/// With `acl_xattr`: what a client sets is kept as it is.
pub const KEPT_ACLS: &[Action] = &[Action {
    name: "rights as they were given",
    before: |c| c.noise("f", 1000),
    act: |c| {
        c.with("f", "open", |session, handle| {
            session.grant(handle, "S-1-1-0", 0x0012_0089)
        })
    },
    happened: |d| {
        ensure!(
            d.attribute("f", "security.NTACL")?.is_some(),
            "the rights are not kept"
        );
        Ok(())
    },
    calls: &["fset_nt_acl", "fsetxattr"],
}];

/// With `catia`: clients see other characters than the disk has.
pub const TRANSLATED: &[Action] = &[Action {
    name: "characters that Windows does not take",
    before: |c| c.file("old\u{a8}", b"1"),
    act: |c| {
        c.file("a\u{a8}b", b"2")
            .and(c.rename("old\u{a8}", "new\u{a8}"))
            .and(c.file("a\u{a8}b:s", b"3"))
    },
    happened: |d| d.has_names(&["a\"b", "new\""]),
    calls: &["openat", "renameat", "fsetxattr"],
}];

/// With `recycle`: a delete is a move.
pub const RECYCLED: &[Action] = &[
    Action {
        name: "delete into the bin",
        before: |c| c.noise("f", 1000).and(c.folder("a")).and(c.noise("a/g", 1000)),
        act: |c| c.delete("f").and(c.delete("a/g")).and(c.delete("a")),
        happened: |d| {
            let share = d.dir.ancestors().nth(2).context("the share's directory")?;
            let kept = share.join(".recycle").join(d.dir.strip_prefix(share)?);
            ensure!(
                kept.join("f").exists() && kept.join("a/g").exists(),
                "nothing in {}",
                kept.display()
            );
            d.has_names(&[])
        },
        calls: &["mkdirat", "renameat", "unlinkat"],
    },
    Action {
        name: "delete into the bin twice",
        before: |c| c.file("f", b"first"),
        act: |c| c.delete("f").and(c.file("f", b"second")).and(c.delete("f")),
        happened: |d| d.has_names(&[]),
        calls: &["renameat"],
    },
];

/// With `delete veto files`: what clients do not see goes with its directory.
pub const VETOED: &[Action] = &[Action {
    name: "remove a directory with a hidden file",
    before: |c| {
        c.folder("a")?;
        Ok(fs::write(c.disk("a/f.veto")?, "made by the server itself")?)
    },
    act: |c| c.delete("a"),
    happened: |d| d.has_names(&[]),
    calls: &["unlinkat"],
}];

/// With `btrfs`: two files with the same space on disk.
pub const CLONED: &[Action] = &[Action {
    name: "duplicate extents",
    before: |c| c.noise("a", 1 << 20).and(c.noise("b", 1 << 19)),
    act: |c| {
        copy(c, "open", |session, a, b| {
            session.duplicate_range((a, 0), (b, 0), 1 << 19)
        })
    },
    happened: |d| d.holds("b", 0, &fs::read(d.path("a"))?[..1 << 19]),
    calls: &["offload_write_send", "offload_write_recv"],
}];

/// A snapshot as `shadow_copy2` wants it: when it was made, in seconds since 1970, and the same as its name.
type Snapshot = (u64, &'static str);
const READ_ONLY: [Snapshot; 2] = [
    (1_577_934_245, "@GMT-2020.01.02-03.04.05"),
    (1_577_934_246, "@GMT-2020.01.02-03.04.06"),
];
const WRITABLE: Snapshot = (1_577_934_247, "@GMT-2020.01.02-03.04.07");
const OLD: &[u8] = b"as it was then";
const NEW: &[u8] = b"as it is now";

/// With `shadow_copy2` on btrfs: older versions of files, in snapshots of the whole file system. A file and its older version have
/// one inode number there.
pub const SNAPSHOTS: &[Action] = &[
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
pub const WRITABLE_SNAPSHOTS: &[Action] = &[Action {
    name: "change an old version that is no part of the share",
    before: |c| {
        c.file("f", NEW)?;
        let old = snapshot_of(c, WRITABLE, "f")?;
        fs::create_dir_all(old.parent().context("a directory")?)?;
        fs::write(&old, OLD)?;
        give_to_user(&snapshot(c, WRITABLE)?)
    },
    act: |c| {
        let handle = c.session.open(&c.at("f"), &old_version(WRITABLE))?;
        c.session.write(handle, 0, b"changed")?;
        c.session.truncate(handle, 7)?;
        c.session.close(handle)?;
        let changed = fs::read(snapshot_of(c, WRITABLE, "f")?)?;
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

/// With `btrfs`: how the file system stores a file is not replicated, and what clients read is.
pub const COMPRESSED: &[Action] = &[
    Action {
        name: "compress a file",
        before: |c| c.noise("f", 1000),
        act: |c| {
            c.with("f", "open", |session, handle| {
                session.compress(handle)?;
                session.write(handle, 0, &[b'a'; 300_000])?;
                session.set_extended(handle, &[("Origin", "here")])
            })
        },
        happened: |d| {
            d.has_attribute("f", COMPRESSION, b"zlib")
                .and(d.has_attribute("f", "user.Origin", b"here"))
        },
        calls: &["fsetxattr"],
    },
    Action {
        name: "new file in a compressed directory",
        before: |c| {
            c.folder("a")?;
            c.with("a", "open", Session::compress)
        },
        act: |c| c.file("a/f", &[b'a'; 300_000]).and(c.folder("a/b")),
        happened: |d| {
            d.has_attribute("a/f", COMPRESSION, b"zlib")
                .and(d.has_attribute("a/b", COMPRESSION, b"zlib"))
        },
        calls: &["openat", "mkdirat"],
    },
];

/// By which btrfs shows the flag.
const COMPRESSION: &str = "btrfs.compression";
