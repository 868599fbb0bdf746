//! Rights that the lab's directory needs.

use anyhow::{Context, Result, bail};
use nix::unistd::User;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Directories that got an ACL entry for the lab's user, one a line.
const GRANTED: &str = "granted";
const EXECUTE_OTHER: u32 = 0o001;

/// smbd works as the SMB user, who must be able to pass through every directory above the shares. Scratch
/// directories are often closed to others (0700), so the user alone is let through by an ACL entry, which
/// [`revoke_traverse`] takes back.
pub(super) fn grant_traverse(dir: &Path, shares: &Path, user: &User) -> Result<()> {
    let closed = closed_ancestors(dir, shares)?;
    let list: String = closed.iter().map(|dir| format!("{}\n", dir.display())).collect();
    fs::write(dir.join(GRANTED), list)?;
    for dir in &closed {
        setfacl(&["-m", &format!("u:{}:--x", user.uid)], dir).with_context(|| {
            format!(
                "let user {} pass through {}: use a directory below /tmp or /var/tmp",
                user.name,
                dir.display()
            )
        })?;
    }
    Ok(())
}

pub(super) fn revoke_traverse(dir: &Path) -> Result<()> {
    let user = User::from_name(super::LAB_USER)?;
    let list = fs::read_to_string(dir.join(GRANTED)).unwrap_or_default();
    if let Some(user) = user {
        for dir in list.lines().map(Path::new).filter(|dir| dir.exists()) {
            setfacl(&["-x", &format!("u:{}", user.uid)], dir)?;
        }
    }
    Ok(())
}

/// Makes the lab's user the owner of a tree that no client has made.
pub fn give_to_user(tree: &Path) -> Result<()> {
    let owner = format!("{0}:{0}", super::LAB_USER);
    let output = Command::new("chown")
        .args(["-hR", &owner])
        .arg(tree)
        .output()
        .context("run chown")?;
    if !output.status.success() {
        bail!("chown: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Samba keeps DOS attributes and NT ACLs in extended attributes.
pub(super) fn check_xattrs(dir: &Path) -> Result<()> {
    let probe = CString::new("user.vfsx-probe")?;
    let result = rustix::fs::setxattr(dir, &probe, b"x", rustix::fs::XattrFlags::empty());
    if let Err(error) = result {
        bail!(
            "the file system of {} takes no extended attributes ({error}): use a directory on ext4, XFS or btrfs",
            dir.display()
        );
    }
    rustix::fs::removexattr(dir, &probe)?;
    Ok(())
}

fn closed_ancestors(dir: &Path, shares: &Path) -> Result<Vec<PathBuf>> {
    let mut closed = Vec::new();
    for ancestor in dir.ancestors().chain(shares.ancestors()) {
        let metadata = fs::metadata(ancestor).with_context(|| ancestor.display().to_string())?;
        let is_known = closed.iter().any(|known| known == ancestor);
        if !is_known && metadata.permissions().mode() & EXECUTE_OTHER == 0 {
            closed.push(ancestor.to_owned());
        }
    }
    Ok(closed)
}

fn setfacl(arguments: &[&str], dir: &Path) -> Result<()> {
    let output = Command::new("setfacl")
        .args(arguments)
        .arg(dir)
        .output()
        .context("run setfacl (package acl)")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
