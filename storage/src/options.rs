//! Options: what the owner of a store decides.

use crate::error::OpenError;

/// How much is kept where. The defaults suit a node; [`Options::small`] suits a simulator.
#[derive(Debug, Clone)]
pub struct Options {
    /// The n − 1 keys that split the key space into n shards; strictly ascending. Shard i holds
    /// the keys from split i − 1 (inclusive) to split i (exclusive). May differ from run to run.
    pub splits: Vec<Vec<u8>>,
    /// A shard asks for rotation when its memtable holds about this many bytes; the first time in a run
    /// it may be less, so that shards that fill alike are not full at once. At most
    /// [`crate::limits::MEMTABLE_BYTES_MAX`].
    pub memtable_bytes: usize,
    /// A log segment is closed at this size.
    pub log_segment_bytes: u64,
    /// Keep the newest flushed log segments, in sum at least this many bytes where they exist, so
    /// that peers can pull missed writes from them.
    pub log_retain_bytes: u64,
    /// How many files for each shard are made ready before the log needs them. A segment in such a
    /// file neither grows nor takes blocks, which is what makes a sync slow. Made from the first sync on. 0:
    /// none.
    pub log_spares: usize,
    /// Uncompressed size at which a table's block is cut.
    pub block_bytes: usize,
    /// Budget of the block cache: bytes of decoded blocks, with what keeping them costs. Index and
    /// filter of each table are kept beside it.
    pub block_cache_bytes: usize,
    /// Size at which a table written by compaction is cut.
    pub table_bytes: u64,
    /// Tables of one key range in level 0 that start a compaction.
    pub level0_tables: usize,
    /// About what the first level below level 0 holds. While the last level holds less than four times
    /// this, level 0 is merged straight into it; above that a level a tenth as large is put between,
    /// and so on upwards.
    pub level1_bytes: u64,
    /// Deletions that make a table worth a compaction of its own, if they are half of what it holds.
    pub deletions_many: u64,
    /// Into how many parts a flush and the merging of level 0 are split, at most, once the store is
    /// large enough; the parts are merged by jobs of their own.
    pub parts_max: usize,
    /// A manifest that is larger than this, and than four times what it has to tell, is written
    /// anew.
    pub manifest_bytes: u64,
    /// Bloom filter bits per key.
    pub bloom_bits: usize,
    /// Values of at least this many bytes are kept in blob files beside the tables; `usize::MAX`:
    /// none, though what is there stays readable. May differ from run to run.
    pub large_value_bytes: usize,
    /// Size at which a blob file is closed.
    pub blob_file_bytes: u64,
    /// A blob file of which less than this share is live is written anew, in percent.
    pub blob_live_percent: u64,
    /// Open although acknowledged data is lost, and report it in [`crate::Engine::damage`]. Bytes that the
    /// disk cannot read, also when asked once more, count as lost then, at the start and later.
    pub tolerate_damage: bool,
    /// Faults that a test plants to prove that it would notice them. Empty in production.
    pub planted_bugs: Vec<PlantedBug>,
}

/// A bug that a test can switch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedBug {
    /// Syncing the log reports success without asking the disk.
    MissingFsync,
    /// A hole in acknowledged log data is cut off as if it were a torn tail.
    DamageReadAsTornTail,
    /// Flush and compaction forget deletions although something older lies below.
    DeletionsForgotten,
    /// All segments of the log have one id, so that what stands in a file from its former life
    /// proves itself.
    OneSegmentId,
    /// A blob file goes before the edit is durable that makes it unneeded.
    BlobRemovedEarly,
    /// What a blob's checksum says is not looked at.
    BlobUnchecked,
    /// An ingested table counts as older than what was there.
    IngestBelow,
    /// An ingested table goes below tables of level 0 that overlap it.
    IngestPastLevel0,
    /// An ingested table goes where a compaction is about to put what is older.
    IngestPastJobs,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            splits: Vec::new(),
            memtable_bytes: 64 << 20,
            log_segment_bytes: 64 << 20,
            log_retain_bytes: 256 << 20,
            log_spares: 1,
            block_bytes: 4 << 10,
            block_cache_bytes: 128 << 20,
            table_bytes: 64 << 20,
            level0_tables: 4,
            level1_bytes: 256 << 20,
            deletions_many: 4 << 10,
            parts_max: 4,
            manifest_bytes: 4 << 20,
            bloom_bits: 10,
            large_value_bytes: 4 << 10,
            blob_file_bytes: 64 << 20,
            blob_live_percent: 50,
            tolerate_damage: false,
            planted_bugs: Vec::new(),
        }
    }
}

impl Options {
    /// Sizes so small that a test of a few thousand writes reaches every mechanism.
    #[must_use]
    pub fn small() -> Self {
        Self {
            memtable_bytes: 16 << 10,
            log_segment_bytes: 16 << 10,
            log_retain_bytes: 32 << 10,
            block_bytes: 512,
            block_cache_bytes: 64 << 10,
            table_bytes: 16 << 10,
            level1_bytes: 16 << 10,
            deletions_many: 32,
            manifest_bytes: 2 << 10,
            blob_file_bytes: 16 << 10,
            ..Self::default()
        }
    }

    /// True when the test planted `bug`.
    #[must_use]
    pub fn planted(&self, bug: PlantedBug) -> bool {
        self.planted_bugs.contains(&bug)
    }

    /// Number of shards.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.splits.len() + 1
    }

    /// The shard that owns `key`.
    #[must_use]
    pub fn shard_of(&self, key: &[u8]) -> usize {
        self.splits.partition_point(|split| split.as_slice() <= key)
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let refuse = |reason| Err(OpenError::Options { reason });
        if !self.splits.is_sorted_by(|a, b| a < b) || self.splits.first().is_some_and(Vec::is_empty)
        {
            return refuse("splits must be non-empty keys in strictly ascending order");
        }
        if self.splits.iter().any(|s| s.len() > crate::limits::KEY_BYTES_MAX) {
            return refuse("a split is longer than a key may be");
        }
        if self.memtable_bytes > crate::limits::MEMTABLE_BYTES_MAX {
            return refuse("memtable_bytes must be at most 16 GiB");
        }
        if self.block_bytes == 0 || self.block_bytes > 1 << 20 {
            return refuse("block_bytes must be between 1 and 1 MiB");
        }
        if self.level0_tables < 2 || self.table_bytes == 0 || self.level1_bytes == 0 {
            return refuse("level0_tables must be at least 2, table and level sizes above 0");
        }
        if !(1..=64).contains(&self.parts_max) {
            return refuse("parts_max must be between 1 and 64");
        }
        if self.large_value_bytes == 0 || self.blob_file_bytes == 0 || self.blob_live_percent > 90 {
            return refuse(
                "large_value_bytes and blob_file_bytes must be above 0, blob_live_percent at most 90",
            );
        }
        if !(1..=18).contains(&self.bloom_bits) {
            return refuse("bloom_bits must be between 1 and 18");
        }
        Ok(())
    }
}
