//! Repair: what can be read is kept, what cannot is said; and looking changes nothing.

use crate::damage::build;
use crate::fixture::{Append, Rows, Store, options};
use ringdb_storage::{
    Batch, Crash, Direction, Disk, Durability, MemoryDisk, OpenError, Options, Overlay, Place,
    Repair, Survival, TableChange, read_table, repair,
};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) fn mend(disk: &MemoryDisk) -> Result<Repair, OpenError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    repair(&disk, Arc::new(Append))
}

/// What the first shard holds.
pub(crate) fn rows(store: &Store) -> Rows {
    let rows = store.shards[0].scan(b"", None, Direction::Forward, None).unwrap();
    rows.map(Result::unwrap).collect()
}

fn content(disk: &MemoryDisk) -> BTreeMap<String, Vec<u8>> {
    let read = |name: &String| {
        let file = disk.open(name).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(&mut bytes, 0).unwrap();
        bytes
    };
    disk.list().unwrap().into_iter().map(|name| (name.clone(), read(&name))).collect()
}

fn is_lost(mended: &Repair, key: &[u8]) -> bool {
    mended.lost.iter().any(|damage| {
        let after = damage.upper.as_ref().is_none_or(|upper| key < upper.as_slice());
        damage.lower.as_slice() <= key && after
    })
}

#[test]
fn whatever_byte_rots_a_repaired_store_opens_and_lacks_only_what_was_said() {
    let (disk, rows_before) = build(3, 8);
    let (mut repaired, mut kept_rows) = (0, 0);
    for (name, bytes) in content(&disk) {
        for offset in (0..bytes.len() as u64).step_by(3) {
            let fork = disk.fork(1);
            assert!(fork.rot(&name, offset, 1 << (offset % 8)));
            let mended = match mend(&fork) {
                Ok(mended) => mended,
                // A digit of the version that became another digit.
                Err(OpenError::Format { .. }) => continue,
                Err(e) => panic!("{name} at {offset}: {e}"),
            };
            fork.crash(Crash::ProcessKill);
            let store = Store::open(&fork, options(1)).unwrap();
            assert!(store.engine.damage().is_empty(), "{name} at {offset}");
            let found = rows(&store);
            assert_eq!(found.len() as u64, mended.rows);
            if mended.manifest_made_anew {
                // The log was applied again, and this merge does not bear that.
                let keys = |rows: &Rows| rows.iter().map(|(k, _)| k.clone()).collect::<Vec<_>>();
                let found = keys(&found);
                assert!(
                    keys(&rows_before).iter().all(|key| found.contains(key)),
                    "{name} {offset}"
                );
                repaired += 1;
                continue;
            }
            for row in &found {
                let same = rows_before.contains(row) || is_lost(&mended, &row.0);
                assert!(same, "{name} at {offset}: {row:?} of {mended:?}");
            }
            for row in &rows_before {
                let there = found.contains(row) || is_lost(&mended, &row.0);
                assert!(there, "{name} at {offset}: {row:?} is gone, {mended:?}");
            }
            repaired += usize::from(!mended.lost.is_empty());
            kept_rows += found.len();
        }
    }
    assert!(repaired > 300 && kept_rows > 10_000, "{repaired} repaired, {kept_rows} rows kept");
}

#[test]
fn a_whole_store_is_not_changed_by_a_repair() {
    let (disk, rows_before) = build(5, 8);
    let mended = mend(&disk).unwrap();
    assert_eq!((mended.lost.len(), mended.aside.len()), (0, 0), "{mended:?}");
    assert_eq!(mended.rows, rows_before.len() as u64);
    disk.crash(Crash::ProcessKill);
    assert_eq!(rows(&Store::open(&disk, options(1)).unwrap()), rows_before);
}

