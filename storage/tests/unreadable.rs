//! Sectors that cannot be read: a store is refused by a name and mended, and what can be read is kept.

use crate::faulty::Faulty;
use crate::fixture::{Append, Rows, Store, options, put};
use ringdb_storage::{
    Crash, Direction, Disk, Durability, Error, MemoryDisk, OpenError, Options, Overlay, Place,
    repair,
};
use std::ops::Range;
use std::sync::Arc;

const SECTOR: u64 = 512;

fn key(i: u32) -> Vec<u8> {
    format!("k{i:03}").into_bytes()
}

fn value(i: u32) -> Vec<u8> {
    (0..300u32).map(|j| (j * j * (i + 3) % 251) as u8).collect()
}

fn bare() -> Options {
    Options { log_spares: 0, log_segment_bytes: 64 << 10, memtable_bytes: 64 << 10, ..options(1) }
}

fn tolerant() -> Options {
    Options { tolerate_damage: true, ..bare() }
}

/// Rows 0 to 29 in tables, 30 to 59 in the log alone.
fn build(large_value_bytes: usize) -> MemoryDisk {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, Options { large_value_bytes, ..bare() }).unwrap();
    for i in 0..60 {
        store.shards[0].apply(&put(&key(i), &value(i)), Durability::Sync).unwrap();
        if i == 29 {
            store.shards[0].rotate();
            store.run_jobs().unwrap();
        }
    }
    store.shards[0].commit().unwrap();
    drop(store);
    disk.crash(Crash::ProcessKill);
    disk
}

fn last_of(disk: &MemoryDisk, ending: &str) -> (String, u64) {
    let name = disk.list().unwrap().into_iter().rfind(|name| name.ends_with(ending)).unwrap();
    let len = disk.open(&name).unwrap().len().unwrap();
    (name, len)
}

fn sectors(len: u64) -> impl Iterator<Item = Range<u64>> {
    (0..len.div_ceil(SECTOR)).map(|i| i * SECTOR..(i + 1) * SECTOR)
}

fn open(faulty: &Faulty, options: Options) -> Result<Store, OpenError> {
    Store::open_on(Arc::new(faulty.clone()), options)
}

/// The keys of which nothing comes, and whether all others have their values.
fn lost(store: &mut Store) -> Vec<u32> {
    let mut lost = Vec::new();
    for i in 0..60 {
        match store.get(&key(i)) {
            Ok(Some(found)) => assert_eq!(found, value(i), "row {i}"),
            Ok(None) | Err(Error::Damaged(_)) => lost.push(i),
            Err(e) => panic!("row {i}: {e}"),
        }
    }
    lost
}

fn mend(faulty: &Faulty) -> ringdb_storage::Repair {
    let disk: Arc<dyn Disk> = Arc::new(faulty.clone());
    repair(&disk, Arc::new(Append)).unwrap()
}

#[test]
fn a_sector_of_the_log_that_cannot_be_read_is_refused_by_name_and_takes_no_more_than_its_rows() {
    let disk = build(usize::MAX);
    let (name, len) = last_of(&disk, ".log");
    let mut refusals = 0;
    for sector in sectors(len) {
        let faulty = Faulty::new(&disk.fork(sector.start));
        faulty.scratch(&name, sector.clone());
        let refused = open(&faulty, bare()).err().expect("rows are lost");
        assert!(matches!(&refused, OpenError::Disk(Error::Io { .. })), "{refused:?}");
        assert!(refused.to_string().contains(&name), "{refused}");
        refusals += 1;
        for _ in 0..3 {
            faulty.inner.crash(Crash::ProcessKill);
            let mut store = open(&faulty, tolerant()).unwrap();
            let lost = lost(&mut store);
            assert!((1..=4).contains(&lost.len()), "{sector:?}: {lost:?} are lost");
            let damage = store.engine.damage();
            assert!(matches!(damage[..], [ref d] if matches!(d.place, Place::Log { .. })));
            drop(store);
        }
        // What was once dealt with is no reason to refuse, though it still cannot be read.
        faulty.inner.crash(Crash::ProcessKill);
        let store = open(&faulty, tolerant()).unwrap();
        store.engine.repaired(&store.engine.damage()[0]).unwrap();
        drop(store);
        faulty.inner.crash(Crash::ProcessKill);
        assert!(open(&faulty, bare()).unwrap().engine.damage().is_empty());
    }
    assert!(refusals > 15, "{refusals} sectors");
}

