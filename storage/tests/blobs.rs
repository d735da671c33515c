//! Large values beside the tables: read back, folded onto, collected, repaired.

use crate::faulty::Faulty;
use crate::fixture::{Chance, Store, options, put};
use ringdb_storage::{
    Batch, Crash, Disk, Durability, Error, JobKind, MemoryDisk, Options, Place, Survival,
};
use std::sync::Arc;

fn large() -> Options {
    Options { large_value_bytes: 64, blob_file_bytes: 2 << 10, ..options(1) }
}

fn value(i: u64) -> Vec<u8> {
    let mut chance = Chance(i);
    (0..100).map(|_| chance.next() as u8).collect()
}

fn blobs(disk: &MemoryDisk) -> Vec<String> {
    disk.list().unwrap().into_iter().filter(|name| name.ends_with(".blob")).collect()
}

fn flush(store: &mut Store) {
    store.shards[0].rotate();
    store.run_jobs().unwrap();
    store.shards[0].refresh();
}

#[test]
fn large_values_stand_beside_the_tables_and_small_ones_in_them() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, large()).unwrap();
    for i in 0..30 {
        let key = format!("k{i:03}").into_bytes();
        store.shards[0].apply(&put(&key, &value(i)), Durability::Os).unwrap();
        store.shards[0].apply(&put(&key, &value(i)), Durability::Os).unwrap();
    }
    store.shards[0].apply(&put(b"k900", b"small"), Durability::Os).unwrap();
    flush(&mut store);
    let stats = store.engine.stats();
    assert_eq!(stats.blob_files, 2, "closed at their size: {stats:?}");
    assert!(stats.blob_live_bytes > 30 * 100 && stats.table_bytes[0] < 2_500, "{stats:?}");
    for i in 0..30 {
        let key = format!("k{i:03}").into_bytes();
        assert_eq!(store.get(&key).unwrap(), Some(value(i)));
    }
    // Whatever the next run thinks large, it reads what is there.
    drop(store);
    disk.crash(Crash::PowerLoss(Survival::None));
    let mut store = Store::open(&disk, options(1)).unwrap();
    assert_eq!(store.get(b"k007").unwrap(), Some(value(7)));
    assert_eq!(store.get(b"k900").unwrap().as_deref(), Some(&b"small"[..]));
}

#[test]
fn operands_are_folded_onto_a_large_value_and_the_result_moves() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, large()).unwrap();
    store.shards[0].apply(&put(b"k001", &value(1)), Durability::Os).unwrap();
    flush(&mut store);
    let snapshot = store.shards[0].snapshot();
    let mut want = value(1);
    for i in 0..4 {
        let mut batch = Batch::new();
        batch.merge(b"k001", format!("+{i}").as_bytes());
        want.extend_from_slice(format!("+{i}").as_bytes());
        store.shards[0].apply(&batch, Durability::Os).unwrap();
        flush(&mut store);
        assert_eq!(store.get(b"k001").unwrap().as_ref(), Some(&want));
        let past = store.shards[0].get(b"k001", Some(&snapshot)).unwrap();
        assert_eq!(past.unwrap().into_vec(), value(1));
    }
    let stats = store.engine.stats();
    assert!(stats.tables[0] < 3 && stats.blob_files >= 1, "a compaction folded them: {stats:?}");
}

#[test]
fn a_file_that_is_mostly_dead_is_written_anew_and_a_dead_one_goes() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, Options { level0_tables: 2, ..large() }).unwrap();
    for round in 0..12 {
        for i in 0..15 {
            // One in three is written again and again.
            if round == 0 || i % 3 != 0 {
                let key = format!("k{i:03}").into_bytes();
                let value = value(100 * round + i);
                store.shards[0].apply(&put(&key, &value), Durability::Os).unwrap();
            }
        }
        store.shards[0].rotate();
        let mut relocated = false;
        while let Some(job) = store.engine.next_job() {
            relocated |= job.kind() == JobKind::Relocate;
            job.run().unwrap();
        }
        store.shards[0].refresh();
        let stats = store.engine.stats();
        assert_eq!(stats.blob_files, blobs(&disk).len(), "what is not needed is not there");
        // Up to the share that is tolerated, and the values of a level that was not merged yet.
        assert!(stats.blob_bytes <= 15 * 113 * 5, "{relocated} {stats:?}");
        for i in 0..15 {
            let newest = if i % 3 == 0 { i } else { 100 * round + i };
            let key = format!("k{i:03}").into_bytes();
            assert_eq!(store.get(&key).unwrap(), Some(value(newest)), "round {round}");
        }
    }
    let mut batch = Batch::new();
    batch.delete_range(b"k", b"l");
    store.shards[0].apply(&batch, Durability::Os).unwrap();
    flush(&mut store);
    store.shards[0].apply(&put(b"k000", b"to merge with"), Durability::Os).unwrap();
    flush(&mut store);
    assert_eq!(store.engine.stats().blob_files, 0, "{:?}", store.engine.stats());
    assert!(blobs(&disk).is_empty());
}

