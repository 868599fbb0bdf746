//! The program as its users see it: what it says when something is wrong, and the way from `init` to `restore`.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest that a server may take to be ready or to end, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("restfs.toml")
    }

    /// A configuration on a free port.
    fn configured() -> Self {
        let place = Self::new();
        place.configure("");
        place
    }

    fn configure(&self, more: &str) {
        let data = self.path("data");
        fs::write(
            self.config(),
            format!("data_dir = {data:?}\nlisten = \"127.0.0.1:0\"\n{more}"),
        )
        .unwrap();
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_restfs"));
        command.arg("--config").arg(self.config()).args(words);
        command
            .env_remove("RUST_LOG")
            .env_remove("RESTFS_TOKEN")
            .env_remove("NOTIFY_SOCKET");
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Standard output of a command that must succeed.
    fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// The one line of a command that must fail.
    fn error(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        assert!(
            said.starts_with("error: ") && said.lines().count() == 1,
            "{words:?}: {said}"
        );
        assert_eq!(text(&output.stdout), "", "{words:?}");
        said
    }

    fn serve(&self) -> Serving {
        let mut child = self.command(&["serve"]).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut lines = log.lines();
        let ready = lines
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line.contains("ready"));
        let ready = ready.expect("the server ended before it was ready");
        let address = ready
            .split("address=")
            .nth(1)
            .and_then(|rest| rest.split(' ').next())
            .unwrap()
            .to_owned();
        // The pipe is kept empty, so that the server never waits to log.
        std::thread::spawn(move || lines.for_each(drop));
        Serving { child, address }
    }
}

struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn stop(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let until = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return status.code(),
                None if Instant::now() > until => panic!("the server does not end"),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

#[test]
fn a_missing_configuration_says_how_to_make_one() {
    let place = Place::new();
    for words in [&["serve"][..], &["bucket", "list"]] {
        holds(
            &place.error(words),
            &["restfs.toml", "No such file", "restfs init"],
        );
    }
}

#[test]
fn a_wrong_key_is_named_with_its_line() {
    let place = Place::new();
    place.configure("lissten = 1\n");
    holds(
        &place.error(&["serve"]),
        &["restfs.toml, line 3", "unknown field `lissten`"],
    );
    place.configure("[tls]\ncert = \"c\"\n");
    holds(&place.error(&["serve"]), &["line 3", "missing field `key`"]);
    place.configure("[limits]\nconnections = -1\n");
    holds(&place.error(&["serve"]), &["line 4"]);
}

#[test]
fn a_missing_or_wrong_certificate_says_what_to_set() {
    let place = Place::new();
    place.configure("[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n");
    holds(
        &place.error(&["serve"]),
        &["certificate", "cert.pem", "No such file", "restfs init"],
    );
    fs::write(place.path("cert.pem"), "not a certificate\n").unwrap();
    holds(&place.error(&["serve"]), &["certificate", "no certificate in it"]);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(place.path("cert.pem"), made.cert.pem()).unwrap();
    holds(&place.error(&["serve"]), &["key ", "key.pem", "No such file"]);
    let other = rcgen::KeyPair::generate().unwrap();
    fs::write(place.path("key.pem"), other.serialize_pem()).unwrap();
    holds(&place.error(&["serve"]), &["key ", "key.pem", "tls.cert"]);
}

#[test]
fn a_data_directory_that_others_can_read_is_refused() {
    let place = Place::configured();
    fs::create_dir(place.path("data")).unwrap();
    fs::set_permissions(place.path("data"), fs::Permissions::from_mode(0o755)).unwrap();
    holds(&place.error(&["serve"]), &["data directory", "chmod 700"]);
    fs::remove_dir(place.path("data")).unwrap();
    fs::write(place.path("data"), "").unwrap();
    holds(&place.error(&["serve"]), &["data directory", "not a directory"]);
}

#[test]
fn a_data_directory_below_nothing_is_not_made() {
    let place = Place::new();
    fs::write(
        place.config(),
        format!("data_dir = {:?}\n", place.path("not/mounted")),
    )
    .unwrap();
    holds(&place.error(&["serve"]), &["data directory", "No such file"]);
}

#[test]
fn a_port_in_use_is_named() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    fs::write(
        place.config(),
        format!("data_dir = {:?}\nlisten = \"{address}\"\n", place.path("data")),
    )
    .unwrap();
    holds(&place.error(&["serve"]), &[&address, "in use", "`listen`"]);
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let place = Place::configured();
    let _first = place.serve();
    holds(
        &place.error(&["serve"]),
        &["data directory", "in use by another restfs"],
    );
}

