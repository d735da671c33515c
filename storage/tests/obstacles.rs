//! What stands in the way of background work: it goes on around, and what can be freed is freed.

use crate::faulty::Faulty;
use crate::fixture::{Append, Chance, Store, external, options, put};
use ringdb_storage::{
    Crash, Disk, Durability, Engine, Filter, FilterRow, MemoryDisk, Options, Shard, Verdict,
};
use std::sync::Arc;

/// Runs what is due, at most `jobs` of it; how many failed.
fn work(store: &mut Store, jobs: usize) -> usize {
    let mut failed = 0;
    for _ in 0..jobs {
        let Some(job) = store.engine.next_job() else { break };
        failed += usize::from(job.run().is_err());
    }
    store.shards.iter_mut().for_each(Shard::refresh);
    failed
}

fn flush(store: &mut Store) {
    store.shards[0].commit().unwrap();
    store.shards[0].rotate();
    while let Some(job) = store.engine.next_flush() {
        job.run().unwrap();
    }
}

fn incompressible(seed: u64, bytes: usize) -> Vec<u8> {
    let mut chance = Chance(seed);
    (0..bytes).map(|_| chance.next() as u8).collect()
}

struct KeepAll;

impl Filter for KeepAll {
    fn decide(&self, _: &FilterRow<'_>, _: &mut Vec<u8>) -> Verdict {
        Verdict::Keep
    }
}

#[test]
fn a_large_value_that_cannot_be_read_stops_no_merging_also_where_a_filter_asks_for_it() {
    let memory = MemoryDisk::new(1);
    let disk = Faulty::new(&memory);
    let large = Options { large_value_bytes: 64, blob_file_bytes: 16 << 10, ..options(1) };
    let mut store = Store::open_on(Arc::new(disk.clone()), large).unwrap();
    store.engine.set_filter(Some(Arc::new(KeepAll)));
    for i in 0..30 {
        for (key, value) in [(format!("k{i:03}"), incompressible(i, 100)), ("k999".into(), vec![1])]
        {
            store.shards[0].apply(&put(key.as_bytes(), &value), Durability::Os).unwrap();
        }
        flush(&mut store);
        if i == 0 {
            let names = memory.list().unwrap();
            let blob = names.iter().find(|name| name.ends_with(".blob")).unwrap();
            disk.scratch(blob, 30..31);
        }
        assert_eq!(work(&mut store, 20), 0, "after {i} flushes");
    }
    assert!(store.get(b"k000").is_err(), "it was not read");
    assert_eq!(store.get(b"k001").unwrap(), Some(incompressible(1, 100)));
}

#[test]
fn a_file_that_cannot_be_removed_keeps_nothing_else_from_being_done() {
    let memory = MemoryDisk::new(1);
    let disk = Faulty::new(&memory);
    let mut store = Store::open_on(Arc::new(disk.clone()), options(1)).unwrap();
    let mut chance = Chance(1);
    for round in 0..60 {
        for _ in 0..20 {
            let key = chance.key(100);
            store.shards[0].apply(&put(&key, &[7; 60]), Durability::Os).unwrap();
        }
        flush(&mut store);
        if round == 10 {
            let names = memory.list().unwrap();
            disk.keep(names.iter().find(|name| name.ends_with(".sst")).unwrap());
        }
        work(&mut store, 20);
    }
    let tables = store.engine.tables().len();
    let on_disk = memory.list().unwrap().iter().filter(|name| name.ends_with(".sst")).count();
    assert!(store.engine.stats().tables[0] < 10, "{:?}", store.engine.stats().tables);
    assert!(on_disk <= tables + 4, "{on_disk} files of {tables} tables");
}

