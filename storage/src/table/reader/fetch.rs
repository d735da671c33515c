//! Getting at the blocks of a table: from the cache, or verified from the disk, in the form that the
//! reader can use best.

use super::{Slice, Table, long_key};
use crate::error::Error;
use crate::key::Tag;
use crate::table::block::{Block, DecodeScratch};
use crate::table::footer::{Payload, foreign_block, unpack, unseal};
use crate::table::raw::RawBlock;
use crate::table::walk::Walk;
use crate::value::Bytes;
use std::cell::RefCell;
use std::ops::Range;

/// In what form a block is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Decoded, to be searched and walked in both directions.
    Decoded,
    /// Also as it stands in the file, when nobody else wants it: to be walked forward once.
    Any,
}

/// Memory for reading blocks, to be used again.
#[derive(Default)]
pub(crate) struct ReadScratch {
    sealed: Vec<u8>,
    raw: Vec<u8>,
    decode: DecodeScratch,
    walk: Walk,
}

/// A thread keeps no more than this of its scratch memory.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

thread_local! {
    static SCRATCH: RefCell<ReadScratch> = RefCell::default();
}

/// A value as a table holds it, on loan from its block.
pub(crate) enum Lent<'b> {
    /// In a block that may be kept.
    Block(&'b Block, Range<usize>),
    /// In memory that is used again for the next block.
    Passing(&'b [u8]),
}

impl Lent<'_> {
    /// The value for longer than the loan.
    pub(crate) fn keep<'a>(self) -> Bytes<'a> {
        match self {
            Self::Block(block, range) => Bytes::Block(Slice { block: block.clone(), range }),
            Self::Passing(bytes) => Bytes::Copied(bytes.to_vec()),
        }
    }
}

