//! What clients do to the content of files.

use crate::client::{Client, second};
use crate::stage::{Action, NOTHING};
use anyhow::Result;
use vfsx_tests::smb::Basic;

/// Some time that no test runs at.
const THEN: u64 = 1_000_000_000;

pub const ACTIONS: &[Action] = &[
    Action {
        name: "new file",
        before: NOTHING,
        act: |c| c.file("f", b"content"),
        happened: |d| d.holds("f", 0, b"content"),
        calls: &[
            "openat",
            "create_file",
            "fset_dos_attributes",
            "fsetxattr",
            "pwrite_send",
            "pwrite_recv",
            "close",
        ],
    },
    Action {
        name: "empty files",
        before: NOTHING,
        act: |c| {
            for disposition in ["create", "open_if", "overwrite_if", "supersede"] {
                c.with(disposition, disposition, |_, _| Ok(()))?;
            }
            Ok(())
        },
        happened: |d| d.has_names(&["create", "open_if", "overwrite_if", "supersede"]),
        calls: &["openat"],
    },
    Action {
        name: "write into a file",
        before: |c| c.noise("f", 300_000),
        act: |c| c.write("f", 100_000, b"changed"),
        happened: |d| d.holds("f", 100_000, b"changed"),
        calls: &["pwrite_send"],
    },
    Action {
        name: "write that ends with the file",
        before: |c| c.noise("f", 100_000),
        act: |c| c.write("f", 99_993, b"changed"),
        happened: |d| d.holds("f", 99_993, b"changed"),
        calls: &["pwrite_send"],
    },
    Action {
        name: "append",
        before: |c| c.noise("f", 70_000),
        act: |c| c.write("f", 70_000, b"appended"),
        happened: |d| d.holds("f", 70_000, b"appended"),
        calls: &["pwrite_send"],
    },
    Action {
        name: "write beyond the end",
        before: |c| c.noise("f", 10_000),
        act: |c| c.write("f", 500_000, b"far"),
        happened: |d| d.is_zero("f", 10_000..500_000).and(d.holds("f", 500_000, b"far")),
        calls: &["pwrite_send"],
    },
    Action {
        name: "many small writes",
        before: |c| c.noise("f", 2_000_000),
        act: |c| {
            c.with("f", "open", |session, handle| {
                session.random_writes(handle, 50, 100, 2_000_000, 7).map(drop)
            })
        },
        happened: |d| d.has_size("f", 2_000_000),
        calls: &["pwrite_send"],
    },
    Action {
        name: "two clients write one file",
        before: |c| c.noise("f", 200_000),
        act: |c| {
            let (mine, path) = (c.open("f", "open")?, c.at("f"));
            let others = c.other.create(&path, "open")?;
            c.session.write(mine, 10, b"mine")?;
            c.other.write(others, 150_000, b"others")?;
            c.session.close(mine)?;
            c.other.write(others, 190_000, b"again")?;
            c.other.close(others)
        },
        happened: |d| {
            d.holds("f", 10, b"mine")
                .and(d.holds("f", 150_000, b"others"))
                .and(d.holds("f", 190_000, b"again"))
        },
        calls: &["pwrite_send"],
    },
    Action {
        name: "overwrite",
        before: |c| c.noise("f", 200_000),
        act: |c| {
            c.with("f", "overwrite", |session, handle| {
                session.write(handle, 0, b"short")
            })
        },
        happened: |d| d.has_size("f", 5).and(d.holds("f", 0, b"short")),
        calls: &["ftruncate", "pwrite_send"],
    },
    Action {
        name: "overwrite with nothing",
        before: |c| c.noise("f", 200_000),
        act: |c| c.with("f", "overwrite_if", |_, _| Ok(())),
        happened: |d| d.has_size("f", 0),
        calls: &["ftruncate"],
    },
    Action {
        name: "supersede",
        before: |c| c.noise("f", 200_000),
        act: |c| c.with("f", "supersede", |_, _| Ok(())),
        happened: |d| d.has_size("f", 0),
        calls: &["ftruncate"],
    },
    Action {
        name: "copy as Windows does",
        before: NOTHING,
        act: |c| {
            c.with("f", "create", |session, handle| {
                session.truncate(handle, 150_000)?;
                session.fill(handle, 0, 150_000, 1)?;
                session.set_basic(
                    handle,
                    Basic {
                        created: second(THEN),
                        written: second(THEN),
                        ..Basic::default()
                    },
                )
            })
        },
        happened: |d| d.has_size("f", 150_000).and(d.was_modified("f", THEN)),
        calls: &["ftruncate", "pwrite_send", "fntimes"],
    },
    Action {
        name: "save as Office does",
        before: |c| c.noise("report", 50_000),
        act: |c| {
            c.with("new", "create", |session, handle| {
                session.write(handle, 0, b"the new report")?;
                session.flush(handle)
            })?;
            c.rename("report", "old")?;
            c.rename("new", "report")?;
            c.set_basic(
                "report",
                Basic {
                    created: second(THEN),
                    attributes: 0x20,
                    ..Basic::default()
                },
            )?;
            c.delete("old")
        },
        happened: |d| {
            d.has_names(&["report"])
                .and(d.holds("report", 0, b"the new report"))
        },
        calls: &["fsync_send", "fsync_recv", "renameat", "unlinkat"],
    },
    Action {
        name: "cut",
        before: |c| c.noise("f", 300_000),
        act: |c| c.resize("f", 100_001),
        happened: |d| d.has_size("f", 100_001),
        calls: &["ftruncate"],
    },
    Action {
        name: "cut to nothing",
        before: |c| c.noise("f", 300_000),
        act: |c| c.resize("f", 0),
        happened: |d| d.has_size("f", 0),
        calls: &["ftruncate"],
    },
    Action {
        name: "grow",
        before: |c| c.noise("f", 100_001),
        act: |c| c.resize("f", 400_000),
        happened: |d| d.has_size("f", 400_000).and(d.is_zero("f", 100_001..400_000)),
        calls: &["ftruncate"],
    },
    Action {
        name: "cut and grow again",
        before: |c| c.noise("f", 200_000),
        act: |c| {
            c.with("f", "open", |session, handle| {
                session.truncate(handle, 70_000)?;
                session.truncate(handle, 200_000)
            })
        },
        happened: |d| d.has_size("f", 200_000).and(d.is_zero("f", 70_000..200_000)),
        calls: &["ftruncate"],
    },
    Action {
        name: "flush",
        before: |c| c.noise("f", 100_000),
        act: |c| {
            c.with("f", "open", |session, handle| {
                session.write(handle, 70_000, b"flushed")?;
                session.flush(handle)
            })
        },
        happened: |d| d.holds("f", 70_000, b"flushed"),
        calls: &["fsync_send", "fsync_recv"],
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
        calls: &["fsync_send"],
    },
    Action {
        name: "one packet for all",
        before: NOTHING,
        act: |c| {
            let path = c.at("f");
            c.session.create_write_close(&path, b"compound")
        },
        happened: |d| d.holds("f", 0, b"compound"),
        calls: &["pwrite"],
    },
    Action {
        name: "one packet over a file",
        before: |c| c.noise("f", 100_000),
        act: |c| {
            let path = c.at("f");
            c.session.create_write_close(&path, b"compound")
        },
        happened: |d| d.has_size("f", 8).and(d.holds("f", 0, b"compound")),
        calls: &["ftruncate", "pwrite"],
    },
    Action {
        name: "same size and same time",
        before: |c| c.noise("f", 100_000).and(set_written(c, "f", THEN)),
        act: |c| {
            c.with("f", "open", |session, handle| {
                session.write(handle, 70_000, b"secretly changed")?;
                session.set_basic(
                    handle,
                    Basic {
                        written: second(THEN),
                        ..Basic::default()
                    },
                )
            })
        },
        happened: |d| {
            d.holds("f", 70_000, b"secretly changed")
                .and(d.was_modified("f", THEN))
        },
        calls: &["pwrite_send", "fntimes"],
    },
    Action {
        name: "a time that sticks",
        before: |c| c.noise("f", 100_000),
        act: |c| {
            c.with("f", "open", |session, handle| {
                session.set_basic(
                    handle,
                    Basic {
                        written: second(THEN),
                        ..Basic::default()
                    },
                )?;
                session.write(handle, 10, b"later")
            })
        },
        happened: |d| d.holds("f", 10, b"later").and(d.was_modified("f", THEN)),
        calls: &["pwrite_send", "fntimes"],
    },
];

/// Sets a file's modification time.
pub fn set_written(c: &mut Client<'_>, name: &str, at: u64) -> Result<()> {
    c.set_basic(
        name,
        Basic {
            written: second(at),
            ..Basic::default()
        },
    )
}
