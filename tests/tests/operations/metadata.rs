//! What clients do to what files have beside their content.

use crate::client::second;
use crate::stage::{Action, NOTHING};
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use vfsx_tests::smb::{Basic, Descriptor, Entry, Open};

/// Some time that no test runs at.
const THEN: u64 = 1_000_000_000;
const EVERYONE: &str = "S-1-1-0";
/// As Windows has them.
const READ: u32 = 0x0012_0089;
const FULL: u32 = 0x001f_01ff;
/// Files and directories inherit an entry.
const BOTH_INHERIT: u8 = 3;
const READ_ONLY: u32 = 1;
const HIDDEN: u32 = 2;
const SYSTEM: u32 = 4;

pub const ACTIONS: &[Action] = &[
    Action {
        name: "set extended attributes",
        before: |c| c.noise("f", 1000),
        act: |c| extended(c, "f", &[("Origin", "here"), ("Other", "there")]),
        happened: |d| {
            d.has_attribute("f", "user.Origin", b"here")
                .and(d.has_attribute("f", "user.Other", b"there"))
        },
        calls: &["fsetxattr"],
    },
    Action {
        name: "change an extended attribute",
        before: |c| c.noise("f", 1000).and(extended(c, "f", &[("Origin", "here")])),
        act: |c| extended(c, "f", &[("Origin", "elsewhere")]),
        happened: |d| d.has_attribute("f", "user.Origin", b"elsewhere"),
        calls: &["fsetxattr"],
    },
    Action {
        name: "remove an extended attribute",
        before: |c| {
            c.noise("f", 1000)
                .and(extended(c, "f", &[("Origin", "here"), ("Other", "there")]))
        },
        act: |c| extended(c, "f", &[("Origin", "")]),
        happened: |d| {
            d.has_no_attribute("f", "user.Origin")
                .and(d.has_attribute("f", "user.Other", b"there"))
        },
        calls: &["fremovexattr"],
    },
    Action {
        name: "extended attribute of a directory",
        before: |c| c.folder("a"),
        act: |c| extended(c, "a", &[("Origin", "here")]),
        happened: |d| d.has_attribute("a", "user.Origin", b"here"),
        calls: &["fsetxattr"],
    },
    Action {
        name: "hide a file",
        before: |c| c.noise("f", 1000),
        act: |c| {
            c.set_basic(
                "f",
                Basic {
                    attributes: READ_ONLY | HIDDEN | SYSTEM,
                    ..Basic::default()
                },
            )
        },
        happened: |d| {
            let (attributes, _) = d.dos("f")?;
            ensure!(attributes == READ_ONLY | HIDDEN | SYSTEM, "{attributes:x}");
            Ok(())
        },
        calls: &["fset_dos_attributes"],
    },
    Action {
        name: "hide a directory",
        before: |c| c.folder("a"),
        act: |c| {
            c.set_basic(
                "a",
                Basic {
                    attributes: HIDDEN | 0x10,
                    ..Basic::default()
                },
            )
        },
        happened: |d| {
            let (attributes, _) = d.dos("a")?;
            ensure!(attributes & HIDDEN != 0, "{attributes:x}");
            Ok(())
        },
        calls: &["fset_dos_attributes"],
    },
    Action {
        name: "set the time of writing",
        before: |c| c.noise("f", 1000),
        act: |c| {
            c.set_basic(
                "f",
                Basic {
                    written: second(THEN),
                    ..Basic::default()
                },
            )
        },
        happened: |d| d.was_modified("f", THEN),
        calls: &["fntimes"],
    },
    Action {
        name: "set the time of writing of a directory",
        before: |c| c.folder("a").and(c.noise("a/f", 1000)),
        act: |c| {
            c.set_basic(
                "a",
                Basic {
                    written: second(THEN),
                    ..Basic::default()
                },
            )
        },
        happened: |d| d.was_modified("a", THEN),
        calls: &["fntimes"],
    },
    Action {
        name: "set the time of access",
        before: |c| c.noise("f", 1000),
        act: |c| {
            c.set_basic(
                "f",
                Basic {
                    accessed: second(THEN),
                    ..Basic::default()
                },
            )?;
            // Not compared for all files: those that are read have another one by the end.
            c.restored()?.disk.was_accessed("f", THEN)
        },
        happened: |d| d.was_accessed("f", THEN),
        calls: &["fntimes"],
    },
    Action {
        name: "set the time of birth",
        before: |c| c.noise("f", 1000),
        act: |c| {
            c.set_basic(
                "f",
                Basic {
                    created: second(THEN),
                    ..Basic::default()
                },
            )
        },
        happened: |d| {
            let (_, birth) = d.dos("f")?;
            ensure!(birth == second(THEN), "{birth}");
            Ok(())
        },
        calls: &["fset_dos_attributes", "fsetxattr"],
    },
    Action {
        name: "grant rights",
        before: |c| c.noise("f", 1000),
        act: |c| {
            c.with("f", "open", |session, handle| {
                session.grant(handle, EVERYONE, FULL)
            })
        },
        happened: |d| has_acl(d, "f", ACL),
        calls: &["fset_nt_acl", "sys_acl_set_fd"],
    },
    Action {
        name: "other rights",
        before: |c| c.noise("f", 1000),
        act: |c| rights(c, "f", &[entry(EVERYONE, FULL, 0), entry(USERS, READ, 0)], true),
        happened: |d| has_acl(d, "f", ACL),
        calls: &["fset_nt_acl", "sys_acl_set_fd"],
    },
    Action {
        name: "rights that a directory hands down",
        before: |c| c.folder("a"),
        act: |c| {
            rights(
                c,
                "a",
                &[
                    entry(EVERYONE, FULL, BOTH_INHERIT),
                    entry(USERS, READ, BOTH_INHERIT),
                ],
                false,
            )?;
            c.file("a/f", b"heir")?;
            c.folder("a/b")
        },
        happened: |d| has_acl(d, "a", DEFAULT_ACL),
        calls: &["fset_nt_acl", "sys_acl_set_fd"],
    },
    Action {
        name: "rights that a directory hands down no more",
        before: |c| {
            c.folder("a")?;
            rights(
                c,
                "a",
                &[
                    entry(EVERYONE, FULL, BOTH_INHERIT),
                    entry(USERS, READ, BOTH_INHERIT),
                ],
                false,
            )
        },
        act: |c| rights(c, "a", &[entry(EVERYONE, FULL, 0)], false),
        happened: |d| d.has_no_attribute("a", DEFAULT_ACL),
        calls: &["fset_nt_acl", "sys_acl_delete_def_fd"],
    },
    Action {
        name: "new file with rights and attributes and space",
        before: NOTHING,
        act: |c| {
            let open = Open {
                disposition: "create",
                allocation: Some(1 << 20),
                extended: Some(BTreeMap::from([("Origin", "here")])),
                descriptor: Some(Descriptor {
                    entries: Some(vec![entry(EVERYONE, FULL, 0)]),
                    ..Descriptor::default()
                }),
                ..Open::default()
            };
            let handle = c.session.open(&c.at("f"), &open)?;
            c.session.close(handle)
        },
        happened: |d| d.has_attribute("f", "user.Origin", b"here"),
        calls: &["openat", "fsetxattr", "fset_nt_acl"],
    },
];

/// BUILTIN\Users
const USERS: &str = "S-1-5-32-545";
const ACL: &str = "system.posix_acl_access";
const DEFAULT_ACL: &str = "system.posix_acl_default";

fn entry(sid: &str, mask: u32, flags: u8) -> Entry<'_> {
    Entry {
        sid,
        mask,
        flags,
        deny: false,
    }
}

fn rights(
    c: &mut crate::client::Client<'_>,
    name: &str,
    entries: &[Entry<'_>],
    protected: bool,
) -> Result<()> {
    let descriptor = Descriptor {
        entries: Some(entries.to_vec()),
        protected,
        ..Descriptor::default()
    };
    c.with(name, "open", |session, handle| {
        session.set_security(handle, &descriptor)
    })
}

fn extended(c: &mut crate::client::Client<'_>, name: &str, attributes: &[(&str, &str)]) -> Result<()> {
    c.with(name, "open", |session, handle| {
        session.set_extended(handle, attributes)
    })
}

fn has_acl(d: &crate::disk::Disk, name: &str, attribute: &str) -> Result<()> {
    ensure!(
        d.attribute(name, attribute)?.is_some(),
        "{name} has no {attribute}"
    );
    Ok(())
}
