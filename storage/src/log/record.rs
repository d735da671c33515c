//! Frames: bytes that prove themselves.
//!
//! Slim ones are what the log is made of; wide ones, the manifest, and what logs were made of before.

use crate::batch::{LogBatch, Ops};
use crate::codec::{take, u32_at, u64_at, varint32};
use crate::limits::{FRAME_BYTES_MAX, SEQUENCE_MAX};

/// Bytes before the payload of a wide frame.
pub(crate) const FRAME_HEADER_BYTES: usize = 48;
/// Bytes before the payload of a slim frame, and of the mark that it may have between them and it.
const SLIM_BYTES: usize = 20;
const MARK_BYTES: usize = 16;
/// Room for all of a slim frame that is not payload.
pub(crate) const SLIM_HEADER_BYTES_MAX: usize = SLIM_BYTES + MARK_BYTES;
/// In the length of a slim frame: there is a mark.
const WITH_MARK: u32 = 1 << 31;

/// How far a stream is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Mark {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

/// What claims to be a frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    /// How long it would be, as far as its checksum reaches.
    pub(crate) bytes: usize,
    slim: bool,
}

/// The batches of a frame. Most frames have one, which costs no memory.
#[derive(Debug)]
pub(crate) struct Batches<'a> {
    first: Option<LogBatch<'a>>,
    rest: Vec<LogBatch<'a>>,
}

impl<'a> IntoIterator for Batches<'a> {
    type Item = LogBatch<'a>;
    type IntoIter =
        std::iter::Chain<std::option::IntoIter<LogBatch<'a>>, std::vec::IntoIter<LogBatch<'a>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.rest)
    }
}

/// A frame that proved itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) offset: u64,
    /// Where the next frame stands.
    pub(crate) end: u64,
    pub(crate) first_sequence: u64,
    /// Slim frames do not say.
    pub(crate) batches: Option<u32>,
    /// The start of everything where the frame does not say.
    pub(crate) durable: Mark,
    pub(crate) payload: &'a [u8],
}

/// Fills in the header of a slim frame in `buffer`, whose payload starts at [`SLIM_HEADER_BYTES_MAX`],
/// and pads it; where the frame starts.
pub(crate) fn encode_slim(
    buffer: &mut Vec<u8>,
    id: u64,
    offset: u64,
    first_sequence: u64,
    durable: Option<Mark>,
) -> usize {
    let len = u32::try_from(buffer.len() - SLIM_HEADER_BYTES_MAX).expect("FRAME_BYTES_MAX");
    let start = if durable.is_some() { 0 } else { MARK_BYTES };
    buffer.resize(start + (buffer.len() - start).next_multiple_of(4), 0);
    let frame = &mut buffer[start..];
    let marked = if durable.is_some() { WITH_MARK } else { 0 };
    frame[0..4].copy_from_slice(&(len | marked).to_le_bytes());
    frame[8..12].copy_from_slice(&tag_of(id, offset).to_le_bytes());
    frame[12..20].copy_from_slice(&first_sequence.to_le_bytes());
    if let Some(durable) = durable {
        frame[20..28].copy_from_slice(&durable.segment.to_le_bytes());
        frame[28..36].copy_from_slice(&durable.offset.to_le_bytes());
    }
    let crc = checksum(frame);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    start
}

/// What tells a slim frame from those of another life of its file, or of another place.
#[inline]
fn tag_of(id: u64, offset: u64) -> u32 {
    let both = id ^ offset;
    (both ^ both >> 32) as u32
}

