//! A checkpoint is a store of its own.

use crate::fixture::{Chance, Rows, Store, options, put};
use ringdb_storage::{
    Batch, Crash, Direction, Disk, Durability, Error, FileDisk, MemoryDisk, Options, Survival,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn rows(store: &Store) -> Rows {
    let rows = |shard: &ringdb_storage::Shard| {
        shard.scan(b"", None, Direction::Forward, None).unwrap().map(Result::unwrap).collect()
    };
    store.shards.iter().flat_map(rows as fn(&_) -> Rows).collect()
}

fn large(shards: usize) -> Options {
    Options { large_value_bytes: 40, blob_file_bytes: 700, ..options(shards) }
}

#[test]
fn a_checkpoint_on_a_real_disk_shares_the_files_and_goes_its_own_way() {
    let directory = tempfile::tempdir().unwrap();
    let disk = || Arc::new(FileDisk::new(directory.path().join("store")).unwrap());
    let mut store = Store::open_on(disk(), large(2)).unwrap();
    for i in 0..200 {
        let key = format!("k{:03}", i % 100).into_bytes();
        store.shard(&key).apply(&put(&key, &vec![b'v'; i]), Durability::Os).unwrap();
        if i % 40 == 39 {
            store.shard(&key).rotate();
            store.run_jobs().unwrap();
        }
    }
    let target = Arc::new(FileDisk::new(directory.path().join("copy")).unwrap());
    let made = store.engine.checkpoint(target.as_ref()).unwrap();
    assert!(made.files > 2 && made.log_bytes > 0, "{made:?}");
    let inode = |part: &str, name: &str| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(directory.path().join(part).join(name)).unwrap().ino()
    };
    let shared = |name: &String| inode("store", name) == inode("copy", name);
    let tables = target.list().unwrap();
    let tables: Vec<_> =
        tables.iter().filter(|n| n.ends_with(".sst") || n.ends_with(".blob")).collect();
    assert!(tables.iter().all(|name| shared(name)), "linked, not copied");

    let want = rows(&store);
    store.shard(b"k001").apply(&put(b"k001", b"later"), Durability::Os).unwrap();
    let mut copy = Store::open_on(target.clone(), large(1)).unwrap();
    assert_eq!(rows(&copy), want);
    copy.shard(b"k002").apply(&put(b"k002", b"elsewhere"), Durability::Os).unwrap();
    copy.run_jobs().unwrap();
    assert_ne!(store.get(b"k002").unwrap().as_deref(), Some(&b"elsewhere"[..]));
    let again = store.engine.checkpoint(target.as_ref());
    assert!(matches!(again, Err(Error::Refused { .. })), "{again:?}");
    drop(store);
    let store = Store::open_on(disk(), large(2)).unwrap();
    assert!(store.engine.damage().is_empty());
}

