//! Compaction as the layers above see it: what becomes fewer, what goes unread, what waits.

use crate::fixture::{Append, Store, options, put};
use ringdb_storage::{
    Batch, Brake, Direction, Disk, Durability, Engine, Error, Job, JobKind, MemoryDisk, Options,
};
use std::ops::ControlFlow;
use std::sync::Arc;

fn key(i: u32) -> Vec<u8> {
    format!("k{i:05}").into_bytes()
}

/// Values that do not compress.
fn value(i: u32) -> Vec<u8> {
    (0..100u32).map(|j| (i.wrapping_mul(7919) ^ j.wrapping_mul(j * 31 + i)) as u8).collect()
}

fn fill(store: &mut Store, keys: impl Iterator<Item = u32>) {
    for i in keys {
        store.shards[0].apply(&put(&key(i), &value(i)), Durability::Buffered).unwrap();
    }
    flush(store);
}

fn flush(store: &mut Store) {
    store.shards[0].commit().unwrap();
    store.shards[0].rotate();
    while let Some(job) = store.engine.next_flush() {
        job.run().unwrap();
    }
    store.shards[0].refresh();
}

/// Removes files that nobody needs, so that what follows is compaction.
fn remove_files(store: &Store) {
    while let Some(job) = store.engine.next_job().filter(|job| job.kind() == JobKind::Remove) {
        job.run().unwrap();
    }
}

fn table_bytes(store: &Store) -> u64 {
    store.engine.stats().table_bytes.iter().sum()
}

fn roomy() -> Options {
    Options { memtable_bytes: 1 << 20, table_bytes: 16 << 10, level1_bytes: 16 << 10, ..options(1) }
}

#[test]
fn tables_that_a_range_deletion_covers_are_dropped_unread_once_no_snapshot_sees_them() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, roomy()).unwrap();
    for round in 0..6 {
        fill(&mut store, (0..300).map(|i| (i * 7 + round) % 1000));
    }
    store.run_jobs().unwrap();
    let before = table_bytes(&store);
    assert!(before > 80_000, "{before}");
    let snapshot = store.shards[0].snapshot();
    let mut batch = Batch::new();
    batch.delete_range(&key(0), &key(1000));
    store.shards[0].apply(&batch, Durability::Os).unwrap();
    flush(&mut store);
    store.run_jobs().unwrap();
    store.shards[0].refresh();
    let seen = store.shards[0].get(&key(7), Some(&snapshot)).unwrap();
    assert_eq!(seen.as_deref(), Some(&value(7)[..]));
    drop(seen);
    drop(snapshot);
    // Nothing was written since, and nothing of what is dropped is read.
    disk.fail_reads(Some(".sst"));
    let job = store.engine.next_job().expect("an idle store looks again");
    assert_eq!(job.kind(), JobKind::Compact);
    job.run().unwrap();
    disk.fail_reads(None);
    assert!(table_bytes(&store) < before / 10, "{} of {before}", table_bytes(&store));
    store.run_jobs().unwrap();
    assert_eq!(table_bytes(&store), 0, "the deletion itself hides nothing any more");
    store.shards[0].refresh();
    assert_eq!(store.shards[0].scan(b"", None, Direction::Forward, None).unwrap().count(), 0);
}

#[test]
fn deletions_of_an_idle_store_go_with_what_they_deleted() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, roomy()).unwrap();
    fill(&mut store, 0..1000);
    store.run_jobs().unwrap();
    let snapshot = store.shards[0].snapshot();
    for i in 0..900 {
        let mut batch = Batch::new();
        batch.delete(&key(i));
        store.shards[0].apply(&batch, Durability::Buffered).unwrap();
    }
    flush(&mut store);
    store.run_jobs().unwrap();
    let held = table_bytes(&store);
    assert!(held > 100_000, "a snapshot holds them: {held}");
    assert!(store.engine.next_job().is_none(), "and nobody works in vain");
    drop(snapshot);
    store.run_jobs().unwrap();
    assert!(table_bytes(&store) < 20_000, "{} bytes for 100 rows", table_bytes(&store));
    store.shards[0].refresh();
    assert_eq!(store.shards[0].scan(b"", None, Direction::Forward, None).unwrap().count(), 100);
}

