//! Repairs without a manifest, and such as were cut short: nothing that is there is thrown away, and nothing
//! is served before a repair has ended.

use crate::fixture::{Chance, Rows, Store, options, put};
use crate::narrowed::lose_manifest;
use crate::repair::{mend, rows};
use ringdb_storage::{
    Batch, Crash, Disk, Durability, MemoryDisk, OpenError, Options, Place, Survival,
};
use std::collections::BTreeMap;

/// 300 rows of which the last 60 are in the log alone; the segments before are gone.
fn mostly_flushed(durability: Durability) -> (MemoryDisk, Rows) {
    let disk = MemoryDisk::new(3);
    let options = Options { log_retain_bytes: 0, ..options(1) };
    let mut store = Store::open(&disk, options).unwrap();
    for i in 0..300u32 {
        let batch = put(format!("k{i:04}").as_bytes(), &[7; 60]);
        store.shards[0].apply(&batch, durability).unwrap();
        if i % 60 == 59 && i < 299 {
            store.shards[0].rotate();
            store.run_jobs().unwrap();
            store.shards[0].refresh();
        }
    }
    let before = rows(&store);
    drop(store);
    disk.crash(Crash::ProcessKill);
    lose_manifest(&disk);
    (disk, before)
}

#[test]
fn without_a_manifest_a_log_begins_where_the_first_of_it_that_is_there_does() {
    for durability in [Durability::Os, Durability::Sync] {
        let (disk, before) = mostly_flushed(durability);
        let segment = disk.list().unwrap().into_iter().find(|n| n.ends_with(".log")).unwrap();
        for header_rots in [false, true] {
            let fork = disk.fork(1);
            assert!(!header_rots || fork.rot(&segment, 20, 1));
            let mended = mend(&fork).unwrap();
            let what = format!("{durability:?}, header rots: {header_rots}: {mended:?}");
            assert_eq!(mended.rows, before.len() as u64, "{what}");
            assert!(mended.log_cuts.is_empty(), "{what}");
            assert!(matches!(mended.lost[..], [ref d] if d.place == Place::Manifest), "{what}");
            fork.crash(Crash::ProcessKill);
            assert_eq!(rows(&Store::open(&fork, options(1)).unwrap()), before, "{what}");
        }
    }
}

#[test]
fn the_number_of_a_file_that_was_moved_aside_is_not_used_again() {
    let (disk, _) = crate::damage::build(3, 8);
    let tables = |disk: &MemoryDisk| {
        let names = disk.list().unwrap().into_iter();
        names.filter(|n| n.ends_with(".sst")).collect::<Vec<_>>()
    };
    let table = tables(&disk).pop().unwrap();
    assert!(disk.rot(&table, 30, 1));
    assert!(mend(&disk).unwrap().aside.contains(&table));
    disk.crash(Crash::ProcessKill);
    let mut store = Store::open(&disk, options(1)).unwrap();
    store.shards[0].apply(&put(b"in the log", b"alone"), Durability::Sync).unwrap();
    drop(store);
    disk.crash(Crash::ProcessKill);
    // All that counts on is gone, so that only the names say which numbers were used.
    lose_manifest(&disk);
    for name in disk.list().unwrap() {
        if name.ends_with(".sst") || name.ends_with(".blob") {
            disk.remove(&name).unwrap();
        }
    }
    assert!(mend(&disk).unwrap().rows > 0);
    let written = tables(&disk);
    assert!(!written.is_empty() && written.iter().all(|new| *new > table), "{table}: {written:?}");
}

