//! Bit rot: detected or harmless, never wrong data, never a panic.

use crate::fixture::{Append, Chance, Rows, Store, options, put};
use ringdb_storage::{
    Batch, Crash, Direction, Disk, Durability, Error, FileDisk, MemoryDisk, OpenError, Options,
    PlantedBug,
};
use std::sync::Arc;

/// A small store with tables, range deletions, merges, and acknowledged rows in the log alone.
pub(crate) fn build(seed: u64, large_value_bytes: usize) -> (MemoryDisk, Rows) {
    let disk = MemoryDisk::new(seed);
    let options = Options { large_value_bytes, ..options(1) };
    let mut store = Store::open(&disk, options).unwrap();
    let mut chance = Chance(seed);
    let shard = &mut store.shards[0];
    for round in 0..3 {
        let mut batch = Batch::new();
        for i in 0..12 {
            let key = chance.key(30);
            match chance.below(5) {
                0 => batch.merge(&key, b"M"),
                1 => batch.delete(&key),
                _ => batch.put(&key, format!("value {round} {i}").as_bytes()),
            }
        }
        batch.delete_range(b"k010", b"k012");
        shard.apply(&batch, Durability::Sync).unwrap();
        if round < 2 {
            shard.rotate();
        }
    }
    while let Some(job) = store.engine.next_job() {
        job.run().unwrap();
    }
    let shard = &mut store.shards[0];
    for i in 0..4 {
        shard.apply(&put(format!("k{:03}", 50 + i).as_bytes(), b"late"), Durability::Sync).unwrap();
    }
    // A turn of the event loop later the log says that all of it is durable.
    shard.commit().unwrap();
    let rows = shard.scan(b"", None, Direction::Forward, None).unwrap();
    let rows = rows.map(Result::unwrap).collect();
    drop(store);
    disk.crash(Crash::ProcessKill);
    (disk, rows)
}

/// What reading everything gives: rows, or that damage was noticed.
fn read(disk: &MemoryDisk, options: Options) -> Result<Rows, String> {
    let store = Store::open(disk, options).map_err(|e| e.to_string())?;
    if !store.engine.damage().is_empty() {
        return Err("damage reported".to_owned());
    }
    let scan = |direction| -> Result<Vec<_>, String> {
        let rows = store.shards[0].scan(b"", None, direction, None).map_err(|e| e.to_string())?;
        rows.collect::<Result<Vec<_>, Error>>().map_err(|e| e.to_string())
    };
    let forward = scan(Direction::Forward)?;
    let mut backward = scan(Direction::Backward)?;
    backward.reverse();
    assert_eq!(forward, backward);
    for i in 0..60 {
        let key = format!("k{i:03}").into_bytes();
        let value = store.shards[0].get(&key, None).map_err(|e| e.to_string())?;
        let row = forward.iter().find(|(k, _)| *k == key);
        assert_eq!(value.as_deref(), row.map(|(_, v)| v.as_slice()));
    }
    Ok(forward)
}

#[test]
fn every_flipped_byte_is_noticed_or_harmless() {
    let (disk, rows) = build(3, usize::MAX);
    every_flipped_byte(&disk, &rows, &[]);
}

#[test]
fn every_flipped_byte_of_large_values_is_noticed_or_harmless() {
    let (disk, rows) = build(3, 8);
    assert!(disk.list().unwrap().iter().any(|name| name.ends_with(".blob")));
    every_flipped_byte(&disk, &rows, &[]);
}

#[test]
fn a_blob_whose_checksum_nobody_looks_at_is_caught() {
    let (disk, rows) = build(3, 8);
    let bug = [PlantedBug::BlobUnchecked];
    let found = std::panic::catch_unwind(|| every_flipped_byte(&disk, &rows, &bug));
    assert!(found.is_err());
}

