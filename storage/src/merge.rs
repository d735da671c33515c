//! Merge: many sorted sources as one, key by key, in either direction.

use crate::error::Error;
use crate::key::Tag;
use crate::memtable::{Cursor, Memtable};
use crate::table::TablesCursor;
use crate::value::Bytes;
use std::cmp::Ordering;

/// Which way a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Keys ascending.
    Forward,
    /// Keys descending.
    Backward,
}

/// A change of the current key.
pub(crate) type Found<'a> = (Tag, Bytes<'a>);

/// One sorted source.
pub(crate) enum Source<'a> {
    Memtable(MemtableCursor<'a>),
    Tables(Box<TablesCursor<'a>>),
}

/// Sources as one.
///
/// The sources are kept in the order of the keys they stand at. Whichever is first runs ahead:
/// after each step it is compared with the second alone, and moved only when that is nearer.
pub(crate) struct Merged<'a> {
    sources: Vec<Source<'a>>,
    direction: Direction,
    /// Those with a key, by key, for one key by place: newer sources stand first.
    order: Vec<usize>,
    /// The first two stand at the same key.
    tied: bool,
}

impl<'a> Merged<'a> {
    pub(crate) fn new(sources: Vec<Source<'a>>, direction: Direction) -> Self {
        let mut merged = Self { sources, direction, order: Vec::new(), tied: false };
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

    /// Passes over rows of tables that a deletion at `cover` hides, up to `bound`.
    pub(crate) fn skip_covered(&mut self, bound: Option<&[u8]>, cover: u64) -> Result<(), Error> {
        for source in &mut self.sources {
            if let Source::Tables(cursor) = source {
                cursor.skip_covered(bound, cover)?;
            }
        }
        self.sort();
        Ok(())
    }

    /// Which of two sources comes first.
    fn compare(&self, a: usize, b: usize) -> Ordering {
        let (Some(a_key), Some(b_key)) = (self.sources[a].key(), self.sources[b].key()) else {
            return Ordering::Equal;
        };
        match self.direction {
            Direction::Forward => a_key.cmp(b_key),
            Direction::Backward => b_key.cmp(a_key),
        }
    }

    fn sort(&mut self) {
        let mut order: Vec<usize> = std::mem::take(&mut self.order);
        order.clear();
        order.extend((0..self.sources.len()).filter(|i| self.sources[*i].key().is_some()));
        order.sort_by(|a, b| self.compare(*a, *b).then(a.cmp(b)));
        self.order = order;
        self.note_tie();
    }

    /// The first source has gone on: puts it where it belongs now.
    fn replace_first(&mut self) {
        let Some(first) = self.order.first().copied() else { return };
        if self.sources[first].key().is_none() {
            self.order.remove(0);
            self.note_tie();
            return;
        }
        let Some(second) = self.order.get(1) else { return self.tied = false };
        match self.compare(first, *second) {
            Ordering::Less => self.tied = false,
            Ordering::Equal if first < *second => self.tied = true,
            _ => {
                let rest = &self.order[1..];
                let behind = rest.partition_point(|other| {
                    self.compare(*other, first).then(other.cmp(&first)) == Ordering::Less
                });
                self.order.copy_within(1..=behind, 0);
                self.order[behind] = first;
                self.note_tie();
            }
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