#[test]
fn a_missing_bucket_path_or_point_is_named() {
    let place = Place::configured();
    for words in [
        &["bucket", "info", "none"][..],
        &["ls", "none:/"],
        &["restore", "none", "/nowhere"],
        &["log", "none"],
        &["token", "create", "x", "--role", "reader", "--bucket", "none"],
    ] {
        holds(&place.error(words), &["bucket `none` does not exist"]);
    }
    place.ok(&["bucket", "create", "b"]);
    holds(&place.error(&["ls", "b:/none"]), &["/none does not exist"]);
    holds(&place.error(&["cat", "b@7:/x"]), &["no recovery point yet"]);
    holds(
        &place.error(&["token", "revoke", "77"]),
        &["token `77` does not exist"],
    );
    holds(&place.error(&["bucket", "delete", "b"]), &["--yes"]);
    holds(&place.error(&["bucket", "create", "B/"]), &["bucket"]);
}

#[test]
fn a_wrong_token_or_address_is_told() {
    let place = Place::configured();
    let server = place.serve();
    let url = format!("ws://{}", server.address);
    holds(
        &place.error(&["bucket", "list", "--url", &url, "--token", "restfs_1_2"]),
        &[&url, "token"],
    );
    holds(
        &place.error(&["bucket", "list", "--url", &url]),
        &[&url, "restfs token create"],
    );
    holds(
        &place.error(&["bucket", "list", "--url", &url, "--token-file", "/none"]),
        &["/none", "No such file"],
    );
    holds(
        &place.error(&["bucket", "list", "--url", "http://x"]),
        &["http://x", "wss://"],
    );
    let wss = format!("wss://{}", server.address);
    holds(&place.error(&["bucket", "list", "--url", &wss]), &["fingerprint"]);
    drop(server);
    holds(
        &place.error(&["bucket", "list", "--url", &url, "--token", "x"]),
        &[&url, "refused"],
    );
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    let place = Place::configured();
    for words in [
        &["lss"][..],
        &["ls"],
        &["ls", "@1:/"],
        &["serve", "--port", "1"],
        &["token", "create", "x", "--role", "king"],
        &["bucket", "create", "b", "--hash", "md5"],
    ] {
        assert_eq!(place.run(words).status.code(), Some(2), "{words:?}");
    }
}

#[test]
fn init_makes_all_that_a_server_and_its_source_need() {
    let place = Place::new();
    let (data, config) = (place.path("site/data"), place.config());
    let words = [
        "--json",
        "init",
        "--host",
        "recovery.example",
        "--listen",
        "127.0.0.1:0",
        "--data",
    ];
    let made = place.ok(&[&words[..], &[data.to_str().unwrap()]].concat());
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let key = Path::new(made["key"].as_str().unwrap());
    assert_eq!(fs::metadata(key).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&data).unwrap().mode() & 0o777, 0o700);
    assert!(config.is_file());
    holds(
        &place.error(&["init", "--data", data.to_str().unwrap()]),
        &["it exists"],
    );
    let server = place.serve();
    let url = format!("wss://{}", server.address);
    let (token, fingerprint) = (
        made["token"].as_str().unwrap(),
        made["fingerprint"].as_str().unwrap(),
    );
    let remote = ["--url", &url, "--token", token];
    place.ok(&[
        &["bucket", "info", "data"][..],
        &remote,
        &["--fingerprint", fingerprint],
    ]
    .concat());
    place.ok(&[
        &["bucket", "info", "data"][..],
        &remote,
        &["--ca-file", made["cert"].as_str().unwrap()],
    ]
    .concat());
    let wrong = "00".repeat(32);
    let refused = place.error(&[&["bucket", "list"][..], &remote, &["--fingerprint", &wrong]].concat());
    holds(&refused, &["fingerprint"]);
    // A replicator commits; it does not administer.
    let refused = place.error(
        &[
            &["bucket", "create", "x"][..],
            &remote,
            &["--fingerprint", fingerprint],
        ]
        .concat(),
    );
    holds(&refused, &["role replicator"]);
}

