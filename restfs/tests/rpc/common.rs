//! A real server in this process: real stores in a scratch folder, real sockets on ports that the system picks.

use bytes::Bytes;
use restfs::config::{Config, Log, TlsFiles};
use restfs::server::Server;
use restfs::service::{GcOptions, ScrubOptions};
use restfs_lib::client::{Client, ClientError, Commit, Endpoint, Trust};
use restfs_lib::content::hash_block;
use restfs_lib::disk::Watermarks;
use restfs_lib::model::{BlockKey, BlockRef, HashAlgorithm, Kind, Layout, Object, ObjectId, Op, Time};
use restfs_lib::wire::Code;
use restfs_lib::wire::method::*;
use restfs_lib::wire::values::Role;
use tempfile::TempDir;

pub(crate) const BUCKET: &str = "data";
pub(crate) const SOURCE: &str = "00112233445566778899aabbccddeeff";
const MIB: usize = 1024 * 1024;

pub(crate) const NO_RESERVE: Watermarks = Watermarks {
    warn: None,
    reserve: Some(0),
};

pub(crate) struct Site {
    _dir: TempDir,
    pub(crate) config: Config,
    server: Option<Server>,
}

impl Site {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_, _| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&TempDir, &mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config {
            data_dir: dir.path().join("data"),
            listen: "127.0.0.1:0".parse().unwrap(),
            tls: None,
            max_connections: 100,
            message_memory: 64 * MIB,
            block_cache: 8 * MIB,
            metadata_cache: 8 * MIB,
            scrub: ScrubOptions::default(),
            gc: GcOptions::default(),
            // Tests of a full disk are about the last byte of it.
            space: NO_RESERVE,
            log: Log::default(),
        };
        change(&dir, &mut config);
        let server = Some(Server::start(&config).await.unwrap());
        Self {
            _dir: dir,
            config,
            server,
        }
    }

    /// Ends the server and starts it again on the same data.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.server = Some(Server::start(&self.config).await.unwrap());
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.config.tls.is_some() { "wss" } else { "ws" };
        format!("{scheme}://{}", self.server().address())
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::new(&self.url()).unwrap()
    }

    /// Root's client, on the Unix socket.
    pub(crate) async fn admin(&self) -> Client {
        let url = format!("unix://{}", self.server().socket().display());
        Client::connect(&Endpoint::new(&url).unwrap()).await.unwrap()
    }

    pub(crate) async fn bucket(&self) {
        let params = BucketCreateParams {
            bucket: BUCKET.to_owned(),
            layout: None,
        };
        self.admin().await.call::<BucketCreate>(&params).await.unwrap();
    }

    pub(crate) async fn token(&self, role: Role, bucket: Option<&str>) -> TokenCreateResult {
        let bucket = bucket.map(str::to_owned);
        let params = TokenCreateParams {
            name: role.name().to_owned(),
            role,
            bucket,
        };
        self.admin().await.call::<TokenCreate>(&params).await.unwrap()
    }

    pub(crate) async fn client(&self, role: Role) -> Client {
        let token = self.token(role, None).await.token;
        Client::connect(&self.endpoint().with_token(token)).await.unwrap()
    }
}

/// A certificate for `localhost` and 127.0.0.1 in the scratch folder.
pub(crate) fn with_tls(dir: &TempDir, config: &mut Config) {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let tls = TlsFiles {
        cert: dir.path().join("cert.pem"),
        key: dir.path().join("key.pem"),
    };
    std::fs::write(&tls.cert, made.cert.pem()).unwrap();
    std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
    config.tls = Some(tls);
}

pub(crate) fn trust(config: &Config) -> Trust {
    Trust::CaFile(config.tls.as_ref().unwrap().cert.clone())
}

pub(crate) fn object(kind: Kind, size: u64) -> Object {
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

pub(crate) fn root() -> Op {
    Op::PutObject {
        id: ObjectId::ROOT,
        object: object(Kind::Directory, 0),
    }
}

pub(crate) fn block(content: &[u8]) -> (BlockKey, Bytes, BlockRef) {
    let block = hash_block(content, HashAlgorithm::Blake3);
    (block.key, Bytes::copy_from_slice(content), block)
}

/// Ops that put a file of one block under the root.
pub(crate) fn file(id: u64, name: &str, content: &[u8]) -> Vec<Op> {
    let (_, _, block) = block(content);
    let id = ObjectId(id);
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

pub(crate) fn commit(epoch: u64, first: u64, last: u64, ops: Vec<Op>) -> Commit {
    Commit {
        source: SOURCE.to_owned(),
        epoch,
        first,
        last,
        resync: false,
        time_ns: 1_700_000_000_000_000_000 + i64::try_from(last).unwrap() * 1_000_000_000,
        exact: true,
        ops,
    }
}

pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Code {
    let error = result.unwrap_err();
    error
        .code()
        .unwrap_or_else(|| panic!("not the server's answer: {error}"))
}
