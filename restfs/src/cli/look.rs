//! `restfs ls|stat|cat|log`.

use super::access::Access;
use super::output::{self, Output};
use super::target::{self, Target};
use anyhow::{Result, bail};
use clap::Args;
use restfs_lib::client::Client;
use restfs_lib::wire::limits::MAX_PAGE;
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::{Kind, Object};
use serde::Serialize;

/// Bytes of content asked for at a time.
const READ: u32 = 4 * 1024 * 1024;
/// Entries asked for at a time.
const PAGE: u32 = 1_000;

#[derive(Debug, Args)]
pub(super) struct Ls {
    /// BUCKET[@POINT]:/PATH
    #[arg(value_parser = target::parser())]
    target: Target,
}

impl Ls {
    pub(super) async fn run(self, access: &Access, out: Output) -> Result<()> {
        let client = access.client();
        let point = self.target.resolve_point(client).await?;
        let object = self.target.object();
        let params = ObjectParams {
            bucket: self.target.bucket.clone(),
            object: object.clone(),
            point,
        };
        let found = match client.call::<ObjectStat>(&params).await {
            Ok(found) => found,
            Err(error) if self.is_bare(client).await => {
                tracing::debug!("{error}");
                return out.show(&Entries { entries: Vec::new() }, |_| String::new());
            }
            Err(error) => return Err(error.into()),
        };
        if found.object.kind != Kind::Directory {
            let name = restfs_lib::wire::Name(std::os::unix::ffi::OsStringExt::into_vec(self.target.name()));
            let entries = vec![EntryInfo {
                name,
                id: found.id,
                object: found.object,
            }];
            return out.show(&Entries { entries }, |found| lines(&found.entries));
        }
        let mut all = Vec::new();
        let bucket = self.target.bucket.clone();
        let mut params = ObjectListParams {
            bucket,
            object,
            point,
            after: None,
            limit: PAGE,
        };
        loop {
            let page = client.call::<ObjectList>(&params).await?;
            let names = params
                .after
                .iter()
                .chain(page.entries.iter().map(|entry| &entry.name));
            // A list that goes round would never end.
            if !names.is_sorted_by(|a, b| a < b) || (page.more && page.entries.is_empty()) {
                bail!(
                    "ls {}: the server's list of names is out of order",
                    self.target.bucket
                );
            }
            params.after = page.entries.last().map(|entry| entry.name.clone());
            if out.json {
                all.extend(page.entries);
            } else {
                output::print(lines(&page.entries).as_bytes())?;
            }
            if !page.more {
                break;
            }
        }
        if out.json {
            out.show(&Entries { entries: all }, |_| String::new())
        } else {
            Ok(())
        }
    }
}

impl Ls {
    /// The root of a bucket that nothing was written to yet, not even a root.
    async fn is_bare(&self, client: &Client) -> bool {
        let name = BucketName {
            bucket: self.target.bucket.clone(),
        };
        let root = self
            .target
            .path
            .as_deref()
            .is_none_or(|path| path.iter().all(|byte| *byte == b'/'));
        root && client
            .call::<BucketInfo>(&name)
            .await
            .is_ok_and(|bucket| bucket.head == 0)
    }
}

#[derive(Serialize)]
struct Entries {
    entries: Vec<EntryInfo>,
}

fn lines(entries: &[EntryInfo]) -> String {
    let line = |e: &EntryInfo| {
        let o = &e.object;
        let arrow = match &o.kind {
            Kind::Symlink { target } => format!(" -> {}", output::name(&target.0)),
            _ => String::new(),
        };
        let (mode, time, name) = (output::mode(o), output::time(o.mtime), output::name(&e.name.0));
        format!(
            "{mode} {:>5} {:>5} {:>14} {time} {name}{arrow}\n",
            o.uid, o.gid, o.size
        )
    };
    entries.iter().map(line).collect()
}

#[derive(Debug, Args)]
pub(super) struct Stat {
    /// BUCKET[@POINT]:/PATH
    #[arg(value_parser = target::parser())]
    target: Target,
}

#[derive(Serialize)]
struct Stated {
    #[serde(flatten)]
    found: ObjectStatResult,
    attributes: Vec<Attribute>,
}

impl Stat {
    pub(super) async fn run(self, access: &Access, out: Output) -> Result<()> {
        let client = access.client();
        let point = self.target.resolve_point(client).await?;
        let (bucket, object) = (&self.target.bucket, self.target.object());
        let found = client.stat(bucket, object.clone(), point).await?;
        let attributes = client.attributes(bucket, object, point).await?;
        let attribute = |(name, value)| Attribute {
            name: restfs_lib::wire::Name(name),
            value: restfs_lib::wire::Content(value),
        };
        let stated = Stated {
            found,
            attributes: attributes.into_iter().map(attribute).collect(),
        };
        out.show(&stated, properties)
    }
}