#[test]
fn a_snapshot_of_one_shard_holds_back_no_other() {
    let disk = MemoryDisk::new(1);
    let options = Options { splits: vec![b"k".to_vec()], ..roomy() };
    let mut store = Store::open(&disk, options).unwrap();
    // Its sequence is small: each shard counts for itself.
    store.shards[0].apply(&put(b"a", b"seldom written"), Durability::Os).unwrap();
    let snapshot = store.shards[0].snapshot();
    let busy = |store: &mut Store| {
        store.shards[1].commit().unwrap();
        store.shards[1].rotate();
        store.run_jobs().unwrap();
        store.shards[1].refresh();
    };
    for i in 0..1000 {
        store.shards[1].apply(&put(&key(i), &value(i)), Durability::Buffered).unwrap();
    }
    busy(&mut store);
    for i in 0..900 {
        let mut batch = Batch::new();
        batch.delete(&key(i));
        store.shards[1].apply(&batch, Durability::Buffered).unwrap();
    }
    busy(&mut store);
    assert!(table_bytes(&store) < 20_000, "{} bytes for 100 rows", table_bytes(&store));
    let mut batch = Batch::new();
    batch.delete_range(b"k", b"l");
    store.shards[1].apply(&batch, Durability::Os).unwrap();
    busy(&mut store);
    assert_eq!(table_bytes(&store), 0);
    drop(snapshot);
}

#[test]
fn tables_in_order_are_moved_and_not_written_again() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, roomy()).unwrap();
    for part in 0..40 {
        fill(&mut store, part * 100..(part + 1) * 100);
    }
    let numbers = |disk: &MemoryDisk| {
        disk.list().unwrap().into_iter().filter(|n| n.ends_with(".sst")).collect::<Vec<_>>()
    };
    let before = numbers(&disk);
    store.run_jobs().unwrap();
    assert_eq!(numbers(&disk), before);
    assert_eq!(store.engine.stats().tables[0], 0);
}

#[test]
fn a_merging_is_done_by_several_at_once_and_shows_itself_at_once() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, roomy()).unwrap();
    for round in 0..3 {
        fill(&mut store, (0..400).map(|i| i * 5 + round));
    }
    remove_files(&store);
    let mut jobs: Vec<Job> = std::iter::from_fn(|| store.engine.next_job()).collect();
    assert!(jobs.len() >= 3, "{} jobs at once", jobs.len());
    let before = store.engine.stats().tables;
    while jobs.len() > 1 {
        jobs.pop().unwrap().run().unwrap();
        assert_eq!(store.engine.stats().tables, before);
    }
    jobs.pop().unwrap().run().unwrap();
    let after = store.engine.stats().tables;
    assert!(after[0] == 0 && after.iter().sum::<usize>() > 3, "{after:?}");
    store.shards[0].refresh();
    let rows = store.shards[0].scan(b"", None, Direction::Forward, None).unwrap();
    assert_eq!(
        rows.map(Result::unwrap)
            .filter(|(k, v)| {
                let i: u32 = String::from_utf8_lossy(&k[1..]).parse().unwrap();
                *v == value(i)
            })
            .count(),
        1200
    );
}

#[test]
fn parts_of_level_0_are_merged_by_jobs_that_do_not_wait_for_each_other() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, Options { level1_bytes: 256 << 10, ..roomy() }).unwrap();
    let mut most = 0;
    for round in 0..12 {
        fill(&mut store, (0..400).map(|i| (i * 5 + round) % 2000));
        let mut jobs: Vec<Job> = std::iter::from_fn(|| store.engine.next_job()).collect();
        most = most.max(store.engine.stats().compactions);
        while let Some(job) = jobs.pop() {
            job.run().unwrap();
        }
    }
    assert!(most > 1, "{most} compactions at once");
}

#[test]
fn a_full_disk_leaves_no_half_written_tables_and_the_job_is_done_when_there_is_room() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, roomy()).unwrap();
    for round in 0..3 {
        fill(&mut store, (0..400).map(|i| i * 5 + round));
    }
    remove_files(&store);
    let used = disk.used();
    // Begun while there was room; then others filled the disk.
    let jobs: Vec<Job> = std::iter::from_fn(|| store.engine.next_job()).collect();
    assert!(jobs.len() > 1);
    disk.set_capacity(Some(used + 30_000));
    let outcomes: Vec<_> = jobs.into_iter().map(Job::run).collect();
    assert!(outcomes.contains(&Err(Error::NoSpace)), "{outcomes:?}");
    assert_eq!(disk.used(), used, "what was half written is gone");
    assert_eq!(store.get(&key(6)).unwrap(), Some(value(6)));
    // With so little room it is not even begun.
    assert!(store.engine.next_job().is_none());
    disk.set_capacity(None);
    store.run_jobs().unwrap();
    assert_eq!(store.engine.stats().tables[0], 0);
    store.shards[0].refresh();
    assert_eq!(store.get(&key(6)).unwrap(), Some(value(6)));
}

