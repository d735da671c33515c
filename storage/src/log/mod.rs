//! The write-ahead log: what was done, in order, before it reaches a table.
//!
//! A segment's file is often longer than what was written to it: it was made ready before (see
//! `spares`), and behind the last frame stand zeros or frames of its former life.
//!
//! Each shard of each run writes its own *stream*; a stream is a row of *segments* (files); a
//! segment is a header and *frames*, one frame a commit. A frame says how far the stream was known
//! to be durable when it was written; so a reader can tell a torn tail (nobody was promised
//! anything) from damage (somebody was).
//!
//! ```text
//! segment = header frame*            name: <stream>-<segment>.log, each at least 10 digits
//! header  = frame whose payload is   "RINGLOG1" first_sequence lower has_upper upper
//! frame   = len u32 (bit 31: with a mark) | crc32 u32 (of everything else) | tag u32 |
//!           first sequence u64 | mark? | payload | zeros up to a multiple of 4
//! mark    = durable segment u64 | durable offset u64
//! payload = (changes varint | changes as in a Batch)*
//! ```

mod ahead;
mod reader;
mod record;
mod spares;
mod writer;

pub(crate) use reader::{Event, PIECE_BYTES, Pieces, Segment};
pub(crate) use record::{FRAME_HEADER_BYTES, Frames, Mark, encode_frame, next_frame};
pub(crate) use spares::Spares;
pub use writer::SyncHandle;
pub(crate) use writer::{LogWriter, Planted, SegmentInfo, Stream, segment_header};

use crate::limits::SEQUENCE_MAX;
use std::collections::BTreeSet;
use std::io;

/// A place in the log after a batch. Ordered within a stream by what was written first; streams
/// of later runs come after those of earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogPosition {
    /// The stream: one for each shard of each run. The upper half counts the runs, the lower is chance.
    pub stream: u64,
    /// Sequence of the last change before this place; 0 at the start of a stream.
    pub sequence: u64,
}

/// File name of a segment.
pub(crate) fn segment_name(stream: u64, segment: u64) -> String {
    format!("{stream:010}-{segment:010}.log")
}

/// Stream and segment number of a file name, if it names a segment.
pub(crate) fn parse_segment_name(name: &str) -> Option<(u64, u64)> {
    let (stream, segment) = name.strip_suffix(".log")?.split_once('-')?;
    let (stream, segment) = (stream.parse().ok()?, segment.parse().ok()?);
    // What is spelled otherwise nobody wrote, and it would not be found again.
    let is_ours = stream < SEQUENCE_MAX && segment_name(stream, segment) == name;
    is_ours.then_some((stream, segment))
}

/// So many numbers more are drawn where some came twice.
const DRAWS_MORE: usize = 64;

/// Numbers for `count` streams, ascending, where all before are below `next`: the upper half is one
/// more than that of any before, the lower half is chance.
///
/// Chance, because a client's value stands in the log as it is. It may hold frames, well made for the
/// places where they stand, and they are looked at where a power loss tears the write before them, and
/// at each start where they are what the former life of a file left behind the end of the log. What
/// a client cannot make is their tag: 32 bits that depend on all of the segment's id ([`segment_id`]),
/// which depends on all of the stream's number. To him each tag is as likely as any other, so a
/// frame of his passes once in 2^32, and more chance in the number would not make that less. A file of
/// 64 MiB, of nothing but the shortest such frames, holds two and a half million guesses: one start in 1800 for
/// each stream that ends in such a file. He does not learn what he should have guessed, and the next run has
/// another number. (Less would take a wider proof for what is found behind a hole, and another format.)
///
/// The number is in the files' names, so that neither a manifest nor a header that is lost takes more
/// of the log with it.
pub(crate) fn new_streams(
    next: u64,
    count: usize,
    random: &mut dyn FnMut() -> io::Result<u64>,
) -> io::Result<Vec<u64>> {
    let run = next.div_ceil(1 << 32).max(1);
    if run >= SEQUENCE_MAX >> 32 {
        // After 16 million runs there is no more to count: they go on from the last chance.
        return Ok((next..).take(count).collect());
    }
    let mut streams = BTreeSet::new();
    for _ in 0..count + DRAWS_MORE {
        if streams.len() == count {
            break;
        }
        streams.insert(run << 32 | random()? & u64::from(u32::MAX));
    }
    if streams.len() < count {
        return Err(io::Error::other("the disk gives the same numbers for chance again and again"));
    }
    Ok(streams.into_iter().collect())
}

