//! What only some ways to set up smbd lead to.

use crate::client::Client;
use crate::disk::Disk;
use crate::space::copy;
use crate::stage::{Action, NOTHING};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;
use vfsx_tests::smb::{Basic, Open, Session};
use vfsx_tests::wait;
use vfsx_tests::work::walk;

const HIDDEN: u32 = 2;
const SYSTEM: u32 = 4;
/// How long smbd may take with what was sent before a connection is lost.
const CUT_LIMIT: Duration = Duration::from_secs(10);

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
    Action {
        name: "new file of which half comes",
        before: NOTHING,
        act: |c| cut(c, "create", 0),
        happened: |d| d.has_size("f", HALF as u64).and(d.holds("f", 0, &[b'r'; HALF])),
        calls: &["recvfile"],
    },
    Action {
        name: "write of which half comes",
        before: |c| c.file("f", &[b'o'; 3 * HALF]),
        act: |c| cut(c, "open", 1000),
        happened: |d| {
            d.has_size("f", 3 * HALF as u64)
                .and(d.holds("f", 0, &[b'o'; 1000]))
                .and(d.holds("f", 1000, &[b'r'; HALF]))
                .and(d.holds("f", 1000 + HALF, &[b'o'; 1000]))
        },
        calls: &["recvfile"],
    },
];

/// Of a write, in bytes.
const HALF: usize = 300_000;

/// A client of its own sends half of a write, and is lost.
fn cut(c: &Client<'_>, disposition: &str, offset: usize) -> Result<()> {
    let mut session = Session::connect(c.lab, "data")?;
    let handle = session.create(&c.at("f"), disposition)?;
    session.cut_write(handle, offset as u64, &[b'r'; 2 * HALF], HALF)?;
    let disk = Disk { dir: c.disk("")? };
    let last = offset + HALF - 1;
    let there = || disk.holds("f", last, b"r").ok();
    wait::until("the half that was sent", CUT_LIMIT, there, String::new)
}

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

/// With `virusfilter` that finds something in files by this name when they are opened or closed, and takes them away from clients.
pub const INFECTED: &[Action] = &[
    Action {
        name: "close an infected file",
        before: |c| c.noise("clean", 1000),
        act: |c| {
            c.noise("eicar", 100_000)
                .and(c.write("clean", 500, b"clean still"))
        },
        happened: |d| is_in_quarantine(d, "eicar", 100_000).and(d.has_names(&["clean"])),
        calls: &["openat", "mkdirat", "renameat"],
    },
    Action {
        name: "open a file that was infected elsewhere",
        before: |c| {
            c.noise("x", 200_000)?;
            c.rename("x", "eicar")
        },
        act: |c| {
            let open = Open {
                disposition: "open",
                ..Open::default()
            };
            c.refused("eicar", &open)
        },
        happened: |d| is_in_quarantine(d, "eicar", 200_000).and(d.has_names(&[])),
        calls: &["renameat"],
    },
];

/// Below which directories, and what is added to its name, is the module's affair.
fn is_in_quarantine(d: &Disk, name: &str, size: u64) -> Result<()> {
    let share = d.dir.ancestors().nth(2).context("the share's directory")?;
    let quarantine = share.join(".quarantine");
    let (kept, _) = walk(&quarantine)?;
    let is_it = |path: &PathBuf| {
        path.to_string_lossy().contains(name)
            && quarantine
                .join(path)
                .metadata()
                .is_ok_and(|kept| kept.len() == size)
    };
    ensure!(kept.iter().any(is_it), "{size} bytes are not among {kept:?}");
    Ok(())
}

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
