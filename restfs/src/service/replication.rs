//! `replication.position|commit`: exactly once, in order, by one source.

use super::access::find_bucket;
use super::{Service, now_ns};
use crate::auth::{Identity, Need};
use restfs_lib::kv::{KvRead, KvWrite};
use restfs_lib::model::{BlockKey, Op, Time};
use restfs_lib::tree::bucket::{self, Bucket};
use restfs_lib::tree::commit::{self, Commit, CommitInfo, Position};
use restfs_lib::tree::{Checks, Tree, held};
use restfs_lib::wire::limits::MAX_OPS;
use restfs_lib::wire::method::{
    CommitParams, CommitResult, Position as WirePosition, PositionParams, PositionResult,
};
use restfs_lib::wire::{Code, MAX_MISSING_NAMED, RpcError, check};
use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

pub(super) fn position(
    service: &Service,
    identity: &Identity,
    params: PositionParams,
) -> Result<PositionResult, RpcError> {
    check::label(&params.source, "source")?;
    service.metadata.read(|kv| {
        let bucket = find_bucket(kv, identity, Need::Replicate, &params.bucket)?;
        let position = commit::position(kv, bucket.id, &params.source)?;
        refuse_released(&bucket, position)?;
        let here = bucket.source.as_ref() == Some(&params.source);
        Ok(PositionResult {
            // What a source left behind before another one took over says nothing of the tree any more.
            position: position.filter(|_| here).map(|p| WirePosition {
                epoch: p.epoch,
                sequence: p.sequence,
                point: bucket.head,
            }),
        })
    })
}

pub(super) async fn commit(
    service: Arc<Service>,
    identity: Arc<Identity>,
    params: CommitParams,
) -> Result<CommitResult, RpcError> {
    let request = Arc::new(Request::check(params)?);
    let naming = service.naming.clone().read_owned().await;
    let (first_look, name) = (request.clone(), identity.clone());
    let (named, who) = (request.clone(), identity.clone());
    let repeated = service
        .blocking(move |service| {
            let (_, step) = service.metadata.read(|kv| look(kv, &name, &first_look))?;
            if let Step::Repeated(point) = step {
                return Ok(Some(point));
            }
            if !first_look.ops.iter().all(only_removes) {
                service.space.for_commit()?;
            }
            // Blocks first: a commit that is on disk never names one that is not.
            service.require_blocks(&name, &first_look.ops)?;
            service.blocks.flush()?;
            Ok(None)
        })
        .await?;
    if let Some(point) = repeated {
        return Ok(CommitResult {
            point,
            repeated: true,
        });
    }
    let result = service
        .metadata
        .write(move |txn| {
            // Even if nobody waits for it any more.
            let _until_it_is_done = &naming;
            apply(txn, &identity, &request)
        })
        .await?;
    service.note_named(&who, named.ops.iter().flat_map(held::named));
    Ok(result)
}

impl Service {
    fn require_blocks(&self, identity: &Identity, ops: &[Op]) -> Result<(), RpcError> {
        let keys: HashSet<BlockKey> = ops.iter().flat_map(held::named).collect();
        let keys: Vec<BlockKey> = keys.into_iter().collect();
        let missing = self.missing_for(identity, &keys)?;
        if missing.is_empty() {
            return Ok(());
        }
        let text = format!(
            "{} of the commit's {} blocks are not here",
            missing.len(),
            keys.len()
        );
        let mut error = RpcError::new(Code::MissingBlocks, text);
        error.data.missing = missing
            .into_iter()
            .take(MAX_MISSING_NAMED)
            .map(Into::into)
            .collect();
        Err(error)
    }
}

/// What a full site still takes: it makes room for what comes after it.
fn only_removes(op: &Op) -> bool {
    match op {
        Op::DropObject { .. } | Op::DropEntry { .. } | Op::DropAttribute { .. } => true,
        Op::PutBlocks { blocks, .. } => blocks.iter().all(|(_, block)| block.is_none()),
        Op::PutObject { .. } | Op::PutEntry { .. } | Op::PutAttribute { .. } => false,
    }
}

