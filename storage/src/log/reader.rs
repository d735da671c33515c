//! Reading a segment back: its good frames, and its holes.

use super::record::{Batches, FRAME_HEADER_BYTES, Frame, Mark};
use super::writer::SEGMENT_MAGIC;
use crate::codec::{bytes, take};
use crate::disk::DiskFile;
use crate::key::KeyRange;
use crate::limits::SEQUENCE_MAX;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// A segment as it stands on the disk.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) id: u64,
    file: Arc<dyn DiskFile>,
    /// The size of the file.
    pub(crate) len: u64,
}

/// What a segment says next.
pub(crate) enum Event<'a> {
    /// A frame behind the header, and the batches in it.
    Frame(Frame<'a>, Batches<'a>),
    /// Here a frame should stand, but none proves itself.
    Hole(u64),
}

/// Walks over a segment: its good frames and its holes, in the order in which they stand. The bytes
/// are read a piece at a time into memory that is used again, so that they are still in the
/// processor's cache when they are looked at: fresh memory costs more than all that is done with it.
pub(crate) struct Reading<'s, 'p> {
    segment: &'s Segment,
    pieces: &'p mut Pieces,
    at: u64,
    hole_was_told: bool,
    /// The greatest durable mark in any good frame so far.
    pub(crate) durable: Mark,
    /// Where the last good frame so far ends.
    pub(crate) end: u64,
}

/// A part of a file in memory.
pub(crate) struct Pieces {
    buffer: Vec<u8>,
    /// Where in the file it starts, and how much of the buffer is of the file.
    start: u64,
    filled: usize,
    /// So much is read at a time, or more where one frame is longer.
    piece_bytes: usize,
    again: Option<Again>,
}

/// What of a segment is written once more while it is read, without a change. It costs least while the
/// piece is in the processor's cache.
#[derive(Clone, Copy)]
struct Again {
    /// So much was written, from the start.
    written: u64,
    /// So much may be: whole frames, with no hole between, and nobody ever synced.
    good: u64,
    ended: bool,
}

/// Where in a frame stands what tells it from those of other lives and places.
const TAG_AT: usize = 8;
/// Bytes that are read at a time: they fit into a processor's cache and are worth a call.
pub(crate) const PIECE_BYTES: usize = 256 << 10;
/// Enough for the header of a segment whose range has short keys.
const HEADER_BYTES: usize = 512;

impl Segment {
    pub(crate) fn of(file: Arc<dyn DiskFile>, number: u64, id: u64) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self { number, id, file, len })
    }

    /// The bytes that a frame at `offset` would take: what its head claims, or those of the head.
    pub(crate) fn claim(&self, offset: u64) -> io::Result<Range<u64>> {
        let left = self.len.saturating_sub(offset).min(Frame::HEAD_BYTES as u64);
        let mut head = vec![0; usize::try_from(left).expect("at most a head")];
        self.file.read_at(&mut head, offset)?;
        let claimed = Frame::claimed(&head, offset, self.id).map_or(0, |claimed| claimed.bytes);
        Ok(offset..offset.saturating_add(claimed.max(head.len()) as u64))
    }

    /// First sequence and key range, from the segment's first bytes; none when those do not prove
    /// themselves.
    pub(crate) fn header(&self) -> io::Result<Option<(u64, KeyRange)>> {
        let mut bytes = Vec::new();
        let mut wanted = HEADER_BYTES;
        loop {
            let len = self.len.min(wanted as u64);
            bytes.resize(usize::try_from(len).expect("a header fits in memory"), 0);
            self.file.read_at(&mut bytes, 0)?;
            wanted = match Frame::claimed(&bytes, 0, self.id) {
                Some(claimed) if claimed.bytes > bytes.len() => claimed.bytes,
                _ => return Ok(Frame::at(&bytes, 0, self.id).and_then(|f| parse_header(&f))),
            };
            if wanted > HEADER_BYTES_MAX || wanted as u64 > self.len {
                return Ok(None);
            }
        }
    }

    /// As [`Segment::read`]. As long as neither a hole nor a durable mark was met, what was read is written
    /// again; [`Reading::written`] says how far that came.
    pub(crate) fn read_and_write<'s, 'p>(&'s self, pieces: &'p mut Pieces) -> Reading<'s, 'p> {
        let reading = self.read(pieces);
        reading.pieces.again = Some(Again { written: 0, good: 0, ended: false });
        reading
    }

    /// Walks over the frames and holes, from the start.
    pub(crate) fn read<'s, 'p>(&'s self, pieces: &'p mut Pieces) -> Reading<'s, 'p> {
        (pieces.filled, pieces.again) = (0, None);
        Reading {
            segment: self,
            pieces,
            at: 0,
            hole_was_told: false,
            durable: Mark::default(),
            end: 0,
        }
    }
}

