//! A disk that is full when a store is opened: all that was promised can be read, and writes go on when
//! there is space, whatever of the start had no room.

use crate::faulty::Faulty;
use crate::fixture::{Store, options, put};
use ringdb_storage::limits::MEMTABLE_BYTES_MAX;
use ringdb_storage::{
    Crash, Disk, Durability, Error, Job, JobKind, MemoryDisk, OpenError, Options, Survival,
};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

const FATES: [Crash; 5] = [
    Crash::ProcessKill,
    Crash::PowerLoss(Survival::None),
    Crash::PowerLoss(Survival::All),
    Crash::PowerLoss(Survival::Subset),
    Crash::PowerLoss(Survival::Torn),
];

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn key(i: u32) -> Vec<u8> {
    format!("k{i:03}").into_bytes()
}

fn bare(shards: usize) -> Options {
    Options { log_spares: 0, ..options(shards) }
}

/// A process died over rows in tables, in the log, and in the page cache alone.
fn killed(seed: u64) -> (MemoryDisk, Rows) {
    let disk = MemoryDisk::new(seed);
    let mut store = Store::open(&disk, bare(1)).unwrap();
    let mut rows = Rows::new();
    for i in 0..60 {
        let durability = if i < 40 { Durability::Sync } else { Durability::Os };
        rows.insert(key(i), vec![i as u8; 60]);
        store.shards[0].apply(&put(&key(i), &rows[&key(i)]), durability).unwrap();
        if i == 30 {
            store.shards[0].rotate();
            store.run_jobs().unwrap();
        }
    }
    drop(store);
    disk.crash(Crash::ProcessKill);
    (disk, rows)
}

fn fill_up(disk: &MemoryDisk, room: u64) {
    disk.set_capacity(Some(disk.used() + room));
}

fn holds(store: &mut Store, rows: &Rows) -> Option<String> {
    let differs = |(key, value): (&Vec<u8>, &Vec<u8>)| {
        let found = store.get(key);
        (found.as_ref() != Ok(&Some(value.clone())))
            .then(|| format!("{}: {found:?}", String::from_utf8_lossy(key)))
    };
    rows.iter().find_map(differs)
}

fn size_of(disk: &MemoryDisk, ending: &str) -> u64 {
    let names = disk.list().unwrap().into_iter().filter(|name| name.ends_with(ending));
    names.map(|name| disk.open(&name).unwrap().len().unwrap()).sum()
}

#[test]
fn a_store_on_a_full_disk_opens_is_read_and_is_written_again_when_there_is_space() {
    let (disk, mut rows) = killed(1);
    fill_up(&disk, 0);
    for start in 0..3 {
        let mut store = Store::open(&disk, bare(1 + start % 2)).unwrap();
        assert_eq!(holds(&mut store, &rows), None, "start {start}");
        let refused = store.shards[0].apply(&put(b"k000", b"no"), Durability::Os);
        assert_eq!(refused, Err(Error::NoSpace));
        assert_eq!(store.shards[0].commit(), Err(Error::NoSpace), "and may be tried again");
        assert!(!store.engine.stats().poisoned);
        drop(store);
        disk.crash(Crash::ProcessKill);
    }
    let mut store = Store::open(&disk, bare(1)).unwrap();
    disk.set_capacity(None);
    rows.insert(key(99), b"after".to_vec());
    store.shards[0].apply(&put(&key(99), b"after"), Durability::Sync).unwrap();
    store.shards[0].rotate();
    store.run_jobs().unwrap();
    drop(store);
    disk.crash(Crash::PowerLoss(Survival::None));
    assert_eq!(holds(&mut Store::open(&disk, bare(1)).unwrap(), &rows), None);
}

#[test]
fn what_nothing_refers_to_gives_way_to_a_start_on_a_full_disk() {
    for name in ["0000000099.sst", "0000000099.blob", "0000000099.spare", "FORMAT.tmp"] {
        let (disk, mut rows) = killed(2);
        disk.create(name).unwrap().write_at(&[1; 50_000], 0).unwrap();
        fill_up(&disk, 0);
        let mut store = Store::open(&disk, bare(1)).unwrap();
        assert!(!disk.list().unwrap().contains(&name.to_owned()), "{name}");
        rows.insert(key(99), b"there is room".to_vec());
        store.shards[0].apply(&put(&key(99), b"there is room"), Durability::Sync).unwrap();
        assert_eq!(holds(&mut store, &rows), None);
    }
}