#[test]
fn a_repair_keeps_all_but_the_sectors_that_cannot_be_read() {
    let mut repaired = 0;
    for (ending, large_value_bytes) in [(".log", usize::MAX), (".sst", usize::MAX), (".blob", 64)] {
        let disk = build(large_value_bytes);
        let (name, len) = last_of(&disk, ending);
        for sector in sectors(len) {
            let faulty = Faulty::new(&disk.fork(sector.start));
            faulty.scratch(&name, sector.clone());
            let mended = mend(&faulty);
            faulty.inner.crash(Crash::ProcessKill);
            let mut store = open(&faulty, bare()).unwrap();
            assert!(store.engine.damage().is_empty(), "{name} {sector:?}");
            let lost = lost(&mut store);
            let most = if ending == ".sst" { 30 } else { 4 };
            assert!(lost.len() <= most, "{name} {sector:?}: {lost:?}");
            for i in &lost {
                let told = mended.lost.iter().any(|damage| {
                    let after = damage.upper.as_ref().is_none_or(|upper| key(*i) < *upper);
                    damage.lower <= key(*i) && after
                });
                assert!(told, "{name} {sector:?}: row {i} of {mended:?}");
            }
            repaired += u32::from(!mended.lost.is_empty());
            let rows = store.shards[0].scan(b"", None, Direction::Forward, None).unwrap();
            let rows: Rows = rows.map(Result::unwrap).collect();
            assert_eq!(rows.len() as u64, mended.rows);
        }
    }
    assert!(repaired > 40, "{repaired} repaired");
}

#[test]
fn a_table_whose_end_cannot_be_read_is_refused_by_name_and_tolerated_as_damage() {
    let disk = build(usize::MAX);
    let (name, len) = last_of(&disk, ".sst");
    let faulty = Faulty::new(&disk);
    faulty.scratch(&name, len - 40..len);
    let refused = open(&faulty, bare()).err().expect("a table is lost");
    assert!(matches!(&refused, OpenError::Disk(Error::Io { .. })), "{refused:?}");
    assert!(refused.to_string().contains(&name), "{refused}");
    faulty.inner.crash(Crash::ProcessKill);
    let mut store = open(&faulty, tolerant()).unwrap();
    assert!(matches!(store.get(&key(7)), Err(Error::Damaged(_))));
    assert_eq!(store.get(&key(45)).unwrap(), Some(value(45)));
    let damage = store.engine.damage();
    assert!(matches!(damage[..], [ref d] if matches!(d.place, Place::Table { offset: None, .. })));
}

#[test]
fn what_can_be_read_the_second_time_is_no_damage() {
    for ending in [".log", ".sst"] {
        let disk = build(usize::MAX);
        let (name, len) = last_of(&disk, ending);
        let faulty = Faulty::new(&disk);
        faulty.scratch_lightly(&name, len - 60..len - 20, 1);
        let mut store = open(&faulty, tolerant()).unwrap();
        assert_eq!(faulty.met(), 1, "{ending}");
        assert!(lost(&mut store).is_empty() && store.engine.damage().is_empty(), "{ending}");
    }
}

#[test]
fn what_cannot_be_read_behind_the_end_of_the_log_is_no_part_of_it() {
    let disk = build(usize::MAX);
    let (name, len) = last_of(&disk, ".log");
    // A file that was made ready is longer than what was written to it.
    disk.open(&name).unwrap().write_at(&[0; 8 << 10], len).unwrap();
    let end = len.next_multiple_of(SECTOR) + SECTOR;
    for options in [bare(), tolerant()] {
        let faulty = Faulty::new(&disk.fork(1));
        faulty.scratch(&name, end..end + SECTOR);
        faulty.scratch(&name, len + (6 << 10)..len + (7 << 10));
        let mut store = open(&faulty, options).unwrap();
        assert!(faulty.met() > 0 && store.engine.damage().is_empty());
        assert!(lost(&mut store).is_empty());
    }
    // Where the next frame would stand it cannot be told.
    let faulty = Faulty::new(&disk);
    faulty.scratch(&name, len..len + SECTOR);
    assert!(open(&faulty, bare()).is_err());
}

#[test]
fn looking_through_an_overlay_needs_no_byte_that_cannot_be_read_and_changes_none() {
    let disk = build(usize::MAX);
    let (name, len) = last_of(&disk, ".log");
    let faulty = Faulty::new(&disk);
    faulty.scratch(&name, 2048..2048 + SECTOR);
    for _ in 0..2 {
        let overlay = Arc::new(Overlay::new(Arc::new(faulty.clone())));
        let mut store = Store::open_on(overlay, tolerant()).unwrap();
        assert!((1..=4).contains(&lost(&mut store).len()));
        assert_eq!(store.engine.damage().len(), 1);
        assert_eq!(disk.open(&name).unwrap().len().unwrap(), len);
    }
}

