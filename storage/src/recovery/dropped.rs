//! Dropped: what stands behind the place at which a stream was cut, for those who look at a store.
//!
//! It was promised to nobody. But good frames behind a hole are writes that somebody made, so whoever
//! asks what is in a store hears of them.

use super::trail::Trail;
use crate::log::{Event, Mark, Pieces, segment_name};
use std::io;

/// A log that ended before its last good frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogCut {
    /// The file in which it was cut.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// Good frames behind, which are no part of the store any more.
    pub frames: u64,
}

/// What a cut of `trail` at `at` drops, if that is anything; `i`: the segment at or behind it.
pub(super) fn behind(trail: &Trail, at: Mark, i: usize) -> Option<LogCut> {
    let frames = count(trail, at, i).unwrap_or_else(|e| {
        tracing::debug!(error = %e, "what stands behind the log's end cannot be counted");
        0
    });
    let file = segment_name(trail.stream, at.segment);
    (frames > 0).then_some(LogCut { file, offset: at.offset, frames })
}

fn count(trail: &Trail, at: Mark, i: usize) -> io::Result<u64> {
    let (mut frames, mut pieces) = (0, Pieces::default());
    for segment in trail.segments[i..].iter().map(|footprint| &footprint.segment) {
        let from = if segment.number > at.segment { 0 } else { at.offset };
        let mut reading = segment.read(&mut pieces);
        while let Some(event) = reading.next()? {
            if let Event::Frame(frame, batches) = event {
                // One without batches is a mark of how far the log was durable.
                frames += u64::from(frame.offset >= from && batches.into_iter().next().is_some());
            }
        }
    }
    Ok(frames)
}
