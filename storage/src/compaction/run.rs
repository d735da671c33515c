//! Writing the rows of some sources into new tables, without what no reader can see.

use crate::blob::{Separator, escape};
use crate::compaction::filter::{Filter, FilterRow, Verdict};
use crate::compaction::merging::Written;
use crate::error::Error;
use crate::fold::{Change, Merge, compact};
use crate::key::{KeyRange, Kind};
use crate::limits::{FOLDED_BYTES_MAX, YIELD_BYTES};
use crate::merge::{Direction, Found, Merged, Source};
use crate::shelf::Resolved;
use crate::table::{TableBounds, TableWriter, table_name};
use crate::tombstones::RangeTombstones;
use std::borrow::Cow;
use std::ops::ControlFlow;

/// Whether older changes of a key from here (inclusive) to there (exclusive) may exist below.
pub(crate) type ReachesBelow<'a> = dyn Fn(&[u8], Option<&[u8]>) -> bool + 'a;

/// Told of the bytes worked on since the last time; breaks the work off or lets it go on.
pub(crate) type OnProgress<'a> = dyn FnMut(u64) -> ControlFlow<()> + 'a;

/// Bytes after which progress is told.
const PROGRESS_BYTES: u64 = 256 << 10;

/// A table's range deletions are one block, read whole when it is opened: of this size at most, about.
const RANGE_BYTES_MAX: u64 = 4 << 20;

/// Size of its range deletions at which a table is cut where tables have `table_bytes`.
pub(crate) fn range_bytes(table_bytes: u64) -> u64 {
    table_bytes.min(RANGE_BYTES_MAX)
}

/// What a rewrite reads and keeps.
pub(crate) struct Rewrite<'a> {
    pub(crate) sources: Vec<Source<'a>>,
    /// The keys that the sources are cut to.
    pub(crate) range: &'a KeyRange,
    pub(crate) tombstones: RangeTombstones,
    /// Folds values as tables hold them.
    pub(crate) merge: &'a dyn Merge,
    pub(crate) filter: Option<&'a dyn Filter>,
    /// True when newer changes of a key may be in a table that is not among the sources.
    pub(crate) newer: &'a dyn Fn(&[u8]) -> bool,
    /// Readers of the past, ascending.
    pub(crate) snapshots: Vec<u64>,
    /// True when older changes of a key in this range may exist below.
    pub(crate) reaches_below: &'a ReachesBelow<'a>,
    /// Size at which a table is cut.
    pub(crate) table_bytes: u64,
    /// Size of its range deletions at which a table is cut; see [`range_bytes`].
    pub(crate) range_bytes: u64,
    /// Keys at which a table is cut whatever its size, ascending.
    pub(crate) cuts: &'a [Vec<u8>],
    /// Puts large values elsewhere.
    pub(crate) separator: Separator<'a>,
    /// Opens the next table to write.
    pub(crate) open: &'a mut dyn FnMut() -> Result<(u64, TableWriter), Error>,
    pub(crate) progress: &'a mut OnProgress<'a>,
}

/// The tables written so far.
struct Output<'a> {
    opened: &'a mut Vec<u64>,
    ranges: RangeTombstones,
    done: Vec<(u64, TableBounds)>,
    table: Option<(u64, TableWriter)>,
    /// Range deletions from here on are not yet written.
    from: Vec<u8>,
    /// Cuts that are behind.
    passed: usize,
    /// Keys at which a table is cut because of its range deletions, the nearest last.
    dense: Vec<Vec<u8>>,
}

