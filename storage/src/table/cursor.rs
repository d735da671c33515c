//! A cursor over tables that follow each other without overlap, in either direction.
//!
//! It stands at a key until it is told to go on, and lends what stands there.

mod steps;

use super::ahead::ReadAhead;
use super::block::Block;
use super::reader::{Slice, Table};
use super::walk::{Ran, Walk};
use crate::blob::TAG_FIRST;
use crate::error::Error;
use crate::key::{Kind, Tag};
use crate::merge::{Direction, Found, Near};
use crate::value::Bytes;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// Walks tables that follow each other without overlap.
pub(crate) struct TablesCursor<'a> {
    tables: &'a [Arc<Table>],
    direction: Direction,
    /// Where the walk ends. Forward: the first key beyond; none = never. Backward: the last key.
    limit: Option<Vec<u8>>,
    /// The table at hand; beyond the slice when there is none left.
    table: usize,
    /// The block at hand.
    number: usize,
    block: Option<Block>,
    /// Where the walk stands in the block at hand when that is not decoded.
    walk: Walk,
    /// The rows of the block that are still to be walked. Forward the head is the first of them,
    /// backward the last. Of a block that is not decoded: all there are, as one row.
    from: usize,
    to: usize,
    /// The walk ends in this block.
    last_block: bool,
    done: bool,
    /// The block to begin with.
    opening: Option<usize>,
    /// Versions of one key may stand in several blocks of the table at hand.
    splits: bool,
    /// The head's key, in the first `key_len` bytes, and how much of it is the block's prefix.
    key: Vec<u8>,
    key_len: usize,
    prefix: usize,
    ahead: ReadAhead,
}

impl Drop for TablesCursor<'_> {
    fn drop(&mut self) {
        self.block.take().into_iter().for_each(Block::spare);
    }
}

/// Why a [`TablesCursor::run`] ended.
pub(crate) enum Run {
    /// It may go on, perhaps in another source.
    On,
    /// The row at hand wants a closer look.
    Look,
    /// It was broken off; the row at hand was shown.
    Broke,
}

impl<'a> TablesCursor<'a> {
    /// A cursor over the part of `tables` from `start` to `end`.
    pub(crate) fn new(
        tables: &'a [Arc<Table>],
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
    ) -> Result<Self, Error> {
        let mut cursor = Self::unopened(tables, start, end, direction)?;
        cursor.find(start, end)?;
        cursor.settle()?;
        Ok(cursor)
    }

    /// As [`TablesCursor::new`], but it knows only which block it will begin with: to be used after
    /// [`TablesCursor::find`] and [`TablesCursor::settle`].
    pub(crate) fn unopened(
        tables: &'a [Arc<Table>],
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
    ) -> Result<Self, Error> {
        Self::over(tables, start, end, direction, ReadAhead::default())
    }