#[test]
fn a_checkpoint_taken_amid_writes_and_compactions_holds_what_was_committed_before() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(FileDisk::new(directory.path().join("store")).unwrap());
    let roomy = Options {
        memtable_bytes: 32 << 10,
        log_segment_bytes: 32 << 10,
        table_bytes: 32 << 10,
        level1_bytes: 128 << 10,
        blob_file_bytes: 32 << 10,
        ..large(1)
    };
    let mut store = Store::open_on(disk, roomy).unwrap();
    let mut shards = std::mem::take(&mut store.shards);
    let done = AtomicBool::new(false);
    let latest = std::sync::Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                while let Some(job) = store.engine.next_job() {
                    job.run().unwrap();
                }
                std::thread::yield_now();
            }
        });
        let writer = scope.spawn(|| {
            let mut chance = Chance(7);
            let shard = &mut shards[0];
            for step in 0u64.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let mut batch = Batch::new();
                let key = chance.key(100);
                // Each key's value tells how often it was written.
                batch.put(
                    &key,
                    format!("{step:010}{}", "v".repeat((step % 90) as usize)).as_bytes(),
                );
                shard.apply(&batch, Durability::Os).unwrap();
                latest.lock().unwrap().insert(key, step);
                if shard.wants_rotation() {
                    shard.rotate();
                }
                while shard.unflushed() > 2 && !done.load(Ordering::Relaxed) {
                    shard.commit().unwrap();
                    std::thread::yield_now();
                }
            }
        });
        for round in 0..12 {
            let before = latest.lock().unwrap().clone();
            let target = FileDisk::new(directory.path().join(format!("copy{round}"))).unwrap();
            store.engine.checkpoint(&target).unwrap();
            let after = latest.lock().unwrap().clone();
            let mut copy = Store::open_on(Arc::new(target), large(1)).unwrap();
            assert!(copy.engine.damage().is_empty());
            for (key, step) in before {
                let value = copy.get(&key).unwrap().unwrap();
                let found: u64 = std::str::from_utf8(&value[..10]).unwrap().parse().unwrap();
                // The writer may be one ahead of what it noted.
                assert!((step..=after[&key].max(step) + 2_000).contains(&found), "{found} {step}");
            }
        }
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    });
}

/// A store with tables, blob files and a log.
fn of_all_kinds() -> Store {
    let mut store = Store::open(&MemoryDisk::new(1), large(1)).unwrap();
    for i in 0..100 {
        let key = format!("k{i:03}").into_bytes();
        store.shards[0].apply(&put(&key, &vec![b'v'; i]), Durability::Os).unwrap();
        if i == 60 {
            store.shards[0].rotate();
            store.run_jobs().unwrap();
        }
    }
    store.shards[0].refresh();
    store
}

#[test]
fn a_checkpoint_onto_a_disk_that_gets_full_says_so_at_every_byte_and_the_store_goes_on() {
    let mut store = of_all_kinds();
    let want = rows(&store);
    let mut refused = 0;
    for capacity in (0..).step_by(13) {
        let target = MemoryDisk::new(capacity);
        target.set_capacity(Some(capacity));
        let made = store.engine.checkpoint(&target);
        target.set_capacity(None);
        if made.is_ok() {
            assert_eq!(rows(&Store::open(&target, options(1)).unwrap()), want);
            break;
        }
        assert!(matches!(made, Err(Error::NoSpace)), "at {capacity} bytes: {made:?}");
        refused += 1;
        if let Ok(copy) = Store::open(&target, options(1)) {
            let found = rows(&copy);
            assert!(found.is_empty() || found == want, "at {capacity} bytes");
        }
    }
    assert!(refused > 500, "{refused} that had no room");
    store.shards[0].apply(&put(b"later", b"v"), Durability::Sync).unwrap();
    store.run_jobs().unwrap();
    assert_eq!(store.get(b"later").unwrap().as_deref(), Some(&b"v"[..]));
    assert_eq!(rows(&store).len(), want.len() + 1);
}

#[test]
fn a_checkpoint_that_is_cut_short_does_not_open_and_a_whole_one_survives_the_power() {
    let store = of_all_kinds();
    let want = rows(&store);
    for number in 0.. {
        let target = MemoryDisk::new(number);
        target.power_fails_at_sync(number);
        let made = store.engine.checkpoint(&target);
        for fate in [Survival::None, Survival::All, Survival::Subset, Survival::Torn] {
            let fork = target.fork(number);
            fork.crash(Crash::PowerLoss(fate));
            match Store::open(&fork, options(1)) {
                Ok(copy) if made.is_ok() => assert_eq!(rows(&copy), want),
                // Nothing at all, or all of it.
                Ok(copy) => {
                    let found = rows(&copy);
                    assert!(found.is_empty() || found == want, "sync {number} {fate:?}");
                }
                Err(e) => assert!(made.is_err(), "sync {number} {fate:?}: {e}"),
            }
        }
        if made.is_ok() {
            return;
        }
    }
}
