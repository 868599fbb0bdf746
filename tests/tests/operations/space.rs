//! What clients do to the space of files on disk: holes, allocation, copies that the server makes.

use crate::client::Client;
use crate::stage::{Action, NOTHING};
use anyhow::{Result, ensure};
use vfsx_tests::smb::{Handle, Session};

/// Bytes of a file that gets a hole, from where to where, and what may be left of it on disk.
const WITH_HOLE: u64 = 8 << 20;
const HOLE: (u64, u64) = (1 << 20, 7 << 20);
const AROUND_HOLE: u64 = 3 << 20;
/// DOS attribute.
const SPARSE: u32 = 0x200;

pub const ACTIONS: &[Action] = &[
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
            ensure!(attributes & SPARSE != 0, "not sparse: {attributes:x}");
            Ok(())
        },
        calls: &["fset_dos_attributes"],
    },
    Action {
        name: "zeros in a sparse file",
        before: |c| sparse(c, 400_000),
        act: |c| c.zero("f", 65_536, 262_144),
        happened: |d| d.is_zero("f", 65_536..262_144),
        calls: &["fallocate"],
    },
    Action {
        name: "hole in a sparse file",
        before: |c| sparse(c, WITH_HOLE),
        act: |c| {
            c.zero("f", HOLE.0, HOLE.1)?;
            // The comparison of everything allows for more than file systems differ by.
            c.restored()?.disk.takes_at_most("f", AROUND_HOLE)
        },
        happened: |d| {
            d.has_size("f", WITH_HOLE)
                .and(d.is_zero("f", HOLE.0 as usize..HOLE.1 as usize))
                .and(d.takes_at_most("f", AROUND_HOLE))
        },
        calls: &["fallocate"],
    },
    Action {
        name: "zeros across blocks",
        before: |c| c.noise("f", 300_000),
        act: |c| c.zero("f", 1000, 150_001),
        happened: |d| d.is_zero("f", 1000..150_001).and(d.has_size("f", 300_000)),
        calls: &["fallocate"],
    },
    Action {
        name: "zeros in a few bytes",
        before: |c| c.noise("f", 300_000),
        act: |c| c.zero("f", 100_000, 100_010),
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
];

/// A sparse file `f` full of noise.
fn sparse(c: &mut Client<'_>, length: u64) -> Result<()> {
    c.with("f", "create", |session, handle| {
        session.set_sparse(handle)?;
        session.fill(handle, 0, length, 3)
    })
}

/// Works on `a`, and on `b`, which is opened as `disposition` says.
pub fn copy(
    c: &mut Client<'_>,
    disposition: &str,
    work: impl FnOnce(&mut Session, Handle, Handle) -> Result<()>,
) -> Result<()> {
    let (a, b) = (c.open("a", "open")?, c.open("b", disposition)?);
    work(c.session, a, b)?;
    c.session.close(b)?;
    c.session.close(a)
}
