//! What only some ways to set up smbd lead to.

use crate::client::{Client, second};
use crate::content::{copy, set_written};
use crate::stage::{Action, NOTHING};
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::process::{Command, Stdio};
use std::time::Duration;
use vfsx_tests::lab::BUCKET;
use vfsx_tests::rpc::Rpc;
use vfsx_tests::smb::{Basic, Descriptor, Open, Session, SmbClient};
use vfsx_tests::wait;

/// Some time that no test runs at.
const THEN: u64 = 1_000_000_000;
/// smbd writes a changed file's time 2 s after the write.
const WRITE_TIME_LIMIT: Duration = Duration::from_secs(10);
const HIDDEN: u32 = 2;
const SYSTEM: u32 = 4;
/// A user and a group of the server's, as Windows sees those that only UNIX knows.
const UNIX_USER: &str = "S-1-22-1-4321";
const UNIX_GROUP: &str = "S-1-22-2-4322";

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
        act: |c| c.with("f", "open", |session, handle| session.truncate(handle, 400_000)),
        happened: |d| d.has_size("f", 400_000),
        calls: &["ftruncate", "fallocate"],
    },
    Action {
        name: "write beyond the end",
        before: |c| c.noise("f", 10_000),
        act: |c| {
            c.with("f", "open", |session, handle| {
                session.write(handle, 500_000, b"far")
            })
        },
        happened: |d| d.holds("f", 500_000, b"far"),
        calls: &["pwrite_send"],
    },
    Action {
        name: "zeros",
        before: |c| c.noise("f", 300_000),
        act: |c| {
            c.with("f", "open", |session, handle| {
                session.zero(handle, 65_536, 200_000)
            })
        },
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

/// With `min receivefile size`: smbd takes the data from the socket into the file.
pub const RECEIVED: &[Action] = &[
    Action {
        name: "new file from the socket",
        before: NOTHING,
        act: |c| put(c, 3_000_000),
        happened: |d| d.holds("f", 2_999_000, &[b'r'; 1000]),
        calls: &["recvfile"],
    },
    Action {
        name: "other content from the socket",
        before: |c| c.noise("f", 400_000),
        act: |c| put(c, 200_000),
        happened: |d| d.holds("f", 0, &[b'r'; 200_000]),
        calls: &["recvfile"],
    },
];

/// With what durable handles need.
pub const DURABLE: &[Action] = &[
    Action {
        name: "come back to an open file",
        before: |c| c.noise("f", 300_000),
        act: |c| {
            let mut session = Session::connect(c.lab, "data")?;
            let handle = session.open(&c.at("f"), &durable("open"))?;
            session.write(handle, 70_000, b"before")?;
            // vfsxd reads the file now. smbd gives the handle back only when nothing at all has changed about the file.
            c.lab.settle()?;
            let handle = session.reconnect(handle)?;
            session.write(handle, 200_000, b"after")?;
            session.close(handle)
        },
        happened: |d| {
            d.holds("f", 70_000, b"before")
                .and(d.holds("f", 200_000, b"after"))
        },
        calls: &["durable_disconnect", "durable_reconnect", "pwrite_send"],
    },
    Action {
        name: "come back to a new file",
        before: NOTHING,
        act: |c| {
            let mut session = Session::connect(c.lab, "data")?;
            let handle = session.open(&c.at("f"), &durable("create"))?;
            session.write(handle, 0, b"before")?;
            let handle = session.reconnect(handle)?;
            c.lab.settle()?;
            let handle = session.reconnect(handle)?;
            session.write(handle, 6, b" and after")?;
            session.close(handle)
        },
        happened: |d| d.holds("f", 0, b"before and after"),
        calls: &["durable_disconnect", "durable_reconnect"],
    },
    Action {
        name: "never come back",
        before: |c| c.noise("f", 300_000),
        act: |c| {
            let mut session = Session::connect(c.lab, "data")?;
            let handle = session.open(&c.at("f"), &durable("open"))?;
            session.write(handle, 70_000, b"before")
        },
        happened: |d| d.holds("f", 70_000, b"before"),
        calls: &["pwrite_send"],
    },
    Action {
        name: "the time of a write that comes later",
        before: |c| c.noise("f", 100_000).and(set_written(c, "f", THEN)),
        act: |c| {
            let handle = c.open("f", "open")?;
            c.session.write(handle, 10, b"written")?;
            let at_once = c.written("f")?;
            let later = || c.written("f").is_ok_and(|now| now != at_once).then_some(());
            wait::until("the time of the write", WRITE_TIME_LIMIT, later, || {
                at_once.to_string()
            })?;
            c.lab.settle()?;
            // The file is open still, so nothing but this time has told of it.
            let (disk, site) = (c.written("f")?, written_at_site(c, "f")?);
            ensure!(disk == site, "written at {disk}, at the site {site}");
            c.session.close(handle)
        },
        happened: |d| d.holds("f", 10, b"written"),
        calls: &["fntimes"],
    },
];

/// With `admin users`: what only root may do.
pub const ADMIN: &[Action] = &[Action {
    name: "give a file away",
    before: |c| c.noise("f", 1000).and(c.folder("a")),
    act: |c| give_away(c, "f").and(give_away(c, "a")),
    happened: |d| d.belongs_to("f", 4321, 4322).and(d.belongs_to("a", 4321, 4322)),
    calls: &["fset_nt_acl", "fchown"],
}];

/// With `inherit owner`: new files belong to the owner of their directory.
pub const HEIRS: &[Action] = &[Action {
    name: "new file of another owner",
    before: |c| c.folder("a").and(give_away(c, "a")),
    act: |c| c.file("a/f", b"of another owner").and(c.folder("a/b")),
    happened: |d| {
        ensure!(
            d.stat("a/f")?.uid() == 4321 && d.stat("a/b")?.uid() == 4321,
            "not inherited"
        );
        Ok(())
    },
    calls: &["openat", "mkdirat"],
}];

/// With SMB1 and its UNIX extensions, as root.
pub const UNIX: &[Action] = &[
    Action {
        name: "special files",
        before: NOTHING,
        act: |c| {
            let at = ["fifo", "null", "disk"].map(|name| c.at(name));
            let unix1 = c.unix1()?;
            unix1.mknod(&at[0], "fifo", 0o640, (0, 0))?;
            unix1.mknod(&at[1], "character", 0o666, (1, 3))?;
            unix1.mknod(&at[2], "block", 0o600, (8, 17))
        },
        happened: |d| {
            let kind = |name| anyhow::Ok(d.stat(name)?.file_type());
            ensure!(
                kind("fifo")?.is_fifo() && kind("null")?.is_char_device() && kind("disk")?.is_block_device()
            );
            Ok(())
        },
        calls: &["mknodat"],
    },
    Action {
        name: "symbolic links",
        before: |c| c.noise("f", 1000),
        act: |c| {
            let at = ["l", "dangling"].map(|name| c.at(name));
            let unix1 = c.unix1()?;
            unix1.symlink(&at[0], "f")?;
            unix1.symlink(&at[1], "no/where")
        },
        happened: |d| {
            ensure!(fs::read_link(d.path("dangling"))?.ends_with("no/where"));
            Ok(())
        },
        calls: &["symlinkat"],
    },
    Action {
        name: "owner of a symbolic link",
        before: |c| {
            let at = c.at("l");
            c.unix1()?.symlink(&at, "no/where")
        },
        act: |c| {
            let at = c.at("l");
            c.unix1()?.chown(&at, "symlink", 4321, 4322)
        },
        happened: |d| d.belongs_to("l", 4321, 4322),
        calls: &["lchown"],
    },
    Action {
        name: "owner of a file",
        before: |c| c.noise("f", 1000),
        act: |c| {
            let at = c.at("f");
            c.unix1()?.chown(&at, "file", 4321, 4322)
        },
        happened: |d| d.belongs_to("f", 4321, 4322),
        calls: &[],
    },
    Action {
        name: "mode",
        before: |c| c.noise("f", 1000).and(c.folder("a")),
        act: |c| {
            let at = ["f", "a"].map(|name| c.at(name));
            let unix1 = c.unix1()?;
            unix1.chmod(&at[0], "file", 0o751)?;
            unix1.chmod(&at[1], "directory", 0o2750)
        },
        happened: |d| d.has_mode("f", 0o751).and(d.has_mode("a", 0o2750)),
        calls: &["fchmod"],
    },
    Action {
        name: "POSIX ACL",
        before: |c| c.noise("f", 1000).and(c.folder("a")),
        act: |c| {
            let at = ["f", "a"].map(|name| c.at(name));
            let access = [
                ("user_object", 7, None),
                ("user", 5, Some(4321)),
                ("group_object", 4, None),
                ("mask", 7, None),
                ("other", 0, None),
            ];
            let default = [
                ("user_object", 7, None),
                ("group_object", 5, None),
                ("other", 1, None),
            ];
            let unix1 = c.unix1()?;
            unix1.set_acl(&at[0], &access, None)?;
            unix1.set_acl(&at[1], &access, Some(&default))
        },
        happened: |d| {
            for (name, attribute) in [
                ("f", "system.posix_acl_access"),
                ("a", "system.posix_acl_default"),
            ] {
                ensure!(
                    d.attribute(name, attribute)?.is_some(),
                    "{name} has no {attribute}"
                );
            }
            Ok(())
        },
        calls: &["sys_acl_set_fd"],
    },
    Action {
        name: "hard link",
        before: |c| c.noise("f", 1000),
        act: |c| {
            let at = ["g", "f"].map(|name| c.at(name));
            c.unix1()?.hard_link(&at[0], &at[1])
        },
        happened: |d| d.is_one_file("f", "g"),
        calls: &["linkat"],
    },
    Action {
        name: "POSIX calls",
        before: |c| c.folder("empty").and(c.noise("f", 1000)),
        act: |c| {
            let client = SmbClient::new(c.lab, "data").by_smb1();
            let commands = [
                "posix",
                "posix_mkdir @/a 750",
                "posix_open @/a/new 640",
                "posix_rmdir @/empty",
                "posix_unlink @/f",
            ];
            c.run(&client, &commands)
        },
        happened: |d| d.has_names(&["a"]).and(d.stat("a/new").map(drop)),
        calls: &["mkdirat", "openat", "unlinkat"],
    },
    Action {
        name: "through a symbolic link",
        before: |c| {
            c.folder("a")?;
            c.noise("a/f", 100_000)?;
            let at = ["file", "dir"].map(|name| c.at(name));
            let unix1 = c.unix1()?;
            unix1.symlink(&at[0], "a/f")?;
            unix1.symlink(&at[1], "a")
        },
        act: |c| {
            c.with("file", "open", |session, handle| {
                session.write(handle, 70_000, b"through a link")
            })?;
            c.file("dir/new", b"in another directory")
        },
        happened: |d| {
            d.holds("a/f", 70_000, b"through a link")
                .and(d.holds("a/new", 0, b"in another directory"))
        },
        calls: &["pwrite_send", "openat"],
    },
    Action {
        name: "DFS referral",
        before: |c| {
            let at = c.at("junction");
            c.unix1()?.symlink(&at, "msdfs:first\\share")
        },
        act: add_referral,
        happened: |d| {
            let target = fs::read_link(d.path("junction"))?;
            ensure!(
                target.ends_with("msdfs:first\\share,second\\share"),
                "{}",
                target.display()
            );
            Ok(())
        },
        // Another process of Samba's does it, which has a log of its own.
        calls: &[],
    },
];

/// With DOS attributes kept in the mode.
pub const MAPPED: &[Action] = &[Action {
    name: "hide a file",
    before: |c| c.noise("f", 1000),
    act: |c| {
        c.with("f", "open", |session, handle| {
            session.set_basic(
                handle,
                Basic {
                    attributes: HIDDEN | SYSTEM,
                    ..Basic::default()
                },
            )
        })
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
            c.with("ö/ß", "open", |session, handle| {
                session.write(handle, 70_000, b"changed")
            })?;
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

/// By smbclient: smbd takes no data this way from connections as the Python clients make them.
fn put(c: &Client<'_>, length: usize) -> Result<()> {
    let local = c.lab.dir().join("run/received");
    fs::write(&local, vec![b'r'; length])?;
    SmbClient::new(c.lab, "data").put(&local, &c.at("f"))
}

fn durable(disposition: &str) -> Open<'_> {
    Open {
        disposition,
        durable: true,
        ..Open::default()
    }
}

fn give_away(c: &mut Client<'_>, name: &str) -> Result<()> {
    let descriptor = Descriptor {
        owner: Some(UNIX_USER),
        group: Some(UNIX_GROUP),
        ..Descriptor::default()
    };
    c.with(name, "open", |session, handle| {
        session.set_security(handle, &descriptor)
    })
}

/// Modification time that the site has, as clients give it.
fn written_at_site(c: &Client<'_>, name: &str) -> Result<u64> {
    let path = format!("/{}", c.at(name));
    let mut rpc = Rpc::connect(c.lab.site("site1")?)?;
    let answer = rpc.call(
        "object.stat",
        json!({ "bucket": BUCKET, "object": { "path": path } }),
    )?;
    let answer = answer.map_err(|error| anyhow!("object.stat {path}: {error}"))?;
    let time = |index: &str| answer.pointer(index).and_then(Value::as_u64);
    let (Some(seconds), Some(nanoseconds)) = (time("/object/mtime/0"), time("/object/mtime/1")) else {
        return Err(anyhow!("no time in {answer}"));
    };
    Ok(second(seconds) + nanoseconds / 100)
}

/// As an admin adds a second server to a DFS link: only root may, by the name of another account.
fn add_referral(c: &mut Client<'_>) -> Result<()> {
    const PASSWORD: &str = "vfsx-lab-root";
    let smb = &c.lab.description.smb;
    let mut smbpasswd = Command::new("smbpasswd")
        .arg("-c")
        .arg(&smb.conf)
        .args(["-a", "-s", "root"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("run smbpasswd")?;
    let mut input = smbpasswd.stdin.take().context("input of smbpasswd")?;
    write!(input, "{PASSWORD}\n{PASSWORD}\n")?;
    drop(input);
    ensure!(smbpasswd.wait()?.success(), "smbpasswd");
    // rpcclient takes a backslash for the next character.
    let path = format!("\\\\VFSXLAB\\data\\{}", c.at("junction").replace('/', "\\")).replace('\\', "\\\\");
    let output = Command::new("rpcclient")
        .args(["-s", "/dev/null", "-p", &smb.port.to_string(), "-U"])
        .arg(format!("root%{PASSWORD}"))
        .arg(&smb.host)
        .args(["-c", &format!("dfsadd {path} second share comment")])
        .output()
        .context("run rpcclient (package smbclient)")?;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(
        !said.contains("WERR") && output.status.success(),
        "dfsadd {path}: {}",
        said.trim()
    );
    Ok(())
}