#[test]
fn a_table_that_the_manifest_in_force_may_yet_need_does_not_give_way() {
    // A compaction's edit is in the page cache alone, since its sync failed.
    let disk = MemoryDisk::new(3);
    let mut store = Store::open(&disk, bare(1)).unwrap();
    let mut rows = Rows::new();
    for i in 0..40 {
        rows.insert(key(i), vec![i as u8; 60]);
        store.shards[0].apply(&put(&key(i), &rows[&key(i)]), Durability::Sync).unwrap();
        if i % 10 == 9 {
            store.shards[0].rotate();
            while let Some(flush) = store.engine.next_flush() {
                flush.run().unwrap();
            }
        }
    }
    drop(store);
    disk.crash(Crash::ProcessKill);
    let faulty = Faulty::new(&disk);
    let mut store = Store::open_on(Arc::new(faulty.clone()), bare(1)).unwrap();
    store.shards[0].rotate();
    store.run_jobs().unwrap();
    for i in 0..4 {
        for key in [key(i), key(39)] {
            rows.insert(key.clone(), vec![7; 60]);
            store.shards[0].apply(&put(&key, &[7; 60]), Durability::Sync).unwrap();
        }
        store.shards[0].rotate();
        while let Some(flush) = store.engine.next_flush() {
            flush.run().unwrap();
        }
    }
    faulty.fail_sync("MANIFEST");
    let merged = std::iter::from_fn(|| store.engine.next_job()).try_for_each(Job::run);
    assert!(matches!(merged, Err(Error::Poisoned { .. })), "{merged:?}");
    drop(store);
    disk.crash(Crash::ProcessKill);
    fill_up(&disk, 0);
    for cut in 0..8 {
        let cut_short = disk.fork(cut);
        cut_short.power_fails_at_sync(cut);
        drop(Store::open(&cut_short, bare(1)));
        for seed in 0..40 {
            let fate = FATES[(seed % 5) as usize];
            let fork = cut_short.fork(cut * 100 + seed);
            fork.crash(fate);
            let found = holds(&mut Store::open(&fork, bare(1)).unwrap(), &rows);
            assert_eq!(found, None, "power off at sync {cut}, {fate:?}");
        }
    }
}

#[test]
fn whatever_has_no_room_at_a_start_the_store_is_read_and_a_crash_takes_nothing() {
    let (disk, rows) = killed(4);
    let (mut waited, mut went_on) = (0, 0);
    for room in (0..480).step_by(3) {
        let start = disk.fork(room);
        if room % 2 == 0 {
            let format = start.create("FORMAT").unwrap();
            format.write_at(b"ringdb storage 1\n", 0).unwrap();
            format.sync().unwrap();
            start.sync_dir().unwrap();
        }
        let full = start.fork(room);
        fill_up(&full, room);
        let mut store = Store::open(&full, bare(1)).unwrap();
        assert_eq!(holds(&mut store, &rows), None, "room for {room}");
        let first = store.shards[0].apply(&put(b"new", b"1"), Durability::Sync);
        let mut promised = rows.clone();
        match first {
            Ok(_) => {
                promised.insert(b"new".to_vec(), b"1".to_vec());
                went_on += 1;
            }
            Err(Error::NoSpace) => waited += 1,
            Err(e) => panic!("room for {room}: {e}"),
        }
        for (i, fate) in FATES.into_iter().enumerate() {
            let fork = full.fork(room * 10 + i as u64);
            fork.crash(fate);
            let mut store = Store::open(&fork, bare(1 + i % 2)).unwrap();
            assert_eq!(holds(&mut store, &promised), None, "room for {room}, {fate:?}");
            // No name of the start that waited is used twice.
            fork.set_capacity(None);
            store.shard(b"newer").apply(&put(b"newer", b"2"), Durability::Sync).unwrap();
            drop(store);
            fork.crash(Crash::ProcessKill);
            let mut store = Store::open(&fork, bare(1)).unwrap();
            assert_eq!(holds(&mut store, &promised), None, "room for {room}, {fate:?}, later");
            assert_eq!(store.get(b"newer").unwrap().as_deref(), Some(&b"2"[..]));
        }
        // There is space: the rest of the start, cut short at any sync.
        full.set_capacity(None);
        let syncs = full.syncs();
        store.shards[0].commit().unwrap();
        store.shards[0].sync_handle().sync().unwrap();
        let rest = full.syncs() - syncs;
        drop(store);
        let mut after = rows.clone();
        after.insert(b"new".to_vec(), b"1".to_vec());
        for (i, fate) in FATES.into_iter().enumerate() {
            let fork = full.fork(room * 10 + i as u64);
            fork.crash(fate);
            let mut store = Store::open(&fork, bare(1 + i % 2)).unwrap();
            assert_eq!(holds(&mut store, &after), None, "room for {room}, then {fate:?}");
        }
        for at in 0..rest {
            let fork = start.fork(room);
            fill_up(&fork, room);
            let mut store = Store::open(&fork, bare(1)).unwrap();
            fork.set_capacity(None);
            fork.power_fails_at_sync(fork.syncs() + at);
            let _ = store.shards[0].apply(&put(b"new", b"1"), Durability::Sync);
            drop(store);
            for (i, fate) in FATES.into_iter().enumerate().skip(1) {
                let fork = fork.fork(at * 10 + i as u64);
                fork.crash(fate);
                let mut store = Store::open(&fork, bare(1 + i % 2)).unwrap();
                let found = holds(&mut store, &rows);
                assert_eq!(found, None, "room for {room}, power off at sync {at}, {fate:?}");
            }
        }
    }
    assert!(waited > 20 && went_on > 20, "{waited} waited, {went_on} went on");
}

