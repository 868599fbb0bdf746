//! A site in somebody else's hands: it answers what it likes, and the commands write nothing outside of what they were told, end, and
//! say in one line what is wrong.

use crate::place::*;
use futures_util::{SinkExt, StreamExt};
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::{BlockAt, Compression, HashAlgorithm, Kind, Layout, Object, ObjectAt, Time};
use restfs_lib::wire::{Code, Content, Encoding, Hex, Message, Name, Payload, RpcError};
use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Instant;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::Message as Frame;

const TOKEN: &str =
    "restfs_0101010101010101_2323232323232323232323232323232323232323232323232323232323232323";
const ROOT: u64 = 1;

/// What the site says. Everything else is the least that lets a command go on.
#[derive(Clone, Default)]
struct Site {
    /// Name, id and object of what is in the root; of each directory below, too, when `nested`.
    entries: Vec<(Vec<u8>, u64, Object)>,
    nested: bool,
    /// Of each listing it promises more, and sends the same again.
    round: bool,
    /// Blocks of each file, and what the site sends for any key.
    blocks: Vec<BlockAt>,
    content: Vec<u8>,
    /// The answer to everything.
    error: Option<String>,
}

impl Site {
    fn with(entries: Vec<(&[u8], u64, Object)>) -> Self {
        Self {
            entries: entries
                .into_iter()
                .map(|(n, id, o)| (n.to_vec(), id, o))
                .collect(),
            ..Self::default()
        }
    }

    fn answer(&self, method: &str, params: &Payload) -> Result<Payload, RpcError> {
        if let Some(text) = &self.error {
            return Err(RpcError::new(Code::Conflict, text));
        }
        match method {
            PointResolve::NAME => encoded(&PointResolveResult {
                point: 1,
                time: Time(0, 0),
                exact: true,
            }),
            CommitList::NAME => encoded(&CommitListResult { commits: Vec::new() }),
            ObjectStat::NAME => self.stat(params.decode::<ObjectParams>()?.object),
            ObjectList::NAME => self.list(params.decode::<ObjectListParams>()?),
            AttributeList::NAME => encoded(&AttributeListResult {
                attributes: self.attributes(),
                more: self.round,
            }),
            ObjectSegments::NAME => encoded(&ObjectSegmentsResult {
                segments: vec![SegmentInfo {
                    segment: 0,
                    blocks: self.blocks.clone(),
                }],
                more: self.round,
            }),
            BlockGet::NAME => {
                let keys = params.decode::<BlockKeys>()?.keys;
                let block = |key| BlockContent {
                    key,
                    length: self.content.len() as u32,
                    compression: Compression::None,
                    content: Content(self.content.clone().into()),
                };
                encoded(&BlockGetResult {
                    blocks: keys.into_iter().map(block).collect(),
                })
            }
            ObjectRead::NAME => encoded(&ObjectReadResult {
                content: Content(self.content.clone().into()),
                size: 1 << 62,
            }),
            _ => Err(RpcError::new(Code::MethodNotFound, method)),
        }
    }

    fn stat(&self, at: ObjectAt) -> Result<Payload, RpcError> {
        let id = match at {
            ObjectAt::Id(id) => id,
            ObjectAt::Path(_) => ROOT,
        };
        let known = self.entries.iter().find(|(_, known, _)| *known == id);
        encoded(&ObjectStatResult {
            id,
            serial: 1,
            object: known
                .filter(|_| id != ROOT)
                .map_or(directory(), |(_, _, o)| o.clone()),
            paths: vec![Name(b"/\x1b[2J".to_vec())],
        })
    }

    fn list(&self, params: ObjectListParams) -> Result<Payload, RpcError> {
        let root = matches!(params.object, ObjectAt::Path(_) | ObjectAt::Id(ROOT));
        let entry = |(name, id, object): &(Vec<u8>, u64, Object)| EntryInfo {
            name: Name(name.clone()),
            id: *id,
            object: object.clone(),
        };
        let entries = match root || self.nested {
            true => self.entries.iter().map(entry).collect(),
            false => Vec::new(),
        };
        encoded(&ObjectListResult {
            entries,
            more: self.round,
        })
    }

