//! The front for many threads: every acknowledged write is there, groups share syncs, errors reach
//! everybody whom they concern.

use crate::fixture::{Append, options};
use ringdb_storage::{
    Batch, Crash, Direction, Disk, Durability, Error, Folded, MemoryDisk, Merge, Options, Store,
    Survival,
};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

fn open(disk: &MemoryDisk, options: Options) -> Store {
    Store::open(Arc::new(disk.clone()), options, Arc::new(Append)).unwrap()
}

/// `threads` writers, each with its own keys; what each wrote last.
fn fill(store: &Store, threads: usize, writes: usize, durability: Durability) {
    thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for i in 0..writes {
                    let key = format!("k{:03}", thread * 10 + i % 10);
                    store.put(key.as_bytes(), format!("{i}").as_bytes(), durability).unwrap();
                }
            });
        }
    });
}

fn rows(store: &Store) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    store
        .scan(b"", None, Direction::Forward, |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

#[test]
fn what_many_threads_wrote_is_there_with_and_without_workers() {
    for (shards, workers) in [(1, 0), (1, 1), (3, 2)] {
        let disk = MemoryDisk::new(1);
        let store = open(&disk, options(shards));
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| store.work());
            }
            fill(&store, 8, 300, Durability::Os);
            store.flush().unwrap();
            store.close();
        });
        let found = rows(&store);
        assert_eq!(found.len(), 80);
        for (i, (key, value)) in found.iter().enumerate() {
            assert_eq!(key, format!("k{i:03}").as_bytes());
            assert_eq!(value, format!("{}", 290 + i % 10).as_bytes());
        }
        assert_eq!(store.engine().stats().unflushed_memtables, 0);
    }
}

#[test]
fn every_synced_write_survives_a_power_loss_and_groups_share_syncs() {
    let disk = MemoryDisk::new(1);
    let store = open(&disk, Options { memtable_bytes: 1 << 20, ..options(1) });
    fill(&store, 8, 100, Durability::Sync);
    let want = rows(&store);
    drop(store);
    disk.crash(Crash::PowerLoss(Survival::None));
    assert_eq!(rows(&open(&disk, options(1))), want);
}

#[test]
fn a_failed_sync_fails_every_writer_of_the_group_and_all_that_come_after() {
    let disk = MemoryDisk::new(1);
    let store = open(&disk, options(1));
    store.put(b"k001", b"safe", Durability::Sync).unwrap();
    disk.fail_next_sync();
    let outcomes: Vec<_> = thread::scope(|scope| {
        let write = |i: usize| {
            let store = &store;
            scope.spawn(move || {
                store.put(format!("k{:03}", 10 + i).as_bytes(), b"lost", Durability::Sync)
            })
        };
        let writers: Vec<_> = (0..8).map(write).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert!(outcomes.iter().all(|o| matches!(o, Err(Error::Poisoned { .. }))), "{outcomes:?}");
    assert_eq!(store.get(b"k001").unwrap().as_deref(), Some(&b"safe"[..]));
}

/// A writer moves money between two keys in one batch; readers must never see a moment between.
#[test]
fn a_batch_becomes_visible_at_once_to_readers_on_other_threads() {
    for (memtable_bytes, workers) in [(1 << 20, 0), (8 << 10, 1)] {
        let disk = MemoryDisk::new(1);
        let store = open(&disk, Options { memtable_bytes, ..options(1) });
        let both = |a: u64, b: u64| {
            let mut batch = Batch::new();
            batch.put(b"a", &a.to_be_bytes());
            batch.put(b"b", &b.to_be_bytes());
            batch.merge(b"m", b"x");
            batch.delete_range(b"c", b"d");
            batch.put(format!("c{}", a % 7).as_bytes(), b"row");
            batch
        };
        store.write(&both(1000, 0), Durability::Buffered).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        let number = |value: Option<&[u8]>| u64::from_be_bytes(value.unwrap().try_into().unwrap());
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| store.work());
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 0;
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        let mut seen = [0, 0];
                        store.get_many(&[b"a", b"b"], |i, value| seen[i] = number(value)).unwrap();
                        assert_eq!(seen[0] + seen[1], 1000);
                        assert!(seen[1] >= last, "time does not go back");
                        last = seen[1];
                        let view = &store.views()[0];
                        let moved = number(view.get(b"b").unwrap().as_deref());
                        let operands = view.get(b"m").unwrap().map_or(0, |value| value.len());
                        assert_eq!(operands as u64, moved + 1);
                        // Each batch deletes the row of the batch before.
                        let mut scan = view.scan(b"c", Some(b"d"), Direction::Backward).unwrap();
                        let (key, _) = scan.next_row().unwrap().unwrap();
                        assert_eq!(key, format!("c{}", (1000 - moved) % 7).as_bytes());
                        assert!(scan.next_row().unwrap().is_none());
                    }
                });
            }
            for moved in 1..=1000 {
                store.write(&both(1000 - moved, moved), Durability::Os).unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            store.close();
        });
    }
}