impl Rewrite<'_> {
    /// Writes the tables, and blob files beside them. `opened`: every table that was begun, also when
    /// this fails; blob files are removed then.
    pub(crate) fn run(mut self, opened: &mut Vec<u64>) -> Result<Written, Error> {
        let tables = self.rewrite(opened);
        let written = tables.and_then(|tables| {
            let blobs = self.separator.finish()?;
            Ok(Written { tables, blobs, ..Written::default() })
        });
        if written.is_err() {
            self.separator.discard();
        }
        written
    }

    fn rewrite(&mut self, opened: &mut Vec<u64>) -> Result<Vec<(u64, TableBounds)>, Error> {
        let ranges = self.kept_ranges();
        let mut output = Output {
            dense: dense(&ranges, self.range_bytes),
            ranges,
            done: Vec::new(),
            table: None,
            from: self.range.lower.clone(),
            opened,
            passed: self.cuts.partition_point(|cut| *cut <= self.range.lower),
        };
        let mut rows = Merged::new(std::mem::take(&mut self.sources), Direction::Forward);
        let (mut key, mut found, mut changed) = (Vec::new(), Vec::new(), Vec::new());
        let (mut bytes, mut unyielding) = (0, 0);
        while rows.next(&mut key, &mut found)? {
            let more = found.iter().map(|(_, v)| (key.len() + v.bytes().len()) as u64).sum::<u64>();
            (bytes, unyielding) = (bytes + more, unyielding + more);
            if unyielding >= YIELD_BYTES {
                unyielding = 0;
                std::thread::yield_now();
            }
            if bytes >= PROGRESS_BYTES {
                self.tell(std::mem::take(&mut bytes))?;
            }
            if let Some(kind) = self.lone(&found) {
                let (tag, value) = &found[0];
                if kind == Kind::Delete && !self.reaches(&key) {
                    continue;
                }
                let held = value.held(kind);
                let (kind, value) =
                    match self.verdict(&key, tag.sequence(), kind, &held, &mut changed)? {
                        Verdict::Keep => (kind, &*held),
                        Verdict::Change => (kind, changed.as_slice()),
                        Verdict::Drop if !self.reaches(&key) => continue,
                        Verdict::Drop => (Kind::Delete, &[][..]),
                    };
                self.put(&mut output, &key, &[(tag.sequence(), kind, value)])?;
                continue;
            }
            let kept = self.fold(&key, &found, &mut changed)?;
            let kept: Vec<_> =
                kept.iter().map(|c| (c.sequence, c.kind, c.value.as_slice())).collect();
            self.put(&mut output, &key, &kept)?;
        }
        self.tell(bytes)?;
        self.end(output)
    }

    fn tell(&mut self, bytes: u64) -> Result<(), Error> {
        match (self.progress)(bytes) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                let what = "the job was broken off".to_owned();
                Err(Error::Io { what, kind: std::io::ErrorKind::Interrupted })
            }
        }
    }

    /// The kind of the newest change where it is plain to see that only that one counts: nobody
    /// reads the past, and it does not build on what is older.
    fn lone(&self, found: &[Found<'_>]) -> Option<Kind> {
        let alone = self.tombstones.is_empty() && (self.snapshots.is_empty() || found.len() == 1);
        let kind = found[0].0.kind().filter(|kind| alone && *kind != Kind::Merge)?;
        // Kinds that are unknown are an error wherever they stand.
        let known = found.iter().all(|(tag, _)| tag.kind().is_some());
        known.then_some(kind)
    }

    fn reaches(&self, key: &[u8]) -> bool {
        let just_after = [key, &[0]].concat();
        (self.reaches_below)(key, Some(&just_after))
    }

    /// What the filter says about the value that a table holds as `held`; `out`: what it shall hold
    /// instead.
    fn verdict(
        &self,
        key: &[u8],
        sequence: u64,
        kind: Kind,
        held: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Verdict, Error> {
        let read_by_snapshot = self.snapshots.last().is_some_and(|s| *s >= sequence);
        match self.filter {
            Some(filter) if kind == Kind::Put && !read_by_snapshot => {
                out.clear();
                let value = match self.separator.shelf().resolve(held, key) {
                    Ok(Resolved::AsItIs) => Cow::Borrowed(held),
                    Ok(Resolved::Value(value)) => Cow::Owned(value),
                    // Nobody can say what it was, so nothing can be decided; and merging goes on.
                    Ok(Resolved::Absent) | Err(_) => return Ok(Verdict::Keep),
                };
                let row = FilterRow { key, value: &value, sequence, newer: self.newer };
                let verdict = filter.decide(&row, out);
                if verdict == Verdict::Change && out.len() > FOLDED_BYTES_MAX {
                    return Ok(Verdict::Keep);
                }
                if verdict == Verdict::Change
                    && let Cow::Owned(escaped) = escape(out)
                {
                    *out = escaped;
                }
                Ok(verdict)
            }
            _ => Ok(Verdict::Keep),
        }
    }

    /// What has to be kept of the changes of `key`, newest first.
    fn fold(
        &self,
        key: &[u8],
        found: &[Found<'_>],
        changed: &mut Vec<u8>,
    ) -> Result<Vec<Change>, Error> {
        let mut changes = Vec::with_capacity(found.len());
        for (tag, value) in found {
            let kind = tag.kind().ok_or_else(unknown_kind)?;
            let value = value.held(kind).into_owned();
            changes.push(Change { sequence: tag.sequence(), kind, value });
        }
        let covered = |limit| self.tombstones.covering(key, limit);
        let bottom = !self.reaches(key);
        let mut kept = compact(self.merge, key, changes, &self.snapshots, &covered, bottom);
        let alone = kept.len() == 1;
        if let Some(newest) = kept.first_mut() {
            match self.verdict(key, newest.sequence, newest.kind, &newest.value, changed)? {
                Verdict::Keep => {}
                Verdict::Change => newest.value.clone_from(changed),
                Verdict::Drop if bottom && alone => kept.clear(),
                Verdict::Drop => {
                    newest.kind = Kind::Delete;
                    newest.value.clear();
                }
            }
        }
        Ok(kept)
    }

    /// Adds the changes of a key, cutting the table before it where that is due.
    fn put(
        &mut self,
        output: &mut Output<'_>,
        key: &[u8],
        kept: &[(u64, Kind, &[u8])],
    ) -> Result<(), Error> {
        let io = |e| Error::io("writing a table", &e);
        if kept.is_empty() {
            return Ok(());
        }
        self.pass_dense(output, Some(key))?;
        let mut crossed = false;
        while self.cuts.get(output.passed).is_some_and(|cut| cut.as_slice() <= key) {
            output.passed += 1;
            crossed = true;
        }
        let full =
            |(_, writer): &mut (u64, TableWriter)| crossed || writer.size() >= self.table_bytes;
        if let Some((number, writer)) = output.table.take_if(full) {
            // Where a cut was crossed the next table starts there, so that range deletions between
            // fall to the right side of it.
            let start = if crossed { &self.cuts[output.passed - 1] } else { key };
            output.finish(number, writer, Some(start))?;
        }
        if output.table.is_none() {
            self.begin(output)?;
        }
        let Some((_, writer)) = &mut output.table else { return Ok(()) };
        for (sequence, kind, value) in kept {
            let value = match kind {
                Kind::Put => self.separator.place(key, value)?,
                Kind::Delete | Kind::Merge => Cow::Borrowed(*value),
            };
            writer.add(key, *sequence, *kind, &value).map_err(io)?;
        }
        Ok(())
    }

    /// Finishes a table at each key up to `key` (none: all) before which there are many range deletions.
    fn pass_dense(&mut self, output: &mut Output<'_>, key: Option<&[u8]>) -> Result<(), Error> {
        while let Some(cut) = output.dense.pop_if(|cut| key.is_none_or(|key| cut.as_slice() <= key))
        {
            if output.table.is_none() && output.ranges_up_to(Some(&cut)) {
                self.begin(output)?;
            }
            if let Some((number, writer)) = output.table.take() {
                output.finish(number, writer, Some(&cut))?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, output: &mut Output<'_>) -> Result<(), Error> {
        let (number, writer) = (self.open)()?;
        output.opened.push(number);
        output.table = Some((number, writer));
        Ok(())
    }

    fn end(&mut self, mut output: Output<'_>) -> Result<Vec<(u64, TableBounds)>, Error> {
        self.pass_dense(&mut output, None)?;
        if output.table.is_none() && output.ranges_up_to(self.range.upper.as_deref()) {
            self.begin(&mut output)?;
        }
        if let Some((number, writer)) = output.table.take() {
            output.finish(number, writer, self.range.upper.as_deref())?;
        }
        Ok(output.done)
    }

    /// The range deletions that still hide something, or must be remembered for a snapshot.
    fn kept_ranges(&self) -> RangeTombstones {
        let mut kept = RangeTombstones::default();
        for (start, end, sequence) in self.tombstones.iter() {
            let Some((start, end)) = self.range.clip(start, end) else { continue };
            let remembered = self.snapshots.first().is_some_and(|s| *s < sequence);
            if remembered || (self.reaches_below)(start, Some(end)) {
                kept.add(start, end, sequence, u64::MAX);
            }
        }
        kept
    }
}

/// The keys at which tables are cut whose range deletions have about `bytes` each, the last first.
fn dense(ranges: &RangeTombstones, bytes: u64) -> Vec<Vec<u8>> {
    let (mut cuts, mut size, mut last) = (Vec::new(), 0, None);
    for (start, end, _) in ranges.iter() {
        if size >= bytes && last != Some(start) {
            cuts.push(start.to_vec());
            size = 0;
        }
        last = Some(start);
        size += (start.len() + end.len() + 16) as u64;
    }
    cuts.reverse();
    cuts
}

impl Output<'_> {
    /// True when there are range deletions up to `to` that are in no table yet.
    fn ranges_up_to(&self, to: Option<&[u8]>) -> bool {
        let left = |(start, end, _): (&[u8], &[u8], u64)| {
            end > self.from.as_slice() && to.is_none_or(|to| start < to)
        };
        self.ranges.iter().any(left)
    }

    /// Finishes a table that speaks of the keys up to `to`.
    fn finish(
        &mut self,
        number: u64,
        mut writer: TableWriter,
        to: Option<&[u8]>,
    ) -> Result<(), Error> {
        let clipped = self.ranges.iter().filter_map(|(start, end, sequence)| {
            let start = start.max(self.from.as_slice());
            let end = to.map_or(end, |to| end.min(to));
            (start < end).then_some((start, end, sequence))
        });
        writer.add_ranges(clipped);
        let bounds = writer.finish();
        let bounds =
            bounds.map_err(|e| Error::io(&format!("writing {}", table_name(number)), &e))?;
        self.done.push((number, bounds));
        if let Some(to) = to {
            self.from = to.to_vec();
        }
        Ok(())
    }
}

pub(crate) fn unknown_kind() -> Error {
    let what = "a table holds a kind of change that this version does not know".to_owned();
    Error::Io { what, kind: std::io::ErrorKind::InvalidData }
}