impl Default for Pieces {
    fn default() -> Self {
        Self::of(PIECE_BYTES)
    }
}

impl Pieces {
    fn of(piece_bytes: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, filled: 0, piece_bytes, again: None }
    }

    /// The bytes of `segment` from `offset` on: at least `wanted`, or all that there are.
    #[inline]
    fn view(&mut self, segment: &Segment, offset: u64, wanted: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(segment.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = wanted.min(left);
        let inside = offset.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let have = inside.and_then(|at| self.filled.checked_sub(at)).unwrap_or(0);
        if have < wanted || inside.is_none_or(|at| at > self.filled) {
            return self.load(segment, offset, wanted, left);
        }
        Ok(&self.buffer[inside.unwrap_or(0)..self.filled])
    }

    /// Reads on, and keeps what of the part before is behind `offset`.
    #[cold]
    fn load(
        &mut self,
        segment: &Segment,
        offset: u64,
        wanted: usize,
        left: usize,
    ) -> io::Result<&[u8]> {
        self.write_again(segment);
        let kept = (self.start..=self.start + self.filled as u64).contains(&offset);
        let from =
            if kept { usize::try_from(offset - self.start).unwrap_or(0) } else { self.filled };
        self.buffer.copy_within(from..self.filled, 0);
        let kept = self.filled - from;
        // Nothing counts if the disk refuses.
        self.filled = 0;
        let len = wanted.max(self.piece_bytes).min(left);
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
        if kept < len {
            segment.file.read_at(&mut self.buffer[kept..len], offset + kept as u64)?;
        }
        (self.start, self.filled) = (offset, len);
        Ok(&self.buffer[..len])
    }
}

impl Pieces {
    /// All up to `end` is good; so far the stream was durable.
    fn note_good(&mut self, end: u64, durable: Mark) {
        if let Some(again) = &mut self.again {
            again.ended |= durable != Mark::default();
            again.good = if again.ended { again.good } else { end };
        }
    }

    fn note_hole(&mut self) {
        self.again.iter_mut().for_each(|again| again.ended = true);
    }

    /// Writes what is good and still here.
    fn write_again(&mut self, segment: &Segment) {
        let Some(again) = &mut self.again else { return };
        let end = again.good.min(segment.len);
        let from = again.written.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let to = end.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let (Some(from), Some(to)) = (from, to) else { return };
        let bytes = self.buffer[..self.filled].get(from..to).filter(|bytes| !bytes.is_empty());
        let Some(bytes) = bytes else { return };
        match segment.file.write_at(bytes, again.written) {
            Ok(()) => again.written = end,
            // Whoever writes the rest will say what is wrong.
            Err(e) => {
                tracing::debug!(error = %e, "a log segment is not written while it is read");
                self.again = Some(Again { good: again.written, ended: true, ..*again });
            }
        }
    }
}

/// Where a step of a [`Reading`] came to.
enum Step {
    Frame { offset: u64, bytes: usize },
    Hole(u64),
    End,
}

impl Reading<'_, '_> {
    /// How many of the segment's bytes were written again so far, if that was asked for.
    pub(crate) fn written(&mut self) -> u64 {
        self.pieces.write_again(self.segment);
        self.pieces.again.map_or(0, |again| again.written)
    }

