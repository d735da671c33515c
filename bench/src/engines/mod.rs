//! Engines: what every store under test can do, in the best way that its interface offers.
//!
//! Un-synced writes of all but redb survive the death of the process when `put` returns: each has
//! given its bytes to a write call or copied them into a shared mapping of the log. redb's un-synced
//! commit does not.

pub mod fjall;
pub mod ours;
pub mod redb;
pub mod rocks;

use crate::workload::Key;
use std::path::Path;

/// What is the same for all.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// Where the store lives.
    pub directory: &'a Path,
    /// Size at which a memtable is flushed.
    pub memtable_bytes: usize,
    /// Budget of the block cache.
    pub cache_bytes: usize,
    /// Background threads.
    pub background: usize,
}

/// A store under test. Faults of the disk end the run: a figure without its work is none.
pub trait Store: Send + Sync + Sized {
    /// Opens or makes the store.
    fn open(setup: Setup<'_>) -> Self;
    /// Writes one row; synced or not when it returns.
    fn put(&self, key: &Key, value: &[u8], sync: bool);
    /// Length of the value.
    fn get(&self, key: &Key) -> Option<usize>;
    /// How many of `keys` have values.
    fn get_many(&self, keys: &[Key]) -> usize {
        keys.iter().filter(|key| self.get(key).is_some()).count()
    }
    /// Rows and bytes of at most `rows_max` rows from `start` on.
    fn scan(&self, start: &[u8], rows_max: usize) -> (usize, usize);
    /// As [`Store::scan`], backward: rows with keys of at most `from`.
    fn scan_back(&self, from: &[u8], rows_max: usize) -> (usize, usize);
    /// Deletes the rows from `start` (inclusive) to `end` (exclusive).
    fn delete_range(&self, start: &[u8], end: &[u8]);
    /// Flushes and lets the background finish what it wants to do.
    fn settle(&self);
    /// Bytes written since the start that no write call was asked for.
    fn uncalled_bytes(&self) -> u64 {
        0
    }
}

/// Names of the stores under test.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    clap::ValueEnum,
)]
pub enum Name {
    /// The engine of this repository.
    Ours,
    /// RocksDB, through its C interface.
    Rocksdb,
    /// fjall 3.
    Fjall,
    /// redb: a copy-on-write B-tree.
    Redb,
}

impl Name {
    /// As printed.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Rocksdb => "rocksdb",
            Self::Fjall => "fjall",
            Self::Redb => "redb",
        }
    }
}
