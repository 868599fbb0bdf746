//! Where the programs under test are.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// Programs the lab starts, and the module smbd loads.
#[derive(Debug, Clone)]
pub struct Binaries {
    pub restfs: PathBuf,
    pub vfsxd: PathBuf,
    pub vfsxctl: PathBuf,
    pub module: PathBuf,
}

/// File name cargo gives the module.
const BUILT_MODULE: &str = "libvfsx.so";
/// File name Samba derives the module's name from: `vfs objects` takes the word before the dot.
const MODULE: &str = "vfsx.so";

impl Binaries {
    /// In a directory of cargo, such as `target/release`.
    pub fn built_in(target: &Path) -> Result<Self> {
        let binaries = Self {
            module: target.join(BUILT_MODULE),
            ..Self::in_dir(target)
        };
        binaries.check()?;
        Ok(binaries)
    }

    /// Beside the test program that runs, which cargo puts in `target/PROFILE/deps`.
    pub fn of_this_test() -> Result<Self> {
        let test = std::env::current_exe().context("path of this test program")?;
        let target = test
            .parent()
            .and_then(Path::parent)
            .context("directory of this test program")?;
        Self::built_in(target)
    }

    /// Copies, so that a build does not change the programs of a running lab.
    pub fn copied_to(&self, dir: &Path) -> Result<Self> {
        self.check()?;
        let copies = Self::in_dir(dir);
        for (from, to) in self.all().into_iter().zip(copies.all()) {
            fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
        }
        Ok(copies)
    }

    pub fn in_dir(dir: &Path) -> Self {
        Self {
            restfs: dir.join("restfs"),
            vfsxd: dir.join("vfsxd"),
            vfsxctl: dir.join("vfsxctl"),
            module: dir.join(MODULE),
        }
    }

    fn all(&self) -> [&Path; 4] {
        [&self.restfs, &self.vfsxd, &self.vfsxctl, &self.module]
    }

    fn check(&self) -> Result<()> {
        for path in self.all() {
            ensure!(
                path.is_file(),
                "{} is not built: run `cargo xtask test`, which builds everything",
                path.display()
            );
        }
        Ok(())
    }
}
