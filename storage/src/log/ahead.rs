//! Ahead: the part of a segment that is made ready before it is written, so that a frame costs no call.
//!
//! Promise: a frame goes through the window only where zeros were written before, which is where a full
//! disk is met: then, and wherever a window cannot be had, frames are written by calls as without it.
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
    /// Frames since the last look, and how many syncs there had been then.
    frames: u64,
    syncs_before: u64,
    /// Syncs there had been when the window was last asked for.
    syncs_ready: u64,
}

/// Counts the syncs of a stream.
#[derive(Default)]
pub(super) struct Syncs(AtomicU64);

impl Syncs {
    pub(super) fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Ahead {
    /// A segment begins in `file`, of which the window may take the first `limit` bytes.
    pub(super) fn begin(&mut self, file: &dyn DiskFile, limit: u64) {
        self.end();
        self.limit = limit;
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
        syncs: &Syncs,
    ) -> bool {
        self.frames += 1;
        let end = offset + frame.len() as u64;
        if self.window.is_none() || frame.len() > FRAME_BYTES_MAX || end > self.limit {
            return false;
        }
        let fits = end <= self.ready.end;
        // Before the count is read, so that what a sync since then took away is asked for next time.
        let synced = syncs.count() != self.syncs_ready;
        if (!fits && !self.pays(syncs))
            || ((!fits || synced) && !self.prepare(file, offset, end, syncs))
        {
            return false;
        }
        let Some(window) = &mut self.window else { return false };
        window.write(frame, offset);
        true
    }

    /// True when few of the last frames were synced each for itself.
    fn pays(&mut self, syncs: &Syncs) -> bool {
        if self.frames < FRAMES {
            return false;
        }
        let now = syncs.count();
        let pays = (now - self.syncs_before) * FRAMES <= self.frames * SYNCS_MAX;
        (self.frames, self.syncs_before) = (0, now);
        pays
    }

    /// Makes what follows `offset` ready, at least to `end`; false, and never again in this segment,
    /// when that cannot be.
    fn prepare(&mut self, file: &dyn DiskFile, offset: u64, end: u64, syncs: &Syncs) -> bool {
        let Some(window) = &mut self.window else { return false };
        let mut zeros_end = self.ready.end.max(offset);
        if end > zeros_end {
            let wanted = (end + 1).next_multiple_of(AHEAD_BYTES).min(self.limit);
            if let Err(e) = write_zeros(file, zeros_end..wanted) {
                tracing::debug!(error = %e, "the log is written without a window");
                self.end();
                return false;
            }
            zeros_end = wanted;
        }
        self.syncs_ready = syncs.count();
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