fn every_flipped_byte(disk: &MemoryDisk, rows: &Rows, bugs: &[PlantedBug]) {
    let (mut flips, mut noticed) = (0, 0);
    for name in disk.list().unwrap() {
        let len = disk.open(&name).unwrap().len().unwrap();
        for offset in 0..len {
            for tolerate_damage in [false, true] {
                let fork = disk.fork(1);
                assert!(fork.rot(&name, offset, 1 << (offset % 8)));
                flips += 1;
                let planted_bugs = bugs.to_vec();
                let options = Options { tolerate_damage, planted_bugs, ..options(1) };
                match read(&fork, options) {
                    Ok(found) => assert_eq!(found, *rows, "{name} at {offset}"),
                    Err(_) => noticed += 1,
                }
            }
        }
    }
    // The others are in files made ready for the log, and behind the end of what is written there.
    assert!(flips > 4_000 && noticed > 3_000, "{noticed} of {flips} noticed");
}

#[test]
fn a_hole_in_acknowledged_log_refuses_to_open_until_tolerated_and_is_remembered() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, options(1)).unwrap();
    for i in 0..5 {
        let key = format!("k{i:03}").into_bytes();
        store.shards[0].apply(&put(&key, b"value"), Durability::Sync).unwrap();
    }
    store.shards[0].commit().unwrap();
    drop(store);
    disk.crash(Crash::ProcessKill);
    let name = disk.list().unwrap().into_iter().find(|n| n.ends_with(".log")).unwrap();
    // Behind the header: in the first or second row.
    assert!(disk.rot(&name, 160, 1));
    let Err(OpenError::Damaged { damage }) = Store::open(&disk, options(1)) else {
        panic!("the hole was not noticed");
    };
    assert_eq!(damage.len(), 1);
    let tolerant = Options { tolerate_damage: true, ..options(1) };
    for _ in 0..2 {
        disk.crash(Crash::ProcessKill);
        let mut store = Store::open(&disk, tolerant.clone()).unwrap();
        assert_eq!(store.engine.damage(), damage);
        assert_eq!(store.get(b"k004").unwrap().as_deref(), Some(&b"value"[..]));
        assert_eq!(all(&store).len(), 4, "one row is lost, the others are served");
    }
    disk.crash(Crash::ProcessKill);
    let store = Store::open(&disk, tolerant).unwrap();
    store.engine.repaired(&damage[0]).unwrap();
    assert!(store.engine.damage().is_empty());
    drop(store);
    disk.crash(Crash::PowerLoss(ringdb_storage::Survival::None));
    assert!(Store::open(&disk, options(1)).unwrap().engine.damage().is_empty());
}

#[test]
fn reading_damage_as_a_torn_tail_loses_rows_and_shows() {
    let disk = MemoryDisk::new(1);
    let bug = vec![PlantedBug::DamageReadAsTornTail];
    let planted = Options { planted_bugs: bug, ..options(1) };
    let mut store = Store::open(&disk, planted.clone()).unwrap();
    for i in 0..5 {
        let key = format!("k{i:03}").into_bytes();
        store.shards[0].apply(&put(&key, b"value"), Durability::Sync).unwrap();
    }
    drop(store);
    disk.crash(Crash::ProcessKill);
    let name = disk.list().unwrap().into_iter().find(|n| n.ends_with(".log")).unwrap();
    assert!(disk.rot(&name, 160, 1));
    let store = Store::open(&disk, planted).unwrap();
    assert!(all(&store).len() < 4 && store.engine.damage().is_empty());
}

