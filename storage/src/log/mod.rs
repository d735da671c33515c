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
//! segment = header frame*            name: <stream>-<segment>.log, both 10 digits
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

/// A place in the log after a batch. Ordered within a stream by what was written first; streams
/// of later runs come after those of earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogPosition {
    /// The stream: one for each shard of each run.
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
    Some((stream.parse().ok()?, segment.parse().ok()?))
}

/// What distinguishes the frames of this life of a file from any older content of its blocks.
/// `planted`: a test planted the bug that all lives have the same.
pub(crate) fn segment_id(stream: u64, segment: u64, planted: bool) -> u64 {
    if planted {
        return 0x5eed_5eed_5eed_5eed;
    }
    crate::codec::scatter(crate::codec::scatter(stream) ^ segment.rotate_left(32))
}
