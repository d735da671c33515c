//! How a cursor goes from block to block and from table to table.

use super::TablesCursor;
use crate::error::Error;
use crate::merge::Direction;
use crate::table::Table;
use crate::table::block::Block;
use crate::table::reader::Form;
use std::sync::Arc;

impl TablesCursor<'_> {
    /// Number of rows of the block at hand with a key below `key`.
    pub(super) fn below(&self, key: &[u8]) -> usize {
        self.block.as_ref().map_or(0, |block| block.below(key))
    }

    /// Enters the table at hand, at `bound` (forward: the first key; backward: the end) if any.
    pub(super) fn enter(&mut self, bound: Option<&[u8]>) -> Result<(), Error> {
        (self.from, self.to, self.block) = (0, 0, None);
        let Some(table) = self.tables.get(self.table) else { return Ok(()) };
        let blocks = table.blocks()?;
        let Some(last) = blocks.checked_sub(1) else { return Ok(()) };
        let found = match self.opening.take() {
            Some(number) => Some(number),
            None => bound.map(|bound| table.first_block(bound)).transpose()?,
        };
        match self.direction {
            Direction::Forward => {
                self.number = found.unwrap_or(0);
                if self.number < blocks {
                    self.load(bound)?;
                }
            }
            Direction::Backward => {
                self.number = found.unwrap_or(last).min(last);
                self.load(None)?;
                self.to = bound.map_or(self.to, |end| self.to.min(self.below(end)));
            }
        }
        Ok(())
    }

    /// Takes up the block at hand, forward from `start` on if any.
    pub(super) fn load(&mut self, start: Option<&[u8]>) -> Result<(), Error> {
        let table = &self.tables[self.table];
        self.splits = table.splits_keys();
        let inside = match (&self.limit, self.direction) {
            (None, _) => true,
            (Some(end), Direction::Forward) => table.is_block_below(self.number, end),
            (Some(_), Direction::Backward) => false,
        };
        let forward = self.direction == Direction::Forward;
        let form = if inside && forward { Form::Any } else { Form::Decoded };
        self.block.take().into_iter().for_each(Block::spare);
        let block = self.ahead.block(table, self.number, self.direction, form)?;
        if let Some(raw) = block.raw() {
            let there = match start {
                Some(start) => self.walk.seek(&raw, start),
                None => self.walk.first(&raw),
            };
            self.block = Some(block);
            return match there {
                Some(there) => {
                    (self.from, self.to) = (usize::from(!there), 1);
                    Ok(())
                }
                None => Err(self.damage()),
            };
        }
        self.take_up(block, inside);
        self.from = start.map_or(self.from, |start| self.below(start));
        Ok(())
    }

    /// Goes on with all of a decoded block, as far as the limit lets; `inside`: it does so to the end.
    fn take_up(&mut self, block: Block, inside: bool) {
        (self.from, self.to) = (0, block.rows());
        if let Some(limit) = self.limit.as_ref().filter(|_| !inside) {
            let bound = block.below(limit);
            match self.direction {
                Direction::Forward => self.to = bound,
                Direction::Backward => self.from = bound,
            }
            // The first block with a row outside.
            self.last_block = match self.direction {
                Direction::Forward => bound < block.rows(),
                Direction::Backward => bound > 0,
            };
        }
        let prefix = block.prefix();
        self.prefix = prefix.len();
        if self.key.len() < self.prefix {
            self.key.resize(self.prefix, 0);
        }
        self.key[..self.prefix].copy_from_slice(prefix);
        self.block = Some(block);
    }

    /// Decodes the block at hand, if it is not, and stands at the same key.
    pub(super) fn decode(&mut self) -> Result<(), Error> {
        let Some(block) = self.block.as_ref().filter(|block| block.raw().is_some()) else {
            return Ok(());
        };
        let decoded = self.tables[self.table].decoded(self.number, block)?;
        let ended = self.from >= self.to;
        let key = self.walk.user_key();
        let from = if ended { decoded.rows() } else { decoded.below(key) };
        self.take_up(decoded, true);
        self.from = from;
        Ok(())
    }

    /// The walk in a block that is not decoded has gone on, as far as `there` says.
    pub(super) fn went_on(&mut self, there: Option<bool>) -> Result<(), Error> {
        match there {
            Some(true) => Ok(()),
            Some(false) => {
                self.from = self.to;
                self.settle()
            }
            None => Err(self.damage()),
        }
    }

    pub(super) fn damage(&self) -> Error {
        let table = &self.tables[self.table];
        table.damage(table.handle(self.number).ok().map(|handle| handle.offset))
    }

    pub(super) fn next_table(&mut self) -> Result<(), Error> {
        let next = match self.direction {
            Direction::Forward => self.table + 1,
            Direction::Backward => self.table.checked_sub(1).unwrap_or(self.tables.len()),
        };
        let beyond = |table: &Arc<Table>| match (&self.limit, self.direction) {
            (None, _) => false,
            (Some(end), Direction::Forward) => table.bounds.smallest >= *end,
            (Some(start), Direction::Backward) => table.is_below(start),
        };
        self.table = match self.tables.get(next) {
            Some(table) if !beyond(table) => next,
            _ => self.tables.len(),
        };
        self.enter(None)
    }

    /// Goes on to a block with rows to walk, if the one at hand has none, and takes up the key.
    pub(crate) fn settle(&mut self) -> Result<(), Error> {
        while self.from >= self.to {
            let Some(table) = self.tables.get(self.table).filter(|_| !self.last_block) else {
                self.done = true;
                return Ok(());
            };
            let blocks = table.blocks()?;
            let next = match self.direction {
                _ if self.block.is_none() => None,
                Direction::Forward => Some(self.number + 1).filter(|n| *n < blocks),
                Direction::Backward => self.number.checked_sub(1),
            };
            if let Some(next) = next {
                // Not to be read where all of it lies outside: it may be damaged.
                let outside = |limit: &Vec<u8>| match self.direction {
                    Direction::Forward => table.is_block_beyond(next, limit),
                    Direction::Backward => table.is_block_below(next, limit),
                };
                if self.limit.as_ref().is_some_and(outside) {
                    self.done = true;
                    return Ok(());
                }
                self.number = next;
                self.load(None)?;
                if self.direction == Direction::Forward {
                    table.prefetch(next + 1);
                }
            } else {
                self.next_table()?;
            }
        }
        if let Some(block) = self.block.as_ref().filter(|block| block.raw().is_none()) {
            let row = match self.direction {
                Direction::Forward => self.from,
                Direction::Backward => self.to - 1,
            };
            self.key_len = block.copy_suffix(row, &mut self.key, self.prefix);
        }
        Ok(())
    }
}