#[test]
fn a_log_cut_at_any_byte_yields_a_prefix() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, options(1)).unwrap();
    for i in 0..6 {
        let key = format!("k{i:03}").into_bytes();
        store.shards[0].apply(&put(&key, &[b'v'; 11]), Durability::Os).unwrap();
    }
    drop(store);
    disk.crash(Crash::ProcessKill);
    let name = disk.list().unwrap().into_iter().find(|n| n.ends_with(".log")).unwrap();
    let len = disk.open(&name).unwrap().len().unwrap();
    let mut counts = Vec::new();
    for cut in 0..=len {
        let fork = disk.fork(1);
        fork.open(&name).unwrap().truncate(cut).unwrap();
        let store = Store::open(&fork, options(1)).unwrap();
        let rows = all(&store);
        for (i, (key, value)) in rows.iter().enumerate() {
            assert_eq!((key.as_slice(), value.len()), (format!("k{i:03}").as_bytes(), 11));
        }
        counts.push(rows.len());
    }
    assert!(counts.is_sorted() && counts.last() == Some(&6), "{counts:?}");
}

fn all(store: &Store) -> Rows {
    let rows = store.shards[0].scan(b"", None, Direction::Forward, None).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn rot_at_the_end_of_an_earlier_run_s_log_is_damage_and_no_torn_tail() {
    let disk = MemoryDisk::new(3);
    let mut store = Store::open(&disk, options(1)).unwrap();
    store.shards[0].apply(&put(b"k001", b"early"), Durability::Os).unwrap();
    let names = disk.list().unwrap();
    let log = names.iter().find(|name| name.ends_with(".log")).unwrap().clone();
    drop(store);
    disk.crash(Crash::ProcessKill);
    let mut store = Store::open(&disk, options(1)).unwrap();
    store.shards[0].apply(&put(b"k002", b"late"), Durability::Os).unwrap();
    drop(store);
    disk.crash(Crash::ProcessKill);
    let len = disk.open(&log).unwrap().len().unwrap();
    // In the payload of the last frame, before what pads it.
    assert!(disk.rot(&log, len - 12, 1));
    let opened = Store::open(&disk, options(1));
    assert!(matches!(opened, Err(OpenError::Damaged { .. })));
}

/// Rows in the log alone of a store that ended well, and each byte of that log flipped for itself.
fn every_flipped_byte_of_a_closed_log(durability: Durability) {
    let disk = MemoryDisk::new(1);
    let log_spares = 0;
    let options = Options { log_spares, log_segment_bytes: 1 << 20, ..options(1) };
    let shared = Arc::new(disk.clone());
    let store = ringdb_storage::Store::open(shared, options.clone(), Arc::new(Append)).unwrap();
    for i in 0..40 {
        store.put(format!("k{i:03}").as_bytes(), b"value", durability).unwrap();
    }
    store.close();
    drop(store);
    disk.crash(Crash::ProcessKill);
    let name = disk.list().unwrap().into_iter().find(|n| n.ends_with(".log")).unwrap();
    let mut noticed = 0;
    for offset in 0..disk.open(&name).unwrap().len().unwrap() {
        let fork = disk.fork(1);
        assert!(fork.rot(&name, offset, 1 << (offset % 8)));
        match read(&fork, options.clone()) {
            Ok(found) => assert_eq!(found.len(), 40, "at {offset}"),
            Err(_) => noticed += 1,
        }
    }
    assert!(noticed > 1_000, "{noticed} noticed");
}

#[test]
fn every_flipped_byte_in_the_log_of_a_store_that_was_closed_is_noticed_or_harmless() {
    every_flipped_byte_of_a_closed_log(Durability::Sync);
}

#[test]
fn the_same_where_nobody_ever_synced() {
    every_flipped_byte_of_a_closed_log(Durability::Os);
}

#[test]
fn the_same_where_the_memtable_was_made_immutable_just_before() {
    for durability in [Durability::Os, Durability::Sync] {
        let disk = MemoryDisk::new(1);
        let options = Options { log_segment_bytes: 1 << 20, ..options(1) };
        let mut store = Store::open(&disk, options.clone()).unwrap();
        for i in 0..40 {
            let key = format!("k{i:03}").into_bytes();
            store.shards[0].apply(&put(&key, b"value"), durability).unwrap();
        }
        store.shards[0].rotate();
        let name = disk.list().unwrap().into_iter().find(|n| n.ends_with(".log")).unwrap();
        store.shards[0].settle().unwrap();
        let files = disk.list().unwrap().len();
        store.shards[0].settle().unwrap();
        assert_eq!(disk.list().unwrap().len(), files, "it is marked once");
        drop(store);
        disk.crash(Crash::ProcessKill);
        let mut noticed = 0;
        for offset in 0..disk.open(&name).unwrap().len().unwrap() {
            let fork = disk.fork(1);
            assert!(fork.rot(&name, offset, 1 << (offset % 8)));
            match read(&fork, options.clone()) {
                Ok(found) => assert_eq!(found.len(), 40, "{durability:?}, at {offset}"),
                Err(_) => noticed += 1,
            }
        }
        assert!(noticed > 1_000, "{noticed} noticed");
    }
}

#[test]
fn a_table_that_is_cut_short_while_it_is_read_is_damage_and_ends_no_process() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(FileDisk::new(directory.path()).unwrap());
    let options = Options { block_cache_bytes: 0, memtable_bytes: 1 << 20, ..options(1) };
    let mut store = Store::open_on(disk.clone(), options.clone()).unwrap();
    let key = |i: u32| format!("k{i:03}").into_bytes();
    for i in 0..200 {
        store.shards[0].apply(&put(&key(i), &[i as u8; 300]), Durability::Os).unwrap();
    }
    store.shards[0].rotate();
    while let Some(job) = store.engine.next_job() {
        job.run().unwrap();
    }
    drop(store);
    let mut store = Store::open_on(disk.clone(), options).unwrap();
    for i in 0..200 {
        assert_eq!(store.get(&key(i)).unwrap().as_deref(), Some(&[i as u8; 300][..]), "row {i}");
    }
    for name in disk.list().unwrap().iter().filter(|name| name.ends_with(".sst")) {
        disk.open(name).unwrap().truncate(0).unwrap();
    }
    for i in 0..200 {
        let read = store.get(&key(i));
        assert!(matches!(read, Err(Error::Damaged(_))), "row {i}: {read:?}");
    }
    for direction in [Direction::Forward, Direction::Backward] {
        let mut rows = store.shards[0].scan(b"k050", None, direction, None).unwrap_or_else(|e| {
            assert!(matches!(e, Error::Damaged(_)), "{e}");
            store.shards[0].scan(b"z", None, direction, None).unwrap()
        });
        assert!(!matches!(rows.next(), Some(Ok(_))));
    }
}