    fn attributes(&self) -> Vec<Attribute> {
        let attribute = Attribute {
            name: "user.x".into(),
            value: Content(bytes::Bytes::from_static(b"y")),
        };
        Vec::from_iter(self.round.then_some(attribute))
    }
}

fn encoded<T: serde::Serialize>(value: &T) -> Result<Payload, RpcError> {
    Payload::encode(Encoding::Bson, value)
}

fn object(kind: Kind, size: u64) -> Object {
    Object {
        kind,
        mode: 0o755,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        size,
        mtime: Time(0, 0),
        atime: Time(0, 0),
        btime: Time(0, 0),
        layout: Layout {
            block_size: 4096,
            segment_blocks: 64,
            hash: HashAlgorithm::Blake3,
            compression: Compression::None,
        },
    }
}

fn directory() -> Object {
    object(Kind::Directory, 0)
}

fn file(size: u64) -> Object {
    object(Kind::File, size)
}

fn link(target: &Path) -> Object {
    let target = Name(target.as_os_str().as_encoded_bytes().to_vec());
    object(Kind::Symlink { target }, 0)
}

async fn serve(listener: TcpListener, site: Site) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(talk(stream, site.clone()));
    }
}

async fn talk(stream: TcpStream, site: Site) {
    #[allow(clippy::result_large_err, reason = "the library's signature")]
    let agree = |_: &Request, mut response: Response| {
        let protocol = Encoding::Bson.subprotocol().parse().unwrap();
        response.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        Ok(response)
    };
    let mut socket = accept_hdr_async(stream, agree).await.unwrap();
    while let Some(Ok(frame)) = socket.next().await {
        let Frame::Binary(bytes) = frame else { continue };
        let Ok(Message::Request { id, method, params }) = Message::decode(Encoding::Bson, &bytes) else {
            continue;
        };
        let answer = match site.answer(&method, &params) {
            Ok(result) => Message::Response { id, result },
            Err(error) => Message::Error { id: Some(id), error },
        };
        let bytes = answer.encode(Encoding::Bson).unwrap();
        if socket.send(Frame::Binary(bytes.into())).await.is_err() {
            return;
        }
    }
}

/// Runs a command against the site. It ends by itself.
fn run(site: Site, place: &Place, words: &[&str]) -> Output {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    runtime.spawn(serve(listener, site));
    let mut command = place.command(&["--url", &url]);
    command.args(words).env("RESTFS_TOKEN", TOKEN);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let pid = rustix::process::Pid::from_child(&child);
    let (ended, end) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if end.recv_timeout(PATIENCE).is_err() {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    });
    let output = child.wait_with_output().unwrap();
    let _ = ended.send(());
    watch.join().unwrap();
    assert!(start.elapsed() < PATIENCE, "{words:?} does not end");
    output
}

/// Standard error: no panic, nothing that writes over a terminal.
fn said(output: &Output) -> String {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "{said:?}");
    said
}

fn one_line(output: &Output) -> String {
    let said = said(output);
    assert!(said.starts_with("error: ") && said.lines().count() == 1, "{said}");
    said
}

/// Restores from the site and says what stands beside the destination afterwards.
fn restored(site: Site, place: &Place) -> (Output, Vec<String>) {
    let dest = place.path("dest");
    let output = run(site, place, &["restore", "data", dest.to_str().unwrap()]);
    let beside = fs::read_dir(place.dir.path()).unwrap();
    let mut beside: Vec<_> = beside
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "dest")
        .collect();
    beside.sort();
    (output, beside)
}

#[test]
fn names_that_lead_elsewhere_write_nothing_there() {
    let long = [b'x'; 300];
    let names: [&[u8]; 8] = [
        b"..",
        b".",
        b"",
        b"a/../../b",
        b"/planted",
        b"../planted",
        b"a\0b",
        &long,
    ];
    for name in names {
        for what in [file(0), directory(), link(Path::new("/"))] {
            let place = Place::new();
            let (output, beside) = restored(Site::with(vec![(name, 2, what)]), &place);
            said(&output);
            assert_eq!(beside, [""; 0], "{name:?}");
            assert_eq!(fs::read_dir(place.path("dest")).unwrap().count(), 0, "{name:?}");
        }
    }
}

