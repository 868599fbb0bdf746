//! What clients do to alternate data streams.

use crate::disk::Disk;
use crate::stage::{Action, NOTHING};
use anyhow::{Result, ensure};
use std::fs;
use vfsx_tests::work;

/// Whether streams are attributes or files: for both.
pub const ACTIONS: &[Action] = &[
    Action {
        name: "new stream",
        before: |c| c.noise("f", 1000),
        act: |c| c.file("f:note", b"a new stream"),
        happened: |d| has_stream(d, "f", "note", b"a new stream"),
        calls: &[],
    },
    Action {
        name: "file that begins as a stream",
        before: NOTHING,
        act: |c| c.file("f:note", b"before the file itself"),
        happened: |d| has_stream(d, "f", "note", b"before the file itself"),
        calls: &["openat"],
    },
    Action {
        name: "write into a stream",
        before: |c| {
            c.noise("f", 1000)
                .and(c.file("f:note", b"write into this stream"))
        },
        act: |c| c.write("f:note", 6, b"INTO"),
        happened: |d| has_stream(d, "f", "note", b"write INTO this stream"),
        calls: &[],
    },
    Action {
        name: "cut a stream",
        before: |c| {
            c.noise("f", 1000)
                .and(c.file("f:note", b"cut here: and not there"))
        },
        act: |c| c.resize("f:note", 8),
        happened: |d| has_stream(d, "f", "note", b"cut here"),
        calls: &[],
    },
    Action {
        name: "grow a stream",
        before: |c| c.noise("f", 1000).and(c.file("f:note", b"grow")),
        act: |c| c.resize("f:note", 7),
        happened: |d| has_stream(d, "f", "note", b"grow\0\0\0"),
        calls: &[],
    },
    Action {
        name: "overwrite a stream",
        before: |c| c.noise("f", 1000).and(c.file("f:note", b"what was there first")),
        act: |c| {
            c.with("f:note", "overwrite", |session, handle| {
                session.write(handle, 0, b"overwritten")
            })
        },
        happened: |d| has_stream(d, "f", "note", b"overwritten"),
        calls: &[],
    },
    Action {
        name: "rename a stream",
        before: |c| c.noise("f", 1000).and(c.file("f:note", b"to be renamed")),
        act: |c| {
            c.with("f:note", "open", |session, handle| {
                session.rename_open(handle, ":other", false)
            })
        },
        happened: |d| {
            has_stream(d, "f", "other", b"to be renamed").and(has_no_stream(d, "f", "note", b"to be renamed"))
        },
        calls: &[],
    },
    Action {
        name: "delete a stream",
        before: |c| {
            c.noise("f", 1000)
                .and(c.file("f:note", b"to be deleted"))
                .and(c.file("f:keep", b"to be kept"))
        },
        act: |c| c.delete("f:note"),
        happened: |d| {
            has_no_stream(d, "f", "note", b"to be deleted").and(has_stream(d, "f", "keep", b"to be kept"))
        },
        calls: &[],
    },
    Action {
        name: "stream of a directory",
        before: |c| c.folder("a").and(c.file("a:old", b"already at the directory")),
        act: |c| c.file("a:note", b"at a directory").and(c.delete("a:old")),
        happened: |d| has_stream(d, "a", "note", b"at a directory"),
        calls: &[],
    },
    Action {
        name: "overwrite a file with streams",
        before: |c| c.noise("f", 1000).and(c.file("f:note", b"gone with the content")),
        act: |c| {
            c.with("f", "overwrite", |session, handle| {
                session.write(handle, 0, b"new content")
            })
        },
        happened: |d| {
            d.has_size("f", 11)
                .and(has_no_stream(d, "f", "note", b"gone with the content"))
        },
        calls: &["ftruncate"],
    },
    Action {
        name: "supersede a file with streams",
        before: |c| c.noise("f", 1000).and(c.file("f:note", b"superseded too")),
        act: |c| c.with("f", "supersede", |_, _| Ok(())),
        happened: |d| {
            d.has_size("f", 0)
                .and(has_no_stream(d, "f", "note", b"superseded too"))
        },
        calls: &["ftruncate"],
    },
    Action {
        name: "delete a file with streams",
        before: |c| {
            c.noise("f", 1000)
                .and(c.noise("g", 1000))
                .and(c.file("f:note", b"deleted with its file"))
        },
        act: |c| c.delete("f"),
        happened: |d| d.has_names(&["g"]),
        calls: &["unlinkat"],
    },
    Action {
        name: "rename a file with streams",
        before: |c| c.noise("f", 1000).and(c.file("f:note", b"renamed with its file")),
        act: |c| c.rename("f", "g"),
        happened: |d| {
            d.has_names(&["g"])
                .and(has_stream(d, "g", "note", b"renamed with its file"))
        },
        calls: &["renameat"],
    },
    Action {
        name: "rename over a file with streams",
        before: |c| {
            c.noise("f", 1000)?;
            c.file("f:note", b"stays with its file")?;
            c.noise("g", 2000)?;
            c.file("g:note", b"goes with its file")
        },
        act: |c| c.replace("f", "g"),
        happened: |d| {
            d.has_size("g", 1000)
                .and(has_stream(d, "g", "note", b"stays with its file"))
        },
        calls: &["renameat"],
    },
    Action {
        name: "rename a directory of files with streams",
        before: |c| {
            c.folder("a")
                .and(c.noise("a/f", 1000))
                .and(c.file("a/f:note", b"deep within"))
        },
        act: |c| c.rename("a", "z").and(c.file("z/f:more", b"deeper within")),
        happened: |d| has_stream(d, "z/f", "more", b"deeper within"),
        calls: &["renameat"],
    },
    Action {
        name: "copy by the server into a stream",
        before: |c| c.noise("a", 1000).and(c.noise("f", 1000)),
        act: |c| {
            let (from, to) = (c.open("a", "open")?, c.open("f:copy", "create")?);
            c.session.copy_range((from, 0), (to, 0), 500)?;
            c.session.close(to)?;
            c.session.close(from)
        },
        happened: |d| has_stream(d, "f", "copy", &fs::read(d.path("a"))?[..500]),
        calls: &["offload_write_send"],
    },
    Action {
        name: "stream that stays open",
        before: |c| c.noise("f", 1000),
        act: |c| {
            c.with("f:note", "create", |session, handle| {
                session.write(handle, 0, b"first part")?;
                session.flush(handle)?;
                session.write(handle, 10, b", second part")
            })
        },
        happened: |d| has_stream(d, "f", "note", b"first part, second part"),
        calls: &[],
    },
];

