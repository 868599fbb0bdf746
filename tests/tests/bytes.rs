//! A change costs what it changed: bytes read and shipped.

use anyhow::{Context, Result, ensure};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use vfsx_tests::lab::{Lab, give_to_user};
use vfsx_tests::relay::Relay;
use vfsx_tests::smb::{Session, SmbClient};
use vfsx_tests::testlab::{SETTLE_LIMIT, with_lab};
use vfsx_tests::wait;

const FILE: u64 = 256 << 20;
const GIGABYTES: u64 = 4 << 30;
const BLOCK: u64 = 64 << 10;
const WRITES: u64 = 500;
const MANY_WRITES: u64 = 5_000;
const WRITE: u64 = 4096;
/// To bring gigabytes over, and what is written into them.
const LIMIT: Duration = Duration::from_secs(1800);

/// Puts a relay between vfsxd and its site.
fn relay(lab: &Lab) -> Result<Relay> {
    let url = &lab.site("site1")?.description.url;
    let (host, port) = url.rsplit_once(':').context("a url with a port")?;
    let relay = Relay::start(port.parse()?)?;
    let config = &lab.description.vfsxd.config;
    let text = fs::read_to_string(config)?;
    fs::write(config, text.replace(url, &format!("{host}:{}", relay.port)))?;
    lab.vfsxd.restart()?;
    Ok(relay)
}

/// Writes at random into `big`. Bytes on the wire until they are at the site, as vfsxd counts them and as the relay does; bytes
/// that vfsxd read for it; blocks that were written to.
fn write_at_random(
    lab: &Lab,
    relay: &Relay,
    writes: u64,
    span: u64,
    seed: u64,
) -> Result<([u64; 2], u64, u64)> {
    lab.settle(None, LIMIT)?;
    let meters =
        || Ok::<_, anyhow::Error>([lab.wire_bytes("site1")?, relay.bytes(), lab.vfsxd.bytes_read()?]);
    let before = meters()?;
    let mut session = Session::connect(lab, "data")?;
    let handle = session.create("big", "open")?;
    let offsets = session.random_writes(handle, writes, WRITE, span, seed)?;
    session.close(handle)?;
    lab.settle(None, LIMIT)?;
    let after = meters()?;
    let blocks: HashSet<_> = offsets.iter().map(|offset| offset / BLOCK).collect();
    let wire = [after[0] - before[0], after[1] - before[1]];
    Ok((wire, after[2] - before[2], blocks.len() as u64))
}

fn check_wire(wire: [u64; 2], writes: u64) -> Result<()> {
    let written = writes * WRITE;
    for wire in wire {
        ensure!(
            wire <= written * 3 / 2,
            "{wire} bytes on the wire for {written} written"
        );
        // Random bytes do not compress: a counter that misses something would show.
        ensure!(wire >= written, "{wire} bytes on the wire for {written} written");
    }
    Ok(())
}

#[test]
fn small_writes_into_a_big_file_ship_what_they_wrote_and_read_no_more_than_their_blocks() {
    with_lab(
        |_| {},
        |lab| {
            let relay = relay(lab)?;
            let mut session = Session::connect(lab, "data")?;
            let handle = session.create("big", "create")?;
            session.fill(handle, 0, FILE, 1)?;
            session.close(handle)?;
            let (wire, read, blocks) = write_at_random(lab, &relay, WRITES, FILE, 2)?;
            check_wire(wire, WRITES)?;
            // Everything counts: the blocks, the journal, the databases, the connection.
            let changed = blocks * BLOCK;
            ensure!(read <= changed * 4, "{read} bytes read for {blocks} blocks");
            lab.check_replica("site1")
        },
    );
}

#[test]
fn small_writes_into_a_sparse_file_of_gigabytes_ship_what_they_wrote() {
    with_lab(
        |_| {},
        |lab| {
            let relay = relay(lab)?;
            let mut session = Session::connect(lab, "data")?;
            let handle = session.create("big", "create")?;
            session.set_sparse(handle)?;
            session.truncate(handle, GIGABYTES)?;
            session.close(handle)?;
            // Into holes; then into blocks, those of before among them. What arrives is checked against its hash, and
            // the trees by their digests.
            for (span, seed) in [(GIGABYTES, 2), (GIGABYTES, 3), (GIGABYTES / 64, 4)] {
                let (wire, ..) = write_at_random(lab, &relay, WRITES, span, seed)?;
                check_wire(wire, WRITES)?;
            }
            let state = || {
                lab.site_status("site1")
                    .ok()
                    .filter(|status| status["state"] == "in-sync")
            };
            let shown = || format!("{:?}", lab.site_status("site1"));
            wait::until("the trees compared equal", SETTLE_LIMIT, state, shown).map(drop)
        },
    );
}

#[test]
#[ignore = "minutes, and 12 GiB of disk: cargo xtask test --long"]
fn small_writes_into_a_dense_file_of_gigabytes_ship_what_they_wrote() {
    with_lab(
        |options| options.vfsxd = false,
        |lab| {
            let big = lab.share("data")?.join("big");
            let mut noise = File::open("/dev/urandom")?.take(GIGABYTES);
            io::copy(&mut noise, &mut File::create(&big)?)?;
            // Clients ask for all rights, also that to execute it.
            fs::set_permissions(&big, fs::Permissions::from_mode(0o744))?;
            give_to_user(&big)?;
            let begun = Instant::now();
            let relay = relay(lab)?;
            lab.settle_within(LIMIT)?;
            println!("{GIGABYTES} bytes at the site after {:?}", begun.elapsed());
            let begun = Instant::now();
            let (wire, read, blocks) = write_at_random(lab, &relay, MANY_WRITES, GIGABYTES, 2)?;
            println!(
                "{MANY_WRITES} writes into {blocks} blocks at the site after {:?}: {wire:?} bytes on the wire, {read} read",
                begun.elapsed()
            );
            check_wire(wire, MANY_WRITES)?;
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
