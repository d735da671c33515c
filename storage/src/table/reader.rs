//! Reading a table: index, filter and range deletions in memory, data blocks through the cache.

use super::block::{Block, Decoded};
use super::facts::Facts;
use super::filter;
use super::footer::{FOOTER_BYTES, Handle, TRAILER_BYTES, decode_footer, unseal};
use super::writer::TableBounds;
use crate::blob::BlobFile;
use crate::codec::{take, u64_at, varint, varint32};
use crate::disk::DiskFile;
use crate::error::{Damage, Error, Place};
use crate::key::{RANGE_DELETE, Tag};
use crate::limits::BLOCK_BYTES_MAX;
use crate::shelf::Shelf;
use crate::tombstones::RangeTombstones;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A table, open for reading.
pub(crate) struct Table {
    pub(crate) number: u64,
    pub(crate) bounds: TableBounds,
    /// None: the file is damaged beyond its blocks, and every read of its range says so.
    body: Option<Body>,
    shelf: Arc<Shelf>,
    /// Damage was found, so no compaction should try to read it all.
    broken: AtomicBool,
    /// Offsets of damaged blocks whose rows were repaired elsewhere: they read as empty.
    forgiven: Mutex<BTreeSet<u64>>,
    /// The blob files that it points into stay readable with it.
    blobs: Vec<Arc<BlobFile>>,
}

struct Body {
    file: Arc<dyn DiskFile>,
    /// Separators, one after the other.
    separators: Vec<u8>,
    blocks: Vec<IndexEntry>,
    filter: Vec<u8>,
    tombstones: RangeTombstones,
    facts: Facts,
}

struct IndexEntry {
    separator_end: usize,
    handle: Handle,
}

/// Bytes inside a block that is kept alive.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    pub(crate) block: Arc<Block>,
    pub(crate) range: Range<usize>,
}

impl Slice {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.block.bytes()[self.range.clone()]
    }
}

impl Table {
    /// Opens a table whose bounds the manifest knows.
    pub(crate) fn open(
        number: u64,
        bounds: TableBounds,
        file: Arc<dyn DiskFile>,
        shelf: Arc<Shelf>,
    ) -> Result<Self, Error> {
        let mut table = Self {
            number,
            bounds,
            body: None,
            shelf,
            broken: AtomicBool::new(true),
            forgiven: Mutex::default(),
            blobs: Vec::new(),
        };
        table.hold_blobs()?;
        table.body = Some(table.read_body(file)?);
        table.broken.store(false, Ordering::Relaxed);
        Ok(table)
    }

    /// Stands for a table that cannot be opened: it answers every read with its damage.
    pub(crate) fn damaged(number: u64, bounds: TableBounds, shelf: Arc<Shelf>) -> Self {
        Self {
            number,
            bounds,
            body: None,
            shelf,
            broken: AtomicBool::new(true),
            forgiven: Mutex::default(),
            blobs: Vec::new(),
        }
    }

    fn hold_blobs(&mut self) -> Result<(), Error> {
        let held = self.bounds.blobs.iter().map(|(number, _)| self.shelf.blobs.hold(*number));
        self.blobs =
            held.collect::<Result<_, _>>().map_err(|e| Error::io("opening a blob file", &e))?;
        Ok(())
    }

    /// Reports the blob files that it points into and that are not there.
    pub(crate) fn report_missing_blobs(&self) {
        for blob in self.blobs.iter().filter(|blob| blob.is_missing()) {
            if !self.shelf.blobs.is_forgiven(blob.number, None) {
                let place = Place::Blob { number: blob.number, offset: None };
                let (lower, upper) = (self.bounds.smallest.clone(), Some(self.upper()));
                self.shelf.report(&Damage { place, lower, upper });
            }
        }
    }

    /// True when it cannot be read as a whole.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// The rows of the damaged block at `offset` were repaired elsewhere: read it as empty.
    pub(crate) fn forgive(&self, offset: u64) {
        self.forgiven.lock().unwrap_or_else(PoisonError::into_inner).insert(offset);
        self.broken.store(self.body.is_none(), Ordering::Relaxed);
    }

