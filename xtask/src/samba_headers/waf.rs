//! Samba's own build, as far as its generated headers.

use anyhow::Result;
use std::path::Path;
use std::process::Command;

/// Parts of Samba that no header of the VFS interface depends on. Options that this Samba does not know are left out, so
/// that one list serves all versions.
const WITHOUT: &[&str] = &[
    "--disable-python",
    "--without-ad-dc",
    "--without-ads",
    "--without-ldap",
    "--without-pam",
    "--without-gettext",
    "--without-json",
    "--without-libarchive",
    "--without-ldb-lmdb",
    "--disable-cups",
    "--disable-iprint",
    "--disable-avahi",
    "--without-quotas",
    "--without-utmp",
    "--without-automount",
    "--without-regedit",
    "--without-winbind",
    "--without-winexe",
    "--without-gpgme",
    "--disable-spotlight",
    "--disable-glusterfs",
    "--disable-cephfs",
    "--without-systemd",
    "--without-lttng",
    "--without-acl-support",
];
/// A small library of the main build group: all header generators belong to groups before it.
const LAST_GENERATED: &str = "samba-errors";

pub(super) fn configure(source: &Path, log: &Path) -> Result<()> {
    let help = waf(source).args(["configure", "--help"]).output()?;
    let help = String::from_utf8_lossy(&help.stdout);
    let mut command = waf(source);
    command.args([
        "configure",
        "--prefix=/usr",
        "--enable-fhs",
        "--with-shared-modules=!vfs_snapper",
    ]);
    command.args(WITHOUT.iter().filter(|option| knows(&help, option)));
    super::run_logged(&mut command, log, "configure of the Samba source")
}

pub(super) fn generate(source: &Path, log: &Path) -> Result<()> {
    let mut command = waf(source);
    command.args(["build", &format!("--targets={LAST_GENERATED}")]);
    super::run_logged(&mut command, log, "generating Samba's headers")
}

/// waf's help lists an option in one of its two forms only.
fn knows(help: &str, option: &str) -> bool {
    let opposite = option
        .replace("--without-", "--with-")
        .replace("--disable-", "--enable-");
    help.split_whitespace().any(|word| {
        let word = word.split('=').next().unwrap_or(word);
        word == option || word == opposite
    })
}

fn waf(source: &Path) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command
        .arg("./buildtools/bin/waf")
        .current_dir(source)
        // The system's tools only: another Python or compiler on the caller's path has not the packages installed above.
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("PYTHONHASHSEED", "1")
        .env("PYTHON", "/usr/bin/python3");
    for name in [
        "CC",
        "CFLAGS",
        "CPPFLAGS",
        "LDFLAGS",
        "PYTHONPATH",
        "PYTHONHOME",
        "JOBS",
        "MAKEFLAGS",
    ] {
        command.env_remove(name);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::knows;

    #[test]
    fn an_option_is_known_by_either_form_and_not_by_a_prefix() {
        let help = "  --with-ldap\n  --disable-python\n  --with-pam-extra=X";
        assert!(knows(help, "--without-ldap"));
        assert!(knows(help, "--disable-python"));
        assert!(!knows(help, "--without-pam"));
    }
}
