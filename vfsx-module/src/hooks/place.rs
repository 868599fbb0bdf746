//! A name in a directory, as a VFS call gives it.

use super::At;
use crate::os::{self, Found};
use std::ffi::CString;
use std::io;
use std::ops::Range;
use std::os::fd::RawFd;
use vfsx_proto::DirRef;

/// Where a call acts: a name relative to an open directory (or the working directory).
#[derive(Debug, Clone)]
pub struct Place {
    dir: RawFd,
    /// What the call names, relative to `dir`; may have several components, may be absolute.
    path: CString,
    /// Its last component.
    name: Range<usize>,
    /// All of `path` but that; mostly there is nothing.
    parent: Option<CString>,
    hint: Vec<u8>,
}

impl Place {
    /// `dir_path` is what smbd believes `dir` to be: absolute, or relative to the share's root.
    pub fn new(dir: RawFd, dir_path: &[u8], path: &[u8], root: &[u8]) -> io::Result<Self> {
        let trimmed = trim_end_slashes(path);
        let (parent, start) = match trimmed.iter().rposition(|&byte| byte == b'/') {
            Some(0) => (&trimmed[..1], 1),
            Some(at) => (&trimmed[..at], at + 1),
            None => (&trimmed[..0], 0),
        };
        let name = start..trimmed.len();
        if matches!(trimmed.get(start..), None | Some(b"" | b"." | b"..")) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the call names no directory entry",
            ));
        }
        Ok(Self {
            dir,
            path: CString::new(path)?,
            name,
            parent: match parent {
                b"" => None,
                parent => Some(CString::new(parent)?),
            },
            hint: share_path(root, dir_path, parent),
        })
    }

    pub fn name(&self) -> &[u8] {
        self.path.to_bytes().get(self.name.clone()).unwrap_or_default()
    }

    /// Whether both name entries of one directory, as far as can be told without looking.
    pub fn is_in_the_directory_of(&self, other: &Place) -> bool {
        self.dir == other.dir && self.parent == other.parent
    }

    /// Whether this is another name for an open descriptor.
    pub fn is_descriptor(&self) -> bool {
        self.path.to_bytes().starts_with(b"/proc/self/fd/")
    }

    /// Path of the object itself, relative to the share's root.
    pub fn path_hint(&self) -> Vec<u8> {
        if self.hint.is_empty() {
            return self.name().to_vec();
        }
        [self.hint.as_slice(), self.name()].join(&b'/')
    }

    /// Path of the object relative to `root` as the kernel has its directory now; the hint where it has none.
    pub fn current_path(&self, root: &[u8]) -> Vec<u8> {
        let path = self.path.to_bytes();
        if path.starts_with(b"/") {
            return share_path(root, b"", path);
        }
        match os::current_path_of(self.dir) {
            Some(dir) => share_path(root, &dir, path),
            None => self.path_hint(),
        }
    }

    /// The directory, looked up as the kernel does for the call: symlinks on the way are followed.
    pub fn directory(&self) -> io::Result<DirRef> {
        let found = match &self.parent {
            None => os::identify(self.dir),
            Some(parent) => os::identify_at(self.dir, parent, true),
        };
        Ok(DirRef {
            node: found?.node,
            path_hint: self.hint.clone(),
        })
    }

    /// Where the metadata of what the name leads to now can be read.
    pub(super) fn reference(&self) -> At {
        os::open_reference(self.dir, &self.path).map_or(At::Nowhere, At::Reference)
    }

    /// What the name leads to now.
    pub fn find(&self) -> io::Result<Found> {
        os::identify_at(self.dir, &self.path, false)
    }
}

/// `path`, itself relative to `dir_path`, as a path relative to `root`. A path outside of the share stays absolute, which
/// no hint of a thing inside is.
pub fn share_path(root: &[u8], dir_path: &[u8], path: &[u8]) -> Vec<u8> {
    plain_share_path(root, dir_path, path).unwrap_or_else(|| any_share_path(root, dir_path, path))
}

/// What nearly all are: smbd writes the root always in the same way, and nothing is to be left out of the rest.
fn plain_share_path(root: &[u8], dir_path: &[u8], path: &[u8]) -> Option<Vec<u8>> {
    let is_good = |part: &[u8]| part.is_empty() || is_plain(part);
    let inside = match dir_path {
        b"" | b"." => b"",
        dir_path => beneath(root, dir_path)?,
    };
    if !is_good(inside) || !is_good(path) {
        return None;
    }
    let mut joined = Vec::with_capacity(inside.len() + 1 + path.len());
    joined.extend_from_slice(inside);
    if !inside.is_empty() && !path.is_empty() {
        joined.push(b'/');
    }
    joined.extend_from_slice(path);
    Some(joined)
}

