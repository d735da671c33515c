//! Writing a table, entry by entry in internal key order.

use super::block::BlockBuilder;
use super::filter;
use super::footer::{Handle, LZ4, UNCOMPRESSED, compress, encode_footer, seal};
use crate::blob::{Stored, stored};
use crate::codec::put_varint;
use crate::disk::DiskFile;
use crate::key::{Kind, RANGE_DELETE, Tag};
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
            let separator = separator(&self.last_key, key);
            self.add_index(&separator, handle);
        }
        if new_key {
            if self.counts.points == 0 {
                self.bounds.smallest = key.to_vec();
            }
            self.hashes.push(filter::hash(key));
            self.last_key.clear();
            self.last_key.extend_from_slice(key);
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(key);
        self.scratch.extend_from_slice(&Tag::new(sequence, kind).0.to_le_bytes());
        self.data.add(&self.scratch, value, true);
        self.bounds.last_sequence = self.bounds.last_sequence.max(sequence);
        self.counts.points += 1;
        self.counts.deletions += u64::from(kind == Kind::Delete);
        self.counts.merges += u64::from(kind == Kind::Merge);
        self.counts.raw_key += self.scratch.len() as u64;
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
            let last = std::mem::take(&mut self.last_key);
            self.add_index(&last, handle);
            self.last_key = last;
        }
        if self.counts.ranges == 0 {
            self.bounds.largest.clone_from(&self.last_key);
        }
        let filter = filter::build(&self.hashes, self.bloom_bits);
        let filter = self.write_block(&filter, UNCOMPRESSED)?;
        let index = self.index.finish();
        let index = self.write_block(&index, UNCOMPRESSED)?;
        let mut metaindex = BlockBuilder::new(1);
        let mut add_meta = |name: &str, handle: Handle| {
            let mut value = Vec::new();
            handle.encode(&mut value);
            metaindex.add(name.as_bytes(), &value, true);
        };
        add_meta("fullfilter.rocksdb.BuiltinBloomFilter", filter);
        let range_del = self.range_del.finish();
        let properties = self.properties(index.size, filter.size);
        let properties = self.write_block(&properties, UNCOMPRESSED)?;
        add_meta("rocksdb.properties", properties);
        if self.counts.ranges > 0 {
            let range_del = self.write_block(&range_del, UNCOMPRESSED)?;
            add_meta("rocksdb.range_del", range_del);
        }
        let metaindex = metaindex.finish();
        let metaindex = self.write_block(&metaindex, UNCOMPRESSED)?;
        self.pending.extend_from_slice(&encode_footer(metaindex, index));
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
        block.finish()
    }

    fn finish_data_block(&mut self) -> io::Result<()> {
        if self.data.is_empty() {
            return Ok(());
        }
        let block = self.data.finish();
        let handle = match compress(&block) {
            Some(small) => self.write_block(&small, LZ4)?,
            None => self.write_block(&block, UNCOMPRESSED)?,
        };
        self.counts.blocks += 1;
        self.counts.data = handle.offset + handle.size + 5;
        self.unindexed = Some(handle);
        Ok(())
    }

    fn add_index(&mut self, key: &[u8], handle: Handle) {
        let mut value = Vec::new();
        handle.encode(&mut value);
        self.index.add(key, &value, false);
    }

    fn write_block(&mut self, payload: &[u8], kind: u8) -> io::Result<Handle> {
        let offset = self.written + self.pending.len() as u64;
        seal(&mut self.pending, payload, kind);
        if self.pending.len() >= WRITE_BYTES {
            self.flush()?;
        }
        Ok(Handle { offset, size: payload.len() as u64 })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(&self.pending, self.written)?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

/// A short key from `last` (inclusive) to `next` (exclusive).
fn separator(last: &[u8], next: &[u8]) -> Vec<u8> {
    let shared = last.iter().zip(next).take_while(|(a, b)| a == b).count();
    match (last.get(shared), next.get(shared)) {
        (Some(a), Some(b)) if a + 1 < *b => {
            let mut key = last[..=shared].to_vec();
            key[shared] += 1;
            key
        }
        _ => last.to_vec(),
    }
}
