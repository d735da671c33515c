//! Files made ready for the log: used, used again, never believed, never in the way.

use crate::fixture::{Store, options, put};
use ringdb_storage::{
    Crash, Disk, Durability, Error, JobKind, LogPosition, MemoryDisk, Options, Survival,
};
use std::ops::ControlFlow;

fn logs(disk: &MemoryDisk) -> Vec<(String, u64)> {
    let names = disk.list().unwrap().into_iter().filter(|name| name.ends_with(".log"));
    names.map(|name| (name.clone(), disk.open(&name).unwrap().len().unwrap())).collect()
}

/// Nobody syncs, nothing is made ready: a first sync asks for it.
fn sync_once(store: &mut Store) {
    store.run_jobs().unwrap();
    assert_eq!(store.engine.stats().log_spares, 0);
    store.shards[0].sync_handle().sync().unwrap();
}

fn retaining_nothing() -> Options {
    Options { log_retain_bytes: 0, memtable_bytes: 1 << 20, ..options(1) }
}

#[test]
fn a_segment_in_a_file_made_ready_does_not_grow_and_the_file_is_used_again() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, retaining_nothing()).unwrap();
    let mut grown = 0;
    sync_once(&mut store);
    for round in 0..6 {
        store.run_jobs().unwrap();
        assert!(store.engine.stats().log_spares >= 1, "round {round}");
        let used = disk.used();
        for i in 0..10 {
            let key = format!("k{i:03}").into_bytes();
            store.shards[0].apply(&put(&key, &[round; 40]), Durability::Sync).unwrap();
        }
        grown += disk.used() - used;
        store.shards[0].rotate();
    }
    assert_eq!(grown, 0, "no commit changed the size of a file");
    store.run_jobs().unwrap();
    let spares = store.engine.stats().log_spares;
    drop(store);
    disk.crash(Crash::PowerLoss(Survival::None));
    let mut store = Store::open(&disk, retaining_nothing()).unwrap();
    assert_eq!(store.engine.stats().log_spares, spares, "found again at the next start");
    assert_eq!(store.get(b"k003").unwrap().as_deref(), Some(&[5; 40][..]));
}

#[test]
fn what_a_file_held_before_is_not_part_of_the_log() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, retaining_nothing()).unwrap();
    sync_once(&mut store);
    store.run_jobs().unwrap();
    let fill = |store: &mut Store, from: u32, to: u32| {
        for i in from..to {
            let key = format!("k{i:03}").into_bytes();
            store.shards[0].apply(&put(&key, b"same length"), Durability::Sync).unwrap();
        }
    };
    // The first life ends with many frames, the second has few of the same size before them.
    fill(&mut store, 0, 20);
    store.shards[0].rotate();
    fill(&mut store, 20, 21);
    store.run_jobs().unwrap();
    store.shards[0].rotate();
    let mut second = Vec::new();
    fill(&mut store, 21, 23);
    let start = LogPosition::default();
    let read = |store: &Store, found: &mut Vec<u64>| {
        let mut each = |position: LogPosition, _: ringdb_storage::LogBatch<'_>| {
            found.push(position.sequence);
            ControlFlow::Continue(())
        };
        store.engine.read_log(Some(start), &mut each).unwrap();
    };
    read(&store, &mut second);
    assert_eq!(second, [21, 22, 23]);
    let (_, len) = logs(&disk).pop().unwrap();
    assert!(len >= 3 << 10, "the last segment is in the file of the first: {:?}", logs(&disk));
    for crash in [Crash::ProcessKill, Crash::PowerLoss(Survival::None)] {
        let fork = disk.fork(2);
        fork.crash(crash);
        let mut replayed = Vec::new();
        let again = ringdb_storage::Engine::open(
            std::sync::Arc::new(fork.clone()),
            retaining_nothing(),
            std::sync::Arc::new(crate::fixture::Append),
            &mut |batch| replayed.push(batch.first_sequence()),
        );
        assert!(again.is_ok());
        assert_eq!(replayed, [21, 22, 23]);
        assert!(logs(&fork).iter().all(|(_, len)| *len < 1 << 10), "cut to what counts");
    }
}