#[test]
fn a_damaged_table_is_kept_aside_and_what_is_lost_of_it_is_said_once() {
    let (disk, _) = build(3, usize::MAX);
    let tables = || disk.list().unwrap().into_iter().filter(|n| n.ends_with(".sst"));
    let table = tables().next_back().unwrap();
    assert!(disk.rot(&table, 30, 1));
    let mended = mend(&disk).unwrap();
    assert_eq!(mended.aside, std::slice::from_ref(&table));
    assert!(matches!(mended.lost[..], [ref d] if matches!(d.place, Place::Table { .. })));
    assert!(disk.list().unwrap().contains(&format!("{table}.bad")));
    disk.crash(Crash::ProcessKill);
    let again = mend(&disk).unwrap();
    assert_eq!((again.lost.len(), again.rows), (0, mended.rows), "{again:?}");
}

#[test]
fn a_store_of_another_version_or_in_use_is_left_alone() {
    let (disk, _) = build(3, usize::MAX);
    let store = Store::open(&disk, options(1)).unwrap();
    assert_eq!(mend(&disk), Err(OpenError::Locked));
    drop(store);
    disk.create("FORMAT").unwrap().write_at(b"ringdb storage 9\n", 0).unwrap();
    assert!(matches!(mend(&disk), Err(OpenError::Format { .. })));
}

#[test]
fn looking_through_an_overlay_changes_nothing_below() {
    let (disk, rows_before) = build(3, 8);
    let before = content(&disk);
    {
        let overlay = Arc::new(Overlay::new(Arc::new(disk.clone())));
        let mut store =
            Store::open_on(overlay, Options { large_value_bytes: 4, ..options(1) }).unwrap();
        assert_eq!(rows(&store), rows_before);
        store.shards[0].apply(&crate::fixture::put(b"k001", b"x"), Durability::Sync).unwrap();
        store.shards[0].rotate();
        store.run_jobs().unwrap();
        assert_eq!(store.get(b"k001").unwrap().as_deref(), Some(&b"x"[..]));
    }
    assert_eq!(content(&disk), before);
}

#[test]
fn a_table_file_is_read_by_itself() {
    let disk = MemoryDisk::new(3);
    let mut store = Store::open(&disk, Options { large_value_bytes: 8, ..options(1) }).unwrap();
    let mut below = Batch::new();
    [b"k001", b"k003", b"k011"].iter().for_each(|key| below.put(*key, b"below"));
    let mut batch = Batch::new();
    batch.put(b"k002", b"small");
    batch.put(b"k004", b"a large value");
    batch.merge(b"k001", b"M");
    batch.delete(b"k003");
    batch.delete_range(b"k010", b"k012");
    // Flushed alone, so that what changes something below is in a table of its own.
    for batch in [below, batch] {
        store.shards[0].apply(&batch, Durability::Os).unwrap();
        store.shards[0].rotate();
        while let Some(job) = store.engine.next_flush() {
            job.run().unwrap();
        }
        store.shards[0].refresh();
    }
    let table = disk.list().unwrap().into_iter().rfind(|n| n.ends_with(".sst")).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let mut counts = [0; 5];
    let mut note = |row: ringdb_storage::TableRow<'_>| {
        let place = match row.change {
            TableChange::Put(value) => {
                assert_eq!(value, b"small");
                0
            }
            TableChange::Large { .. } => 1,
            TableChange::Delete => 2,
            TableChange::Merge(_) => 3,
            TableChange::DeleteRange(end) => {
                assert_eq!((row.key, end), (&b"k010"[..], &b"k012"[..]));
                4
            }
        };
        counts[place] += 1;
    };
    read_table(&disk, &table, &mut note).unwrap();
    assert_eq!(counts, [1; 5]);
}

#[test]
fn a_repair_that_is_cut_short_is_begun_again_and_loses_no_more() {
    let (disk, rows_before) = build(3, 8);
    let table = disk.list().unwrap().into_iter().rfind(|n| n.ends_with(".sst")).unwrap();
    assert!(disk.rot(&table, 30, 1));
    let expected = mend(&disk.fork(1)).unwrap();
    for number in 0.. {
        let cut_short = disk.fork(number);
        cut_short.power_fails_at_sync(cut_short.syncs() + number);
        let over = mend(&cut_short).is_ok();
        for fate in [Survival::None, Survival::All, Survival::Subset, Survival::Torn] {
            let fork = cut_short.fork(number);
            fork.crash(Crash::PowerLoss(fate));
            mend(&fork).unwrap();
            fork.crash(Crash::ProcessKill);
            let found = rows(&Store::open(&fork, options(1)).unwrap());
            for row in &rows_before {
                let there = found.contains(row) || is_lost(&expected, &row.0);
                assert!(there, "{row:?} is gone after a power loss at sync {number}, {fate:?}");
            }
        }
        if over {
            assert!(number > 5, "only {number} sync points");
            return;
        }
    }
}

