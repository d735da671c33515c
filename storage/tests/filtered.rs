//! The compaction filter against a map: what may go goes or stays, and nothing old comes back.
//!
//! A value that starts with `~` may be dropped at any time, one that starts with `?` may become one
//! that starts with `=`. All else is as it was written, and a snapshot that no job was under way for
//! sees what it saw.

use crate::fixture::{Chance, Store, options};
use ringdb_storage::{
    Batch, Crash, Direction, Durability, Filter, FilterRow, Job, MemoryDisk, Options, PlantedBug,
    Snapshot, Verdict,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
struct Signs {
    dropped: AtomicU64,
    changed: AtomicU64,
    /// Values that were not dropped since something newer may be elsewhere.
    spared: AtomicU64,
    /// Spare them.
    careful: bool,
}

impl Filter for Signs {
    fn decide(&self, row: &FilterRow<'_>, out: &mut Vec<u8>) -> Verdict {
        match row.value.first() {
            Some(b'~') if self.careful && row.may_have_newer() => {
                self.spared.fetch_add(1, Ordering::Relaxed);
                Verdict::Keep
            }
            Some(b'~') => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                Verdict::Drop
            }
            Some(b'?') => {
                self.changed.fetch_add(1, Ordering::Relaxed);
                out.push(b'=');
                out.extend_from_slice(&row.value[1..]);
                Verdict::Change
            }
            _ => Verdict::Keep,
        }
    }
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn all(store: &Store, snapshots: Option<&[Snapshot]>) -> Rows {
    let mut rows = Rows::new();
    for (i, shard) in store.shards.iter().enumerate() {
        let snapshot = snapshots.map(|all| &all[i]);
        let scan = shard.scan(b"", None, Direction::Forward, snapshot).unwrap();
        rows.extend(scan.map(Result::unwrap));
    }
    rows
}

struct Run {
    chance: Chance,
    disk: MemoryDisk,
    store: Store,
    filter: Arc<Signs>,
    model: Rows,
    /// Snapshots of all shards, and what they saw at first.
    past: Vec<(Vec<Snapshot>, Rows)>,
    open: Vec<Job>,
}

impl Run {
    fn new(seed: u64, careful: bool, planted_bugs: Vec<PlantedBug>) -> Self {
        let disk = MemoryDisk::new(seed);
        let store = Store::open(&disk, Options { planted_bugs, ..options(2) }).unwrap();
        let filter = Arc::new(Signs { careful, ..Signs::default() });
        store.engine.set_filter(Some(filter.clone()));
        let (model, past, open) = Default::default();
        Self { chance: Chance(seed), disk, store, filter, model, past, open }
    }

    fn write(&mut self) {
        let chance = &mut self.chance;
        let key = chance.key(100);
        let mut batch = Batch::new();
        if chance.below(6) == 0 {
            let end = [&key[..], b"\0"].concat();
            if chance.below(2) == 0 {
                batch.delete(&key);
            } else {
                batch.delete_range(&key, &end);
            }
            self.model.remove(&key);
        } else {
            let sign = [b'~', b'?', b'v', b'~'][chance.below(4) as usize];
            let text = format!("{}{}", sign as char, chance.next());
            batch.put(&key, text.as_bytes());
            self.model.insert(key.clone(), text.into_bytes());
        }
        self.store.shard(&key).apply(&batch, Durability::Buffered).unwrap();
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..80 => self.write(),
            80..83 => {
                let shard = self.chance.below(2) as usize;
                self.store.shards[shard].commit().unwrap();
                self.store.shards[shard].rotate();
            }
            83..87 => self.open.extend(self.store.engine.next_job()),
            87..92 if !self.open.is_empty() => {
                let i = self.chance.below(self.open.len() as u64) as usize;
                self.open.swap_remove(i).run().unwrap();
            }
            92..94 => {
                self.open.drain(..).for_each(|job| job.run().unwrap());
                self.store.run_jobs().unwrap();
                self.store.shards.iter_mut().for_each(ringdb_storage::Shard::refresh);
                let snapshots: Vec<_> = self.store.shards.iter().map(|s| s.snapshot()).collect();
                let saw = all(&self.store, Some(&snapshots));
                self.past.push((snapshots, saw));
            }
            94..96 if !self.past.is_empty() => {
                let i = self.chance.below(self.past.len() as u64) as usize;
                self.past.swap_remove(i);
            }
            96 if self.chance.below(4) == 0 => {
                self.past.clear();
                self.open.clear();
                self.store.shards.iter_mut().for_each(|shard| assert!(shard.commit().is_ok()));
                self.disk.crash(Crash::ProcessKill);
                self.store = Store::open(&self.disk, options(2)).unwrap();
                self.store.engine.set_filter(Some(self.filter.clone()));
            }
            _ => self.check(),
        }
        for shard in &mut self.store.shards {
            shard.refresh();
            if shard.wants_rotation() {
                shard.rotate();
            }
        }
    }

    fn check(&self) {
        let found = all(&self.store, None);
        for (key, value) in &self.model {
            let filtered = match value[0] {
                b'~' => None,
                b'?' => Some([b"=", &value[1..]].concat()),
                _ => Some(value.clone()),
            };
            let seen = found.get(key);
            assert!(
                seen == Some(value) || seen == filtered.as_ref(),
                "{} is {seen:?}, was written as {value:?}",
                String::from_utf8_lossy(key)
            );
        }
        assert!(found.keys().all(|key| self.model.contains_key(key)), "a deleted key is back");
        for (snapshots, saw) in &self.past {
            let sees = all(&self.store, Some(snapshots));
            let keys = sees.keys().chain(saw.keys()).find(|key| sees.get(*key) != saw.get(*key));
            let key = keys.map(|key| String::from_utf8_lossy(key));
            assert_eq!(key, None, "a snapshot sees something else there than at first");
        }
    }
}

