//! Numbers on the share that clients count up one after another, always in the same order: at every moment the first is at
//! most one ahead of the last, and none is ahead of one before it. They are of every kind that a change can be of.

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use vfsx_tests::lab::{BUCKET, Lab};
use vfsx_tests::rpc::Rpc;
use vfsx_tests::smb::{Handle, Session};

const DIR: &str = "bank";
/// Written when the accounts are opened: points from before that have no numbers.
const OPEN: &str = "bank/open";
/// In another block of the file, behind its first two.
const FAR: u64 = 150_000;
const ATTRIBUTE: &str = "COUNT";
const EVERYONE: &str = "S-1-1-0";
const READ_ACCESS: u32 = 0x0012_0089;
/// Each makes the access control list longer, and all attributes of a file have 4 KiB on ext4.
const MOST_GRANTS: u64 = 100;
/// Numbers of a state, in the order in which they are counted up.
pub(crate) const NUMBERS: usize = 8;

pub(crate) type Numbers = [u64; NUMBERS];

/// The bank's clients. One does the first of the steps, another one the next, and so on in turns.
pub(crate) struct Bank {
    clients: Vec<(Session, Handles)>,
    /// Number in the name of the file that has it there.
    name: u64,
}

#[derive(Clone, Copy)]
struct Handles {
    first: Handle,
    named: Handle,
    tagged: Handle,
    sized: Handle,
    last: Handle,
}

/// Place of the step that gives a new name: it cannot be done twice.
const NAMING: usize = 2;

type Step = fn(&mut Session, Handles, u64) -> Result<()>;

const STEPS: [Step; NUMBERS] = [
    |session, handles, n| session.write(handles.first, 0, &n.to_be_bytes()),
    |session, handles, n| session.write(handles.first, FAR, &n.to_be_bytes()),
    |session, handles, n| session.rename_open(handles.named, &name_of(n), false),
    |session, handles, n| session.set_extended(handles.tagged, &[(ATTRIBUTE, &n.to_string())]),
    |session, handles, n| session.truncate(handles.sized, n),
    |session, _, n| {
        // A new file in place of the old one, as editors save.
        session.create_write_close(&format!("{DIR}/new"), &n.to_be_bytes())?;
        let new = session.create(&format!("{DIR}/new"), "open")?;
        session.rename_open(new, &format!("{DIR}/saved"), true)?;
        session.close(new)
    },
    |session, handles, n| {
        if n % 16 == 0 && n < MOST_GRANTS * 16 {
            session.grant(handles.tagged, EVERYONE, READ_ACCESS)?;
        }
        session.write(handles.last, 0, &n.to_be_bytes())
    },
    |session, handles, n| session.write(handles.last, FAR, &n.to_be_bytes()),
];

impl Bank {
    /// Opens the accounts, all at 0. `clients`: sessions to work with.
    pub(crate) fn open(lab: &Lab, clients: usize) -> Result<Self> {
        let mut first = Session::connect(lab, "data")?;
        let dir = vfsx_tests::smb::Open {
            disposition: "create",
            directory: Some(true),
            ..Default::default()
        };
        let dir = first.open(DIR, &dir)?;
        first.close(dir)?;
        for (name, length) in [
            ("first", FAR + 8),
            ("last", FAR + 8),
            ("n0", 8),
            ("tagged", 8),
            ("sized", 0),
            ("saved", 8),
        ] {
            let file = first.create(&format!("{DIR}/{name}"), "create")?;
            let mut done = 0;
            while done < length {
                let part = (length - done).min(32 << 10);
                first.write(file, done, &vec![0; part as usize])?;
                done += part;
            }
            if name == "tagged" {
                first.set_extended(file, &[(ATTRIBUTE, "0")])?;
            }
            first.close(file)?;
        }
        first.create_write_close(OPEN, b"open")?;
        drop(first);
        Self::again(lab, clients, 0)
    }

    /// Goes on with accounts that are open; all are counted up to `n`, and some perhaps to the next.
    pub(crate) fn again(lab: &Lab, clients: usize, n: u64) -> Result<Self> {
        let share = lab.share("data")?;
        let is_there = |n: &u64| share.join(name_of(*n)).exists();
        let name = [n, n + 1]
            .into_iter()
            .find(is_there)
            .context("the named file is gone")?;
        let mut made = Vec::new();
        for _ in 0..clients {
            let mut session = Session::connect(lab, "data")?;
            let mut open = |name: &str| session.create(&format!("{DIR}/{name}"), "open");
            let handles = Handles {
                first: open("first")?,
                tagged: open("tagged")?,
                sized: open("sized")?,
                last: open("last")?,
                named: session.create(&name_of(name), "open")?,
            };
            made.push((session, handles));
        }
        Ok(Self { clients: made, name })
    }