fn any_share_path(root: &[u8], dir_path: &[u8], path: &[u8]) -> Vec<u8> {
    let base: &[u8] = if path.starts_with(b"/") { b"" } else { dir_path };
    let absolute = base.starts_with(b"/") || path.starts_with(b"/");
    let all = || components(base).chain(components(path));
    let most = base.len() + 1 + path.len();
    if !absolute {
        return join(Vec::with_capacity(most), all());
    }
    let mut inside = all();
    match components(root).all(|part| inside.next() == Some(part)) {
        true => join(Vec::with_capacity(most), inside),
        false => join(vec![b'/'], all()),
    }
}

/// What is behind `root` and a slash, when both are written in the same way.
fn beneath<'a>(root: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    match path.strip_prefix(root)? {
        b"" => Some(b""),
        inside => inside.strip_prefix(b"/"),
    }
}

/// What nearly all paths are that smbd gives: there are no empty components and no dots to leave out. A path with a hidden name goes the
/// long way, which gives the same.
fn is_plain(path: &[u8]) -> bool {
    let mut last = b'/';
    for &byte in path {
        if last == b'/' && matches!(byte, b'/' | b'.') {
            return false;
        }
        last = byte;
    }
    last != b'/'
}

/// Puts slashes between the components.
fn join<'a>(mut path: Vec<u8>, components: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    for (number, component) in components.enumerate() {
        if number > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(component);
    }
    path
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
}

fn trim_end_slashes(path: &[u8]) -> &[u8] {
    let length = path.iter().rposition(|&byte| byte != b'/').map_or(0, |at| at + 1);
    path.get(..length).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::fd::AsRawFd;

    fn text(root: &str, dir: &str, path: &str) -> String {
        String::from_utf8(share_path(root.as_bytes(), dir.as_bytes(), path.as_bytes())).expect("text")
    }

    #[test]
    fn hints_are_relative_to_the_share_whatever_smbd_gives() {
        assert_eq!(text("/srv/s", "/srv/s/a", "b"), "a/b");
        assert_eq!(text("/srv//s/", "/srv/s", "./b/./c"), "b/c");
        assert_eq!(text("/srv/s", "a", "b"), "a/b");
        assert_eq!(text("/srv/s", ".", "b"), "b");
        assert_eq!(text("/srv/s", "a", "/srv/s/b"), "b");
        assert_eq!(text("/", "/etc", "x"), "etc/x");
        assert_eq!(text("/srv/s", "/srv/s", ""), "");
        for path in ["a/b", "a//b", "a/./b/", "./a/b", "/srv/s/a/b"] {
            for dir in ["", ".", "/srv/s"] {
                assert_eq!(text("/srv/s", dir, path), "a/b", "{dir} {path}");
            }
        }
        assert_eq!(text("/srv/s", "", "a/.b/..c"), "a/.b/..c");
    }

    proptest! {
        #[test]
        fn the_short_way_leads_where_the_long_one_does(root in "/[ab/.]{0,6}", dir in "[ab/.]{0,6}", path in "[ab/.]{0,6}", inside: bool) {
            let dir = if inside { format!("{root}{dir}") } else { dir };
            let (root, dir, path) = (root.as_bytes(), dir.as_bytes(), path.as_bytes());
            if let Some(short) = plain_share_path(root, dir, path) {
                prop_assert_eq!(short, any_share_path(root, dir, path));
            }
        }
    }

    #[test]
    fn a_sibling_with_the_roots_name_as_prefix_is_outside() {
        assert_eq!(text("/srv/s", "/srv/share", "b"), "/srv/share/b");
    }

    #[test]
    fn places_without_an_entry_are_refused() {
        for path in ["", ".", "..", "a/..", "/"] {
            assert!(
                Place::new(libc::AT_FDCWD, b".", path.as_bytes(), b"/srv").is_err(),
                "{path:?}"
            );
        }
    }

    #[test]
    fn directory_and_object_are_found_through_links_on_the_way_but_not_at_the_end() {
        let scratch = tempfile::tempdir().expect("scratch directory");
        let root = scratch.path();
        std::fs::create_dir(root.join("real")).expect("directory");
        std::os::unix::fs::symlink("real", root.join("way")).expect("link");
        std::os::unix::fs::symlink("nowhere", root.join("real/end")).expect("link");
        let open = std::fs::File::open(root).expect("open");
        let root = std::os::unix::ffi::OsStrExt::as_bytes(root.as_os_str());
        let place = Place::new(open.as_raw_fd(), root, b"way/end", root).expect("place");
        let real = Place::new(open.as_raw_fd(), root, b"real", root)
            .expect("place")
            .find()
            .expect("found");
        assert_eq!(place.directory().expect("directory").node, real.node);
        assert_eq!(place.find().expect("found").kind, vfsx_proto::NodeKind::Symlink);
        assert_eq!(place.path_hint(), b"way/end");
        assert_eq!(place.name(), b"end");
    }
}
