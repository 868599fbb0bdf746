//! `cargo xtask samba-headers`: the headers that the module is built against.
//!
//! A VFS module is compiled against Samba's private structures, whose layout no package ships. So the source package
//! of exactly the installed Samba is fetched, configured and built as far as its generated headers; all but the
//! headers is then thrown away.

mod apt;
mod waf;

use crate::packages;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Written last, so a directory that has it is complete. `vfsx-module/build.rs` reads it.
const MARKER: &str = "VFSX-HEADERS";
/// The directory that `build.rs` takes when `VFSX_SAMBA_HEADERS` is not set.
const CURRENT: &str = "current";

/// Compilers and libraries that Samba's `configure` cannot do without even with all options off, then what the module's own
/// build needs: libclang for bindgen, talloc and tevent of the version that smbd is linked with.
const PACKAGES: &[&str] = &[
    "samba",
    "dpkg-dev",
    "gcc",
    "libc6-dev",
    "make",
    "perl",
    "python3",
    "python3-dev",
    "pkg-config",
    "bison",
    "flex",
    "libparse-yapp-perl",
    "libjson-perl",
    "libgnutls28-dev",
    "zlib1g-dev",
    "libkeyutils-dev",
    "libpopt-dev",
    "libtdb-dev",
    "libclang-dev",
    "libtalloc-dev",
    "libtevent-dev",
];

/// Makes the headers of the installed Samba ready, and gives the directory that `VFSX_SAMBA_HEADERS` may name.
/// Quick when they are there already.
pub fn ensure() -> Result<PathBuf> {
    packages::ensure(PACKAGES)?;
    let version = packages::installed("samba", "${source:Version}")?.context("samba is not installed")?;
    let root = target_dir().join("samba-headers");
    let ready = root.join(version.replace([':', '/'], "_"));
    if !ready.join(MARKER).exists() {
        prepare(&root, &ready, &version)?;
    }
    point_current_at(&root, &ready)?;
    Ok(ready)
}

fn prepare(root: &Path, ready: &Path, version: &str) -> Result<()> {
    fs::create_dir_all(root).with_context(|| format!("cannot create {}", root.display()))?;
    let work = tempfile::Builder::new()
        .prefix("making-")
        .tempdir_in(root)
        .with_context(|| format!("cannot create a directory in {}", root.display()))?;
    let steps = Steps {
        start: Instant::now(),
        version,
    };

    steps.say("fetching the source package");
    let source = apt::fetch_source("samba", version, work.path())?;
    steps.say("configuring (about a minute)");
    waf::configure(&source, &root.join("configure.log"))?;
    steps.say("generating headers");
    waf::generate(&source, &root.join("generate.log"))?;
    steps.say("keeping the headers");
    keep_headers(&source)?;
    write_marker(&source, version)?;
    if ready.exists() {
        fs::remove_dir_all(ready).with_context(|| format!("cannot remove {}", ready.display()))?;
    }
    fs::rename(&source, ready).with_context(|| format!("cannot move the headers to {}", ready.display()))?;
    steps.say(&format!("ready in {}", ready.display()));
    Ok(())
}

/// Lines of progress, each with the seconds since the start.
struct Steps<'a> {
    start: Instant,
    version: &'a str,
}

impl Steps<'_> {
    fn say(&self, what: &str) {
        println!(
            "samba-headers {}: {what} [{} s]",
            self.version,
            self.start.elapsed().as_secs()
        );
    }
}

fn write_marker(source: &Path, version: &str) -> Result<()> {
    let text = format!("source_version={version}\ninterface={}\n", interface(source)?);
    let path = source.join(MARKER);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn interface(source: &Path) -> Result<u32> {
    let path = source.join("source3/include/vfs.h");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let number = text
        .lines()
        .find_map(|line| line.strip_prefix("#define SMB_VFS_INTERFACE_VERSION"));
    match number.and_then(|n| n.trim().parse().ok()) {
        Some(number) => Ok(number),
        None => bail!("{} does not define SMB_VFS_INTERFACE_VERSION", path.display()),
    }
}

/// Removes everything below `dir` that is not a header. Links are kept: some headers are links.
fn keep_headers(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            keep_headers(&path)?;
            // Fails, as it should, for a directory that still has headers.
            let _ = fs::remove_dir(&path);
        } else if path.extension().is_none_or(|e| e != "h") {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn point_current_at(root: &Path, ready: &Path) -> Result<()> {
    let current = root.join(CURRENT);
    let name = Path::new(ready.file_name().context("the headers' directory has no name")?);
    if fs::read_link(&current).is_ok_and(|target| target == name) {
        return Ok(());
    }
    let new = root.join(format!("{CURRENT}.{}", std::process::id()));
    std::os::unix::fs::symlink(name, &new).with_context(|| format!("cannot create {}", new.display()))?;
    fs::rename(&new, &current).with_context(|| format!("cannot replace {}", current.display()))
}

fn target_dir() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."));
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => workspace.join(dir),
        None => workspace.join("target"),
    }
}

/// Runs `command` with its output in `log`; on failure the error ends with the log's last lines.
fn run_logged(command: &mut Command, log: &Path, what: &str) -> Result<()> {
    const TAIL: usize = 12;
    let file = fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let status = command
        .stdout(file.try_clone()?)
        .stderr(file)
        .stdin(std::process::Stdio::null())
        .status()
        .with_context(|| format!("cannot run {what}"))?;
    if status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines
        .get(lines.len().saturating_sub(TAIL)..)
        .unwrap_or_default()
        .join("\n");
    bail!(
        "{what} failed ({status}); the log is {}, its end:\n{tail}",
        log.display()
    )
}
