//! fjall 3, with LZ4 and Bloom filters on all levels and all index and filter blocks pinned.

use super::{Setup, Store};
use crate::workload::Key;
use fjall::config::{
    BlockSizePolicy, BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry,
    PinningPolicy,
};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::time::Duration;

/// A fjall database with one keyspace.
pub struct Fjall {
    database: Database,
    rows: Keyspace,
}

impl Store for Fjall {
    fn open(setup: Setup<'_>) -> Self {
        let database = Database::builder(setup.directory)
            .cache_size(setup.cache_bytes as u64)
            .worker_threads(setup.background)
            .open()
            .expect("fjall opens");
        let bloom = FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(10.0));
        let rows = database
            .keyspace("rows", || {
                KeyspaceCreateOptions::default()
                    .max_memtable_size(setup.memtable_bytes as u64)
                    .data_block_size_policy(BlockSizePolicy::all(4096))
                    .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
                    .filter_policy(FilterPolicy::all(bloom))
                    .filter_block_pinning_policy(PinningPolicy::all(true))
                    .index_block_pinning_policy(PinningPolicy::all(true))
            })
            .expect("fjall opens its keyspace");
        Self { database, rows }
    }

    fn put(&self, key: &Key, value: &[u8], sync: bool) {
        self.rows.insert(key, value).expect("fjall puts");
        if sync {
            self.database.persist(PersistMode::SyncData).expect("fjall syncs");
        }
    }

    fn get(&self, key: &Key) -> Option<usize> {
        self.rows.get(key).expect("fjall gets").map(|value| value.len())
    }

    fn scan(&self, start: &[u8], rows_max: usize) -> (usize, usize) {
        let mut sum = (0, 0);
        for row in self.rows.range(start..).take(rows_max) {
            let (key, value) = row.into_inner().expect("fjall scans");
            sum = (sum.0 + 1, sum.1 + key.len() + value.len());
        }
        sum
    }

    fn scan_back(&self, from: &[u8], rows_max: usize) -> (usize, usize) {
        let mut sum = (0, 0);
        for row in self.rows.range(..=from).rev().take(rows_max) {
            let (key, value) = row.into_inner().expect("fjall scans");
            sum = (sum.0 + 1, sum.1 + key.len() + value.len());
        }
        sum
    }

    /// There is no range deletion: rows are listed and removed.
    fn delete_range(&self, start: &[u8], end: &[u8]) {
        let mut batch = self.database.batch();
        for row in self.rows.range(start..end) {
            batch.remove(&self.rows, row.key().expect("fjall scans"));
            if batch.len() >= 1000 {
                std::mem::replace(&mut batch, self.database.batch()).commit().expect("fjall puts");
            }
        }
        batch.commit().expect("fjall puts");
    }

    fn settle(&self) {
        self.rows.rotate_memtable_and_wait().expect("fjall flushes");
        let mut quiet = 0;
        while quiet < 20 {
            let busy =
                self.database.active_compactions() > 0 || self.database.outstanding_flushes() > 0;
            quiet = if busy { 0 } else { quiet + 1 };
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
