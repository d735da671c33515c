//! Logs: the streams of earlier runs, read into the memtables of this one.

use super::Opener;
use super::dropped::{self, LogCut};
use super::rewrite::Replayed;
use super::trail::{Footprint, Trail, reading};
use crate::batch::{LogBatch, Op};
use crate::disk::{Disk, Patient};
use crate::engine::OldSegment;
use crate::error::{Damage, Error, OpenError, Place};
use crate::fold::Merge;
use crate::key::KeyRange;
use crate::log::{Event, Mark, Pieces, Segment, segment_header, segment_id, segment_name};
use crate::manifest::Story;
use crate::memtable::Active;
use crate::options::{Options, PlantedBug};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// Reads the logs of earlier runs into the memtables of this one.
pub(super) struct Logs<'a> {
    disk: &'a Arc<dyn Disk>,
    options: &'a Options,
    merge: &'a dyn Merge,
    story: &'a Story,
    /// Of a manifest that was made anew: what the story says of the logs says nothing.
    made_anew: bool,
    ranges: Vec<KeyRange>,
    /// What segments are read into.
    pieces: Pieces,
    pub(super) done: Recovered,
}

/// What the logs held.
pub(super) struct Recovered {
    pub(super) memtables: Vec<Active>,
    pub(super) damage: Vec<Damage>,
    pub(super) cuts: Vec<Cut>,
    /// What stood behind them, where somebody looks at the store.
    pub(super) dropped: Vec<LogCut>,
    pub(super) old_segments: BTreeMap<(u64, u64), OldSegment>,
    /// Segments that were replayed, not merely kept.
    pub(super) replayed: Vec<Replayed>,
    pub(super) last_sequence: u64,
}

/// Where a stream ends: what stands behind was promised to nobody.
pub(super) struct Cut {
    stream: u64,
    at: Mark,
    later_segments: Vec<u64>,
}

impl Cut {
    pub(super) fn carry_out(&self, disk: &dyn Disk) -> Result<(), Error> {
        let name = segment_name(self.stream, self.at.segment);
        let io =
            |e: io::Error| Error::io(&format!("cutting the torn tail of the log at {name}"), &e);
        // Last segment first: whenever this is interrupted, the hole is still the first one.
        for segment in self.later_segments.iter().rev() {
            match disk.remove(&segment_name(self.stream, *segment)) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(io(e)),
                _ => {}
            }
        }
        if self.at.offset == 0 {
            return match disk.remove(&name) {
                Err(e) if e.kind() != ErrorKind::NotFound => Err(io(e)),
                _ => Ok(()),
            };
        }
        let file = disk.open(&name).map_err(io)?;
        file.truncate(self.at.offset).map_err(io)?;
        file.sync().map_err(io)
    }
}

impl<'a> Logs<'a> {
    pub(super) fn new(
        disk: &'a Arc<dyn Disk>,
        options: &'a Options,
        merge: &'a dyn Merge,
        story: &'a Story,
        opener: Opener,
    ) -> Self {
        let ranges = KeyRange::of_splits(&options.splits);
        let done = Recovered {
            memtables: ranges.iter().map(|_| Active::of(options)).collect(),
            damage: Vec::new(),
            cuts: Vec::new(),
            dropped: Vec::new(),
            old_segments: BTreeMap::new(),
            replayed: Vec::new(),
            last_sequence: 0,
        };
        let made_anew = opener == Opener::Repair { manifest_made_anew: true };
        Self { disk, options, merge, story, made_anew, ranges, pieces: Pieces::default(), done }
    }

