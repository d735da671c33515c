//! Tables seen from the inside: every row comes back whichever way it is asked for, foreign tables
//! are read, hostile ones give errors.

mod hostile;
mod rocksdb;
mod walk;

use super::{Table, TableBounds, TableWriter};
use crate::disk::{Disk, MemoryDisk};
use crate::error::Error;
use crate::key::{Kind, Tag};
use crate::shelf::Shelf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A change as a test writes it and a table gives it back.
type Row = (Vec<u8>, u64, Vec<u8>);

/// A seeded source of chance.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        crate::codec::scatter(self.0) % n
    }
    fn bytes(&mut self, n: u64) -> Vec<u8> {
        (0..n).map(|_| self.below(256) as u8).collect()
    }
}

/// Writes `rows`, which are in order, to a table.
fn write(disk: &MemoryDisk, name: &str, rows: &[Row], block_bytes: usize) -> TableBounds {
    let mut writer = TableWriter::new(disk.create(name).unwrap(), block_bytes, 10);
    for (key, sequence, value) in rows {
        writer.add(key, *sequence, Kind::Put, value).unwrap();
    }
    writer.add_ranges([]);
    writer.finish().unwrap()
}

fn open(
    disk: &dyn Disk,
    name: &str,
    bounds: TableBounds,
    cache_bytes: usize,
) -> Result<Arc<Table>, Error> {
    open_on(disk, name, bounds, Arc::new(Shelf::alone(cache_bytes)))
}

fn open_on(
    disk: &dyn Disk,
    name: &str,
    bounds: TableBounds,
    shelf: Arc<Shelf>,
) -> Result<Arc<Table>, Error> {
    // Tables have numbers of their own.
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let table = Table::open(number, bounds, disk.open(name).unwrap(), shelf)?;
    Ok(Arc::new(table))
}

/// The versions of `key`, newest first.
fn get(table: &Table, key: &[u8]) -> Result<Vec<(Tag, Vec<u8>)>, Error> {
    let mut found = Vec::new();
    if table.admits(super::hash(key)) {
        table.get(key, |tag, value| {
            found.push((tag, value.keep().bytes().to_vec()));
            true
        })?;
    }
    Ok(found)
}
