//! Merge: many sorted sources as one, key by key, in either direction.

use crate::error::Error;
use crate::key::Tag;
use crate::memtable::{Cursor, Memtable};
use crate::table::{Run, TablesCursor};
use crate::value::Bytes;
use std::cmp::Ordering;
use std::ops::ControlFlow;

/// Which way a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Keys ascending.
    Forward,
    /// Keys descending.
    Backward,
}

impl Direction {
    /// Keys in the order of a walk.
    pub(crate) fn compare(self, a: &[u8], b: &[u8]) -> Ordering {
        match self {
            Self::Forward => a.cmp(b),
            Self::Backward => b.cmp(a),
        }
    }
}

/// The first bytes of a key as a number that sorts as keys stand in a walk. Of two keys with the
/// same number either may come first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Near(u64);

impl Near {
    #[inline]
    pub(crate) fn of(key: &[u8], direction: Direction) -> Self {
        let number = match key.first_chunk::<8>() {
            Some(first) => u64::from_be_bytes(*first),
            None => key.iter().rev().fold(0, |sum, byte| sum >> 8 | u64::from(*byte) << 56),
        };
        match direction {
            Direction::Forward => Self(number),
            Direction::Backward => Self(!number),
        }
    }
}

/// A change of the current key.
pub(crate) type Found<'a> = (Tag, Bytes<'a>);

/// One sorted source.
pub(crate) enum Source<'a> {
    Memtable(MemtableCursor<'a>),
    Tables(TablesCursor<'a>),
}

/// Sources as one.
///
/// The sources are kept in the order of the keys they stand at. Whichever is first runs ahead:
/// after each step it is compared with the second alone, and moved only when that is nearer.
pub(crate) struct Merged<'a> {
    sources: Vec<Source<'a>>,
    /// Of the keys that they stand at.
    nears: Vec<Near>,
    direction: Direction,
    /// Those with a key, by key, for one key by place: newer sources stand first.
    order: Vec<usize>,
    /// The first two stand at the same key.
    tied: bool,
}

impl<'a> Merged<'a> {
    pub(crate) fn new(sources: Vec<Source<'a>>, direction: Direction) -> Self {
        let (nears, order) = (Vec::with_capacity(sources.len()), Vec::with_capacity(sources.len()));
        let mut merged = Self { sources, nears, direction, order, tied: false };
        merged.sort();
        merged
    }

    /// The key at hand; none at the end.
    pub(crate) fn head(&self) -> Option<&[u8]> {
        self.sources[*self.order.first()?].key()
    }

    /// The change of the key at hand if it is the only one and stands in a table.
    pub(crate) fn only(&self) -> Option<(Tag, &[u8])> {
        match &self.sources[*self.order.first().filter(|_| !self.tied)?] {
            Source::Memtable(_) => None,
            Source::Tables(cursor) => cursor.only(),
        }
    }

    /// True when the value in [`Merged::only`] is what it looks like.
    pub(crate) fn is_plain(&self) -> bool {
        match self.order.first().map(|first| &self.sources[*first]) {
            Some(Source::Tables(cursor)) => cursor.is_plain(),
            _ => false,
        }
    }

