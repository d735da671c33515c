//! A log that is written through memory: the same promises, and never where the process could die of it.

use crate::fixture::{Store, options, put};
use ringdb_storage::{Crash, Disk, Durability, Error, FileDisk, MemoryDisk, Options, Survival};
use std::sync::Arc;

/// Segments that a test does not fill.
fn roomy() -> Options {
    Options { log_segment_bytes: 64 << 10, memtable_bytes: 1 << 20, ..options(1) }
}

fn key(i: u32) -> Vec<u8> {
    format!("k{i:03}").into_bytes()
}

fn fill(store: &mut Store, from: u32, to: u32) {
    for i in from..to {
        store.shards[0].apply(&put(&key(i), &[7; 40]), Durability::Os).unwrap();
    }
}

fn has_all(store: &mut Store, to: u32) {
    for i in 0..to {
        assert_eq!(store.get(&key(i)).unwrap().as_deref(), Some(&[7; 40][..]), "row {i}");
    }
}

#[test]
fn what_went_through_a_window_survives_a_kill_and_with_a_sync_a_power_loss() {
    let disk = MemoryDisk::new(1);
    disk.open_windows();
    let mut store = Store::open(&disk, roomy()).unwrap();
    fill(&mut store, 0, 100);
    assert!(disk.window_writes() > 80, "{}", disk.window_writes());
    let killed = disk.fork(2);
    killed.crash(Crash::ProcessKill);
    has_all(&mut Store::open(&killed, roomy()).unwrap(), 100);
    store.shards[0].sync_handle().sync().unwrap();
    fill(&mut store, 100, 101);
    for survival in [Survival::None, Survival::Torn] {
        let lost = disk.fork(3);
        lost.crash(Crash::PowerLoss(survival));
        has_all(&mut Store::open(&lost, roomy()).unwrap(), 100);
    }
}

#[test]
fn a_disk_that_fills_up_is_met_before_the_window_and_reads_go_on() {
    let disk = MemoryDisk::new(1);
    disk.open_windows();
    let mut store = Store::open(&disk, Options { log_segment_bytes: 4 << 10, ..roomy() }).unwrap();
    fill(&mut store, 0, 20);
    disk.set_capacity(Some(disk.used()));
    // What is ready can still be used; the next segment has no room.
    let refused = (20..500).find_map(|i| {
        let done = store.shards[0].apply(&put(&key(i), &[7; 40]), Durability::Os);
        done.err().map(|error| (i, error))
    });
    let (i, error) = refused.unwrap();
    assert!(error == Error::NoSpace && i > 30, "{error:?} at row {i}");
    has_all(&mut store, i);
    disk.set_capacity(None);
    fill(&mut store, i, i + 60);
    drop(store);
    disk.crash(Crash::ProcessKill);
    has_all(&mut Store::open(&disk, roomy()).unwrap(), i + 60);
}

#[test]
fn where_the_disk_refuses_a_page_the_log_is_written_by_calls() {
    let disk = MemoryDisk::new(1);
    disk.open_windows();
    let mut store = Store::open(&disk, roomy()).unwrap();
    fill(&mut store, 0, 40);
    let before = disk.window_writes();
    assert!(before > 0);
    // A sync takes pages away; whether they can be had again is asked before the next frame.
    disk.refuse_windows();
    store.shards[0].sync_handle().sync().unwrap();
    fill(&mut store, 40, 80);
    assert_eq!(disk.window_writes(), before);
    drop(store);
    disk.crash(Crash::ProcessKill);
    has_all(&mut Store::open(&disk, roomy()).unwrap(), 80);
}

#[test]
fn frames_that_are_synced_each_for_itself_are_written_by_calls() {
    let disk = MemoryDisk::new(1);
    disk.open_windows();
    let mut store = Store::open(&disk, roomy()).unwrap();
    for i in 0..200 {
        store.shards[0].apply(&put(&key(i), &[7; 40]), Durability::Sync).unwrap();
    }
    assert_eq!(disk.window_writes(), 0);
}

#[test]
fn a_window_onto_a_real_file_is_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FileDisk::new(directory.path()).unwrap();
    let file = disk.create("a").unwrap();
    file.write_at(&[0; 300_000], 0).unwrap();
    let Some(mut window) = file.window(1 << 20).unwrap() else {
        println!("SKIPPED: this file system has no windows");
        return;
    };
    window.ready(1000..200_000).unwrap();
    window.write(b"first", 1000);
    window.write(b"last", 199_996);
    let read = |offset: u64, len: usize| {
        let mut bytes = vec![0; len];
        disk.open("a").unwrap().read_at(&mut bytes, offset).unwrap();
        bytes
    };
    assert_eq!((read(1000, 5), read(199_996, 5)), (b"first".to_vec(), b"last\0".to_vec()));
    // Moved on, and over what was there before.
    window.ready(199_990..300_000).unwrap();
    window.write(b"over it", 199_996);
    file.write_at(b"by a call", 250_000).unwrap();
    file.sync().unwrap();
    window.ready(199_990..300_000).unwrap();
    window.write(b"and back", 250_003);
    assert_eq!(read(199_996, 8), b"over it\0");
    assert_eq!(read(250_000, 11), b"by and back");
    // Beyond what the file holds a write would be the process's end: the disk says so before.
    assert!(window.ready(299_000..700_000).is_err());
    drop(window);
    assert_eq!(read(199_996, 7), b"over it");
}

#[test]
fn a_store_on_a_real_disk_finds_again_what_went_through_windows() {
    let directory = tempfile::tempdir().unwrap();
    let disk = || Arc::new(FileDisk::new(directory.path()).unwrap());
    let options = Options { log_segment_bytes: 300_000, ..roomy() };
    let mut store = Store::open_on(disk(), options.clone()).unwrap();
    for round in 0..40 {
        fill(&mut store, 0, 200);
        if round % 7 == 0 {
            store.shards[0].sync_handle().sync().unwrap();
        }
        if round % 10 == 9 {
            store.shards[0].rotate();
            store.run_jobs().unwrap();
        }
    }
    drop(store);
    has_all(&mut Store::open_on(disk(), options).unwrap(), 200);
}
