//! Ahead: the part of a segment that is made ready before it is written, so that a frame costs no call.
//!
//! Promise: a frame goes through the window only where the file held bytes before: those of its former
//! life, or zeros written now, which is where a full disk is met. Then, and wherever a window cannot be had,
//! frames are written by calls as without it.
//!
//! Zeros ahead pay only while many frames share a sync. One that is synced for itself would bring them
//! to disk twice, and find its page taken away by the sync before; so syncs are counted.

use crate::disk::{DiskFile, Window};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that are made ready at a time.
const AHEAD_BYTES: u64 = 128 << 10;
/// Zeros that are written in one call. What one call writes a file system may keep as one piece of its
/// cache, and then whatever touches a page of it looks at every block of it.
static ZEROS: [u8; 16 << 10] = [0; 16 << 10];
/// A longer frame is worth a call.
const FRAME_BYTES_MAX: usize = 16 << 10;
/// Frames between two looks at how many were synced, and so many of them at most may have been.
const FRAMES: u64 = 16;
const SYNCS_MAX: u64 = 2;

/// What a writer has made ready of its segment.
#[derive(Default)]
pub(super) struct Ahead {
    window: Option<Box<dyn Window>>,
    /// Of the segment, all zeros or frames.
    ready: Range<u64>,
    /// The window may not reach beyond.
    limit: u64,
    /// So much was in the file when the segment began: no zeros are needed there.
    held: u64,
    /// Frames since the last look, and how many syncs there had been then.
    frames: u64,
    syncs_before: u64,
    /// Syncs there had been when the window was last asked for.
    syncs_ready: u64,
}

/// Counts what happens to a stream.
#[derive(Default)]
pub(super) struct Counts {
    syncs: AtomicU64,
    over_old: AtomicU64,
}

impl Counts {
    pub(super) fn note_sync(&self) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Bytes over which the window was opened without writing zeros to them.
    pub(super) fn over_old(&self) -> u64 {
        self.over_old.load(Ordering::Relaxed)
    }
}

impl Ahead {
    /// A segment begins in `file`, of which the window may take the first `limit` bytes, and which
    /// has `held` bytes already.
    pub(super) fn begin(&mut self, file: &dyn DiskFile, limit: u64, held: u64) {
        self.end();
        (self.limit, self.held) = (limit, held);
        self.window = file.window(limit).unwrap_or_else(|e| {
            tracing::debug!(error = %e, "the log is written without a window");
            None
        });
    }

    /// The segment ends.
    pub(super) fn end(&mut self) {
        (self.window, self.ready) = (None, 0..0);
    }

    /// Writes a frame at `offset`, behind all that was written, if that can be done without a call;
    /// else false, and nothing was written.
    pub(super) fn write(
        &mut self,
        file: &dyn DiskFile,
        frame: &[u8],
        offset: u64,
        counts: &Counts,
    ) -> bool {
        self.frames += 1;
        let end = offset + frame.len() as u64;
        if self.window.is_none() || frame.len() > FRAME_BYTES_MAX || end > self.limit {
            return false;
        }
        let fits = end <= self.ready.end;
        // Before the count is read, so that what a sync since then took away is asked for next time.
        let synced = counts.syncs() != self.syncs_ready;
        if (!fits && !self.pays(counts))
            || ((!fits || synced) && !self.prepare(file, offset, end, counts))
        {
            return false;
        }
        let Some(window) = &mut self.window else { return false };
        window.write(frame, offset);
        true
    }

    /// True when few of the last frames were synced each for itself.
    fn pays(&mut self, counts: &Counts) -> bool {
        if self.frames < FRAMES {
            return false;
        }
        let now = counts.syncs();
        let pays = (now - self.syncs_before) * FRAMES <= self.frames * SYNCS_MAX;
        (self.frames, self.syncs_before) = (0, now);
        pays
    }

    /// Makes what follows `offset` ready, at least to `end`; false, and never again in this segment,
    /// when that cannot be.
    fn prepare(&mut self, file: &dyn DiskFile, offset: u64, end: u64, counts: &Counts) -> bool {
        let Some(window) = &mut self.window else { return false };
        let mut zeros_end = self.ready.end.max(offset);
        if end > zeros_end {
            let wanted = (end + 1).next_multiple_of(AHEAD_BYTES).min(self.limit);
            // What the file held is of its former life, or zeros: neither proves itself.
            let old = self.held.clamp(zeros_end, wanted);
            counts.over_old.fetch_add(old - zeros_end, Ordering::Relaxed);
            if let Err(e) = write_zeros(file, old..wanted) {
                tracing::debug!(error = %e, "the log is written without a window");
                self.end();
                return false;
            }
            zeros_end = wanted;
        }
        self.syncs_ready = counts.syncs();
        self.ready = offset..zeros_end;
        let ready = window.ready(self.ready.clone());
        if let Err(e) = &ready {
            tracing::warn!(error = %e, "the log is written without a window");
            self.end();
        }
        ready.is_ok()
    }
}

fn write_zeros(file: &dyn DiskFile, range: Range<u64>) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        // Whole pieces behind the first.
        let piece_end = (at + 1).next_multiple_of(ZEROS.len() as u64).min(range.end);
        let len = usize::try_from(piece_end - at).expect("at most as many as there are");
        file.write_at(&ZEROS[..len], at)?;
        at = piece_end;
    }
    Ok(())
}