    fn body(&self) -> Result<&Body, Error> {
        self.body.as_ref().ok_or_else(|| self.damage(None))
    }

    /// The error for damage at `offset`, or of the whole file.
    pub(crate) fn damage(&self, offset: Option<u64>) -> Error {
        let (mut lower, mut upper) = (self.bounds.smallest.clone(), self.upper());
        let offset = offset.filter(|_| self.body.is_some());
        if let (Some(at), Some(body)) = (offset, &self.body)
            && let Some(i) = body.blocks.iter().position(|b| b.handle.offset == at)
        {
            // A separator may equal the last key of its block, so blocks meet just after it.
            if i > 0 {
                lower = [body.separator(i - 1), &[0]].concat();
            }
            if i + 1 < body.blocks.len() {
                upper = [body.separator(i), &[0]].concat();
            }
        }
        let place = Place::Table { number: self.number, offset };
        let damage = Damage { place, lower, upper: Some(upper) };
        self.broken.store(true, Ordering::Relaxed);
        self.shelf.report(&damage);
        Error::Damaged(Box::new(damage))
    }

    /// First key after all that this table speaks of.
    pub(crate) fn upper(&self) -> Vec<u8> {
        let mut upper = self.bounds.largest.clone();
        if !self.bounds.largest_excluded {
            upper.push(0);
        }
        upper
    }

    /// True when all it speaks of is below `key`.
    pub(crate) fn is_below(&self, key: &[u8]) -> bool {
        let largest = self.bounds.largest.as_slice();
        largest < key || (self.bounds.largest_excluded && largest == key)
    }

    /// True when it may speak of `key`.
    pub(crate) fn spans(&self, key: &[u8]) -> bool {
        self.bounds.smallest.as_slice() <= key && !self.is_below(key)
    }

    /// True when it may hold a version of `key`: asks the filter, reads no block.
    pub(crate) fn may_hold(&self, key: &[u8], hash: u64) -> bool {
        self.spans(key)
            && self.body.as_ref().is_none_or(|body| filter::may_contain(&body.filter, hash))
    }

    /// True when it may speak of a key in `lower..upper`.
    pub(crate) fn overlaps(&self, lower: &[u8], upper: Option<&[u8]>) -> bool {
        !self.is_below(lower) && upper.is_none_or(|upper| self.bounds.smallest.as_slice() < upper)
    }

    pub(crate) fn tombstones(&self) -> Result<&RangeTombstones, Error> {
        Ok(&self.body()?.tombstones)
    }

