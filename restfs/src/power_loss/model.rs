//! What a site must have: the work that is done on it, and what of it was acknowledged.

use super::site::{Site, State};
use restfs_lib::content::hash_block;
use restfs_lib::disk::faulty::Loss;
use restfs_lib::model::{BlockKey, HashAlgorithm, Kind, Layout, Object, ObjectId, Op, Time};
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::{Compression, ObjectAt};
use restfs_lib::wire::{Code, Content, RpcError};
use std::collections::BTreeMap;

const BUCKETS: [&str; 2] = ["one", "two"];
const SOURCE: &str = "00112233445566778899aabbccddeeff";
const ROUNDS: u64 = 8;
/// Names that the work uses in turn.
const FILES: u64 = 4;

type Files = BTreeMap<String, Vec<u8>>;

#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    buckets: BTreeMap<&'static str, Bucket>,
    /// All that were ever put, acknowledged or not.
    blocks: BTreeMap<BlockKey, Vec<u8>>,
    refused: bool,
    failed_for_good: bool,
}

#[derive(Debug, Clone, Default)]
struct Bucket {
    /// By sequence, of everything that was tried. 0 is an empty tree.
    states: Vec<Files>,
    commits: Vec<CommitParams>,
    acknowledged: u64,
    made: bool,
    /// Points below may have been purged.
    floor: u64,
    /// What the newest commit names.
    pending: Vec<Vec<u8>>,
}

impl Model {
    /// Goes on after errors as a source does: what was refused is sent again before anything else.
    pub(super) fn work(&mut self, site: &mut Site) {
        // The first start may meet the fault; it is tried once more.
        if site.start().is_err() && site.start().is_err() {
            self.refused = true;
            return;
        }
        for name in BUCKETS {
            let bucket = self.buckets.entry(name).or_default();
            bucket.states = vec![Files::new()];
            if let Err(error) = make_bucket(site, name).or_else(|_| make_bucket(site, name)) {
                self.note_error(&error);
                continue;
            }
            self.buckets.entry(name).or_default().made = true;
        }
        for round in 1..=ROUNDS {
            self.round(site, round);
        }
    }

    fn round(&mut self, site: &Site, round: u64) {
        // Some that no commit ever names.
        self.put(site, &[content(round, 90)]);
        let names: Vec<_> = BUCKETS
            .into_iter()
            .filter(|name| self.buckets.get(name).is_some_and(|bucket| bucket.made))
            .collect();
        let mut due = Vec::new();
        for name in &names {
            let bucket = &self.buckets[name];
            if bucket.commits.len() as u64 == bucket.acknowledged {
                self.prepare(name, round);
            }
            // Of one that was refused they may have been collected since.
            let pending = self.buckets[name].pending.clone();
            self.put(site, &pending);
            due.push(self.buckets[name].next());
        }
        match &due[..] {
            [Some(one), Some(other)] if round.is_multiple_of(3) => {
                let results = site.call_both::<ReplicationCommit>([one, other]);
                for (name, result) in names.iter().zip(results) {
                    self.note(name, result);
                }
            }
            due => {
                for (name, commit) in names.iter().zip(due) {
                    if let Some(commit) = commit {
                        self.note(name, site.call::<ReplicationCommit>(commit));
                    }
                }
            }
        }
        if round % 3 == 1 {
            // Once more at once: the newest log has nothing in it then.
            for _ in 0..2 {
                self.refused |= site.write_image().is_err();
            }
        }
        if round % 4 == 3 {
            self.collect(site);
        }
    }

    /// Purges all but the last two points, and collects.
    fn collect(&mut self, site: &Site) {
        for name in BUCKETS {
            let bucket = self.buckets.get_mut(name).unwrap();
            if bucket.acknowledged < 3 {
                continue;
            }
            bucket.floor = bucket.acknowledged - 1;
            let purge = BucketPurgeParams {
                bucket: name.to_owned(),
                before: bucket.floor.to_string(),
                dry_run: false,
            };
            if let Err(error) = site.call::<BucketPurge>(&purge) {
                self.note_error(&error);
            }
        }
        if let Err(error) = site.collect() {
            self.note_error(&error);
        }
    }

    /// Makes the bucket's next commit.
    fn prepare(&mut self, name: &'static str, round: u64) {
        let bucket = self.buckets.get_mut(name).unwrap();
        let sequence = bucket.commits.len() as u64 + 1;
        let mut files = bucket.states.last().unwrap().clone();
        let mut ops = Vec::new();
        if sequence == 1 {
            ops.push(Op::PutObject {
                id: ObjectId::ROOT,
                object: object(Kind::Directory, 0),
            });
        }
        let mut new = Vec::new();
        for part in 0..1 + round % 2 {
            let number = (round + part * 2) % FILES;
            let (id, file) = (ObjectId(10 + number), format!("file {number}"));
            if round % 4 == 2 && part == 0 && files.remove(&file).is_some() {
                ops.push(Op::DropEntry {
                    dir: ObjectId::ROOT,
                    name: file.into_bytes(),
                });
                ops.push(Op::DropObject { id });
                continue;
            }
            let bytes = content(round * 10 + part + name.len() as u64 * 1000, 700);
            ops.extend(file_ops(id, &file, &bytes));
            new.push(bytes.clone());
            files.insert(file, bytes);
        }
        bucket.states.push(files);
        bucket.commits.push(commit(name, sequence, ops));
        bucket.pending = new;
    }

