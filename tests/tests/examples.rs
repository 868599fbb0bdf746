//! What the documentation shows works.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use vfsx_tests::lab::Binaries;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is in the workspace")
        .to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn smb_conf_example_passes_testparm() {
    let output = Command::new("testparm")
        .arg("-s")
        .arg(root().join("smb.conf.example"))
        .output();
    let output = output.expect("testparm runs: `apt-get install samba-common-bin`");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // Those that Samba works in are made at boot, or when it is installed: nothing that the example says.
    let own = |line: &&str| !(line.contains("directory") && line.ends_with("does not exist"));
    for line in said.lines().filter(own) {
        for word in ["Unknown", "Ignoring", "ERROR", "WARNING"] {
            assert!(!line.contains(word), "{said}");
        }
    }
}

#[test]
fn smb_conf_example_has_every_option_of_the_module_and_no_other() {
    // The module's own documentation of its options: "`vfsx:NAME`: what it is".
    let config = read("vfsx-module/src/config.rs");
    let known: BTreeSet<_> = config
        .lines()
        .filter_map(|line| line.trim().strip_prefix("/// `vfsx:")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect();
    let example = read("smb.conf.example");
    let shown: BTreeSet<_> = example
        .lines()
        .filter_map(|line| line.trim().strip_prefix("vfsx:")?.split_once('='))
        .map(|(name, _)| name.trim().to_owned())
        .collect();
    assert!(
        known.len() > 1,
        "the module's options are not found in its source any more: {known:?}"
    );
    assert_eq!(shown, known);
}

/// The example with the lab's places instead of the system's must be one that the program starts with.
#[test]
fn vfsxd_takes_the_example_configuration() {
    let scratch = tempfile::tempdir().expect("scratch directory");
    let dir = scratch.path();
    let share = dir.join("srv/data");
    fs::create_dir_all(&share).expect("share");
    fs::create_dir_all(dir.join("etc/vfsx")).expect("configuration directory");
    fs::write(dir.join("etc/vfsx/site-b.token"), "restfs_0_0\n").expect("token");
    let certificate = [
        "req",
        "-x509",
        "-newkey",
        "ed25519",
        "-nodes",
        "-subj",
        "/CN=x",
        "-keyout",
        "/dev/null",
        "-out",
    ];
    let made = Command::new("openssl")
        .args(certificate)
        .arg(dir.join("etc/vfsx/site-b.pem"))
        .output();
    assert!(
        made.expect("openssl runs: `apt-get install openssl`")
            .status
            .success()
    );
    let mut text = read("packaging/vfsxd.toml").replace("# limit", "limit");
    for place in ["/srv", "/etc", "/var", "/run"] {
        text = text.replace(&format!("\"{place}/"), &format!("\"{}{place}/", dir.display()));
    }
    let config = dir.join("vfsxd.toml");
    fs::write(&config, text).expect("configuration");
    let binaries = Binaries::of_this_test().expect("programs");
    let output = Command::new(binaries.vfsxd)
        .arg("--check")
        .arg("--config")
        .arg(&config)
        .output()
        .expect("vfsxd runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn restfs_takes_the_example_configuration() {
    let scratch = tempfile::tempdir().expect("scratch directory");
    let config = scratch.path().join("restfs.toml");
    let text = read("packaging/restfs.toml").replace("/var/lib/restfs", "data");
    fs::write(&config, text).expect("configuration");
    let binaries = Binaries::of_this_test().expect("programs");
    let output = Command::new(binaries.restfs)
        .args(["bucket", "list", "--config"])
        .arg(&config)
        .output();
    let output = output.expect("restfs runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// `FILE`: `TEST`, `TEST`; a file or a folder by its bare name is among the end to end suites. Every row names a test.
#[test]
fn every_test_that_the_fault_table_names_is_in_the_file_that_it_names() {
    let page = read("docs/faults.md");
    let rows: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| fault |"))
        .collect();
    assert!(
        rows.len() > 15,
        "the table is not found any more: {} rows",
        rows.len()
    );
    for row in rows {
        let (mut file, mut named) = ("no file", 0);
        // Between quotes: every second piece.
        for word in row.split('`').skip(1).step_by(2) {
            if is_source(word) {
                file = word;
            } else if word.matches('_').count() >= 3 {
                let test = format!("fn {word}(");
                let is_there = sources(file).iter().any(|text| text.contains(&test));
                assert!(is_there, "{word} is not in {file}: {row}");
                named += 1;
            }
        }
        assert!(named > 0, "no test is named: {row}");
    }
}

fn is_source(word: &str) -> bool {
    word.contains('/') || word.ends_with(".rs") || root().join(suite(word)).is_dir()
}

fn suite(name: &str) -> String {
    format!("tests/tests/{name}")
}

fn sources(file: &str) -> Vec<String> {
    let path = match file.contains('/') {
        true => file.to_owned(),
        false => suite(file),
    };
    match fs::read_dir(root().join(&path)) {
        Ok(entries) => entries
            .flatten()
            .map(|entry| fs::read_to_string(entry.path()).expect("a source"))
            .collect(),
        Err(_) => vec![read(&path)],
    }
}

#[test]
fn links_in_the_documentation_lead_somewhere() {
    let mut pages = vec![PathBuf::from("README.md")];
    for dir in ["docs", "docs/formats"] {
        let entries = fs::read_dir(root().join(dir)).unwrap_or_else(|error| panic!("{dir}: {error}"));
        let names = entries
            .flatten()
            .map(|entry| Path::new(dir).join(entry.file_name()));
        pages.extend(names.filter(|name| name.extension().is_some_and(|extension| extension == "md")));
    }
    for page in &pages {
        let text = fs::read_to_string(root().join(page)).expect("a page that was just listed");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            let outside = link.contains("://") || target.is_empty();
            let path = root().join(page).with_file_name("").join(target);
            assert!(
                outside || path.exists(),
                "{} links to {link}, which does not exist",
                page.display()
            );
        }
    }
}
