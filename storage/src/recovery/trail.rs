//! Trail: what is known of a stream's segments while they are replayed.
//!
//! Segments are read once, one after the other. Only where a hole raises a question that what was
//! read cannot answer, what follows is looked at before its turn.

use crate::disk::Patient;
use crate::error::{Error, OpenError};
use crate::key::KeyRange;
use crate::log::{Event, Mark, Pieces, Segment, segment_name};
use std::io;
use std::sync::Arc;

/// A stream of an earlier run.
pub(super) struct Trail {
    pub(super) stream: u64,
    /// The rows that it is about.
    pub(super) range: KeyRange,
    /// The segments that are replayed.
    pub(super) segments: Vec<Footprint>,
    /// The greatest mark found so far, in the log and outside of it.
    durable: Mark,
    /// All segments from this one on may still hold marks.
    unseen: usize,
}

/// A segment, and what reading it showed.
pub(super) struct Footprint {
    pub(super) segment: Segment,
    /// The file that it is read from.
    pub(super) file: Arc<Patient>,
    /// First sequence, unless the header does not prove itself.
    pub(super) header: Option<u64>,
    /// Offset and first sequence of the first frame, once it was met.
    pub(super) first_frame: Option<(u64, u64)>,
    /// Where the last good frame ends, once all were met.
    pub(super) end: u64,
    /// So much of it was written again while it was read.
    pub(super) written: u64,
}

/// The disk refused to show a segment.
pub(super) fn reading(name: &str, e: &io::Error) -> OpenError {
    Error::io(&format!("reading {name}"), e).into()
}

impl Trail {
    /// A stream of which nothing was read but headers. `durable`: how far it is known to be, without
    /// the marks in it.
    pub(super) fn new(
        stream: u64,
        range: KeyRange,
        segments: Vec<Footprint>,
        durable: Mark,
    ) -> Self {
        Self { stream, range, segments, durable, unseen: 0 }
    }

    /// All of segment `i` was read, and in it this mark.
    pub(super) fn saw(&mut self, i: usize, durable: Mark) {
        self.durable = self.durable.max(durable);
        self.unseen = self.unseen.max(i + 1);
    }

    /// Something of it is known to have been durable.
    pub(super) fn was_synced(&self) -> bool {
        self.durable != Mark::default()
    }

    /// How far the stream is known to be durable, by any mark in it.
    pub(super) fn durable(&mut self) -> Result<Mark, OpenError> {
        let mut pieces = Pieces::default();
        for i in self.unseen..self.segments.len() {
            let segment = &self.segments[i].segment;
            let failed = |e| reading(&segment_name(self.stream, segment.number), &e);
            let mut reading = segment.read(&mut pieces);
            while reading.next().map_err(failed)?.is_some() {}
            let durable = reading.durable;
            self.saw(i, durable);
        }
        Ok(self.durable)
    }

    /// True when bytes cannot be read that a frame at `hole` would take. What cannot be read farther
    /// behind is no part of the log: the stream ends before, at a place that can be looked at.
    pub(super) fn is_unreadable(&self, hole: Mark) -> Result<bool, OpenError> {
        let at = self.segments.iter().find(|f| f.segment.number == hole.segment);
        let Some(Footprint { segment, file, .. }) = at else { return Ok(false) };
        let claim = segment.claim(hole.offset);
        let claim = claim.map_err(|e| reading(&segment_name(self.stream, segment.number), &e))?;
        Ok(!claim.is_empty() && file.readable(claim.clone()) != [claim])
    }

    /// The first sequence that the segments from number `i` on know of.
    pub(super) fn next_sequence(&self, i: usize) -> Result<Option<u64>, OpenError> {
        for footprint in self.segments.iter().skip(i) {
            let first = match footprint.header {
                Some(first) => Some(first),
                None => first_frame(&footprint.segment).map_err(|e| {
                    reading(&segment_name(self.stream, footprint.segment.number), &e)
                })?,
            };
            if first.is_some() {
                return Ok(first);
            }
        }
        Ok(None)
    }

    /// How many of the first `bytes` of segment `number` were durable.
    pub(super) fn durable_bytes(&self, number: u64, bytes: u64) -> u64 {
        match number.cmp(&self.durable.segment) {
            std::cmp::Ordering::Less => bytes,
            std::cmp::Ordering::Equal => self.durable.offset.min(bytes),
            std::cmp::Ordering::Greater => 0,
        }
    }
}

/// The first sequence of the first frame that is good.
fn first_frame(segment: &Segment) -> io::Result<Option<u64>> {
    let mut pieces = Pieces::default();
    let mut reading = segment.read(&mut pieces);
    while let Some(event) = reading.next()? {
        if let Event::Frame(frame, _) = event {
            return Ok(Some(frame.first_sequence));
        }
    }
    Ok(None)
}