    /// Calls `visit` with the versions of `key`, newest first, until it says false.
    pub(crate) fn get(
        &self,
        key: &[u8],
        hash: u64,
        visit: &mut dyn FnMut(Tag, Slice) -> bool,
    ) -> Result<(), Error> {
        let body = self.body()?;
        if !filter::may_contain(&body.filter, hash) {
            return Ok(());
        }
        let i = body.first_block(key);
        if i == body.blocks.len() {
            return Ok(());
        }
        let block = self.block(i)?;
        let broken = || self.damage(Some(body.blocks[i].handle.offset));
        let mut at = block.seek(key).ok_or_else(broken)?;
        let mut internal: Vec<u8> = Vec::with_capacity(key.len() + 16);
        while let Some((entry, next)) = block.entry(at) {
            if entry.shared > internal.len() {
                return Err(broken());
            }
            internal.truncate(entry.shared);
            internal.extend_from_slice(&block.bytes()[entry.tail]);
            let end = internal.len().checked_sub(8).ok_or_else(broken)?;
            match internal[..end].cmp(key) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => {
                    let tag = Tag(u64_at(&internal, end).ok_or_else(broken)?);
                    if !visit(tag, Slice { block: block.clone(), range: entry.value }) {
                        return Ok(());
                    }
                }
                std::cmp::Ordering::Greater => return Ok(()),
            }
            at = next;
        }
        if block.ends_at(at) { Ok(()) } else { Err(broken()) }
    }

    /// What it says of itself; none when it cannot be read.
    pub(crate) fn facts(&self) -> Option<Facts> {
        self.body.as_ref().map(|body| body.facts)
    }

    /// Number of data blocks.
    pub(crate) fn blocks(&self) -> Result<usize, Error> {
        Ok(self.body()?.blocks.len())
    }

    /// The first block that may hold a key of at least `key`; the number of blocks if none.
    pub(crate) fn first_block(&self, key: &[u8]) -> Result<usize, Error> {
        Ok(self.body()?.first_block(key))
    }

    /// Data block `i`, from the cache or verified from the disk.
    pub(crate) fn block(&self, i: usize) -> Result<Arc<Block>, Error> {
        let body = self.body()?;
        let handle = body.blocks[i].handle;
        if let Some(block) = self.shelf.cache.get(self.number, handle.offset) {
            return Ok(block);
        }
        let forgiven = self.forgiven.lock().unwrap_or_else(PoisonError::into_inner);
        if forgiven.contains(&handle.offset) {
            return Ok(Arc::new(Block::empty()));
        }
        drop(forgiven);
        let bytes = self.read(body.file.as_ref(), handle)?;
        let block = Block::new(bytes).ok_or_else(|| self.damage(Some(handle.offset)))?;
        let block = Arc::new(block);
        self.shelf.cache.insert(self.number, handle.offset, &block);
        Ok(block)
    }

    /// Reads again what stands around the blocks and verifies it; the bytes read.
    pub(crate) fn check_frame(&self) -> Result<u64, Error> {
        let body = self.body()?;
        self.read_body(body.file.clone())?;
        Ok(body.blocks.last().map_or(self.bounds.bytes, |last| {
            self.bounds.bytes.saturating_sub(last.handle.offset + last.handle.size)
        }))
    }

    /// Reads block `i` past the cache and checks it and the order of its keys; what it holds, and
    /// the bytes read.
    pub(crate) fn check_block(
        &self,
        i: usize,
        decoded: &mut Decoded,
    ) -> Result<(Block, u64), Error> {
        let body = self.body()?;
        let handle = body.blocks[i].handle;
        let read = handle.size + TRAILER_BYTES as u64;
        let forgiven = self.forgiven.lock().unwrap_or_else(PoisonError::into_inner);
        if forgiven.contains(&handle.offset) {
            decoded.fill(&Block::empty());
            return Ok((Block::empty(), 0));
        }
        drop(forgiven);
        let block = Block::new(self.read(body.file.as_ref(), handle)?);
        let broken = || self.damage(Some(handle.offset));
        let block = block.filter(|block| decoded.fill(block)).ok_or_else(broken)?;
        let sorted = (1..decoded.len()).all(|j| {
            let (a, b) = (decoded.key(j - 1), decoded.key(j));
            a < b || (a == b && decoded.tag(j - 1) >= decoded.tag(j))
        });
        let fits = decoded.len() == 0
            || ((i == 0 || body.separator(i - 1) < decoded.key(0))
                && decoded.key(decoded.len() - 1) <= body.separator(i));
        if sorted && fits { Ok((block, read)) } else { Err(broken()) }
    }

    pub(crate) fn broken_block(&self, i: usize) -> Error {
        self.damage(self.body.as_ref().map(|body| body.blocks[i].handle.offset))
    }

    fn read(&self, file: &dyn DiskFile, handle: Handle) -> Result<Vec<u8>, Error> {
        let fits = handle.size <= BLOCK_BYTES_MAX as u64
            && handle.offset <= self.bounds.bytes
            && handle.size + TRAILER_BYTES as u64 <= self.bounds.bytes - handle.offset;
        if !fits {
            return Err(self.damage(Some(handle.offset)));
        }
        let mut sealed = vec![0; handle.size as usize + TRAILER_BYTES];
        self.read_at(file, &mut sealed, handle.offset)?;
        unseal(sealed).ok_or_else(|| self.damage(Some(handle.offset)))
    }

    fn read_at(&self, file: &dyn DiskFile, into: &mut [u8], offset: u64) -> Result<(), Error> {
        file.read_at(into, offset).map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => self.damage(Some(offset)),
            _ => Error::io(&format!("reading table {}", self.number), &e),
        })
    }

    fn read_body(&self, file: Arc<dyn DiskFile>) -> Result<Body, Error> {
        let broken = || self.damage(None);
        let footer_at = self.bounds.bytes.checked_sub(FOOTER_BYTES as u64).ok_or_else(broken)?;
        let mut footer = [0; FOOTER_BYTES];
        self.read_at(file.as_ref(), &mut footer, footer_at)?;
        let (metaindex, index) = decode_footer(&footer).ok_or_else(broken)?;
        let block = |handle| {
            let bytes = self.read(file.as_ref(), handle)?;
            Block::new(bytes).ok_or_else(broken)
        };
        let metaindex = block(metaindex)?;
        let meta = |name: &str| meta_handle(&metaindex, name.as_bytes());
        let filter = match meta("fullfilter.rocksdb.BuiltinBloomFilter") {
            Some(handle) => self.read(file.as_ref(), handle)?,
            None => Vec::new(),
        };
        let mut tombstones = RangeTombstones::default();
        if let Some(handle) = meta("rocksdb.range_del") {
            read_tombstones(&block(handle)?, &mut tombstones).ok_or_else(broken)?;
        }
        // Nothing in the properties changes how we read.
        let facts = Facts::of(&block(meta("rocksdb.properties").ok_or_else(broken)?)?);
        let (separators, blocks) =
            parse_index(&self.read(file.as_ref(), index)?).ok_or_else(broken)?;
        Ok(Body { file, separators, blocks, filter, tombstones, facts })
    }
}

