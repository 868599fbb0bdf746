//! Whether `vfsx` stands where it must in `vfs objects`, and the others where they must for what it is to see.

/// These change names or turn one operation into others: below vfsx, their work is not seen, or seen under other names.
const BELONG_ABOVE: &[&str] = &[
    "catia",
    "cap",
    "fruit",
    "streams_xattr",
    "streams_depot",
    "recycle",
    "shadow_copy2",
    "snapper",
    "ceph_snapshots",
    "virusfilter",
    "crossrename",
    "media_harmony",
    "unityed_media",
];
/// These end an operation without asking the next module: above vfsx, they hide it.
const BELONG_BELOW: &[&str] = &[
    "io_uring",
    "aio_pthread",
    "aio_fork",
    "btrfs",
    "ceph",
    "ceph_new",
    "glusterfs",
    "glusterfs_fuse",
    "gpfs",
];
/// The order of those that have one among themselves.
const TOP: &[&str] = &["catia", "fruit", "streams_xattr", "streams_depot", "virusfilter"];
/// The first has to be asked before the second: the manual pages of `vfs_fruit` and `vfs_virusfilter`.
const PAIRS: &[(&str, &str)] = &[
    ("catia", "fruit"),
    ("fruit", "streams_xattr"),
    ("fruit", "streams_depot"),
    ("streams_xattr", "virusfilter"),
    ("streams_depot", "virusfilter"),
];
/// These keep things in databases of their own, wherever they stand.
const ELSEWHERE: &[(&str, &str)] = &[
    ("acl_tdb", "NT ACLs (acl_xattr keeps them with the files)"),
    ("xattr_tdb", EXTENDED),
    ("posix_eadb", EXTENDED),
];
const EXTENDED: &str =
    "extended attributes, and so DOS attributes, NT ACLs of acl_xattr and streams of streams_xattr,";

/// What to say about the stack, whose first entry is the top. Entries may be paths and may have an argument after a colon.
pub fn complaints<'a>(objects: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let entries: Vec<&str> = objects.into_iter().collect();
    let names: Vec<&str> = entries.iter().map(|entry| module_name(entry)).collect();
    let Some(here) = names.iter().position(|name| *name == "vfsx") else {
        return Vec::new();
    };
    let (above, below) = (names.get(..here), names.get(here + 1..));
    let of = |part: Option<&[&'a str]>, list: &[&str]| -> Vec<&'a str> {
        let part = part.unwrap_or_default().iter().copied();
        part.filter(|name| list.contains(name)).collect()
    };
    let mut wrong = Vec::new();
    let hiding = of(above, BELONG_BELOW);
    if !hiding.is_empty() {
        wrong.push(format!("{} before vfsx: changes are missed", hiding.join(" ")));
    }
    let changing = of(below, BELONG_ABOVE);
    if !changing.is_empty() {
        wrong.push(format!(
            "{} behind vfsx: changes are missed or misnamed",
            changing.join(" ")
        ));
    }
    let place = |module: &str| names.iter().position(|name| *name == module);
    let turned = PAIRS.iter().filter(|(first, second)| {
        place(first)
            .zip(place(second))
            .is_some_and(|(first, second)| first > second)
    });
    wrong.extend(turned.map(|(first, second)| format!("{first} has to stand before {second}")));

    let mut said = Vec::new();
    if !wrong.is_empty() {
        said.push(format!(
            "wrong order of vfs objects: {}; set: vfs objects = {}",
            wrong.join("; "),
            right_order(&entries).join(" ")
        ));
    }
    let elsewhere = ELSEWHERE.iter().filter(|(module, _)| names.contains(module));
    said.extend(elsewhere.map(|(module, what)| {
        format!("{module} keeps {what} in a database of this server and not on the share's files: they are not replicated")
    }));
    said
}

