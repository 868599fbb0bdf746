//! Reading one object.

use super::content::{Context, Pass, ReadError};
use super::{Ending, Job, Part, Sink, Slice, Stopped};
use crate::catalog::CatalogError;
use crate::catalog::applier::{BUCKET, ReachError, reach};
use crate::catalog::share::{Details, Doubt, Seen, Type, details, is_of_tick, now as clock_now, open_pinned};
use restfs_lib::model::Object;
use restfs_lib::tree::Tree;
use rustix::fd::AsFd;
use rustix::fs::{SeekFrom, seek};
use std::fs::File;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Two writes within a tick of the kernel's clock (10 ms with the slowest) may leave the same times, so that the second
/// cannot be seen. Kernels from 6.13 on give times that differ once somebody has looked at them.
const TICK: Duration = Duration::from_millis(10);

/// Reads what the job asks for and sends it.
pub(super) fn run(context: &Context<'_>, job: Job, send: &mut Sink<'_>) -> Result<(), Stopped> {
    let (object, flight) = (job.object, job.flight);
    let ending = match start(context, &job) {
        Ok(Some(found)) => match read(context, &job, found, send) {
            Ok(last) => return send(last),
            Err(ReadError::Stopped) => return Err(Stopped),
            Err(ReadError::Failed(why)) => Ending::Failed(why),
        },
        Ok(None) => Ending::Away,
        Err(e) => Ending::Failed(e.to_string()),
    };
    send(Part {
        object,
        flight,
        slice: None,
        ending: Some(ending),
    })
}

struct Found {
    seen: Seen,
    details: Details,
    /// As the catalog has it.
    object: Object,
    /// With content to be read.
    file: Option<File>,
}

/// The object as it is now.
fn start(context: &Context<'_>, job: &Job) -> Result<Option<Found>, ReachError> {
    let kv = context.kv.read().map_err(CatalogError::from)?;
    let Some((pin, ..)) = reach(&*kv, context.share, job.object)? else {
        return Ok(None);
    };
    let tree = Tree::head(&*kv, BUCKET);
    let Some((object, _)) = tree.object(job.object).map_err(CatalogError::from)? else {
        return Ok(None);
    };
    drop(kv);
    let seen = context.share.see_handle(pin.as_fd())?;
    if !seen.kind.is(&object.kind) {
        return Ok(None);
    }
    let details = details(pin.as_fd(), seen.kind == Type::Symlink)?;
    let file = match seen.kind {
        Type::File if job.dirt.has_ranges() || seen.size() != object.size => {
            Some(open_pinned(pin.as_fd(), false)?)
        }
        _ => None,
    };
    Ok(Some(Found {
        seen,
        details,
        object,
        file,
    }))
}

/// Sends all parts but the last and returns that one.
fn read(context: &Context<'_>, job: &Job, found: Found, send: &mut Sink<'_>) -> Result<Part, ReadError> {
    let mut pass = Pass::new(context, job, &found.object);
    let Found {
        seen, details, file, ..
    } = found;
    let mut read = match file {
        None => Read {
            slice: None,
            seen,
            unsteady: false,
        },
        Some(file) => {
            let bytes = pass.bytes(seen.size());
            let rest = job.rest.filter(|_| bytes > 0);
            if rest.is_some()
                && let Some(until) = context.clones.put_off(job.object)
            {
                return Ok(last(job, None, Ending::Later(until)));
            }
            match rest {
                None => read_once(context, &mut pass, &file, seen, send)?,
                Some(newest_ns) => read_moment(context, &mut pass, &file, (seen, newest_ns), send)?,
            }
        }
    };
    if read.seen.stamp != seen.stamp {
        // The details are older than that.
        read.seen.doubt = read.seen.doubt.max(Doubt::Metadata);
    }
    let ending = Ending::Read {
        seen: read.seen,
        details,
        read: pass.dirt,
        unsteady: read.unsteady,
    };
    Ok(last(job, read.slice, ending))
}

