//! Opening a catalog.

use super::applier::{BUCKET, now_ns, stored_status};
use super::kept::Kept;
use super::options::{CatalogError, Options};
use super::reader::{Cache, Clones};
use super::share::{Details, Seen, Share, details};
use super::shared::{Content, Now, Shared};
use super::store::{
    CursorRow, CutRow, DevicesRow, EndRow, HeadRow, Key, LogRow, NodeRow, ScanPhase, ScanRow, SourceRow,
    StampRow, get, put,
};
use dr_replicator::Cursor;
use restfs_lib::kv::{Kv, KvError, KvRead, KvWrite, SqliteKv, SqliteOptions, Synchronous};
use restfs_lib::model::{Kind, Object, ObjectId, Op};
use restfs_lib::tree::{self, History};
use std::collections::BTreeMap;
use std::path::Path;

/// Pages of the database kept in memory by the applier, and, a quarter of it, by each of up to eight readers; the kernel keeps what
/// is read often, too.
const DATABASE_CACHE: usize = 8 << 20;

pub(super) fn database(path: &Path) -> Result<Box<dyn Kv>, CatalogError> {
    let options = SqliteOptions {
        path: path.to_owned(),
        synchronous: Synchronous::Full,
        cache_bytes: DATABASE_CACHE,
    };
    match SqliteKv::open(options) {
        Ok(kv) => Ok(Box::new(kv)),
        Err(error @ KvError::Format(_)) => Err(CatalogError::Format(error)),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn open(options: &Options, kv: Box<dyn Kv>) -> Result<Shared, CatalogError> {
    let failed = |why: String| CatalogError::Share {
        path: options.share.display().to_string(),
        why,
    };
    options.layout.validate().map_err(|e| failed(e.to_string()))?;
    let mut share = Share::open(&options.share).map_err(|e| failed(e.to_string()))?;
    let root = share
        .see_handle(share.root())
        .map_err(|e| failed(e.to_string()))?;
    let source = get::<SourceRow>(&*kv.read()?, &Key::meta("source"))?;
    let source = match source {
        Some(source) if source.root == root.node => source,
        Some(_) => return Err(wrong_share(options)),
        None => {
            let details = details(share.root(), false).map_err(|e| failed(e.to_string()))?;
            create(&*kv, options, &root, details)?
        }
    };
    remember_devices(&*kv, &mut share)?;
    let now = stored(&*kv.read()?, options)?;
    Ok(Shared::new(
        kv,
        share,
        Content {
            cache: Cache::new(options.cache_bytes),
            clones: Clones::new(options.clone_rest),
            kept: Kept::new(&options.kept, options.kept_bytes),
        },
        source.id,
        now,
    ))
}

/// Numbers of devices kept; a share that was mounted more often has no records that old.
const DEVICES: usize = 16;

fn remember_devices(kv: &dyn Kv, share: &mut Share) -> Result<(), CatalogError> {
    let key = Key::meta("devices");
    let before = get::<DevicesRow>(&*kv.read()?, &key)?.unwrap_or_default();
    share.had_devices(&before.numbers);
    let numbers: Vec<u64> = share.devices().iter().copied().take(DEVICES).collect();
    if numbers != before.numbers {
        let mut txn = kv.write()?;
        put(&mut *txn, &key, &DevicesRow { numbers })?;
        txn.commit()?;
    }
    Ok(())
}

fn wrong_share(options: &Options) -> CatalogError {
    CatalogError::WrongShare(format!(
        "the catalog {} was made for another directory than {} is now: is its disk mounted? \
         If the share was moved or restored, remove the catalog; it is made anew and compared with the sites",
        options.database.display(),
        options.share.display()
    ))
}

/// A new catalog: the root, and the wish for a scan.
fn create(kv: &dyn Kv, options: &Options, root: &Seen, details: Details) -> Result<SourceRow, CatalogError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|e| CatalogError::Damaged(format!("no random numbers: {e}")))?;
    let source = SourceRow { id, root: root.node };
    let mut txn = kv.write()?;
    tree::bucket::open(&mut *txn, BUCKET, "share", options.layout, 0)?;
    let changes = put_root(&mut *txn, options, root, details)?;
    put(&mut *txn, &Key::meta("source"), &source)?;
    let head = HeadRow {
        change: changes,
        oldest: 1,
        next_object: ObjectId::ROOT.0 + 1,
        ..HeadRow::default()
    };
    put(&mut *txn, &Key::meta("head"), &head)?;
    put(
        &mut *txn,
        &Key::meta("scan"),
        &ScanRow {
            phase: ScanPhase::Needed,
            ..ScanRow::default()
        },
    )?;
    txn.commit()?;
    Ok(source)
}

/// The share's root is the first object, and the first changes. How many these are.
fn put_root(
    txn: &mut dyn KvWrite,
    options: &Options,
    root: &Seen,
    details: Details,
) -> Result<u64, CatalogError> {
    let id = ObjectId::ROOT;
    let object = Object {
        kind: Kind::Directory,
        mode: root.mode,
        uid: root.uid,
        gid: root.gid,
        size: 0,
        mtime: root.stamp.mtime,
        atime: root.atime,
        btime: root.btime,
        layout: options.layout,
    };
    let mut ops = vec![Op::PutObject { id, object }];
    for (name, value) in details.attributes {
        ops.push(Op::PutAttribute { id, name, value });
    }
    let changes = ops.len() as u64;
    let time_ns = now_ns();
    for (sequence, op) in (1..).zip(ops) {
        tree::apply(txn, BUCKET, sequence, History::HeadOnly, &op)?;
        let row = LogRow {
            journal: 0,
            time_ns,
            covered: 0,
            oldest_ns: time_ns,
            bytes: 0,
            end: match sequence == changes {
                true => EndRow::Whole,
                false => EndRow::Within,
            },
            op: op.into(),
        };
        put(txn, &Key::Log(sequence), &row)?;
    }
    txn.put(&Key::Node(root.node).bytes(), &id.0.to_be_bytes())?;
    let row = NodeRow {
        node: root.node,
        names: 1,
        stamp: StampRow::of(root.stamp, root.doubt),
        scan: 0,
    };
    put(txn, &Key::Object(id), &row)?;
    Ok(changes)
}

fn stored(kv: &dyn KvRead, options: &Options) -> Result<Now, CatalogError> {
    let mut cursors = BTreeMap::new();
    for site in &options.sites {
        if let Some(row) = get::<CursorRow>(kv, &Key::meta(&format!("cursor/{site}")))? {
            cursors.insert(site.clone(), Cursor::from(row));
        }
    }
    let status = stored_status(kv)?;
    // After rounds the last changes may be no state of the share: the applier says when sites get them.
    let cut: Option<CutRow> = get(kv, &Key::meta("cut"))?;
    let shippable = cut.map_or(status.head, |cut| cut.marked.min(status.head));
    Ok(Now {
        shippable,
        exact_after: (shippable < status.head).then_some(0),
        status,
        cursors,
        ..Now::default()
    })
}
