//! Operations on a file's content become `Opened`, `Write`, `Resized`, `Dirty`, `Flushed`, `Closed`.

use super::ranges::{Ranges, Span};
use super::{At, Capture};
use crate::os;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};
use vfsx_proto::{Changed, Event, NodeKind, NodeRef, Range};

/// Longest time that a written range is held back. Bounds the age of what a site has of a file that stays open for days.
pub const AGE: Duration = Duration::from_secs(1);

/// A handle of an SMB client that has written, from its first write to its close.
#[derive(Debug)]
pub(super) struct WrittenFile {
    pub(super) node: NodeRef,
    path_hint: Vec<u8>,
    ranges: Ranges,
    /// When the first range still held back was written.
    since: Option<Instant>,
    /// Writes that smbd's threads may still be doing.
    running: u32,
    /// Closed while writes were running, or after some were abandoned: never reported as closed, so that vfsxd reads the
    /// file once this process has ended, and its threads with it.
    abandoned: bool,
    /// Writes go to the end of the file, wherever the client wants them.
    pub(super) appends: bool,
}

/// Where a file is open.
#[derive(Debug, Clone, Copy)]
pub struct Descriptor {
    pub fd: RawFd,
    /// The regular file that it leads to, if that is known.
    pub file: Option<NodeRef>,
}

impl Descriptor {
    pub fn unknown(fd: RawFd) -> Self {
        Self { fd, file: None }
    }
}

/// What is known of a write before it begins.
#[derive(Debug, Clone, Copy)]
pub struct Planned<'a> {
    pub span: Span,
    /// All that is to be written, if that is known.
    pub data: Option<&'a [u8]>,
}

/// A write that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Going {
    /// By which vfsxd knows the open file.
    pub handle: u64,
    /// Among those that are kept track of; 0: it is not.
    pub(super) number: u64,
}

impl Going {
    /// Of which vfsxd hears when it has ended.
    pub fn untracked(handle: u64) -> Self {
        Self { handle, number: 0 }
    }
}

impl Capture {
    /// Before something changes a file's content: if it is the first time on this handle, `Opened` is noted before it starts.
    /// `None` when the descriptor is no regular file.
    pub fn writing(
        &mut self,
        known: Option<u64>,
        descriptor: Descriptor,
        path_hint: impl FnOnce() -> Vec<u8>,
    ) -> Option<u64> {
        let (handle, new) = self.open(known, descriptor, path_hint)?;
        if new {
            self.send();
        }
        Some(handle)
    }

    /// The same before a write. vfsxd is told of it before it starts, where it wants to know.
    pub fn begin_write(
        &mut self,
        known: Option<u64>,
        descriptor: Descriptor,
        path_hint: impl FnOnce() -> Vec<u8>,
        planned: Planned<'_>,
    ) -> Option<Going> {
        let (handle, new) = self.open(known, descriptor, path_hint)?;
        let number = self.keep_track(handle, descriptor.fd, planned);
        if new || self.copying && number != 0 {
            self.send();
        }
        Some(Going { handle, number })
    }

    /// The handle of an open file that is written, and whether it is new; then `Opened` is noted.
    fn open(
        &mut self,
        known: Option<u64>,
        Descriptor { fd, file }: Descriptor,
        path_hint: impl FnOnce() -> Vec<u8>,
    ) -> Option<(u64, bool)> {
        if let Some(handle) = known
            && self.files.contains_key(&handle)
        {
            return Some((handle, false));
        }
        if fd < 0 {
            // The write is about to fail.
            return None;
        }
        let node = match file {
            Some(node) => node,
            None => self.file_at(fd)?,
        };
        let handle = self.next_handle;
        self.next_handle += 1;
        let file = WrittenFile {
            node,
            path_hint: path_hint(),
            ranges: Ranges::default(),
            since: None,
            running: 0,
            abandoned: false,
            appends: self.client.has_ring() && os::appends(fd),
        };
        self.client.note(file.opened(handle));
        self.files.insert(handle, file);
        Some((handle, true))
    }

    fn file_at(&mut self, fd: RawFd) -> Option<NodeRef> {
        let found = self.found_at(fd)?;
        (found.kind == NodeKind::File).then_some(found.node)
    }

    /// A write of these bytes has ended. `complete`: all of them were written, and nothing else.
    pub fn wrote(&mut self, going: Going, span: Span, complete: bool) {
        match going.number {
            0 => self.dirty(going.handle, span),
            number => {
                if let Some(span) = self.end_track(number, complete) {
                    self.dirty(going.handle, span);
                }
            }
        }
    }

    /// These bytes were changed, or may have been: only the disk knows.
    pub fn changed(&mut self, handle: u64, span: Span) {
        self.meet(handle, span);
        self.dirty(handle, span);
    }

