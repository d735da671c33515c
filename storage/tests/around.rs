//! Compaction around damage: level 0 goes on, what can be read is right, what cannot says so.

use crate::fixture::{Chance, Store, options};
use ringdb_storage::{Batch, Direction, Disk, Durability, Error, JobKind, MemoryDisk, Options};
use std::collections::BTreeMap;
use std::ops::Range;

pub(crate) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

pub(crate) fn key(i: u64) -> Vec<u8> {
    format!("k{i:05}").into_bytes()
}

pub(crate) fn small() -> Options {
    Options {
        memtable_bytes: 1 << 20,
        table_bytes: 8 << 10,
        level1_bytes: 16 << 10,
        block_cache_bytes: 0,
        ..options(2)
    }
}

/// Writes some rows of both shards, of which one has the keys below k050 and the other those above.
/// Every third is written in the beginning only.
pub(crate) fn write(store: &mut Store, chance: &mut Chance, rows: &mut Rows, count: u64) {
    for _ in 0..count {
        let i = chance.below(1000);
        let k = key(100 * if count < 400 { i / 3 * 3 + 1 + i % 2 } else { i });
        let value: Vec<u8> = (0..40).map(|_| chance.below(256) as u8).collect();
        let mut batch = Batch::new();
        if chance.below(8) == 0 {
            batch.delete(&k);
            rows.remove(&k);
        } else {
            batch.put(&k, &value);
            rows.insert(k.clone(), value);
        }
        store.shard(&k).apply(&batch, Durability::Buffered).unwrap();
    }
}

pub(crate) fn flush(store: &mut Store) {
    for shard in &mut store.shards {
        shard.commit().unwrap();
        shard.rotate();
    }
    while let Some(job) = store.engine.next_flush() {
        job.run().unwrap();
    }
    store.shards.iter_mut().for_each(ringdb_storage::Shard::refresh);
}

/// Runs all jobs; how many failed.
pub(crate) fn compact(store: &mut Store) -> usize {
    let mut failed = 0;
    for _ in 0..1000 {
        let Some(job) = store.engine.next_job() else {
            store.shards.iter_mut().for_each(ringdb_storage::Shard::refresh);
            return failed;
        };
        failed += usize::from(job.run().is_err());
    }
    panic!("work without an end: {:?}", store.engine.stats());
}

/// Every read is right or says that it cannot know; how many cannot.
pub(crate) fn check(store: &mut Store, rows: &Rows) -> usize {
    let mut lost = 0;
    for i in 0..1002 {
        let k = key(100 * i);
        match store.get(&k) {
            Ok(value) => {
                assert_eq!(value.as_ref(), rows.get(&k), "{}", String::from_utf8_lossy(&k));
            }
            Err(Error::Damaged(damage)) => {
                assert!(damage.lower <= k && damage.upper.is_none_or(|upper| k < upper));
                lost += 1;
            }
            Err(e) => panic!("{e}"),
        }
    }
    for shard in &store.shards {
        let mut seen: Option<Vec<u8>> = None;
        let Ok(scan) = shard.scan(b"", None, Direction::Forward, None) else { continue };
        for row in scan {
            let Ok((k, value)) = row else { break };
            assert_eq!(rows.get(&k), Some(&value));
            // What lies between was deleted, not passed over.
            let gap = (std::ops::Bound::Unbounded, std::ops::Bound::Excluded(k.clone()));
            let before = rows.range::<Vec<u8>, _>(gap).next_back().map(|(k, _)| k.clone());
            assert!(before.filter(|k| shard.owns(k)) == seen);
            seen = Some(k);
        }
    }
    lost
}

fn tables(disk: &MemoryDisk) -> Vec<String> {
    disk.list().unwrap().into_iter().filter(|name| name.ends_with(".sst")).collect()
}

/// A store whose rows are all compacted.
pub(crate) fn filled(disk: &MemoryDisk, chance: &mut Chance) -> (Store, Rows) {
    let mut store = Store::open(disk, small()).unwrap();
    let mut rows = Rows::new();
    for _ in 0..6 {
        write(&mut store, chance, &mut rows, 400);
        flush(&mut store);
    }
    compact(&mut store);
    (store, rows)
}

/// 60 flushes with all that is due after each of them; then again after the store was reopened.
fn goes_on(
    disk: &MemoryDisk,
    mut store: Store,
    mut rows: Rows,
    chance: &mut Chance,
    lost: Range<usize>,
) {
    let mut failures = 0;
    for run in 0..2 {
        for _ in 0..60 {
            write(&mut store, chance, &mut rows, 60);
            flush(&mut store);
            failures += compact(&mut store);
            let stats = store.engine.stats();
            assert!(stats.level0_depth <= 8, "{stats:?}");
            assert!(store.engine.debt().level0 < 0.1, "{:?}", store.engine.debt());
        }
        let found = check(&mut store, &rows);
        assert!(lost.contains(&found), "{found} in run {run}: {:?}", store.engine.damage());
        if run == 0 {
            drop(store);
            store = Store::open(disk, small()).unwrap();
            check(&mut store, &rows);
        }
    }
    assert!(failures < 12, "{failures} jobs failed");
}

