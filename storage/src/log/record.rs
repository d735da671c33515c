//! Frames: bytes that prove themselves.

use crate::batch::{LogBatch, Ops};
use crate::codec::{take, u32_at, u64_at};
use crate::limits::{FRAME_BYTES_MAX, SEQUENCE_MAX};

/// Bytes before a frame's payload.
pub(crate) const FRAME_HEADER_BYTES: usize = 48;

/// How far a stream is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Mark {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

/// A frame that proved itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) offset: u64,
    /// Where the next frame stands.
    pub(crate) end: u64,
    pub(crate) first_sequence: u64,
    pub(crate) batches: u32,
    pub(crate) durable: Mark,
    pub(crate) payload: &'a [u8],
}

/// Fills in the header of `buffer`, whose payload starts at [`FRAME_HEADER_BYTES`], and pads it.
pub(crate) fn encode_frame(
    buffer: &mut Vec<u8>,
    id: u64,
    offset: u64,
    first_sequence: u64,
    batches: u32,
    durable: Mark,
) {
    let len = u32::try_from(buffer.len() - FRAME_HEADER_BYTES).expect("bounded by FRAME_BYTES_MAX");
    buffer[0..4].copy_from_slice(&len.to_le_bytes());
    buffer[8..16].copy_from_slice(&(id ^ offset).to_le_bytes());
    buffer[16..24].copy_from_slice(&first_sequence.to_le_bytes());
    buffer[24..28].copy_from_slice(&batches.to_le_bytes());
    buffer[28..32].fill(0);
    buffer[32..40].copy_from_slice(&durable.segment.to_le_bytes());
    buffer[40..48].copy_from_slice(&durable.offset.to_le_bytes());
    let crc = checksum(buffer);
    buffer[4..8].copy_from_slice(&crc.to_le_bytes());
    buffer.resize(buffer.len().next_multiple_of(8), 0);
}

/// Covers the length too, so that a bad length cannot send the reader astray.
fn checksum(frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[..4]);
    hasher.update(&frame[8..]);
    hasher.finalize()
}

impl<'a> Frame<'a> {
    /// The frame at `offset` of `file`, if one proves itself there.
    pub(crate) fn at(file: &'a [u8], offset: u64, id: u64) -> Option<Self> {
        let (frame, bytes) = Self::claimed(file, offset, id)?;
        (checksum(bytes) == u32_at(bytes, 4)?).then_some(frame)
    }

    /// The frame that has proved itself at `offset` before.
    pub(crate) fn proved(file: &'a [u8], offset: u64, id: u64) -> Option<Self> {
        Self::claimed(file, offset, id).map(|(frame, _)| frame)
    }

    /// What would be a frame at `offset` if its checksum held, and what that covers.
    fn claimed(file: &'a [u8], offset: u64, id: u64) -> Option<(Self, &'a [u8])> {
        let at = usize::try_from(offset).ok()?;
        if u64_at(file, at.checked_add(8)?)? != id ^ offset {
            return None;
        }
        let len = u32_at(file, at)? as usize;
        if len > FRAME_BYTES_MAX.max(crate::limits::EDIT_BYTES_MAX) {
            return None;
        }
        let bytes = file.get(at..at.checked_add(FRAME_HEADER_BYTES + len)?)?;
        let end = offset + (FRAME_HEADER_BYTES + len).next_multiple_of(8) as u64;
        let frame = Self {
            offset,
            end,
            first_sequence: u64_at(bytes, 16)?,
            batches: u32_at(bytes, 24)?,
            durable: Mark { segment: u64_at(bytes, 32)?, offset: u64_at(bytes, 40)? },
            payload: &bytes[FRAME_HEADER_BYTES..],
        };
        Some((frame, bytes))
    }

    /// The batches in it, or none when the payload is not made of batches.
    pub(crate) fn log_batches(&self) -> Option<Vec<LogBatch<'a>>> {
        if !(1..=SEQUENCE_MAX).contains(&self.first_sequence) {
            return None;
        }
        let mut rest = self.payload;
        let mut sequence = self.first_sequence;
        let mut batches = Vec::new();
        for _ in 0..self.batches {
            let head = take(&mut rest, 8)?;
            let count = u32_at(head, 0)?;
            let bytes = take(&mut rest, u32_at(head, 4)? as usize)?;
            batches.push(LogBatch { first_sequence: sequence, ops: Ops::checked(bytes, count)? });
            sequence = sequence.checked_add(u64::from(count))?;
        }
        // Beyond the last sequence nothing can be counted on, nor counted.
        (rest.is_empty() && sequence <= SEQUENCE_MAX).then_some(batches)
    }
}

/// The frames of a file from an offset on, up to the first that does not prove itself.
pub(crate) struct Frames<'a> {
    pub(crate) file: &'a [u8],
    pub(crate) id: u64,
    pub(crate) offset: u64,
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;
    fn next(&mut self) -> Option<Frame<'a>> {
        let frame = Frame::at(self.file, self.offset, self.id)?;
        self.offset = frame.end;
        Some(frame)
    }
}

/// The first frame that proves itself after `offset`, however far.
pub(crate) fn next_frame(file: &[u8], offset: u64, id: u64) -> Option<Frame<'_>> {
    let first = offset.next_multiple_of(8);
    (first..file.len() as u64).step_by(8).find_map(|at| Frame::at(file, at, id))
}
