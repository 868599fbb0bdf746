//! A process that is asked before an operation goes on: what it refuses is not done and not replicated, and whatever it
//! does itself, clients neither hang nor fail without need.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vfsx_tests::compare::{self, Aspect, Difference};
use vfsx_tests::lab::{LabOptions, SambaOptions};
use vfsx_tests::smb::{AclEntry, Basic, Handle, Open, Session, SmbClient, Unix1};
use vfsx_tests::testlab::{TestLab, with_lab};
use vfsx_tests::wait;

const LIMIT: Duration = Duration::from_secs(20);
const BLOCK: usize = 512;
/// Clients cannot have a colon in a name: theirs is `¦`.
const COLON: &str = "catia:mappings = 0x3a:0xa6";

/// The example of the documentation.
struct KeepHandler {
    process: Child,
    said: PathBuf,
}

impl KeepHandler {
    fn start(dir: &Path, socket: &Path) -> Result<Self> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vfsx-module/examples/keep_handler.py");
        let said = dir.join("said");
        let process = Command::new("/usr/bin/python3")
            .arg(program)
            .args(["--verbose".as_ref(), socket.as_os_str()])
            .stdin(Stdio::null())
            .stdout(fs::File::create(&said)?)
            .spawn()
            .context("run /usr/bin/python3")?;
        let handler = Self { process, said };
        wait::until(
            "the handler listens",
            LIMIT,
            || UnixStream::connect(socket).ok().map(drop),
            || "nobody does".into(),
        )?;
        Ok(handler)
    }

    /// Answers and questions so far, one a line.
    fn said(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.said)?)
    }
}

