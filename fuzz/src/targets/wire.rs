//! Messages of the RPC, in both encodings, with the params and results of every method.

use restfs_lib::model;
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::{BlockAt, ObjectAt, Op, RowKey};
use restfs_lib::wire::{Encoding, Id, Message, Payload, check, segment_from_wire, segment_to_wire};

/// The first byte says which encoding.
pub(super) fn run(data: &[u8]) {
    let Some((mode, bytes)) = data.split_first() else {
        return;
    };
    let encoding = encoding(*mode);
    let Ok(message) = Message::decode(encoding, bytes) else {
        return;
    };
    match message.encode(encoding) {
        Ok(again) => assert_eq!(Message::decode(encoding, &again).as_ref(), Ok(&message)),
        // At the bound, where what stood in another way took less.
        Err(error) => assert_eq!(error.code, restfs_lib::wire::Code::TooLarge),
    }
    match &message {
        Message::Request { method, params, .. } | Message::Notification { method, params } => {
            // A peer chooses the method, so all params meet whatever is sent to any.
            payload(method, params);
        }
        // Which call it answers says the id.
        Message::Response { result, .. } => {
            METHODS.iter().for_each(|method| (method.result)(result));
            if let Ok(found) = result.decode::<ObjectSegmentsResult>() {
                found.segments.iter().for_each(|found| segment(&found.blocks));
            }
        }
        Message::Error { .. } => {}
    }
}

fn payload(name: &str, params: &Payload) {
    for method in METHODS.iter().filter(|method| method.name == name) {
        (method.params)(params);
    }
    if let Ok(commit) = params.decode::<CommitParams>() {
        commit.ops.into_iter().for_each(op);
    }
    if let Ok(rows) = params.decode::<TreeRowsParams>() {
        rows.after.into_iter().for_each(row);
    }
    if let Ok(object) = params.decode::<ObjectParams>()
        && let ObjectAt::Path(path) = object.object
    {
        let _ = check::path(&path);
    }
}

/// What the model took has one way to be written.
fn op(op: Op) {
    if let Ok(op) = model::Op::try_from(op) {
        let again = model::Op::try_from(Op::from(op.clone()));
        assert_eq!(again.as_ref(), Ok(&op));
    }
}

fn row(row: RowKey) {
    if let Ok(row) = model::RowKey::try_from(row) {
        assert_eq!(
            model::RowKey::try_from(RowKey::from(row.clone())).as_ref(),
            Ok(&row)
        );
    }
}

fn segment(blocks: &[BlockAt]) {
    if let Ok(segment) = segment_from_wire(blocks) {
        let again = segment_from_wire(&segment_to_wire(segment.clone()));
        assert_eq!(again.as_ref(), Ok(&segment));
    }
}

fn encoding(mode: u8) -> Encoding {
    Encoding::ALL[usize::from(mode) % Encoding::ALL.len()]
}

struct Known {
    name: &'static str,
    params: fn(&Payload),
    result: fn(&Payload),
}

/// What can be read can be written, and means the same then.
fn there_and_back<T: serde::Serialize + serde::de::DeserializeOwned>(payload: &Payload) {
    let encoding = payload.encoding();
    let Ok(value) = payload.decode::<T>() else { return };
    // Numbers over the largest of BSON are JSON's.
    let Ok(once) = Payload::encode(encoding, &value) else {
        return;
    };
    let again: T = once.decode().expect("what was encoded can be decoded");
    assert_eq!(Payload::encode(encoding, &again).as_ref(), Ok(&once));
}

macro_rules! known {
    ($($method:ty),* $(,)?) => {
        &[$(Known {
            name: <$method>::NAME,
            params: there_and_back::<<$method as Method>::Params>,
            result: there_and_back::<<$method as Method>::Result>,
        }),*]
    };
}

const METHODS: &[Known] = known![
    ServerInfo,
    Whoami,
    TokenCreate,
    TokenList,
    TokenRevoke,
    BucketCreate,
    BucketList,
    BucketInfo,
    BucketSet,
    BucketDelete,
    BucketApply,
    CommitList,
    PointResolve,
    ObjectStat,
    ObjectLookup,
    ObjectList,
    ObjectLog,
    ObjectRead,
    ObjectSegments,
    AttributeSet,
    AttributeGet,
    AttributeList,
    AttributeDelete,
    BlockMissing,
    BlockPut,
    BlockPatch,
    BlockGet,
    BlockCheck,
    BlockWanted,
    ScrubStart,
    ScrubStatus,
    ReplicationPosition,
    ReplicationCommit,
    TreeDigest,
    TreeGroups,
    TreeRows,
    TreeRecount,
];

