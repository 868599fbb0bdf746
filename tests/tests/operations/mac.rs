//! What Macs do, with `fruit`.

use crate::space::copy;
use crate::stage::Action;
use anyhow::ensure;
use std::fs;
use vfsx_tests::smb::Open;

pub const ACTIONS: &[Action] = &[
    Action {
        name: "finder info",
        before: |c| c.noise("f", 1000),
        act: |c| c.file("f:AFP_AfpInfo", &finder_info(b"TEXTttxt")),
        happened: |d| {
            let kept = d
                .attribute("f", "user.org.netatalk.Metadata")?
                .unwrap_or_default();
            ensure!(kept.windows(8).any(|bytes| bytes == b"TEXTttxt"), "{kept:?}");
            Ok(())
        },
        calls: &["fsetxattr"],
    },
    Action {
        name: "no finder info any more",
        before: |c| {
            c.noise("f", 1000)
                .and(c.file("f:AFP_AfpInfo", &finder_info(b"TEXTttxt")))
        },
        // All zeros mean that there is none.
        act: |c| {
            c.with("f:AFP_AfpInfo", "open_if", |session, handle| {
                session.write(handle, 0, &finder_info(&[0; 8]))
            })
        },
        happened: |d| d.has_no_attribute("f", "user.org.netatalk.Metadata"),
        calls: &["fremovexattr"],
    },
    Action {
        name: "resource fork",
        before: |c| c.noise("f", 1000),
        act: |c| c.file("f:AFP_Resource", &[7; 3000]),
        happened: |d| d.stat("._f").map(drop),
        calls: &["openat"],
    },
    Action {
        name: "write into a resource fork",
        before: |c| c.noise("f", 1000).and(c.file("f:AFP_Resource", &[7; 3000])),
        act: |c| c.write("f:AFP_Resource", 1000, b"into the fork"),
        happened: |d| {
            let file = fs::read(d.path("._f"))?;
            ensure!(
                file.windows(13).any(|bytes| bytes == b"into the fork"),
                "not in the file"
            );
            Ok(())
        },
        calls: &[],
    },
    Action {
        name: "rename a file with a resource fork",
        before: |c| c.noise("f", 1000).and(c.file("f:AFP_Resource", &[7; 3000])),
        act: |c| c.rename("f", "g"),
        happened: |d| d.has_names(&["g", "._g"]),
        calls: &["renameat"],
    },
    Action {
        name: "delete a file with a resource fork",
        before: |c| {
            c.noise("f", 1000)
                .and(c.file("f:AFP_Resource", &[7; 3000]))
                .and(c.noise("g", 1000))
        },
        act: |c| c.delete("f"),
        happened: |d| d.has_names(&["g"]),
        calls: &["unlinkat"],
    },
    Action {
        name: "copy a whole file by the server",
        before: |c| c.noise("a", 300_000).and(c.file("a:note", b"copied too")),
        act: |c| {
            let apple = Open {
                disposition: "open",
                apple: true,
                ..Open::default()
            };
            let root = c.session.open("", &apple)?;
            c.session.close(root)?;
            copy(c, "create", |session, a, b| session.copy_file(a, b))
        },
        happened: |d| d.same("a", "b"),
        calls: &["offload_write_send"],
    },
];

/// Content of the stream AFP_AfpInfo.
fn finder_info(kind: &[u8; 8]) -> Vec<u8> {
    let mut info = b"AFP\0\0\0\x01\0".to_vec();
    info.extend([0; 4]);
    // No backup was ever made.
    info.extend([0x80, 0, 0, 0]);
    info.extend(kind);
    info.resize(60, 0);
    info
}