impl Drop for KeepHandler {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn options(objects: &str, socket: &Path, more: &[&str]) -> SambaOptions {
    let mut samba = SambaOptions::with_objects(objects);
    samba.share = vec![format!("vfsx:handler = {}", socket.display()), COLON.to_owned()];
    samba.share.extend(more.iter().map(|line| (*line).to_owned()));
    samba
}

/// Fails unless the server refuses the command with `status`.
fn refused(lab: &TestLab, command: &str, status: &str) -> Result<()> {
    let result = SmbClient::new(lab, "data").run(&[command]);
    let text = result.map_or_else(|error| format!("{error:#}"), |said| format!("was done: {said}"));
    ensure!(text.contains(status), "{command}: {text}");
    Ok(())
}

#[test]
fn what_a_handler_refuses_is_neither_done_nor_replicated() {
    let scratch = tempfile::tempdir().expect("scratch directory");
    let socket = scratch.path().join("handler");
    let samba = options("catia streams_xattr acl_xattr vfsx", &socket, &[]);
    let handler = KeepHandler::start(scratch.path(), &socket).expect("handler");
    with_lab(
        |options| options.samba = samba,
        |lab| {
            let share = lab.share("data")?;
            let client = SmbClient::new(lab, "data");
            let file = Path::new("/etc/passwd");
            for name in [
                "a.txt",
                "b.txt",
                "c.txt",
                "b.keep",
                "b.keep:stream",
                "d¦e,f é%.KEEP",
            ] {
                client.put(file, name)?;
            }
            client.run(&[
                "mkdir sub",
                "mkdir sub.keep",
                "rename a.txt sub/a.txt",
                "setmode b.keep +h",
            ])?;
            ensure!(
                share.join("d:e,f é%.KEEP").exists(),
                "catia makes no colon of the client's character"
            );

            for name in ["b.keep", "\"d¦e,f é%.KEEP\""] {
                refused(lab, &format!("del {name}"), "NT_STATUS_ACCESS_DENIED")?;
            }
            refused(lab, "rmdir sub.keep", "NT_STATUS_ACCESS_DENIED")?;
            refused(lab, "rename b.keep sub/b.txt", "NT_STATUS_ACCESS_DENIED")?;
            refused(lab, "rename b.txt b.keep -f", "NT_STATUS_ACCESS_DENIED")?;
            rustix::fs::getxattr(share.join("b.keep"), "user.DosStream.stream:$DATA", &mut [0; 0])
                .context("the stream went with a deletion that was refused")?;

            client.run(&["rename c.txt c.keep", "del b.txt", "del sub/a.txt", "rmdir sub"])?;
            let mut names: Vec<_> = fs::read_dir(share)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<Result<_>>()?;
            names.sort();
            ensure!(
                names == ["b.keep", "c.keep", "d:e,f é%.KEEP", "sub.keep"],
                "{names:?}"
            );

            let said = handler.said()?;
            let at = format!("vfsxlab:{}", share.display());
            for line in [
                format!("0 connect:{at}"),
                format!("0 open:{at}:a.txt,"),
                format!("0 pwrite:{at}:a.txt"),
                format!("-2 unlink:{at}:d%3Ae%2Cf é%25.KEEP"),
                format!("-2 rmdir:{at}:sub.keep"),
                format!("-2 rename:{at}:b.keep,sub/b.txt"),
                format!("-2 removexattr:{at}:b.keep,user.DosStream.stream%3A$DATA"),
                format!("0 rename:{at}:c.txt,c.keep"),
                format!("0 unlink:{at}:sub/a.txt"),
                format!("0 set_dos_attributes:{at}:b.keep,"),
                format!("0 disconnect:{at}"),
            ] {
                ensure!(
                    said.lines().any(|said| said.starts_with(&line)),
                    "{line} was not asked:\n{said}"
                );
            }
            asked_once(&said, &at)?;

            lab.settle()?;
            lab.check_replica("site1")?;
            let status = lab.status()?;
            ensure!(status["gap"].is_null(), "a refusal is no gap: {status}");
            Ok(())
        },
    );
}

/// A client's creation of a file is one question, whatever smbd does to carry it out.
fn asked_once(said: &str, at: &str) -> Result<()> {
    let about: Vec<_> = said
        .lines()
        .filter(|line| line.contains(&format!("{at}:c.txt")))
        .filter_map(|line| line.split([' ', ':']).nth(1))
        .collect();
    let (first, rest) = about.split_first().context("nothing was asked about c.txt")?;
    ensure!(
        *first == "open"
            && rest
                .iter()
                .all(|operation| ["pwrite", "utimes", "rename"].contains(operation)),
        "asked about a new file: {about:?}"
    );
    ensure!(
        about.iter().filter(|operation| **operation == "open").count() == 1,
        "{about:?}"
    );
    Ok(())
}

/// The next question of a connection.
fn question(stream: &mut UnixStream) -> Result<String> {
    let mut text = Vec::new();
    while text.last() != Some(&0) {
        let mut block = [0; BLOCK];
        stream.read_exact(&mut block)?;
        text.extend_from_slice(&block);
    }
    Ok(String::from_utf8(text)?.trim_end_matches('\0').to_owned())
}

fn work(lab: &TestLab, from: u32) -> Result<Duration> {
    let start = Instant::now();
    let mut session = Session::connect(lab, "data")?;
    for number in from..from + 100 {
        session.put(&format!("file-{number}"), b"whoever listens")?;
    }
    Ok(start.elapsed())
}

#[test]
fn without_an_answer_clients_work_on_or_are_refused_as_configured_and_never_hang() {
    let scratch = tempfile::tempdir().expect("scratch directory");
    let socket = scratch.path().join("handler");
    let allow = options("vfsx", &socket, &["vfsx:handler timeout = 500"]);
    let start = |options: &mut LabOptions| options.samba = allow.clone();
    with_lab(start, |lab| {
        let quick = work(lab, 0)?;
        lab.wait_for_smbd_line("cannot be reached")?;
        lab.wait_for_smbd_line("operations were allowed without the handler")?;

        let hanging = UnixListener::bind(&socket)?;
        let slow = work(lab, 100)?;
        // The question at the tree connect costs one time-out. 300 of them would be 150 s.
        ensure!(
            slow < quick * 3 + LIMIT,
            "{slow:?} with a handler that hangs, {quick:?} without one"
        );
        lab.wait_for_smbd_line("did not answer within 500 ms")?;
        drop(hanging);

        refused_writes_fail(lab, &socket)?;
        dying_handler_denies(lab, &socket)?;
        lab.settle()?;
        lab.check_replica("site1")
    });
}

/// A write that a thread would do, one received directly from the client's socket, and a copy within the server.
fn refused_writes_fail(lab: &TestLab, socket: &Path) -> Result<()> {
    let mut samba = options("vfsx", socket, &[]);
    samba.global.push("min receivefile size = 16384".into());
    fs::remove_file(socket)?;
    lab.restart_samba(&samba)?;
    let listener = UnixListener::bind(socket)?;
    // Ends with this process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || refuse_writes(stream));
        }
    });
    let share = lab.share("data")?;
    let before = fs::read(share.join("file-1"))?;
    let mut session = Session::connect(lab, "data")?;
    let (source, target) = (
        session.create("file-0", "open")?,
        session.create("file-1", "open")?,
    );
    let write = session.write(target, 0, b"refused");
    let copy = session.copy_range((source, 0), (target, 0), 5);
    for result in [write, copy] {
        let text = result.map_or_else(|error| format!("{error:#}"), |()| "done".into());
        ensure!(text.contains("STATUS_IO_DEVICE_ERROR"), "{text}");
    }
    ensure!(
        fs::read(share.join("file-1"))? == before,
        "a refused write was done"
    );

    let big = socket.with_file_name("big");
    fs::write(&big, vec![b'x'; 1 << 20])?;
    // What the server did not take from the socket would be read as the next request.
    let output = SmbClient::new(lab, "data").output(
        Path::new("/"),
        &[
            format!("put {} big", big.display()),
            "del file-2".to_owned(),
            "ls big".to_owned(),
        ],
    )?;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("NT_STATUS_IO_DEVICE_ERROR"), "{said}");
    ensure!(
        !share.join("file-2").exists(),
        "the connection broke after a refused write: {said}"
    );
    ensure!(
        fs::metadata(share.join("big"))?.len() == 0,
        "a refused write was done"
    );
    Ok(())
}

