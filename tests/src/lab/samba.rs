//! The private smbd: its configuration, its user, its stop.

use super::description::{LAB_USER, ShareDescription, SmbDescription};
use super::process::Service;
use super::smb_conf::{self, SambaOptions};
use super::{Binaries, ports, service};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, chown};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const OWN_MODULE: &str = include_str!("../../shim/own_module.c");
const HELD_WRITES: &str = include_str!("../../shim/held_writes.c");
const HOST: &str = "127.0.0.1";
/// One at a time looks whether the user is there, and makes it.
const USER_LOCK: &str = "/run/vfsx-lab-user.lock";
/// The login is of use on this machine's loopback only, while the lab runs.
const PASSWORD: &str = "vfsx-lab-7c0d";
/// smbd helpers (`samba-dcerpcd` and what it starts) end by themselves when smbd is gone, but late.
const HELPER_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

pub(super) fn check_installed() -> Result<()> {
    for (program, package) in [
        ("smbd", "samba"),
        ("smbclient", "smbclient"),
        ("smbpasswd", "samba-common-bin"),
        ("setfacl", "acl"),
    ] {
        ensure!(
            in_path(program),
            "{program} is not installed: `apt-get install {package}`, or run `cargo xtask test`, which installs all it needs"
        );
    }
    Ok(())
}

pub(super) fn ensure_user() -> Result<User> {
    // Tests start their labs at the same time: two useradd at once may both make the user, with different ids.
    let turn = fs::File::create(USER_LOCK).with_context(|| format!("create {USER_LOCK}"))?;
    turn.lock().with_context(|| format!("lock {USER_LOCK}"))?;
    if let Some(user) = User::from_name(LAB_USER)? {
        return Ok(user);
    }
    let output = Command::new("/usr/sbin/useradd")
        .args([
            "--system",
            "--no-create-home",
            "--home-dir",
            "/nonexistent",
            "--shell",
            "/usr/sbin/nologin",
        ])
        .args(["--user-group", LAB_USER])
        .output()
        .context("run useradd (package passwd)")?;
    let user = User::from_name(LAB_USER)?;
    user.with_context(|| {
        format!(
            "useradd {LAB_USER}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )
    })
}

/// Writes smb.conf, the password database and the start script. The shares' directories are given to the user.
pub(super) fn prepare(
    dir: &Path,
    user: &User,
    binaries: &Binaries,
    socket: &Path,
    shares: &Path,
    options: &SambaOptions,
) -> Result<(SmbDescription, Service)> {
    for sub in ["lock", "state", "cache", "pid", "private", "ncalrpc"] {
        fs::create_dir_all(dir.join("samba").join(sub))?;
    }
    fs::set_permissions(dir.join("samba/private"), fs::Permissions::from_mode(0o700))?;

    let mut described = BTreeMap::new();
    let more = options.more_shares.iter().map(|(name, _)| (name.as_str(), false));
    for (name, vfsx) in [("data", true), ("plain", false)].into_iter().chain(more) {
        let path = shares.join(name);
        chown(&path, Some(user.uid), Some(user.gid))?;
        described.insert(name.to_owned(), ShareDescription { path, vfsx });
    }
    let description = SmbDescription {
        host: HOST.to_owned(),
        port: ports::free()?,
        user: user.name.clone(),
        password: PASSWORD.to_owned(),
        shares: described,
        conf: dir.join("smb.conf"),
        pid_file: dir.join("run/smbd.pid"),
        start: vec![path_text(&service(dir, "smbd").start_script)],
    };
    smb_conf::write(dir, &description, socket, options)?;
    write_auth_file(dir, &description)?;
    set_password(&description)?;

    let smbd = service(dir, "smbd");
    let held_writes = options.hold.is_some().then_some(HELD_WRITES);
    compile_shim(&preload(dir), [OWN_MODULE].into_iter().chain(held_writes))?;
    // The start script makes the session, which smbd would not do twice.
    let hold = options.hold.iter().map(|file| ("VFSX_LAB_HOLD", file.clone()));
    let set = environment(dir, binaries).into_iter().chain(hold);
    let set = set.map(|(name, value)| format!("{name}={}", value.display()));
    let mut argv = vec!["env".to_owned()];
    argv.extend(set);
    argv.extend(["smbd", "--foreground", "--no-process-group", "--configfile"].map(str::to_owned));
    argv.push(path_text(&description.conf));
    let ready = format!(
        "smbclient //{HOST}/plain -p {} -s /dev/null -A {} -c quit",
        description.port,
        super::process::quote(&path_text(&auth_file(dir)))
    );
    smbd.write_script(&argv, &ready)?;
    Ok((description, smbd))
}

/// What lets smbd load the module from the lab.
pub(super) fn environment(dir: &Path, binaries: &Binaries) -> [(&'static str, PathBuf); 2] {
    [
        ("LD_PRELOAD", preload(dir)),
        ("VFSX_LAB_MODULE", binaries.module.clone()),
    ]
}

fn preload(dir: &Path) -> PathBuf {
    dir.join("bin/own_module.so")
}

/// Where smbclient finds user and password.
pub(super) fn auth_file(dir: &Path) -> PathBuf {
    dir.join("samba/private/auth")
}

/// Ends smbd and the helpers that it started with this configuration.
pub(super) fn stop(smbd: &Service, conf: &Path) -> Result<()> {
    smbd.stop()?;
    for helper in helpers(conf) {
        kill(helper, Signal::SIGTERM).ok();
    }
    crate::wait::until(
        "end of smbd's helpers",
        HELPER_LIMIT,
        || helpers(conf).is_empty().then_some(()),
        || format!("{:?} still run", helpers(conf)),
    )
}

/// Makes what stands before the system's own libraries.
fn compile_shim(to: &Path, sources: impl Iterator<Item = &'static str>) -> Result<()> {
    let mut files = Vec::new();
    for (number, source) in sources.enumerate() {
        let file = to.with_extension(format!("{number}.c"));
        fs::write(&file, source)?;
        files.push(file);
    }
    let output = Command::new("cc")
        .args(["-O1", "-shared", "-fPIC", "-o"])
        .arg(to)
        .args(&files)
        .arg("-ldl")
        .output();
    let output = output.context("run cc (package gcc)")?;
    ensure!(
        output.status.success(),
        "cc {files:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn write_auth_file(dir: &Path, smb: &SmbDescription) -> Result<()> {
    let path = auth_file(dir);
    fs::write(
        &path,
        format!("username = {}\npassword = {}\n", smb.user, smb.password),
    )?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

fn set_password(smb: &SmbDescription) -> Result<()> {
    let mut child = Command::new("smbpasswd")
        .arg("-c")
        .arg(&smb.conf)
        .args(["-a", "-s", &smb.user])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("run smbpasswd")?;
    if let Some(mut input) = child.stdin.take() {
        write!(input, "{0}\n{0}\n", smb.password)?;
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "smbpasswd: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Processes that have this configuration file on their command line.
fn helpers(conf: &Path) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| mentions(*pid, &path_text(conf)))
        .map(Pid::from_raw)
        .collect()
}

fn mentions(pid: i32, conf: &str) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let line = String::from_utf8_lossy(&line);
    let mut words = line.split('\0');
    let program = words
        .next()
        .and_then(|word| word.rsplit('/').next())
        .unwrap_or_default();
    (program.starts_with("samba") || program.starts_with("rpcd_") || program.starts_with("smbd"))
        && line.contains(conf)
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    dirs.any(|dir| dir.join(program).is_file())
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}
