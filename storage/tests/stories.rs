//! What the layers above count on, one story each.

use crate::fixture::{Append, Chance, Rows, Store, options, put};
use ringdb_storage::{
    Batch, Crash, Direction, Disk, Durability, Engine, Error, FileDisk, JobKind, LogPosition,
    MemoryDisk, OpenError, Options, Survival,
};
use std::ops::ControlFlow;
use std::sync::Arc;

fn log_keys(engine: &Engine, from: Option<LogPosition>) -> Vec<(LogPosition, Vec<Vec<u8>>)> {
    let mut seen = Vec::new();
    let mut note = |position, batch: ringdb_storage::LogBatch<'_>| {
        let keys = batch.ops().filter_map(|op| match op {
            ringdb_storage::Op::Put { key, .. } => Some(key.to_vec()),
            _ => None,
        });
        seen.push((position, keys.collect()));
        ControlFlow::Continue(())
    };
    engine.read_log(from, &mut note).unwrap();
    seen
}

#[test]
fn the_log_is_readable_after_its_rows_were_flushed_and_from_any_position() {
    let disk = MemoryDisk::new(1);
    let roomy = Options { log_retain_bytes: 1 << 20, ..options(2) };
    let mut store = Store::open(&disk, roomy.clone()).unwrap();
    for i in 0..100 {
        let key = format!("k{i:03}").into_bytes();
        store.shard(&key).apply(&put(&key, &[b'v'; 100]), Durability::Os).unwrap();
        store.shard(&key).rotate();
        store.run_jobs().unwrap();
    }
    let all = log_keys(&store.engine, None);
    assert_eq!(all.len(), 100);
    let rest = log_keys(&store.engine, Some(all[69].0));
    assert_eq!(rest, all[70..]);
    drop(store);
    disk.crash(Crash::ProcessKill);
    let mut replayed = 0;
    let (engine, _shards) =
        Engine::open(Arc::new(disk), roomy, Arc::new(Append), &mut |_| replayed += 1).unwrap();
    assert_eq!(log_keys(&engine, None), all, "the next run still has it");
    assert_eq!(replayed, 0, "and replays none of it");
}

#[test]
fn flushed_log_segments_beyond_the_retained_bytes_are_removed() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, options(1)).unwrap();
    for i in 0..400 {
        let key = format!("k{:03}", i % 100).into_bytes();
        store.shards[0].apply(&put(&key, &[b'v'; 100]), Durability::Os).unwrap();
        if store.shards[0].wants_rotation() {
            store.shards[0].rotate();
            store.run_jobs().unwrap();
        }
    }
    let stats = store.engine.stats();
    assert!(stats.log_bytes < 20_000, "{stats:?}");
    assert!(stats.log_bytes >= 4_000, "{stats:?}");
    assert!(disk.used() < 60_000, "{} bytes for 11 kB of rows", disk.used());
}

#[test]
fn replay_hands_over_exactly_the_batches_that_are_not_in_tables() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, options(1)).unwrap();
    store.shards[0].apply(&put(b"k001", b"old"), Durability::Os).unwrap();
    store.shards[0].rotate();
    store.run_jobs().unwrap();
    store.shards[0].apply(&put(b"k002", b"new"), Durability::Os).unwrap();
    drop(store);
    disk.crash(Crash::ProcessKill);
    let mut keys = Vec::new();
    let mut note = |batch: ringdb_storage::LogBatch<'_>| {
        keys.extend(batch.ops().map(|op| format!("{op:?}")));
    };
    Engine::open(Arc::new(disk), options(3), Arc::new(Append), &mut note).unwrap();
    assert_eq!(keys.len(), 1, "{keys:?}");
}

#[test]
fn one_directory_has_one_engine() {
    let disk = MemoryDisk::new(1);
    let store = Store::open(&disk, options(1)).unwrap();
    assert_eq!(Store::open(&disk, options(1)).err(), Some(OpenError::Locked));
    drop(store);
    Store::open(&disk, options(1)).unwrap();

    let directory = tempfile::tempdir().unwrap();
    let file_disk = || Arc::new(FileDisk::new(directory.path()).unwrap());
    let store = Store::open_on(file_disk(), options(1)).unwrap();
    assert_eq!(Store::open_on(file_disk(), options(1)).err(), Some(OpenError::Locked));
    drop(store);
    Store::open_on(file_disk(), options(1)).unwrap();
}

