//! What only root and clients with UNIX extensions do.

use crate::client::Client;
use crate::stage::{Action, NOTHING};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::process::{Command, Stdio};
use vfsx_tests::smb::{Descriptor, SmbClient};

/// A user and a group of the server's, as Windows sees those that only UNIX knows.
const UNIX_USER: &str = "S-1-22-1-4321";
const UNIX_GROUP: &str = "S-1-22-2-4322";

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
pub const ACTIONS: &[Action] = &[
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
        name: "delete a symbolic link",
        before: |c| {
            c.noise("f", 1000)?;
            let at = ["l", "dangling"].map(|name| c.at(name));
            let unix1 = c.unix1()?;
            unix1.symlink(&at[0], "f")?;
            unix1.symlink(&at[1], "no/where")
        },
        act: |c| {
            let at = ["l", "dangling"].map(|name| c.at(name));
            let unix1 = c.unix1()?;
            unix1.unlink(&at[0])?;
            unix1.unlink(&at[1])
        },
        happened: |d| d.has_names(&["f"]).and(d.has_size("f", 1000)),
        calls: &["unlinkat"],
    },
    Action {
        name: "delete through a symbolic link",
        before: |c| {
            c.noise("f", 1000)?;
            let at = c.at("l");
            c.unix1()?.symlink(&at, "f")
        },
        act: |c| c.delete("l"),
        happened: |d| d.has_names(&["f"]),
        calls: &["unlinkat"],
    },
    Action {
        name: "write by the oldest command",
        before: |c| c.noise("f", 100_000),
        act: |c| {
            let at = c.at("f");
            let unix1 = c.unix1()?;
            let file = unix1.open(&at)?;
            unix1.write(file, 70_000, b"by the oldest command")?;
            unix1.write_andx(file, 10, b"by the usual one")?;
            unix1.close(file)
        },
        happened: |d| {
            d.holds("f", 70_000, b"by the oldest command")
                .and(d.holds("f", 10, b"by the usual one"))
                .and(d.has_size("f", 100_000))
        },
        calls: &["pwrite"],
    },
    Action {
        name: "cut by the oldest command",
        before: |c| c.noise("f", 100_000),
        act: |c| {
            let at = c.at("f");
            let unix1 = c.unix1()?;
            let file = unix1.open(&at)?;
            unix1.write(file, 5000, b"")?;
            unix1.close(file)
        },
        happened: |d| d.has_size("f", 5000),
        calls: &["ftruncate"],
    },
    Action {
        name: "unlink an open file",
        before: |c| c.noise("f", 1000).and(c.noise("g", 1000)),
        act: |c| {
            let at = c.at("f");
            let unix1 = c.unix1()?;
            let file = unix1.open(&at)?;
            unix1.write(file, 10, b"before")?;
            unix1.unlink(&at)?;
            unix1.write(file, 500, b"nobody will read this")?;
            unix1.close(file)
        },
        happened: |d| d.has_names(&["g"]),
        calls: &["unlinkat"],
    },
    Action {
        name: "unlink an open file that has another name",
        before: |c| c.noise("f", 1000).and(c.link("f", "g", false)),
        act: |c| {
            let at = c.at("f");
            let unix1 = c.unix1()?;
            let file = unix1.open(&at)?;
            unix1.unlink(&at)?;
            unix1.write(file, 500, b"by the other name")?;
            unix1.close(file)
        },
        happened: |d| d.has_names(&["g"]).and(d.holds("g", 500, b"by the other name")),
        calls: &["unlinkat"],
    },
    Action {
        name: "rename a file that is open as POSIX has it",
        before: |c| c.noise("f", 100_000),
        act: |c| {
            let at = ["f", "g"].map(|name| c.at(name));
            let unix1 = c.unix1()?;
            let file = unix1.open(&at[0])?;
            unix1.write(file, 10, b"before")?;
            unix1.rename(&at[0], &at[1])?;
            unix1.write(file, 70_000, b"after")?;
            unix1.close(file)
        },
        happened: |d| {
            d.has_names(&["g"])
                .and(d.holds("g", 10, b"before"))
                .and(d.holds("g", 70_000, b"after"))
        },
        calls: &["renameat"],
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
                "posix_mkdir @/alone 700",
                "posix_mkdir @/a 750",
                "posix_open @/a/new 640",
                "posix_rmdir @/empty",
                "posix_unlink @/f",
            ];
            c.run(&client, &commands)
        },
        happened: |d| d.has_names(&["a", "alone"]).and(d.stat("a/new").map(drop)),
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
            c.write("file", 70_000, b"through a link")?;
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
