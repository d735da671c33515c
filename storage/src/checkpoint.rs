//! Checkpoint: a store of its own, made of links to this one's files.
//!
//! Tables and blob files never change, so they are linked where the disk can; the log goes on
//! growing, so what of it is not yet in tables is copied. CURRENT comes last: a checkpoint that was
//! not finished does not open.

use crate::blob::blob_name;
use crate::disk::{Disk, swap_file};
use crate::engine::{Engine, Shared};
use crate::error::Error;
use crate::key::KeyRange;
use crate::limits::FORMAT_LINE;
use crate::log::segment_name;
use crate::manifest::{Manifest, Story};
use crate::poison::Poison;
use crate::table::{part, table_name};
use std::io;
use std::sync::Arc;

/// What a checkpoint is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// Tables and blob files.
    pub files: usize,
    /// Their bytes; they cost no space while this store has them too.
    pub file_bytes: u64,
    /// Bytes of the log that were copied.
    pub log_bytes: u64,
}

impl Engine {
    /// Makes of the empty directory `target` a store that holds everything committed before the
    /// call (and perhaps some of what came meanwhile). Durable when it returns. Writes and jobs may
    /// go on; files are removed only after it.
    ///
    /// # Errors
    /// [`Error::Refused`] when `target` is not empty; what either disk says. A `target` that was begun does
    /// not open.
    pub fn checkpoint(&self, target: &dyn Disk) -> Result<Checkpoint, Error> {
        let _kept = Kept::keep(&self.shared);
        self.shared.checkpoint(target)
    }
}

/// While it lives, no file is removed.
struct Kept<'a>(&'a Shared);

impl<'a> Kept<'a> {
    fn keep(shared: &'a Shared) -> Self {
        shared.keep_files(true);
        Self(shared)
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.0.keep_files(false);
    }
}

/// A segment, how many of its bytes count, its last sequence, and the rows that it is about.
type Segment = ((u64, u64), u64, u64, KeyRange);

impl Shared {
    /// The log, and what is in tables besides, of one moment.
    ///
    /// The log is looked at first: what leaves it for a table meanwhile is in that table. But a table may not come without what
    /// was written behind its memtable before that was released to be flushed ([`crate::Shard::rotate_held`]), and this first look
    /// may miss that. So both are looked at until nothing was flushed between. `looked`: what a test lets happen there.
    fn log_and_story(&self, mut looked: impl FnMut()) -> (Vec<Segment>, Story) {
        let ranged = |(id, bytes, last): ((u64, u64), u64, u64)| {
            Some((id, bytes, last, self.range_of_segment(id.0, id.1)?))
        };
        let mut before = self.story();
        loop {
            let segments = self.segments().into_iter().filter_map(ranged).collect();
            looked();
            let story = self.story();
            if story.flushed == before.flushed {
                return (segments, story);
            }
            before = story;
        }
    }

    fn checkpoint(&self, target: &dyn Disk) -> Result<Checkpoint, Error> {
        let io = |e: io::Error| Error::io("making a checkpoint", &e);
        let there = target.list().map_err(io)?;
        if let Some(name) = there.iter().find(|name| *name != "LOCK") {
            let reason =
                format!("a checkpoint wants an empty directory, and {name} is in this one");
            return Err(Error::Refused { reason });
        }
        let (segments, story) = self.log_and_story(|| ());
        let mut made = Checkpoint::default();
        let tables = story.tables.iter().map(|(number, (_, b))| (table_name(*number), b.bytes));
        let blobs = story.blobs.iter().map(|(number, bytes)| (blob_name(*number), *bytes));
        for (name, bytes) in tables.chain(blobs) {
            self.disk.link_to(&name, target).map_err(io)?;
            made.files += 1;
            made.file_bytes += bytes;
        }
        for (number, (_, bounds)) in &story.tables {
            if bounds.narrowed.is_some() {
                part::write(target, *number, bounds).map_err(io)?;
            }
        }
        for ((stream, segment), bytes, last, range) in segments {
            if story.is_flushed(&range, last) {
                continue;
            }
            let name = segment_name(stream, segment);
            let file = self.disk.open(&name).map_err(io)?;
            let mut content = vec![0; usize::try_from(bytes).expect("segments fit in memory")];
            file.read_at(&mut content, 0).map_err(io)?;
            let copy = target.create(&name).map_err(io)?;
            copy.write_at(&content, 0).and_then(|()| copy.sync()).map_err(io)?;
            made.log_bytes += bytes;
        }
        swap_file(target, "FORMAT", format!("{FORMAT_LINE}\n").as_bytes()).map_err(io)?;
        Manifest::create(target, 1, story, Arc::new(Poison::default()))?;
        Ok(made)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;
    use crate::batch::Batch;
    use crate::disk::MemoryDisk;
    use crate::fold::NoMerge;
    use crate::options::Options;
    use crate::shard::Durability;

    fn put(key: &[u8]) -> Batch {
        let mut batch = Batch::new();
        batch.put(key, b"value");
        batch
    }

    #[test]
    fn a_memtable_that_is_flushed_meanwhile_brings_what_was_written_behind_it() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(1));
        let opened = Engine::open(disk, Options::small(), Arc::new(NoMerge), &mut |_| {});
        let (engine, mut shards) = opened.unwrap();
        shards[0].apply(&put(b"row"), Durability::Os).unwrap();
        shards[0].rotate_held();
        let mut looks = 0;
        let (segments, story) = engine.shared.log_and_story(|| {
            looks += 1;
            if looks == 1 {
                shards[0].apply(&put(b"clock of the row"), Durability::Os).unwrap();
                shards[0].release();
                while let Some(job) = engine.next_job() {
                    job.run().unwrap();
                }
            }
        });
        assert!(story.flushed.at(b"row") >= 1, "it is in a table");
        let clock = segments.iter().find(|((_, number), ..)| *number == 2);
        assert!(clock.is_some(), "its clock stands in the second segment: {segments:?}");
        assert_eq!(looks, 2);
    }
}
