//! Reading ahead: a cursor that walks block after block reads several at once from the disk.
//!
//! Each block is verified when the cursor comes to it, not before: what it never reaches costs
//! nothing but the read.

use super::block::Block;
use super::reader::{Form, Table};
use crate::error::Error;
use crate::merge::Direction;

/// Blocks walked one by one before the first read ahead.
const STEPS_BEFORE: u32 = 2;
/// The first read ahead, in bytes; each further one reads twice as much.
const FIRST_BYTES: usize = 16 << 10;
/// The largest.
const BYTES_MAX: usize = 256 << 10;

/// What a cursor has read of a table and not yet walked.
#[derive(Default)]
pub(crate) struct ReadAhead {
    /// Keeps its size; `len` bytes of it count.
    bytes: Vec<u8>,
    len: usize,
    /// Where they stand, and in which table.
    offset: u64,
    table: u64,
    /// The block before, and how many were neighbours up to it.
    last: Option<(u64, usize)>,
    steps: u32,
    window: usize,
    /// All will be walked once: read ahead at once, and leave the cache to others.
    streaming: bool,
}

impl ReadAhead {
    /// For a walk over all there is, whose blocks nobody will want again.
    pub(crate) fn streaming() -> Self {
        Self { streaming: true, window: BYTES_MAX, ..Self::default() }
    }

    /// Block `i` of `table`, in that form.
    pub(crate) fn block(
        &mut self,
        table: &Table,
        i: usize,
        direction: Direction,
        form: Form,
    ) -> Result<Block, Error> {
        let before = match direction {
            Direction::Forward => i.checked_sub(1),
            Direction::Backward => i.checked_add(1),
        };
        let neighbour = self.last.is_some() && self.last == before.map(|n| (table.number, n));
        self.steps = if neighbour { self.steps.saturating_add(1) } else { 0 };
        self.last = Some((table.number, i));
        if let Some(block) = table.cached(i) {
            return Ok(block);
        }
        let handle = table.handle(i)?;
        let eager = self.streaming || self.steps >= STEPS_BEFORE;
        if !eager || !table.holds(handle) {
            return self.load(table, i, handle.offset, form);
        }
        let len = handle.sealed_len() as usize;
        if self.place_of(table.number, handle.offset, len).is_none()
            && !self.read(table, i, direction)?
        {
            return self.load(table, i, handle.offset, form);
        }
        match self.place_of(table.number, handle.offset, len) {
            Some(at) => table.block_from(i, &self.bytes[at..at + len], form, !self.streaming),
            None => self.load(table, i, handle.offset, form),
        }
    }

    /// The block by itself. Who reads all there is does not come back for what the disk refuses.
    fn load(&self, table: &Table, i: usize, offset: u64, form: Form) -> Result<Block, Error> {
        match table.load(i, form) {
            Err(e) if self.streaming => Err(table.refused(offset, e)),
            loaded => loaded,
        }
    }

    /// Where in `bytes` the file's bytes from `offset` stand, if all `len` do.
    fn place_of(&self, table: u64, offset: u64, len: usize) -> Option<usize> {
        let at = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        (self.table == table && at.checked_add(len)? <= self.len).then_some(at)
    }

    /// Reads block `i` and what stands next to it in this direction; false when the disk would not.
    fn read(&mut self, table: &Table, i: usize, direction: Direction) -> Result<bool, Error> {
        self.window = (self.window * 2).clamp(FIRST_BYTES, BYTES_MAX);
        let first = table.handle(i)?;
        let (mut from, mut to) = (first.offset, first.offset + first.sealed_len());
        let blocks = table.blocks()?;
        let mut next = i;
        loop {
            match direction {
                Direction::Forward if next + 1 < blocks => next += 1,
                Direction::Backward if next > 0 => next -= 1,
                _ => break,
            }
            let handle = table.handle(next)?;
            let end = handle.offset.saturating_add(handle.sealed_len());
            if handle.offset == to {
                to = end;
            } else if end == from {
                from = handle.offset;
            } else {
                break;
            }
            if !table.holds(handle) || to - from > self.window as u64 {
                // One too many.
                if handle.offset == from {
                    from = end;
                } else {
                    to = handle.offset;
                }
                break;
            }
        }
        self.len = 0;
        let len = (to - from) as usize;
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
        // Perhaps only what lies ahead cannot be read.
        if !table.read_ahead(&mut self.bytes[..len], from) {
            return Ok(false);
        }
        (self.offset, self.table, self.len) = (from, table.number, len);
        Ok(true)
    }
}
