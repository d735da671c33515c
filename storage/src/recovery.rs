//! Recovery: from files on disk back to an engine.
//!
//! A hole in the log is a torn tail when nobody was promised what stood there: then the stream ends
//! at the hole. It is damage when a later frame says that the stream was durable beyond it: then the
//! store opens only if it may, and says what is lost.

use crate::batch::{LogBatch, Op};
use crate::blob::{Blobs, parse_blob_name};
use crate::disk::{Disk, DiskFile, read_all, swap_file};
use crate::engine::{Engine, OldSegment, Parts};
use crate::error::{Damage, Error, OpenError, Place};
use crate::fold::Merge;
use crate::key::KeyRange;
use crate::limits::{FORMAT_LINE, FORMAT_LINE_BEFORE};
use crate::log::{
    HEADER_BYTES_MAX, LogWriter, Mark, Planted, Reading, Segment, Spares, Stream,
    parse_segment_name, read_header, read_segment, segment_header, segment_id, segment_name,
};
use crate::manifest::{self, Edit, LoadError, Manifest, Story, parse_manifest_name};
use crate::memtable::Active;
use crate::options::{Options, PlantedBug};
use crate::poison::Poison;
use crate::shard::Shard;
use crate::shelf::Shelf;
use crate::table::{Table, parse_table_name, table_name};
use crate::version::Version;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;

const FORMAT: &str = "FORMAT";

