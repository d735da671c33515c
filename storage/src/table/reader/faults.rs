//! What is wrong with a table: which of its blocks cannot be read, which were repaired elsewhere, and
//! what is left of it when all around the damage was written elsewhere.
//!
//! Promise: a read that meets damage is an error for as long as nobody has repaired it, whatever
//! becomes of the rest of the table.

use super::{Body, Table, nears_of};
use crate::cache::Slots;
use crate::error::{Damage, Error, Place};
use crate::key::KeyRange;
use crate::table::index::Index;
use crate::table::table_name;
use crate::table::writer::TableBounds;
use crate::tombstones::RangeTombstones;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is known of a file's blocks, by offset. What is left of a table shares it.
#[derive(Default)]
pub(super) struct Faults {
    lists: Mutex<Lists>,
    /// Some are damaged.
    broken: AtomicBool,
    /// Some were repaired elsewhere.
    forgives: AtomicBool,
}

#[derive(Default)]
struct Lists {
    /// Damaged data blocks.
    bad: BTreeSet<u64>,
    /// Blocks that the disk has refused to a job once.
    refused: BTreeSet<u64>,
    /// Damaged blocks whose rows were repaired elsewhere: they read as empty.
    forgiven: BTreeSet<u64>,
}

impl Faults {
    /// Of a table of which nothing can be read.
    pub(super) fn of_all() -> Self {
        Self { broken: AtomicBool::new(true), ..Self::default() }
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// True when some of its rows cannot be read.
    pub(crate) fn is_broken(&self) -> bool {
        self.faults.broken.load(Ordering::Relaxed)
    }

    /// The rows of the damaged block at `offset` were repaired elsewhere: read it as empty.
    pub(crate) fn forgive(&self, offset: u64) {
        let mut lists = self.faults.lists();
        lists.bad.remove(&offset);
        lists.forgiven.insert(offset);
        self.faults.forgives.store(true, Ordering::Release);
        let broken = self.body.is_none() || !lists.bad.is_empty();
        self.faults.broken.store(broken, Ordering::Relaxed);
    }

    pub(super) fn is_forgiven(&self, offset: u64) -> bool {
        self.faults.forgives.load(Ordering::Acquire)
            && self.faults.lists().forgiven.contains(&offset)
    }

    /// The error for damage at `offset`, or of the whole file.
    pub(crate) fn damage(&self, offset: Option<u64>) -> Error {
        let (mut lower, mut upper) = (self.bounds.smallest.clone(), self.upper());
        let offset = offset.filter(|_| self.body.is_some());
        if let (Some(at), Some(body)) = (offset, &self.body)
            && let Some(i) = body.index.at(at)
        {
            // What stands around the blocks is in memory: that it rots does not make rows unreadable.
            self.faults.lists().bad.insert(at);
            self.faults.broken.store(true, Ordering::Relaxed);
            (lower, upper) = self.range_of(body, i, i);
        }
        let place = Place::Table { number: self.number, offset };
        let damage = Damage { place, lower, upper: Some(upper) };
        self.shelf.report(&damage);
        Error::Damaged(Box::new(damage))
    }

    pub(super) fn failed_read(&self, offset: u64, e: &std::io::Error) -> Error {
        let known = || self.faults.lists().bad.contains(&offset);
        if e.kind() == ErrorKind::UnexpectedEof || known() {
            return self.damage(Some(offset));
        }
        Error::io(&format!("reading {}", table_name(self.number)), e)
    }

    /// A job failed with `e` at the block at `offset`. What refuses itself to the next one as well is
    /// damage: or it would be tried for ever, and hold up all that is to be merged with it.
    pub(crate) fn refused(&self, offset: u64, e: Error) -> Error {
        match e {
            Error::Io { .. } if !self.faults.lists().refused.insert(offset) => {
                self.damage(Some(offset))
            }
            e => e,
        }
    }

    /// The keys that the blocks `from..=to` may hold.
    fn range_of(&self, body: &Body, from: usize, to: usize) -> (Vec<u8>, Vec<u8>) {
        let (mut lower, mut upper) = (self.bounds.smallest.clone(), self.upper());
        // A separator may equal the last key of its block, so blocks meet just after it.
        if from > 0 {
            lower = body.index.separator(from - 1);
            if !body.splits_keys {
                lower.push(0);
            }
        }
        if to + 1 < body.index.len() {
            upper = [body.index.separator(to), vec![0]].concat();
        }
        (lower, upper)
    }

    /// The keys of which nobody can say what it holds, and all between; none when all of it can be
    /// read.
    pub(crate) fn unreadable(&self) -> Option<KeyRange> {
        if !self.is_broken() {
            return None;
        }
        let whole = || KeyRange { lower: self.bounds.smallest.clone(), upper: Some(self.upper()) };
        let Some(body) = self.body.as_ref().filter(|body| !body.splits_keys) else {
            return Some(whole());
        };
        let bad = self.faults.lists().bad.clone();
        let places: Vec<usize> = bad.iter().filter_map(|offset| body.index.at(*offset)).collect();
        let (from, to) = (*places.iter().min()?, *places.iter().max()?);
        let (lower, upper) = self.range_of(body, from, to);
        Some(KeyRange { lower, upper: Some(upper) })
    }

    /// `range`, which it overlaps, grown to where its blocks begin and end.
    pub(crate) fn grown(&self, range: &KeyRange) -> KeyRange {
        let Some(body) = self.body.as_ref().filter(|b| !b.splits_keys && b.index.len() > 0) else {
            return KeyRange { lower: self.bounds.smallest.clone(), upper: Some(self.upper()) };
        };
        let last = body.index.len() - 1;
        let from = body.index.first_block(&range.lower).min(last);
        let to = range.upper.as_ref().map_or(last, |end| body.index.first_block(before(end)));
        let (lower, upper) = self.range_of(body, from, to.min(last));
        KeyRange { lower, upper: Some(upper) }
    }

    /// This table as far as `range` goes, in which its blocks begin and end: the same file, of which
    /// nobody reads the rest. None when nothing of it can be read, so that nobody took anything away.
    pub(crate) fn narrowed(&self, range: &KeyRange) -> Option<Self> {
        let body = self.body.as_ref().filter(|body| !body.splits_keys)?;
        let bounds = TableBounds {
            smallest: range.lower.clone(),
            largest: range.upper.clone()?,
            largest_excluded: true,
            ..self.bounds.clone()
        };
        let mut table = Self {
            number: self.number,
            nears: nears_of(&bounds),
            bounds,
            counts: self.counts,
            body: None,
            shelf: self.shelf.clone(),
            faults: self.faults.clone(),
            blobs: self.blobs.clone(),
            foreign: self.foreign,
        };
        let (mut index, mut tombstones) = (body.index.clone(), body.tombstones.clone());
        table.leave_out(&mut index, &mut tombstones);
        let whole = body.data_bytes().max(1);
        table.body = Some(Body {
            file: body.file.clone(),
            checksum: body.checksum,
            slots: Arc::new(Slots::new(self.number, index.len())),
            index,
            filter: body.filter.clone(),
            tombstones,
            splits_keys: false,
        });
        let within = table.body.as_ref().map_or(0, Body::data_bytes);
        table.bounds.narrowed = Some(within);
        for (_, bytes) in &mut table.bounds.blobs {
            let part = u128::from(*bytes) * u128::from(within) / u128::from(whole);
            *bytes = u64::try_from(part).unwrap_or(*bytes);
        }
        Some(table)
    }

    /// Leaves out the blocks and the range deletions that are outside of the bounds.
    pub(super) fn leave_out(&self, index: &mut Index, tombstones: &mut RangeTombstones) {
        if self.bounds.largest.is_empty() || index.len() == 0 {
            // Nobody has said what the bounds are.
            return;
        }
        let upper = self.upper();
        let from = index.first_block(&self.bounds.smallest);
        let to = (index.first_block(before(&upper)) + 1).min(index.len());
        if from < to && (from, to) != (0, index.len()) {
            *index = index.part(from, to);
        }
        let bounds = KeyRange { lower: self.bounds.smallest.clone(), upper: Some(upper) };
        let all_inside =
            tombstones.iter().all(|(start, end, _)| bounds.clip(start, end) == Some((start, end)));
        if !all_inside {
            let mut inside = RangeTombstones::default();
            for (start, end, sequence) in tombstones.iter() {
                if let Some((start, end)) = bounds.clip(start, end) {
                    inside.add(start, end, sequence, u64::MAX);
                }
            }
            *tombstones = inside;
        }
    }

    /// True when all keys of data block `i` are at or beyond `end`.
    pub(crate) fn is_block_beyond(&self, i: usize, end: &[u8]) -> bool {
        let Some(body) = self.body.as_ref().filter(|b| !b.splits_keys) else { return false };
        i > 0 && !body.index.is_below(i - 1, before(end))
    }
}

/// A key such that whatever is at or above it, together with the key just after it, is at or above
/// `end`: blocks meet just after their separators.
fn before(end: &[u8]) -> &[u8] {
    end.strip_suffix(&[0]).unwrap_or(end)
}