#[test]
fn a_scan_meets_no_damage_outside_of_its_range_in_either_direction() {
    let disk = MemoryDisk::new(7);
    let plain = || Options { memtable_bytes: 64 << 10, block_cache_bytes: 0, ..options(1) };
    let mut store = Store::open(&disk, plain()).unwrap();
    for i in 0..100u32 {
        let value: Vec<u8> = (0..80).map(|j| (j * j * (i + 3) % 251) as u8).collect();
        let row = put(format!("k{i:03}").as_bytes(), &value);
        store.shards[0].apply(&row, Durability::Sync).unwrap();
    }
    store.shards[0].rotate();
    store.run_jobs().unwrap();
    drop(store);
    let table = disk.list().unwrap().into_iter().rfind(|name| name.ends_with(".sst")).unwrap();
    assert!(disk.rot(&table, 30, 1));
    let store = Store::open(&disk, plain()).unwrap();
    let reads = |start: &[u8], direction| {
        let rows = store.shards[0].scan(start, Some(b"k020"), direction, None);
        rows.is_ok_and(|rows| rows.into_iter().all(|row| row.is_ok()))
    };
    let mut sound = 0;
    for i in 0..12 {
        let start = format!("k{i:03}").into_bytes();
        let forward = reads(&start, Direction::Forward);
        assert_eq!(reads(&start, Direction::Backward), forward, "from k{i:03}");
        sound += usize::from(forward);
    }
    assert!((1..12).contains(&sound), "{sound} of 12 ranges are sound");
}
