//! `cargo xtask install`: what was built, to where the system looks for it.

use crate::build::{self, Profile};
use crate::{packages, rights};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: u32 = 0o755;
const TEXT: u32 = 0o644;

#[derive(clap::Args)]
pub struct Arguments {
    /// Where programs, units, manual pages, completions and examples go. The module goes to Samba's module directory.
    /// The environment variable DESTDIR is put before every path, for making packages.
    #[arg(long, default_value = "/usr/local")]
    prefix: PathBuf,
    /// The programs are built already.
    #[arg(long, hide = true)]
    built: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        arguments.prefix.is_absolute(),
        "--prefix {}: must be absolute",
        arguments.prefix.display()
    );
    if !arguments.built {
        build::prepare()?;
        build::everything(Profile::Release)?;
        generate()?;
    }
    if std::env::var_os("DESTDIR").is_none() {
        rights::go_on_as_root("--built")?;
    }
    Target {
        prefix: arguments.prefix.clone(),
    }
    .install_all()
}

/// Manual pages and completions, made from the programs' own options.
fn generate() -> Result<()> {
    let out = pages_dir()?;
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    let mut command = build::command();
    command
        .args([
            "run",
            "--quiet",
            "--package",
            "xtask",
            "--features",
            "pages",
            "--bin",
            "pages",
            "--",
        ])
        .arg(&out);
    packages::run(&mut command, "making of manual pages and completions")
}

fn pages_dir() -> Result<PathBuf> {
    Ok(build::target_dir()?.join("pages"))
}

struct Target {
    prefix: PathBuf,
}

impl Target {
    fn install_all(&self) -> Result<()> {
        let binaries = build::binaries(Profile::Release)?;
        self.file(&binaries.module, &modules_dir()?.join("vfs/vfsx.so"), TEXT)?;
        self.file(&binaries.vfsxd, &self.prefix.join("sbin/vfsxd"), PROGRAM)?;
        self.file(&binaries.vfsxctl, &self.prefix.join("bin/vfsxctl"), PROGRAM)?;
        self.file(&binaries.restfs, &self.prefix.join("bin/restfs"), PROGRAM)?;

        // Holds the tokens of sites.
        let etc = below_destdir(Path::new("/etc/vfsx"));
        if !etc.exists() {
            fs::create_dir_all(&etc).with_context(|| format!("create {}", etc.display()))?;
            fs::set_permissions(&etc, fs::Permissions::from_mode(0o700))?;
        }

        let packaging = build::root().join("packaging");
        for unit in ["vfsxd.service", "vfsxd.socket", "restfs.service"] {
            let text = fs::read_to_string(packaging.join(unit))?;
            let text = text.replace("@PREFIX@", &self.prefix.display().to_string());
            self.write(
                text.as_bytes(),
                &self.prefix.join("lib/systemd/system").join(unit),
                TEXT,
            )?;
        }
        let examples = self.prefix.join("share/doc/vfsx/examples");
        for example in ["vfsxd.toml", "restfs.toml"] {
            self.file(&packaging.join(example), &examples.join(example), TEXT)?;
        }
        for example in ["smb.conf.example", "vfsx-module/examples/keep_handler.py"] {
            let from = build::root().join(example);
            let name = from.file_name().context("a file has a name")?;
            self.file(&from, &examples.join(name), TEXT)?;
        }
        self.tree(&pages_dir()?, &self.prefix.join("share"))
    }

    /// Every file beneath `from`, to the same place beneath `to`.
    fn tree(&self, from: &Path, to: &Path) -> Result<()> {
        let (files, _) = vfsx_tests::work::walk(from)?;
        files
            .iter()
            .try_for_each(|file| self.file(&from.join(file), &to.join(file), TEXT))
    }

    fn file(&self, from: &Path, to: &Path, mode: u32) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        self.write(&content, to, mode)
    }

    /// Replaces the file by renaming, so that a process which has the old one mapped keeps it.
    fn write(&self, content: &[u8], to: &Path, mode: u32) -> Result<()> {
        let to = below_destdir(to);
        let dir = to.parent().context("a file has a directory")?;
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let mut new =
            tempfile::NamedTempFile::new_in(dir).with_context(|| format!("write in {}", dir.display()))?;
        std::io::Write::write_all(&mut new, content).with_context(|| format!("write {}", to.display()))?;
        new.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
        new.persist(&to)
            .with_context(|| format!("replace {}", to.display()))?;
        println!("{}", to.display());
        Ok(())
    }
}

fn below_destdir(path: &Path) -> PathBuf {
    match std::env::var_os("DESTDIR") {
        Some(dir) => Path::new(&dir).join(path.strip_prefix("/").unwrap_or(path)),
        None => path.to_owned(),
    }
}

/// Where this machine's smbd looks for modules.
fn modules_dir() -> Result<PathBuf> {
    let output = Command::new("smbd").arg("-b").output().context("run smbd -b")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("MODULESDIR:"));
    Ok(PathBuf::from(line.context("smbd -b names no MODULESDIR")?.trim()))
}