pub(crate) fn open(
    disk: Arc<dyn Disk>,
    options: Options,
    merge: Arc<dyn Merge>,
    replay: &mut dyn FnMut(LogBatch<'_>),
) -> Result<(Arc<Engine>, Vec<Shard>), OpenError> {
    options.check()?;
    let lock = disk.lock().map_err(|e| match e.kind() {
        ErrorKind::WouldBlock => OpenError::Locked,
        _ => Error::io("locking the directory", &e).into(),
    })?;
    let names = disk.list().map_err(|e| Error::io("listing the directory", &e))?;
    let format_is_old = check_format(disk.as_ref(), &names)?;
    let (mut story, manifest_number) = load_story(disk.as_ref(), &names)?;
    let blobs = Blobs::new(disk.clone(), options.planted(PlantedBug::BlobUnchecked));
    let shelf = Arc::new(Shelf::new(options.block_cache_bytes, blobs));
    let tables = open_tables(disk.as_ref(), &story, &shelf)?;
    let mut damage: Vec<Damage> = shelf.damage_found().iter().cloned().collect();
    damage.retain(|d| !story.repaired.contains(d));

    let mut logs = Logs::new(&disk, &options, merge.as_ref(), &story);
    for (stream, segments) in streams(&names) {
        logs.recover(stream, &segments, replay)?;
    }
    let Recovered {
        memtables,
        damage: log_damage,
        cuts,
        old_segments,
        replayed,
        headers,
        last_sequence,
    } = logs.done;
    damage.extend(log_damage.iter().filter(|d| !story.repaired.contains(d)).cloned());
    if !damage.is_empty() && !options.tolerate_damage {
        return Err(OpenError::Damaged { damage });
    }

    // From here on the disk is changed. What was lost is remembered before its traces are cut.
    let table_sequences = story.tables.values().map(|(_, bounds)| bounds.last_sequence);
    let seen = table_sequences.max().unwrap_or(0).max(last_sequence);
    let next_sequence = seen.max(story.flushed.highest()) + 1;
    story.damage.extend(log_damage.into_iter().filter(|d| !story.repaired.contains(d)));
    let ranges = KeyRange::of_splits(&options.splits);
    let first_stream = story.next_stream.max(1);
    story.next_stream = first_stream + ranges.len() as u64;
    story.next_table = next_table(&story, &names);
    let present = streams(&names);
    story.ends.retain(|stream, _| present.contains_key(stream));
    let poison = Arc::new(Poison::default());
    let number = manifest_number + 1;
    let mut manifest = Manifest::create(disk.as_ref(), number, story, poison.clone())?;
    if format_is_old {
        // Before anything is written that an older version would take for a torn tail.
        let written = swap_file(disk.as_ref(), FORMAT, format!("{FORMAT_LINE}\n").as_bytes());
        written.map_err(|e| Error::io("writing FORMAT", &e))?;
    }
    cuts.iter().try_for_each(|cut| cut.carry_out(disk.as_ref()))?;
    // What survived the death of a process may still be in the page cache alone, and no sync of
    // this run's streams would cover it. To sync the old file is not enough: after a sync that
    // failed, its pages pass for clean, and the next sync says yes without writing them. So the
    // bytes that were replayed are written once more, where they are.
    let mut ends: BTreeMap<u64, Mark> = BTreeMap::new();
    let mut piece = Vec::new();
    for (stream, segment) in replayed {
        let bytes = old_segments.get(&(stream, segment)).map_or(0, |old| old.bytes);
        let end = ends.entry(stream).or_default();
        *end = (*end).max(Mark { segment, offset: bytes });
        let header = headers.get(&(stream, segment)).map_or(&[][..], Vec::as_slice);
        let rewritten = disk
            .open(&segment_name(stream, segment))
            .and_then(|file| write_again(file.as_ref(), bytes, header, &mut piece));
        rewritten.map_err(|e| Error::io("rewriting a replayed log segment", &e))?;
    }
    remove_leftovers(disk.as_ref(), &manifest.story, number, &names);
    disk.sync_dir().map_err(|e| Error::io("syncing the directory", &e))?;
    // Where nothing was replayed, all there is is in tables. Only said once the tails are cut: what
    // stood behind them must never count as flushed.
    let settled = ranges.iter().zip(&memtables).filter(|(_, memtable)| memtable.is_empty());
    let sequence = next_sequence - 1;
    let settled = settled.map(|(range, _)| Edit::Flushed { range: range.clone(), sequence });
    let ends = ends.into_iter().map(|(stream, end)| Edit::StreamEnds { stream, end });
    manifest.commit(&settled.chain(ends).collect::<Vec<_>>())?;

    let planted = Planted {
        missing_fsync: options.planted(PlantedBug::MissingFsync),
        one_segment_id: options.planted(PlantedBug::OneSegmentId),
    };
    let names = disk.list().map_err(|e| Error::io("listing the directory", &e))?;
    let spares = Arc::new(Spares::open(&disk, &options, &names));
    let streams: Vec<Arc<Stream>> = ranges
        .iter()
        .zip(first_stream..)
        .map(|(range, id)| {
            let (disk, poison) = (disk.clone(), poison.clone());
            Stream::new(id, range.clone(), disk, poison, spares.clone(), planted)
        })
        .collect();
    let version = Version::new(tables, vec![0; ranges.len()]);
    let log_segment_bytes = options.log_segment_bytes;
    let parts = Parts {
        manifest,
        version,
        poison,
        shelf,
        old_segments,
        streams: streams.clone(),
        spares,
        lock,
    };
    let engine = Engine::assemble(disk, options, merge, parts);
    let shards = ranges.into_iter().zip(memtables).zip(streams).enumerate();
    let shards = shards
        .map(|(number, ((range, memtable), stream))| {
            let log = LogWriter::new(stream, next_sequence, log_segment_bytes);
            Shard::new(engine.shared.clone(), number, range, log, memtable)
        })
        .collect();
    Ok((engine, shards))
}

/// Bytes that are written again at a time: they stay in the processor's cache meanwhile.
const PIECE_BYTES: u64 = 256 << 10;

/// Makes the first `bytes` of `file` durable, as they are read but for `header` in front, whatever the
/// disk believes of them; and cuts off the rest.
fn write_again(
    file: &dyn DiskFile,
    bytes: u64,
    header: &[u8],
    piece: &mut Vec<u8>,
) -> io::Result<()> {
    piece.resize(usize::try_from(PIECE_BYTES).expect("a small number"), 0);
    let mut at = 0;
    while at < bytes {
        let len = usize::try_from((bytes - at).min(PIECE_BYTES)).expect("at most a piece");
        let piece = &mut piece[..len];
        file.read_at(piece, at)?;
        if at == 0
            && let Some(front) = piece.get_mut(..header.len())
        {
            front.copy_from_slice(header);
        }
        file.write_at(piece, at)?;
        at += len as u64;
    }
    if file.len()? > bytes {
        file.truncate(bytes)?;
    }
    file.sync()
}

/// True when the store is of the format before this one.
fn check_format(disk: &dyn Disk, names: &[String]) -> Result<bool, OpenError> {
    let io = |e: io::Error| OpenError::from(Error::io("reading FORMAT", &e));
    match disk.open(FORMAT) {
        Ok(file) => {
            let content = read_all(file.as_ref()).map_err(io)?;
            for (line, old) in [(FORMAT_LINE, false), (FORMAT_LINE_BEFORE, true)] {
                if content == format!("{line}\n").as_bytes() {
                    return Ok(old);
                }
            }
            let text = String::from_utf8_lossy(&content);
            Err(OpenError::Format { found: text.lines().next().unwrap_or_default().to_owned() })
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            if names.iter().any(|name| is_ours(name)) {
                return Err(OpenError::Format { found: "(no FORMAT file)".to_owned() });
            }
            let content = format!("{FORMAT_LINE}\n");
            swap_file(disk, FORMAT, content.as_bytes()).map_err(io)?;
            Ok(false)
        }
        Err(e) => Err(io(e)),
    }
}

fn is_ours(name: &str) -> bool {
    parse_table_name(name).is_some()
        || parse_segment_name(name).is_some()
        || parse_manifest_name(name).is_some()
        || parse_blob_name(name).is_some()
        || name == "CURRENT"
}

fn load_story(disk: &dyn Disk, names: &[String]) -> Result<(Story, u64), OpenError> {
    let lost = || {
        let damage = Damage { place: Place::Manifest, lower: Vec::new(), upper: None };
        OpenError::Damaged { damage: vec![damage] }
    };
    match manifest::load(disk) {
        Ok(Some(loaded)) => Ok(loaded),
        Ok(None) => {
            // The first start may have died before CURRENT; then there is nothing else.
            let data = |name: &String| {
                parse_table_name(name).is_some()
                    || parse_segment_name(name).is_some()
                    || parse_blob_name(name).is_some()
            };
            if names.iter().any(data) {
                return Err(lost());
            }
            let number = names.iter().filter_map(|name| parse_manifest_name(name)).max();
            Ok((Story::default(), number.unwrap_or(0)))
        }
        Err(LoadError::Damaged) => Err(lost()),
        Err(LoadError::Disk(e)) => Err(e.into()),
    }
}

fn open_tables(
    disk: &dyn Disk,
    story: &Story,
    shelf: &Arc<Shelf>,
) -> Result<Vec<(usize, Arc<Table>)>, OpenError> {
    for damage in &story.repaired {
        if let Place::Blob { number, offset } = damage.place {
            shelf.blobs.forgive(number, offset);
        }
    }
    let mut tables = Vec::new();
    for (number, (level, bounds)) in &story.tables {
        let table = match disk.open(&table_name(*number)) {
            Ok(file) => match Table::open(*number, bounds.clone(), file, shelf.clone()) {
                Ok(table) => table,
                Err(Error::Damaged(_)) => Table::damaged(*number, bounds.clone(), shelf.clone()),
                Err(e) => return Err(e.into()),
            },
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let table = Table::damaged(*number, bounds.clone(), shelf.clone());
                table.damage(None);
                table
            }
            Err(e) => return Err(Error::io("opening a table", &e).into()),
        };
        for damage in &story.repaired {
            if let Place::Table { number: n, offset: Some(offset) } = damage.place
                && n == *number
            {
                table.forgive(offset);
            }
        }
        table.report_missing_blobs();
        tables.push((*level, Arc::new(table)));
    }
    Ok(tables)
}

