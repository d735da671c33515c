//! Writing a table, entry by entry in internal key order.

use super::build::{BlockBuilder, common};
use super::filter::{self, Filter};
use super::footer::{Footer, Handle, TRAILER_BYTES, seal};
use crate::blob::{Stored, stored};
use crate::checksum::Checksum;
use crate::codec::put_varint;
use crate::disk::DiskFile;
use crate::key::{Kind, RANGE_DELETE, Tag};
use crate::limits::BLOCK_BYTES_MAX;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Bytes gathered before they are written.
const WRITE_BYTES: usize = 256 << 10;
/// RocksDB's "no more restarts".
const NO_RESTARTS: u32 = i32::MAX as u32;

/// Writes one table.
pub(crate) struct TableWriter {
    file: Arc<dyn DiskFile>,
    block_bytes: usize,
    bloom_bits: usize,
    pending: Vec<u8>,
    written: u64,
    data: BlockBuilder,
    index: BlockBuilder,
    range_del: BlockBuilder,
    /// A finished data block whose index key waits for the key after it.
    unindexed: Option<Handle>,
    last_key: Vec<u8>,
    /// For an index entry or the key of a range deletion.
    scratch: Vec<u8>,
    hashes: Vec<u64>,
    bounds: TableBounds,
    counts: Counts,
    blobs: BTreeMap<u64, u64>,
    /// Meant for other stores: values are as they are, and RocksDB is told so.
    external: bool,
}

#[derive(Default)]
struct Counts {
    points: u64,
    deletions: u64,
    merges: u64,
    ranges: u64,
    raw_key: u64,
    raw_value: u64,
    blocks: u64,
    data: u64,
}

/// What a finished table covers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TableBounds {
    pub(crate) bytes: u64,
    pub(crate) smallest: Vec<u8>,
    /// The greatest key it says something about; excluded when a range deletion ends there.
    pub(crate) largest: Vec<u8>,
    pub(crate) largest_excluded: bool,
    pub(crate) last_sequence: u64,
    /// The blob files that it points into, by number, and how many of their bytes it points to.
    pub(crate) blobs: Vec<(u64, u64)>,
}

impl TableWriter {
    pub(crate) fn new(file: Arc<dyn DiskFile>, block_bytes: usize, bloom_bits: usize) -> Self {
        Self {
            file,
            block_bytes,
            bloom_bits,
            pending: Vec::new(),
            written: 0,
            data: BlockBuilder::new(16),
            index: BlockBuilder::new(1),
            range_del: BlockBuilder::new(1),
            unindexed: None,
            last_key: Vec::new(),
            scratch: Vec::new(),
            hashes: Vec::new(),
            bounds: TableBounds::default(),
            counts: Counts::default(),
            blobs: BTreeMap::new(),
            external: false,
        }
    }

    /// A table for other stores: RocksDB ingests it, when all sequences are 0.
    pub(crate) fn external(mut self) -> Self {
        self.external = true;
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.counts.points + self.counts.ranges == 0
    }

    /// Bytes so far, roughly.
    pub(crate) fn size(&self) -> u64 {
        self.written + (self.pending.len() + self.data.size()) as u64
    }

    /// Adds a change; keys ascending, for one key sequences descending.
    pub(crate) fn add(
        &mut self,
        key: &[u8],
        sequence: u64,
        kind: Kind,
        value: &[u8],
    ) -> io::Result<()> {
        let new_key = self.counts.points == 0 || key != self.last_key;
        // Versions of one key stay in one block, so that the index may consist of user keys.
        let grown = self.data.size() + key.len() + value.len() + 16;
        if new_key && !self.data.is_empty() && grown > self.block_bytes {
            self.finish_data_block()?;
        }
        if let Some(handle) = self.unindexed.take() {
            shorten(&mut self.last_key, key);
            self.add_index(handle);
        }
        if new_key {
            if self.counts.points == 0 {
                self.bounds.smallest = key.to_vec();
            }
            self.hashes.push(filter::hash(key));
            self.last_key.clear();
            self.last_key.extend_from_slice(key);
        }
        self.data.add_change(key, Tag::new(sequence, kind), value);
        self.bounds.last_sequence = self.bounds.last_sequence.max(sequence);
        self.counts.points += 1;
        self.counts.deletions += u64::from(kind == Kind::Delete);
        self.counts.merges += u64::from(kind == Kind::Merge);
        self.counts.raw_key += key.len() as u64 + 8;
        self.counts.raw_value += value.len() as u64;
        if kind == Kind::Put
            && !self.external
            && let Stored::Elsewhere(pointer) = stored(value)
        {
            *self.blobs.entry(pointer.file).or_default() += pointer.block_bytes();
        }
        Ok(())
    }

