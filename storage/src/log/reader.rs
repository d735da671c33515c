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

#[cfg(test)]
mod tests {
    use super::super::record::{SLIM_HEADER_BYTES_MAX, encode_frame, encode_slim};
    use super::super::segment_header;
    use super::*;
    use crate::batch::Batch;

    fn batch(i: u64) -> Batch {
        let mut batch = Batch::new();
        batch.put(format!("key {i}").as_bytes(), &[7; 100]);
        batch.delete(b"other");
        batch
    }

    /// First sequences of all batches, and how many changes each has.
    fn batches(segment: &Segment, reading: &Reading) -> Vec<(u64, usize)> {
        let frames = reading.frames.iter().map(|at| segment.frame(*at));
        let all = frames.flat_map(|frame| frame.log_batches().expect("a frame of the log"));
        all.map(|batch| (batch.first_sequence(), batch.ops().count())).collect()
    }

    #[test]
    fn segments_of_the_format_before_are_read() {
        let id = 0x1234_5678_9abc_def0;
        let range = KeyRange { lower: b"a".to_vec(), upper: None };
        let mut header = vec![0; FRAME_HEADER_BYTES];
        header.extend_from_slice(SEGMENT_MAGIC);
        header.extend_from_slice(&5u64.to_le_bytes());
        header.extend_from_slice(&[1, b'a', 0, 0]);
        encode_frame(&mut header, id, 0, 5, 0, Mark::default());
        let mut bytes = header;
        for i in 0..3u64 {
            let mut frame = vec![0; FRAME_HEADER_BYTES];
            for part in 0..2 {
                let batch = batch(10 * i + part);
                frame.extend_from_slice(&(batch.len() as u32).to_le_bytes());
                frame.extend_from_slice(&(batch.encoded_len() as u32).to_le_bytes());
                frame.extend_from_slice(batch.bytes());
            }
            let durable = Mark { segment: 1, offset: i };
            encode_frame(&mut frame, id, bytes.len() as u64, 5 + 4 * i, 2, durable);
            bytes.extend_from_slice(&frame);
        }
        let segment = Segment { number: 1, id, bytes };
        let reading = read_segment(&segment);
        assert_eq!(reading.header, Some((5, range)));
        assert!(reading.holes.is_empty() && reading.end == segment.bytes.len() as u64);
        assert_eq!(reading.durable, Mark { segment: 1, offset: 2 });
        assert_eq!(
            batches(&segment, &reading),
            [(5, 2), (7, 2), (9, 2), (11, 2), (13, 2), (15, 2)]
        );
    }

    #[test]
    fn every_bit_of_a_slim_frame_counts_and_it_costs_little() {
        let (id, range) = (0x1234_5678_9abc_def0, KeyRange { lower: Vec::new(), upper: None });
        let mut bytes = segment_header(id, 1, &range, Mark::default());
        let header_end = bytes.len();
        for (i, durable) in [(1, None), (2, Some(Mark { segment: 1, offset: 60 })), (3, None)] {
            let mut frame = vec![0; SLIM_HEADER_BYTES_MAX];
            frame.push(1);
            let mut batch = Batch::new();
            batch.put(&[b'k'; 16], &[7; 100]);
            frame.extend_from_slice(batch.bytes());
            let start = encode_slim(&mut frame, id, bytes.len() as u64, i, durable);
            bytes.extend_from_slice(&frame[start..]);
        }
        assert_eq!(bytes.len() - header_end, 3 * 140 + 16, "a row of 116 bytes takes 140");
        let segment = |bytes| Segment { number: 1, id, bytes };
        let whole = segment(bytes.clone());
        let reading = read_segment(&whole);
        assert_eq!(batches(&whole, &reading), [(1, 1), (2, 1), (3, 1)]);
        assert_eq!(reading.durable, Mark { segment: 1, offset: 60 });
        for bit in 8 * header_end..8 * bytes.len() {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let reading = read_segment(&segment(bytes));
            assert_eq!((reading.frames.len(), reading.holes.len()), (2, 1), "bit {bit}");
        }
        // Elsewhere, or in another life, it is no frame.
        assert!(
            next_frame(&bytes[4..], 0, id).is_none() && next_frame(&bytes, 0, id + 1).is_none()
        );
    }
}