    fn put(&mut self, site: &Site, contents: &[Vec<u8>]) {
        for content in contents {
            let key = hash_block(content, HashAlgorithm::Blake3).key;
            self.blocks.insert(key, content.clone());
            let put = || site.call::<BlockPut>(&block(key, content));
            // Once more, as a source would.
            if let Err(error) = put().or_else(|_| put()) {
                self.note_error(&error);
            }
        }
    }

    fn note(&mut self, name: &str, result: Result<CommitResult, RpcError>) {
        let bucket = self.buckets.get_mut(name).unwrap();
        match result {
            Ok(result) => {
                bucket.acknowledged += 1;
                assert_eq!(result.point, bucket.acknowledged, "a commit is one point");
            }
            Err(error) => self.note_error(&error),
        }
    }

    fn note_error(&mut self, error: &RpcError) {
        self.failed_for_good |= error.message.contains("takes no more writes");
        self.refused = true;
    }

    /// Everything was taken.
    pub(super) fn is_whole(&self) -> bool {
        !self.refused
    }

    pub(super) fn failed_for_good(&self) -> bool {
        self.failed_for_good
    }

    /// Sends what was refused; all of it has to be taken.
    pub(super) fn catch_up(&mut self, site: &mut Site, context: &str) {
        for name in BUCKETS {
            make_bucket(site, name).unwrap_or_else(|e| panic!("{context}: no bucket: {e}"));
            self.buckets.entry(name).or_default().made = true;
            self.send_all(site, name, context);
        }
    }

    fn send_all(&mut self, site: &Site, name: &'static str, context: &str) {
        let contents: Vec<Vec<u8>> = self.blocks.values().cloned().collect();
        for content in &contents {
            let key = hash_block(content, HashAlgorithm::Blake3).key;
            let put = site.call::<BlockPut>(&block(key, content));
            put.unwrap_or_else(|e| panic!("{context}: a block is refused: {e}"));
        }
        while let Some(commit) = self.buckets.get(name).and_then(Bucket::next) {
            let result = site.call::<ReplicationCommit>(&commit);
            let result = result.unwrap_or_else(|e| panic!("{context}: a commit is refused: {e}"));
            let bucket = self.buckets.get_mut(name).unwrap();
            bucket.acknowledged += 1;
            assert_eq!(
                result.point, bucket.acknowledged,
                "{context}: applied more than once"
            );
        }
    }

    /// Compares, sends again what was not acknowledged, restarts and compares once more; then the power is lost once more.
    pub(super) fn check(mut self, mut site: Site, context: &str) {
        if let Err(error) = site.start() {
            let acknowledged = self
                .buckets
                .values()
                .map(|bucket| bucket.acknowledged)
                .sum::<u64>();
            let made = self.buckets.values().any(|bucket| bucket.made);
            assert!(
                acknowledged == 0 && !made,
                "{context}: {acknowledged} commits are lost: {error}"
            );
            return;
        }
        self.check_blocks(&site, context);
        for name in BUCKETS {
            let bucket = self.buckets.entry(name).or_default();
            if bucket.states.is_empty() {
                bucket.states.push(Files::new());
            }
            if bucket.made {
                bucket.check(&site, name, context);
            }
            make_bucket(&site, name).unwrap_or_else(|e| panic!("{context}: {e}"));
            bucket.made = true;
            self.send_all(&site, name, context);
            self.buckets[name].check(&site, name, context);
        }
        site.start()
            .unwrap_or_else(|e| panic!("{context}: the second start: {e}"));
        for name in BUCKETS {
            self.buckets[name].check(&site, name, &format!("{context}, started again"));
        }
        let mut site = site.after_power_loss(Loss::All, State::Synced);
        let context = format!("{context}, then once more");
        site.start().unwrap_or_else(|e| panic!("{context}: {e}"));
        for name in BUCKETS {
            self.buckets[name].check(&site, name, &context);
        }
    }

    /// What the site says that it has it must have: nobody sends it again.
    fn check_blocks(&self, site: &Site, context: &str) {
        let keys = self.blocks.keys().map(|key| (*key).into()).collect();
        let missing = site.call::<BlockMissing>(&BlockKeys { keys });
        let missing = missing.unwrap_or_else(|e| panic!("{context}: {e}")).missing;
        for key in self
            .blocks
            .keys()
            .filter(|key| !missing.contains(&(**key).into()))
        {
            let keys = vec![(*key).into()];
            let got = site.call::<BlockGet>(&BlockKeys { keys });
            assert!(
                got.is_ok(),
                "{context}: a block is not missing, and cannot be had: {got:?}"
            );
        }
    }
}