fn last(job: &Job, slice: Option<Slice>, ending: Ending) -> Part {
    Part {
        object: job.object,
        flight: job.flight,
        slice,
        ending: Some(ending),
    }
}

struct Read {
    slice: Option<Slice>,
    /// As before it was read, with the size that it was read with.
    seen: Seen,
    /// It was another one behind.
    unsteady: bool,
}

fn read_once(
    context: &Context<'_>,
    pass: &mut Pass<'_>,
    file: &File,
    seen: Seen,
    send: &mut Sink<'_>,
) -> Result<Read, ReadError> {
    let slice = pass.read(file, seen.size(), send)?;
    let unsteady = context.share.see_handle(file.as_fd())?.stamp != seen.stamp;
    Ok(Read {
        slice,
        seen,
        unsteady,
    })
}

/// What a client has come to rest with is to be one moment's content. It is when nobody disturbs the reading; where somebody
/// does, the file is cloned and read again. What is too large to stay in memory until it is shipped is read from a clone at
/// once, which the replicator then reads it from.
fn read_moment(
    context: &Context<'_>,
    pass: &mut Pass<'_>,
    file: &File,
    (mut seen, newest_ns): (Seen, i64),
    send: &mut Sink<'_>,
) -> Result<Read, ReadError> {
    let large = pass.bytes(seen.size()) > context.cache.limit() as u64 / 2;
    if large && context.clones.may(pass.object, seen.node.dev) {
        // What is not on disk yet is written while the file is cloned and nobody can write to it: so most of it before. If
        // that fails, cloning or reading says why.
        let _ = rustix::fs::fdatasync(file);
        if let Some(read) = read_clone(context, pass, file, send)? {
            return Ok(read);
        }
    }
    wait_for_tick(&mut seen);
    wait_for_writer(file);
    let read = read_once(context, pass, file, seen, send)?;
    // Somebody who has not told of it yet may be in the middle of a write.
    let unknown = seen.stamp.ctime.ns() > newest_ns.into();
    if (read.unsteady || unknown)
        && let Some(read) = read_clone(context, pass, file, send)?
    {
        return Ok(read);
    }
    Ok(read)
}

/// `None`: it cannot be cloned, or not now.
fn read_clone(
    context: &Context<'_>,
    pass: &mut Pass<'_>,
    file: &File,
    send: &mut Sink<'_>,
) -> Result<Option<Read>, ReadError> {
    let mut seen = context.share.see_handle(file.as_fd())?;
    let clone = context
        .clones
        .take(context.share, pass.object, seen.node.dev, file);
    let Some(clone) = clone else { return Ok(None) };
    let unsteady = context.share.see_handle(file.as_fd())?.stamp != seen.stamp;
    tracing::debug!("object {} is read from a clone", pass.object);
    seen.stamp.size = clone.metadata()?.len();
    let slice = pass.read_clone(&clone, seen.size(), send)?;
    context.clones.keep(pass.object, clone);
    Ok(Some(Read {
        slice,
        seen,
        unsteady,
    }))
}

/// A write that had begun when the file was looked at, and moved its times then, may not have ended: on btrfs and ext4 it can
/// be read in part. Looking for data takes the lock that it holds; whoever writes later moves the times again.
fn wait_for_writer(file: &File) {
    // That there is none, or no such call, is as good.
    let _ = seek(file, SeekFrom::Data(0));
}

/// So that whoever writes from now on changes the times. What was read of the metadata is older.
fn wait_for_tick(seen: &mut Seen) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let changed = Duration::from_nanos(u64::try_from(seen.stamp.ctime.ns()).unwrap_or_default());
    // Not at all when the clock was set back and the times lie ahead.
    if let Some(age) = now.checked_sub(changed)
        && let Some(left) = TICK.checked_sub(age)
    {
        std::thread::sleep(left);
    }
    if !is_of_tick(seen.stamp.ctime, clock_now()) {
        seen.doubt = seen.doubt.min(Doubt::Metadata);
    }
}
