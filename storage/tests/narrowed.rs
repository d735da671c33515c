//! Narrowed tables: of a file of which only a part counts any more, the rest stays gone.

use crate::around::{Rows, compact, filled, flush, key, small, write};
use crate::fixture::{Append, Chance, Store, put};
use ringdb_storage::{
    Batch, Damage, Direction, Disk, Durability, Error, Job, JobKind, MemoryDisk, Options, Place,
    TableInfo, repair,
};
use std::sync::Arc;

fn name(number: u64) -> String {
    format!("{number:010}.sst")
}

fn table(store: &Store, number: u64) -> Option<TableInfo> {
    store.engine.tables().into_iter().find(|table| table.number == number)
}

/// A store with a table that has a bad block and was narrowed to what is around it; and the table as
/// it was before.
fn narrow(disk: &MemoryDisk, chance: &mut Chance) -> (Store, Rows, TableInfo) {
    narrow_after(disk, chance, |_, _| {})
}

/// The same, with what happens `before` the table is narrowed.
fn narrow_after(
    disk: &MemoryDisk,
    chance: &mut Chance,
    before: impl FnOnce(&Store, &TableInfo),
) -> (Store, Rows, TableInfo) {
    let (mut store, mut rows) = filled(disk, chance);
    let all = store.engine.tables();
    let was = all.iter().max_by_key(|table| table.bytes).unwrap().clone();
    assert!(disk.rot(&name(was.number), was.bytes / 3, 1));
    before(&store, &was);
    for _ in 0..60 {
        write(&mut store, chance, &mut rows, 60);
        flush(&mut store);
        compact(&mut store);
        let now = table(&store, was.number).unwrap();
        if now.smallest > was.smallest && now.largest < was.largest {
            return (store, rows, was);
        }
    }
    panic!("nothing was narrowed: {:?}", store.engine.tables());
}

pub(crate) fn lose_manifest(disk: &MemoryDisk) {
    for name in disk.list().unwrap() {
        if name == "CURRENT" || name.starts_with("MANIFEST") {
            disk.remove(&name).unwrap();
        }
    }
    disk.sync_dir().unwrap();
}

#[test]
fn rows_that_were_deleted_stay_so_when_the_manifest_is_lost() {
    (0..6).for_each(|seed| deleted_and_repaired(seed, true, false));
}

#[test]
fn rows_that_were_deleted_stay_so_when_a_checkpoint_has_lost_its_manifest() {
    (0..4).for_each(|seed| deleted_and_repaired(seed, true, true));
}

#[test]
fn rows_that_were_deleted_stay_so_when_what_is_left_of_a_table_is_repaired() {
    (0..6).for_each(|seed| deleted_and_repaired(seed, false, false));
}

/// `lost`: so is the manifest. `checkpoint`: not of the store, but of a checkpoint of it.
fn deleted_and_repaired(seed: u64, lost: bool, checkpoint: bool) {
    let mut disk = MemoryDisk::new(seed);
    let (mut store, _, was) = narrow(&disk, &mut Chance(seed));
    for i in 0..1002 {
        let mut batch = Batch::new();
        batch.delete(&key(100 * i));
        store.shard(&key(100 * i)).apply(&batch, Durability::Buffered).unwrap();
    }
    flush(&mut store);
    compact(&mut store);
    // Until the log does not know of the deletions any more.
    for round in 0..20_u8 {
        for i in (0..1000).step_by(5) {
            let k = key(100 * i + 50);
            store.shard(&k).apply(&put(&k, &[round; 40]), Durability::Buffered).unwrap();
        }
        flush(&mut store);
        compact(&mut store);
    }
    let keys = (0..1002).map(|i| key(100 * i));
    let gone: Vec<_> = keys.filter(|k| store.get(k) == Ok(None)).collect();
    assert!(gone.len() > 900, "{} of {:?}", gone.len(), store.engine.damage());
    assert!(table(&store, was.number).is_some(), "its bad block is still there");
    if checkpoint {
        let copy = MemoryDisk::new(seed);
        store.engine.checkpoint(&copy).unwrap();
        disk = copy;
    }
    drop(store);
    if lost {
        lose_manifest(&disk);
    }
    if seed % 2 == 1 {
        // Its blocks have to be looked for: also those that do not count.
        assert!(disk.rot(&name(was.number), was.bytes - 4, 1));
    }
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mended = repair(&shared, Arc::new(Append)).unwrap();
    assert!(mended.manifest_made_anew == lost && !mended.lost.is_empty());
    let mut store = Store::open(&disk, small()).unwrap();
    let back = gone.iter().filter(|k| store.get(k).unwrap().is_some()).count();
    assert_eq!(back, 0, "of {} rows that were deleted", gone.len());
}

fn alone() -> Options {
    Options { splits: Vec::new(), ..small() }
}

/// By hundreds of keys values are large, or they are not.
fn length(i: u64) -> u64 {
    if (i / 100).is_multiple_of(2) { 60 } else { 40 }
}