    /// The next frame or hole, until the segment ends. Never fails for what it reads, only where the
    /// disk does.
    pub(crate) fn next(&mut self) -> io::Result<Option<Event<'_>>> {
        let (offset, bytes) = match self.step()? {
            Step::Frame { offset, bytes } => (offset, bytes),
            Step::Hole(at) => return Ok(Some(Event::Hole(at))),
            Step::End => return Ok(None),
        };
        let bytes = self.pieces.view(self.segment, offset, bytes)?;
        let frame = Frame::proved(bytes, offset, self.segment.id);
        // The checksum may hold and the content be no batch: not ours to guess.
        let batches = frame.and_then(|frame| Some((frame, frame.log_batches()?)));
        Ok(Some(batches.map_or(Event::Hole(offset), |(f, batches)| Event::Frame(f, batches))))
    }

    fn step(&mut self) -> io::Result<Step> {
        loop {
            let offset = self.at;
            if let Some((frame, bytes)) = self.prove(offset)? {
                let (end, durable) = (frame.end, frame.durable);
                (self.at, self.end) = (end, end);
                self.durable = self.durable.max(durable);
                self.hole_was_told = false;
                self.pieces.note_good(end, self.durable);
                if offset > 0 {
                    return Ok(Step::Frame { offset, bytes });
                }
                continue;
            }
            if offset >= self.segment.len && offset > 0 {
                return Ok(Step::End);
            }
            if !self.hole_was_told {
                self.hole_was_told = true;
                self.pieces.note_hole();
                return Ok(Step::Hole(offset));
            }
            self.at = self.search(offset + 1)?.unwrap_or(u64::MAX);
        }
    }

    /// The frame at `offset`, if one proves itself there, and its bytes.
    fn prove(&mut self, offset: u64) -> io::Result<Option<(Frame<'_>, usize)>> {
        let Self { segment, pieces, .. } = self;
        let head = pieces.view(segment, offset, Frame::HEAD_BYTES)?;
        let Some(claimed) = Frame::claimed(head, offset, segment.id) else { return Ok(None) };
        let left = segment.len.saturating_sub(offset);
        // No memory for what cannot be.
        if claimed.bytes as u64 > left {
            return Ok(None);
        }
        let bytes = pieces.view(segment, offset, claimed.bytes)?;
        Ok(Frame::starting(bytes, offset, segment.id).map(|frame| (frame, claimed.bytes)))
    }

    /// Where the first frame from `offset` on proves itself, however far.
    ///
    /// Each claim is proved by itself, which takes the square of what is searched where claims stand in
    /// each other. Chance makes one claim in 16 GiB, and nobody else can make any who cannot guess
    /// the stream's number (`new_streams`); in logs from before those were chance that is accepted.
    fn search(&mut self, offset: u64) -> io::Result<Option<u64>> {
        let mut at = offset.next_multiple_of(4);
        loop {
            let bytes = self.pieces.view(self.segment, at, TAG_AT + 8)?;
            let Some(last) = bytes.len().checked_sub(TAG_AT + 8) else { return Ok(None) };
            let Some(i) = first_claim(bytes, at, self.segment.id) else {
                at += (last / 4 * 4 + 4) as u64;
                continue;
            };
            at += i as u64;
            if self.prove(at)?.is_some() {
                return Ok(Some(at));
            }
            at += 4;
        }
    }
}

