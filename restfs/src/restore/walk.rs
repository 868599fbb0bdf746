//! Goes through the tree, depth first, and creates names. A directory gets its properties when all its names are
//! there; content of files is written by others meanwhile, which does not touch their directories.

use super::content::FileJob;
use super::folder::{Folder, checked};
use super::frame::Frame;
use super::metadata::{self, Target};
use super::report::Counted;
use super::source::{Entry, Page};
use super::{Done, Job, RestoreError, SourceError, Trouble};
use restfs_lib::model::{Kind, Object, ObjectId};
use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::sync::mpsc::SyncSender;

/// Entries asked for at a time.
const PAGE: usize = 1000;
/// Directories from the destination down that are kept open; deeper ones are opened again when needed. Processes
/// commonly may have 1,024 open files.
const KEEP_OPEN: usize = 128;
/// Deeper trees are taken for an endless one. Paths that Samba can use have at most 2,048 components.
const MAX_DEPTH: usize = 4096;
/// Longest path in bytes of a directory that is gone into: eight times what a system call takes. Those of all directories on the way are
/// in memory, so this and the depth bound that to 128 MiB.
const MAX_PATH: usize = 32 * 1024;

pub(super) struct Walk<'a> {
    job: Job<'a>,
    /// `None`: only counting.
    root: Option<&'a Folder>,
    files: SyncSender<FileJob>,
    frames: Vec<Frame>,
    /// Every directory on the way, as (where its own directory is here, its name). The first is the destination.
    places: Vec<(usize, Box<[u8]>)>,
    directories: HashSet<ObjectId>,
    /// Where the first name of each other object is. Any of them may get a second one.
    first_names: HashMap<ObjectId, (usize, Box<[u8]>)>,
    /// Directories that, once they have their mode, we could not reach through any more for a hard link.
    closed: Vec<Frame>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        job: Job<'a>,
        root: Option<&'a Folder>,
        files: SyncSender<FileJob>,
        path: &[u8],
        top: ObjectId,
        object: Object,
    ) -> Done<Self> {
        let path = without_end_slashes(path);
        let is_directory = matches!(object.kind, Kind::Directory);
        let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], path),
        };
        let folder = root
            .map(Folder::try_clone)
            .transpose()
            .map_err(|e| Trouble::from_io(path, "opening", e))?;
        let mut walk = Self {
            job,
            root,
            files,
            frames: Vec::new(),
            places: vec![(0, Box::default())],
            directories: HashSet::new(),
            first_names: HashMap::new(),
            closed: Vec::new(),
        };
        walk.frames.push(match is_directory {
            true => {
                walk.directories.insert(top);
                job.report.count(Counted::Directory);
                Frame::directory(top, object, 0, path.to_vec(), folder)
            }
            false => {
                let entry = Entry {
                    name: name.to_vec(),
                    child: top,
                    object,
                };
                Frame::single(entry, above.to_vec(), folder)
            }
        });
        Ok(walk)
    }

    pub(super) fn run(mut self) -> Done<()> {
        while !self.frames.is_empty() && !self.job.report.is_stopped() {
            match self.next_entry() {
                Ok(Some(entry)) => {
                    let mut path = self.top().path.clone();
                    path.push(b'/');
                    path.extend_from_slice(&entry.name);
                    let done = self.entry(entry, &path);
                    self.note(&path, done)?;
                }
                Ok(None) => self.leave()?,
                Err(trouble) => {
                    let path = self.top().path.clone();
                    self.note(&path, Err(trouble))?;
                    self.top_mut().more = false;
                }
            }
        }
        self.finish_closed()
    }

    /// A problem is written down, a stop passed on.
    fn note(&self, path: &[u8], done: Done<()>) -> Done<()> {
        match done {
            Err(Trouble::Problem(text)) => {
                self.job.report.problem(path, text);
                Ok(())
            }
            done => done,
        }
    }

    fn next_entry(&mut self) -> Done<Option<Entry>> {
        let source = self.job.source;
        let frame = self.top_mut();
        if let (true, true, Some((dir, _))) = (frame.entries.is_empty(), frame.more, &frame.dir) {
            let Page { items, more } = source.entries(*dir, frame.after.as_deref(), PAGE)?;
            // Also what ends a list that would go round for ever.
            let names = frame
                .after
                .iter()
                .map(Vec::as_slice)
                .chain(items.iter().map(|e| e.name.as_slice()));
            if !names.is_sorted_by(|a, b| a < b) || (more && items.is_empty()) {
                return Err(Trouble::Problem("its list of names is out of order".to_owned()));
            }
            frame.after = items.last().map(|entry| entry.name.clone());
            frame.entries = items.into();
            frame.more = more;
        }
        Ok(frame.entries.pop_front())
    }

    fn entry(&mut self, entry: Entry, path: &[u8]) -> Done<()> {
        checked(&entry.name).map_err(|e| Trouble::Problem(e.to_string()))?;
        if matches!(entry.object.kind, Kind::Directory) {
            return self.enter(entry, path);
        }
        match self.first_names.get(&entry.child).cloned() {
            Some((place, first)) => self.link(&entry.name, place, &first, path),
            None => {
                self.create(&entry, path)?;
                let place = self.top().place;
                self.first_names
                    .insert(entry.child, (place, entry.name.into_boxed_slice()));
                Ok(())
            }
        }
    }

    fn enter(&mut self, Entry { name, child, object }: Entry, path: &[u8]) -> Done<()> {
        if self.frames.len() >= MAX_DEPTH {
            return Err(Trouble::Problem(format!(
                "directories deeper than {MAX_DEPTH} are not restored"
            )));
        }
        if path.len() > MAX_PATH {
            return Err(Trouble::Problem(format!(
                "directories with paths of more than {MAX_PATH} bytes are not restored"
            )));
        }
        if !self.directories.insert(child) {
            return Err(Trouble::Problem(
                "the directory has another name already; skipped".to_owned(),
            ));
        }
        let replace = self.job.replace;
        let made = match self.folder()? {
            Some(folder) => Some(
                folder
                    .make_folder(&name, replace)
                    .map_err(|e| Trouble::from_io(path, "creating the directory", e))?,
            ),
            None => None,
        };
        self.job.report.count(Counted::Directory);
        let place = self.places.len();
        self.places.push((self.top().place, name.into_boxed_slice()));
        if self.frames.len() > KEEP_OPEN {
            self.top_mut().folder = None;
        }
        self.frames
            .push(Frame::directory(child, object, place, path.to_vec(), made));
        Ok(())
    }

    /// All names of the topmost directory are there.
    fn leave(&mut self) -> Done<()> {
        let opened = self.folder().map(|_| ());
        let Some(mut frame) = self.frames.pop() else {
            return Ok(());
        };
        self.note(&frame.path, opened)?;
        if frame.closes_itself() {
            frame.folder = None;
            self.closed.push(frame);
            return Ok(());
        }
        self.finish(&frame)
    }

    /// In the order in which they were left: what is in a directory before itself.
    fn finish_closed(&mut self) -> Done<()> {
        for mut frame in std::mem::take(&mut self.closed) {
            match self
                .root
                .map(|root| self.open_place(root, frame.place))
                .transpose()
            {
                Ok(folder) => frame.folder = folder,
                Err(error) => {
                    let trouble = Trouble::from_io(&frame.path, "opening it again", error);
                    self.note(&frame.path, Err(trouble))?;
                }
            }
            self.finish(&frame)?;
        }
        Ok(())
    }

    fn finish(&self, frame: &Frame) -> Done<()> {
        let (Some((id, object)), Some(folder)) = (&frame.dir, &frame.folder) else {
            return Ok(());
        };
        let applied = metadata::apply(self.job, &frame.path, Target::Open(folder.as_fd()), *id, object);
        self.note(&frame.path, applied)
    }

    fn link(&mut self, name: &[u8], place: usize, first: &[u8], path: &[u8]) -> Done<()> {
        if let Some(root) = self.root {
            let job = self.job;
            let failed = |e| Trouble::from_io(path, "creating the hard link", e);
            let first_folder = self.open_place(root, place).map_err(failed)?;
            if let Some(folder) = self.folder()? {
                job.make_way(folder, name).map_err(failed)?;
                folder.make_link(name, &first_folder, first).map_err(failed)?;
            }
        }
        self.job.report.count(Counted::HardLink);
        Ok(())
    }

    fn create(&mut self, entry: &Entry, path: &[u8]) -> Done<()> {
        let Entry { name, child, object } = entry;
        let job = self.job;
        let counted = match object.kind {
            Kind::File => Counted::File(object.size),
            Kind::Symlink { .. } => Counted::Symlink,
            _ => Counted::Special,
        };
        if let Some(folder) = self.folder()? {
            job.make_way(folder, name)
                .map_err(|e| Trouble::from_io(path, "replacing what is there", e))?;
            let failed = |e| Trouble::from_io(path, "creating it", e);
            if matches!(object.kind, Kind::File) {
                let file = folder.make_file(name).map_err(failed)?;
                let file = FileJob {
                    file,
                    id: *child,
                    object: object.clone(),
                    path: path.to_vec(),
                };
                self.files.send(file).map_err(|_| workers_gone())?;
            } else {
                folder.make_special(name, &object.kind).map_err(failed)?;
                let handle = folder.handle(name).map_err(failed)?;
                metadata::apply(job, path, Target::Place(handle.as_fd()), *child, object)?;
            }
        }
        job.report.count(counted);
        Ok(())
    }

    /// The topmost directory, opened again if it was closed; `None` when only counting.
    fn folder(&mut self) -> Done<Option<&Folder>> {
        if let (None, Some(root)) = (&self.top().folder, self.root) {
            let top = self.top();
            let opened = self.open_place(root, top.place);
            let opened = opened.map_err(|e| Trouble::from_io(&top.path, "opening it again", e))?;
            self.top_mut().folder = Some(opened);
        }
        Ok(self.top().folder.as_ref())
    }

    fn open_place(&self, root: &Folder, place: usize) -> std::io::Result<Folder> {
        let mut names = Vec::new();
        let mut at = place;
        while let (true, Some((above, name))) = (at != 0, self.places.get(at)) {
            names.push(name);
            at = *above;
        }
        let mut folder = root.try_clone()?;
        for name in names.into_iter().rev() {
            folder = folder.open_folder(name)?;
        }
        Ok(folder)
    }

    fn top(&self) -> &Frame {
        self.frames
            .last()
            .expect("there is a directory while the walk runs")
    }

    fn top_mut(&mut self) -> &mut Frame {
        self.frames
            .last_mut()
            .expect("there is a directory while the walk runs")
    }
}

impl Job<'_> {
    /// Removes what has the name already, when that was asked for.
    fn make_way(&self, folder: &Folder, name: &[u8]) -> std::io::Result<()> {
        if self.replace { folder.remove(name) } else { Ok(()) }
    }
}

/// The workers end only when the walk has.
fn workers_gone() -> Trouble {
    Trouble::Stop(RestoreError::Source(SourceError::Failed(
        "the threads that write content have ended".to_owned(),
    )))
}

fn without_end_slashes(path: &[u8]) -> &[u8] {
    let end = path
        .iter()
        .rposition(|byte| *byte != b'/')
        .map_or(0, |last| last + 1);
    &path[..end]
}
