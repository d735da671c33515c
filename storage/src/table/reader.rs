//! Reading a table: index, filter and range deletions in memory, data blocks through the cache.

mod faults;
mod fetch;
mod salvage;

pub(crate) use fetch::Form;
pub(crate) use salvage::Salvaged;

use super::block::Block;
use super::counts::TableCounts;
use super::filter::Filter;
use super::footer::{
    FOOTER_BYTES, Footer, Handle, foreign_block, foreign_footer, foreign_key, unseal,
};
use super::index::{Index, split_internal};
use super::part::part_name;
use super::properties::Properties;
use super::raw::{RawBlock, TAG};
use super::table_name;
use super::writer::TableBounds;
use crate::blob::{BlobFile, blob_name};
use crate::cache::Slots;
use crate::checksum::Checksum;
use crate::disk::DiskFile;
use crate::error::{Damage, Error, Place};
use crate::key::RANGE_DELETE;
use crate::limits::BLOCK_BYTES_MAX;
use crate::merge::{Direction, Near};
use crate::shelf::Shelf;
use crate::tombstones::{Gathering, RangeTombstones};
use faults::Faults;
use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;

/// A table, open for reading: as far as its bounds go, which may be a part of the file.
pub(crate) struct Table {
    pub(crate) number: u64,
    pub(crate) bounds: TableBounds,
    /// Of the first and the last key, so that keys are nearly always told apart without a call.
    nears: (Near, Near),
    /// What its properties say that it holds; zeros while it cannot be read.
    pub(crate) counts: TableCounts,
    /// None: the file is damaged beyond its blocks, and every read of its range says so.
    body: Option<Body>,
    shelf: Arc<Shelf>,
    faults: Arc<Faults>,
    /// The blob files that it points into stay readable with it.
    blobs: Vec<Arc<BlobFile>>,
    /// Somebody else's: what we cannot read of it is more likely sound than damaged.
    foreign: bool,
}

struct Body {
    file: Arc<dyn DiskFile>,
    checksum: Checksum,
    index: Index,
    filter: Filter,
    tombstones: RangeTombstones,
    slots: Arc<Slots>,
    /// Versions of one key may stand in several blocks: where one would have outgrown every bound.
    splits_keys: bool,
}

impl Body {
    /// Bytes of its blocks.
    fn data_bytes(&self) -> u64 {
        (0..self.index.len()).map(|i| self.index.handle(i).sealed_len()).sum()
    }
}