fn refuse_writes(mut stream: UnixStream) {
    while let Ok(question) = question(&mut stream) {
        let answer = if question.starts_with("pwrite:") {
            "-1"
        } else {
            "0"
        };
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// With `deny`: a handler that dies before its answer, and one that comes back.
fn dying_handler_denies(lab: &TestLab, socket: &Path) -> Result<()> {
    let deny = ["vfsx:handler timeout = 200", "vfsx:handler failure = deny"];
    fs::remove_file(socket)?;
    lab.restart_samba(&options("vfsx", socket, &deny))?;
    let listener = UnixListener::bind(socket)?;
    let dying = std::thread::spawn(move || -> Result<String> {
        let (mut stream, _) = listener.accept()?;
        question(&mut stream)?;
        stream.write_all(b"0")?;
        question(&mut stream)
    });
    let mut session = Session::connect(lab, "data")?;
    let error = session
        .create("file-0", "open")
        .expect_err("nobody has allowed it");
    let asked = dying
        .join()
        .map_err(|_| anyhow::anyhow!("the handler panicked"))??;
    ensure!(
        asked.starts_with("open:") && asked.contains(":file-0,"),
        "{asked}"
    );
    ensure!(format!("{error:#}").contains("STATUS_ACCESS_DENIED"), "{error:#}");
    ensure!(
        session.create("file-1", "open").is_err(),
        "the handler is gone, and deny is configured"
    );

    fs::remove_file(socket)?;
    let handler = KeepHandler::start(socket.parent().context("a directory")?, socket)?;
    let file = wait::until(
        "the handler that is back is asked",
        LIMIT,
        || session.create("file-0", "open").ok(),
        || handler.said().unwrap_or_default(),
    )?;
    session.delete_on_close(file)?;
    session.close(file)?;
    ensure!(!lab.share("data")?.join("file-0").exists());
    lab.wait_for_smbd_line("answers again").map(drop)
}

/// A handler that allows everything but one operation.
#[derive(Clone, Default)]
struct Refusing {
    refused: Arc<Mutex<(&'static str, &'static str)>>,
    times: Arc<AtomicUsize>,
}

impl Refusing {
    /// Serves until the end of this process.
    fn listen(socket: &Path) -> Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let this = Self::default();
        let handler = this.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let handler = handler.clone();
                std::thread::spawn(move || handler.serve(stream));
            }
        });
        Ok(this)
    }

    fn serve(&self, mut stream: UnixStream) {
        while let Ok(question) = question(&mut stream) {
            let (operation, answer) = self.refused.lock().map(|refused| *refused).unwrap_or_default();
            let is_refused = question.split(':').next() == Some(operation);
            self.times.fetch_add(usize::from(is_refused), Ordering::Relaxed);
            let answer = if is_refused { answer } else { "0" };
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    /// From now on: no operation is called "".
    fn refuse(&self, operation: &'static str, answer: &'static str) {
        if let Ok(mut refused) = self.refused.lock() {
            *refused = (operation, answer);
        }
        self.times.store(0, Ordering::Relaxed);
    }

    fn times(&self) -> usize {
        self.times.load(Ordering::Relaxed)
    }
}

struct Clients<'a> {
    lab: &'a TestLab,
    session: Session,
    unix1: Unix1,
}