impl Table {
    /// Calls `visit` with the versions of `key`, newest first, until it says false. Asking the filter
    /// is the caller's part. A block that is not worth keeping is searched as it stands in the file.
    pub(crate) fn get(
        &self,
        key: &[u8],
        mut visit: impl FnMut(Tag, Lent<'_>) -> bool,
    ) -> Result<(), Error> {
        let body = self.body()?;
        let at = body.index.first_block(key);
        if at == body.index.len() {
            return Ok(());
        }
        if let Some(block) = body.slots.get(at) {
            return self.get_in(key, at, &block, visit);
        }
        let handle = body.index.handle(at);
        if body.splits_keys || self.is_forgiven(handle.offset) {
            return self.get_in(key, at, &self.block(at)?, visit);
        }
        let broken = || self.damage(Some(handle.offset));
        let kept = self.with_scratch(|scratch| {
            let ReadScratch { sealed, raw, decode, walk } = scratch;
            let sealed = self.pick(body.file.as_ref(), handle, sealed)?;
            let content = unseal(sealed, body.checksum, raw).ok_or_else(broken)?;
            if self.shelf.cache.wants(&body.slots, at, content.len()) {
                let block = Block::decode(content, decode).ok_or_else(broken)?;
                self.shelf.cache.insert(&body.slots, at, &block);
                return Ok(Some(block));
            }
            let block = RawBlock::new(content).ok_or_else(broken)?;
            let mut there = walk.seek(&block, key).ok_or_else(broken)?;
            while there && walk.user_key() == key {
                let value = &block.entries[walk.value()];
                if !visit(walk.tag(), Lent::Passing(value)) {
                    break;
                }
                there = walk.step(&block).ok_or_else(broken)?;
            }
            Ok(None)
        })?;
        kept.map_or(Ok(()), |block| self.get_in(key, at, &block, visit))
    }

    /// As [`Table::get`], with the block at hand: `at` is the [`Table::first_block`] for the key.
    pub(crate) fn get_in(
        &self,
        key: &[u8],
        at: usize,
        block: &Block,
        mut visit: impl FnMut(Tag, Lent<'_>) -> bool,
    ) -> Result<(), Error> {
        let body = self.body()?;
        let mut in_block = |block: &Block| {
            let mut rows = block.find(key);
            rows.all(|row| visit(block.tag(row), Lent::Block(block, block.value(row))))
        };
        let mut more = in_block(block);
        let mut at = at;
        while more && body.splits_keys && body.index.ends_with(at, key) {
            at += 1;
            if at == body.index.len() {
                break;
            }
            more = in_block(&self.block(at)?);
        }
        Ok(())
    }

    /// Data block `i`, if it is in the cache.
    pub(crate) fn cached(&self, i: usize) -> Option<Block> {
        self.body.as_ref()?.slots.get(i)
    }

    /// Asks for the memory that a search in block `i` looks at first.
    pub(crate) fn prefetch(&self, i: usize) {
        if let Some(body) = &self.body
            && !body.slots.prefetch(i)
        {
            body.index.prefetch_handle(i);
        }
    }

    /// Data block `i`, decoded, from the cache or verified from the disk.
    pub(crate) fn block(&self, i: usize) -> Result<Block, Error> {
        match self.cached(i) {
            Some(block) => Ok(block),
            None => self.load(i, Form::Decoded),
        }
    }

    /// Data block `i` from the disk, verified; kept in the cache if it is worth it.
    pub(crate) fn load(&self, i: usize, form: Form) -> Result<Block, Error> {
        let body = self.body()?;
        let handle = body.index.handle(i);
        if self.is_forgiven(handle.offset) {
            return Ok(Block::empty());
        }
        self.with_scratch(|scratch| {
            let ReadScratch { sealed, raw, decode, .. } = scratch;
            let sealed = self.pick(body.file.as_ref(), handle, sealed)?;
            self.take_in(i, sealed, form, true, (raw, decode))
        })
    }

    /// Data block `i` out of `sealed`, which was read from where the block stands.
    pub(crate) fn block_from(
        &self,
        i: usize,
        sealed: &[u8],
        form: Form,
        keep: bool,
    ) -> Result<Block, Error> {
        let body = self.body()?;
        if self.is_forgiven(body.index.handle(i).offset) {
            return Ok(Block::empty());
        }
        self.with_scratch(|scratch| {
            let ReadScratch { raw, decode, .. } = scratch;
            self.take_in(i, sealed, form, keep, (raw, decode))
        })
    }

    /// Block `i` out of its bytes in the file, if they are sound. What is kept for others is decoded.
    fn take_in(
        &self,
        i: usize,
        sealed: &[u8],
        form: Form,
        keep: bool,
        (raw, scratch): (&mut Vec<u8>, &mut DecodeScratch),
    ) -> Result<Block, Error> {
        let body = self.body()?;
        let offset = Some(body.index.handle(i).offset);
        let broken = || self.damage(offset);
        let unread = || self.unsound(offset, || foreign_block(sealed, body.checksum));
        let payload = Payload::of(sealed, body.checksum).ok_or_else(unread)?;
        let keep = keep && self.shelf.cache.wants(&body.slots, i, payload.len());
        if form == Form::Any && !keep && !body.splits_keys && !self.foreign {
            return Block::of_payload(payload).ok_or_else(broken);
        }
        let content = unpack(payload, raw).ok_or_else(broken)?;
        let unread = || self.unsound(offset, || long_key(&RawBlock::new(content)?));
        let block = Block::decode(content, scratch).ok_or_else(unread)?;
        if keep {
            self.shelf.cache.insert(&body.slots, i, &block);
        }
        Ok(block)
    }

    /// `block`, which is data block `i` as it stands in the file, decoded.
    pub(crate) fn decoded(&self, i: usize, block: &Block) -> Result<Block, Error> {
        let content = block.content().unwrap_or_default();
        let decoded = self.with_scratch(|scratch| Block::decode(content, &mut scratch.decode));
        decoded.ok_or_else(|| self.damage(self.body.as_ref().map(|b| b.index.handle(i).offset)))
    }

    /// True when all keys of data block `i` are below `key`.
    pub(crate) fn is_block_below(&self, i: usize, key: &[u8]) -> bool {
        self.body.as_ref().is_some_and(|body| body.index.is_below(i, key))
    }

    /// Reads data block `i` past the cache and checks it and the order of its keys; what it holds,
    /// and the bytes read.
    pub(crate) fn check_block(&self, i: usize) -> Result<(Block, u64), Error> {
        let body = self.body()?;
        let handle = body.index.handle(i);
        if self.is_forgiven(handle.offset) {
            return Ok((Block::empty(), 0));
        }
        let block = self.with_scratch(|scratch| {
            let ReadScratch { sealed, raw, decode, .. } = scratch;
            let sealed = self.read(body.file.as_ref(), handle, sealed)?;
            let content = unseal(sealed, body.checksum, raw);
            Ok(content.and_then(|content| Block::decode(content, decode)))
        })?;
        let broken = || self.damage(Some(handle.offset));
        let block = block.ok_or_else(broken)?;
        let sorted = (1..block.rows()).all(|row| {
            let (a, b) = (block.suffix(row - 1), block.suffix(row));
            a < b || (a == b && block.tag(row - 1) >= block.tag(row))
        });
        let fits = block.rows() == 0 || {
            let (first, last) = (block.key(0), block.key(block.rows() - 1));
            // Where versions of one key stand in several blocks, the next may begin with it.
            let before = |separator: &Vec<u8>| {
                *separator < first || (body.splits_keys && *separator == first)
            };
            (i == 0 || before(&body.index.separator(i - 1))) && last <= body.index.separator(i)
        };
        if sorted && fits { Ok((block, handle.sealed_len())) } else { Err(broken()) }
    }

    /// Lends the thread's scratch memory.
    fn with_scratch<T>(&self, f: impl FnOnce(&mut ReadScratch) -> T) -> T {
        SCRATCH.with_borrow_mut(|scratch| {
            let done = f(scratch);
            scratch.shrink();
            done
        })
    }
}

impl ReadScratch {
    fn shrink(&mut self) {
        if self.sealed.len() > SCRATCH_BYTES_MAX {
            self.sealed = Vec::new();
        }
        if self.raw.len() > SCRATCH_BYTES_MAX {
            self.raw = Vec::new();
        }
        self.decode.shrink(SCRATCH_BYTES_MAX);
    }
}