impl Bucket {
    /// What was not acknowledged.
    fn next(&self) -> Option<CommitParams> {
        self.commits.get(self.acknowledged as usize).cloned()
    }

    fn check(&self, site: &Site, name: &str, context: &str) {
        let params = BucketName {
            bucket: name.to_owned(),
        };
        let info = site.call::<BucketInfo>(&params);
        let head = info
            .unwrap_or_else(|e| panic!("{context}: bucket {name}: {e}"))
            .head;
        assert!(
            head >= self.acknowledged && head <= self.commits.len() as u64,
            "{context}: bucket {name} is at {head}, acknowledged were {}, sent {}",
            self.acknowledged,
            self.commits.len()
        );
        let position = PositionParams {
            bucket: name.to_owned(),
            source: SOURCE.to_owned(),
        };
        let position = site.call::<ReplicationPosition>(&position).unwrap().position;
        assert_eq!(
            position.map_or(0, |p| p.sequence),
            head,
            "{context}: half a commit"
        );
        for point in (self.floor.max(1)..=head).rev() {
            let found = read_all(site, name, point, context);
            assert!(
                found == self.states[point as usize],
                "{context}: bucket {name} at point {point} is not what was committed"
            );
        }
    }
}

/// One that is there is as good, from a call whose answer was lost.
fn make_bucket(site: &Site, name: &str) -> Result<(), RpcError> {
    let params = BucketCreateParams {
        bucket: name.to_owned(),
        layout: None,
    };
    match site.call::<BucketCreate>(&params) {
        Err(error) if error.code != Code::Exists => Err(error),
        _ => Ok(()),
    }
}

fn read_all(site: &Site, bucket: &str, point: u64, context: &str) -> Files {
    let list = ObjectListParams {
        bucket: bucket.to_owned(),
        object: ObjectAt::path("/"),
        point: Some(point),
        after: None,
        limit: 100,
    };
    let list = site.call::<ObjectList>(&list);
    let entries = list.unwrap_or_else(|e| panic!("{context}: {e}")).entries;
    let mut files = Files::new();
    for entry in entries {
        let read = ObjectReadParams {
            bucket: bucket.to_owned(),
            object: ObjectAt::Id(entry.id),
            point: Some(point),
            offset: 0,
            length: 10_000,
        };
        let read = site.call::<ObjectRead>(&read);
        let content = read
            .unwrap_or_else(|e| panic!("{context}: point {point}: {e}"))
            .content;
        files.insert(String::from_utf8(entry.name.0).unwrap(), content.0.to_vec());
    }
    files
}

/// Differs by number; every second one can be compressed.
fn content(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length + (number % 5) as usize * 60];
    if number.is_multiple_of(2) {
        blake3::Hasher::new()
            .update(&number.to_be_bytes())
            .finalize_xof()
            .fill(&mut bytes);
    }
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes
}

fn block(key: BlockKey, content: &[u8]) -> BlockPutParams {
    BlockPutParams {
        blocks: vec![BlockContent {
            key: key.into(),
            length: content.len() as u32,
            compression: Compression::None,
            content: Content(content.to_vec().into()),
        }],
    }
}

fn object(kind: Kind, size: u64) -> Object {
    let time = Time {
        seconds: 1_700_000_000,
        nanoseconds: 5,
    };
    Object {
        kind,
        mode: 0o640,
        uid: 7,
        gid: 8,
        size,
        mtime: time,
        atime: time,
        btime: time,
        layout: Layout::default(),
    }
}

fn file_ops(id: ObjectId, name: &str, content: &[u8]) -> Vec<Op> {
    let block = hash_block(content, HashAlgorithm::Blake3);
    vec![
        Op::PutObject {
            id,
            object: object(Kind::File, content.len() as u64),
        },
        Op::PutEntry {
            dir: ObjectId::ROOT,
            name: name.as_bytes().to_vec(),
            child: id,
        },
        Op::PutBlocks {
            id,
            segment: 0,
            blocks: vec![(0, Some(block))],
        },
    ]
}

fn commit(bucket: &str, sequence: u64, ops: Vec<Op>) -> CommitParams {
    let time = Time {
        seconds: 1_700_000_000 + sequence.cast_signed(),
        nanoseconds: 0,
    };
    CommitParams {
        bucket: bucket.to_owned(),
        source: SOURCE.to_owned(),
        epoch: 1,
        first: sequence,
        last: sequence,
        resync: false,
        time: time.into(),
        exact: true,
        ops: ops.into_iter().map(Into::into).collect(),
    }
}
