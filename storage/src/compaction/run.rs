//! Writing the rows of some sources into new tables, without what no reader can see.

use crate::blob::Separator;
use crate::error::Error;
use crate::fold::{Change, Merge, compact};
use crate::key::Kind;
use crate::merge::{Direction, Merged, Source};
use crate::table::{TableBounds, TableWriter};
use crate::tombstones::RangeTombstones;
use std::borrow::Cow;

/// Whether older changes of a key from here (inclusive) to there (exclusive) may exist below.
pub(crate) type ReachesBelow<'a> = dyn Fn(&[u8], Option<&[u8]>) -> bool + 'a;

/// What a rewrite reads and keeps.
pub(crate) struct Rewrite<'a, 'b> {
    pub(crate) sources: Vec<Source<'a>>,
    pub(crate) tombstones: RangeTombstones,
    pub(crate) merge: &'a dyn Merge,
    /// Readers of the past, ascending.
    pub(crate) snapshots: Vec<u64>,
    /// True when older changes of a key in this range may exist below.
    pub(crate) reaches_below: &'a ReachesBelow<'a>,
    /// Size at which a table is cut.
    pub(crate) table_bytes: u64,
    /// Puts large values elsewhere.
    pub(crate) separator: &'a mut Separator<'b>,
    /// Opens the next table to write.
    pub(crate) open: &'a mut dyn FnMut() -> Result<(u64, TableWriter), Error>,
}

impl Rewrite<'_, '_> {
    /// Writes the tables; their numbers and bounds, by key.
    pub(crate) fn run(mut self) -> Result<Vec<(u64, TableBounds)>, Error> {
        let kept_ranges = self.kept_ranges();
        let io = |e| Error::io("writing a table", &e);
        let mut done = Vec::new();
        let mut output: Option<(u64, TableWriter)> = None;
        // Range deletions from here on are not yet written.
        let mut cut: Vec<u8> = Vec::new();
        let mut rows = Merged::new(std::mem::take(&mut self.sources), Direction::Forward);
        let (mut key, mut found) = (Vec::new(), Vec::new());
        while rows.next(&mut key, &mut found)? {
            let mut changes = Vec::with_capacity(found.len());
            for (tag, value) in &found {
                let kind = tag.kind().ok_or_else(unknown_kind)?;
                let value = value.to_stored(kind);
                changes.push(Change { sequence: tag.sequence(), kind, value });
            }
            let covered = |limit| self.tombstones.covering(&key, limit);
            let just_after = [key.as_slice(), &[0]].concat();
            let bottom = !(self.reaches_below)(&key, Some(&just_after));
            let kept = compact(self.merge, &key, changes, &self.snapshots, &covered, bottom);
            if kept.is_empty() {
                continue;
            }
            if let Some((number, writer)) =
                output.take_if(|(_, writer)| writer.size() >= self.table_bytes)
            {
                done.push(finish(number, writer, &kept_ranges, &cut, Some(&key))?);
                cut.clone_from(&key);
            }
            let (_, writer) = match &mut output {
                Some(output) => output,
                None => output.insert((self.open)()?),
            };
            for Change { sequence, kind, value } in &kept {
                let value = match kind {
                    Kind::Put => self.separator.place(&key, value)?,
                    Kind::Delete | Kind::Merge => Cow::Borrowed(value.as_slice()),
                };
                writer.add(&key, *sequence, *kind, &value).map_err(io)?;
            }
        }
        let ranges_left = kept_ranges.iter().any(|(_, end, _)| end > cut.as_slice());
        if output.is_none() && ranges_left {
            output = Some((self.open)()?);
        }
        if let Some((number, writer)) = output {
            done.push(finish(number, writer, &kept_ranges, &cut, None)?);
        }
        Ok(done)
    }

    /// The range deletions that still hide something, or must be remembered for a snapshot.
    fn kept_ranges(&self) -> RangeTombstones {
        let mut kept = RangeTombstones::default();
        for (start, end, sequence) in self.tombstones.iter() {
            let remembered = self.snapshots.first().is_some_and(|s| *s < sequence);
            if remembered || (self.reaches_below)(start, Some(end)) {
                kept.add(start, end, sequence, u64::MAX);
            }
        }
        kept
    }
}

pub(crate) fn unknown_kind() -> Error {
    let what = "a table holds a kind of change that this version does not know".to_owned();
    Error::Io { what, kind: std::io::ErrorKind::InvalidData }
}

/// Finishes a table that speaks of the keys from `from` to `to`.
fn finish(
    number: u64,
    mut writer: TableWriter,
    ranges: &RangeTombstones,
    from: &[u8],
    to: Option<&[u8]>,
) -> Result<(u64, TableBounds), Error> {
    let clipped = ranges.iter().filter_map(|(start, end, sequence)| {
        let start = start.max(from);
        let end = to.map_or(end, |to| end.min(to));
        (start < end).then_some((start, end, sequence))
    });
    writer.add_ranges(clipped);
    let bounds = writer.finish().map_err(|e| Error::io("writing a table", &e))?;
    Ok((number, bounds))
}
