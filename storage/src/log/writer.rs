//! The writing end of a stream, and the handle that makes it durable from another thread.
//!
//! A commit is one write, by a call or through memory (see `ahead`). A failed write for lack of space is repeated at the same offset with the
//! same bytes; any other failed write, and any failed sync, poisons the store.

use super::ahead::{Ahead, Counts};
use super::record::{Mark, SLIM_HEADER_BYTES_MAX, encode_slim};
use super::spares::Spares;
use super::{LogPosition, segment_id, segment_name};
use crate::batch::Batch;
use crate::codec::{put_bytes, put_varint};
use crate::disk::{Disk, DiskFile};
use crate::error::{Error, is_full};
use crate::key::KeyRange;
use crate::poison::Poison;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// First bytes of a segment's first frame.
pub(crate) const SEGMENT_MAGIC: &[u8; 8] = b"RINGLOG1";

/// What writer, syncers and readers of a stream share.
pub(crate) struct Stream {
    pub(crate) id: u64,
    pub(crate) range: KeyRange,
    disk: Arc<dyn Disk>,
    poison: Arc<Poison>,
    spares: Arc<Spares>,
    planted: Planted,
    counts: Counts,
    progress: Mutex<Progress>,
    /// Held while syncing, so that those who come meanwhile share the next sync.
    syncing: Mutex<()>,
}

#[derive(Default)]
struct Progress {
    written: Mark,
    written_sequence: u64,
    durable: Mark,
    durable_sequence: u64,
    /// Files with un-synced bytes, oldest first; the last is the current one.
    dirty: Vec<Arc<dyn DiskFile>>,
    /// A segment was created since the directory was synced.
    directory_dirty: bool,
    segments: BTreeMap<u64, SegmentInfo>,
}

/// Bugs that a test planted.
#[derive(Clone, Copy)]
pub(crate) struct Planted {
    /// Syncing does nothing.
    pub(crate) missing_fsync: bool,
    /// All segments have one id.
    pub(crate) one_segment_id: bool,
}

/// What is known of a segment without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentInfo {
    pub(crate) first_sequence: u64,
    pub(crate) bytes: u64,
}

impl Stream {
    pub(crate) fn new(
        id: u64,
        range: KeyRange,
        disk: Arc<dyn Disk>,
        poison: Arc<Poison>,
        spares: Arc<Spares>,
        planted: Planted,
    ) -> Arc<Self> {
        let progress = Mutex::default();
        let (counts, syncing) = (Counts::default(), Mutex::default());
        Arc::new(Self { id, range, disk, poison, spares, planted, counts, progress, syncing })
    }

    fn segment_id(&self, segment: u64) -> u64 {
        segment_id(self.id, segment, self.planted.one_segment_id)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segments written so far and how many bytes of each may be read, oldest first.
    pub(crate) fn segments(&self) -> BTreeMap<u64, SegmentInfo> {
        self.progress().segments.clone()
    }

    /// Bytes of files that were used again, written through memory.
    pub(crate) fn bytes_over_old(&self) -> u64 {
        self.counts.over_old()
    }

    /// Forgets a segment whose file is being removed.
    pub(crate) fn forget(&self, segment: u64) {
        self.progress().segments.remove(&segment);
    }

    fn sync(&self) -> Result<LogPosition, Error> {
        self.spares.note_sync();
        let asked = self.progress().written;
        let _turn = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.poison.check()?;
        let (target, sequence, files, directory) = {
            let mut progress = self.progress();
            if progress.durable >= asked {
                return Ok(LogPosition { stream: self.id, sequence: progress.durable_sequence });
            }
            let current = progress.dirty.last().cloned();
            let files = std::mem::replace(&mut progress.dirty, current.into_iter().collect());
            let directory = std::mem::take(&mut progress.directory_dirty);
            (progress.written, progress.written_sequence, files, directory)
        };
        if !self.planted.missing_fsync {
            let files = files.iter().try_for_each(|file| file.sync());
            let all = files.and_then(|()| if directory { self.disk.sync_dir() } else { Ok(()) });
            all.map_err(|e| self.poison.set(&format!("sync of log stream {}: {e}", self.id)))?;
        }
        self.counts.note_sync();
        let mut progress = self.progress();
        progress.durable = target;
        progress.durable_sequence = sequence;
        Ok(LogPosition { stream: self.id, sequence })
    }
}

/// Makes what a shard committed durable, from any thread.
#[derive(Clone)]
pub struct SyncHandle {
    pub(crate) stream: Arc<Stream>,
}

impl SyncHandle {
    /// Blocks until everything that the shard committed before the call survives a power loss, and
    /// says how far that is. Calls at the same time share one fdatasync. The shard may go on
    /// committing meanwhile.
    ///
    /// # Errors
    /// [`Error::Poisoned`]: the disk refused, now or before; nothing may be promised any more.
    pub fn sync(&self) -> Result<LogPosition, Error> {
        self.stream.sync()
    }