    /// Shows `visit` the rows up to the next one that wants a closer look; see [`TablesCursor::run`].
    /// True when `visit` broke off: then the key at hand was shown.
    pub(crate) fn run(
        &mut self,
        bound: u64,
        visit: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<bool, Error> {
        while let Some(first) = self.order.first().copied().filter(|_| !self.tied) {
            let beyond = self.order.get(1).map(|second| self.nears[*second]);
            // Where these keys cannot be told apart, the next row is no further from another.
            if beyond.is_some_and(|beyond| self.nears[first] >= beyond) {
                return Ok(false);
            }
            let Source::Tables(cursor) = &mut self.sources[first] else { return Ok(false) };
            let ran = cursor.run(beyond, bound, visit)?;
            self.replace_first();
            match ran {
                Run::On => {}
                Run::Look => return Ok(false),
                Run::Broke => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Goes past the key at hand, of which there is one change; see [`Merged::only`].
    pub(crate) fn advance(&mut self) -> Result<(), Error> {
        let Some(first) = self.order.first() else { return Ok(()) };
        match &mut self.sources[*first] {
            Source::Memtable(cursor) => cursor.take(&mut Vec::new()),
            Source::Tables(cursor) => cursor.advance()?,
        }
        self.replace_first();
        Ok(())
    }

    /// The next key and all its changes, newest first; false at the end.
    pub(crate) fn next(
        &mut self,
        key: &mut Vec<u8>,
        found: &mut Vec<Found<'a>>,
    ) -> Result<bool, Error> {
        found.clear();
        let Some(head) = self.head() else { return Ok(false) };
        key.clear();
        key.extend_from_slice(head);
        let mut more = true;
        let mut contributed = 0;
        while more {
            more = self.tied;
            contributed += 1;
            self.sources[self.order[0]].take(found)?;
            self.replace_first();
        }
        if contributed > 1 {
            found.sort_by_key(|(tag, _)| std::cmp::Reverse(*tag));
        }
        Ok(true)
    }

    /// Passes over rows that a deletion at `cover` hides, up to `bound`: the first key that is not hidden, or
    /// backward the last key that is.
    pub(crate) fn skip_covered(&mut self, bound: Option<&[u8]>, cover: u64) -> Result<(), Error> {
        for source in &mut self.sources {
            match source {
                Source::Memtable(cursor) => cursor.rows.skip_covered(bound, cover),
                Source::Tables(cursor) => cursor.skip_covered(bound, cover)?,
            }
        }
        self.sort();
        Ok(())
    }

    /// Which of two sources comes first.
    #[inline]
    fn compare(&self, a: usize, b: usize) -> Ordering {
        self.nears[a].cmp(&self.nears[b]).then_with(|| {
            match (self.sources[a].key(), self.sources[b].key()) {
                (Some(a), Some(b)) => self.direction.compare(a, b),
                _ => Ordering::Equal,
            }
        })
    }

    fn sort(&mut self) {
        let mut order: Vec<usize> = std::mem::take(&mut self.order);
        order.clear();
        self.nears.clear();
        let keys = self.sources.iter().map(|source| source.key().unwrap_or_default());
        self.nears.extend(keys.map(|key| Near::of(key, self.direction)));
        order.extend((0..self.sources.len()).filter(|i| self.sources[*i].key().is_some()));
        order.sort_by(|a, b| self.compare(*a, *b).then(a.cmp(b)));
        self.order = order;
        self.note_tie();
    }

    /// The first source has gone on: puts it where it belongs now.
    fn replace_first(&mut self) {
        let Some(first) = self.order.first().copied() else { return };
        let Some(key) = self.sources[first].key() else {
            self.order.remove(0);
            self.note_tie();
            return;
        };
        self.nears[first] = Near::of(key, self.direction);
        // A few steps at most, and mostly none.
        let mut place = 0;
        let mut tied = false;
        while let Some(next) = self.order.get(place + 1).copied() {
            let order = self.compare(first, next);
            if order == Ordering::Less || (order == Ordering::Equal && first < next) {
                tied = order == Ordering::Equal;
                break;
            }
            self.order[place] = next;
            place += 1;
        }
        self.order[place] = first;
        match place {
            0 => self.tied = tied,
            _ => self.note_tie(),
        }
    }

    fn note_tie(&mut self) {
        self.tied = match self.order[..] {
            [first, second, ..] => self.compare(first, second) == Ordering::Equal,
            _ => false,
        };
    }
}

impl<'a> Source<'a> {
    fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Memtable(cursor) => cursor.rows.key(),
            Self::Tables(cursor) => cursor.key(),
        }
    }

    fn take(&mut self, found: &mut Vec<Found<'a>>) -> Result<(), Error> {
        match self {
            Self::Memtable(cursor) => {
                cursor.take(found);
                Ok(())
            }
            Self::Tables(cursor) => cursor.take(found),
        }
    }
}

/// Walks a memtable.
pub(crate) struct MemtableCursor<'a> {
    rows: Cursor<'a>,
}

impl<'a> MemtableCursor<'a> {
    pub(crate) fn new(
        memtable: &'a Memtable,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
    ) -> Self {
        Self { rows: Cursor::new(memtable, start, end, direction) }
    }

    fn take(&mut self, found: &mut Vec<Found<'a>>) {
        found.extend(self.rows.versions().map(|(tag, v)| (tag, Bytes::Borrowed(v))));
        self.rows.advance();
    }
}