#[test]
fn commands_work_with_and_without_a_server() {
    let place = Place::configured();
    place.ok(&[
        "bucket",
        "create",
        "b",
        "--block-size",
        "4096",
        "--hash",
        "sha256",
    ]);
    let mut server = place.serve();
    let info: serde_json::Value =
        serde_json::from_str(&place.ok(&["--json", "bucket", "info", "b"])).unwrap();
    assert_eq!(
        (&info["layout"]["block_size"], &info["layout"]["hash"]),
        (&4096.into(), &"sha256".into())
    );
    holds(
        &place.ok(&["bucket", "set", "b", "--block-size", "8192"]),
        &["8192", "sha256"],
    );
    place.ok(&[
        "token",
        "create",
        "someone",
        "--role",
        "reader",
        "--output",
        place.path("t").to_str().unwrap(),
    ]);
    assert_eq!(fs::metadata(place.path("t")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(server.stop(), Some(0));
    assert!(!place.path("data/restfs.sock").exists());
    let tokens = place.ok(&["token", "list"]);
    holds(&tokens, &["someone", "reader", "(all)", "valid"]);
    let id = tokens.lines().nth(1).unwrap().split(' ').next().unwrap();
    place.ok(&["token", "revoke", id]);
    holds(&place.ok(&["token", "list"]), &["revoked"]);
    place.ok(&["bucket", "delete", "b", "--yes"]);
    holds(&place.error(&["bucket", "info", "b"]), &["does not exist"]);
}

#[test]
fn an_unprivileged_user_is_turned_away_from_the_socket() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can act for another user");
    }
    let place = Place::configured();
    let _server = place.serve();
    // May reach the socket, is not its owner.
    for (path, mode) in [("", 0o755), ("data", 0o711), ("data/restfs.sock", 0o666)] {
        fs::set_permissions(place.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    let program = place.path("restfs");
    fs::copy(env!("CARGO_BIN_EXE_restfs"), &program).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(program)
        .args(["bucket", "list", "--config"])
        .arg(place.config())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    holds(&text(&output.stderr), &["error: socket", "root"]);
}

#[test]
fn log_output_is_plain_text_or_json_without_colours() {
    let place = Place::new();
    place.configure("[log]\njson = true\n");
    let mut child = place.command(&["serve"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    while !line.contains("ready") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0);
    }
    let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(entry["fields"]["message"], "ready");
    let mut serving = Serving {
        child,
        address: String::new(),
    };
    assert_eq!(serving.stop(), Some(0));
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains('\u{1b}'));
}

#[test]
fn a_full_disk_at_the_start_is_told() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can mount a small file system");
    }
    let place = Place::configured();
    let data = place.path("data");
    fs::create_dir(&data).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m,mode=700", "none"])
        .arg(&data)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return eprintln!("skipped: this machine lets nobody mount");
    }
    let output = place.run(&["serve"]);
    let unmounted = Command::new("umount").arg(&data).status().unwrap();
    assert!(unmounted.success());
    assert_eq!(output.status.code(), Some(1));
    holds(
        &text(&output.stderr),
        &["error: data directory", "bytes are free", "free space"],
    );
}

/// Edits through the server's own socket.
fn apply(place: &Place, edits: Vec<restfs_lib::wire::method::Edit>) {
    use restfs_lib::client::{Client, Endpoint};
    let url = format!("unix://{}", place.path("data/restfs.sock").display());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&Endpoint::new(&url).unwrap()).await.unwrap();
        client.apply("b", edits).await.unwrap();
    });
}