#[test]
fn a_job_tells_what_it_does_and_can_be_broken_off() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, roomy()).unwrap();
    for round in 0..3 {
        fill(&mut store, (0..400).map(|i| i * 5 + round));
    }
    remove_files(&store);
    let used = disk.used();
    let broken = store.engine.next_job().unwrap().run_paced(&mut |_| ControlFlow::Break(()));
    assert!(
        matches!(broken, Err(Error::Io { kind: std::io::ErrorKind::Interrupted, .. })),
        "{broken:?}"
    );
    assert_eq!(disk.used(), used);
    let mut told = 0;
    while let Some(job) = store.engine.next_job() {
        job.run_paced(&mut |bytes| {
            told += bytes;
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    assert!((120_000..400_000).contains(&told), "{told} bytes told of 1200 rows");
}

#[test]
fn debt_rises_with_what_waits_and_falls_with_the_work() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, options(1)).unwrap();
    assert!(store.engine.debt().worst() < 0.01);
    let mut debts = Vec::new();
    for i in 0..300 {
        store.shards[0].apply(&put(&key(i), &value(i)), Durability::Buffered).unwrap();
        if store.shards[0].wants_rotation() {
            store.shards[0].rotate();
        }
        debts.push(store.shards[0].debt().memtables);
    }
    assert!(debts[10] < 0.01 && debts.is_sorted(), "{debts:?}");
    let steps = debts.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(steps.fold(0.0, f64::max) < 0.05, "evenly: {debts:?}");
    assert!(debts[299] > 0.99);
    assert!(Brake::default().hold(0, store.shards[0].debt().worst(), 100_000) > 10_000);
    store.run_jobs().unwrap();
    assert!(store.engine.debt().worst() < 0.01, "{:?}", store.engine.debt());
}

#[test]
fn a_manifest_of_a_busy_store_does_not_grow_without_bound() {
    let disk = MemoryDisk::new(1);
    let small = Options { manifest_bytes: 2 << 10, ..options(1) };
    let mut store = Store::open(&disk, small.clone()).unwrap();
    for round in 0..300 {
        store.shards[0].apply(&put(&key(round % 50), &value(round)), Durability::Os).unwrap();
        store.shards[0].rotate();
        store.run_jobs().unwrap();
    }
    let manifests: Vec<(String, u64)> = disk
        .list()
        .unwrap()
        .into_iter()
        .filter(|name| name.starts_with("MANIFEST"))
        .map(|name| (name.clone(), disk.open(&name).unwrap().len().unwrap()))
        .collect();
    assert!(manifests.len() == 1 && manifests[0].1 < 6_000, "{manifests:?}");
    drop(store);
    let mut again = Store::open(&disk, small).unwrap();
    for i in 0..50 {
        assert_eq!(again.get(&key(i)).unwrap(), Some(value(250 + i)));
    }
}

#[test]
fn obsolete_rows_are_at_most_a_ninth_of_what_is_alive_once_the_store_rests() {
    let disk = MemoryDisk::new(1);
    let small = Options {
        memtable_bytes: 16 << 10,
        table_bytes: 8 << 10,
        level1_bytes: 4 << 10,
        ..options(1)
    };
    let mut store = Store::open(&disk, small).unwrap();
    let mut state = 1u32;
    for _ in 0..12_000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let i = (state >> 8) % 3000;
        store.shards[0].apply(&put(&key(i), &value(i)), Durability::Buffered).unwrap();
        if store.shards[0].wants_rotation() {
            store.shards[0].rotate();
            store.run_jobs().unwrap();
            store.shards[0].refresh();
        }
    }
    let stats = store.engine.stats();
    let deeper = &stats.table_bytes[1..];
    let (last, above) = (deeper[5], deeper[..5].iter().sum::<u64>());
    assert!(last > 200_000 && stats.tables[5] > 0, "several levels: {stats:?}");
    assert!(above * 9 <= last + 9 * (8 << 10), "{stats:?}");
}

#[test]
fn compacting_while_nothing_is_due_does_nothing() {
    let disk = MemoryDisk::new(1);
    // Files for the log are made ready whatever else is due.
    let options = Options { log_spares: 0, ..roomy() };
    let (engine, _shards) =
        Engine::open(Arc::new(disk.clone()), options, Arc::new(Append), &mut |_| {}).unwrap();
    assert!(engine.next_job().is_none() && engine.next_flush().is_none());
}
