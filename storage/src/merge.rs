//! Merge: many sorted sources as one, key by key, in either direction.

use crate::error::Error;
use crate::key::Tag;
use crate::memtable::{MemKey, Memtable, Versions};
use crate::table::{Block, Decoded, Slice, Table};
use crate::value::Bytes;
use std::cmp::Ordering;
use std::collections::btree_map;
use std::sync::Arc;

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
pub(crate) struct Merged<'a> {
    sources: Vec<Source<'a>>,
    direction: Direction,
}

impl<'a> Merged<'a> {
    pub(crate) fn new(sources: Vec<Source<'a>>, direction: Direction) -> Self {
        Self { sources, direction }
    }

    /// The next key and all its changes, newest first; false at the end.
    pub(crate) fn next(
        &mut self,
        key: &mut Vec<u8>,
        found: &mut Vec<Found<'a>>,
    ) -> Result<bool, Error> {
        found.clear();
        let wanted = match self.direction {
            Direction::Forward => Ordering::Less,
            Direction::Backward => Ordering::Greater,
        };
        let mut first: Option<&[u8]> = None;
        for source in &self.sources {
            if let Some(head) = source.key()
                && first.is_none_or(|first| head.cmp(first) == wanted)
            {
                first = Some(head);
            }
        }
        let Some(first) = first else { return Ok(false) };
        key.clear();
        key.extend_from_slice(first);
        let mut contributed = 0;
        for source in &mut self.sources {
            if source.key() == Some(key.as_slice()) {
                source.take(found)?;
                contributed += 1;
            }
        }
        if contributed > 1 {
            found.sort_by_key(|(tag, _)| std::cmp::Reverse(*tag));
        }
        Ok(true)
    }
}

impl<'a> Source<'a> {
    fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Memtable(cursor) => cursor.head.map(|(key, _)| key.key()),
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
    rows: btree_map::Range<'a, MemKey, Versions>,
    head: Option<(&'a MemKey, &'a Versions)>,
    direction: Direction,
}

impl<'a> MemtableCursor<'a> {
    pub(crate) fn new(
        memtable: &'a Memtable,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
    ) -> Self {
        let mut cursor = Self { rows: memtable.range(start, end), head: None, direction };
        cursor.advance();
        cursor
    }

    fn advance(&mut self) {
        self.head = match self.direction {
            Direction::Forward => self.rows.next(),
            Direction::Backward => self.rows.next_back(),
        };
    }

    fn take(&mut self, found: &mut Vec<Found<'a>>) {
        if let Some((key, versions)) = self.head {
            found.extend(key.versions(versions).map(|(tag, v)| (tag, Bytes::Borrowed(v))));
        }
        self.advance();
    }
}

/// Walks tables that follow each other without overlap.
pub(crate) struct TablesCursor<'a> {
    tables: &'a [Arc<Table>],
    direction: Direction,
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    /// The table at hand; beyond the slice when there is none left.
    table: usize,
    /// The block at hand.
    number: usize,
    block: Option<Arc<Block>>,
    decoded: Decoded,
    /// Forward: the head's index. Backward: one more than it.
    entry: usize,
    done: bool,
}

impl<'a> TablesCursor<'a> {
    /// A cursor over the part of `tables` from `start` to `end`.
    pub(crate) fn new(
        tables: &'a [Arc<Table>],
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
    ) -> Result<Self, Error> {
        let mut cursor = Self {
            tables,
            direction,
            start: start.to_vec(),
            end: end.map(<[u8]>::to_vec),
            table: 0,
            number: 0,
            block: None,
            decoded: Decoded::default(),
            entry: 0,
            done: false,
        };
        match direction {
            Direction::Forward => {
                cursor.table = tables.partition_point(|t| t.is_below(start));
                cursor.enter_table()?;
                cursor.settle_forward()?;
            }
            Direction::Backward => {
                let count = end.map_or(tables.len(), |end| {
                    tables.partition_point(|t| t.bounds.smallest.as_slice() < end)
                });
                cursor.done = count == 0;
                cursor.table = count.saturating_sub(1);
                if !cursor.done {
                    cursor.enter_table()?;
                    cursor.settle_backward()?;
                }
            }
        }
        Ok(cursor)
    }