/// Two runs of a store, the manifest of the first beside that of the second.
fn two_manifests() -> (MemoryDisk, Rows, String, String) {
    let disk = MemoryDisk::new(3);
    let opts = Options { log_retain_bytes: 0, level0_tables: 50, ..options(1) };
    let fill = |store: &mut Store, from: u32| {
        for i in from..from + 50 {
            let batch = put(format!("k{i:04}").as_bytes(), &[7; 60]);
            store.shards[0].apply(&batch, Durability::Sync).unwrap();
        }
        store.shards[0].rotate();
        store.run_jobs().unwrap();
        store.shards[0].refresh();
    };
    let newest = || disk.list().unwrap().into_iter().rfind(|n| n.starts_with("MANIFEST")).unwrap();
    let mut store = Store::open(&disk, opts.clone()).unwrap();
    fill(&mut store, 0);
    drop(store);
    disk.crash(Crash::ProcessKill);
    let older = newest();
    let file = disk.open(&older).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(&mut bytes, 0).unwrap();
    let mut store = Store::open(&disk, opts).unwrap();
    fill(&mut store, 50);
    fill(&mut store, 100);
    store.shards[0].apply(&put(b"z", b"z"), Durability::Sync).unwrap();
    store.run_jobs().unwrap();
    let before = rows(&store);
    drop(store);
    disk.crash(Crash::ProcessKill);
    let newer = newest();
    assert!(newer > older && disk.rot("CURRENT", 3, 1));
    disk.create(&older).unwrap().write_at(&bytes, 0).unwrap();
    (disk, before, older, newer)
}

#[test]
fn a_manifest_that_was_left_over_does_not_stand_for_a_newer_one_that_is_bad_or_gone() {
    let (disk, before, older, newer) = two_manifests();
    let rotten = disk.fork(1);
    assert!(rotten.rot(&newer, 20, 1));
    let gone = disk.fork(2);
    gone.remove(&newer).unwrap();
    for (fork, anew) in [(disk, false), (rotten, true), (gone, true)] {
        let mended = mend(&fork).unwrap();
        assert_eq!(mended.manifest_made_anew, anew, "{older}: {mended:?}");
        assert_eq!(mended.rows, before.len() as u64, "{mended:?}");
        fork.crash(Crash::ProcessKill);
        assert_eq!(rows(&Store::open(&fork, options(1)).unwrap()), before, "{mended:?}");
    }
}

#[test]
fn a_repair_that_is_cut_short_is_finished_by_the_next_which_says_and_keeps_all() {
    let (disk, before) = crate::damage::build(3, 8);
    let table = disk.list().unwrap().into_iter().rfind(|n| n.ends_with(".sst")).unwrap();
    assert!(disk.rot(&table, 30, 1));
    let expected = mend(&disk.fork(0)).unwrap();
    let refused = AtSyncs::run(&disk, |fork, what| {
        let aside = format!("{table}.bad");
        let is_there = || fork.list().unwrap().iter().any(|name| *name == table || *name == aside);
        // Where the halves of a rename survive each by chance, the disk may have lost it.
        let kept = is_there();
        assert!(kept || what.contains("Subset") || what.contains("Torn"), "{what}");
        let mended = mend(fork).unwrap();
        assert_eq!(is_there(), kept, "{what}: {mended:?}");
        fork.crash(Crash::ProcessKill);
        let ended = mended.lost.is_empty();
        assert!(ended || mended.lost == expected.lost, "{what}: {mended:?} for {expected:?}");
        assert!(ended || !kept || mended.aside == expected.aside, "{what}: {mended:?}");
        let store = Store::open(fork, options(1)).unwrap();
        assert!(store.engine.damage().is_empty(), "{what}");
        let found = rows(&store);
        assert_eq!(found.len() as u64, expected.rows, "{what}");
        assert!(before.len() > found.len());
        !ended
    });
    assert!(refused.told > 10 && refused.untold <= 12, "{refused:?}");
}

/// How many repairs that were cut short left a store that did not open, and what the next made of it.
#[derive(Debug, Default)]
struct AtSyncs {
    refused: usize,
    told: usize,
    untold: usize,
}