/// Fills in the header of a wide frame in `buffer`, whose payload starts at [`FRAME_HEADER_BYTES`], and pads it.
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
    /// Bytes of a frame that tell how long it claims to be.
    pub(crate) const HEAD_BYTES: usize = FRAME_HEADER_BYTES;

    /// What a slim frame at `offset` has in place of the segment's id.
    pub(crate) fn tag(id: u64, offset: u64) -> u32 {
        tag_of(id, offset)
    }

    /// The frame at `offset` of `file`, if one proves itself there.
    pub(crate) fn at(file: &'a [u8], offset: u64, id: u64) -> Option<Self> {
        Self::starting(file.get(usize::try_from(offset).ok()?..)?, offset, id)
    }

    /// The frame at the front of `bytes`, which stand at `offset` of a file, if one proves itself there.
    #[inline]
    pub(crate) fn starting(bytes: &'a [u8], offset: u64, id: u64) -> Option<Self> {
        let claimed = Self::claimed(bytes, offset, id)?;
        let frame = bytes.get(..claimed.bytes)?;
        if checksum(frame) != u32_at(frame, 4)? {
            return None;
        }
        if claimed.slim { Self::slim(frame, offset) } else { Self::wide(frame, offset) }
    }

    /// The frame at the front of `bytes`, which has proved itself before.
    pub(crate) fn proved(bytes: &'a [u8], offset: u64, id: u64) -> Option<Self> {
        let claimed = Self::claimed(bytes, offset, id)?;
        let frame = bytes.get(..claimed.bytes)?;
        if claimed.slim { Self::slim(frame, offset) } else { Self::wide(frame, offset) }
    }

    /// What would be a frame at the front of `head`, which stands at `offset` of a file, if its checksum
    /// held. [`Frame::HEAD_BYTES`] are enough, or all that the file has there.
    #[inline]
    pub(crate) fn claimed(head: &[u8], offset: u64, id: u64) -> Option<Claim> {
        let tag = u64_at(head, 8)?;
        let len = u32_at(head, 0)?;
        if tag as u32 == tag_of(id, offset) {
            let payload = (len & !WITH_MARK) as usize;
            let head = SLIM_BYTES + if len & WITH_MARK != 0 { MARK_BYTES } else { 0 };
            // The zeros behind count too.
            let bytes = (head + payload).next_multiple_of(4);
            (payload <= FRAME_BYTES_MAX).then_some(Claim { bytes, slim: true })
        } else if tag == id ^ offset {
            let payload = len as usize;
            let bytes = FRAME_HEADER_BYTES + payload;
            let max = FRAME_BYTES_MAX.max(crate::limits::EDIT_BYTES_MAX);
            (payload <= max).then_some(Claim { bytes, slim: false })
        } else {
            None
        }
    }

    fn slim(bytes: &'a [u8], offset: u64) -> Option<Self> {
        let len = u32_at(bytes, 0)?;
        let (head, durable) = if len & WITH_MARK != 0 {
            let durable = Mark { segment: u64_at(bytes, 20)?, offset: u64_at(bytes, 28)? };
            (SLIM_BYTES + MARK_BYTES, durable)
        } else {
            (SLIM_BYTES, Mark::default())
        };
        Some(Self {
            offset,
            end: offset + bytes.len() as u64,
            first_sequence: u64_at(bytes, 12)?,
            batches: None,
            durable,
            payload: bytes.get(head..head + (len & !WITH_MARK) as usize)?,
        })
    }

    fn wide(bytes: &'a [u8], offset: u64) -> Option<Self> {
        Some(Self {
            offset,
            end: offset + bytes.len().next_multiple_of(8) as u64,
            first_sequence: u64_at(bytes, 16)?,
            batches: Some(u32_at(bytes, 24)?),
            durable: Mark { segment: u64_at(bytes, 32)?, offset: u64_at(bytes, 40)? },
            payload: &bytes[FRAME_HEADER_BYTES..],
        })
    }

    /// The batches in it, or none when the payload is not made of batches.
    pub(crate) fn log_batches(&self) -> Option<Batches<'a>> {
        if !(1..=SEQUENCE_MAX).contains(&self.first_sequence) {
            return None;
        }
        let mut rest = self.payload;
        let mut sequence = self.first_sequence;
        let mut batches = Batches { first: None, rest: Vec::new() };
        let mut left = self.batches;
        while left.map_or(!rest.is_empty(), |left| left > 0) {
            let ops = if let Some(left) = &mut left {
                *left -= 1;
                let head = take(&mut rest, 8)?;
                let bytes = take(&mut rest, u32_at(head, 4)? as usize)?;
                Ops::checked(bytes, u32_at(head, 0)?)?
            } else {
                let count = varint32(&mut rest)?;
                Ops::taken(&mut rest, count)?
            };
            let batch = LogBatch { first_sequence: sequence, ops };
            if batches.first.is_none() {
                batches.first = Some(batch);
            } else {
                batches.rest.push(batch);
            }
            sequence = sequence.checked_add(ops.len() as u64)?;
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
    let first = offset.next_multiple_of(4);
    (first..file.len() as u64).step_by(4).find_map(|at| Frame::at(file, at, id))
}