#[test]
fn files_of_few_large_values_each_are_put_together() {
    let disk = MemoryDisk::new(1);
    let options = Options { level0_tables: 2, blob_file_bytes: 16 << 10, ..large() };
    let mut store = Store::open(&disk, options).unwrap();
    let mut most = 0;
    for round in 0..400u64 {
        let shard = &mut store.shards[0];
        for i in 0..40 {
            let key = format!("s{:03}", (round * 40 + i) % 100).into_bytes();
            shard.apply(&put(&key, b"small"), Durability::Os).unwrap();
        }
        shard
            .apply(&put(format!("k{round:03}").as_bytes(), &value(round)), Durability::Os)
            .unwrap();
        flush(&mut store);
        let stats = store.engine.stats();
        assert_eq!(stats.blob_files, blobs(&disk).len(), "what is not needed is not there");
        most = most.max(stats.blob_files);
    }
    // Those that no merging has met, seven that are too few to be worth it, what each part of a merging
    // made, and those that have grown.
    assert!(most <= 40, "{most} blob files for 400 values: {:?}", store.engine.stats());
    for i in 0..400 {
        assert_eq!(store.get(format!("k{i:03}").as_bytes()).unwrap(), Some(value(i)));
    }
}

#[test]
fn a_large_value_that_the_disk_refuses_stays_where_it_is_and_the_merging_goes_on() {
    let memory = MemoryDisk::new(1);
    let disk = Faulty::new(&memory);
    let options = Options { blob_file_bytes: 16 << 10, ..large() };
    let mut store = Store::open_on(Arc::new(disk.clone()), options).unwrap();
    let key = |i: u64| format!("k{i:03}").into_bytes();
    for i in 0..10 {
        let shard = &mut store.shards[0];
        shard.apply(&put(&key(i), &value(i)), Durability::Os).unwrap();
        shard.apply(&put(b"k999", b"small"), Durability::Os).unwrap();
        shard.rotate();
        while let Some(job) = store.engine.next_flush() {
            job.run().unwrap();
        }
    }
    let refused = blobs(&memory)[3].clone();
    disk.scratch(&refused, 30..31);
    store.run_jobs().unwrap();
    store.shards[0].refresh();
    let found = blobs(&memory);
    assert!(found.contains(&refused) && found.len() <= 3, "the others were moved: {found:?}");
    for i in 0..10 {
        assert_eq!(store.get(&key(i)).ok(), (i != 3).then(|| Some(value(i))), "{i}");
    }
}

#[test]
fn a_reader_of_an_old_view_reads_values_whose_file_was_removed() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, Options { level0_tables: 2, ..large() }).unwrap();
    store.shards[0].apply(&put(b"k001", &value(1)), Durability::Os).unwrap();
    flush(&mut store);
    let before = blobs(&disk);
    let shard = &mut store.shards[0];
    shard.apply(&put(b"k001", b"small"), Durability::Os).unwrap();
    shard.rotate();
    let scan_in_the_past = {
        let mut rows = shard.scan(b"", None, ringdb_storage::Direction::Forward, None).unwrap();
        while let Some(job) = store.engine.next_job() {
            job.run().unwrap();
        }
        rows.next().unwrap().unwrap()
    };
    assert_eq!(scan_in_the_past.1, b"small");
    assert!(!before.is_empty() && blobs(&disk).is_empty());
}

#[test]
fn a_damaged_large_value_costs_its_key_alone_and_stops_no_compaction() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, Options { level0_tables: 2, ..large() }).unwrap();
    for i in 0..5 {
        let key = format!("k{i:03}").into_bytes();
        store.shards[0].apply(&put(&key, &value(i)), Durability::Os).unwrap();
    }
    flush(&mut store);
    // Each block is 13 + 100 bytes behind 8 of the file.
    assert!(disk.rot(&blobs(&disk)[0], 8 + 113 * 2 + 50, 4));
    let refused = store.get(b"k002");
    let Err(Error::Damaged(damage)) = refused else { panic!("{refused:?}") };
    assert_eq!((&damage.lower[..], damage.upper.as_deref()), (&b"k002"[..], Some(&b"k002\0"[..])));
    assert!(matches!(damage.place, Place::Blob { offset: Some(234), .. }), "{damage:?}");
    assert_eq!(store.engine.damage(), [*damage.clone()]);
    assert_eq!(store.get(b"k003").unwrap(), Some(value(3)));
    // What changes it is kept beside it until it is repaired.
    let mut batch = Batch::new();
    batch.merge(b"k002", b"+");
    store.shards[0].apply(&batch, Durability::Os).unwrap();
    flush(&mut store);
    assert!(matches!(store.get(b"k002"), Err(Error::Damaged(_))));
    store.shards[0].apply(&put(b"k002", b"from a replica"), Durability::Os).unwrap();
    store.engine.repaired(&damage).unwrap();
    assert!(store.engine.damage().is_empty());
    flush(&mut store);
    assert_eq!(store.get(b"k002").unwrap().as_deref(), Some(&b"from a replica"[..]));
    drop(store);
    disk.crash(Crash::PowerLoss(Survival::None));
    let mut store = Store::open(&disk, large()).unwrap();
    assert_eq!(store.get(b"k001").unwrap(), Some(value(1)));
}

