//! A directory on the way of the walk.

use super::folder::Folder;
use super::source::Entry;
use restfs_lib::model::{Object, ObjectId};
use std::collections::VecDeque;

/// A directory whose names are being created.
pub(super) struct Frame {
    /// `None`: the destination when one file is restored into it.
    pub(super) dir: Option<(ObjectId, Object)>,
    pub(super) place: usize,
    pub(super) path: Vec<u8>,
    pub(super) folder: Option<Folder>,
    pub(super) entries: VecDeque<Entry>,
    pub(super) after: Option<Vec<u8>>,
    pub(super) more: bool,
}

impl Frame {
    pub(super) fn directory(
        id: ObjectId,
        object: Object,
        place: usize,
        path: Vec<u8>,
        folder: Option<Folder>,
    ) -> Self {
        let dir = Some((id, object));
        Self {
            dir,
            place,
            path,
            folder,
            entries: VecDeque::new(),
            after: None,
            more: true,
        }
    }

    /// Root gets through every directory.
    pub(super) fn closes_itself(&self) -> bool {
        let open = |(_, object): &(ObjectId, Object)| object.mode & 0o700 == 0o700;
        !rustix::process::geteuid().is_root() && !self.dir.as_ref().is_none_or(open)
    }

    pub(super) fn single(entry: Entry, path: Vec<u8>, folder: Option<Folder>) -> Self {
        Self {
            dir: None,
            place: 0,
            path,
            folder,
            entries: VecDeque::from([entry]),
            after: None,
            more: false,
        }
    }
}