/// The numbers of the segments of each stream, ascending.
fn streams(names: &[String]) -> BTreeMap<u64, Vec<u64>> {
    let mut streams: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (stream, segment) in names.iter().filter_map(|name| parse_segment_name(name)) {
        streams.entry(stream).or_default().push(segment);
    }
    streams.values_mut().for_each(|segments| segments.sort_unstable());
    streams
}

fn next_table(story: &Story, names: &[String]) -> u64 {
    let number = |name: &String| parse_table_name(name).or_else(|| parse_blob_name(name));
    let used = names.iter().filter_map(number).max().unwrap_or(0);
    story.next_table.max(used + 1)
}

/// Files that no edit made part of the store, and manifests out of force.
fn remove_leftovers(disk: &dyn Disk, story: &Story, manifest: u64, names: &[String]) {
    for name in names {
        let orphan = parse_table_name(name).is_some_and(|n| !story.tables.contains_key(&n))
            || parse_blob_name(name).is_some_and(|n| !story.blobs.contains_key(&n))
            || parse_manifest_name(name).is_some_and(|n| n != manifest)
            || name.ends_with(".tmp");
        if orphan && let Err(e) = disk.remove(name) {
            tracing::warn!(%name, error = %e, "a left-over file could not be removed");
        }
    }
}