#[test]
fn what_an_overlay_shows_of_a_log_that_nobody_synced_is_what_the_disk_shows() {
    // More than what is read, and then written again, at a time.
    let large = Options { log_segment_bytes: 1 << 20, memtable_bytes: 4 << 20, ..tolerant() };
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, large.clone()).unwrap();
    for i in 0..60 {
        store.shards[0].apply(&put(&key(i), &value(i).repeat(30)), Durability::Os).unwrap();
    }
    drop(store);
    disk.crash(Crash::ProcessKill);
    let (name, len) = last_of(&disk, ".log");
    assert!(len > 512 << 10);
    let look = |disk: Arc<dyn Disk>| {
        let mut store = Store::open_on(disk, large.clone()).unwrap();
        let found = (0..60).map(|i| store.get(&key(i)).unwrap().is_some()).collect::<Vec<_>>();
        (found, store.engine.damage())
    };
    for sector in sectors(len).step_by(37) {
        let faulty = Faulty::new(&disk.fork(sector.start));
        faulty.scratch(&name, sector.clone());
        let overlay: Arc<dyn Disk> = Arc::new(Overlay::new(Arc::new(faulty.clone())));
        let seen = look(overlay.clone());
        assert!(seen.0.contains(&false) && seen.1.len() == 1, "{sector:?}: {seen:?}");
        assert_eq!(look(overlay), seen, "{sector:?}, the second time");
        assert_eq!(look(Arc::new(faulty)), seen, "{sector:?}, on the disk itself");
    }
}

#[test]
fn bytes_that_cannot_be_read_below_an_overlay_cannot_until_they_are_written() {
    let disk = MemoryDisk::new(1);
    disk.create("a").unwrap().write_at(&[7; 4096], 0).unwrap();
    let faulty = Faulty::new(&disk);
    faulty.scratch("a", 1024..2048);
    let overlay = Overlay::new(Arc::new(faulty));
    let read = |name: &str, at: u64, len: usize| {
        let mut bytes = vec![0; len];
        let file = overlay.open(name).unwrap();
        file.read_at(&mut bytes, at).map(|()| bytes).ok()
    };
    let before = overlay.open("a").unwrap();
    before.write_at(&[1; 100], 0).unwrap();
    for name in ["a", "b"] {
        assert_eq!(read(name, 0, 100), Some(vec![1; 100]));
        assert_eq!((read(name, 1000, 24), read(name, 2048, 1)), (Some(vec![7; 24]), Some(vec![7])));
        assert!(read(name, 1000, 25).is_none() && read(name, 1536, 1).is_none());
        if name == "a" {
            overlay.rename("a", "b").unwrap();
        }
    }
    overlay.open("b").unwrap().write_at(&[2; 512], 1024).unwrap();
    assert_eq!(read("b", 1024, 512), Some(vec![2; 512]));
    assert!(read("b", 1024, 513).is_none());
    assert!(before.read_at(&mut [0], 1536).is_err() && before.read_at(&mut [0], 1024).is_ok());
    // Cut off and grown again it is zeros like all else.
    overlay.open("b").unwrap().truncate(1800).unwrap();
    overlay.open("b").unwrap().truncate(2000).unwrap();
    assert_eq!((read("b", 1800, 200), read("b", 1799, 1)), (Some(vec![0; 200]), None));
    overlay.create("b").unwrap().write_at(&[3; 4096], 0).unwrap();
    assert_eq!(read("b", 0, 4096), Some(vec![3; 4096]));
}

#[test]
fn a_manifest_whose_end_cannot_be_read_is_not_taken_for_an_older_one() {
    let disk = build(usize::MAX);
    let manifest =
        disk.list().unwrap().into_iter().find(|name| name.starts_with("MANIFEST")).unwrap();
    let len = disk.open(&manifest).unwrap().len().unwrap();
    for from in (0..len).step_by(60) {
        let faulty = Faulty::new(&disk.fork(from));
        faulty.scratch(&manifest, from..len);
        for options in [bare(), tolerant()] {
            let refused = open(&faulty, options).err().expect("nobody knows what it says");
            assert!(refused.to_string().contains(&manifest), "{refused}");
        }
        assert!(mend(&faulty).manifest_made_anew, "from {from}");
        let mut store = open(&faulty, bare()).unwrap();
        assert_eq!(lost(&mut store), [0u32; 0], "from {from} of {len}");
    }
}