    pub(super) fn recover(
        &mut self,
        stream: u64,
        numbers: &[u64],
        replay: &mut dyn FnMut(LogBatch<'_>),
    ) -> Result<(), OpenError> {
        let mut footprints = Vec::with_capacity(numbers.len());
        let mut known = None;
        for number in numbers {
            let name = segment_name(stream, *number);
            let id = segment_id(stream, *number, self.options.planted(PlantedBug::OneSegmentId));
            let opened = Patient::open(self.disk.as_ref(), &name)
                .map(Arc::new)
                .and_then(|file| Ok((file.clone(), Segment::of(file, *number, id)?)));
            let opened = opened.map_err(|e| Error::io(&format!("opening {name}"), &e));
            let (file, segment) = opened?;
            let header = segment.header().map_err(|e| reading(&name, &e))?;
            let first = header.as_ref().map(|(first, _)| *first);
            known = known.or(header.map(|(_, range)| range));
            footprints.push(Footprint {
                segment,
                file,
                header: first,
                first_frame: None,
                end: 0,
                written: 0,
            });
        }
        let range_known = known.is_some();
        let range = known.unwrap_or(KeyRange { lower: Vec::new(), upper: None });
        let flushed = self.story.flushed.lowest(&range);
        let mut first = 0;
        while let Some(Some(next)) = footprints.get(first + 1).map(|next| next.header)
            && next <= flushed + 1
        {
            let segment = &footprints[first].segment;
            let old =
                OldSegment { range: range.clone(), bytes: segment.len, last_sequence: next - 1 };
            self.done.old_segments.insert((stream, segment.number), old);
            self.done.last_sequence = self.done.last_sequence.max(next - 1);
            first += 1;
        }
        footprints.drain(..first);
        // Segments are removed once they are flushed; one that is missing otherwise was lost.
        // Without the manifest that knew what was flushed, the first that is there is the beginning.
        let whole = numbers[first] == 1 || self.made_anew;
        let first_sequence = footprints[0].header.filter(|next| whole || *next <= flushed + 1);
        let durable = self.story.ends.get(&stream).copied().unwrap_or_default();
        let mut trail = Trail::new(stream, range, footprints, durable);
        let mut pieces = std::mem::take(&mut self.pieces);
        let (end, last) = self.walk(&mut trail, &mut pieces, first_sequence, replay)?;
        self.pieces = pieces;
        self.keep_upto(&trail, end, last, range_known);
        Ok(())
    }

    /// Replays a stream up to its end; where that is, and its last sequence.
    fn walk(
        &mut self,
        trail: &mut Trail,
        pieces: &mut Pieces,
        first_sequence: Option<u64>,
        replay: &mut dyn FnMut(LogBatch<'_>),
    ) -> Result<(Mark, u64), OpenError> {
        let flushed = self.story.flushed.lowest(&trail.range);
        // Without the first header nothing before the first frame can be called lost.
        let mut last = first_sequence.map_or(flushed, |first| first - 1);
        // True until something says with which sequence the stream begins, where the story cannot.
        let mut unknown = self.made_anew && first_sequence.is_none();
        let mut begin = |last: &mut u64, first: u64| {
            if std::mem::take(&mut unknown) {
                *last = (*last).max(first.saturating_sub(1));
            }
        };
        for i in 0..trail.segments.len() {
            let number = trail.segments[i].segment.number;
            let mut holes = Vec::new();
            let header = trail.segments[i].header;
            if i == 0 && first_sequence.is_none() && header.is_some() {
                holes.push(Mark { segment: number - 1, offset: 0 });
            }
            let previous = i.checked_sub(1).map(|i| &trail.segments[i].segment);
            if let Some(previous) = previous
                && previous.number + 1 < number
            {
                holes.push(Mark { segment: previous.number + 1, offset: 0 });
            }
            if let Some(first) = header {
                begin(&mut last, first);
                if let Some(previous) = previous
                    && first > last + 1
                    && holes.is_empty()
                {
                    // The segment before ends with a good frame, but not with its last one.
                    holes.push(Mark { segment: previous.number, offset: previous.len });
                }
                for hole in holes.drain(..) {
                    if !self.passes(trail, hole, (last + 1, first - 1))? {
                        return Ok((self.cut(trail, hole, i), last));
                    }
                }
                last = last.max(first - 1);
            }
            // The trail is asked meanwhile, and learns what was found when all of it was.
            let segment = trail.segments[i].segment.clone();
            let mut first_frame = None;
            let mut reading = if trail.was_synced() {
                segment.read(pieces)
            } else {
                segment.read_and_write(pieces)
            };
            let stream = trail.stream;
            let failed = |e: io::Error| super::trail::reading(&segment_name(stream, number), &e);
            while let Some(event) = reading.next().map_err(failed)? {
                match event {
                    Event::Hole(offset) => holes.push(Mark { segment: number, offset }),
                    Event::Frame(frame, batches) => {
                        let first = frame.first_sequence;
                        first_frame = first_frame.or(Some((frame.offset, first)));
                        begin(&mut last, first);
                        for hole in holes.drain(..) {
                            if !self.passes(trail, hole, (last + 1, first.saturating_sub(1)))? {
                                trail.segments[i].first_frame = first_frame;
                                trail.segments[i].written = reading.written();
                                return Ok((self.cut(trail, hole, i), last));
                            }
                        }
                        last = last.max(first.saturating_sub(1));
                        for batch in batches {
                            self.replay(batch, &trail.range, replay);
                            last = last.max(batch.first_sequence + batch.ops.len() as u64 - 1);
                        }
                    }
                }
            }
            let (durable, end) = (reading.durable, reading.end);
            trail.saw(i, durable);
            let written = reading.written();
            let footprint = &mut trail.segments[i];
            (footprint.first_frame, footprint.end, footprint.written) = (first_frame, end, written);
            if holes.is_empty() {
                continue;
            }
            let next = trail.next_sequence(i + 1)?.map_or(u64::MAX, |next| next - 1);
            if next < u64::MAX {
                begin(&mut last, next + 1);
            }
            for hole in holes {
                if !self.passes(trail, hole, (last + 1, next))? {
                    return Ok((self.cut(trail, hole, i), last));
                }
                if next < u64::MAX {
                    last = last.max(next);
                }
            }
        }
        Ok((Mark { segment: u64::MAX, offset: 0 }, last))
    }

    /// True when the stream goes on behind `hole`, damaged or not; false when it ends there.
    fn passes(
        &mut self,
        trail: &mut Trail,
        hole: Mark,
        (first, last): (u64, u64),
    ) -> Result<bool, OpenError> {
        let stream = trail.stream;
        let nothing_lost = last < first || last <= self.story.flushed.lowest(&trail.range);
        if nothing_lost && last < u64::MAX {
            return Ok(true);
        }
        let known = |d: &Damage| {
            matches!(d.place, Place::Log { stream: s, segment, offset, .. }
                if (s, segment, offset) == (stream, hole.segment, hole.offset))
        };
        // What was once found to be damage stays damage, also when the proof was cut off since.
        let mut found = self.story.damage.iter().chain(&self.story.repaired);
        let known = found.any(known);
        // Whoever cannot read what stood there does not know that nobody was promised anything.
        let unreadable = !known && trail.is_unreadable(hole)?;
        if unreadable && !self.options.tolerate_damage {
            let name = segment_name(stream, hole.segment);
            let what = format!("reading {name} behind offset {}", hole.offset);
            return Err(Error::io(&what, &rustix::io::Errno::IO.into()).into());
        }
        let promised = known || unreadable || trail.durable()? > hole;
        if nothing_lost && promised {
            return Ok(true);
        }
        if !promised || self.options.planted(PlantedBug::DamageReadAsTornTail) {
            return Ok(false);
        }
        let place = Place::Log { stream, segment: hole.segment, offset: hole.offset, first, last };
        let KeyRange { lower, upper } = trail.range.clone();
        let damage = Damage { place, lower, upper };
        tracing::error!(%damage, keys = %damage.keys(), "acknowledged writes are missing in the log");
        self.done.damage.push(damage);
        Ok(true)
    }

    /// The stream ends at the hole `at`; `i`: the segment at or behind it.
    fn cut(&mut self, trail: &Trail, at: Mark, i: usize) -> Mark {
        let stream = trail.stream;
        let later = trail.segments[i..].iter().map(|f| f.segment.number);
        let later_segments = later.filter(|number| *number > at.segment).collect();
        tracing::info!(stream, segment = at.segment, offset = at.offset, "log tail cut off");
        if self.options.tolerate_damage {
            // A node need not know, and would read its log twice for it.
            self.done.dropped.extend(dropped::behind(trail, at, i));
        }
        self.done.cuts.push(Cut { stream, at, later_segments });
        at
    }

    /// Applies what of `batch` is not yet in tables.
    fn replay(
        &mut self,
        batch: LogBatch<'_>,
        stream_range: &KeyRange,
        replay: &mut dyn FnMut(LogBatch<'_>),
    ) {
        let flushed = &self.story.flushed;
        let mut any = false;
        for (op, sequence) in batch.ops().zip(batch.first_sequence..) {
            self.done.last_sequence = self.done.last_sequence.max(sequence);
            match op {
                Op::Put { key, .. } | Op::Delete { key } | Op::Merge { key, .. } => {
                    if sequence > flushed.at(key) {
                        any = true;
                        let shard = self.options.shard_of(key);
                        let memtable = &mut self.done.memtables[shard];
                        memtable
                            .apply(op, sequence, 0, &self.ranges[shard], self.merge, &|_| false);
                    }
                }
                Op::DeleteRange { start, end } => {
                    // The shard that logged it deleted its own keys only.
                    let Some((start, end)) = stream_range.clip(start, end) else { continue };
                    for part in flushed.below(start, Some(end), sequence) {
                        any = true;
                        let part_end = part.upper.as_deref().unwrap_or(end);
                        let op = Op::DeleteRange { start: &part.lower, end: part_end };
                        for (range, memtable) in self.ranges.iter().zip(&mut self.done.memtables) {
                            if range.clip(&part.lower, part_end).is_some() {
                                memtable.apply(op, sequence, 0, range, self.merge, &|_| false);
                            }
                        }
                    }
                }
            }
        }
        if any {
            replay(batch);
        }
    }

    /// Remembers the segments up to `end` for those who read the log.
    fn keep_upto(&mut self, trail: &Trail, end: Mark, last: u64, range_known: bool) {
        for (i, footprint) in trail.segments.iter().enumerate() {
            let segment = &footprint.segment;
            // What stands behind, zeros or a former life, is not part of the log. (What fills a frame
            // up to a multiple of eight may be cut off.)
            let bytes = match segment.number.cmp(&end.segment) {
                std::cmp::Ordering::Less => footprint.end.min(segment.len),
                std::cmp::Ordering::Equal if end.offset > 0 => end.offset,
                _ => break,
            };
            let next = trail.segments.get(i + 1).and_then(|next| next.header);
            let last_sequence = next.map_or(last, |first| (first - 1).min(last));
            let header = match footprint.header {
                None if range_known => self.lost_header(trail, footprint, bytes),
                _ => Vec::new(),
            };
            let range = trail.range.clone();
            let old = OldSegment { range, bytes, last_sequence };
            let (stream, number) = (trail.stream, segment.number);
            self.done.old_segments.insert((stream, number), old);
            let durable = trail.durable_bytes(number, bytes);
            let written = footprint.written;
            self.done.replayed.push(Replayed { stream, number, bytes, durable, written, header });
            self.done.last_sequence = self.done.last_sequence.max(last_sequence);
        }
    }

    /// A power loss may take headers whose segments hold nothing that is not in tables. As long as one
    /// is left it says which rows the stream is about; when that one is cut off the others must know,
    /// or marks of rows that the stream never had would count for it at the next start. Empty where the
    /// header is not to be had back.
    fn lost_header(&self, trail: &Trail, footprint: &Footprint, bytes: u64) -> Vec<u8> {
        let Some((offset, first)) = footprint.first_frame else { return Vec::new() };
        let (stream, segment) = (trail.stream, &footprint.segment);
        let header = segment_header(segment.id, first, &trail.range, Mark::default());
        let lost = |d: &Damage| {
            matches!(d.place, Place::Log { stream: s, segment: n, offset: 0, .. }
                if (s, n) == (stream, segment.number))
        };
        let damage = self.done.damage.iter().chain(&self.story.damage).chain(&self.story.repaired);
        // What is damage stays damage: the hole is its trace.
        let fits = header.len() as u64 == offset && bytes >= offset;
        if fits && !damage.into_iter().any(lost) { header } else { Vec::new() }
    }
}
