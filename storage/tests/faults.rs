//! Disks that refuse: full, failing to sync, failing to read.

use crate::fixture::{Store, options, put};
use ringdb_storage::{
    Crash, Damage, Disk, Durability, Error, MemoryDisk, Options, Place, Survival,
};

#[test]
fn a_full_disk_stalls_writes_keeps_reads_and_goes_on_when_there_is_space() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, options(1)).unwrap();
    let shard = &mut store.shards[0];
    shard.apply(&put(b"k001", b"before"), Durability::Os).unwrap();
    disk.set_capacity(Some(disk.used() + 20));
    assert_eq!(shard.apply(&put(b"k002", b"unsure"), Durability::Os), Err(Error::NoSpace));
    assert_eq!(shard.commit(), Err(Error::NoSpace));
    let refused = shard.apply(&put(b"k003", b"refused"), Durability::Buffered);
    assert_eq!(refused, Err(Error::NoSpace));
    assert_eq!(shard.get(b"k001", None).unwrap().as_deref(), Some(&b"before"[..]));
    assert_eq!(shard.get(b"k003", None).unwrap().as_deref(), None, "nothing of it was applied");
    disk.set_capacity(None);
    shard.apply(&put(b"k004", b"after"), Durability::Sync).unwrap();
    drop(store);
    disk.crash(Crash::PowerLoss(Survival::None));
    let mut store = Store::open(&disk, options(1)).unwrap();
    for (key, value) in [(b"k001", &b"before"[..]), (b"k002", b"unsure"), (b"k004", b"after")] {
        assert_eq!(store.get(key).unwrap().as_deref(), Some(value));
    }
}

#[test]
fn a_full_disk_that_refuses_the_mark_of_an_idle_log_takes_writes_again_later() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, options(1)).unwrap();
    let shard = &mut store.shards[0];
    shard.apply(&put(b"k001", b"before"), Durability::Os).unwrap();
    shard.sync_handle().sync().unwrap();
    disk.set_capacity(Some(disk.used()));
    assert_eq!(shard.commit(), Err(Error::NoSpace), "the mark of what is durable has no room");
    disk.set_capacity(None);
    shard.commit().unwrap();
    shard.apply(&put(b"k002", b"after"), Durability::Os).unwrap();
    assert_eq!(store.get(b"k002").unwrap().as_deref(), Some(&b"after"[..]));
}

#[test]
fn a_failed_sync_poisons_and_is_never_repeated() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, options(1)).unwrap();
    let shard = &mut store.shards[0];
    shard.apply(&put(b"k001", b"safe"), Durability::Sync).unwrap();
    disk.fail_next_sync();
    let failed = shard.apply(&put(b"k002", b"doubtful"), Durability::Sync);
    assert!(matches!(failed, Err(Error::Poisoned { .. })), "{failed:?}");
    let syncs = disk.syncs();
    for durability in [Durability::Buffered, Durability::Os, Durability::Sync] {
        let refused = shard.apply(&put(b"k003", b"no"), durability);
        assert!(matches!(refused, Err(Error::Poisoned { .. })), "{refused:?}");
    }
    assert!(matches!(shard.sync_handle().sync(), Err(Error::Poisoned { .. })));
    assert_eq!(disk.syncs(), syncs);
    assert_eq!(shard.get(b"k001", None).unwrap().as_deref(), Some(&b"safe"[..]));
    assert!(store.engine.stats().poisoned && store.engine.next_job().is_none());
    drop(store);
    disk.crash(Crash::PowerLoss(Survival::All));
    let mut store = Store::open(&disk, options(1)).unwrap();
    assert_eq!(store.get(b"k001").unwrap().as_deref(), Some(&b"safe"[..]));
    assert_eq!(store.get(b"k002").unwrap(), None, "its pages were dropped");
}

#[test]
fn what_a_start_has_shown_survives_a_power_loss_also_behind_a_sync_that_failed() {
    for durable_before in [false, true] {
        let disk = MemoryDisk::new(1);
        let mut store = Store::open(&disk, options(1)).unwrap();
        for i in 0..40 {
            // Then the log itself says how much of it needs no writing.
            let durability = if durable_before { Durability::Sync } else { Durability::Os };
            store.shards[0]
                .apply(&put(format!("k{i:03}").as_bytes(), b"early"), durability)
                .unwrap();
        }
        store.shards[0].apply(&put(b"late", b"1"), Durability::Os).unwrap();
        disk.fail_next_sync();
        assert!(store.shards[0].apply(&put(b"later", b"2"), Durability::Sync).is_err());
        drop(store);
        disk.crash(Crash::ProcessKill);
        let mut store = Store::open(&disk, options(1)).unwrap();
        let late = store.get(b"late").unwrap();
        assert_eq!(late.as_deref(), Some(&b"1"[..]), "the page cache has it");
        drop(store);
        disk.crash(Crash::PowerLoss(Survival::None));
        let mut store = Store::open(&disk, options(1)).unwrap();
        assert_eq!(store.get(b"late").unwrap(), late, "and a start promised it");
        assert_eq!(store.get(b"k000").unwrap().as_deref(), Some(&b"early"[..]));
    }
}

