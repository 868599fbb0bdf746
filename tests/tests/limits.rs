//! The table of bounds (`docs/limits.md`) names what is there.

use std::fs;
use std::path::Path;

/// Of a section's heading, in its order: where its files are.
const SOURCES: [(&str, &str); 4] = [
    ("## The module", "vfsx-module/src"),
    ("## vfsxd", "vfsx-daemon/src"),
    ("To each site", "dr-replicator/src"),
    ("## restfs", "restfs/src"),
];

/// What stands between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn each_bound_with_a_file_is_in_that_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let table = fs::read_to_string(root.join("docs/limits.md")).expect("reads");
    let (mut source, mut checked) = ("", 0);
    for line in table.lines() {
        if let Some((_, found)) = SOURCES.iter().find(|(heading, _)| line.starts_with(heading)) {
            source = found;
        }
        let Some(names) = line.split(" | ").nth(2) else {
            continue;
        };
        let mut waiting = Vec::new();
        for word in quoted(names) {
            if !word.ends_with(".rs") {
                waiting.push(word);
                continue;
            }
            let in_other = root.join(word);
            let file = match in_other.exists() {
                true => in_other,
                false => root.join(source).join(word),
            };
            let text =
                fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}: {line}", file.display()));
            // An option stands before a constant now and then.
            for name in waiting.drain(..).filter(|name| !name.contains([':', '.', ' '])) {
                let is_there = ["const ", "pub "]
                    .iter()
                    .any(|kind| text.contains(&format!("{kind}{name}:")));
                assert!(is_there, "{} has no {name}: {line}", file.display());
                checked += 1;
            }
        }
    }
    assert!(checked > 40, "only {checked} names were found in the table");
}
