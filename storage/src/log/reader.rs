//! Reading a segment back: its good frames, and its holes.

use super::record::{FRAME_HEADER_BYTES, Frame, Frames, Mark, next_frame};
use super::writer::SEGMENT_MAGIC;
use crate::codec::{bytes, take};
use crate::key::KeyRange;
use crate::limits::SEQUENCE_MAX;

/// A segment's bytes.
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) id: u64,
    pub(crate) bytes: Vec<u8>,
}

/// What a segment turned out to hold.
#[derive(Default)]
pub(crate) struct Reading {
    /// First sequence and key range, unless the header is a hole.
    pub(crate) header: Option<(u64, KeyRange)>,
    /// Offsets of the good frames behind the header.
    pub(crate) frames: Vec<u64>,
    /// Where frames should stand but do not prove themselves.
    pub(crate) holes: Vec<u64>,
    /// The greatest durable mark in any good frame.
    pub(crate) durable: Mark,
    /// Where the last good frame ends.
    pub(crate) end: u64,
}

impl Segment {
    pub(crate) fn frame(&self, offset: u64) -> Frame<'_> {
        Frame::proved(&self.bytes, offset, self.id).expect("read_segment found a frame here")
    }
}

/// Reads `segment`: never fails, says what is missing.
pub(crate) fn read_segment(segment: &Segment) -> Reading {
    let mut reading = Reading::default();
    let file = segment.bytes.as_slice();
    let id = segment.id;
    let mut at = 0;
    loop {
        for frame in (Frames { file, id, offset: at }) {
            at = frame.end;
            reading.end = frame.end;
            reading.durable = reading.durable.max(frame.durable);
            if frame.offset == 0 {
                reading.header = parse_header(&frame);
            } else if frame.log_batches().is_some() {
                reading.frames.push(frame.offset);
            } else {
                // The checksum holds and the content is no batch: not ours to guess.
                reading.holes.push(frame.offset);
            }
        }
        if at >= file.len() as u64 && at > 0 {
            return reading;
        }
        if reading.holes.last() != Some(&at) {
            reading.holes.push(at);
        }
        match next_frame(file, at + 1, id) {
            Some(frame) => at = frame.offset,
            None => return reading,
        }
    }
}

fn parse_header(frame: &Frame<'_>) -> Option<(u64, KeyRange)> {
    let mut rest = frame.payload.strip_prefix(SEGMENT_MAGIC)?;
    let first = crate::codec::u64_at(take(&mut rest, 8)?, 0)?;
    (1..=SEQUENCE_MAX).contains(&first).then_some(())?;
    let lower = bytes(&mut rest)?.to_vec();
    let has_upper = take(&mut rest, 1)? == [1];
    let upper = bytes(&mut rest)?.to_vec();
    rest.is_empty().then_some((first, KeyRange { lower, upper: has_upper.then_some(upper) }))
}

/// First sequence and key range of a segment, from its first bytes.
pub(crate) fn read_header(file: &[u8], id: u64) -> Option<(u64, KeyRange)> {
    parse_header(&Frame::at(file, 0, id)?)
}

/// Bytes that surely hold a whole header.
pub(crate) const HEADER_BYTES_MAX: usize =
    FRAME_HEADER_BYTES + 8 + 8 + 2 * (crate::limits::KEY_BYTES_MAX + 10) + 8;