impl Body {
    fn separator(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.blocks[i - 1].separator_end };
        &self.separators[start..self.blocks[i].separator_end]
    }

    fn first_block(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.blocks.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.separator(middle) < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// Index entries have no value length; with one restart each they hold full keys and handles.
fn parse_index(bytes: &[u8]) -> Option<(Vec<u8>, Vec<IndexEntry>)> {
    let restarts = crate::codec::u32_at(bytes, bytes.len().checked_sub(4)?)? as usize;
    let end = bytes.len().checked_sub(4 + restarts.checked_mul(4)?)?;
    let mut rest = &bytes[..end];
    let (mut separators, mut blocks) = (Vec::new(), Vec::new());
    while !rest.is_empty() {
        if varint32(&mut rest)? != 0 {
            return None;
        }
        let key_len = varint32(&mut rest)? as usize;
        separators.extend_from_slice(take(&mut rest, key_len)?);
        let handle = Handle { offset: varint(&mut rest)?, size: varint(&mut rest)? };
        blocks.push(IndexEntry { separator_end: separators.len(), handle });
    }
    Some((separators, blocks))
}

fn meta_handle(metaindex: &Block, name: &[u8]) -> Option<Handle> {
    let mut at = 0;
    while let Some((entry, next)) = metaindex.entry(at) {
        if entry.shared == 0 && metaindex.bytes().get(entry.tail)? == name {
            return Handle::decode(&mut metaindex.bytes().get(entry.value)?);
        }
        at = next;
    }
    None
}

fn read_tombstones(block: &Block, tombstones: &mut RangeTombstones) -> Option<()> {
    let mut at = 0;
    while let Some((entry, next)) = block.entry(at) {
        if entry.shared != 0 {
            return None;
        }
        let internal = &block.bytes()[entry.tail];
        let key_end = internal.len().checked_sub(8)?;
        let tag = u64_at(internal, key_end)?;
        if tag & 0xff != u64::from(RANGE_DELETE) {
            return None;
        }
        tombstones.add(&internal[..key_end], &block.bytes()[entry.value], tag >> 8, u64::MAX);
        at = next;
    }
    block.ends_at(at).then_some(())
}