fn has_stream(d: &Disk, file: &str, stream: &str, content: &[u8]) -> Result<()> {
    ensure!(
        finds_stream(d, file, stream, content)?,
        "{file} has no stream {stream} with that content"
    );
    Ok(())
}

fn has_no_stream(d: &Disk, file: &str, stream: &str, content: &[u8]) -> Result<()> {
    ensure!(
        !finds_stream(d, file, stream, content)?,
        "{file} has still the stream {stream}"
    );
    Ok(())
}

/// As an attribute, or as a file below `.streams` at the share's top. There the directories have numbers for names, so the
/// content tells whose it is: no two actions use the same.
fn finds_stream(d: &Disk, file: &str, stream: &str, content: &[u8]) -> Result<bool> {
    let mut value = content.to_vec();
    value.push(0);
    if d.attribute(file, &format!("user.DosStream.{stream}:$DATA"))? == Some(value) {
        return Ok(true);
    }
    let Some(depot) = d.dir.ancestors().nth(2).map(|share| share.join(".streams")) else {
        return Ok(false);
    };
    if !depot.is_dir() {
        return Ok(false);
    }
    let (files, _) = work::walk(&depot)?;
    let name = format!(":{stream}:$DATA");
    let found = files.iter().filter(|file| file.ends_with(&name));
    Ok(found
        .map(|file| fs::read(depot.join(file)))
        .any(|found| found.is_ok_and(|found| found == content)))
}