    /// The file has this size now. `span`: the bytes between the old and the new end.
    pub fn resized(&mut self, handle: u64, size: u64, span: Span) {
        // Writes that end before the new end come to the same, whichever was first.
        let beyond = Range {
            start: size,
            end: u64::MAX,
        };
        self.meet(handle, Span::Bytes(beyond));
        if !self.copying {
            return self.dirty(handle, span);
        }
        if let Some(file) = self.files.get(&handle) {
            let node = file.node;
            self.client.note(Event::Resized { handle, node, size });
        }
    }

    pub(super) fn dirty(&mut self, handle: u64, span: Span) {
        let up = self.client.is_up();
        let Some(file) = self.files.get_mut(&handle) else {
            return;
        };
        file.ranges.add(span);
        if file.since.is_none() {
            let now = Instant::now();
            file.since = Some(now);
            self.holds_back.get_or_insert(now);
            self.client.stir();
        }
        if !file.ranges.is_full() {
            return;
        }
        if up {
            self.send_ranges(handle);
        } else {
            file.ranges.limit();
        }
    }

    /// A write was handed to a thread. Every start is followed by one [`Capture::ended`] or [`Capture::lost`].
    pub fn started(&mut self, going: Going) {
        if let Some(file) = self.files.get_mut(&going.handle) {
            file.running += 1;
        }
    }

    pub fn ended(&mut self, going: Going, span: Span, complete: bool) {
        self.wrote(going, span, complete);
        if let Some(file) = self.files.get_mut(&going.handle) {
            file.running = file.running.saturating_sub(1);
        }
    }

    /// smbd forgot a write that a thread may still be doing: it counts as under way until this process ends.
    pub fn lost(&mut self, going: Going, span: Span) {
        self.dirty(going.handle, span);
        if let Some(file) = self.files.get_mut(&going.handle) {
            file.abandoned = true;
        }
    }

    /// The client's flush has ended.
    pub fn flushed(&mut self, handle: u64, ok: bool) {
        self.send_ranges(handle);
        if let Some(file) = self.files.get(&handle)
            && ok
        {
            self.client.note(Event::Flushed {
                handle,
                node: file.node,
            });
        }
    }

    /// The descriptor is closed.
    pub fn closed(&mut self, handle: u64) {
        self.send_ranges(handle);
        let Some(file) = self.files.get_mut(&handle) else {
            return;
        };
        self.unwaited = true;
        if file.abandoned || file.running > 0 {
            file.abandoned = true;
            return;
        }
        let node = file.node;
        self.files.remove(&handle);
        self.client.note(Event::Closed { handle, node });
    }

    /// openat with `O_TRUNC`, outside of any handle that is known.
    pub fn truncated_at_open(&mut self, fd: RawFd, path_hint: Vec<u8>) {
        if let Some(handle) = self.writing(None, Descriptor::unknown(fd), || path_hint) {
            self.resized(handle, 0, Span::Whole);
            self.closed(handle);
        }
    }

    /// Size and times of a handle's file changed beside its content.
    pub fn touched_file(&mut self, handle: u64, fd: RawFd) {
        if let Some(file) = self.files.get(&handle) {
            let (node, hint) = (file.node, file.path_hint.clone());
            let changed = Changed {
                stat: true,
                xattrs: false,
            };
            self.touch(node, At::Descriptor(fd), || hint, changed);
        }
    }

    /// Whether the end of this process, rather than that of the tree connect, ends the writing.
    pub(super) fn has_abandoned(&self) -> bool {
        self.files.values().any(|file| file.abandoned || file.running > 0)
    }

    pub(super) fn announce_files(&mut self) {
        for (handle, file) in &self.files {
            self.client.note(file.opened(*handle));
        }
    }

    pub(super) fn send_all_ranges(&mut self) {
        if self.holds_back.take().is_none() {
            return;
        }
        let handles: Vec<u64> = self.files.keys().copied().collect();
        for handle in handles {
            self.send_ranges(handle);
        }
    }

    pub(super) fn send_old_ranges(&mut self, now: Instant) {
        if self.holds_back.is_none_or(|since| since + AGE > now) {
            return;
        }
        let is_old = |file: &WrittenFile| file.since.is_some_and(|since| since + AGE <= now);
        let old: Vec<u64> = self
            .files
            .iter()
            .filter(|(_, file)| is_old(file))
            .map(|(handle, _)| *handle)
            .collect();
        for handle in old {
            self.send_ranges(handle);
        }
        self.holds_back = self.files.values().filter_map(|file| file.since).min();
    }

    fn send_ranges(&mut self, handle: u64) {
        let Some(file) = self.files.get_mut(&handle) else {
            return;
        };
        file.since = None;
        if file.ranges.is_empty() {
            return;
        }
        file.ranges.limit();
        let (ranges, whole) = file.ranges.take();
        let (node, path_hint) = (file.node, file.path_hint.clone());
        self.client.note(Event::Dirty {
            handle,
            node,
            path_hint,
            ranges,
            whole,
        });
    }
}

impl WrittenFile {
    fn opened(&self, handle: u64) -> Event {
        Event::Opened {
            handle,
            node: self.node,
            path_hint: self.path_hint.clone(),
        }
    }
}