    /// Counts all up to `n`.
    pub(crate) fn count(&mut self, n: u64) -> Result<()> {
        let clients = self.clients.len();
        for (number, step) in STEPS.iter().enumerate() {
            if number == NAMING && self.name == n {
                continue;
            }
            if let Some((session, handles)) = self.clients.get_mut(number % clients) {
                step(session, *handles, n).with_context(|| format!("number {number} to {n}"))?;
            }
        }
        self.name = n;
        Ok(())
    }
}

fn name_of(n: u64) -> String {
    format!("{DIR}/n{n}")
}

/// That a client can have seen them so.
pub(crate) fn check(numbers: &Numbers) -> Result<()> {
    let ordered = numbers.windows(2).all(|pair| pair[0] >= pair[1]);
    let first_and_last = numbers.first().zip(numbers.last());
    let close = first_and_last.is_some_and(|(first, last)| first - last <= 1);
    ensure!(ordered && close, "{numbers:?} were never the share's");
    Ok(())
}

/// The numbers in a directory that is a copy of the share.
pub(crate) fn in_directory(root: &Path) -> Result<Numbers> {
    let dir = root.join(DIR);
    let at = |name: &str, offset: u64| -> Result<u64> { number(&fs::read(dir.join(name))?, offset) };
    let mut named = None;
    for entry in fs::read_dir(&dir)? {
        named = named.or(name_number(&entry?.file_name().to_string_lossy()));
    }
    let mut value = [0; 32];
    let length = rustix::fs::getxattr(dir.join("tagged"), format!("user.{ATTRIBUTE}"), &mut value[..])?;
    Ok([
        at("first", 0)?,
        at("first", FAR)?,
        named.context("no named file")?,
        tag(value.get(..length).unwrap_or_default())?,
        fs::metadata(dir.join("sized"))?.len(),
        at("saved", 0)?,
        at("last", 0)?,
        at("last", FAR)?,
    ])
}

/// The numbers at a recovery point. `None`: the accounts were not all open.
pub(crate) fn at_point(rpc: &mut Rpc, point: u64) -> Result<Option<Numbers>> {
    let mut site = AtPoint { rpc, point };
    if site.ask("object.stat", OPEN, json!({}))?.is_none() {
        return Ok(None);
    }
    let names = site.need("object.list", DIR, json!({ "limit": 100 }))?;
    let names = names
        .get("entries")
        .and_then(Value::as_array)
        .context("no entries")?;
    let named = names
        .iter()
        .find_map(|entry| name_number(entry.get("name")?.as_str()?));
    let name = format!("user.{ATTRIBUTE}");
    let value = site.need(
        "object.attribute.get",
        &format!("{DIR}/tagged"),
        json!({ "name": name }),
    )?;
    let size = site.read("sized", 0)?.1;
    Ok(Some([
        site.number("first", 0)?,
        site.number("first", FAR)?,
        named.context("no named file")?,
        tag(&content(&value, "value")?)?,
        size,
        site.number("saved", 0)?,
        site.number("last", 0)?,
        site.number("last", FAR)?,
    ]))
}

struct AtPoint<'a> {
    rpc: &'a mut Rpc,
    point: u64,
}

impl AtPoint<'_> {
    /// `None`: there is no such thing at the point.
    fn ask(&mut self, method: &str, path: &str, more: Value) -> Result<Option<Value>> {
        let mut params =
            json!({ "bucket": BUCKET, "object": { "path": format!("/{path}") }, "point": self.point });
        let (Some(params_of), Some(more)) = (params.as_object_mut(), more.as_object()) else {
            return Ok(None);
        };
        params_of.extend(more.clone());
        Ok(self.rpc.call(method, params)?.ok())
    }

    fn need(&mut self, method: &str, path: &str, more: Value) -> Result<Value> {
        let found = self.ask(method, path, more)?;
        found.with_context(|| format!("{method} of {path} at point {}", self.point))
    }

    /// Eight bytes, and the file's size.
    fn read(&mut self, name: &str, offset: u64) -> Result<(Vec<u8>, u64)> {
        let path = format!("{DIR}/{name}");
        let found = self.need("object.read", &path, json!({ "offset": offset, "length": 8 }))?;
        let size = found.get("size").and_then(Value::as_u64).context("no size")?;
        Ok((content(&found, "content")?, size))
    }

    fn number(&mut self, name: &str, offset: u64) -> Result<u64> {
        number(&self.read(name, offset)?.0, 0)
    }
}

fn content(found: &Value, member: &str) -> Result<Vec<u8>> {
    let text = found.get(member).and_then(Value::as_str).context("no content")?;
    Ok(STANDARD.decode(text)?)
}

fn number(content: &[u8], offset: u64) -> Result<u64> {
    let bytes = content.get(offset as usize..).and_then(|rest| rest.first_chunk());
    Ok(u64::from_be_bytes(*bytes.context("a file is too short")?))
}

fn name_number(name: &str) -> Option<u64> {
    name.strip_prefix('n')?.parse().ok()
}

/// Samba ends a value with a zero byte.
fn tag(value: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(value)?.trim_end_matches('\0');
    text.parse().with_context(|| format!("the attribute is {text:?}"))
}