    pub(crate) fn key(&self) -> Option<&[u8]> {
        match self.direction {
            _ if self.done => None,
            Direction::Forward => Some(self.decoded.key(self.entry)),
            Direction::Backward => Some(self.decoded.key(self.entry - 1)),
        }
    }

    /// Hands out the changes of the head's key and goes on to the next key. The versions of one
    /// key stand in one block.
    pub(crate) fn take(&mut self, found: &mut Vec<Found<'a>>) -> Result<(), Error> {
        let (from, to) = match self.direction {
            Direction::Forward => {
                let from = self.entry;
                let same = |i: &usize| self.decoded.key(*i) == self.decoded.key(from);
                (from, (from..self.decoded.len()).take_while(same).last().map_or(from, |i| i + 1))
            }
            Direction::Backward => {
                let to = self.entry;
                let same = |i: &usize| self.decoded.key(*i) == self.decoded.key(to - 1);
                ((0..to).rev().take_while(same).last().unwrap_or(0), to)
            }
        };
        let block = self.block.as_ref().expect("a head stands in a block");
        for i in from..to {
            let slice = Slice { block: block.clone(), range: self.decoded.value(i) };
            found.push((self.decoded.tag(i), Bytes::Block(slice)));
        }
        match self.direction {
            Direction::Forward => {
                self.entry = to;
                self.settle_forward()
            }
            Direction::Backward => {
                self.entry = from;
                self.settle_backward()
            }
        }
    }

    /// Positions at the bound inside the table at hand.
    fn enter_table(&mut self) -> Result<(), Error> {
        self.decoded = Decoded::default();
        self.block = None;
        self.entry = 0;
        let Some(table) = self.tables.get(self.table) else { return Ok(()) };
        let blocks = table.blocks()?;
        match (self.direction, &self.end) {
            (Direction::Forward, _) => {
                self.number = table.first_block(&self.start)?;
                if self.number < blocks {
                    self.load()?;
                    self.entry = self.decoded.below(&self.start);
                }
            }
            (Direction::Backward, end) => {
                let Some(last) = blocks.checked_sub(1) else { return Ok(()) };
                let end = end.clone();
                self.number = match &end {
                    Some(end) => table.first_block(end)?.min(last),
                    None => last,
                };
                self.load()?;
                self.entry = end.map_or(self.decoded.len(), |end| self.decoded.below(&end));
            }
        }
        Ok(())
    }

    fn load(&mut self) -> Result<(), Error> {
        let table = &self.tables[self.table];
        let block = table.block(self.number)?;
        if !self.decoded.fill(&block) {
            return Err(table.broken_block(self.number));
        }
        self.block = Some(block);
        Ok(())
    }

    fn settle_forward(&mut self) -> Result<(), Error> {
        while self.entry >= self.decoded.len() {
            let Some(table) = self.tables.get(self.table) else {
                self.done = true;
                return Ok(());
            };
            if self.number + 1 < table.blocks()? {
                self.number += 1;
                self.load()?;
                self.entry = 0;
            } else {
                self.table += 1;
                let beyond =
                    |t: &Arc<Table>| self.end.as_ref().is_some_and(|end| t.bounds.smallest >= *end);
                if self.tables.get(self.table).is_some_and(beyond) {
                    self.done = true;
                    return Ok(());
                }
                self.enter_table()?;
            }
        }
        let key = self.decoded.key(self.entry);
        self.done = self.end.as_ref().is_some_and(|end| key >= end.as_slice());
        Ok(())
    }

    fn settle_backward(&mut self) -> Result<(), Error> {
        while self.entry == 0 {
            if self.number > 0 && self.block.is_some() {
                self.number -= 1;
                self.load()?;
                self.entry = self.decoded.len();
            } else if self.table > 0 && !self.tables[self.table - 1].is_below(&self.start) {
                self.table -= 1;
                self.enter_table()?;
            } else {
                self.done = true;
                return Ok(());
            }
        }
        self.done = self.decoded.key(self.entry - 1) < self.start.as_slice();
        Ok(())
    }
}