#[test]
fn one_flipped_bit_takes_its_block_and_nothing_else_stops() {
    for seed in 0..24 {
        let disk = MemoryDisk::new(seed);
        let chance = &mut Chance(seed);
        let (mut store, mut rows) = filled(&disk, chance);
        if seed % 3 == 0 {
            // The damage is in level 0.
            for _ in 0..2 {
                write(&mut store, chance, &mut rows, 200);
                flush(&mut store);
            }
        }
        let tables = tables(&disk);
        let table = if seed % 3 == 0 {
            tables.last().unwrap()
        } else {
            &tables[chance.below(tables.len() as u64) as usize]
        };
        let data = disk.open(table).unwrap().len().unwrap() / 2;
        for _ in 0..1 + seed % 2 {
            disk.rot(table, chance.below(data), 1 << chance.below(8));
        }
        // What was in level 0 may all be overwritten by then.
        let lost = if seed % 3 == 0 { 0..100 } else { 1..100 };
        goes_on(&disk, store, rows, chance, lost);
    }
}

#[test]
fn a_table_that_the_disk_refuses_to_read_does_not_stop_the_others() {
    for seed in 0..8 {
        let disk = MemoryDisk::new(seed);
        let chance = &mut Chance(seed + 100);
        let (mut store, mut rows) = filled(&disk, chance);
        let all = tables(&disk);
        let table = &all[chance.below(all.len() as u64) as usize];
        disk.fail_reads(Some(table));
        let mut failures = 0;
        for _ in 0..60 {
            write(&mut store, chance, &mut rows, 60);
            flush(&mut store);
            failures += compact(&mut store);
            let stats = store.engine.stats();
            assert!(stats.level0_depth <= 8, "{stats:?}");
        }
        assert!((2..80).contains(&failures), "{failures} jobs failed");
        assert!(!store.engine.damage().is_empty(), "it is remembered");
        let lost = (0..1000).filter(|i| store.get(&key(100 * i)).is_err()).count();
        assert!(lost > 0, "and said");
        // The disk has come to itself, and nothing was given up.
        disk.fail_reads(None);
        assert_eq!(check(&mut store, &rows), 0);
        drop(store);
        let mut store = Store::open(&disk, small()).unwrap();
        assert_eq!(check(&mut store, &rows), 0);
        for _ in 0..10 {
            write(&mut store, chance, &mut rows, 60);
            flush(&mut store);
            assert_eq!(compact(&mut store), 0);
        }
        assert_eq!(check(&mut store, &rows), 0);
        assert!(store.engine.damage().is_empty());
    }
}

#[test]
fn a_damaged_table_that_a_range_deletion_covers_is_dropped_unread() {
    let disk = MemoryDisk::new(1);
    let chance = &mut Chance(7);
    let (mut store, _) = filled(&disk, chance);
    for table in tables(&disk) {
        disk.rot(&table, 30, 1);
    }
    let mut rows = Rows::new();
    assert!((0..1000).filter(|i| store.get(&key(100 * i)).is_err()).count() > 10);
    for shard in &mut store.shards {
        let mut batch = Batch::new();
        batch.delete_range(b"", b"z");
        shard.apply(&batch, Durability::Buffered).unwrap();
    }
    flush(&mut store);
    assert_eq!(compact(&mut store), 0);
    assert_eq!(store.engine.stats().table_bytes.iter().sum::<u64>(), 0);
    assert!(store.engine.damage().is_empty(), "{:?}", store.engine.damage());
    write(&mut store, chance, &mut rows, 50);
    assert_eq!(check(&mut store, &rows), 0);
    assert!(store.engine.next_job().is_none_or(|job| job.kind() != JobKind::Compact));
}

#[test]
fn a_damaged_table_that_a_snapshot_reads_is_not_dropped_for_a_range_deletion_above_it() {
    let disk = MemoryDisk::new(1);
    let (mut store, rows) = filled(&disk, &mut Chance(9));
    for table in tables(&disk) {
        disk.rot(&table, 30, 1);
    }
    let lost: Vec<Vec<u8>> =
        (0..1000).map(|i| key(100 * i)).filter(|k| store.get(k).is_err()).collect();
    assert!(lost.len() > 10);
    let snapshots: Vec<_> = store.shards.iter().map(ringdb_storage::Shard::snapshot).collect();
    for shard in &mut store.shards {
        let mut batch = Batch::new();
        batch.delete_range(b"", b"z");
        shard.apply(&batch, Durability::Buffered).unwrap();
    }
    flush(&mut store);
    compact(&mut store);
    for k in (0..1000).map(|i| key(100 * i)) {
        assert_eq!(store.get(&k).unwrap(), None);
        let shard = store.options.shard_of(&k);
        match store.shards[shard].get(&k, Some(&snapshots[shard])) {
            Ok(value) => {
                assert!(!lost.contains(&k), "{}", String::from_utf8_lossy(&k));
                assert_eq!(value.map(|value| value.to_vec()).as_ref(), rows.get(&k));
            }
            Err(e) => assert!(matches!(e, Error::Damaged(_)) && lost.contains(&k), "{e}"),
        }
    }
    drop(snapshots);
    compact(&mut store);
    assert_eq!(store.engine.stats().table_bytes.iter().sum::<u64>(), 0, "nobody reads them now");
}
