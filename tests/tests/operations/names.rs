//! What clients do to names.

use crate::client::Client;
use crate::stage::{Action, NOTHING};
use anyhow::{Result, ensure};
use vfsx_tests::smb::Open;

/// The same letter in one character and in two.
const COMPOSED: &str = "caf\u{e9}";
const COMBINING: &str = "cafe\u{301}";

pub const ACTIONS: &[Action] = &[
    Action {
        name: "make a directory",
        before: NOTHING,
        act: |c| c.folder("a").and(c.folder("a/b")).and(c.file("a/b/f", b"deep")),
        happened: |d| d.holds("a/b/f", 0, b"deep"),
        calls: &["mkdirat"],
    },
    Action {
        name: "remove a directory",
        before: |c| c.folder("a").and(c.folder("b")),
        act: |c| c.delete("a"),
        happened: |d| d.has_names(&["b"]),
        calls: &["unlinkat"],
    },
    Action {
        name: "delete",
        before: |c| c.noise("f", 1000).and(c.noise("g", 1000)),
        act: |c| c.delete("f"),
        happened: |d| d.has_names(&["g"]),
        calls: &["unlinkat"],
    },
    Action {
        name: "delete on close from the start",
        before: |c| c.noise("f", 1000).and(c.noise("g", 1000)),
        act: |c| {
            let open = Open {
                disposition: "open_if",
                delete_on_close: true,
                ..Open::default()
            };
            for name in ["f", "passing"] {
                let handle = c.session.open(&c.at(name), &open)?;
                c.session.write(handle, 0, b"nobody will read this")?;
                c.session.close(handle)?;
            }
            Ok(())
        },
        happened: |d| d.has_names(&["g"]),
        calls: &["unlinkat"],
    },
    Action {
        name: "delete while another writes",
        before: |c| c.noise("f", 1000).and(c.noise("g", 1000)),
        act: |c| {
            let path = c.at("f");
            let writing = c.other.create(&path, "open")?;
            c.delete("f")?;
            c.other.write(writing, 0, b"nobody will read this")?;
            c.other.close(writing)
        },
        happened: |d| d.has_names(&["g"]),
        calls: &["unlinkat"],
    },
    Action {
        name: "delete and make again",
        before: |c| c.noise("f", 100_000),
        act: |c| c.delete("f").and(c.file("f", b"another file")),
        happened: |d| d.has_size("f", 12),
        calls: &["unlinkat", "openat"],
    },
    Action {
        name: "rename",
        before: |c| c.noise("f", 1000),
        act: |c| c.rename("f", "g"),
        happened: |d| d.has_names(&["g"]),
        calls: &["renameat"],
    },
    Action {
        name: "rename over a file",
        before: |c| c.file("f", b"the new one").and(c.noise("g", 1000)),
        act: |c| c.replace("f", "g"),
        happened: |d| d.has_names(&["g"]).and(d.holds("g", 0, b"the new one")),
        calls: &["renameat"],
    },
    Action {
        name: "rename over one of two names",
        before: |c| {
            c.file("f", b"the new one")
                .and(c.noise("g", 1000))
                .and(c.link("g", "h", false))
        },
        act: |c| c.replace("f", "g"),
        happened: |d| d.has_names(&["g", "h"]).and(d.has_size("h", 1000)),
        calls: &["renameat"],
    },
    Action {
        name: "rename one of two names over the other",
        before: |c| c.noise("f", 1000).and(c.link("f", "g", false)),
        act: |c| {
            // smbd replaces no file that is open, and this one is, by its other name.
            ensure!(c.replace("f", "g").is_err(), "it was renamed");
            Ok(())
        },
        happened: |d| d.has_names(&["f", "g"]).and(d.is_one_file("f", "g")),
        calls: &[],
    },
    Action {
        name: "change of case",
        before: |c| c.noise("name", 1000),
        act: |c| c.rename("name", "NAME"),
        happened: |d| d.has_names(&["NAME"]),
        calls: &["renameat"],
    },
    Action {
        name: "move",
        before: |c| c.folder("a").and(c.folder("b")).and(c.noise("a/f", 1000)),
        act: |c| c.rename("a/f", "b/g"),
        happened: |d| d.has_size("b/g", 1000),
        calls: &["renameat"],
    },
    Action {
        name: "move over a file",
        before: |c| c.folder("a").and(c.noise("a/f", 1000)).and(c.file("f", b"moved")),
        act: |c| c.replace("f", "a/f"),
        happened: |d| d.has_names(&["a"]).and(d.holds("a/f", 0, b"moved")),
        calls: &["renameat"],
    },
    Action {
        name: "rename an open file",
        before: |c| c.noise("f", 100_000),
        act: |c| {
            let new = c.at("g");
            c.with("f", "open", |session, handle| {
                session.write(handle, 10, b"before")?;
                session.rename_open(handle, &new, false)?;
                session.write(handle, 70_000, b"after")
            })
        },
        happened: |d| {
            d.has_names(&["g"])
                .and(d.holds("g", 10, b"before"))
                .and(d.holds("g", 70_000, b"after"))
        },
        calls: &["renameat", "pwrite_send"],
    },
    Action {
        name: "two files change names",
        before: |c| c.file("f", b"one").and(c.file("g", b"two")),
        act: |c| c.rename("f", "t").and(c.rename("g", "f")).and(c.rename("t", "g")),
        happened: |d| d.holds("f", 0, b"two").and(d.holds("g", 0, b"one")),
        calls: &["renameat"],
    },
    Action {
        name: "names go round",
        before: |c| c.file("a", b"1").and(c.file("b", b"2")).and(c.file("c", b"3")),
        act: |c| {
            c.replace("a", "b")
                .and(c.replace("b", "c"))
                .and(c.replace("c", "a"))
        },
        happened: |d| d.has_names(&["a"]).and(d.holds("a", 0, b"1")),
        calls: &["renameat"],
    },
    Action {
        name: "rename a directory",
        before: |c| tree(c, "a"),
        act: |c| c.rename("a", "z"),
        happened: |d| d.has_names(&["z"]).and(d.has_size("z/b/f", 1000)),
        calls: &["renameat"],
    },
    Action {
        name: "move a directory",
        before: |c| tree(c, "a").and(c.folder("to")),
        act: |c| c.rename("a", "to/z"),
        happened: |d| d.has_names(&["to"]).and(d.has_size("to/z/b/f", 1000)),
        calls: &["renameat"],
    },
    Action {
        name: "rename a directory with a file that another has open",
        before: |c| tree(c, "a"),
        act: |c| {
            let path = c.at("a/b/f");
            let open = c.other.create(&path, "open")?;
            c.other.write(open, 0, b"before")?;
            c.rename("a", "z")?;
            c.other.write(open, 500, b"after")?;
            c.file("z/b/new", b"beside it")?;
            c.other.truncate(open, 800)?;
            c.other.close(open)
        },
        happened: |d| {
            d.holds("z/b/f", 0, b"before")
                .and(d.holds("z/b/f", 500, b"after"))
                .and(d.has_size("z/b/f", 800))
        },
        calls: &["renameat"],
    },
    Action {
        name: "rename a directory with a file that is open",
        before: |c| tree(c, "a"),
        act: |c| {
            let open = c.open("a/b/f", "open")?;
            c.session.write(open, 0, b"before")?;
            ensure!(c.rename("a", "z").is_err(), "the directory was renamed");
            c.session.write(open, 500, b"after")?;
            c.session.close(open)
        },
        happened: |d| {
            d.has_names(&["a"])
                .and(d.holds("a/b/f", 0, b"before"))
                .and(d.holds("a/b/f", 500, b"after"))
        },
        calls: &[],
    },
    Action {
        name: "rename a directory twice around its files",
        before: |c| tree(c, "a"),
        act: |c| {
            c.rename("a", "z")
                .and(c.rename("z/b/f", "z/g"))
                .and(c.rename("z", "a"))
                .and(c.delete("a/b"))
        },
        happened: |d| d.has_names(&["a"]).and(d.has_size("a/g", 1000)),
        calls: &["renameat"],
    },
    Action {
        name: "a file becomes a directory",
        before: |c| c.noise("x", 1000),
        act: |c| c.delete("x").and(c.folder("x")).and(c.file("x/f", b"within")),
        happened: |d| d.holds("x/f", 0, b"within"),
        calls: &["unlinkat", "mkdirat"],
    },
    Action {
        name: "a directory becomes a file",
        before: |c| c.folder("x").and(c.noise("x/f", 1000)),
        act: |c| c.delete("x/f").and(c.delete("x")).and(c.file("x", b"a file")),
        happened: |d| d.holds("x", 0, b"a file"),
        calls: &["unlinkat", "openat"],
    },
    Action {
        name: "a file and a directory change names",
        before: |c| c.noise("x", 1000).and(tree(c, "y")),
        act: |c| c.rename("x", "t").and(c.rename("y", "x")).and(c.rename("t", "y")),
        happened: |d| d.has_size("x/b/f", 1000).and(d.has_size("y", 1000)),
        calls: &["renameat"],
    },
    Action {
        name: "hard link",
        before: |c| c.folder("a").and(c.noise("f", 100_000)),
        act: |c| c.link("f", "a/g", false),
        happened: |d| d.is_one_file("f", "a/g"),
        calls: &["linkat"],
    },
    Action {
        name: "hard link in place of a file",
        before: |c| c.noise("f", 1000).and(c.noise("g", 2000)),
        act: |c| c.link("f", "g", true),
        happened: |d| d.is_one_file("f", "g").and(d.has_size("g", 1000)),
        calls: &["linkat"],
    },
    Action {
        name: "write by the other name",
        before: |c| c.noise("f", 100_000).and(c.link("f", "g", false)),
        act: |c| c.write("g", 70_000, b"by g"),
        happened: |d| d.holds("f", 70_000, b"by g").and(d.is_one_file("f", "g")),
        calls: &["pwrite_send"],
    },
    Action {
        name: "delete one of two names",
        before: |c| c.noise("f", 1000).and(c.link("f", "g", false)),
        act: |c| c.delete("f"),
        happened: |d| d.has_names(&["g"]).and(d.has_size("g", 1000)),
        calls: &["unlinkat"],
    },
    Action {
        name: "characters that combine",
        before: |c| c.file("plain", b"0"),
        act: |c| {
            c.file(COMPOSED, b"1")
                .and(c.file(COMBINING, b"22"))
                .and(c.rename("plain", "o\u{308}\u{323}"))
        },
        happened: |d| {
            d.has_names(&[COMPOSED, COMBINING, "o\u{308}\u{323}"])
                .and(d.has_size(COMBINING, 2))
        },
        calls: &["openat", "renameat"],
    },
    Action {
        name: "from one form of a character to the other",
        before: |c| c.file(COMBINING, b"22"),
        act: |c| c.rename(COMBINING, COMPOSED),
        happened: |d| d.has_names(&[COMPOSED]),
        calls: &["renameat"],
    },
    Action {
        name: "names of 255 bytes",
        before: |c| c.file("short", b"0"),
        act: |c| {
            let [letters, characters, last] = longest();
            c.file(&letters, b"1").and(c.folder(&characters))?;
            c.file(&format!("{characters}/{letters}"), b"2")?;
            c.rename("short", &last)
        },
        happened: |d| {
            let names = longest();
            d.has_names(&names.each_ref().map(String::as_str))
        },
        calls: &["openat", "mkdirat", "renameat"],
    },
    Action {
        name: "all kinds of characters",
        before: NOTHING,
        act: |c| {
            ODD_NAMES
                .iter()
                .try_for_each(|name| c.file(name, name.as_bytes()))
        },
        happened: |d| d.has_names(ODD_NAMES),
        calls: &["openat"],
    },
];

const ODD_NAMES: &[&str] = &[
    "\u{1f600}\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
    "日本語.doc",
    "it's \u{201c}here\u{201d}",
    "%41",
    "$money & ~tilde#",
    "trailing~1",
    "-rf",
    "ß\u{130}ı",
    "\u{202e}gpj.exe",
];

/// Of letters, of characters of three bytes, and of characters of four (and what is left).
fn longest() -> [String; 3] {
    ["a".repeat(255), "語".repeat(85), "\u{1f600}".repeat(63) + "xyz"]
}

/// Two directories and a file.
fn tree(c: &mut Client<'_>, name: &str) -> Result<()> {
    c.folder(name)?;
    c.folder(&format!("{name}/b"))?;
    c.noise(&format!("{name}/b/f"), 1000)
}