#[test]
fn another_format_is_refused_with_words() {
    let disk = MemoryDisk::new(1);
    drop(Store::open(&disk, options(1)).unwrap());
    disk.create("FORMAT").unwrap().write_at(b"ringdb storage 9\n", 0).unwrap();
    let refusal = Store::open(&disk, options(1)).err().unwrap().to_string();
    assert!(refusal.contains("ringdb storage 9") && refusal.contains("refusing"), "{refusal}");
}

#[test]
fn a_store_of_the_format_before_is_of_this_one_from_then_on() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, options(1)).unwrap();
    store.shards[0].apply(&put(b"k001", b"v"), Durability::Os).unwrap();
    drop(store);
    disk.create("FORMAT").unwrap().write_at(b"ringdb storage 1\n", 0).unwrap();
    assert_eq!(Store::open(&disk, options(1)).unwrap().get(b"k001").unwrap().unwrap(), b"v");
    let mut line = [0; 17];
    disk.open("FORMAT").unwrap().read_at(&mut line, 0).unwrap();
    assert_eq!(&line, b"ringdb storage 2\n");
}

#[test]
fn one_sync_covers_everything_committed_before_it() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, options(1)).unwrap();
    let handle = store.shards[0].sync_handle();
    for i in 0..10 {
        let key = format!("k{i:03}").into_bytes();
        store.shards[0].apply(&put(&key, b"v"), Durability::Buffered).unwrap();
    }
    let committed = store.shards[0].commit().unwrap();
    let before = disk.syncs();
    let durable = std::thread::spawn(move || (handle.sync(), handle)).join().unwrap();
    assert_eq!(durable.0.unwrap(), committed);
    let spent = disk.syncs() - before;
    assert_eq!(spent, 2, "the segment and, for its name, the directory");
    assert_eq!(durable.1.sync().unwrap(), committed);
    assert_eq!(disk.syncs() - before, spent, "nothing new, nothing to sync");
    drop(store);
    disk.crash(Crash::PowerLoss(Survival::None));
    assert_eq!(all(&Store::open(&disk, options(1)).unwrap()).len(), 10);
}

#[test]
fn a_hot_counter_costs_one_entry_and_a_snapshot_still_sees_the_past() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, options(1)).unwrap();
    let shard = &mut store.shards[0];
    let mut batch = Batch::new();
    batch.merge(b"k001", b"x");
    for _ in 0..100 {
        shard.apply(&batch, Durability::Buffered).unwrap();
    }
    let snapshot = shard.snapshot();
    for _ in 0..100 {
        shard.apply(&batch, Durability::Buffered).unwrap();
    }
    assert_eq!(shard.get(b"k001", None).unwrap().unwrap().len(), 200);
    assert_eq!(shard.get(b"k001", Some(&snapshot)).unwrap().unwrap().len(), 100);
    shard.rotate();
    store.run_jobs().unwrap();
    let shard = &mut store.shards[0];
    shard.refresh();
    assert_eq!(shard.unflushed(), 0);
    assert_eq!(shard.get(b"k001", Some(&snapshot)).unwrap().unwrap().len(), 100);
    assert_eq!(shard.get(b"k001", None).unwrap().unwrap().len(), 200);
}

#[test]
fn operands_that_cannot_be_parsed_are_carried_through_flush_and_compaction() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, options(1)).unwrap();
    store.shards[0].apply(&put(b"k001", b"base"), Durability::Os).unwrap();
    for operand in [b"a", b"!", b"b", b"c"] {
        let mut batch = Batch::new();
        batch.merge(b"k001", operand);
        store.shards[0].apply(&batch, Durability::Os).unwrap();
        store.shards[0].rotate();
        store.run_jobs().unwrap();
    }
    store.shards[0].refresh();
    // A reader sees the newest value that could be folded; nothing was dropped below or above it.
    let value = store.get(b"k001").unwrap().unwrap();
    assert!(value == b"base" || value == b"basea", "{value:?}");
    let stats = store.engine.stats();
    assert!(
        stats.tables[0] < 3 && stats.tables[1..].iter().any(|n| *n > 0),
        "a compaction ran: {stats:?}"
    );
}