#[test]
fn rot_before_the_end_is_damage_although_a_former_life_stands_behind() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, retaining_nothing()).unwrap();
    sync_once(&mut store);
    store.run_jobs().unwrap();
    for i in 0..12 {
        let key = format!("k{i:03}").into_bytes();
        store.shards[0].apply(&put(&key, b"same length"), Durability::Sync).unwrap();
        if i == 8 {
            store.shards[0].rotate();
            store.run_jobs().unwrap();
        }
    }
    // Says that the last row is durable.
    store.shards[0].commit().unwrap();
    drop(store);
    disk.crash(Crash::ProcessKill);
    let (name, _) = logs(&disk).pop().unwrap();
    let mut noticed = 0;
    for offset in (0..400).step_by(8) {
        let fork = disk.fork(1);
        assert!(fork.rot(&name, offset, 1));
        match Store::open(&fork, retaining_nothing()) {
            Err(ringdb_storage::OpenError::Damaged { .. }) => noticed += 1,
            Err(e) => panic!("{e}"),
            Ok(mut store) => {
                for i in 0..12 {
                    let key = format!("k{i:03}").into_bytes();
                    assert!(store.get(&key).unwrap().is_some(), "row {i}, rot at {offset}");
                }
            }
        }
    }
    assert!(noticed > 20, "{noticed}");
}

#[test]
fn a_full_disk_makes_no_spare_and_takes_none_from_the_log() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, options(1)).unwrap();
    store.shards[0].apply(&put(b"k001", b"before"), Durability::Sync).unwrap();
    disk.set_capacity(Some(disk.used() + 700));
    let job = store.engine.next_job().unwrap();
    assert_eq!(job.kind(), JobKind::Fill);
    assert_eq!(job.run(), Err(Error::NoSpace));
    assert!(!disk.list().unwrap().iter().any(|name| name.ends_with(".spare")), "given back");
    store.shards[0].apply(&put(b"k002", b"still"), Durability::Sync).unwrap();
    disk.set_capacity(None);
    store.run_jobs().unwrap();
    assert_eq!(store.engine.stats().log_spares, 1);
    // With a file made ready, a full disk does not stop the log.
    disk.set_capacity(Some(disk.used()));
    for _ in 0..10 {
        store.shards[0].apply(&put(b"k003", &[3; 50]), Durability::Sync).unwrap();
    }
}

#[test]
fn a_spare_that_is_a_segment_under_a_second_name_is_not_used_again() {
    let content = |disk: &MemoryDisk, name: &str| {
        let file = disk.open(name).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        bytes
    };
    let fill = |store: &mut Store, keys: std::ops::Range<u32>| {
        for i in keys {
            let key = format!("k{i:03}").into_bytes();
            store.shards[0].apply(&put(&key, &[i as u8; 400]), Durability::Sync).unwrap();
        }
    };
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, Options { log_spares: 0, ..retaining_nothing() }).unwrap();
    fill(&mut store, 0..20);
    drop(store);
    disk.crash(Crash::ProcessKill);
    let mut twice = 0;
    for stop in 0.. {
        // What was replayed comes into a table; then its log's files would be used again.
        let begun = disk.fork(stop);
        let mut store = Store::open(&begun, retaining_nothing()).unwrap();
        begun.power_fails_at_sync(begun.syncs() + stop);
        store.shards[0].rotate();
        let done = store.run_jobs();
        drop(store);
        for seed in 0..60 {
            let down = begun.fork(seed);
            down.crash(Crash::PowerLoss(Survival::Subset));
            let names = down.list().unwrap();
            let (spares, others): (Vec<_>, Vec<_>) =
                names.iter().partition(|name| name.ends_with(".spare"));
            let segments = others.iter().filter(|name| name.ends_with(".log"));
            let segments: Vec<_> = segments.map(|name| content(&down, name)).collect();
            twice += spares.iter().filter(|name| segments.contains(&content(&down, name))).count();
            let mut store = Store::open(&down, retaining_nothing()).unwrap();
            fill(&mut store, 20..40);
            drop(store);
            down.crash(Crash::ProcessKill);
            let mut store = Store::open(&down, retaining_nothing()).unwrap();
            for i in 0..40u8 {
                let found = store.get(format!("k{i:03}").as_bytes()).unwrap();
                assert_eq!(found.as_deref(), Some(&[i; 400][..]), "row {i}, {stop}, {seed}");
            }
        }
        if done.is_ok() {
            break;
        }
    }
    assert!(twice > 10, "{twice} had two names");
}