/// A commit in the model's types, its numbers in order.
struct Request {
    bucket: String,
    source: String,
    epoch: u64,
    first: u64,
    last: u64,
    resync: bool,
    time_ns: i64,
    exact: bool,
    ops: Vec<Op>,
}

impl Request {
    fn check(params: CommitParams) -> Result<Self, RpcError> {
        check::label(&params.source, "source")?;
        check::count(params.ops.len(), MAX_OPS, "ops")?;
        check::integer(params.epoch, "epoch")?;
        check::integer(params.last, "last")?;
        if params.epoch == 0 {
            return Err(RpcError::invalid_params("epochs start at 1"));
        }
        check::integer(params.first, "first")?;
        if !params.resync && !(1..=params.last).contains(&params.first) {
            return Err(RpcError::invalid_params(
                "`first` is from 1 to `last`; with `resync`, the number of the part",
            ));
        }
        let time = Time::try_from(params.time)?;
        Ok(Self {
            bucket: params.bucket,
            source: params.source,
            epoch: params.epoch,
            first: params.first,
            last: params.last,
            resync: params.resync,
            time_ns: i64::try_from(time.ns())
                .map_err(|_| RpcError::invalid_params("`time` is not between the years 1678 and 2262"))?,
            exact: params.exact,
            ops: params
                .ops
                .into_iter()
                .map(Op::try_from)
                .collect::<Result<_, _>>()?,
        })
    }
}

/// What a commit is to the bucket as it stands.
enum Step {
    Next,
    /// It was committed before, as this point.
    Repeated(u64),
}

/// Asked twice: before the blocks are looked at, and inside the transaction, which alone counts.
fn look(kv: &dyn KvRead, identity: &Identity, request: &Request) -> Result<(Bucket, Step), RpcError> {
    let bucket = find_bucket(kv, identity, Need::Replicate, &request.bucket)?;
    let known = commit::position(kv, bucket.id, &request.source)?;
    refuse_released(&bucket, known)?;
    // To a source that never wrote here the bucket's epoch says nothing.
    let stranger = known.is_none() && bucket.source.is_some();
    if request.epoch < bucket.epoch && !stranger {
        return Err(fenced(&bucket, request));
    }
    let position = match &bucket.source {
        Some(source) if *source == request.source => known,
        // A newer epoch is how a source says that it means to take over.
        Some(_) if request.epoch > bucket.epoch => None,
        Some(source) => return Err(owned(&bucket, source)),
        None if bucket.head == 0 || !commit::positions(kv, bucket.id)?.is_empty() => None,
        None => return Err(written_by_hand(&bucket)),
    };
    if bucket.source.as_ref() != Some(&request.source) && !request.resync && has_content(kv, &bucket)? {
        // Its changes would be laid over a tree that is not its own.
        return Err(out_of_order(
            Position {
                epoch: bucket.epoch,
                ..Position::default()
            },
            request,
        ));
    }
    let step = step(kv, &bucket, position, request)?;
    Ok((bucket, step))
}

/// Its server may be alive and would take the bucket back before the one that it was released for comes.
fn refuse_released(bucket: &Bucket, position: Option<Position>) -> Result<(), RpcError> {
    if !position.is_some_and(|position| position.is_released()) {
        return Ok(());
    }
    let text = format!(
        "bucket `{}` was released from this source; if it is to be its copy again, release it once more: \
         `restfs bucket set {} --release-source`",
        bucket.name, bucket.name
    );
    let mut error = RpcError::new(Code::Fenced, text);
    error.data.epoch = Some(bucket.epoch);
    Err(error)
}

/// More than a root directory.
fn has_content(kv: &dyn KvRead, bucket: &Bucket) -> Result<bool, RpcError> {
    Ok(Tree::head(kv, bucket.id).totals()?.objects > 1)
}