#[test]
fn a_dropped_or_failed_job_is_handed_out_again() {
    let disk = MemoryDisk::new(1);
    let options = Options { log_spares: 0, ..options(1) };
    let mut store = Store::open(&disk, options).unwrap();
    store.shards[0].apply(&put(b"k001", b"v"), Durability::Os).unwrap();
    store.shards[0].rotate();
    let job = store.engine.next_job().unwrap();
    assert_eq!(job.kind(), JobKind::Flush);
    assert!(store.engine.next_job().is_none(), "nobody else gets it meanwhile");
    drop(job);
    disk.set_capacity(Some(disk.used()));
    assert_eq!(store.engine.next_job().unwrap().run(), Err(Error::NoSpace));
    disk.set_capacity(None);
    store.engine.next_job().unwrap().run().unwrap();
    assert!(store.engine.next_job().is_none());
    assert_eq!(store.get(b"k001").unwrap().as_deref(), Some(&b"v"[..]));
}

#[test]
fn many_keys_are_read_in_one_call() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, options(1)).unwrap();
    store.shards[0].apply(&put(b"k001", b"one"), Durability::Os).unwrap();
    let mut seen = Vec::new();
    let note = |i, value: Option<&[u8]>| seen.push((i, value.map(<[u8]>::to_vec)));
    store.shards[0].get_many(&[&b"k001"[..], b"k002"], note).unwrap();
    assert_eq!(seen, [(0, Some(b"one".to_vec())), (1, None)]);
    assert_eq!(store.shards[0].get_with(b"k001", |v| v.map(<[u8]>::len)).unwrap(), Some(3));
}

fn all(store: &Store) -> Rows {
    let rows = store.shards[0].scan(b"", None, Direction::Forward, None).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn a_memtable_exceeds_its_size_by_no_more_than_one_batch() {
    for is_read in [false, true] {
        let size = 32 << 10;
        let options = Options { memtable_bytes: size, log_segment_bytes: 1 << 20, ..options(1) };
        let mut store = Store::open(&MemoryDisk::new(1), options).unwrap();
        let reader = is_read.then(|| store.shards[0].reader());
        let (mut chance, mut deletions, mut rotations) = (Chance(7), 0, 0);
        for _ in 0..2000 {
            let (mut batch, mut most) = (Batch::new(), 0);
            for _ in 0..=chance.below(5) {
                let key = chance.key(300);
                let longest = [10, 200, 6000][chance.below(3) as usize];
                let value = vec![b'v'; chance.below(longest) as usize];
                // The row, rounded to an eighth, and nodes that are parted for it.
                most += value.len() * 9 / 8 + (2 << 10);
                match chance.below(12) {
                    0 => {
                        deletions += 1;
                        batch.delete_range(&key, &chance.key(300));
                        // All that there are, put together anew, and cut at two more keys.
                        most += (2 * deletions + 2) * (128 + 8 * deletions);
                    }
                    1 => batch.delete(&key),
                    2 => {
                        batch.merge(&key, &value);
                        // What it is folded into, a value or a few operands.
                        most += 16 << 10;
                    }
                    _ => batch.put(&key, &value),
                };
            }
            if store.shards[0].wants_rotation() {
                store.shards[0].rotate();
                store.run_jobs().unwrap();
                // Some of this batch count already.
                (deletions, rotations) = (6, rotations + 1);
            }
            store.shards[0].apply(&batch, Durability::Buffered).unwrap();
            let holds = store.shards[0].memtable_bytes();
            assert!(holds < size + most, "{holds} bytes after a batch of at most {most}");
        }
        assert!(rotations > 50, "{rotations} memtables were filled");
        drop(reader);
    }
}
