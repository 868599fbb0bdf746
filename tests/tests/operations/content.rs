//! What clients do to the content of files.

use crate::client::second;
use crate::stage::{Action, NOTHING};
use anyhow::Result;
use vfsx_tests::smb::{Basic, Handle, Session};

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
        act: |c| {
            c.with("f", "open", |session, handle| {
                session.write(handle, 100_000, b"changed")
            })
        },
        happened: |d| d.holds("f", 100_000, b"changed"),
        calls: &["pwrite_send"],
    },
    Action {
        name: "write that ends with the file",
        before: |c| c.noise("f", 100_000),
        act: |c| {
            c.with("f", "open", |session, handle| {
                session.write(handle, 99_993, b"changed")
            })
        },
        happened: |d| d.holds("f", 99_993, b"changed"),
        calls: &["pwrite_send"],
    },
    Action {
        name: "append",
        before: |c| c.noise("f", 70_000),
        act: |c| {
            c.with("f", "open", |session, handle| {
                session.write(handle, 70_000, b"appended")
            })
        },
        happened: |d| d.holds("f", 70_000, b"appended"),
        calls: &["pwrite_send"],
    },
    Action {
        name: "write beyond the end",
        before: |c| c.noise("f", 10_000),
        act: |c| {
            c.with("f", "open", |session, handle| {
                session.write(handle, 500_000, b"far")
            })
        },
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
            c.with("report", "open", |session, handle| {
                session.set_basic(
                    handle,
                    Basic {
                        created: second(THEN),
                        attributes: 0x20,
                        ..Basic::default()
                    },
                )
            })?;
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
        act: |c| c.with("f", "open", |session, handle| session.truncate(handle, 100_001)),
        happened: |d| d.has_size("f", 100_001),
        calls: &["ftruncate"],
    },
    Action {
        name: "cut to nothing",
        before: |c| c.noise("f", 300_000),
        act: |c| c.with("f", "open", |session, handle| session.truncate(handle, 0)),
        happened: |d| d.has_size("f", 0),
        calls: &["ftruncate"],
    },
    Action {
        name: "grow",
        before: |c| c.noise("f", 100_001),
        act: |c| c.with("f", "open", |session, handle| session.truncate(handle, 400_000)),
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
        name: "allocate more",
        before: |c| c.noise("f", 10_000),
        act: |c| c.with("f", "open", |session, handle| session.allocate(handle, 1 << 20)),
        happened: |d| d.has_size("f", 10_000),
        calls: &["fntimes"],
    },
    Action {
        name: "allocate less",
        before: |c| c.noise("f", 200_000),
        act: |c| c.with("f", "open", |session, handle| session.allocate(handle, 50_000)),
        happened: |d| d.has_size("f", 50_000),
        calls: &["ftruncate"],
    },
    Action {
        name: "sparse file",
        before: NOTHING,
        act: |c| {
            c.with("f", "create", |session, handle| {
                session.set_sparse(handle)?;
                session.truncate(handle, 64 << 20)?;
                session.write(handle, 33 << 20, b"an island")
            })
        },
        happened: |d| {
            d.holds("f", 33 << 20, b"an island")
                .and(d.has_size("f", 64 << 20))
        },
        calls: &["ftruncate", "pwrite_send"],
    },
    Action {
        name: "made sparse",
        before: |c| c.noise("f", 10_000),
        act: |c| c.with("f", "open", Session::set_sparse),
        happened: |d| {
            let (attributes, _) = d.dos("f")?;
            anyhow::ensure!(attributes & 0x200 != 0, "not sparse: {attributes:x}");
            Ok(())
        },
        calls: &["fset_dos_attributes"],
    },
    Action {
        name: "zeros in a sparse file",
        before: |c| sparse_noise_with(c, |_, _| Ok(())),
        act: |c| {
            c.with("f", "open", |session, handle| {
                session.zero(handle, 65_536, 262_144)
            })
        },
        happened: |d| d.is_zero("f", 65_536..262_144),
        calls: &["fallocate"],
    },
    Action {
        name: "zeros across blocks",
        before: |c| c.noise("f", 300_000),
        act: |c| c.with("f", "open", |session, handle| session.zero(handle, 1000, 150_001)),
        happened: |d| d.is_zero("f", 1000..150_001).and(d.has_size("f", 300_000)),
        calls: &["fallocate"],
    },
    Action {
        name: "zeros in a few bytes",
        before: |c| c.noise("f", 300_000),
        act: |c| {
            c.with("f", "open", |session, handle| {
                session.zero(handle, 100_000, 100_010)
            })
        },
        happened: |d| d.is_zero("f", 100_000..100_010),
        calls: &["fallocate"],
    },
    Action {
        name: "copy by the server",
        before: |c| c.noise("a", 300_000),
        act: |c| {
            copy(c, "create", |session, a, b| {
                session.copy_range((a, 0), (b, 0), 300_000)
            })
        },
        happened: |d| d.same("a", "b"),
        calls: &["offload_write_send", "offload_write_recv"],
    },
    Action {
        name: "copy by the server into a file",
        before: |c| c.noise("a", 300_000).and(c.noise("b", 200_000)),
        act: |c| {
            copy(c, "open", |session, a, b| {
                session.copy_range((a, 1000), (b, 70_000), 100_000)
            })
        },
        happened: |d| d.has_size("b", 200_000),
        calls: &["offload_write_send"],
    },
    Action {
        name: "copy by the server in place",
        before: |c| c.noise("a", 300_000),
        act: |c| {
            c.with("a", "open", |session, a| {
                session.copy_range((a, 0), (a, 50_000), 100_000)
            })
        },
        happened: |d| d.has_size("a", 300_000),
        // The ranges overlap, so nothing below can copy them at once.
        calls: &["offload_write_send", "pwrite_send"],
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
pub fn set_written(c: &mut crate::client::Client<'_>, name: &str, at: u64) -> Result<()> {
    c.with(name, "open", |session, handle| {
        session.set_basic(
            handle,
            Basic {
                written: second(at),
                ..Basic::default()
            },
        )
    })
}

/// A sparse file `f` full of noise.
fn sparse_noise_with(
    c: &mut crate::client::Client<'_>,
    more: fn(&mut Session, Handle) -> Result<()>,
) -> Result<()> {
    c.with("f", "create", |session, handle| {
        session.set_sparse(handle)?;
        session.fill(handle, 0, 400_000, 3)?;
        more(session, handle)
    })
}

/// Works on `a`, and on `b`, which is opened as `disposition` says.
pub fn copy(
    c: &mut crate::client::Client<'_>,
    disposition: &str,
    work: impl FnOnce(&mut Session, Handle, Handle) -> Result<()>,
) -> Result<()> {
    let (a, b) = (c.open("a", "open")?, c.open("b", disposition)?);
    work(c.session, a, b)?;
    c.session.close(b)?;
    c.session.close(a)
}