fn step(
    kv: &dyn KvRead,
    bucket: &Bucket,
    position: Option<Position>,
    request: &Request,
) -> Result<Step, RpcError> {
    let at = position.unwrap_or_default();
    if request.resync {
        let before = commit::get(kv, bucket.id, at.point)?;
        return match is_next_part(at, before.as_ref(), request) {
            true => Ok(Step::Next),
            false => Err(out_of_order(at, request)),
        };
    }
    if request.first == at.sequence.saturating_add(1) {
        return Ok(Step::Next);
    }
    if request.epoch == at.epoch && request.last == at.sequence {
        let before = commit::get(kv, bucket.id, at.point)?;
        if before.is_some_and(|commit| commit.info.first == request.first && !commit.info.resync) {
            return Ok(Step::Repeated(at.point));
        }
    }
    Err(out_of_order(at, request))
}

/// The parts of a comparison are the first commits of its epoch, numbered from 1. Each states what rows are, whatever was
/// before: one that comes late or is played back would lay old rows over newer ones. Those of a source of an older version
/// all have the number 0; with them it is only seen whether the comparison goes on.
fn is_next_part(at: Position, before: Option<&Commit>, request: &Request) -> bool {
    match request.epoch.cmp(&at.epoch) {
        Ordering::Less => false,
        Ordering::Greater => request.first <= 1,
        Ordering::Equal => before.is_some_and(|before| {
            let next = match before.info.first {
                0 => 0,
                part => part + 1,
            };
            before.info.resync && request.last == at.sequence && request.first == next
        }),
    }
}

fn apply(txn: &mut dyn KvWrite, identity: &Identity, request: &Request) -> Result<CommitResult, RpcError> {
    let (mut bucket, step) = look(txn, identity, request)?;
    if let Step::Repeated(point) = step {
        return Ok(CommitResult {
            point,
            repeated: true,
        });
    }
    if bucket.source.as_ref() != Some(&request.source) || bucket.epoch != request.epoch {
        bucket.source = Some(request.source.clone());
        bucket.epoch = request.epoch;
        bucket::set(txn, &bucket)?;
    }
    let info = CommitInfo {
        time_ns: request.time_ns,
        committed_ns: now_ns(),
        source: request.source.clone(),
        epoch: request.epoch,
        first: request.first,
        last: request.last,
        exact: request.exact,
        resync: request.resync,
    };
    let (made, _) = commit::commit(txn, bucket.id, Checks::Mirror, info, &request.ops)?;
    let position = Position {
        epoch: request.epoch,
        sequence: request.last,
        point: made.point,
    };
    commit::set_position(txn, bucket.id, &request.source, position)?;
    Ok(CommitResult {
        point: made.point,
        repeated: false,
    })
}

fn fenced(bucket: &Bucket, request: &Request) -> RpcError {
    let text = format!(
        "epoch {} is over: bucket `{}` is at epoch {}; another site was made primary, or this source was restored from a backup",
        request.epoch, bucket.name, bucket.epoch
    );
    let mut error = RpcError::new(Code::Fenced, text);
    error.data.epoch = Some(bucket.epoch);
    error
}

fn owned(bucket: &Bucket, source: &str) -> RpcError {
    let text = format!(
        "bucket `{}` is the copy of source {source}; use another bucket, or let this source take it over with \
         `restfs bucket set {} --release-source`",
        bucket.name, bucket.name
    );
    RpcError::new(Code::Conflict, text)
}

fn written_by_hand(bucket: &Bucket) -> RpcError {
    let text = format!(
        "bucket `{}` has content that no source put there; use an empty bucket",
        bucket.name
    );
    RpcError::new(Code::Conflict, text)
}

fn out_of_order(at: Position, request: &Request) -> RpcError {
    let (first, last) = (request.first, request.last);
    let what = match request.resync {
        true => format!(
            "part {first} of a comparison at change {last} of epoch {} does",
            request.epoch
        ),
        false => format!("changes {first} to {last} do"),
    };
    let text = format!("{what} not follow change {} of epoch {}", at.sequence, at.epoch);
    let mut error = RpcError::new(Code::OutOfOrder, text);
    error.data.epoch = Some(at.epoch);
    error.data.sequence = Some(at.sequence);
    error
}