#[test]
fn a_background_job_that_finds_space_ends_the_wait_too() {
    let (disk, rows) = killed(5);
    fill_up(&disk, 0);
    let mut store = Store::open(&disk, bare(1)).unwrap();
    store.shards[0].rotate();
    assert_eq!(store.run_jobs(), Err(Error::NoSpace));
    assert_eq!(holds(&mut store, &rows), None);
    disk.set_capacity(None);
    store.run_jobs().unwrap();
    assert!(size_of(&disk, ".sst") > 0 && store.engine.stats().unflushed_memtables == 0);
    drop(store);
    disk.crash(Crash::PowerLoss(Survival::None));
    assert_eq!(holds(&mut Store::open(&disk, bare(1)).unwrap(), &rows), None);
}

#[test]
fn no_file_is_removed_by_an_edit_that_a_power_loss_may_take_back() {
    let (disk, _) = killed(6);
    fill_up(&disk, 0);
    // What the log keeps for others is to go.
    let mut store = Store::open(&disk, Options { log_retain_bytes: 0, ..bare(1) }).unwrap();
    let removes = |store: &Store| {
        let jobs: Vec<Job> = std::iter::from_fn(|| store.engine.next_job()).collect();
        jobs.iter().filter(|job| job.kind() == JobKind::Remove).count()
    };
    assert_eq!(removes(&store), 0);
    disk.set_capacity(None);
    store.shards[0].apply(&put(b"k000", b"there is room"), Durability::Sync).unwrap();
    assert_eq!(removes(&store), 1, "once the manifest is written");
}

#[test]
fn a_new_store_on_a_full_disk_says_so() {
    let disk = MemoryDisk::new(6);
    fill_up(&disk, 0);
    assert_eq!(Store::open(&disk, bare(1)).err(), Some(OpenError::Disk(Error::NoSpace)));
    disk.set_capacity(None);
    Store::open(&disk, bare(1)).unwrap();
}

#[test]
fn a_rename_for_which_there_is_no_room_poisons_nothing_and_one_in_doubt_does() {
    let full = ErrorKind::StorageFull;
    for (kind, lies, poisons) in
        [(full, false, false), (full, true, true), (ErrorKind::Other, false, true)]
    {
        let disk = MemoryDisk::new(7);
        let faulty = Faulty::new(&disk);
        let small = Options { manifest_bytes: 1, ..bare(1) };
        let mut store = Store::open_on(Arc::new(faulty.clone()), small).unwrap();
        faulty.fail_rename("CURRENT", kind, lies);
        let mut rows = Rows::new();
        for i in 0..40 {
            let done = store.shards[0].apply(&put(&key(i), b"v"), Durability::Sync);
            rows.extend(done.is_ok().then(|| (key(i), b"v".to_vec())));
            store.shards[0].rotate();
            let _ = store.run_jobs();
        }
        assert!(!faulty.waits_for_a_rename(), "the manifest was written anew");
        assert_eq!(store.engine.stats().poisoned, poisons, "{kind:?}, {lies}");
        assert!(poisons || rows.len() == 40);
        drop(store);
        disk.crash(Crash::PowerLoss(Survival::None));
        assert_eq!(holds(&mut Store::open(&disk, bare(1)).unwrap(), &rows), None);
    }
}

#[test]
fn a_memtable_larger_than_can_be_is_refused_at_once() {
    for memtable_bytes in [usize::MAX, MEMTABLE_BYTES_MAX + 1] {
        let opened = Store::open(&MemoryDisk::new(8), Options { memtable_bytes, ..bare(1) });
        let Some(OpenError::Options { reason }) = opened.err() else { panic!("it is too large") };
        assert_eq!(reason, "memtable_bytes must be at most 16 GiB");
    }
    let options = Options { memtable_bytes: MEMTABLE_BYTES_MAX, ..bare(1) };
    Store::open(&MemoryDisk::new(8), options).unwrap();
}
