//! Writing a table, entry by entry in internal key order.

use super::build::{BlockBuilder, common};
use super::filter::{self, Filter};
use super::footer::{Footer, Handle, TRAILER_BYTES, seal};
use crate::blob::{Stored, stored};
use crate::checksum::Checksum;
use crate::codec::put_varint;
use crate::disk::DiskFile;
use crate::key::{Kind, RANGE_DELETE, Tag};
use crate::limits::{BLOCK_BYTES_MAX, FOLDED_BYTES_MAX, too_large};
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
    /// Versions of one key fill a block up to here, then go on in the next one.
    versions_bytes_max: usize,
    /// They did.
    splits_keys: bool,
    /// Separators and the blocks before them.
    index: Vec<(Vec<u8>, Handle)>,
    range_del: BlockBuilder,
    /// A finished data block whose index key waits for the key after it.
    unindexed: Option<Handle>,
    last_key: Vec<u8>,
    last_tag: Tag,
    /// For the key of a range deletion.
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
    /// Its bounds are narrower than its file, and about so many bytes of that lie within; what it points
    /// to is as rough then.
    pub(crate) narrowed: Option<u64>,
}

impl TableBounds {
    /// Bytes of the file that count.
    pub(crate) fn weight(&self) -> u64 {
        self.narrowed.unwrap_or(self.bytes)
    }
}

impl TableBounds {
    /// The first key after all that it speaks of.
    pub(crate) fn upper(&self) -> Vec<u8> {
        let mut upper = self.largest.clone();
        if !self.largest_excluded {
            upper.push(0);
        }
        upper
    }
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
            versions_bytes_max: FOLDED_BYTES_MAX,
            splits_keys: false,
            index: Vec::new(),
            range_del: BlockBuilder::new(1),
            unindexed: None,
            last_key: Vec::new(),
            last_tag: Tag(0),
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
        // Versions of one key stay in one block, so that the index may consist of user keys, unless
        // no reader would take that block.
        let grown = self.data.size() + key.len() + value.len() + 16;
        let full = if new_key { self.block_bytes } else { self.versions_bytes_max };
        if !self.data.is_empty() && grown > full {
            self.finish_data_block()?;
        }
        if let Some(handle) = self.unindexed.take() {
            if new_key {
                shorten(&mut self.last_key, key);
                self.add_index(handle, Tag(0));
            } else {
                self.splits_keys = true;
                self.add_index(handle, self.last_tag);
            }
        }
        if new_key {
            if self.counts.points == 0 {
                self.bounds.smallest = key.to_vec();
            }
            self.hashes.push(filter::hash(key));
            self.last_key.clear();
            self.last_key.extend_from_slice(key);
        }
        self.last_tag = Tag::new(sequence, kind);
        self.data.add_change(key, self.last_tag, value);
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
            self.add_index(handle, Tag(0));
        }
        if self.counts.ranges == 0 {
            self.bounds.largest.clone_from(&self.last_key);
        }
        // One that no reader would take is left out: then every key may be there.
        let fits = Filter::bytes(self.hashes.len(), self.bloom_bits) <= BLOCK_BYTES_MAX;
        let filter = fits.then(|| Filter::build(&self.hashes, self.bloom_bits).encode());
        self.hashes = Vec::new();
        let filter = filter.map(|filter| self.write_block(&filter)).transpose()?;
        let index = self.index_block();
        let index = self.write_block(&index)?;
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
            ("rocksdb.index.key.is.user.key", n(u64::from(!self.splits_keys))),
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
        let content = self.data.finish();
        if content.len() > BLOCK_BYTES_MAX {
            return Err(too_large(content.len()));
        }
        let size = seal(&mut self.pending, content, true);
        self.data.clear();
        self.counts.blocks += 1;
        self.counts.data = offset + size + TRAILER_BYTES as u64;
        self.unindexed = Some(Handle { offset, size });
        self.flush_if_full()
    }

    /// Adds the block that ends with `last_key`. Of its versions those up to `tag` are in it: 0 for
    /// all of them.
    fn add_index(&mut self, handle: Handle, tag: Tag) {
        let internal = [self.last_key.as_slice(), &tag.0.to_le_bytes()].concat();
        self.index.push((internal, handle));
    }

    /// Separators are user keys where that is enough to tell the blocks apart.
    fn index_block(&mut self) -> Vec<u8> {
        let mut index = BlockBuilder::new(1);
        let mut coded = Vec::new();
        for (internal, handle) in std::mem::take(&mut self.index) {
            let bytes = internal.len() - if self.splits_keys { 0 } else { 8 };
            coded.clear();
            handle.encode(&mut coded);
            index.add(&internal[..bytes], &coded, false);
        }
        index.finish().to_vec()
    }

    fn write_block(&mut self, payload: &[u8]) -> io::Result<Handle> {
        if payload.len() > BLOCK_BYTES_MAX {
            return Err(too_large(payload.len()));
        }
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
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;
    use crate::disk::{Disk, MemoryDisk};
    use crate::shelf::Shelf;
    use crate::table::{Table, TablesCursor};

    #[test]
    fn versions_of_a_key_go_on_in_the_next_block_where_one_cannot_hold_them() {
        let disk = MemoryDisk::new(1);
        let mut writer = TableWriter::new(disk.create("1.sst").unwrap(), 200, 10);
        writer.versions_bytes_max = 1000;
        let (mut rows, count) = (Vec::new(), 40u64);
        for key in [&b"a"[..], b"grown", b"z"] {
            let versions = if key == b"grown" { count } else { 1 };
            for sequence in (1..=versions).rev() {
                let value = vec![sequence as u8; 150];
                writer.add(key, sequence, Kind::Merge, &value).unwrap();
                rows.push((key.to_vec(), sequence, value));
            }
        }
        writer.add_ranges([]);
        let bounds = writer.finish().unwrap();
        let shelf = Arc::new(Shelf::alone(0));
        let table = Table::open(1, bounds, disk.open("1.sst").unwrap(), shelf).unwrap();
        assert!(table.splits_keys() && table.blocks().unwrap() > 8);
        for at in 0..table.blocks().unwrap() {
            let (block, _) = table.check_block(at).unwrap();
            assert!(block.rows() <= 1000 / 150);
        }
        let mut seen = Vec::new();
        let mut see =
            |tag: Tag, value: Vec<u8>| seen.push((b"grown".to_vec(), tag.sequence(), value));
        table
            .get(b"grown", |tag, value| {
                see(tag, value.keep().bytes().to_vec());
                true
            })
            .unwrap();
        assert_eq!(seen, rows[1..=count as usize]);
        let tables = [Arc::new(table)];
        let mut cursor = TablesCursor::streaming(&tables, &[], None).unwrap();
        let (mut walked, mut found) = (Vec::new(), Vec::new());
        while let Some(key) = cursor.key().map(<[u8]>::to_vec) {
            found.clear();
            cursor.take(&mut found).unwrap();
            let rows =
                found.iter().map(|(tag, v)| (key.clone(), tag.sequence(), v.bytes().to_vec()));
            walked.extend(rows);
        }
        assert_eq!(walked, rows);
    }

    #[test]
    fn a_block_that_no_reader_would_take_is_refused_when_it_is_written() {
        let disk = MemoryDisk::new(1);
        let mut writer = TableWriter::new(disk.create("1.sst").unwrap(), 200, 10);
        let value = vec![7; BLOCK_BYTES_MAX];
        writer.add(b"k", 1, Kind::Put, &value).unwrap();
        writer.add_ranges([]);
        assert_eq!(writer.finish().unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

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