/// Bytes inside a block that is kept alive.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    pub(crate) block: Block,
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
        Self::damaged(number, bounds, shelf).opened(file)
    }

    /// Opens the table file of `bytes` of somebody else. Of a sound one that we cannot read [`Error::Io`] of
    /// kind `Unsupported` says why.
    pub(crate) fn open_foreign(
        number: u64,
        bytes: u64,
        file: Arc<dyn DiskFile>,
        shelf: Arc<Shelf>,
    ) -> Result<Self, Error> {
        let bounds = TableBounds { bytes, ..TableBounds::default() };
        let mut table = Self::damaged(number, bounds, shelf);
        table.foreign = true;
        table.opened(file)
    }

    fn opened(mut self, file: Arc<dyn DiskFile>) -> Result<Self, Error> {
        self.hold_blobs()?;
        let (body, counts) = self.read_body(file)?;
        (self.body, self.counts) = (Some(body), counts);
        self.faults = Arc::default();
        Ok(self)
    }

    /// Stands for a table that cannot be opened: it answers every read with its damage.
    pub(crate) fn damaged(number: u64, bounds: TableBounds, shelf: Arc<Shelf>) -> Self {
        Self {
            number,
            nears: nears_of(&bounds),
            bounds,
            counts: TableCounts::default(),
            body: None,
            shelf,
            faults: Arc::new(Faults::of_all()),
            blobs: Vec::new(),
            foreign: false,
        }
    }

    fn hold_blobs(&mut self) -> Result<(), Error> {
        let hold = |(number, _): &(u64, u64)| {
            let held = self.shelf.blobs.hold(*number);
            held.map_err(|e| Error::io(&format!("opening {}", blob_name(*number)), &e))
        };
        self.blobs = self.bounds.blobs.iter().map(hold).collect::<Result<_, _>>()?;
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

    /// A table without content, for those who look at bounds and counts only.
    #[cfg(test)]
    pub(crate) fn hollow(number: u64, bounds: TableBounds, counts: TableCounts) -> Self {
        let shelf = Arc::new(Shelf::alone(0));
        let mut table = Self::damaged(number, bounds, shelf);
        table.counts = counts;
        table.faults = Arc::default();
        table
    }

    /// As [`Table::hollow`], and nothing of it can be read.
    #[cfg(test)]
    pub(crate) fn hollow_damaged(number: u64, bounds: TableBounds, counts: TableCounts) -> Self {
        let mut table = Self::hollow(number, bounds, counts);
        table.faults = Arc::new(Faults::of_all());
        table
    }

    /// The error for what stands at `offset` (or anywhere) and does not prove itself; `why` knows of what is
    /// no damage, but something that we do not read.
    fn unsound(&self, offset: Option<u64>, why: impl FnOnce() -> Option<String>) -> Error {
        match self.foreign.then(why).flatten() {
            Some(what) => Error::Io { what, kind: ErrorKind::Unsupported },
            None => self.damage(offset),
        }
    }

    fn body(&self) -> Result<&Body, Error> {
        self.body.as_ref().ok_or_else(|| self.damage(None))
    }

    /// First key after all that this table speaks of.
    pub(crate) fn upper(&self) -> Vec<u8> {
        self.bounds.upper()
    }

    /// True when all it speaks of is below `key`.
    #[inline]
    pub(crate) fn is_below(&self, key: &[u8]) -> bool {
        self.is_below_near(key, Near::of(key, Direction::Forward))
    }

    #[inline]
    fn is_below_near(&self, key: &[u8], near: Near) -> bool {
        if near != self.nears.1 {
            return self.nears.1 < near;
        }
        let largest = self.bounds.largest.as_slice();
        largest < key || (self.bounds.largest_excluded && largest == key)
    }

    /// True when it may speak of `key`.
    #[inline]
    pub(crate) fn spans(&self, key: &[u8]) -> bool {
        let near = Near::of(key, Direction::Forward);
        let begun = if near == self.nears.0 {
            self.bounds.smallest.as_slice() <= key
        } else {
            self.nears.0 < near
        };
        begun && !self.is_below_near(key, near)
    }

    /// True when it may hold a version of `key`: asks the filter, reads no block.
    pub(crate) fn may_hold(&self, key: &[u8], hash: u64) -> bool {
        self.spans(key) && self.admits(hash)
    }

    /// False when the filter knows that no key with this hash is in the table.
    pub(crate) fn admits(&self, hash: u64) -> bool {
        self.body.as_ref().is_none_or(|body| body.filter.may_contain(hash))
    }

    /// Asks for the memory that [`Table::admits`] looks at.
    #[inline]
    pub(crate) fn prefetch_filter(&self, hash: u64) {
        if let Some(body) = &self.body {
            body.filter.prefetch(hash);
        }
    }

    /// True when it may speak of a key in `lower..upper`.
    pub(crate) fn overlaps(&self, lower: &[u8], upper: Option<&[u8]>) -> bool {
        !self.is_below(lower) && upper.is_none_or(|upper| self.bounds.smallest.as_slice() < upper)
    }

    /// Up to `parts` − 1 keys that cut it into parts of like size.
    pub(crate) fn sample(&self, parts: usize) -> Vec<Vec<u8>> {
        let Some(body) = &self.body else { return Vec::new() };
        let blocks = body.index.len();
        let parts = parts.min(blocks).max(1);
        (1..parts).map(|i| body.index.separator(i * blocks / parts - 1)).collect()
    }

    pub(crate) fn tombstones(&self) -> Result<&RangeTombstones, Error> {
        Ok(&self.body()?.tombstones)
    }

    /// The names of its files.
    pub(crate) fn files(&self) -> Vec<String> {
        let part = self.bounds.narrowed.map(|_| part_name(self.number));
        std::iter::once(table_name(self.number)).chain(part).collect()
    }

    /// Number of data blocks.
    pub(crate) fn blocks(&self) -> Result<usize, Error> {
        Ok(self.body()?.index.len())
    }

    /// The first block that may hold a key of at least `key`; the number of blocks if none.
    pub(crate) fn first_block(&self, key: &[u8]) -> Result<usize, Error> {
        Ok(self.body()?.index.first_block(key))
    }

    /// True when versions of one key may stand in several blocks.
    pub(crate) fn splits_keys(&self) -> bool {
        self.body.as_ref().is_some_and(|body| body.splits_keys)
    }

    /// Where data block `i` stands in the file.
    pub(crate) fn handle(&self, i: usize) -> Result<Handle, Error> {
        Ok(self.body()?.index.handle(i))
    }

    /// True when nothing of it can be read.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.body.is_none()
    }

    /// Reads again what stands around the blocks and verifies it; the bytes read.
    pub(crate) fn check_frame(&self) -> Result<u64, Error> {
        let body = self.body()?;
        self.read_body(body.file.clone())?;
        Ok(self.bounds.weight().saturating_sub(body.data_bytes()))
    }

    /// Reads the file from `offset` into `bytes`; false when that fails. No damage is reported: what
    /// was asked for may well be sound.
    pub(crate) fn read_ahead(&self, bytes: &mut [u8], offset: u64) -> bool {
        self.body.as_ref().is_some_and(|body| body.file.read_at(bytes, offset).is_ok())
    }

    /// The bytes of a block with its trailer, from the disk as the system knows it.
    fn read<'b>(
        &self,
        file: &dyn DiskFile,
        handle: Handle,
        sealed: &'b mut Vec<u8>,
    ) -> Result<&'b [u8], Error> {
        self.read_by(handle, sealed, |into, offset| file.read_at(into, offset))
    }

    /// As [`Table::read`], for one of few blocks that somebody wants: without a call if that can be.
    fn pick<'b>(
        &self,
        file: &dyn DiskFile,
        handle: Handle,
        sealed: &'b mut Vec<u8>,
    ) -> Result<&'b [u8], Error> {
        self.read_by(handle, sealed, |into, offset| file.read_settled(into, offset))
    }

    #[inline]
    fn read_by<'b>(
        &self,
        handle: Handle,
        sealed: &'b mut Vec<u8>,
        read: impl FnOnce(&mut [u8], u64) -> std::io::Result<()>,
    ) -> Result<&'b [u8], Error> {
        if !self.holds(handle) {
            return Err(self.damage(Some(handle.offset)));
        }
        let len = handle.sealed_len() as usize;
        if sealed.len() < len {
            sealed.resize(len, 0);
        }
        let offset = handle.offset;
        read(&mut sealed[..len], offset).map_err(|e| self.failed_read(offset, &e))?;
        Ok(&sealed[..len])
    }

    /// True when the file is long enough for a block there.
    pub(crate) fn holds(&self, handle: Handle) -> bool {
        handle.size <= BLOCK_BYTES_MAX as u64
            && handle.offset <= self.bounds.bytes
            && handle.sealed_len() <= self.bounds.bytes - handle.offset
    }

    fn read_at(&self, file: &dyn DiskFile, into: &mut [u8], offset: u64) -> Result<(), Error> {
        file.read_at(into, offset).map_err(|e| self.failed_read(offset, &e))
    }

    fn read_body(&self, file: Arc<dyn DiskFile>) -> Result<(Body, TableCounts), Error> {
        let broken = || self.damage(None);
        let footer_at = self.bounds.bytes.checked_sub(FOOTER_BYTES as u64).ok_or_else(broken)?;
        let mut footer = [0; FOOTER_BYTES];
        self.read_at(file.as_ref(), &mut footer, footer_at)?;
        let unread = || self.unsound(None, || foreign_footer(&footer));
        let footer = Footer::decode(&footer).ok_or_else(unread)?;
        // Read once in a table's life: each into memory of its own.
        let block = |handle| {
            let (mut sealed, mut raw) = (Vec::new(), Vec::new());
            let sealed = self.read(file.as_ref(), handle, &mut sealed)?;
            let content = unseal(sealed, footer.checksum, &mut raw);
            let unread = || foreign_block(sealed, footer.checksum);
            let unread = || self.unsound(Some(handle.offset), unread);
            content.map(<[u8]>::to_vec).ok_or_else(unread)
        };
        let metaindex = block(footer.metaindex)?;
        let metaindex = RawBlock::new(&metaindex).ok_or_else(broken)?;
        let [filter, range_del, properties] = listed(&metaindex).ok_or_else(broken)?;
        let properties = block(properties.ok_or_else(broken)?)?;
        let properties = RawBlock::new(&properties).ok_or_else(broken)?;
        let counts = TableCounts::of_properties(&properties);
        let properties = Properties::parse(&properties).ok_or_else(broken)?;
        let form = properties.index;
        if let Some(unknown) = properties.unreadable {
            let name =
                if self.foreign { "it".to_owned() } else { format!("table {}", self.number) };
            let what = format!(
                "{name} has {unknown}, which this version does not read; write it anew with a \
                 plain index and bytewise order"
            );
            return Err(Error::Io { what, kind: ErrorKind::Unsupported });
        }
        let filter = match filter.filter(|_| properties.filters_keys) {
            Some(handle) => Filter::decode(&block(handle)?),
            None => Filter::default(),
        };
        let file_bytes = self.bounds.bytes;
        let mut tombstones = match range_del {
            Some(handle) => {
                let range_del = block(handle)?;
                let range_del = RawBlock::new(&range_del).ok_or_else(broken)?;
                let unread = || self.unsound(None, || long_key(&range_del));
                read_tombstones(&range_del, file_bytes).ok_or_else(unread)?
            }
            None => RangeTombstones::default(),
        };
        let index = block(footer.index)?;
        let mut longest = 0;
        let index = Index::parse(&index, form, file_bytes, &mut longest);
        let tag = if form.user_keys { 0 } else { TAG };
        let unread = || self.unsound(None, || foreign_key(longest.saturating_sub(tag)));
        let mut index = index.ok_or_else(unread)?;
        if form.user_keys {
            self.leave_out(&mut index, &mut tombstones);
        }
        let body = Body {
            file,
            checksum: footer.checksum,
            slots: Arc::new(Slots::new(self.number, index.len())),
            index,
            filter,
            tombstones,
            splits_keys: !form.user_keys,
        };
        Ok((body, counts))
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if let Some(body) = &self.body {
            self.shelf.cache.forget(&body.slots);
        }
    }
}