/// The first multiple of four at which `bytes`, which stand at `offset`, claim to be a frame. What is
/// searched is mostly the former life of a file, so many words are looked at together first.
fn first_claim(bytes: &[u8], offset: u64, id: u64) -> Option<usize> {
    const TOGETHER: usize = 64;
    let last = bytes.len().checked_sub(TAG_AT + 8)?;
    let is_claim = |i: &usize| Frame::claimed(&bytes[*i..], offset + *i as u64, id).is_some();
    let mut at = 0;
    while let Some(words) = bytes.get(at + TAG_AT..at + TAG_AT + 4 * TOGETHER) {
        let from = offset + at as u64;
        // What the tag of a frame at place 0 would be, and the low half of what stands there in a
        // wide one. Both change as the place does, but for where its upper half changes.
        let (slim, wide) = (Frame::tag(id, from & !0xffff_ffff), id as u32);
        let changes = from >> 32 != (from + 4 * TOGETHER as u64) >> 32;
        let mut any = changes;
        for (i, word) in words.chunks_exact(4).enumerate() {
            let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            let at_zero = word ^ (from as u32).wrapping_add(4 * i as u32);
            any |= (at_zero == slim) | (at_zero == wide);
        }
        if any && let Some(i) = (at..(at + 4 * TOGETHER).min(last + 1)).step_by(4).find(is_claim) {
            return Some(i);
        }
        at += 4 * TOGETHER;
    }
    (at..=last).step_by(4).find(is_claim)
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

/// Bytes that surely hold a whole header.
pub(crate) const HEADER_BYTES_MAX: usize =
    FRAME_HEADER_BYTES + 8 + 8 + 2 * (crate::limits::KEY_BYTES_MAX + 10) + 8;

#[cfg(test)]
mod tests {
    use super::super::record::{SLIM_HEADER_BYTES_MAX, encode_frame, encode_slim};
    use super::super::segment_header;
    use super::*;
    use crate::batch::Batch;
    use crate::codec::scatter;
    use crate::disk::{Disk, MemoryDisk};

    fn batch(i: u64) -> Batch {
        let mut batch = Batch::new();
        batch.put(format!("key {i}").as_bytes(), &[7; 100]);
        batch.delete(b"other");
        batch
    }

    fn segment(id: u64, bytes: &[u8]) -> Segment {
        let disk = MemoryDisk::new(0);
        disk.create("a").expect("memory").write_at(bytes, 0).expect("memory");
        disk.open("a").and_then(|file| Segment::of(file, 1, id)).expect("it is there")
    }

    /// What was read: the first sequences of all batches with how many changes each has, the places of
    /// the frames, those of the holes, the durable mark, and the end.
    type Read = (Vec<(u64, usize)>, Vec<u64>, Vec<u64>, Mark, u64);

    /// Reads `segment` in pieces of `piece_bytes`.
    fn read(segment: &Segment, piece_bytes: usize) -> Read {
        let mut pieces = Pieces::of(piece_bytes);
        let mut reading = segment.read(&mut pieces);
        let (mut all, mut frames, mut holes) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(event) = reading.next().expect("memory") {
            match event {
                Event::Hole(at) => holes.push(at),
                Event::Frame(frame, batches) => {
                    frames.push(frame.offset);
                    let batches = batches.into_iter();
                    all.extend(batches.map(|b| (b.first_sequence(), b.ops().count())));
                }
            }
        }
        (all, frames, holes, reading.durable, reading.end)
    }

    /// The same, by what the format says and with the whole file in memory.
    fn read_plainly(file: &[u8], id: u64) -> Read {
        let mut read = Read::default();
        let mut at = 0;
        loop {
            while let Some(frame) = Frame::at(file, at, id) {
                if at > 0 {
                    match frame.log_batches() {
                        Some(batches) => {
                            let batches = batches.into_iter();
                            read.0.extend(batches.map(|b| (b.first_sequence(), b.ops().count())));
                            read.1.push(at);
                        }
                        None => read.2.push(at),
                    }
                }
                (read.3, read.4) = (read.3.max(frame.durable), frame.end);
                at = frame.end;
            }
            if at >= file.len() as u64 && at > 0 {
                return read;
            }
            read.2.push(at);
            let first = (at + 1).next_multiple_of(4);
            let mut places = (first..file.len() as u64).step_by(4);
            let Some(next) = places.find(|at| Frame::at(file, *at, id).is_some()) else {
                return read;
            };
            at = next;
        }
    }

    /// A segment with frames of many sizes, some of them marked, one no batch.
    fn sample(id: u64, chance: &mut u64) -> Vec<u8> {
        let mut next = |n: u64| {
            *chance = scatter(*chance);
            *chance % n
        };
        let range = KeyRange { lower: b"a".to_vec(), upper: None };
        let mut bytes = segment_header(id, 1, &range, Mark::default());
        for i in 1..=next(20) {
            let mut frame = vec![0; SLIM_HEADER_BYTES_MAX];
            for _ in 0..=next(3) {
                let mut batch = Batch::new();
                batch.put(&i.to_be_bytes(), &vec![7; next(400) as usize]);
                frame.push(1);
                frame.extend_from_slice(batch.bytes());
            }
            if next(8) == 0 {
                frame.push(9);
            }
            let durable = (next(3) == 0).then_some(Mark { segment: 1, offset: i });
            let start = encode_slim(&mut frame, id, bytes.len() as u64, 3 * i, durable);
            bytes.extend_from_slice(&frame[start..]);
        }
        bytes
    }

    #[test]
    fn pieces_of_any_size_show_what_the_whole_file_shows() {
        let mut chance = 1;
        for round in 0..200 {
            let (id, other) = (scatter(round), scatter(!round));
            let mut bytes = sample(id, &mut chance);
            // Behind it stands nothing, zeros, or what is left of a former life.
            match round % 3 {
                0 => bytes.resize(bytes.len() + 700, 0),
                1 => {
                    let old = sample(other, &mut chance);
                    bytes.extend_from_slice(old.get(bytes.len()..).unwrap_or_default());
                }
                _ => {}
            }
            for _ in 0..round % 4 {
                chance = scatter(chance);
                let at = (chance % bytes.len() as u64) as usize;
                let end = bytes.len().min(at + 1 + (chance >> 32) as usize % 60);
                bytes[at..end].fill((chance >> 16) as u8);
            }
            let expected = read_plainly(&bytes, id);
            let segment = segment(id, &bytes);
            for piece_bytes in [1, 48, 61, 64, 500, 4096, PIECE_BYTES] {
                assert_eq!(read(&segment, piece_bytes), expected, "{round}: {piece_bytes} a piece");
            }
            let header = Frame::at(&bytes, 0, id).and_then(|frame| parse_header(&frame));
            assert_eq!(segment.header().expect("memory"), header);
        }
    }

    #[test]
    fn claims_are_found_wherever_they_stand() {
        let id = 0x1234_5678_9abc_def0;
        for offset in [0, 4096, (1 << 32) - 800, (1 << 32) - 4, 1 << 32, (5 << 32) + 12] {
            for i in (0..1200).step_by(4) {
                let mut bytes = vec![0; 1216];
                let at = offset + i as u64;
                bytes[i + TAG_AT..i + TAG_AT + 4]
                    .copy_from_slice(&Frame::tag(id, at).to_le_bytes());
                assert_eq!(first_claim(&bytes, offset, id), Some(i), "a slim one, {offset} {i}");
                bytes[i + TAG_AT..i + TAG_AT + 8].copy_from_slice(&(id ^ at).to_le_bytes());
                assert_eq!(first_claim(&bytes, offset, id), Some(i), "a wide one, {offset} {i}");
                bytes[i + TAG_AT + 4] ^= 1;
                assert_eq!(first_claim(&bytes, offset, id), None, "none, {offset} {i}");
            }
        }
    }

    #[test]
    fn a_length_that_lies_asks_for_no_memory() {
        let (id, range) = (5, KeyRange { lower: Vec::new(), upper: None });
        let mut bytes = segment_header(id, 1, &range, Mark::default());
        let at = bytes.len();
        let mut frame = vec![0; SLIM_HEADER_BYTES_MAX];
        frame.push(0);
        let start = encode_slim(&mut frame, id, at as u64, 1, None);
        bytes.extend_from_slice(&frame[start..]);
        bytes[at..at + 4].copy_from_slice(&(70u32 << 20).to_le_bytes());
        let segment = segment(id, &bytes);
        let mut pieces = Pieces::of(64);
        let mut reading = segment.read(&mut pieces);
        assert!(matches!(reading.next(), Ok(Some(Event::Hole(_)))));
        assert!(matches!(reading.next(), Ok(None)) && matches!(reading.next(), Ok(None)));
        assert!(pieces.buffer.len() <= 64);
    }

    #[test]
    fn a_header_with_long_keys_is_found() {
        let range = KeyRange { lower: vec![b'a'; 3000], upper: Some(vec![b'b'; 60_000]) };
        let bytes = segment_header(9, 77, &range, Mark::default());
        let segment = segment(9, &bytes);
        assert_eq!(segment.header().expect("memory"), Some((77, range)));
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
        let segment = segment(id, &bytes);
        assert_eq!(segment.header().expect("memory"), Some((5, range)));
        let (batches, _, holes, durable, end) = read(&segment, PIECE_BYTES);
        assert!(holes.is_empty() && end == bytes.len() as u64);
        assert_eq!(durable, Mark { segment: 1, offset: 2 });
        assert_eq!(batches, [(5, 2), (7, 2), (9, 2), (11, 2), (13, 2), (15, 2)]);
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
        let (batches, _, _, durable, _) = read(&segment(id, &bytes), PIECE_BYTES);
        assert_eq!(batches, [(1, 1), (2, 1), (3, 1)]);
        assert_eq!(durable, Mark { segment: 1, offset: 60 });
        for bit in 8 * header_end..8 * bytes.len() {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (_, frames, holes, ..) = read(&segment(id, &bytes), 64);
            assert_eq!((frames.len(), holes.len()), (2, 1), "bit {bit}");
        }
        // Elsewhere, or in another life, it is no frame.
        let none = |id, bytes| read(&segment(id, bytes), 64).1.is_empty();
        assert!(none(id, &bytes[4..]) && none(id + 1, &bytes));
    }
}
