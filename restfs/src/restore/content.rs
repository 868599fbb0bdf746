//! Content of files.

use super::metadata::{self, Target};
use super::source::{MAX_FETCH, Page, SourceError};
use super::{Done, Job, Trouble};
use bytes::Bytes;
use restfs_lib::content;
use restfs_lib::model::{BlockRef, Object, ObjectId, Segment};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

/// Segments asked for at a time: at most 16 x 1,024 blocks.
const SEGMENTS: usize = 16;

/// A file that was created and is still empty.
pub(super) struct FileJob {
    pub(super) file: File,
    pub(super) id: ObjectId,
    pub(super) object: Object,
    pub(super) path: Vec<u8>,
}

/// Content, then properties. Troubles go to the report.
pub(super) fn restore_file(job: Job<'_>, file: &FileJob) {
    let filled = Filler { job, file, done: 0 }.fill();
    let applied = match filled {
        Err(Trouble::Stop(_)) => Ok(()),
        _ => metadata::apply(
            job,
            &file.path,
            Target::Open(file.file.as_fd()),
            file.id,
            &file.object,
        ),
    };
    for trouble in [filled, applied].into_iter().filter_map(Result::err) {
        match trouble {
            Trouble::Problem(text) => job.report.problem(&file.path, text),
            Trouble::Stop(error) => job.report.stop(error),
        }
    }
}

struct Filler<'a> {
    job: Job<'a>,
    file: &'a FileJob,
    /// Bytes, holes included, that progress was told of.
    done: u64,
}

impl Filler<'_> {
    fn fill(mut self) -> Done<()> {
        let object = &self.file.object;
        object
            .layout
            .validate()
            .map_err(|e| Trouble::Problem(e.to_string()))?;
        // What no block is written to stays a hole.
        rustix::fs::ftruncate(&self.file.file, object.size)
            .map_err(|e| Trouble::from_io(&self.file.path, "setting the size", e))?;
        let mut from = 0;
        loop {
            let Page { items, more } = self.job.source.segments(self.file.id, from, SEGMENTS)?;
            for (number, segment) in &items {
                if *number < from {
                    return Err(Trouble::Problem("content: segments out of order".to_owned()));
                }
                self.segment(*number, segment)?;
                from = number.saturating_add(1);
            }
            if !more || items.is_empty() || self.job.report.is_stopped() {
                break;
            }
        }
        self.advance_to(object.size);
        Ok(())
    }

    fn segment(&mut self, number: u64, segment: &Segment) -> Done<()> {
        let object = &self.file.object;
        let mut batch = Vec::new();
        let mut bytes = 0;
        for (position, block, _) in &segment.blocks {
            let index = object.layout.block_at(number, *position);
            let offset = object.layout.offset_of(index);
            if *position >= object.layout.segment_blocks || block.length > object.layout.block_size {
                self.job.report.problem(
                    &self.file.path,
                    format!("content: impossible block in segment {number}"),
                );
                continue;
            }
            if offset >= object.size {
                continue;
            }
            if !batch.is_empty() && bytes + block.length as usize > MAX_FETCH {
                self.blocks(&std::mem::take(&mut batch))?;
                bytes = 0;
            }
            bytes += block.length as usize;
            batch.push((offset, *block));
        }
        self.blocks(&batch)
    }

    fn blocks(&mut self, batch: &[(u64, BlockRef)]) -> Done<()> {
        if batch.is_empty() || self.job.report.is_stopped() {
            return Ok(());
        }
        let keys: Vec<_> = batch.iter().map(|(_, block)| block.key).collect();
        let mut answers = self.job.source.blocks(&keys).into_iter();
        for (offset, block) in batch {
            let missing = || Err(SourceError::Damaged("no answer for the block".to_owned()));
            match self.block(*offset, block, answers.next().unwrap_or_else(missing)) {
                Err(Trouble::Problem(reason)) => {
                    let text = format!("content: {} bytes from {offset} on: {reason}", block.length);
                    self.job.report.problem(&self.file.path, text);
                }
                result => result?,
            }
            self.advance_to((offset + u64::from(block.length)).min(self.file.object.size));
        }
        Ok(())
    }

    fn block(&self, offset: u64, block: &BlockRef, answer: Result<Bytes, SourceError>) -> Done<()> {
        let content = answer?;
        if content.len() != block.length as usize || !content::verify(&block.key, &content) {
            return Err(Trouble::Problem("it is not what was stored".to_owned()));
        }
        let room = usize::try_from(self.file.object.size - offset).unwrap_or(usize::MAX);
        let content = &content[..content.len().min(room)];
        self.file
            .file
            .write_all_at(content, offset)
            .map_err(|e| Trouble::from_io(&self.file.path, "writing", e))?;
        self.job.report.written(content.len() as u64);
        Ok(())
    }

    fn advance_to(&mut self, offset: u64) {
        if offset > self.done {
            self.job.report.done_bytes(offset - self.done);
            self.done = offset;
        }
    }
}
