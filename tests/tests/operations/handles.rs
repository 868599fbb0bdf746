//! What clients do with handles that outlive a moment: durable ones, and such that stay open.

use crate::client::{Client, second};
use crate::content::set_written;
use crate::stage::{Action, NOTHING};
use anyhow::{Result, anyhow, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use vfsx_tests::lab::BUCKET;
use vfsx_tests::rpc::Rpc;
use vfsx_tests::smb::{Open, Session};
use vfsx_tests::wait;

/// Some time that no test runs at.
const THEN: u64 = 1_000_000_000;
/// smbd writes a changed file's time 2 s after the write.
const WRITE_TIME_LIMIT: Duration = Duration::from_secs(10);

/// With what durable handles need.
pub const ACTIONS: &[Action] = &[
    Action {
        name: "come back to an open file",
        before: |c| c.noise("f", 300_000),
        act: |c| {
            let mut session = Session::connect(c.lab, "data")?;
            let handle = session.open(&c.at("f"), &durable("open"))?;
            session.write(handle, 70_000, b"before")?;
            c.lab.settle()?;
            session.write(handle, 140_000, b"at last")?;
            session.lose_connection()?;
            // vfsxd reads the file now. smbd gives the handle back only when nothing at all has changed about the file.
            c.lab.settle()?;
            let handle = session.reconnect(handle)?;
            session.write(handle, 200_000, b"after")?;
            session.close(handle)
        },
        happened: |d| {
            d.holds("f", 70_000, b"before")
                .and(d.holds("f", 200_000, b"after"))
        },
        calls: &["durable_disconnect", "durable_reconnect", "pwrite_send"],
    },
    Action {
        name: "come back to a new file",
        before: NOTHING,
        act: |c| {
            let mut session = Session::connect(c.lab, "data")?;
            let handle = session.open(&c.at("f"), &durable("create"))?;
            session.write(handle, 0, b"before")?;
            session.lose_connection()?;
            let handle = session.reconnect(handle)?;
            session.lose_connection()?;
            c.lab.settle()?;
            let handle = session.reconnect(handle)?;
            session.write(handle, 6, b" and after")?;
            session.close(handle)
        },
        happened: |d| d.holds("f", 0, b"before and after"),
        calls: &["durable_disconnect", "durable_reconnect"],
    },
    Action {
        name: "never come back",
        before: |c| c.noise("f", 300_000),
        act: |c| {
            let mut session = Session::connect(c.lab, "data")?;
            let handle = session.open(&c.at("f"), &durable("open"))?;
            session.write(handle, 70_000, b"before")
        },
        happened: |d| d.holds("f", 70_000, b"before"),
        calls: &["pwrite_send"],
    },
    Action {
        name: "the time of a write that comes later",
        before: |c| c.noise("f", 100_000).and(set_written(c, "f", THEN)),
        act: |c| {
            let handle = c.open("f", "open")?;
            c.session.write(handle, 10, b"written")?;
            let at_once = c.written("f")?;
            let later = || c.written("f").is_ok_and(|now| now != at_once).then_some(());
            wait::until("the time of the write", WRITE_TIME_LIMIT, later, || {
                at_once.to_string()
            })?;
            c.lab.settle()?;
            // The file is open still, so nothing but this time has told of it.
            let (disk, site) = (c.written("f")?, written_at_site(c, "f")?);
            ensure!(disk == site, "written at {disk}, at the site {site}");
            c.session.close(handle)
        },
        happened: |d| d.holds("f", 10, b"written"),
        calls: &["fntimes"],
    },
];

fn durable(disposition: &str) -> Open<'_> {
    Open {
        disposition,
        durable: true,
        ..Open::default()
    }
}

/// Modification time that the site has, as clients give it.
fn written_at_site(c: &Client<'_>, name: &str) -> Result<u64> {
    let path = format!("/{}", c.at(name));
    let mut rpc = Rpc::connect(c.lab.site("site1")?)?;
    let answer = rpc.call(
        "object.stat",
        json!({ "bucket": BUCKET, "object": { "path": path } }),
    )?;
    let answer = answer.map_err(|error| anyhow!("object.stat {path}: {error}"))?;
    let time = |index: &str| answer.pointer(index).and_then(Value::as_u64);
    let (Some(seconds), Some(nanoseconds)) = (time("/object/mtime/0"), time("/object/mtime/1")) else {
        return Err(anyhow!("no time in {answer}"));
    };
    Ok(second(seconds) + nanoseconds / 100)
}