    /// Adds range deletions (start, end, sequence): by start, for one start newest first.
    pub(crate) fn add_ranges<'a>(
        &mut self,
        ranges: impl IntoIterator<Item = (&'a [u8], &'a [u8], u64)>,
    ) {
        // The last point is the largest key until a range ends beyond it.
        if self.counts.points > 0 {
            self.bounds.largest.clone_from(&self.last_key);
        }
        for (start, end, sequence) in ranges {
            self.scratch.clear();
            self.scratch.extend_from_slice(start);
            let tag = sequence << 8 | u64::from(RANGE_DELETE);
            self.scratch.extend_from_slice(&tag.to_le_bytes());
            self.range_del.add(&self.scratch, end, true);
            if self.is_empty() || start < self.bounds.smallest.as_slice() {
                self.bounds.smallest = start.to_vec();
            }
            if self.is_empty() || end > self.bounds.largest.as_slice() {
                self.bounds.largest = end.to_vec();
                self.bounds.largest_excluded = true;
            }
            self.bounds.last_sequence = self.bounds.last_sequence.max(sequence);
            self.counts.ranges += 1;
        }
    }

    /// Writes what is left and makes the file durable (not its name).
    pub(crate) fn finish(mut self) -> io::Result<TableBounds> {
        self.finish_data_block()?;
        if let Some(handle) = self.unindexed.take() {
            self.add_index(handle);
        }
        if self.counts.ranges == 0 {
            self.bounds.largest.clone_from(&self.last_key);
        }
        // One that no reader would take is left out: then every key may be there.
        let fits = Filter::bytes(self.hashes.len(), self.bloom_bits) <= BLOCK_BYTES_MAX;
        let filter = fits.then(|| Filter::build(&self.hashes, self.bloom_bits).encode());
        self.hashes = Vec::new();
        let filter = filter.map(|filter| self.write_block(&filter)).transpose()?;
        let mut index = std::mem::replace(&mut self.index, BlockBuilder::new(1));
        let index = self.write_block(index.finish())?;
        let mut metaindex = BlockBuilder::new(1);
        let mut add_meta = |name: &str, handle: Handle| {
            let mut value = Vec::new();
            handle.encode(&mut value);
            metaindex.add(name.as_bytes(), &value, true);
        };
        if let Some(filter) = filter {
            add_meta("fullfilter.rocksdb.BuiltinBloomFilter", filter);
        }
        let properties = self.properties(index.size, filter.map_or(0, |filter| filter.size));
        let properties = self.write_block(&properties)?;
        add_meta("rocksdb.properties", properties);
        if self.counts.ranges > 0 {
            let mut range_del = std::mem::replace(&mut self.range_del, BlockBuilder::new(1));
            let range_del = self.write_block(range_del.finish())?;
            add_meta("rocksdb.range_del", range_del);
        }
        let metaindex = self.write_block(metaindex.finish())?;
        let footer = Footer { checksum: Checksum::Xxh3, metaindex, index };
        self.pending.extend_from_slice(&footer.encode());
        self.flush()?;
        self.file.sync()?;
        self.bounds.bytes = self.written;
        self.bounds.blobs = self.blobs.into_iter().collect();
        Ok(self.bounds)
    }

    fn properties(&self, index_size: u64, filter_size: u64) -> Vec<u8> {
        let n = |v: u64| {
            let mut out = Vec::new();
            put_varint(&mut out, v);
            out
        };
        let s = |v: &str| v.as_bytes().to_vec();
        let c = &self.counts;
        let mut properties = vec![
            ("rocksdb.block.based.table.index.type", vec![0; 4]),
            ("rocksdb.block.based.table.prefix.filtering", s("0")),
            ("rocksdb.block.based.table.whole.key.filtering", s("1")),
            ("rocksdb.column.family.id", n(0x7fff_ffff)),
            ("rocksdb.comparator", s("leveldb.BytewiseComparator")),
            ("rocksdb.compression", s("LZ4")),
            ("rocksdb.creation.time", n(0)),
            ("rocksdb.data.size", n(c.data)),
            ("rocksdb.deleted.keys", n(c.deletions + c.ranges)),
            ("rocksdb.filter.policy", s("rocksdb.BuiltinBloomFilter")),
            ("rocksdb.filter.size", n(filter_size)),
            ("rocksdb.fixed.key.length", n(0)),
            ("rocksdb.format.version", n(0)),
            ("rocksdb.index.key.is.user.key", n(1)),
            ("rocksdb.index.size", n(index_size)),
            ("rocksdb.index.value.is.delta.encoded", n(1)),
            ("rocksdb.merge.operands", n(c.merges)),
            ("rocksdb.num.data.blocks", n(c.blocks)),
            ("rocksdb.num.entries", n(c.points + c.ranges)),
            ("rocksdb.num.range-deletions", n(c.ranges)),
            ("rocksdb.raw.key.size", n(c.raw_key)),
            ("rocksdb.raw.value.size", n(c.raw_value)),
        ];
        if self.external {
            let version = 2u32.to_le_bytes().to_vec();
            properties.push(("rocksdb.external_sst_file.version", version));
            properties.push(("rocksdb.external_sst_file.global_seqno", vec![0; 8]));
        }
        properties.sort_unstable();
        let mut block = BlockBuilder::new(NO_RESTARTS);
        for (name, value) in &properties {
            block.add(name.as_bytes(), value, true);
        }
        block.finish().to_vec()
    }

    fn finish_data_block(&mut self) -> io::Result<()> {
        if self.data.is_empty() {
            return Ok(());
        }
        let offset = self.written + self.pending.len() as u64;
        let data = self.data.finish();
        readable(data)?;
        let size = seal(&mut self.pending, data, true);
        self.data.clear();
        self.counts.blocks += 1;
        self.counts.data = offset + size + TRAILER_BYTES as u64;
        self.unindexed = Some(Handle { offset, size });
        self.flush_if_full()
    }

    /// Adds the block that ends with `last_key`.
    fn add_index(&mut self, handle: Handle) {
        self.scratch.clear();
        handle.encode(&mut self.scratch);
        self.index.add(&self.last_key, &self.scratch, false);
    }

    fn write_block(&mut self, payload: &[u8]) -> io::Result<Handle> {
        readable(payload)?;
        let offset = self.written + self.pending.len() as u64;
        let size = seal(&mut self.pending, payload, false);
        self.flush_if_full()?;
        Ok(Handle { offset, size })
    }

    fn flush_if_full(&mut self) -> io::Result<()> {
        if self.pending.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(&self.pending, self.written)?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

/// What no reader would take is not written: here the rows are still where they came from.
fn readable(payload: &[u8]) -> io::Result<()> {
    if payload.len() <= BLOCK_BYTES_MAX {
        return Ok(());
    }
    let what = format!(
        "a block of {} bytes is larger than readers take ({BLOCK_BYTES_MAX} bytes); nothing changed",
        payload.len()
    );
    Err(io::Error::new(io::ErrorKind::FileTooLarge, what))
}

/// Makes of the last key of a block a short key that is not below it and below `next`.
fn shorten(last: &mut Vec<u8>, next: &[u8]) {
    let shared = common(last, next);
    if let (Some(a), Some(b)) = (last.get(shared), next.get(shared))
        && b.checked_sub(*a).is_some_and(|apart| apart > 1)
    {
        last.truncate(shared + 1);
        last[shared] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_separator_stands_between_its_neighbours() {
        let keys: [&[u8]; 9] =
            [b"", b"a", b"abc", b"abd", b"abe", b"abexyz-longer", b"a\xff", b"b", b"\xff\xff"];
        for (i, last) in keys.iter().enumerate() {
            for next in &keys[i + 1..] {
                let mut separator = last.to_vec();
                shorten(&mut separator, next);
                assert!(*last <= separator.as_slice() && separator.as_slice() < *next);
                assert!(separator.len() <= last.len());
            }
        }
    }
}
