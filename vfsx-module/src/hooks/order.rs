//! Whether `vfsx` stands where it must in `vfs objects`.

/// These change names or turn one operation into others: below vfsx, their work is not seen, or seen under other names.
const BELONG_ABOVE: &[&str] = &[
    "catia",
    "fruit",
    "streams_xattr",
    "streams_depot",
    "recycle",
    "shadow_copy2",
    "virusfilter",
    "crossrename",
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

/// What to say about the stack, whose first entry is the top. Entries may be paths and may have an argument after a colon.
pub fn complaint<'a>(objects: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let names: Vec<&str> = objects.into_iter().map(module_name).collect();
    let here = names.iter().position(|name| *name == "vfsx")?;
    let hidden = names.iter().take(here).filter(|name| BELONG_BELOW.contains(name));
    let translating = names
        .iter()
        .skip(here + 1)
        .filter(|name| BELONG_ABOVE.contains(name));
    let wrong: Vec<&str> = hidden.chain(translating).copied().collect();
    if wrong.is_empty() {
        return None;
    }
    Some(format!(
        "changes are missed or misnamed with this order of vfs objects; set: vfs objects = {}",
        right_order(&names).join(" ")
    ))
}

fn right_order<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let below = |name: &&&str| BELONG_BELOW.contains(*name);
    let others = names.iter().filter(|name| **name != "vfsx");
    let top = others.clone().filter(|name| !below(name));
    let bottom = others.filter(below);
    top.chain(["vfsx"].iter()).chain(bottom).copied().collect()
}

fn module_name(entry: &str) -> &str {
    let file = entry.split(':').next().unwrap_or(entry);
    let file = file.rsplit('/').next().unwrap_or(file);
    file.split('.').next().unwrap_or(file).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recommended_stack_is_silent() {
        let stack = "catia fruit streams_xattr acl_xattr recycle shadow_copy2 virusfilter /opt/vfsx.so btrfs io_uring";
        assert_eq!(complaint(stack.split(' ')), None);
        assert_eq!(complaint(["acl_xattr", "vfsx:arg", "acl_tdb"]), None);
        assert_eq!(complaint(["recycle"]), None, "a stack without vfsx");
    }

    #[test]
    fn the_warning_gives_the_right_order() {
        let said = complaint(["io_uring", "vfsx", "recycle"]).expect("a warning");
        assert!(said.ends_with("vfs objects = recycle vfsx io_uring"), "{said}");
    }
}