/// What distinguishes the frames of this life of a file from any older content of its blocks, and from
/// what a client makes.
/// `planted`: a test planted the bug that all lives have the same.
pub(crate) fn segment_id(stream: u64, segment: u64, planted: bool) -> u64 {
    if planted {
        return 0x5eed_5eed_5eed_5eed;
    }
    crate::codec::scatter(crate::codec::scatter(stream) ^ segment.rotate_left(32))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::record::Frame;
    use super::*;
    use crate::codec::scatter;

    #[test]
    fn streams_of_later_runs_have_greater_numbers_and_none_can_be_told_from_those_before() {
        let mut chance = 7;
        let mut random = || {
            chance = scatter(chance);
            Ok(chance)
        };
        // As a store begins, and as older stores counted.
        for begin in [0, 1, 25, u64::from(u32::MAX), 1 << 32, (1 << 32) + 1] {
            let (mut next, mut low) = (begin, BTreeSet::new());
            for _ in 0..50 {
                let streams = new_streams(next, 4, &mut random).unwrap();
                assert!(streams.is_sorted() && streams[0] >= next.max(1 << 32));
                assert!(streams.iter().all(|stream| stream >> 32 == streams[0] >> 32));
                low.extend(streams.iter().map(|stream| stream & u64::from(u32::MAX)));
                let run = streams[0] >> 32;
                next = streams[3] + 1;
                assert!(run <= begin.div_ceil(1 << 32) + 50, "one for each run");
            }
            assert_eq!(low.len(), 200);
        }
        let last = (SEQUENCE_MAX >> 32) - 1;
        for (next, from) in [(last << 32, last << 32), ((last << 32) + 5, (last << 32) + 5)] {
            assert!(new_streams(next, 2, &mut random).unwrap()[0] >= from);
        }
        assert_eq!(new_streams((last << 32) + 5, 2, &mut random).unwrap()[1], (last << 32) + 6);
        let mut refused = || Err(io::Error::other("no chance"));
        assert!(new_streams(1, 1, &mut refused).is_err());
        assert!(new_streams(1, 1, &mut || Ok(4)).is_ok());
        assert!(new_streams(1, 2, &mut || Ok(4)).is_err(), "not for ever");
    }

    #[test]
    fn a_name_is_a_segment_s_only_as_it_is_written() {
        for (stream, segment) in [(0, 1), (3, 2), ((1 << 32) + 77, 1), (SEQUENCE_MAX - 1, 1 << 40)]
        {
            let name = segment_name(stream, segment);
            assert_eq!(parse_segment_name(&name), Some((stream, segment)), "{name}");
            assert_eq!(parse_segment_name(&format!("0{name}")), None);
        }
        let other = ["1-1.log", "+000000001-0000000001.log", "18446744073709551615-0000000001.log"];
        assert!(other.iter().all(|name| parse_segment_name(name).is_none()));
    }

    #[test]
    fn each_bit_of_a_stream_s_number_changes_half_of_what_tells_its_frames() {
        let tag = |stream| Frame::tag(segment_id(stream, 1, false), 4096);
        let changed = |stream: u64, bit: u32| (tag(stream) ^ tag(stream ^ 1 << bit)).count_ones();
        for bit in 0..56 {
            let all: u32 = (0..200).map(|i| changed(scatter(i) >> 8, bit)).sum();
            assert!((2900..3500).contains(&all), "bit {bit}: {all} of {}", 200 * 32);
        }
        for bit in 0..64 {
            assert_ne!(Frame::tag(1 << bit, 0), Frame::tag(0, 0), "bit {bit} of an id");
        }
    }
}
