//! A change costs what it changed: bytes read and shipped.

use anyhow::ensure;
use std::collections::HashSet;
use vfsx_tests::smb::{Session, SmbClient};
use vfsx_tests::testlab::with_lab;

const FILE: u64 = 256 << 20;
const BLOCK: u64 = 64 << 10;
const WRITES: u64 = 64;
const WRITE: u64 = 4096;

#[test]
fn small_writes_into_a_big_file_ship_their_blocks_and_read_no_more() {
    with_lab(
        |_| {},
        |lab| {
            let mut session = Session::connect(lab, "data")?;
            let handle = session.create("big", "create")?;
            session.fill(handle, 0, FILE, 1)?;
            session.close(handle)?;
            lab.settle()?;

            let (wire, read) = (lab.wire_bytes("site1")?, lab.vfsxd.bytes_read()?);
            let handle = session.create("big", "open")?;
            let offsets = session.random_writes(handle, WRITES, WRITE, FILE, 2)?;
            session.close(handle)?;
            lab.settle()?;
            let (wire, read) = (lab.wire_bytes("site1")? - wire, lab.vfsxd.bytes_read()? - read);

            let blocks: HashSet<_> = offsets.iter().map(|offset| offset / BLOCK).collect();
            let changed = blocks.len() as u64 * BLOCK;
            ensure!(
                wire <= changed * 3 / 2,
                "{wire} bytes on the wire for {changed} changed"
            );
            // Everything counts: the blocks, the journal, the databases, the connection. The file is 64 times that.
            ensure!(read <= changed * 4, "{read} bytes read for {changed} changed");
            lab.check_replica("site1")
        },
    );
}

#[test]
fn renaming_a_directory_ships_a_name_and_not_its_files() {
    with_lab(
        |_| {},
        |lab| {
            lab.source_tree(800, 8)?.copy_in(lab, "data")?;
            lab.settle()?;
            let wire = lab.wire_bytes("site1")?;
            SmbClient::new(lab, "data").run(&["rename part-0 elsewhere"])?;
            lab.settle()?;
            let wire = lab.wire_bytes("site1")? - wire;
            ensure!(wire < 8192, "{wire} bytes on the wire for a rename");
            lab.check_replica("site1")
        },
    );
}