#[test]
fn a_blob_file_that_is_gone_is_noticed_when_the_store_opens() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, large()).unwrap();
    store.shards[0].apply(&put(b"k001", &value(1)), Durability::Os).unwrap();
    store.shards[0].apply(&put(b"k002", b"small"), Durability::Os).unwrap();
    flush(&mut store);
    drop(store);
    disk.crash(Crash::ProcessKill);
    disk.remove(&blobs(&disk)[0]).unwrap();
    assert!(Store::open(&disk, large()).is_err());
    let tolerant = Options { tolerate_damage: true, ..large() };
    let mut store = Store::open(&disk, tolerant).unwrap();
    assert!(matches!(store.engine.damage()[0].place, Place::Blob { offset: None, .. }));
    assert!(matches!(store.get(b"k001"), Err(Error::Damaged(_))));
    assert_eq!(store.get(b"k002").unwrap().as_deref(), Some(&b"small"[..]));
}

#[test]
fn a_scrub_reads_everything_and_says_which_keys_are_lost() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, large()).unwrap();
    for i in 0..40 {
        let key = format!("k{i:03}").into_bytes();
        let value = if i % 2 == 0 { value(i) } else { value(i)[..50].to_vec() };
        store.shards[0].apply(&put(&key, &value), Durability::Os).unwrap();
    }
    flush(&mut store);
    let round = |store: &Store| {
        let rounds = store.engine.scrub().rounds;
        let mut steps = 0;
        while store.engine.scrub().rounds == rounds {
            let job = store.engine.scrub_step(500).unwrap();
            assert!(store.engine.scrub_step(500).is_none(), "one step at a time");
            job.run().unwrap();
            steps += 1;
        }
        steps
    };
    assert!(round(&store) > 3, "a step reads about as much as it was told");
    let sound = store.engine.scrub();
    assert_eq!((sound.rounds, sound.bad_blocks), (1, 0));
    assert!(sound.bytes_total > 20 * 113 + 20 * 50, "{sound:?}");
    assert!(store.engine.damage().is_empty());

    let table = disk.list().unwrap().into_iter().find(|name| name.ends_with(".sst")).unwrap();
    assert!(disk.rot(&table, 700, 1));
    assert!(disk.rot(&blobs(&disk)[0], 8 + 20, 1));
    round(&store);
    let damage = store.engine.damage();
    assert_eq!((damage.len(), store.engine.scrub().bad_blocks), (2, 2), "{damage:?}");
    for i in 0..40 {
        let key = format!("k{i:03}").into_bytes();
        let inside = damage.iter().any(|d| d.lower <= key && key < *d.upper.as_ref().unwrap());
        // The block in the cache is still good; a new start has no cache.
        assert!(inside || store.get(&key).is_ok());
    }
    drop(store);
    disk.crash(Crash::ProcessKill);
    let mut store = Store::open(&disk, large()).unwrap();
    for i in 0..40 {
        let key = format!("k{i:03}").into_bytes();
        let inside = damage.iter().any(|d| d.lower <= key && key < *d.upper.as_ref().unwrap());
        assert_eq!(store.get(&key).is_err(), inside, "k{i:03}");
    }
}

#[test]
fn a_full_disk_leaves_no_half_blob_file_and_the_flush_is_repeated() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, large()).unwrap();
    for i in 0..30 {
        let key = format!("k{i:03}").into_bytes();
        store.shards[0].apply(&put(&key, &value(i)), Durability::Os).unwrap();
    }
    store.shards[0].rotate();
    for room in [0, 1_000, 3_000] {
        disk.set_capacity(Some(disk.used() + room));
        assert_eq!(store.engine.next_job().unwrap().run(), Err(Error::NoSpace));
        assert!(blobs(&disk).is_empty(), "{room} bytes of room");
    }
    disk.set_capacity(None);
    store.run_jobs().unwrap();
    store.shards[0].refresh();
    assert_eq!(blobs(&disk).len(), 2);
    assert_eq!(store.get(b"k029").unwrap(), Some(value(29)));
}
