//! Fetches a source package without touching the machine's own apt configuration.

use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE_LIST: &str = "/etc/apt/sources.list";
const SOURCE_PARTS: &str = "/etc/apt/sources.list.d";

/// Fetches and unpacks `package` of exactly `version` below `work`; gives the unpacked directory.
pub(super) fn fetch_source(package: &str, version: &str, work: &Path) -> Result<PathBuf> {
    let apt = PrivateApt::new(package, work)?;
    let log = work.join("apt.log");
    super::run_logged(
        apt.get().arg("update"),
        &log,
        "apt-get update with the deb-src lines of this machine's sources",
    )?;
    let mut fetch = apt.get();
    fetch
        .args(["source", "--download-only", &format!("{package}={version}")])
        .current_dir(work);
    super::run_logged(&mut fetch, &log, "apt-get source").with_context(|| {
        format!(
            "the source of {package} {version} cannot be had: when the archive has a newer version, upgrade with \
             `apt-get update && apt-get install {package}` and try again"
        )
    })?;
    let dsc = file_ending_in(work, ".dsc")?;
    let source = work.join("source");
    let mut unpack = Command::new("dpkg-source");
    unpack.args(["--no-check", "--extract"]).arg(&dsc).arg(&source);
    super::run_logged(&mut unpack, &log, "dpkg-source")?;
    Ok(source)
}

/// apt with sources, lists and cache of its own.
struct PrivateApt {
    base: PathBuf,
}

impl PrivateApt {
    fn new(package: &str, work: &Path) -> Result<Self> {
        let base = work.join("apt");
        for dir in ["parts", "lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(base.join(dir)).context("cannot create a private apt directory")?;
        }
        let uris = uris_of(package)?;
        for path in machine_sources() {
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let is_deb822 = path.extension().is_some_and(|e| e == "sources");
            let text = if is_deb822 {
                deb822_to_src(&text, &uris)
            } else {
                list_to_src(&text, &uris)
            };
            let Some(name) = path.file_name() else { continue };
            fs::write(base.join("parts").join(name), text).context("cannot write private apt sources")?;
        }
        Ok(Self { base })
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.env("LC_ALL", "C").arg("--quiet");
        for (option, value) in [
            ("Dir::Etc::SourceList", PathBuf::from("/dev/null")),
            ("Dir::Etc::SourceParts", self.base.join("parts")),
            ("Dir::State::Lists", self.base.join("lists")),
            ("Dir::Cache", self.base.join("cache")),
        ] {
            command.arg("-o").arg(format!("{option}={}", value.display()));
        }
        // The download directory belongs to this user, apt's own user may not be able to reach it.
        command.args(["-o", "APT::Sandbox::User=root"]);
        command
    }
}

/// Where apt would get `package` from. Empty when apt does not know: then all sources are used.
fn uris_of(package: &str) -> Result<Vec<String>> {
    let output = Command::new("apt-cache")
        .args(["policy", package])
        .env("LC_ALL", "C")
        .output()
        .context("cannot run apt-cache")?;
    Ok(uris_in_policy(&String::from_utf8_lossy(&output.stdout)))
}

fn uris_in_policy(policy: &str) -> Vec<String> {
    policy
        .lines()
        .filter_map(|line| {
            let uri = line.split_whitespace().nth(1)?;
            uri.contains(":/").then(|| uri.trim_end_matches('/').to_owned())
        })
        .collect()
}

fn machine_sources() -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::from(SOURCE_LIST)];
    let parts = fs::read_dir(SOURCE_PARTS)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path());
    paths.extend(parts.filter(|p| p.extension().is_some_and(|e| e == "list" || e == "sources")));
    paths.retain(|p| p.is_file());
    paths
}

/// One-line style: every `deb` line of the wanted archives as `deb-src`.
fn list_to_src(text: &str, uris: &[String]) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let Some(rest) = line.trim().strip_prefix("deb ") else {
            continue;
        };
        if wanted(rest, uris) {
            out.push_str(&format!("deb-src {rest}\n"));
        }
    }
    out
}

/// deb822 style: every enabled stanza of the wanted archives with `Types: deb-src`. A field's continuation lines begin with
/// a blank; comments may stand anywhere.
fn deb822_to_src(text: &str, uris: &[String]) -> String {
    let mut out = String::new();
    for stanza in text.split("\n\n") {
        let lines = stanza
            .lines()
            .filter(|l| !l.starts_with('#') && !l.trim().is_empty());
        let lines: Vec<&str> = lines.collect();
        let field = |name: &str| field_of(&lines, name);
        let off = field("enabled").is_some_and(|v| v.eq_ignore_ascii_case("no"));
        if off || field("types").is_none() || !field("uris").is_some_and(|v| wanted(&v, uris)) {
            continue;
        }
        out.push_str("Types: deb-src\n");
        for line in lines {
            if !line.to_ascii_lowercase().starts_with("types:") {
                out.push_str(line);
                out.push('\n');
            }
        }
        out.push('\n');
    }
    out
}

fn field_of(lines: &[&str], name: &str) -> Option<String> {
    let at = lines.iter().position(|l| {
        l.split_once(':')
            .is_some_and(|(key, _)| key.eq_ignore_ascii_case(name))
    })?;
    let mut value = lines.get(at)?.split_once(':')?.1.trim().to_owned();
    for line in lines
        .iter()
        .skip(at + 1)
        .take_while(|l| l.starts_with([' ', '\t']))
    {
        value.push(' ');
        value.push_str(line.trim());
    }
    Some(value)
}

fn wanted(text: &str, uris: &[String]) -> bool {
    let mut words = text.split_whitespace().map(|w| w.trim_end_matches('/'));
    uris.is_empty() || words.any(|word| uris.iter().any(|uri| uri == word))
}

fn file_ending_in(dir: &Path, end: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(end) {
            return Ok(path);
        }
    }
    bail!("apt-get source left no {end} file in {}", dir.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debian() -> Vec<String> {
        vec!["http://archive.example/debian".to_owned()]
    }

    #[test]
    fn policy_lines_give_archives_but_not_the_local_status_file() {
        let policy = "samba:\n  Installed: 2:4.17\n *** 2:4.17 500\n        500 http://archive.example/debian bookworm/main amd64 Packages\n        100 /var/lib/dpkg/status\n";
        assert_eq!(uris_in_policy(policy), debian());
    }

    #[test]
    fn third_party_archives_are_left_out_of_both_styles() {
        let list = "deb http://archive.example/debian/ bookworm main\ndeb [arch=amd64] http://other.example/x y z\n# deb http://archive.example/debian a b\n";
        assert_eq!(
            list_to_src(list, &debian()),
            "deb-src http://archive.example/debian/ bookworm main\n"
        );
        let deb822 = "Types: deb\nURIs: http://other.example/\nSuites: x\n\n# c\nTypes: deb deb-src\nURIs:\n http://archive.example/debian\nSuites: a b\nSigned-By: /k\n";
        assert_eq!(
            deb822_to_src(deb822, &debian()),
            "Types: deb-src\nURIs:\n http://archive.example/debian\nSuites: a b\nSigned-By: /k\n\n"
        );
    }

    #[test]
    fn disabled_stanzas_stay_disabled() {
        let text = "Types: deb\nEnabled: no\nURIs: http://archive.example/debian\nSuites: a\n";
        assert_eq!(deb822_to_src(text, &debian()), "");
    }
}
