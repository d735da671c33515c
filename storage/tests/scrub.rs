//! Scrub: it comes to its end whatever the disk refuses and whatever is written meanwhile.

use crate::faulty::Faulty;
use crate::fixture::{Store, options, put};
use ringdb_storage::{Disk, Durability, MemoryDisk, Options, Place};
use std::sync::Arc;

fn key(i: u32) -> Vec<u8> {
    format!("k{i:03}").into_bytes()
}

/// Sixty rows in one table of several blocks, every tenth of them large enough for a blob file.
fn filled(disk: Arc<dyn Disk>) -> Store {
    let options = Options { large_value_bytes: 200, ..options(1) };
    let mut store = Store::open_on(disk, options).unwrap();
    for i in 0..60 {
        let len = if i % 10 == 0 { 300 } else { 80 };
        let value: Vec<u8> = (0..len).map(|j: u32| (j * j * (i + 3) % 251) as u8).collect();
        store.shards[0].apply(&put(&key(i), &value), Durability::Os).unwrap();
    }
    store.shards[0].rotate();
    store.run_jobs().unwrap();
    store.shards[0].refresh();
    store
}

fn file(disk: &MemoryDisk, ending: &str) -> String {
    disk.list().unwrap().into_iter().rfind(|name| name.ends_with(ending)).unwrap()
}

/// Takes steps until a round is over; how many that were.
fn round(store: &Store) -> usize {
    let before = store.engine.scrub().rounds;
    for steps in 1..1_000 {
        store.engine.scrub_step(500).unwrap().run().unwrap();
        if store.engine.scrub().rounds > before {
            return steps;
        }
    }
    panic!("the round does not end: {:?}", store.engine.scrub());
}

#[test]
fn a_block_that_the_disk_refuses_twice_is_a_bad_one_and_what_follows_is_read() {
    // Once is no loss: the disk may have been busy.
    let memory = MemoryDisk::new(1);
    let disk = Faulty::new(&memory);
    let store = filled(Arc::new(disk.clone()));
    let table = file(&memory, ".sst");
    disk.scratch_lightly(&table, 700..701, 1);
    round(&store);
    assert_eq!((store.engine.scrub().bad_blocks, store.engine.damage().len()), (0, 0));
    assert_eq!(disk.met(), 1);

    // For good it is one bad block, with its keys; a bad one further on is found as well.
    let memory = MemoryDisk::new(1);
    let disk = Faulty::new(&memory);
    let store = filled(Arc::new(disk.clone()));
    disk.scratch(&table, 700..701);
    assert!(memory.rot(&table, 1_500, 4));
    round(&store);
    let damage = store.engine.damage();
    let offsets: Vec<_> = damage.iter().map(|d| d.place.clone()).collect();
    assert_eq!((damage.len(), store.engine.scrub().bad_blocks), (2, 2), "{damage:?}");
    for (damage, at) in damage.iter().zip([700, 1_500]) {
        let Place::Table { offset: Some(offset), .. } = damage.place else { panic!("{offsets:?}") };
        assert!(offset <= at && at < offset + 1_000, "{offsets:?}");
        let named = (0..60).filter(|i| key(*i) >= damage.lower);
        let named = named.filter(|i| damage.upper.as_ref().is_none_or(|upper| key(*i) < *upper));
        assert!((1..20).contains(&named.count()), "{damage:?}");
        assert!(damage.keys().starts_with("keys from \"k0"), "{}", damage.keys());
    }
}

#[test]
fn a_large_value_or_the_end_of_a_table_that_the_disk_refuses_is_a_bad_one_too() {
    for (ending, from_end) in [(".blob", 250), (".sst", 20)] {
        let memory = MemoryDisk::new(1);
        let disk = Faulty::new(&memory);
        let store = filled(Arc::new(disk.clone()));
        let name = file(&memory, ending);
        let len = memory.open(&name).unwrap().len().unwrap();
        disk.scratch(&name, len - from_end..len - from_end + 1);
        round(&store);
        let damage = store.engine.damage();
        assert_eq!((damage.len(), store.engine.scrub().bad_blocks), (1, 1), "{damage:?}");
        let large = matches!(damage[0].place, Place::Blob { .. });
        assert_eq!(large, ending == ".blob", "{damage:?}");
        assert!(!large || damage[0].keys() == "key \"k050\"", "{damage:?}");
    }
}

#[test]
fn a_round_ends_however_much_is_written_meanwhile() {
    let memory = MemoryDisk::new(1);
    let mut store = filled(Arc::new(memory.clone()));
    for turn in 0.. {
        assert!(turn < 100, "the round does not end: {:?}", store.engine.scrub());
        // More than a step reads.
        for i in 0..30 {
            let row = put(&key(100 + i), format!("{turn} {i}").repeat(20).as_bytes());
            store.shards[0].apply(&row, Durability::Os).unwrap();
        }
        store.shards[0].rotate();
        while let Some(job) = store.engine.next_flush() {
            job.run().unwrap();
        }
        store.shards[0].refresh();
        store.engine.scrub_step(500).unwrap().run().unwrap();
        if store.engine.scrub().rounds > 0 {
            break;
        }
    }
    // What came meanwhile is of the next round.
    let of_first = store.engine.scrub().bytes_total;
    store.engine.scrub_step(500).unwrap().run().unwrap();
    assert!(store.engine.scrub().bytes_total > of_first);
}

#[test]
fn a_blob_file_that_is_not_there_is_said_once() {
    let memory = MemoryDisk::new(1);
    drop(filled(Arc::new(memory.clone())));
    memory.crash(ringdb_storage::Crash::ProcessKill);
    memory.remove(&file(&memory, ".blob")).unwrap();
    let tolerant = Options { tolerate_damage: true, ..options(1) };
    let store = Store::open(&memory, tolerant).unwrap();
    round(&store);
    let damage = store.engine.damage();
    assert!(matches!(damage[..], [ref d] if matches!(d.place, Place::Blob { offset: None, .. })));
    assert!(damage[0].lower <= key(0) && damage[0].upper.as_ref().unwrap() > &key(50));
}