#[test]
fn what_was_written_comes_back_from_here_and_from_afar() {
    use restfs_lib::wire::Content;
    use restfs_lib::wire::method::Edit;
    use restfs_lib::wire::values::ObjectAt;
    let place = Place::configured();
    place.ok(&["bucket", "create", "b", "--block-size", "4096"]);
    let server = place.serve();
    let content: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.to_le_bytes()).collect();
    let write = |path: &str, content: &[u8]| Edit::Write {
        object: ObjectAt::path(path),
        offset: 0,
        content: Content(content.to_vec().into()),
    };
    let create = |path: &str| Edit::Create {
        path: path.into(),
        mode: 0o640,
    };
    let mkdir = Edit::Mkdir {
        path: "/dir".into(),
        mode: 0o750,
    };
    apply(
        &place,
        vec![
            mkdir,
            create("/dir/big"),
            write("/dir/big", &content),
            create("/old"),
        ],
    );
    let link = Edit::Symlink {
        path: "/dir/link".into(),
        target: "../new".into(),
    };
    apply(
        &place,
        vec![
            Edit::Rename {
                from: "/old".into(),
                to: "/new".into(),
            },
            write("/new", b"new"),
            link,
        ],
    );

    holds(
        &place.ok(&["ls", "b:/"]),
        &["drwxr-x---", " dir\n", "-rw-r-----", " new\n"],
    );
    holds(&place.ok(&["ls", "b@1:/"]), &[" old\n"]);
    holds(&place.ok(&["ls", "b:/dir/link"]), &["link -> ../new"]);
    holds(
        &place.ok(&["stat", "b:/dir/big"]),
        &["/dir/big", "12000000", "4096"],
    );
    holds(&place.ok(&["log", "b"]), &["exact"]);
    holds(&place.ok(&["log", "b:/new"]), &["content", "name"]);
    assert_eq!(place.run(&["cat", "b:/dir/big"]).stdout, content);

    let out = |name: &str| place.path(name).display().to_string();
    holds(
        &place.ok(&["restore", "b", &out("dry"), "--dry-run"]),
        &["can be restored: 2 files"],
    );
    assert!(!place.path("dry").exists());
    holds(
        &place.ok(&["restore", "b", &out("now")]),
        &["restored: 2 files", "12000003 bytes"],
    );
    assert_eq!(fs::read(place.path("now/dir/big")).unwrap(), content);
    assert_eq!(fs::read(place.path("now/new")).unwrap(), b"new");
    assert_eq!(
        fs::read_link(place.path("now/dir/link")).unwrap(),
        Path::new("../new")
    );
    place.ok(&["restore", "b@1", &out("then")]);
    assert!(place.path("then/old").is_file() && !place.path("then/new").exists());
    holds(&place.error(&["restore", "b", &out("now")]), &["not empty"]);

    let token = place.path("token");
    place.ok(&[
        "token",
        "create",
        "r",
        "--role",
        "reader",
        "--bucket",
        "b",
        "--output",
        token.to_str().unwrap(),
    ]);
    let url = format!("ws://{}", server.address);
    let remote = ["--url", &url, "--token-file", token.to_str().unwrap()];
    place.ok(&[&["restore", "b", &out("afar"), "--path", "/dir"][..], &remote].concat());
    assert_eq!(fs::read(place.path("afar/big")).unwrap(), content);
    drop(server);
    // Killed, not ended: the data is as it was, and read without a server.
    place.ok(&["restore", "b", &out("after")]);
    assert_eq!(fs::read(place.path("after/dir/big")).unwrap(), content);
}

/// The root need not be in the first commits of a source.
#[test]
fn a_bucket_without_a_root_yet_is_called_empty_and_not_missing() {
    use restfs_lib::client::{Client, Commit, Endpoint};
    let place = Place::configured();
    let server = place.serve();
    place.ok(&["bucket", "create", "b"]);
    holds(
        &place.error(&["restore", "b", "/nowhere"]),
        &["no recovery point yet"],
    );
    let endpoint = Endpoint::new(&format!("unix://{}", place.path("data/restfs.sock").display())).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let commit = Commit {
            source: "source".to_owned(),
            epoch: 1,
            first: 1,
            last: 1,
            resync: false,
            time_ns: 1,
            exact: true,
            ops: Vec::new(),
        };
        let client = Client::connect(&endpoint).await.unwrap();
        client.commit("b", &commit).await.unwrap();
    });
    let dest = place.path("out");
    for words in [&["ls", "b:/"][..], &["restore", "b", dest.to_str().unwrap()]] {
        let error = place.error(words);
        holds(&error, &["bucket is empty so far"]);
        assert!(!error.contains("does not exist"), "{error}");
    }
    drop(server);
}