impl Clients<'_> {
    /// Opens, works, closes; gives what was refused first.
    fn on(&mut self, path: &str, work: impl FnOnce(&mut Session, Handle) -> Result<()>) -> Result<()> {
        let handle = self.session.create(path, "open")?;
        let worked = work(&mut self.session, handle);
        let closed = self.session.close(handle);
        worked.and(closed)
    }
}

type Try = fn(&mut Clients<'_>) -> Result<()>;

const ACCESS: [AclEntry<'static>; 5] = [
    ("user_object", 7, None),
    ("user", 5, Some(4321)),
    ("group_object", 4, None),
    ("mask", 7, None),
    ("other", 0, None),
];
const DEFAULT: [AclEntry<'static>; 3] = [
    ("user_object", 7, None),
    ("group_object", 5, None),
    ("other", 1, None),
];
/// Some time that no test runs at, in units of 100 ns since 1601.
const THEN: u64 = 126_444_736_000_000_000;

/// Each operation that can be refused, with what leads to it.
const REFUSALS: &[(&str, Try)] = &[
    ("connect", |c| {
        SmbClient::new(c.lab, "data").run(&["ls"]).map(drop)
    }),
    ("open", |c| c.on("file", |_, _| Ok(()))),
    ("open", |c| c.session.put("new", b"new")),
    ("open", |c| c.session.create("file", "overwrite").map(drop)),
    ("mkdir", |c| {
        let open = Open {
            disposition: "create",
            directory: Some(true),
            ..Open::default()
        };
        c.session.open("new", &open).map(drop)
    }),
    ("rmdir", |c| c.on("empty", Session::delete_on_close)),
    ("unlink", |c| c.on("file", Session::delete_on_close)),
    ("rename", |c| {
        c.on("file", |s, file| s.rename_open(file, "new", false))
    }),
    ("rename", |c| {
        c.on("file", |s, file| s.rename_open(file, "other", true))
    }),
    ("link", |c| c.on("file", |s, file| s.link(file, "new", false))),
    ("symlink", |c| c.unix1.symlink("new", "file")),
    ("mknod", |c| c.unix1.mknod("new", "fifo", 0o640, (0, 0))),
    ("pwrite", |c| {
        c.on("file", |s, file| s.write(file, 10, b"written"))
    }),
    ("ftruncate", |c| c.on("file", |s, file| s.truncate(file, 10))),
    ("ftruncate", |c| c.on("file", |s, file| s.truncate(file, 1 << 20))),
    ("fallocate", |c| c.on("file", |s, file| s.zero(file, 0, 65_536))),
    ("chmod", |c| c.unix1.chmod("file", "file", 0o751)),
    ("chown", |c| c.unix1.chown("file", "file", 4321, 4322)),
    ("utimes", |c| {
        let basic = Basic {
            written: THEN,
            ..Basic::default()
        };
        c.on("file", |s, file| s.set_basic(file, basic))
    }),
    ("setxattr", |c| {
        c.on("file", |s, file| s.set_extended(file, &[("New", "1")]))
    }),
    ("removexattr", |c| {
        c.on("file", |s, file| s.set_extended(file, &[("Origin", "")]))
    }),
    ("set_dos_attributes", |c| {
        let basic = Basic {
            attributes: 2,
            ..Basic::default()
        };
        c.on("file", |s, file| s.set_basic(file, basic))
    }),
    ("set_nt_acl", |c| {
        c.on("file", |s, file| s.grant(file, "S-1-1-0", 0x001f_01ff))
    }),
    ("set_acl", |c| c.unix1.set_acl("file", &ACCESS, None)),
    ("set_acl", |c| c.unix1.set_acl("empty", &ACCESS, Some(&DEFAULT))),
    ("delete_default_acl", |c| {
        c.unix1.set_acl("heir", &ACCESS, Some(&[]))
    }),
];

/// For these smbd sets the time before it tries, and says so at the close.
const TIMED: [&str; 3] = ["pwrite", "ftruncate", "fallocate"];

/// What the disk has, with owners, times and attributes.
fn picture(lab: &TestLab, to: &Path) -> Result<PathBuf> {
    let copy = to.join("picture");
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    let copied = Command::new("cp")
        .arg("-a")
        .arg(lab.share("data")?)
        .arg(&copy)
        .status()?;
    ensure!(copied.success(), "cp: {copied}");
    Ok(copy)
}

#[test]
fn each_operation_can_be_refused_and_leaves_the_disk_as_it_is() {
    let scratch = tempfile::tempdir().expect("scratch directory");
    let socket = scratch.path().join("handler");
    let handler = Refusing::listen(&socket).expect("handler");
    let mut samba = options("vfsx", &socket, &["admin users = vfsxlab"]);
    samba.global.push("server min protocol = NT1".into());
    with_lab(
        |options| options.samba = samba,
        |lab| {
            let mut clients = Clients {
                lab,
                session: Session::connect(lab, "data")?,
                unix1: Unix1::connect(lab, "data")?,
            };
            for name in ["file", "other"] {
                clients.session.put(name, &[7; 100_000])?;
            }
            clients.on("file", |s, file| s.set_extended(file, &[("Origin", "here")]))?;
            SmbClient::new(lab, "data").run(&["mkdir empty", "mkdir heir"])?;
            clients.unix1.set_acl("heir", &ACCESS, Some(&DEFAULT))?;
            lab.settle()?;
            let mut before = picture(lab, scratch.path())?;
            for answer in ["-1", "-2"] {
                for (operation, attempt) in REFUSALS {
                    handler.refuse(operation, answer);
                    let done = attempt(&mut clients);
                    let times = handler.times();
                    handler.refuse("", "0");
                    refused_and_unchanged(lab, &before, times, done, TIMED.contains(operation))
                        .with_context(|| format!("{operation}, answer {answer}"))?;
                    if TIMED.contains(operation) {
                        before = picture(lab, scratch.path())?;
                    }
                }
            }
            lab.settle()?;
            lab.check_captured(1)?;
            lab.check_replica("site1")
        },
    );
}

/// `timed`: but for the modification time.
fn refused_and_unchanged(
    lab: &TestLab,
    before: &Path,
    times: usize,
    done: Result<()>,
    timed: bool,
) -> Result<()> {
    ensure!(times > 0, "it was not asked: {done:?}");
    let text = done.map_or_else(|error| format!("{error:#}"), |()| "it was done".into());
    ensure!(text.contains("STATUS_"), "{text}");
    let report = compare::compare(before, lab.share("data")?, &compare::Options::default())?;
    let expected = |found: &Difference| timed && found.path == "file" && found.aspect == Aspect::Mtime;
    ensure!(
        report.differences.iter().all(expected),
        "the disk was changed:\n{report}"
    );
    lab.check_no_gap()
}