#[test]
fn a_damaged_block_takes_its_keys_and_no_others_until_they_are_repaired() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, options(1)).unwrap();
    for i in 0..60 {
        let key = format!("k{i:03}").into_bytes();
        let value: Vec<u8> = (0..80u32).map(|j| (j * j * (i + 3) % 251) as u8).collect();
        store.shards[0].apply(&put(&key, &value), Durability::Os).unwrap();
    }
    store.shards[0].rotate();
    store.run_jobs().unwrap();
    let table = disk.list().unwrap().into_iter().find(|n| n.ends_with(".sst"));
    assert!(disk.rot(&table.unwrap(), 700, 4));
    store.shards[0].refresh();
    let lost = |store: &Store| {
        let keys = (0..60).map(|i| format!("k{i:03}").into_bytes());
        keys.filter(|k| store.shards[0].get(k, None).is_err()).collect::<Vec<_>>()
    };
    let keys = lost(&store);
    assert!((1..15).contains(&keys.len()), "{} keys lost", keys.len());
    let damage = store.engine.damage();
    assert_eq!(damage.len(), 1);
    let upper = damage[0].upper.clone().unwrap();
    assert!(keys.iter().all(|k| *k >= damage[0].lower && *k < upper));
    // The layer above deletes the range and writes its rows anew, from replicas.
    let mut batch = ringdb_storage::Batch::new();
    batch.delete_range(&damage[0].lower, &upper);
    keys.iter().for_each(|k| batch.put(k, b"from a replica"));
    store.shards[0].apply(&batch, Durability::Os).unwrap();
    store.engine.repaired(&damage[0]).unwrap();
    assert!(lost(&store).is_empty() && store.engine.damage().is_empty());
    let rows = store.shards[0].scan(b"", None, ringdb_storage::Direction::Forward, None).unwrap();
    assert_eq!(rows.filter(|row| row.is_ok()).count(), 60);
}

#[test]
fn a_table_that_was_repaired_as_a_whole_gives_its_file_back_and_is_forgotten() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, options(1)).unwrap();
    store.shards[0].apply(&put(b"k001", b"v"), Durability::Os).unwrap();
    store.shards[0].rotate();
    store.run_jobs().unwrap();
    drop(store);
    let tables = || {
        let names = Disk::list(&disk).unwrap().into_iter();
        names.filter(|n| n.ends_with(".sst")).collect::<Vec<_>>()
    };
    let table = tables().remove(0);
    let len = Disk::open(&disk, &table).unwrap().len().unwrap();
    assert!(disk.rot(&table, len - 1, 1), "its magic number");
    let tolerant = Options { tolerate_damage: true, ..options(1) };
    let store = Store::open(&disk, tolerant).unwrap();
    let damage = store.engine.damage();
    assert!(matches!(damage[..], [Damage { place: Place::Table { offset: None, .. }, .. }]));
    store.engine.repaired(&damage[0]).unwrap();
    assert_eq!(tables(), [table], "somebody may be reading it");
    store.run_jobs().unwrap();
    assert!(tables().is_empty() && store.engine.damage().is_empty());
}

#[test]
fn a_read_error_is_an_error_and_not_an_absence() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, options(1)).unwrap();
    store.shards[0].apply(&put(b"k001", b"v"), Durability::Os).unwrap();
    store.shards[0].rotate();
    store.run_jobs().unwrap();
    store.shards[0].refresh();
    disk.fail_reads(Some(".sst"));
    assert!(matches!(store.get(b"k001"), Err(Error::Io { .. })));
    disk.fail_reads(None);
    assert_eq!(store.get(b"k001").unwrap().as_deref(), Some(&b"v"[..]));
    assert!(store.engine.damage().is_empty(), "a refusal is not damage");
}

#[test]
fn what_a_failed_sync_dropped_is_durable_only_where_it_was_written_once_more_and_synced() {
    for survival in [Survival::None, Survival::All, Survival::Subset, Survival::Torn] {
        let disk = MemoryDisk::new(1);
        let file = disk.create("file").unwrap();
        disk.sync_dir().unwrap();
        file.write_at(b"oldest.....", 0).unwrap();
        file.sync().unwrap();
        file.write_at(b"dropped and more", 4).unwrap();
        disk.fail_next_sync();
        assert!(file.sync().is_err());
        // Two writes that cover parts of it: one across its end, one in its middle.
        file.write_at(b"end and beyond", 17).unwrap();
        file.sync().unwrap();
        file.write_at(b"AND", 12).unwrap();
        file.sync().unwrap();
        let mut seen = [0; 31];
        file.read_at(&mut seen, 0).unwrap();
        assert_eq!(&seen, b"oldedropped AND mend and beyond", "readers see the page cache");
        disk.crash(Crash::PowerLoss(survival));
        disk.open("file").unwrap().read_at(&mut seen, 0).unwrap();
        let want = b"oldest.....\0AND\0\0end and beyond";
        assert_eq!(&seen, want, "{survival:?}: {}", seen.escape_ascii());
    }
}
