//! Operations on names become namespace events.

use super::{At, Capture, Outcome, Place};
use crate::os::{self, Found};
use std::io;
use std::os::fd::RawFd;
use vfsx_proto::{Changed, DirRef, Event, GapReason, NodeKind, NodeRef};

/// A name as it was before the call. Directory and object are identified then: afterwards another client may have renamed
/// the one, and the other may be gone.
#[derive(Debug)]
pub struct Name {
    place: Place,
    dir: io::Result<DirRef>,
    before: Option<Found>,
}

impl Name {
    /// Of a call that removes or replaces what is there.
    pub fn look(place: Place) -> Self {
        let before = place.find().ok();
        Self {
            before,
            ..Self::of(place)
        }
    }

    /// The same beside another name of the same call: mostly in the same directory.
    pub fn look_beside(place: Place, other: &Name) -> Self {
        match &other.dir {
            Ok(dir) if place.is_in_the_directory_of(&other.place) => Self {
                before: place.find().ok(),
                dir: Ok(dir.clone()),
                place,
            },
            _ => Self::look(place),
        }
    }

    /// The name of an open descriptor, not of a directory entry.
    pub fn is_descriptor(&self) -> bool {
        self.place.is_descriptor()
    }

    /// Of a call that makes a new name.
    pub fn of(place: Place) -> Self {
        Self {
            dir: place.directory(),
            place,
            before: None,
        }
    }
}

impl Capture {
    /// openat with `O_CREAT`: `fd` is what it returned. vfsxd takes a second Create of a known name and object as none. Gives the regular file that it is.
    pub fn opened_creating(&mut self, name: Name, fd: RawFd, errno: i32) -> Option<NodeRef> {
        match Outcome::of(fd.into(), errno) {
            Outcome::Done => {
                let found = os::identify(fd);
                let is_file = |found: &&Found| found.kind == NodeKind::File;
                let file = found.as_ref().ok().filter(is_file).map(|found| found.node);
                self.create(name, found, |_| At::Descriptor(fd));
                file
            }
            Outcome::Refused => None,
            Outcome::Unknown => {
                // A module below creates it later, outside of all calls.
                if errno == libc::EINPROGRESS {
                    self.never_copy("a module below opens files in threads");
                }
                self.look(name);
                None
            }
        }
    }

    /// mkdirat, symlinkat, mknodat, create_dfs_pathat.
    pub fn created(&mut self, name: Name, outcome: Outcome) {
        match outcome {
            Outcome::Done => {
                let found = name.place.find();
                self.create(name, found, Place::reference);
            }
            Outcome::Refused => {}
            Outcome::Unknown => self.look(name),
        }
    }

    /// linkat; `source` is what the old name led to before.
    pub fn linked(&mut self, source: Option<Found>, name: Name, outcome: Outcome) {
        match (outcome, source.or_else(|| name.place.find().ok()), &name.dir) {
            (Outcome::Done, Some(found), Ok(dir)) => {
                let (dir, name) = (dir.clone(), name.place.name().to_vec());
                self.report(Event::Link {
                    dir,
                    name,
                    node: found.node,
                });
            }
            (Outcome::Refused, ..) => {}
            _ => self.look(name),
        }
    }

    pub fn unlinked(&mut self, name: Name, outcome: Outcome) {
        match (outcome, name.before, &name.dir) {
            (Outcome::Done, Some(found), Ok(dir)) => {
                let (dir, name) = (dir.clone(), name.place.name().to_vec());
                self.report(Event::Unlink {
                    dir,
                    name,
                    node: found.node,
                });
            }
            (Outcome::Refused, ..) => {}
            _ => self.look(name),
        }
    }

    pub fn renamed(&mut self, from: Name, to: Name, outcome: Outcome) {
        let same_object = from.before.is_some() && from.before.map(|f| f.node) == to.before.map(|f| f.node);
        match (outcome, from.before, &from.dir, &to.dir) {
            (Outcome::Refused, ..) => {}
            // Two hard links of one object: rename(2) leaves both names, unless they differ in case only on a file system that
            // does not tell case.
            (Outcome::Done, Some(found), Ok(from_dir), Ok(to_dir)) if !same_object => {
                self.report(Event::Rename {
                    from: from_dir.clone(),
                    from_name: from.place.name().to_vec(),
                    to: to_dir.clone(),
                    to_name: to.place.name().to_vec(),
                    node: found.node,
                    replaced: to.before.map(|f| f.node),
                });
            }
            _ => {
                self.look(from);
                self.look(to);
            }
        }
    }

    /// Metadata by name: lchown, and streams, which are attributes of the object that the name leads to.
    pub fn touched_name(&mut self, place: &Place, changed: Changed) {
        if let Ok(found) = place.find() {
            self.touch(found.node, At::Nowhere, || place.path_hint(), changed);
        }
    }

    /// At once, even inside of another call: until it is noted, a kill of smbd loses it. Where no outbox keeps it, it is sent, too; but while
    /// data is told only with the rest of the call: vfsxd sees when one was cut short.
    fn report(&mut self, event: Event) {
        self.client.note(event);
        self.unwaited = true;
        if !self.copying || self.depth == 0 {
            self.send();
        }
    }

    /// `at`: where its metadata can be read.
    fn create(&mut self, name: Name, found: io::Result<Found>, at: impl FnOnce(&Place) -> At) {
        match (found, &name.dir) {
            (Ok(Found { node, kind, .. }), Ok(dir)) => {
                let (dir, place) = (dir.clone(), &name.place);
                if self.copying && matches!(kind, NodeKind::File | NodeKind::Directory) {
                    self.describe(node, at(place), || place.path_hint());
                }
                let name = place.name().to_vec();
                self.report(Event::Create {
                    dir,
                    name,
                    node,
                    kind,
                });
            }
            _ => self.look(name),
        }
    }

    fn look(&mut self, name: Name) {
        match name.dir {
            Ok(dir) => self.report(Event::Look {
                dir,
                name: name.place.name().to_vec(),
            }),
            // A directory that was not there has no names that could have changed.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(_) => self.client.gap(GapReason::Unrepresentable),
        }
    }
}