impl AtSyncs {
    /// Cuts a repair short at each sync; `next` makes of it what it should be, and says if anything was told.
    fn run(disk: &MemoryDisk, next: impl Fn(&MemoryDisk, &str) -> bool) -> Self {
        let mut seen = Self::default();
        for number in 0.. {
            let cut_short = disk.fork(number);
            cut_short.power_fails_at_sync(cut_short.syncs() + number);
            if mend(&cut_short).is_ok() {
                return seen;
            }
            for fate in [Survival::None, Survival::All, Survival::Subset, Survival::Torn] {
                let fork = cut_short.fork(number);
                fork.crash(Crash::PowerLoss(fate));
                let what = format!("power loss at sync {number}, {fate:?}");
                let begun = fork.list().unwrap().contains(&"REPAIR".to_owned());
                if begun {
                    for tolerate_damage in [false, true] {
                        let options = Options { tolerate_damage, ..options(1) };
                        let refused = Store::open(&fork.fork(1), options).err();
                        assert_eq!(refused, Some(OpenError::RepairBegun), "{what}");
                    }
                    seen.refused += 1;
                }
                let told = next(&fork, &what);
                seen.told += usize::from(told);
                seen.untold += usize::from(!told);
                assert!(!fork.list().unwrap().contains(&"REPAIR".to_owned()), "{what}");
            }
        }
        unreachable!()
    }
}

#[test]
fn a_manifest_made_anew_shows_nothing_stale_wherever_the_repair_is_cut_short() {
    let (mut refused, mut cut) = (0, 0);
    for seed in 0..8u64 {
        let disk = MemoryDisk::new(seed);
        let small =
            Options { log_retain_bytes: 0, table_bytes: 64 << 10, level0_tables: 2, ..options(1) };
        let mut store = Store::open(&disk, small).unwrap();
        let mut chance = Chance(seed);
        let mut expected: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut base = 0;
        for i in 0..1500u32 {
            if i % 40 == 0 {
                base = chance.below(50);
            }
            let key = format!("k{:03}", base + chance.below(10)).into_bytes();
            let durability = if i < 1499 { Durability::Os } else { Durability::Sync };
            if chance.below(4) == 0 {
                let mut batch = Batch::new();
                batch.delete(&key);
                store.shards[0].apply(&batch, durability).unwrap();
                expected.remove(&key);
            } else {
                let value = format!("value {i} {}", "x".repeat(40)).into_bytes();
                store.shards[0].apply(&put(&key, &value), durability).unwrap();
                expected.insert(key, value);
            }
            if i % 40 == 39 && i < 1499 {
                store.shards[0].rotate();
                while let Some(job) = store.engine.next_flush() {
                    job.run().unwrap();
                }
                for _ in 0..chance.below(4) {
                    if let Some(job) = store.engine.next_job() {
                        job.run().unwrap();
                    }
                }
                store.shards[0].refresh();
            }
        }
        drop(store);
        disk.crash(Crash::ProcessKill);
        lose_manifest(&disk);
        let expected: Rows = expected.into_iter().collect();
        let whole = disk.fork(0);
        mend(&whole).unwrap();
        whole.crash(Crash::ProcessKill);
        let bare = rows(&Store::open(&whole, options(1)).unwrap());
        // Deletions that merging dropped cannot be told any more; those that count do.
        assert_eq!(bare, expected, "seed {seed}");
        let seen = AtSyncs::run(&disk, |fork, what| {
            let mended = mend(fork).unwrap();
            fork.crash(Crash::ProcessKill);
            let found = rows(&Store::open(fork, options(1)).unwrap());
            for row in &found {
                assert!(expected.contains(row), "seed {seed}, {what}: {row:?}, {mended:?}");
            }
            assert_eq!(found.len(), expected.len(), "seed {seed}, {what}: {mended:?}");
            mended.manifest_made_anew
        });
        refused += seen.refused;
        cut += seen.told + seen.untold;
    }
    assert!(refused > 50, "{refused} of {cut}");
}