/// What there is to say of the longest key of a block.
fn long_key(block: &RawBlock<'_>) -> Option<String> {
    foreign_key(block.longest_key().saturating_sub(TAG))
}

fn nears_of(bounds: &TableBounds) -> (Near, Near) {
    let near = |key: &[u8]| Near::of(key, Direction::Forward);
    (near(&bounds.smallest), near(&bounds.largest))
}

/// Where a metaindex says that filter, range deletions and properties stand.
fn listed(metaindex: &RawBlock<'_>) -> Option<[Option<Handle>; 3]> {
    let mut handles: [Option<Handle>; 3] = [None; 3];
    let [filter, tombstones, properties] = &mut handles;
    metaindex.each(|name, mut value| {
        let place = match name {
            b"fullfilter.rocksdb.BuiltinBloomFilter" => &mut *filter,
            b"rocksdb.range_del" => &mut *tombstones,
            b"rocksdb.properties" => &mut *properties,
            _ => return Some(()),
        };
        *place = Some(Handle::decode(&mut value)?);
        Some(())
    })?;
    Some(handles)
}

/// Pieces of range deletions that overlap each other, beyond a part of the file's size: a good table has
/// them cut already, or at least one sequence for all.
const OVERLAPS_MAX: usize = 1 << 20;
/// Keys of range deletions beyond a part of the file's size.
const RANGE_KEY_BYTES_MAX: usize = 1 << 20;

/// None when it is malformed, or would take memory out of proportion to a file of `file_bytes`.
fn read_tombstones(block: &RawBlock<'_>, file_bytes: u64) -> Option<RangeTombstones> {
    let file_bytes = usize::try_from(file_bytes).unwrap_or(usize::MAX);
    // Nobody writes these keys with common beginnings left out, or compressed.
    let mut room = file_bytes.saturating_mul(4).saturating_add(RANGE_KEY_BYTES_MAX);
    let mut gathering = Gathering::within(file_bytes.saturating_add(OVERLAPS_MAX));
    block.each(|internal, end| {
        room = room.checked_sub(internal.len() + end.len())?;
        let (start, tag) = split_internal(internal)?;
        if tag.0 & 0xff != u64::from(RANGE_DELETE) {
            return None;
        }
        gathering.add(start, end, tag.sequence())
    })?;
    gathering.finish()
}