fn fill(store: &mut Store, keys: impl Iterator<Item = u64>, seed: u64) {
    let chance = &mut Chance(seed);
    for i in keys {
        let value: Vec<u8> = (0..length(i)).map(|_| chance.below(256) as u8).collect();
        store.shards[0].apply(&put(&key(i), &value), Durability::Buffered).unwrap();
    }
    flush(store);
}

/// What of table `number` is damaged as a whole, as a scrub finds it.
fn found_whole(store: &Store, number: u64) -> Damage {
    while store.engine.scrub().rounds == 0 {
        store.engine.scrub_step(1 << 20).unwrap().run().unwrap();
    }
    let whole = Place::Table { number, offset: None };
    store.engine.damage().into_iter().find(|damage| damage.place == whole).unwrap()
}

/// Repairs a table as the layer above does while `jobs` are out, and runs them then.
fn repair_meanwhile(store: &mut Store, damage: &Damage, jobs: Vec<Job>) {
    assert!(jobs.iter().any(|job| job.kind() == JobKind::Compact));
    let mut batch = Batch::new();
    batch.delete_range(&damage.lower, damage.upper.as_ref().unwrap());
    store.shards[0].apply(&batch, Durability::Buffered).unwrap();
    store.engine.repaired(damage).unwrap();
    flush(store);
    for job in jobs {
        let done = job.run();
        assert!(matches!(done, Ok(()) | Err(Error::Busy)), "{done:?}");
    }
    if let Place::Table { number, .. } = damage.place {
        assert!(table(store, number).is_none(), "it was removed");
    }
    compact(store);
}

fn rows(store: &Store) -> usize {
    let rows = store.shards[0].scan(b"", None, Direction::Forward, None).unwrap();
    rows.map(Result::unwrap).count()
}

#[test]
fn a_table_that_was_repaired_while_it_was_written_anew_does_not_come_back() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, alone()).unwrap();
    fill(&mut store, 0..60, 1);
    let snapshot = store.shards[0].snapshot();
    for i in 0..20 {
        let mut batch = Batch::new();
        batch.delete(&key(3 * i));
        store.shards[0].apply(&batch, Durability::Buffered).unwrap();
    }
    flush(&mut store);
    fill(&mut store, 25..30, 2);
    compact(&mut store);
    let tables = store.engine.tables();
    let [table] = &tables[..] else { panic!("{tables:?}") };
    assert!(table.deletions > 0, "for the snapshot");
    assert!(disk.rot(&name(table.number), table.bytes - 4, 1));
    let damage = found_whole(&store, table.number);
    drop(snapshot);
    let jobs: Vec<Job> = std::iter::from_fn(|| store.engine.next_job()).collect();
    repair_meanwhile(&mut store, &damage, jobs);
    for _ in 0..2 {
        assert_eq!(rows(&store), 0);
        assert!(store.engine.damage().is_empty(), "{:?}", store.engine.damage());
        drop(store);
        store = Store::open(&disk, alone()).unwrap();
    }
}

#[test]
fn a_damaged_table_that_was_repaired_while_others_were_merged_with_it_does_not_come_back() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, alone()).unwrap();
    for seed in 0..3 {
        fill(&mut store, 0..100, seed);
    }
    compact(&mut store);
    let tables = store.engine.tables();
    let table = tables.iter().max_by_key(|table| table.bytes).unwrap();
    assert!(disk.rot(&name(table.number), table.bytes / 3, 1));
    assert!(disk.rot(&name(table.number), table.bytes - 4, 1));
    let damage = found_whole(&store, table.number);
    for seed in 3..12 {
        fill(&mut store, (0..100).step_by(2), seed);
    }
    let jobs: Vec<Job> = std::iter::from_fn(|| store.engine.next_job()).collect();
    repair_meanwhile(&mut store, &damage, jobs);
    for _ in 0..2 {
        assert!(store.engine.damage().is_empty(), "{:?}", store.engine.damage());
        assert!((0..100).all(|i| {
            let found = store.get(&key(i)).unwrap();
            found.is_none() == (damage.lower <= key(i) && key(i) < damage.upper.clone().unwrap())
        }));
        drop(store);
        store = Store::open(&disk, alone()).unwrap();
    }
}

#[test]
fn of_a_narrowed_table_only_what_counts_is_counted() {
    let disk = MemoryDisk::new(2);
    let (store, _, was) = narrow(&disk, &mut Chance(2));
    let files: u64 = store.engine.tables().iter().map(|table| table.bytes).sum();
    let counted: u64 = store.engine.stats().table_bytes.iter().sum();
    assert!(counted < files - was.bytes / 2 && counted > files - was.bytes, "{counted} of {files}");
}

#[test]
fn no_byte_of_a_large_value_counts_twice_around_damage() {
    // With large values around the bad block, and with small ones.
    (1..6).for_each(count_large_values);
}

