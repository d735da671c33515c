//! redb 4: one transaction a write. Its un-synced commits do not survive the death of the process.

use super::{Setup, Store};
use crate::workload::Key;
use redb::{Database, Durability, ReadableDatabase, TableDefinition};

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

/// A redb database with one table.
pub struct Redb {
    database: Database,
}

impl Redb {
    fn write(&self, sync: bool, f: impl FnOnce(&mut redb::Table<'_, &[u8], &[u8]>)) {
        let mut transaction = self.database.begin_write().expect("redb writes");
        let durability = if sync { Durability::Immediate } else { Durability::None };
        transaction.set_durability(durability).expect("redb writes");
        f(&mut transaction.open_table(ROWS).expect("redb opens its table"));
        transaction.commit().expect("redb commits");
    }
}

impl Store for Redb {
    fn open(setup: Setup<'_>) -> Self {
        std::fs::create_dir_all(setup.directory).expect("the directory is made");
        let path = setup.directory.join("rows.redb");
        let cache = setup.cache_bytes.max(setup.memtable_bytes);
        let database = Database::builder().set_cache_size(cache).create(path).expect("redb opens");
        let store = Self { database };
        store.write(true, |_| {});
        store
    }

    fn put(&self, key: &Key, value: &[u8], sync: bool) {
        self.write(sync, |rows| drop(rows.insert(key.as_slice(), value).expect("redb puts")));
    }

    fn get(&self, key: &Key) -> Option<usize> {
        let transaction = self.database.begin_read().expect("redb reads");
        let rows = transaction.open_table(ROWS).expect("redb opens its table");
        rows.get(key.as_slice()).expect("redb gets").map(|value| value.value().len())
    }

    fn get_many(&self, keys: &[Key]) -> usize {
        let transaction = self.database.begin_read().expect("redb reads");
        let rows = transaction.open_table(ROWS).expect("redb opens its table");
        let has = |key: &&Key| rows.get(key.as_slice()).expect("redb gets").is_some();
        keys.iter().filter(has).count()
    }

    fn scan(&self, start: &[u8], rows_max: usize) -> (usize, usize) {
        let transaction = self.database.begin_read().expect("redb reads");
        let rows = transaction.open_table(ROWS).expect("redb opens its table");
        let mut sum = (0, 0);
        for row in rows.range(start..).expect("redb scans").take(rows_max) {
            let (key, value) = row.expect("redb scans");
            sum = (sum.0 + 1, sum.1 + key.value().len() + value.value().len());
        }
        sum
    }

    fn scan_back(&self, from: &[u8], rows_max: usize) -> (usize, usize) {
        let transaction = self.database.begin_read().expect("redb reads");
        let rows = transaction.open_table(ROWS).expect("redb opens its table");
        let mut sum = (0, 0);
        for row in rows.range(..=from).expect("redb scans").rev().take(rows_max) {
            let (key, value) = row.expect("redb scans");
            sum = (sum.0 + 1, sum.1 + key.value().len() + value.value().len());
        }
        sum
    }

    fn delete_range(&self, start: &[u8], end: &[u8]) {
        self.write(false, |rows| rows.retain_in(start..end, |_, _| false).expect("redb deletes"));
    }

    fn settle(&self) {
        self.write(true, |_| {});
    }
}
