//! Whether data is told, and writes that are announced with it.
//!
//! While it is, vfsxd knows of every change by the end of its call, and of every write before it begins; words in shared memory
//! say so. It begins and ends with the end of an outermost call.

use super::content::Planned;
use super::running::{Unannounced, range_of};
use super::{Capture, Span};
use crate::os;
use std::os::fd::RawFd;
use vfsx_proto::ring::Word;
use vfsx_proto::{Event, MAX_WRITE, Range};

impl Capture {
    /// Changes come outside of calls of smbd: nothing that is told can be complete.
    pub(super) fn never_copy(&mut self, why: &str) {
        if !std::mem::replace(&mut self.unfit, true) && self.client.has_ring() {
            self.client.complain_of_copy(why);
        }
    }

    /// At the end of an outermost call, when what it did is sent.
    pub(super) fn follow_mode(&mut self) {
        if !self.client.has_ring() {
            return;
        }
        let wanted = |capture: &Self, copying| !capture.unfit && capture.client.is_to_copy(copying);
        if !self.copying && wanted(self, false) {
            // What is held back comes before the word.
            self.send_all_ranges();
            for write in self.running.unannounced() {
                self.announce(write, None);
            }
            self.copying = true;
            self.send();
        }
        // Sending may have found that vfsxd is gone.
        self.copying = self.copying && wanted(self, true);
        self.client.tell_running(self.running.lowest());
        self.client.tell(Word::Copying, self.copying.into());
    }

    /// A write begins. Its number; 0: it is not kept track of, since no data is told on this share, or nothing is written.
    pub(super) fn keep_track(&mut self, handle: u64, fd: RawFd, planned: Planned<'_>) -> u64 {
        if !self.client.has_ring() {
            return 0;
        }
        let Some(file) = self.files.get(&handle) else {
            return 0;
        };
        let (node, appends) = (file.node, file.appends);
        let mut range = range_of(planned.span);
        if range.start >= range.end {
            return 0;
        }
        if appends {
            // Behind what is there by now.
            let size = os::identify(fd).map_or(0, |found| found.size);
            range = Range {
                start: size,
                end: u64::MAX,
            };
        }
        let began_ns = self.client.began_ns().unwrap_or_else(os::monotonic_ns);
        let number = self.running.begin(handle, node, range, began_ns);
        if self.copying {
            let write = Unannounced {
                number,
                handle,
                node,
                range,
            };
            self.announce(write, planned.data);
        }
        number
    }

    /// A write has ended. What only the disk knows of now, if anything.
    pub(super) fn end_track(&mut self, number: u64, complete: bool) -> Option<Span> {
        let (now_ns, connection) = (os::monotonic_ns(), self.client.connection());
        let range = self.running.end(number, complete, now_ns, connection)?;
        let is_whole = range == range_of(Span::Whole);
        Some(if is_whole { Span::Whole } else { Span::Bytes(range) })
    }

    /// Something changes these bytes that is not kept track of.
    pub(super) fn meet(&mut self, handle: u64, span: Span) {
        if let Some(file) = self.files.get(&handle) {
            self.running.meet(file.node, range_of(span));
        }
    }

    fn announce(&mut self, write: Unannounced, data: Option<&[u8]>) {
        let first = self.client.next_sequence();
        // Never is it noted and seems to have ended.
        self.running.announce(write.number, first, None);
        self.client.tell_running(self.running.lowest());
        let length = write.range.end - write.range.start;
        let told = match data {
            Some(data) if data.len() as u64 == length => self.note_data(write, data),
            _ => {
                self.client.note(Event::Write {
                    handle: write.handle,
                    node: write.node,
                    start: write.range.start,
                    length,
                    data: None,
                });
                false
            }
        };
        let told = self.client.connection().filter(|_| told);
        self.running.announce(write.number, first, told);
    }

    /// Whether vfsxd has all of the data.
    fn note_data(&mut self, write: Unannounced, data: &[u8]) -> bool {
        let (mut told, mut start) = (true, write.range.start);
        for piece in data.chunks(MAX_WRITE) {
            let place = self.client.put(piece);
            let event = Event::Write {
                handle: write.handle,
                node: write.node,
                start,
                length: piece.len() as u64,
                data: place,
            };
            match (self.client.note(event), place) {
                (Some(_), Some(place)) => self.client.announced(place, piece.len()),
                _ => told = false,
            }
            start += piece.len() as u64;
        }
        told
    }
}