    /// How far the shard's log is durable, without asking the disk.
    #[must_use]
    pub fn durable(&self) -> LogPosition {
        let sequence = self.stream.progress().durable_sequence;
        LogPosition { stream: self.stream.id, sequence }
    }
}

/// The first frame of a segment.
pub(crate) fn segment_header(id: u64, first: u64, range: &KeyRange, durable: Mark) -> Vec<u8> {
    let mut header = vec![0; SLIM_HEADER_BYTES_MAX];
    header.extend_from_slice(SEGMENT_MAGIC);
    header.extend_from_slice(&first.to_le_bytes());
    put_bytes(&mut header, &range.lower);
    header.push(u8::from(range.upper.is_some()));
    put_bytes(&mut header, range.upper.as_deref().unwrap_or_default());
    encode_slim(&mut header, id, 0, first, Some(durable));
    header
}

/// The one writer of a stream.
pub(crate) struct LogWriter {
    stream: Arc<Stream>,
    segment_bytes: u64,
    /// Number of the current segment; 0 before the first.
    segment: u64,
    file: Option<Arc<dyn DiskFile>>,
    offset: u64,
    /// Where the header of the current segment ends.
    header_end: u64,
    /// The size of the segment's file if it was made ready before; writes up to it do not grow it.
    ready_bytes: Option<u64>,
    ahead: Ahead,
    /// Room for the header, then the batches of the next frame.
    buffer: Vec<u8>,
    batches: u32,
    first_sequence: u64,
    next_sequence: u64,
    /// A write of the buffer was tried: its bytes may not change any more.
    sealed: bool,
    /// The last commit found no space.
    stalled: bool,
    /// The last durable place that a frame has recorded, and the end of the last frame with data.
    recorded: Mark,
    last_data: Mark,
    /// So many more frames say it, and where the last one did.
    repeats: u32,
    mark_at: u64,
    /// Where the frame starts in the buffer, once sealed.
    start: usize,
}

/// Frames that say what became durable, and the bytes after which one does again.
const MARK_REPEATS: u32 = 32;
const MARK_EVERY_BYTES: u64 = 4 << 10;

impl LogWriter {
    pub(crate) fn new(stream: Arc<Stream>, next_sequence: u64, segment_bytes: u64) -> Self {
        Self {
            stream,
            segment_bytes,
            segment: 0,
            file: None,
            offset: 0,
            header_end: 0,
            ready_bytes: None,
            ahead: Ahead::default(),
            buffer: vec![0; SLIM_HEADER_BYTES_MAX],
            batches: 0,
            first_sequence: next_sequence,
            next_sequence,
            sealed: false,
            stalled: false,
            recorded: Mark::default(),
            last_data: Mark::default(),
            repeats: 0,
            mark_at: 0,
            start: 0,
        }
    }