/// Two tables: the second has as many rows as the first, plain and compressed, and deletes some of the
/// first's. Its name and the rows of the store.
fn two_tables() -> (MemoryDisk, String, Rows) {
    let disk = MemoryDisk::new(7);
    let options = Options { memtable_bytes: 64 << 10, block_cache_bytes: 0, ..options(1) };
    let mut store = Store::open(&disk, options).unwrap();
    for table in 0..2_u32 {
        let mut batch = Batch::new();
        for i in 0..60 {
            let noise = |j: u32| (j * j * (i + 3) % 251) as u8;
            let value: Vec<u8> = match i % 20 {
                0..8 => (0..80).map(noise).collect(),
                _ => format!("{i}").repeat(30).into_bytes(),
            };
            batch.put(format!("k{:03}", 60 * table + i).as_bytes(), &value);
        }
        if table == 1 {
            batch.delete_range(b"k010", b"k020");
        }
        store.shards[0].apply(&batch, Durability::Sync).unwrap();
        store.shards[0].rotate();
        while let Some(job) = store.engine.next_flush() {
            job.run().unwrap();
        }
        store.shards[0].refresh();
    }
    let rows = rows(&store);
    assert_eq!(rows.len(), 110);
    drop(store);
    disk.crash(Crash::ProcessKill);
    let table = disk.list().unwrap().into_iter().rfind(|n| n.ends_with(".sst")).unwrap();
    (disk, table, rows)
}

/// The rows after a repair, of which each that is missing or back was said.
fn mended_rows(disk: &MemoryDisk, rows_before: &Rows, what: &str) -> (Repair, Rows) {
    let mended = mend(disk).unwrap();
    disk.crash(Crash::ProcessKill);
    let store = Store::open(disk, options(1)).unwrap();
    let found = rows(&store);
    assert!(store.engine.damage().is_empty(), "{what}");
    for row in rows_before {
        assert!(found.contains(row) || is_lost(&mended, &row.0), "{what}: {row:?} {mended:?}");
    }
    for row in &found {
        let back = (&b"k010"[..]..&b"k020"[..]).contains(&&row.0[..]);
        let said = !mended.undeleted.is_empty() || mended.manifest_made_anew;
        assert!(rows_before.contains(row) || (back && said), "{what}: {row:?} {mended:?}");
    }
    (mended, found)
}

#[test]
fn a_flipped_bit_costs_a_table_one_block_at_most_wherever_it_is() {
    let (disk, table, rows_before) = two_tables();
    let len = disk.open(&table).unwrap().len().unwrap();
    let (mut lost, mut whole, mut undeleted) = (0, 0, 0);
    // The footer has no checksum: each of its bits.
    let footer = (len - 53..len).flat_map(|offset| (0..8).map(move |bit| (offset, bit)));
    for (offset, bit) in (0..len).map(|offset| (offset, offset % 8)).chain(footer) {
        let fork = disk.fork(1);
        assert!(fork.rot(&table, offset, 1 << bit));
        let what = format!("{table} at {offset} of {len}, bit {bit}");
        let (mended, found) = mended_rows(&fork, &rows_before, &what);
        let missing = rows_before.iter().filter(|row| !found.contains(row)).count();
        assert!(missing <= 20, "{what}: {missing} rows of {mended:?}");
        assert_eq!(mended.lost.is_empty(), missing == 0, "{what}: {mended:?}");
        // What fills the footer up means nothing.
        assert_eq!(mended.aside.len(), mended.rewritten.len(), "{what}: {mended:?}");
        lost += usize::from(missing > 0);
        undeleted += usize::from(!mended.undeleted.is_empty());
        whole += usize::from(missing == 0 && mended.undeleted.is_empty());
    }
    assert!(lost > 1_000 && whole > 500, "{lost} with losses, {whole} without");
    assert!((20..80).contains(&undeleted), "the block of range deletions is small: {undeleted}");
}