    /// A cursor forward from `start` to `end` that reads ahead at once and leaves the cache alone.
    pub(crate) fn streaming(
        tables: &'a [Arc<Table>],
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Result<Self, Error> {
        let ahead = ReadAhead::streaming();
        let mut cursor = Self::over(tables, start, end, Direction::Forward, ahead)?;
        cursor.find(start, end)?;
        cursor.settle()?;
        Ok(cursor)
    }

    fn over(
        tables: &'a [Arc<Table>],
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        ahead: ReadAhead,
    ) -> Result<Self, Error> {
        let limit = match direction {
            // Nearly always the tables end before, and nobody has to look.
            Direction::Forward => end.filter(|end| tables.last().is_some_and(|t| !t.is_below(end))),
            Direction::Backward => Some(start),
        };
        let mut cursor = Self {
            tables,
            direction,
            limit: limit.map(<[u8]>::to_vec),
            table: 0,
            number: 0,
            block: None,
            walk: Walk::default(),
            from: 0,
            to: 0,
            last_block: false,
            done: false,
            opening: None,
            splits: false,
            key: Vec::new(),
            key_len: 0,
            prefix: 0,
            ahead,
        };
        match direction {
            Direction::Forward => {
                cursor.table = tables.partition_point(|t| t.is_below(start));
                if let Some(table) = tables.get(cursor.table) {
                    let number = table.first_block(start)?;
                    table.prefetch(number);
                    cursor.opening = Some(number);
                }
            }
            Direction::Backward => {
                let count = end.map_or(tables.len(), |end| {
                    tables.partition_point(|t| t.bounds.smallest.as_slice() < end)
                });
                // Beyond the slice when there is nothing: the same place as after the last step.
                cursor.table = count.checked_sub(1).unwrap_or(tables.len());
            }
        }
        Ok(cursor)
    }

    /// Finds the place in the first block from which to walk from `start` to `end`.
    pub(crate) fn find(&mut self, start: &[u8], end: Option<&[u8]>) -> Result<(), Error> {
        match self.direction {
            Direction::Forward => self.enter(Some(start))?,
            Direction::Backward => self.enter(end)?,
        }
        if let Some(block) = self.block.as_ref().filter(|block| block.raw().is_none()) {
            block.prefetch_row(self.from);
        }
        Ok(())
    }

    /// The key at hand; none at the end.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        (!self.done).then(|| match &self.block {
            Some(block) if block.raw().is_some() => self.walk.user_key(),
            _ => &self.key[..self.key_len],
        })
    }

    /// The change of the key at hand if it is the only one; lends its value.
    pub(crate) fn only(&self) -> Option<(Tag, &[u8])> {
        let block = self.block.as_ref().filter(|_| !self.done)?;
        if let Some(raw) = block.raw() {
            let only = !self.walk.repeats(&raw);
            return only.then(|| (self.walk.tag(), &raw.entries[self.walk.value()]));
        }
        let (first, next) = self.head(block);
        if next - first != 1 || self.splits {
            return None;
        }
        Some((block.tag(first), block.bytes().get(block.value(first))?))
    }

    /// True when the value of the key at hand, if [`TablesCursor::only`] has it, is its value.
    pub(crate) fn is_plain(&self) -> bool {
        self.block.as_ref().is_some_and(Block::is_plain)
    }

    /// Goes on to the next key.
    pub(crate) fn advance(&mut self) -> Result<(), Error> {
        match &self.block {
            // Nearly always.
            Some(block) if !self.splits && !self.done => {
                if let Some(raw) = block.raw() {
                    let there = self.walk.step_key(&raw);
                    return self.went_on(there);
                }
                let (first, next) = self.head(block);
                match self.direction {
                    Direction::Forward => self.from = next,
                    Direction::Backward => self.to = first,
                }
                self.settle()
            }
            _ => self.each_version(|_, _, _| {}),
        }
    }

    /// Shows `visit` row after row for as long as there is nothing to decide: puts up to sequence
    /// `bound`, each the only change of its key in these tables, in the block at hand, whose keys
    /// come before those of `beyond` ([`Near::of`]; none: all do). Stands at the row after these,
    /// or at the one that `visit` broke off at.
    pub(crate) fn run(
        &mut self,
        beyond: Option<Near>,
        bound: u64,
        visit: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<Run, Error> {
        let Self { block: Some(block), key, key_len, from, to, prefix, direction, walk, .. } = self
        else {
            return Ok(Run::Look);
        };
        if let (Some(raw), false) = (block.raw(), self.done) {
            let stops = |tag: Tag, value: &[u8]| {
                tag.kind() != Some(Kind::Put)
                    || tag.sequence() > bound
                    || value.first() == Some(&TAG_FIRST)
            };
            let visit = |key: &[u8], value: &[u8]| visit(key, value).is_continue();
            let goes_on =
                |key: &[u8]| beyond.is_none_or(|beyond| Near::of(key, Direction::Forward) < beyond);
            return match walk.run(&raw, stops, visit, goes_on) {
                Some(Ran::Stopped) => Ok(Run::Look),
                Some(Ran::Broke) => Ok(Run::Broke),
                Some(Ran::Left) => Ok(Run::On),
                Some(Ran::Ended) => self.went_on(Some(false)).map(|()| Run::On),
                None => Err(self.damage()),
            };
        }
        if self.done || self.splits || !block.is_unique() {
            return Ok(Run::Look);
        }
        let plain = block.is_plain();
        loop {
            let row = match direction {
                Direction::Forward => *from,
                Direction::Backward => *to - 1,
            };
            let tag = block.tag(row);
            if tag.kind() != Some(Kind::Put) || tag.sequence() > bound {
                return Ok(Run::Look);
            }
            let value = &block.bytes()[block.value(row)];
            if !plain && value.first() == Some(&TAG_FIRST) {
                return Ok(Run::Look);
            }
            if visit(&key[..*key_len], value).is_break() {
                return Ok(Run::Broke);
            }
            let next = match direction {
                Direction::Forward => {
                    *from += 1;
                    *from
                }
                Direction::Backward => {
                    *to -= 1;
                    to.wrapping_sub(1)
                }
            };
            if *from >= *to {
                self.settle()?;
                return Ok(Run::On);
            }
            *key_len = block.copy_suffix(next, key, *prefix);
            if beyond.is_some_and(|beyond| Near::of(&key[..*key_len], *direction) >= beyond) {
                return Ok(Run::On);
            }
        }
    }

    /// Hands out the changes of the key at hand, newest first, and goes on to the next key.
    pub(crate) fn take(&mut self, found: &mut Vec<Found<'a>>) -> Result<(), Error> {
        if let Some(block) = self.block.as_ref().filter(|_| !self.done)
            && let Some(raw) = block.raw()
        {
            let there = loop {
                let again = self.walk.repeats(&raw);
                let slice = Slice { block: block.clone(), range: self.walk.value() };
                found.push((self.walk.tag(), Bytes::Block(slice)));
                let there = self.walk.step(&raw);
                if !again || there != Some(true) {
                    break there;
                }
            };
            return self.went_on(there);
        }
        let before = found.len();
        let mut split = false;
        self.each_version(|block, rows, again| {
            split |= again;
            found.extend(rows.map(|row| {
                let slice = Slice { block: block.clone(), range: block.value(row) };
                (block.tag(row), Bytes::Block(slice))
            }));
        })?;
        if split {
            found[before..].sort_by_key(|(tag, _)| std::cmp::Reverse(*tag));
        }
        Ok(())
    }

    /// Passes over rows that a deletion at `cover` hides: all up to `bound` (forward: exclusive,
    /// backward: inclusive; none: all) in the table at hand, if nothing in it is newer.
    pub(crate) fn skip_covered(&mut self, bound: Option<&[u8]>, cover: u64) -> Result<(), Error> {
        let Some(table) = self.tables.get(self.table).filter(|_| !self.done) else { return Ok(()) };
        if table.bounds.last_sequence >= cover {
            return Ok(());
        }
        self.decode()?;
        let Some(table) = self.tables.get(self.table) else { return Ok(()) };
        let whole = match (self.direction, bound) {
            (_, None) => true,
            (Direction::Forward, Some(bound)) => table.is_below(bound),
            (Direction::Backward, Some(bound)) => table.bounds.smallest.as_slice() >= bound,
        };
        if whole {
            self.next_table()?;
        } else if let Some(bound) = bound {
            let number = table.first_block(bound)?;
            match self.direction {
                Direction::Forward => {
                    if number > self.number {
                        if number >= table.blocks()? {
                            self.next_table()?;
                            return self.settle();
                        }
                        self.number = number;
                        self.load(None)?;
                        self.decode()?;
                    }
                    self.from = self.from.max(self.below(bound));
                }
                Direction::Backward => {
                    if number < self.number {
                        self.number = number;
                        self.load(None)?;
                    }
                    self.to = self.to.min(self.below(bound));
                }
            }
        }
        self.settle()
    }

    /// The rows of the key at hand.
    fn head(&self, block: &Block) -> (usize, usize) {
        match self.direction {
            Direction::Forward => (self.from, block.next_key(self.from).min(self.to)),
            Direction::Backward => (block.first_of_key(self.to - 1).max(self.from), self.to),
        }
    }

    /// Shows the changes of the key at hand, block by block (in nearly all tables it is one block),
    /// and goes on to the next key.
    fn each_version(
        &mut self,
        mut visit: impl FnMut(&Block, Range<usize>, bool),
    ) -> Result<(), Error> {
        let splits = self.splits;
        let key = if splits { self.key[..self.key_len].to_vec() } else { Vec::new() };
        let mut again = false;
        while let Some(block) = self.block.as_ref().filter(|_| !self.done) {
            let (first, next) = self.head(block);
            visit(block, first..next, again);
            match self.direction {
                Direction::Forward => self.from = next,
                Direction::Backward => self.to = first,
            }
            self.settle()?;
            if !splits || self.key() != Some(key.as_slice()) {
                break;
            }
            again = true;
        }
        Ok(())
    }
}