#[test]
fn a_killed_server_has_every_commit_that_it_acknowledged_and_takes_the_next() {
    use restfs_lib::client::{Client, Commit, Endpoint};
    use restfs_lib::content::hash_block;
    use restfs_lib::model::{HashAlgorithm, ObjectId, Op};
    const SOURCE: &str = "source";
    let place = Place::configured();
    place.ok(&["bucket", "create", "b"]);
    let endpoint = Endpoint::new(&format!("unix://{}", place.path("data/restfs.sock").display())).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let commit = |sequence: u64, ops| Commit {
        source: SOURCE.to_owned(),
        epoch: 1,
        first: sequence,
        last: sequence,
        resync: false,
        time_ns: i64::try_from(sequence).unwrap(),
        exact: true,
        ops,
    };
    let mut acknowledged = 0;
    for round in 0..4u64 {
        let mut server = place.serve();
        // Killed while commits run, whenever that is: at least one more was acknowledged.
        let killed = std::thread::scope(|scope| {
            let (first, seen) = std::sync::mpsc::channel();
            let work = scope.spawn({
                let (endpoint, runtime, commit) = (&endpoint, &runtime, &commit);
                let mut sequence = acknowledged;
                move || {
                    runtime.block_on(async {
                        let client = Client::connect(endpoint).await.unwrap();
                        let at = client
                            .position("b", SOURCE)
                            .await
                            .unwrap()
                            .map_or(0, |p| p.sequence);
                        // An answer may have been lost, a commit never.
                        assert!(at == sequence || at == sequence + 1, "{at} {sequence}");
                        sequence = at;
                        loop {
                            let content = format!("content {}", sequence + 1);
                            let block = hash_block(content.as_bytes(), HashAlgorithm::Blake3);
                            let mut ops = ops_of_file(block);
                            if sequence == 0 {
                                ops.insert(
                                    0,
                                    Op::PutObject {
                                        id: ObjectId::ROOT,
                                        object: directory(),
                                    },
                                );
                            }
                            if client
                                .put_blocks(vec![(block.key, content.into())])
                                .await
                                .is_err()
                            {
                                return sequence;
                            }
                            if client.commit("b", &commit(sequence + 1, ops)).await.is_err() {
                                return sequence;
                            }
                            sequence += 1;
                            let _ = first.send(());
                        }
                    })
                }
            });
            for _ in 0..=(round * 7) {
                seen.recv_timeout(PATIENCE).unwrap();
            }
            server.child.kill().unwrap();
            server.child.wait().unwrap();
            work.join().unwrap()
        });
        acknowledged = killed;
        let found: serde_json::Value =
            serde_json::from_str(&place.ok(&["--json", "bucket", "info", "b"])).unwrap();
        let sequence = found["source"]["sequence"].as_u64().unwrap();
        assert!(
            sequence == acknowledged || sequence == acknowledged + 1,
            "{sequence} {acknowledged}"
        );
        for point in [1, acknowledged, sequence] {
            assert_eq!(
                place.ok(&["cat", &format!("b@{point}:/f")]),
                format!("content {point}")
            );
        }
    }
}

fn directory() -> restfs_lib::model::Object {
    use restfs_lib::model::{Kind, Layout, Object, Time};
    let time = Time::default();
    Object {
        kind: Kind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: time,
        atime: time,
        btime: time,
        layout: Layout::default(),
    }
}

fn ops_of_file(block: restfs_lib::model::BlockRef) -> Vec<restfs_lib::model::Op> {
    use restfs_lib::model::{Kind, Object, ObjectId, Op};
    let id = ObjectId(2);
    let object = Object {
        kind: Kind::File,
        size: block.length.into(),
        ..directory()
    };
    vec![
        Op::PutObject { id, object },
        Op::PutEntry {
            dir: ObjectId::ROOT,
            name: b"f".to_vec(),
            child: id,
        },
        Op::PutBlocks {
            id,
            segment: 0,
            blocks: vec![(0, Some(block))],
        },
    ]
}