#[test]
fn of_a_table_that_was_cut_short_the_blocks_before_the_cut_are_kept() {
    let (disk, table, rows_before) = two_tables();
    let len = disk.open(&table).unwrap().len().unwrap();
    let (mut most, mut least) = (0, usize::MAX);
    for cut in (0..len).step_by(97) {
        let fork = disk.fork(1);
        fork.open(&table).unwrap().truncate(cut).unwrap();
        let (mended, found) = mended_rows(&fork, &rows_before, &format!("cut at {cut}"));
        let kept = found.iter().filter(|row| &row.0[..] >= b"k060").count();
        assert!(kept >= most, "a longer table keeps more: {kept} of {mended:?}");
        (most, least) = (kept, least.min(kept));
        assert!(!mended.undeleted.is_empty() || cut > len / 2, "{mended:?}");
    }
    assert_eq!((most, least), (60, 0));
}

#[test]
fn a_bad_table_of_a_store_without_a_manifest_keeps_its_good_blocks() {
    let (disk, table, rows_before) = two_tables();
    lose_current(&disk, true);
    // The log would have all of it, once more.
    for name in disk.list().unwrap().iter().filter(|name| name.ends_with(".log")) {
        disk.remove(name).unwrap();
    }
    let len = disk.open(&table).unwrap().len().unwrap();
    for offset in (0..len).step_by(5) {
        let fork = disk.fork(1);
        assert!(fork.rot(&table, offset, 1 << (offset % 8)));
        let (mended, found) = mended_rows(&fork, &rows_before, &format!("at {offset}"));
        let missing = rows_before.iter().filter(|row| !found.contains(row)).count();
        assert!(missing <= 20 && mended.manifest_made_anew, "{offset}: {missing} of {mended:?}");
    }
}

fn lose_current(disk: &MemoryDisk, manifest: bool) {
    for name in disk.list().unwrap() {
        if name == "CURRENT" || (manifest && name.starts_with("MANIFEST")) {
            disk.remove(&name).unwrap();
        }
    }
}

#[test]
fn where_only_current_is_bad_the_manifest_counts_and_nothing_is_lost() {
    let (disk, rows_before) = build(3, 8);
    let flipped = disk.fork(1);
    assert!(flipped.rot("CURRENT", 3, 1));
    let lost = disk.fork(1);
    lose_current(&lost, false);
    for disk in [flipped, lost] {
        let mended = mend(&disk).unwrap();
        assert_eq!((mended.mended.as_slice(), mended.lost.len()), (&["CURRENT".to_owned()][..], 0));
        assert!(!mended.manifest_made_anew && mended.aside.is_empty(), "{mended:?}");
        disk.crash(Crash::ProcessKill);
        assert_eq!(rows(&Store::open(&disk, options(1)).unwrap()), rows_before);
    }
}

#[test]
fn a_manifest_that_is_bad_itself_or_whose_tables_are_gone_does_not_count() {
    let (disk, _) = build(3, usize::MAX);
    let table = disk.list().unwrap().into_iter().rfind(|n| n.ends_with(".sst")).unwrap();
    let manifest = disk.list().unwrap().into_iter().rfind(|n| n.starts_with("MANIFEST")).unwrap();
    let without_table = disk.fork(1);
    lose_current(&without_table, false);
    without_table.remove(&table).unwrap();
    let both = disk.fork(1);
    lose_current(&both, false);
    assert!(both.rot(&manifest, 20, 1));
    let stale = disk.fork(1);
    // An older one was left over, and the one in force is bad.
    let older = content(&stale).remove(&manifest).unwrap();
    drop(Store::open(&stale, options(1)).unwrap());
    stale.crash(Crash::ProcessKill);
    let newer = stale.list().unwrap().into_iter().rfind(|n| n.starts_with("MANIFEST")).unwrap();
    assert!(newer > manifest && stale.rot(&newer, 20, 1));
    stale.create(&manifest).unwrap().write_at(&older, 0).unwrap();
    for disk in [without_table, both, stale] {
        assert!(mend(&disk).unwrap().manifest_made_anew);
    }
}