#[test]
fn a_symlink_that_the_site_puts_on_the_way_is_not_gone_through() {
    let place = Place::new();
    fs::create_dir(place.path("elsewhere")).unwrap();
    let target = place.path("elsewhere");
    // The same name as a link, and behind it as a directory with something in it.
    let site = Site {
        nested: true,
        ..Site::with(vec![
            (b"a", 2, link(&target)),
            (b"a", 3, directory()),
            (b"b", 4, file(0)),
        ])
    };
    let (output, beside) = restored(site, &place);
    said(&output);
    assert_eq!(beside, ["elsewhere"]);
    assert_eq!(fs::read_dir(target).unwrap().count(), 0);
}

#[test]
fn a_directory_that_is_in_itself_ends() {
    for id in [ROOT, 2] {
        let place = Place::new();
        let site = Site {
            nested: true,
            ..Site::with(vec![(b"again", id, directory())])
        };
        let (output, _) = restored(site, &place);
        assert!(said(&output).contains("another name already"));
    }
}

#[test]
fn lists_that_go_round_end() {
    let site = || Site {
        round: true,
        ..Site::with(vec![(b"file", 2, file(0))])
    };
    let place = Place::new();
    let (output, _) = restored(site(), &place);
    said(&output);
    for words in [["ls", "data:/"], ["ls", "data"]] {
        let output = run(site(), &place, &words);
        assert!(one_line(&output).contains("out of order"));
    }
    assert!(one_line(&run(site(), &place, &["stat", "data:/file"])).contains("out of order"));
    let json = run(site(), &place, &["--json", "ls", "data:/"]);
    one_line(&json);
}

#[test]
fn impossible_sizes_and_foreign_content_are_not_written() {
    let right = restfs_lib::content::hash_block(b"right", Default::default());
    let block = BlockAt {
        at: 0,
        key: Some(Hex(right.key.0)),
        length: 5,
        hash: None,
        serial: Some(1),
    };
    for size in [5, 1 << 62, i64::MAX as u64] {
        let place = Place::new();
        let site = Site {
            blocks: vec![block],
            content: b"wrong".to_vec(),
            ..Site::with(vec![(b"file", 2, file(size))])
        };
        let (output, _) = restored(site, &place);
        said(&output);
        let mut start = [1; 5];
        let file = fs::File::open(place.path("dest/file")).unwrap();
        let read = std::os::unix::fs::FileExt::read_at(&file, &mut start, 0).unwrap();
        assert!(start[..read].iter().all(|byte| *byte == 0), "{start:?}");
    }
}

#[test]
fn content_that_is_longer_than_asked_for_is_no_content() {
    let site = Site {
        content: vec![b'x'; 5 << 20],
        ..Site::with(vec![(b"file", 2, file(5))])
    };
    let output = run(site, &Place::new(), &["cat", "data@1:/file"]);
    assert!(one_line(&output).contains("more bytes than asked for"));
    assert!(output.stdout.is_empty());
}

#[test]
fn what_a_site_says_is_one_line_and_leaves_the_terminal_alone() {
    let site = Site {
        error: Some("no\n\x1b[2Jgood\r\u{9b}31m".to_owned()),
        ..Site::default()
    };
    let place = Place::new();
    for words in [
        &["ls", "data:/"][..],
        &["cat", "data:/a"],
        &["restore", "data", "dest"],
    ] {
        assert!(one_line(&run(site.clone(), &place, words)).contains("good"));
    }
    let site = Site::with(vec![(b"\x1b[2J", 2, file(0))]);
    let listed = text(&run(site, &place, &["ls", "data:/"]).stdout);
    assert!(!listed.contains('\x1b') && listed.contains("[2J"), "{listed:?}");
}