#[test]
fn what_a_filter_drops_uncovers_nothing_and_snapshots_see_what_they_saw() {
    for seed in 0..60 {
        let mut run = Run::new(seed, seed % 2 == 0, Vec::new());
        for _ in 0..1500 {
            run.step();
        }
        run.check();
        run.past.clear();
        run.open.clear();
        run.store.run_jobs().unwrap();
        run.store.shards.iter_mut().for_each(ringdb_storage::Shard::refresh);
        run.check();
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let (dropped, changed) = (count(&run.filter.dropped), count(&run.filter.changed));
        assert!(dropped > 10 && changed > 10, "seed {seed}: {dropped} dropped, {changed} changed");
    }
}

#[test]
fn deletions_that_are_forgotten_too_early_are_caught() {
    let caught = (0..10).any(|seed| {
        let mut run = Run::new(seed, false, vec![PlantedBug::DeletionsForgotten]);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..1500).for_each(|_| run.step());
        }))
        .is_err()
    });
    assert!(caught);
}

#[test]
fn a_filter_is_told_when_something_newer_may_be_elsewhere() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, options(1)).unwrap();
    let filter = Arc::new(Signs { careful: true, ..Signs::default() });
    let mut batch = Batch::new();
    batch.put(b"k001", b"~old");
    for round in 0..3 {
        store.shards[0].apply(&batch, Durability::Os).unwrap();
        store.shards[0].rotate();
        store.engine.next_flush().unwrap().run().unwrap();
        // A newer change comes while the older ones wait to be merged.
        if round == 2 {
            store.engine.set_filter(Some(filter.clone()));
            let merging = store.engine.next_job().unwrap();
            batch.clear();
            batch.merge(b"k001", b"+new");
            store.shards[0].apply(&batch, Durability::Os).unwrap();
            store.shards[0].rotate();
            store.engine.next_flush().unwrap().run().unwrap();
            merging.run().unwrap();
        }
    }
    assert_eq!(filter.spared.load(Ordering::Relaxed), 1);
    assert_eq!(filter.dropped.load(Ordering::Relaxed), 0);
    store.shards[0].refresh();
    assert_eq!(store.get(b"k001").unwrap().as_deref(), Some(&b"~old+new"[..]));
}