/// A request of every method, and answers; params are of the text that `docs/rpc.md` shows.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (mode, encoding) in Encoding::ALL.into_iter().enumerate() {
        let mut add = |message: Message| {
            let bytes = message.encode(encoding).expect("is short");
            seeds.push([&[mode as u8][..], &bytes].concat());
        };
        for method in METHODS {
            add(request(method.name, Payload::empty(encoding)));
        }
        add(request(ReplicationCommit::NAME, of(encoding, &commit())));
        add(request(TreeRows::NAME, of(encoding, &rows())));
        add(request(ObjectStat::NAME, of(encoding, &object())));
        add(request(BlockPut::NAME, of(encoding, &super::block::put())));
        add(request(BlockPatch::NAME, of(encoding, &super::block::patches())));
        add(request(BucketApply::NAME, of(encoding, &edits())));
        add(Message::Response {
            id: Id::Text("a".to_owned()),
            result: of(encoding, &segments()),
        });
        add(Message::Error {
            id: None,
            error: restfs_lib::wire::RpcError::invalid_params("no"),
        });
    }
    seeds
}

fn request(method: &str, params: Payload) -> Message {
    Message::Request {
        id: Id::Number(-5),
        method: method.to_owned(),
        params,
    }
}

fn of<T: serde::Serialize>(encoding: Encoding, value: &T) -> Payload {
    Payload::encode(encoding, value).expect("can be encoded")
}

fn commit() -> CommitParams {
    let object = model::Object {
        kind: model::Kind::File,
        mode: 0o644,
        uid: 1,
        gid: 2,
        size: 5,
        mtime: model::Time::default(),
        atime: model::Time::default(),
        btime: model::Time::default(),
        layout: model::Layout::default(),
    };
    let block = restfs_lib::content::hash_block(b"hello", model::HashAlgorithm::Blake3);
    let id = model::ObjectId(2);
    let (name, value) = (b"\xff name".to_vec(), b"value".to_vec());
    let ops = [
        model::Op::PutObject { id, object },
        model::Op::DropObject { id },
        model::Op::PutEntry {
            dir: id,
            name: name.clone(),
            child: id,
        },
        model::Op::DropEntry {
            dir: id,
            name: name.clone(),
        },
        model::Op::PutAttribute {
            id,
            name: name.clone(),
            value,
        },
        model::Op::DropAttribute { id, name },
        model::Op::PutBlocks {
            id,
            segment: 0,
            blocks: vec![(0, Some(block)), (3, None)],
        },
    ];
    CommitParams {
        bucket: "data".to_owned(),
        source: "source".to_owned(),
        epoch: 1,
        first: 2,
        last: 3,
        resync: false,
        time: model::Time::default().into(),
        exact: true,
        ops: ops.into_iter().map(Into::into).collect(),
    }
}

fn rows() -> TreeRowsParams {
    TreeRowsParams {
        bucket: "data".to_owned(),
        group: 1,
        after: Some(RowKey::Entry {
            dir: 1,
            name: "name".into(),
        }),
        limit: 100,
    }
}

fn object() -> ObjectParams {
    ObjectParams {
        bucket: "data".to_owned(),
        object: ObjectAt::path("/a/b"),
        point: Some(7),
    }
}

fn edits() -> BucketApplyParams {
    BucketApplyParams {
        bucket: "data".to_owned(),
        edits: vec![
            Edit::Mkdir {
                path: "/d".into(),
                mode: 0o755,
            },
            Edit::Truncate {
                object: ObjectAt::Id(3),
                size: 9,
            },
        ],
    }
}

fn segments() -> ObjectSegmentsResult {
    let block = restfs_lib::content::hash_block(b"hello", model::HashAlgorithm::Sha1);
    let blocks = segment_to_wire(model::Segment {
        blocks: vec![(0, block, 1)],
    });
    segment(&blocks);
    ObjectSegmentsResult {
        segments: vec![SegmentInfo { segment: 0, blocks }],
        more: false,
    }
}