#[test]
fn a_worker_makes_files_ready_as_soon_as_somebody_syncs_and_as_they_are_used() {
    let disk = MemoryDisk::new(1);
    let memtable_bytes = 1 << 20;
    let store = open(&disk, Options { memtable_bytes, log_retain_bytes: 0, ..options(1) });
    let worker = {
        let store = store.clone();
        thread::spawn(move || store.work())
    };
    let spares = || disk.list().unwrap().iter().filter(|name| name.ends_with(".spare")).count();
    store.put(b"k001", b"not synced", Durability::Os).unwrap();
    assert_eq!(spares(), 0, "nobody needs one");
    // No flush comes that would wake the worker. Many segments of 3 KiB, each in a new file.
    for _ in 0..20 {
        store.put(b"k001", &[1; 2000], Durability::Sync).unwrap();
        while store.engine().stats().log_spares == 0 {
            thread::yield_now();
        }
    }
    store.close();
    worker.join().unwrap();
}

/// Panics at an operand `bad`, which it must not.
struct Touchy;

impl Merge for Touchy {
    fn full(&self, _: &[u8], _: Option<&[u8]>, operands: &[&[u8]], out: &mut Vec<u8>) -> Folded {
        assert!(!operands.contains(&&b"bad"[..]), "planted");
        out.extend_from_slice(operands[0]);
        Folded::Value
    }
    fn partial(&self, _: &[u8], operands: &[&[u8]], _: &mut Vec<u8>) -> bool {
        assert!(!operands.contains(&&b"bad"[..]), "planted");
        false
    }
}

/// What `f` gives on a thread of its own: an error when it panics. It must end.
fn ends<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> thread::Result<T> {
    let (done, is_done) = channel();
    let thread = thread::spawn(move || {
        let value = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
        done.send(value)
    });
    let value = is_done.recv_timeout(Duration::from_secs(60)).expect("it stands still for ever");
    thread.join().unwrap().unwrap();
    value
}

#[test]
fn a_merge_that_panics_poisons_the_store_and_nobody_waits_for_ever() {
    for durability in [Durability::Os, Durability::Sync] {
        let disk = MemoryDisk::new(1);
        let store = Store::open(Arc::new(disk.clone()), options(1), Arc::new(Touchy)).unwrap();
        store.put(b"k", b"v", Durability::Sync).unwrap();
        let (shared, writers) = (store.clone(), 8);
        let outcomes = ends(move || {
            let write = |i: usize| {
                let store = shared.clone();
                thread::spawn(move || match i {
                    3 => {
                        let mut batch = Batch::new();
                        batch.put(b"first", b"half");
                        batch.merge(b"k", b"bad");
                        store.write(&batch, durability)
                    }
                    _ => store.put(format!("k{i}").as_bytes(), b"v", durability),
                })
            };
            let threads: Vec<_> = (0..writers).map(write).collect();
            threads.into_iter().map(thread::JoinHandle::join).collect::<Vec<_>>()
        });
        let outcomes = outcomes.unwrap();
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 1, "who led");
        let later = ends({
            let store = store.clone();
            move || [store.put(b"later", b"v", durability), store.sync(), store.flush()]
        });
        for refused in later.unwrap() {
            let Err(Error::Poisoned { reason }) = refused else { panic!("{refused:?}") };
            assert!(reason.contains("panic"), "{reason}");
        }
        assert_eq!(store.get(b"k").unwrap().as_deref(), Some(&b"v"[..]), "reads go on");
        store.close();
        drop(store);
        disk.crash(Crash::ProcessKill);
        let store = open(&disk, options(1));
        for key in [&b"first"[..], b"later"] {
            assert_eq!(store.get(key).unwrap(), None, "what nobody was told is not there");
        }
        assert_eq!(store.get(b"k").unwrap().as_deref(), Some(&b"v"[..]));
        for (i, outcome) in outcomes.iter().enumerate() {
            if matches!(outcome, Ok(Ok(()))) {
                let value = store.get(format!("k{i}").as_bytes()).unwrap();
                assert_eq!(value.as_deref(), Some(&b"v"[..]), "acknowledged");
            }
        }
    }
}

#[test]
fn a_merge_that_panics_in_the_background_holds_up_nobody_who_waits_for_it() {
    let disk = MemoryDisk::new(1);
    let store = Store::open(Arc::new(disk), options(1), Arc::new(Touchy)).unwrap();
    let worker = {
        let store = store.clone();
        thread::spawn(move || store.work())
    };
    store.put(b"k", b"in a table", Durability::Os).unwrap();
    store.flush().unwrap();
    // Operands over a table are folded among themselves by the flush.
    store.merge(b"k", b"good", Durability::Os).unwrap();
    store.merge(b"k", b"bad", Durability::Os).unwrap();
    // Whether the worker meets it or the one who waits: neither waits for the other.
    let flushed = ends({
        let store = store.clone();
        move || store.flush()
    });
    assert!(!matches!(flushed, Ok(Ok(()))), "{flushed:?}");
    store.close();
    drop(worker.join());
}