    pub(crate) fn sync_handle(&self) -> SyncHandle {
        SyncHandle { stream: self.stream.clone() }
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The next change gets at least this sequence. What is left out must count as flushed, or the
    /// gap passes for a hole. The buffer must be empty.
    pub(crate) fn skip_to(&mut self, sequence: u64) {
        assert!(
            self.batches == 0 && !self.sealed,
            "the buffer is written before sequences are skipped"
        );
        self.next_sequence = self.next_sequence.max(sequence);
        self.first_sequence = self.next_sequence;
    }

    pub(crate) fn buffered_bytes(&self) -> usize {
        self.buffer.len() - SLIM_HEADER_BYTES_MAX
    }

    /// A write is waiting for space.
    pub(crate) fn stalled(&self) -> bool {
        self.stalled
    }

    /// The place after all that was appended.
    pub(crate) fn position(&self) -> LogPosition {
        LogPosition { stream: self.stream.id, sequence: self.next_sequence - 1 }
    }

    /// Puts a batch into the next frame.
    pub(crate) fn append(&mut self, batch: &Batch) {
        assert!(!self.sealed, "append to a frame whose write was tried");
        let count = batch.len() as u64;
        put_varint(&mut self.buffer, count);
        self.buffer.extend_from_slice(batch.bytes());
        self.batches += 1;
        self.next_sequence += count;
    }

    /// The next commit starts a new segment.
    pub(crate) fn close_segment(&mut self) {
        if !self.sealed {
            self.file = None;
            self.ahead.end();
        }
    }

    /// Writes the buffered batches as one frame.
    pub(crate) fn commit(&mut self) -> Result<LogPosition, Error> {
        // While it goes on, no segment is begun for a mark alone: what the one before holds is about to
        // come into a table.
        self.commit_or_mark(self.file.is_some() && self.mark_is_due())
    }

    /// As [`LogWriter::commit`], where nothing may follow: what is durable is said in any case.
    pub(crate) fn mark_end(&mut self) -> Result<LogPosition, Error> {
        self.commit_or_mark(self.mark_is_due())
    }

    fn commit_or_mark(&mut self, mark: bool) -> Result<LogPosition, Error> {
        let done = self.write_frame(mark);
        self.stalled = done.is_err();
        done
    }

    fn write_frame(&mut self, mark: bool) -> Result<LogPosition, Error> {
        self.stream.poison.check()?;
        if self.batches == 0 && !self.sealed && !mark {
            return Ok(self.position());
        }
        if self.file.is_none() || (!self.sealed && self.segment_is_full()) {
            self.start_segment()?;
        }
        let file = self.file.clone().expect("a segment was just started");
        if !self.sealed {
            let durable = self.stream.progress().durable;
            let id = self.stream.segment_id(self.segment);
            let mark = self.says_durable(durable).then_some(durable);
            let (first, offset) = (self.first_sequence, self.offset);
            self.start = encode_slim(&mut self.buffer, id, offset, first, mark);
            self.sealed = true;
        }
        let frame = &self.buffer[self.start..];
        if !self.ahead.write(file.as_ref(), frame, self.offset, &self.stream.counts) {
            self.write(&file, frame, self.offset)?;
        }
        self.offset += frame.len() as u64;
        let written = Mark { segment: self.segment, offset: self.offset };
        if self.batches > 0 {
            self.last_data = written;
        }
        let mut progress = self.stream.progress();
        progress.written = written;
        progress.written_sequence = self.next_sequence - 1;
        let info = SegmentInfo { first_sequence: 0, bytes: 0 };
        progress.segments.entry(self.segment).or_insert(info).bytes = self.offset;
        drop(progress);
        self.buffer.truncate(SLIM_HEADER_BYTES_MAX);
        self.buffer.shrink_to(crate::limits::LOG_BUFFER_BYTES_MAX * 2);
        self.batches = 0;
        self.first_sequence = self.next_sequence;
        self.sealed = false;
        Ok(self.position())
    }

    /// Whether the next frame says how far the stream is durable: when that is news, for some frames
    /// more, and in each page. So no rot of a page or two takes all that would show that it is one.
    fn says_durable(&mut self, durable: Mark) -> bool {
        if durable != self.recorded {
            (self.recorded, self.repeats) = (durable, MARK_REPEATS);
        }
        let due = self.repeats > 0 || self.offset >= self.mark_at + MARK_EVERY_BYTES;
        if due {
            self.repeats = self.repeats.saturating_sub(1);
            self.mark_at = self.offset;
        }
        due
    }

    /// Data became durable that no frame says is durable. Without a frame that says so, rot in the
    /// last frame of an idle store would pass for a torn tail.
    fn mark_is_due(&self) -> bool {
        self.last_data > self.recorded && self.stream.progress().durable >= self.last_data
    }

    /// True when the next frame belongs into another segment: this one is large enough, its file
    /// would grow, or it grows with every frame and there is a file that would not.
    fn segment_is_full(&self) -> bool {
        let end = self.offset + self.buffer.len().next_multiple_of(4) as u64;
        let better = self
            .ready_bytes
            .map_or_else(|| self.stream.spares.ready() > 0, |ready_bytes| end > ready_bytes);
        self.offset >= self.segment_bytes || (better && self.offset > self.header_end)
    }

    /// A file of this name, made ready if there is one, and its size then.
    fn segment_file(&self, name: &str) -> io::Result<(Arc<dyn DiskFile>, Option<u64>)> {
        let disk = &self.stream.disk;
        if let Some(spare) = self.stream.spares.take() {
            match disk.rename(&spare, name) {
                Ok(()) => {
                    let file = disk.open(name)?;
                    let ready_bytes = file.len()?;
                    return Ok((file, Some(ready_bytes)));
                }
                Err(e) => tracing::warn!(%spare, error = %e, "a spare log file cannot be used"),
            }
        }
        Ok((disk.create(name)?, None))
    }

    fn start_segment(&mut self) -> Result<(), Error> {
        let number = self.segment + 1;
        let stream = &self.stream;
        let name = segment_name(stream.id, number);
        let durable = stream.progress().durable;
        let id = stream.segment_id(number);
        let header = segment_header(id, self.first_sequence, &stream.range, durable);
        let (file, ready_bytes) =
            self.segment_file(&name).map_err(|e| Error::io(&format!("creating {name}"), &e))?;
        self.write(&file, &header, 0)?;
        // A file made ready does not grow; another one grows a little at a time.
        let limit = ready_bytes.unwrap_or(self.segment_bytes);
        self.ahead.begin(file.as_ref(), limit, ready_bytes.unwrap_or(0));
        self.ready_bytes = ready_bytes;
        self.header_end = header.len() as u64;
        self.segment = number;
        (self.offset, self.mark_at) = (header.len() as u64, 0);
        self.file = Some(file.clone());
        let mut progress = stream.progress();
        progress.dirty.push(file);
        progress.directory_dirty = true;
        let info = SegmentInfo { first_sequence: self.first_sequence, bytes: self.offset };
        progress.segments.insert(number, info);
        Ok(())
    }

    fn write(&self, file: &Arc<dyn DiskFile>, bytes: &[u8], offset: u64) -> Result<(), Error> {
        file.write_at(bytes, offset).map_err(|e| {
            if is_full(&e) {
                Error::NoSpace
            } else {
                self.stream.poison.set(&format!("write of log stream {}: {e}", self.stream.id))
            }
        })
    }
}