/// Reads the logs of earlier runs into the memtables of this one.
struct Logs<'a> {
    disk: &'a Arc<dyn Disk>,
    options: &'a Options,
    merge: &'a dyn Merge,
    story: &'a Story,
    ranges: Vec<KeyRange>,
    /// A header said which rows the stream is about.
    range_known: bool,
    /// What segments of streams before were read into.
    memory: Vec<Vec<u8>>,
    done: Recovered,
}

struct Recovered {
    memtables: Vec<Active>,
    damage: Vec<Damage>,
    cuts: Vec<Cut>,
    old_segments: BTreeMap<(u64, u64), OldSegment>,
    /// Segments that were replayed, not merely kept.
    replayed: Vec<(u64, u64)>,
    /// Headers to be written where they did not prove themselves.
    headers: BTreeMap<(u64, u64), Vec<u8>>,
    last_sequence: u64,
}

/// Where a stream ends: what stands behind was promised to nobody.
struct Cut {
    stream: u64,
    at: Mark,
    later_segments: Vec<u64>,
}

impl Cut {
    fn carry_out(&self, disk: &dyn Disk) -> Result<(), Error> {
        let io = |e: io::Error| Error::io("cutting a torn log tail", &e);
        // Last segment first: whenever this is interrupted, the hole is still the first one.
        for segment in self.later_segments.iter().rev() {
            disk.remove(&segment_name(self.stream, *segment)).map_err(io)?;
        }
        let name = segment_name(self.stream, self.at.segment);
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

/// What a segment says next.
enum Event {
    Hole(u64),
    Frame(u64),
}

impl<'a> Logs<'a> {
    fn new(
        disk: &'a Arc<dyn Disk>,
        options: &'a Options,
        merge: &'a dyn Merge,
        story: &'a Story,
    ) -> Self {
        let ranges = KeyRange::of_splits(&options.splits);
        let done = Recovered {
            memtables: ranges.iter().map(|_| Active::new(options.memtable_bytes)).collect(),
            damage: Vec::new(),
            cuts: Vec::new(),
            old_segments: BTreeMap::new(),
            replayed: Vec::new(),
            headers: BTreeMap::new(),
            last_sequence: 0,
        };
        Self { disk, options, merge, story, ranges, range_known: false, memory: Vec::new(), done }
    }

    fn recover(
        &mut self,
        stream: u64,
        numbers: &[u64],
        replay: &mut dyn FnMut(LogBatch<'_>),
    ) -> Result<(), OpenError> {
        let mut headers = Vec::with_capacity(numbers.len());
        for number in numbers {
            headers.push(self.header(stream, *number)?);
        }
        let known = headers.iter().flatten().map(|(_, range)| range.clone()).next();
        self.range_known = known.is_some();
        let range = known.unwrap_or(KeyRange { lower: Vec::new(), upper: None });
        let flushed = self.story.flushed.lowest(&range);
        let mut first = 0;
        while let Some(Some((next, _))) = headers.get(first + 1)
            && *next <= flushed + 1
        {
            self.keep(stream, numbers[first], &range, next - 1)?;
            first += 1;
        }
        let mut segments = Vec::new();
        for number in &numbers[first..] {
            let bytes = self.read(stream, *number)?;
            let id = self.id(stream, *number);
            let segment = Segment { number: *number, id, bytes };
            let reading = read_segment(&segment);
            segments.push((segment, reading));
        }
        // Segments are removed once they are flushed; one that is missing otherwise was lost.
        let whole = numbers[first] == 1;
        let sequence = headers[first].as_ref().map(|(first, _)| *first);
        let first_sequence = sequence.filter(|next| whole || *next <= flushed + 1);
        self.walk(stream, &segments, &range, first_sequence, replay)?;
        // Fresh memory costs more than what is done with it.
        self.memory.extend(segments.into_iter().map(|(segment, _)| segment.bytes));
        Ok(())
    }

    /// Replays a stream up to its end, and finds that end.
    fn walk(
        &mut self,
        stream: u64,
        segments: &[(Segment, Reading)],
        range: &KeyRange,
        first_sequence: Option<u64>,
        replay: &mut dyn FnMut(LogBatch<'_>),
    ) -> Result<(), OpenError> {
        let flushed = self.story.flushed.lowest(range);
        let durable = segments.iter().map(|(_, r)| r.durable).max().unwrap_or_default();
        let durable = self.story.ends.get(&stream).copied().unwrap_or_default().max(durable);
        // Without the first header nothing before the first frame can be called lost.
        let mut last = first_sequence.map_or(flushed, |first| first - 1);
        for (i, (segment, reading)) in segments.iter().enumerate() {
            let mut holes = Vec::new();
            if i == 0 && first_sequence.is_none() && reading.header.is_some() {
                holes.push(Mark { segment: segment.number - 1, offset: 0 });
            }
            if i > 0 && segments[i - 1].0.number + 1 < segment.number {
                holes.push(Mark { segment: segments[i - 1].0.number + 1, offset: 0 });
            }
            let previous = i.checked_sub(1).map(|i| &segments[i].0);
            if let Some((first, _)) = &reading.header {
                if let Some(previous) = previous
                    && *first > last + 1
                    && holes.is_empty()
                {
                    // The segment before ends with a good frame, but not with its last one.
                    let offset = previous.bytes.len() as u64;
                    holes.push(Mark { segment: previous.number, offset });
                }
                for hole in holes.drain(..) {
                    if !self.passes(stream, hole, (last + 1, first - 1), range, durable) {
                        self.cut(stream, hole, &segments[i..]);
                        return self.keep_upto(stream, segments, hole, range, last);
                    }
                }
                last = last.max(first - 1);
            }
            for event in events(reading) {
                match event {
                    Event::Hole(offset) => holes.push(Mark { segment: segment.number, offset }),
                    Event::Frame(offset) => {
                        let frame = segment.frame(offset);
                        for hole in holes.drain(..) {
                            let lost = (last + 1, frame.first_sequence.saturating_sub(1));
                            if !self.passes(stream, hole, lost, range, durable) {
                                self.cut(stream, hole, &segments[i..]);
                                return self.keep_upto(stream, segments, hole, range, last);
                            }
                        }
                        last = last.max(frame.first_sequence.saturating_sub(1));
                        for batch in frame.log_batches().unwrap_or_default() {
                            self.replay(batch, range, replay);
                            last = last.max(batch.first_sequence + batch.ops.len() as u64 - 1);
                        }
                    }
                }
            }
            let next = next_sequence(&segments[i + 1..]).map(|next| next - 1);
            for hole in holes {
                let next = next.unwrap_or(u64::MAX);
                if !self.passes(stream, hole, (last + 1, next), range, durable) {
                    self.cut(stream, hole, &segments[i..]);
                    return self.keep_upto(stream, segments, hole, range, last);
                }
                if next < u64::MAX {
                    last = last.max(next);
                }
            }
        }
        let end = Mark { segment: u64::MAX, offset: 0 };
        self.keep_upto(stream, segments, end, range, last)
    }

    /// True when the stream goes on behind `hole`, damaged or not; false when it ends there.
    fn passes(
        &mut self,
        stream: u64,
        hole: Mark,
        (first, last): (u64, u64),
        range: &KeyRange,
        durable: Mark,
    ) -> bool {
        let known = |d: &Damage| {
            matches!(d.place, Place::Log { stream: s, segment, offset, .. }
                if (s, segment, offset) == (stream, hole.segment, hole.offset))
        };
        // What was once found to be damage stays damage, also when the proof was cut off since.
        let mut found = self.story.damage.iter().chain(&self.story.repaired);
        let promised = durable > hole || found.any(known);
        let nothing_lost = last < first || last <= self.story.flushed.lowest(range);
        if nothing_lost && (promised || last < u64::MAX) {
            return true;
        }
        if !promised || self.options.planted(PlantedBug::DamageReadAsTornTail) {
            return false;
        }
        let place = Place::Log { stream, segment: hole.segment, offset: hole.offset, first, last };
        let damage = Damage { place, lower: range.lower.clone(), upper: range.upper.clone() };
        tracing::error!(%damage, "acknowledged writes are missing in the log");
        self.done.damage.push(damage);
        true
    }

    fn cut(&mut self, stream: u64, at: Mark, rest: &[(Segment, Reading)]) {
        let later = rest.iter().map(|(segment, _)| segment.number);
        let later_segments = later.filter(|number| *number > at.segment).collect();
        tracing::info!(stream, segment = at.segment, offset = at.offset, "log tail cut off");
        self.done.cuts.push(Cut { stream, at, later_segments });
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
    fn keep_upto(
        &mut self,
        stream: u64,
        segments: &[(Segment, Reading)],
        end: Mark,
        range: &KeyRange,
        last: u64,
    ) -> Result<(), OpenError> {
        for (i, (segment, reading)) in segments.iter().enumerate() {
            // What stands behind, zeros or a former life, is not part of the log. (What fills a frame
            // up to a multiple of eight may be cut off.)
            let len = segment.bytes.len() as u64;
            let bytes = match segment.number.cmp(&end.segment) {
                std::cmp::Ordering::Less => reading.end.min(len),
                std::cmp::Ordering::Equal if end.offset > 0 => end.offset,
                _ => break,
            };
            let next = segments.get(i + 1).and_then(|(_, r)| r.header.as_ref());
            let last_sequence = next.map_or(last, |(first, _)| (first - 1).min(last));
            if reading.header.is_none() {
                self.restore_header(stream, segment, reading, range, bytes);
            }
            let old = OldSegment { range: range.clone(), bytes, last_sequence };
            self.done.old_segments.insert((stream, segment.number), old);
            self.done.replayed.push((stream, segment.number));
            self.done.last_sequence = self.done.last_sequence.max(last_sequence);
        }
        Ok(())
    }

    /// A power loss may take headers whose segments hold nothing that is not in tables. As long as one
    /// is left it says which rows the stream is about; when that one is cut off the others must know,
    /// or marks of rows that the stream never had would count for it at the next start.
    fn restore_header(
        &mut self,
        stream: u64,
        segment: &Segment,
        reading: &Reading,
        range: &KeyRange,
        bytes: u64,
    ) {
        let Some(first_frame) = reading.frames.first() else { return };
        let first = segment.frame(*first_frame).first_sequence;
        let header = segment_header(segment.id, first, range, Mark::default());
        let lost = |d: &Damage| {
            matches!(d.place, Place::Log { stream: s, segment: n, offset: 0, .. }
                if (s, n) == (stream, segment.number))
        };
        let damage = self.done.damage.iter().chain(&self.story.damage).chain(&self.story.repaired);
        // What is damage stays damage: the hole is its trace.
        if self.range_known
            && header.len() as u64 == *first_frame
            && bytes >= *first_frame
            && !damage.into_iter().any(lost)
        {
            self.done.headers.insert((stream, segment.number), header);
        }
    }

    fn keep(
        &mut self,
        stream: u64,
        number: u64,
        range: &KeyRange,
        last_sequence: u64,
    ) -> Result<(), OpenError> {
        let bytes = self.open(stream, number)?.len();
        let bytes = bytes.map_err(|e| Error::io("reading a log segment", &e))?;
        let old = OldSegment { range: range.clone(), bytes, last_sequence };
        self.done.old_segments.insert((stream, number), old);
        self.done.last_sequence = self.done.last_sequence.max(last_sequence);
        Ok(())
    }

    fn id(&self, stream: u64, number: u64) -> u64 {
        segment_id(stream, number, self.options.planted(PlantedBug::OneSegmentId))
    }

    fn open(&self, stream: u64, number: u64) -> Result<Arc<dyn DiskFile>, OpenError> {
        let file = self.disk.open(&segment_name(stream, number));
        file.map_err(|e| Error::io("opening a log segment", &e).into())
    }

    fn read(&mut self, stream: u64, number: u64) -> Result<Vec<u8>, OpenError> {
        let io = |e: io::Error| OpenError::from(Error::io("reading a log segment", &e));
        let file = self.open(stream, number)?;
        let len = file.len().map_err(io)?;
        let len = usize::try_from(len).map_err(|_| io(ErrorKind::FileTooLarge.into()))?;
        let mut bytes = self.memory.pop().unwrap_or_default();
        if bytes.capacity() < len {
            bytes = vec![0; len];
        }
        bytes.resize(len, 0);
        file.read_at(&mut bytes, 0).map_err(io)?;
        Ok(bytes)
    }

    fn header(&self, stream: u64, number: u64) -> Result<Option<(u64, KeyRange)>, OpenError> {
        let io = |e: io::Error| OpenError::from(Error::io("reading a log segment", &e));
        let file = self.open(stream, number)?;
        let len = file.len().map_err(io)?.min(HEADER_BYTES_MAX as u64);
        let mut bytes = vec![0; usize::try_from(len).expect("a header fits in memory")];
        file.read_at(&mut bytes, 0).map_err(io)?;
        Ok(read_header(&bytes, self.id(stream, number)))
    }
}

/// Frames and holes of a segment in the order in which they stand.
fn events(reading: &Reading) -> Vec<Event> {
    let frames = reading.frames.iter().map(|at| (*at, Event::Frame(*at)));
    let holes = reading.holes.iter().map(|at| (*at, Event::Hole(*at)));
    let mut all: Vec<(u64, Event)> = frames.chain(holes).collect();
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, event)| event).collect()
}

/// The first sequence that `segments` know of.
fn next_sequence(segments: &[(Segment, Reading)]) -> Option<u64> {
    segments.iter().find_map(|(segment, reading)| {
        let header = reading.header.as_ref().map(|(first, _)| *first);
        header.or_else(|| reading.frames.first().map(|at| segment.frame(*at).first_sequence))
    })
}