fn count_large_values(place: u64) {
    let options = || Options { large_value_bytes: 50, blob_file_bytes: 1 << 20, ..alone() };
    let counted =
        |store: &Store| -> u64 { store.engine.blobs().iter().map(|blob| blob.live_bytes).sum() };
    let disk = MemoryDisk::new(3);
    let mut store = Store::open(&disk, options()).unwrap();
    for part in 0..3 {
        fill(&mut store, (part..3000).step_by(9), part);
    }
    compact(&mut store);
    let large = (0..3000).filter(|i| i % 9 < 3 && length(*i) == 60).count() as u64;
    let all = counted(&store) * 1500 / large;
    let was = store.engine.tables().into_iter().max_by_key(|table| table.bytes).unwrap();
    assert!(disk.rot(&name(was.number), was.bytes * place / 8, 1));
    for part in 3..9 {
        fill(&mut store, (part..3000).step_by(9), part);
        compact(&mut store);
    }
    let now = table(&store, was.number).unwrap();
    assert!(now.smallest > was.smallest || now.largest < was.largest, "it was narrowed");
    for _ in 0..2 {
        // Nothing was overwritten, so each value counts once, but for what is estimated.
        let found = counted(&store);
        assert!(found <= all && found > all * 95 / 100, "{place}: {found} of {all}");
        let found = (0..3000).filter(|i| store.get(&key(*i)).is_ok_and(|value| value.is_some()));
        assert!(found.count() > 2900);
        drop(store);
        store = Store::open(&disk, options()).unwrap();
    }
}

#[test]
fn what_stands_beside_a_narrowed_table_comes_and_goes_with_it() {
    let disk = MemoryDisk::new(4);
    let (mut store, ..) = narrow(&disk, &mut Chance(4));
    let parts = || disk.list().unwrap().into_iter().filter(|name| name.ends_with(".part"));
    let [part] = &parts().collect::<Vec<_>>()[..] else { panic!("one table is narrowed") };
    drop(store);
    disk.remove(part).unwrap();
    disk.create("0000999999.part").unwrap();
    store = Store::open(&disk, small()).unwrap();
    compact(&mut store);
    assert_eq!(parts().collect::<Vec<_>>(), std::slice::from_ref(part), "said again, and no other");
    for shard in &mut store.shards {
        let mut batch = Batch::new();
        batch.delete_range(b"", b"z");
        shard.apply(&batch, Durability::Buffered).unwrap();
    }
    flush(&mut store);
    compact(&mut store);
    assert_eq!((parts().count(), store.engine.tables().len()), (0, 0));
}

#[test]
fn what_stands_beside_a_narrowed_table_is_set_aside_with_it() {
    let disk = MemoryDisk::new(6);
    let (store, _, was) = narrow(&disk, &mut Chance(6));
    drop(store);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mended = repair(&shared, Arc::new(Append)).unwrap();
    assert_eq!(mended.aside, [name(was.number)], "{mended:?}");
    let names = disk.list().unwrap();
    for kept in [format!("{:010}.sst.bad", was.number), format!("{:010}.part.bad", was.number)] {
        assert!(names.contains(&kept), "{kept} of {names:?}");
    }
    assert!(!names.contains(&format!("{:010}.part", was.number)));
}

#[test]
fn a_part_that_nobody_knows_any_more_is_said_when_the_manifest_is_lost() {
    let disk = MemoryDisk::new(5);
    let (store, _, was) = narrow(&disk, &mut Chance(5));
    drop(store);
    lose_manifest(&disk);
    assert!(disk.rot(&format!("{:010}.part", was.number), 6, 1));
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mended = repair(&shared, Arc::new(Append)).unwrap();
    let [said] = &mended.undeleted[..] else { panic!("{mended:?}") };
    assert_eq!(said.place, Place::Table { number: was.number, offset: None });
    assert!(said.lower <= was.smallest && said.upper.as_ref() > Some(&was.largest));
    assert!(Store::open(&disk, small()).is_ok());
}

#[test]
fn a_scrub_that_stands_in_a_table_that_is_narrowed_comes_to_its_end() {
    let disk = MemoryDisk::new(6);
    let stand = |store: &Store, table: &TableInfo| {
        let all = store.engine.tables();
        let before = all.iter().filter(|other| other.number < table.number);
        let upto = before.map(|other| other.bytes).sum::<u64>() + table.bytes * 3 / 4;
        while store.engine.scrub().bytes < upto {
            store.engine.scrub_step(1).unwrap().run().unwrap();
        }
        assert_eq!((store.engine.scrub().rounds, store.engine.scrub().bad_blocks), (0, 1));
    };
    let (store, ..) = narrow_after(&disk, &mut Chance(6), stand);
    for round in 1..3 {
        for _ in 0..1_000 {
            if store.engine.scrub().rounds < round {
                store.engine.scrub_step(1).unwrap().run().unwrap();
            }
        }
        assert_eq!(store.engine.scrub().rounds, round);
        // The bad block stands where it stood.
        assert_eq!(store.engine.scrub().bad_blocks, round);
    }
    store.engine.scrub_step(1).unwrap().run().unwrap();
    let tables = store.engine.stats().table_bytes.iter().sum::<u64>();
    assert_eq!(store.engine.scrub().bytes_total, tables, "what is read of tables, and no more");
}