fn right_order<'a>(entries: &[&'a str]) -> Vec<&'a str> {
    let others = || {
        entries
            .iter()
            .copied()
            .filter(|entry| module_name(entry) != "vfsx")
    };
    let is_below = |entry: &&str| BELONG_BELOW.contains(&module_name(entry));
    let mut top: Vec<&str> = others().filter(|entry| !is_below(entry)).collect();
    let rank = |entry: &str| TOP.iter().position(|name| *name == module_name(entry));
    let mut ranked: Vec<&str> = top
        .iter()
        .copied()
        .filter(|entry| rank(entry).is_some())
        .collect();
    ranked.sort_by_key(|entry| rank(entry));
    // They change places among themselves; all others stay where they are.
    let places = top.iter_mut().filter(|entry| rank(entry).is_some());
    for (place, entry) in places.zip(ranked) {
        *place = entry;
    }
    let here = entries
        .iter()
        .copied()
        .filter(|entry| module_name(entry) == "vfsx");
    top.into_iter()
        .chain(here)
        .chain(others().filter(is_below))
        .collect()
}

fn module_name(entry: &str) -> &str {
    let file = entry.split(':').next().unwrap_or(entry);
    let file = file.rsplit('/').next().unwrap_or(file);
    file.split('.').next().unwrap_or(file).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(stack: &str) -> Vec<String> {
        complaints(stack.split(' '))
    }

    #[test]
    fn the_recommended_stack_is_silent() {
        let stack = "catia fruit streams_xattr acl_xattr recycle shadow_copy2 virusfilter /opt/vfsx.so btrfs io_uring";
        let none: [&str; 0] = [];
        assert_eq!(said(stack), none);
        assert_eq!(said("acl_xattr vfsx:arg full_audit"), none);
        assert_eq!(said("vfsx io_uring"), none);
        assert_eq!(said("recycle"), none, "a stack without vfsx");
    }

    #[test]
    fn the_warning_gives_the_right_order() {
        for (stack, right) in [
            ("io_uring vfsx recycle", "recycle vfsx io_uring"),
            ("vfsx:arg /opt/cap.so", "/opt/cap.so vfsx:arg"),
            ("vfsx media_harmony", "media_harmony vfsx"),
            ("vfsx unityed_media", "unityed_media vfsx"),
            ("vfsx snapper btrfs", "snapper vfsx btrfs"),
            ("ceph vfsx ceph_snapshots", "ceph_snapshots vfsx ceph"),
            (
                "streams_xattr acl_xattr fruit catia vfsx",
                "catia acl_xattr fruit streams_xattr vfsx",
            ),
            ("virusfilter streams_depot vfsx", "streams_depot virusfilter vfsx"),
        ] {
            let said = said(stack);
            let [line] = &said[..] else {
                panic!("{stack}: {said:?}")
            };
            let end = format!("; set: vfs objects = {right}");
            assert!(line.ends_with(&end), "{stack}: {line}");
            let silent = complaints(right.split(' '));
            assert!(silent.is_empty(), "{right}: {silent:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let said = said("io_uring streams_xattr fruit vfsx recycle");
        let parts = [
            "io_uring before vfsx",
            "recycle behind vfsx",
            "fruit has to stand before streams_xattr",
        ];
        for part in parts {
            assert!(said.iter().any(|line| line.contains(part)), "{part}: {said:?}");
        }
    }

    #[test]
    fn what_is_kept_elsewhere_is_said_wherever_the_module_stands() {
        for (stack, what) in [
            ("acl_tdb vfsx", "acl_tdb keeps NT ACLs"),
            ("vfsx acl_tdb", "acl_tdb keeps NT ACLs"),
            (
                "streams_xattr xattr_tdb vfsx",
                "xattr_tdb keeps extended attributes",
            ),
            ("vfsx posix_eadb", "posix_eadb keeps extended attributes"),
        ] {
            let said = said(stack);
            let [line] = &said[..] else {
                panic!("{stack}: {said:?}")
            };
            assert!(
                line.starts_with(what) && line.ends_with("not replicated"),
                "{line}"
            );
        }
    }
}