#[test]
fn on_a_full_disk_what_needs_no_edit_is_removed_first() {
    const LEFT: &str = "0000000077.sst";
    let memory = MemoryDisk::new(1);
    let plain = || Options { log_spares: 0, log_retain_bytes: 0, ..options(1) };
    let mut store = Store::open(&memory, plain()).unwrap();
    let mut chance = Chance(1);
    for _ in 0..40 {
        let key = chance.key(100);
        store.shards[0].apply(&put(&key, &[7; 60]), Durability::Os).unwrap();
    }
    store.shards[0].commit().unwrap();
    drop(store);
    memory.crash(Crash::ProcessKill);
    // As a merging leaves it that did not come to its end.
    memory.create(LEFT).unwrap().write_at(&[1; 100_000], 0).unwrap();
    let mut store = Store::open(&memory, plain()).unwrap();
    // The log of the run before is in a table then, and its end has to be forgotten, which takes an edit.
    flush(&mut store);
    memory.set_capacity(Some(memory.used()));
    work(&mut store, 5);
    assert!(!memory.list().unwrap().contains(&LEFT.to_owned()));
    work(&mut store, 5);
    store.shards[0].apply(&put(b"k000", b"v"), Durability::Os).unwrap();
}

#[test]
fn what_was_ingested_on_both_sides_of_a_shard_has_no_say_in_it() {
    let disk = MemoryDisk::new(1);
    let roomy = Options {
        splits: vec![b"k033".to_vec(), b"k066".to_vec()],
        level0_tables: 3,
        memtable_bytes: 1 << 20,
        block_cache_bytes: 0,
        table_bytes: 64 << 10,
        level1_bytes: 1 << 20,
        ..options(1)
    };
    let shared = Arc::new(disk.clone());
    let (engine, mut shards) = Engine::open(shared, roomy, Arc::new(Append), &mut |_| {}).unwrap();
    let flush = |shards: &mut Vec<Shard>, i: usize| {
        shards[i].commit().unwrap();
        shards[i].rotate();
        while let Some(job) = engine.next_flush() {
            job.run().unwrap();
        }
        shards.iter_mut().for_each(Shard::refresh);
    };
    let write = |shards: &mut Vec<Shard>, shard: usize, key: &str, value: &[u8]| {
        shards[shard].apply(&put(key.as_bytes(), value), Durability::Buffered).unwrap();
    };
    // The third shard has counted far more changes than the second.
    (0..1000).for_each(|_| write(&mut shards, 2, "k090", b"v"));
    flush(&mut shards, 2);
    let keys: Vec<String> = (34..60).map(|i| format!("k{i:03}")).collect();
    for (i, key) in keys.iter().enumerate() {
        write(&mut shards, 1, key, &incompressible(i as u64, 200));
    }
    let before = disk.list().unwrap();
    flush(&mut shards, 1);
    let is_new = |name: &String| name.ends_with(".sst") && !before.contains(name);
    let rots = disk.list().unwrap().into_iter().find(is_new).unwrap();
    let rows = [b"k010", b"k090"].map(|key| (key.to_vec(), b"new".to_vec()));
    let (files, names) = external(rows.iter().map(|(key, value)| (key, value)));
    let middle = shards.remove(1);
    engine.ingest(&mut shards, &files, &names).unwrap();
    shards.insert(1, middle);
    assert!(disk.rot(&rots, 700, 1));
    let unreadable = keys.iter().filter(|key| shards[1].get(key.as_bytes(), None).is_err()).count();
    assert!(unreadable > 0);
    for round in 0..6 {
        let value = format!("round {round}").into_bytes();
        keys.iter().for_each(|key| write(&mut shards, 1, key, &value));
        flush(&mut shards, 1);
        for _ in 0..200 {
            let Some(job) = engine.next_job() else { break };
            let _ = job.run();
        }
        shards.iter_mut().for_each(Shard::refresh);
        for key in &keys {
            let found = shards[1].get(key.as_bytes(), None).map(|v| v.map(|v| v.to_vec()));
            assert_eq!(found, Ok(Some(value.clone())), "{key} in round {round}");
        }
    }
}