#[test]
fn a_store_that_has_only_a_log_is_mended_without_a_manifest() {
    let disk = MemoryDisk::new(3);
    let mut store = Store::open(&disk, options(1)).unwrap();
    for i in 0..20 {
        let row = crate::fixture::put(format!("k{i:03}").as_bytes(), b"in the log");
        store.shards[0].apply(&row, Durability::Sync).unwrap();
    }
    drop(store);
    disk.crash(Crash::ProcessKill);
    lose_current(&disk, true);
    let mended = mend(&disk).unwrap();
    assert!(mended.manifest_made_anew && mended.rows == 20, "{mended:?}");
    disk.crash(Crash::ProcessKill);
    assert_eq!(rows(&Store::open(&disk, options(1)).unwrap()).len(), 20);
}

#[test]
fn a_format_that_is_written_anew_is_said() {
    let (disk, rows_before) = build(3, usize::MAX);
    let lost = disk.fork(1);
    lost.remove("FORMAT").unwrap();
    assert!(disk.rot("FORMAT", 2, 1));
    for disk in [disk, lost] {
        let mended = mend(&disk).unwrap();
        assert_eq!((mended.mended.as_slice(), mended.lost.len()), (&["FORMAT".to_owned()][..], 0));
        assert_eq!(mended.rows, rows_before.len() as u64);
    }
}

#[test]
fn good_frames_behind_the_end_of_the_log_are_counted_when_they_are_dropped() {
    let disk = MemoryDisk::new(3);
    let mut store = Store::open(&disk, options(1)).unwrap();
    for i in 0..5 {
        let row = crate::fixture::put(format!("k{i:03}").as_bytes(), b"value");
        store.shards[0].apply(&row, Durability::Os).unwrap();
    }
    drop(store);
    disk.crash(Crash::ProcessKill);
    let sound = disk.fork(1);
    assert_eq!(mend(&sound).unwrap().log_cuts, []);
    let name = disk.list().unwrap().into_iter().find(|n| n.ends_with(".log")).unwrap();
    // In the first or second row; nobody was told that what follows is durable.
    assert!(disk.rot(&name, 160, 1));
    let overlay = Arc::new(Overlay::new(Arc::new(disk.clone())));
    let tolerant = Options { tolerate_damage: true, ..options(1) };
    let looked_at = Store::open_on(overlay, tolerant).unwrap().engine.log_cuts();
    let mended = mend(&disk).unwrap();
    assert_eq!(mended.log_cuts, looked_at);
    let [ref cut] = mended.log_cuts[..] else { panic!("{mended:?}") };
    assert_eq!((&cut.file, mended.rows + 1 + cut.frames), (&name, 5), "{mended:?}");
}

#[test]
fn damage_in_a_table_that_was_repaired_elsewhere_is_not_lost_once_more() {
    let (disk, table, _) = two_tables();
    assert!(disk.rot(&table, 30, 1));
    let mut store = Store::open(&disk, options(1)).unwrap();
    assert!(store.get(b"k060").is_err());
    let damage = store.engine.damage();
    assert_eq!(damage.len(), 1);
    store.engine.repaired(&damage[0]).unwrap();
    drop(store);
    disk.crash(Crash::ProcessKill);
    let mended = mend(&disk).unwrap();
    assert!(mended.lost.is_empty() && mended.aside.is_empty(), "{mended:?}");
}

#[test]
fn all_that_is_lost_with_a_blob_file_is_said_once() {
    let (disk, rows_before) = build(3, 8);
    for name in disk.list().unwrap().iter().filter(|name| name.ends_with(".blob")) {
        let fork = disk.fork(1);
        fork.remove(name).unwrap();
        let mended = mend(&fork).unwrap();
        let [ref lost] = mended.lost[..] else { panic!("{mended:?}") };
        assert!(matches!(lost.place, Place::Blob { offset: None, .. }), "{mended:?}");
        fork.crash(Crash::ProcessKill);
        let found = rows(&Store::open(&fork, options(1)).unwrap());
        for row in &rows_before {
            assert!(found.contains(row) || is_lost(&mended, &row.0), "{row:?} {mended:?}");
        }
    }
}