fn properties(stated: &Stated) -> String {
    let o = &stated.found.object;
    let mut pairs: Vec<(&str, String)> = stated
        .found
        .paths
        .iter()
        .map(|path| ("path", output::name(&path.0)))
        .collect();
    if let Kind::Symlink { target } = &o.kind {
        pairs.push(("target", output::name(&target.0)));
    }
    pairs.extend([
        ("id", stated.found.id.to_string()),
        ("mode", format!("{} ({:04o})", output::mode(o), o.mode)),
        ("owner", format!("{}:{}", o.uid, o.gid)),
        ("size", o.size.to_string()),
        ("modified", output::time(o.mtime)),
        ("accessed", output::time(o.atime)),
        ("created", output::time(o.btime)),
        ("set at point", stated.found.serial.to_string()),
        ("block size", o.layout.block_size.to_string()),
    ]);
    for attribute in &stated.attributes {
        let value = &attribute.value.0;
        let shown = match std::str::from_utf8(value) {
            Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
            _ => format!("0x{}", hex::encode(value)),
        };
        pairs.push((
            "attribute",
            format!("{} = {shown}", output::name(&attribute.name.0)),
        ));
    }
    output::list(&pairs)
}

#[derive(Debug, Args)]
pub(super) struct Cat {
    /// BUCKET[@POINT]:/PATH
    #[arg(value_parser = target::parser())]
    target: Target,
}

impl Cat {
    pub(super) async fn run(self, access: &Access) -> Result<()> {
        let client = access.client();
        let bucket = &self.target.bucket;
        // One point for all reads, so that the content is one moment's.
        let point = match self.target.resolve_point(client).await? {
            Some(point) => point,
            None => client.resolve_point(bucket, "latest").await?.point,
        };
        let mut offset = 0;
        loop {
            let content = client
                .read(bucket, self.target.object(), Some(point), offset, READ)
                .await?;
            output::print(&content)?;
            offset = offset.saturating_add(content.len() as u64);
            if content.len() < READ as usize {
                return Ok(());
            }
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Log {
    /// BUCKET: its recovery points; BUCKET[@POINT]:/PATH: when that object changed
    #[arg(value_parser = target::parser())]
    target: Target,
    /// Newest lines to show
    #[arg(long, short = 'n', default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl Log {
    pub(super) async fn run(self, access: &Access, out: Output) -> Result<()> {
        match &self.target.path {
            Some(_) => self.object(access, out).await,
            None if self.target.point.is_some() => {
                bail!(
                    "log {}: a bucket's log is of all its points; leave @POINT out",
                    self.target.bucket
                )
            }
            None => self.commits(access, out).await,
        }
    }

    async fn commits(self, access: &Access, out: Output) -> Result<()> {
        let mut all = CommitListResult { commits: Vec::new() };
        let mut params = CommitListParams {
            bucket: self.target.bucket,
            before: None,
            limit: 0,
        };
        loop {
            params.limit = (self.limit - all.commits.len() as u32).min(MAX_PAGE as u32);
            let page = access.client().call::<CommitList>(&params).await?.commits;
            params.before = page.last().map(|commit| commit.point);
            let end = page.len() < params.limit as usize;
            all.commits.extend(page);
            if end || all.commits.len() as u32 >= self.limit {
                return out.show(&all, |found| points(&found.commits));
            }
        }
    }

    async fn object(self, access: &Access, out: Output) -> Result<()> {
        let client = access.client();
        let params = ObjectLogParams {
            bucket: self.target.bucket.clone(),
            object: self.target.object(),
            point: self.target.resolve_point(client).await?,
            before: None,
            limit: self.limit.min(MAX_PAGE as u32),
        };
        out.show(&client.call::<ObjectLog>(&params).await?, |found| {
            revisions(&found.revisions)
        })
    }
}

fn points(commits: &[CommitInfo]) -> String {
    let row = |c: &CommitInfo| {
        let state = match (c.resync, c.exact) {
            (true, _) => "resync",
            (false, true) => "exact",
            (false, false) => "fuzzy",
        };
        let source = if c.source.is_empty() {
            "-".to_owned()
        } else {
            c.source.clone()
        };
        vec![
            c.point.to_string(),
            output::point_time(c.time),
            state.to_owned(),
            c.ops.to_string(),
            c.objects.to_string(),
            c.bytes.to_string(),
            source,
        ]
    };
    let rows: Vec<_> = commits.iter().map(row).collect();
    output::table(
        &[
            ">POINT", "TIME", "STATE", ">CHANGES", ">OBJECTS", ">BYTES", "SOURCE",
        ],
        &rows,
    )
}

fn revisions(revisions: &[Revision]) -> String {
    let row = |r: &Revision| {
        let size = r
            .object
            .as_ref()
            .map_or("removed".to_owned(), |o: &Object| o.size.to_string());
        let changed: Vec<&str> = [
            (r.content, "content"),
            (r.properties, "properties"),
            (r.attributes, "attributes"),
            (r.names, "name"),
        ]
        .into_iter()
        .filter_map(|(yes, what)| yes.then_some(what))
        .collect();
        vec![
            r.point.to_string(),
            output::point_time(r.time),
            size,
            changed.join(", "),
        ]
    };
    let rows: Vec<_> = revisions.iter().map(row).collect();
    output::table(&[">POINT", "TIME", ">SIZE", "CHANGED"], &rows)
}
