//! The store against a BTreeMap: random changes, reads both ways, snapshots, reopens.

use crate::fixture::{Append, Chance, Store, external, options};
use crate::walks::mixed;
use ringdb_storage::{
    Batch, Crash, Direction, Durability, Folded, Job, JobKind, MemoryDisk, Merge, Op, Options,
    PlantedBug, Snapshot,
};
use std::collections::BTreeMap;

/// What a key holds in the model: base and operands that cannot be folded onto it.
#[derive(Clone, Default, Debug)]
struct Cell {
    base: Option<Vec<u8>>,
    operands: Vec<Vec<u8>>,
}

impl Cell {
    fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        if self.operands.is_empty() {
            return self.base.clone();
        }
        let operands: Vec<&[u8]> = self.operands.iter().map(Vec::as_slice).collect();
        let mut out = Vec::new();
        match Append.full(key, self.base.as_deref(), &operands, &mut out) {
            Folded::Value => Some(out),
            Folded::Deleted => None,
            Folded::Carry => self.base.clone(),
        }
    }
}

type Model = BTreeMap<Vec<u8>, Cell>;

fn apply(model: &mut Model, batch: &Batch) {
    for op in batch.ops() {
        match op {
            Op::Put { key, value } => {
                let base = Some(value.to_vec());
                model.insert(key.to_vec(), Cell { base, operands: Vec::new() });
            }
            Op::Delete { key } => drop(model.remove(key)),
            Op::Merge { key, operand } => {
                let cell = model.entry(key.to_vec()).or_default();
                cell.operands.push(operand.to_vec());
            }
            Op::DeleteRange { start, end } => {
                model.retain(|key, _| key.as_slice() < start || key.as_slice() >= end);
            }
        }
    }
}

fn visible(model: &Model) -> Vec<(Vec<u8>, Vec<u8>)> {
    model.iter().filter_map(|(key, cell)| Some((key.clone(), cell.value(key)?))).collect()
}

fn random_batch(chance: &mut Chance, lower: &[u8], upper: &[u8]) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..=chance.below(4) {
        let key = loop {
            let key = chance.key(100);
            if key.as_slice() >= lower && key.as_slice() < upper {
                break key;
            }
        };
        match chance.below(100) {
            0..35 => {
                let letter = b'a' + (chance.below(26) as u8);
                batch.put(&key, &vec![letter; chance.below(60) as usize]);
            }
            35..50 => batch.delete(&key),
            50..90 => {
                let operand = [b'A' + (chance.below(26) as u8)];
                batch.merge(&key, &operand);
            }
            _ => {
                let (a, b) = (chance.key(100), chance.key(100));
                let (a, b) = (a.clone().min(b.clone()), a.max(b));
                batch.delete_range(&a.max(lower.to_vec()), &b.min(upper.to_vec()));
            }
        }
    }
    batch
}

struct Run {
    seed: u64,
    chance: Chance,
    disk: MemoryDisk,
    store: Store,
    model: Model,
    /// Snapshots with what the model was then; all of the shards of the current run.
    past: Vec<(Snapshot, Model)>,
    /// Jobs that were taken and not yet run.
    open: Vec<Job>,
}

/// From this seed on large values stand beside the tables, files are ingested, and so on.
const FILES_FROM: u64 = 10_000;

/// Options that differ from run to run.
fn some_options(seed: u64, chance: &mut Chance) -> Options {
    let options = options(1 + chance.below(4) as usize);
    if seed < FILES_FROM {
        return options;
    }
    let large_value_bytes = [1, 20, 40, usize::MAX][chance.below(4) as usize];
    Options { large_value_bytes, blob_file_bytes: 700, ..options }
}

fn bounds(store: &Store, shard: usize) -> (Vec<u8>, Vec<u8>) {
    let splits = &store.options.splits;
    let lower = if shard == 0 { Vec::new() } else { splits[shard - 1].clone() };
    (lower, splits.get(shard).cloned().unwrap_or_else(|| b"z".to_vec()))
}

impl Run {
    fn new(seed: u64, planted_bugs: Vec<PlantedBug>) -> Self {
        let mut chance = Chance(seed);
        let disk = MemoryDisk::new(seed);
        let options = Options { planted_bugs, ..some_options(seed, &mut chance) };
        let store = Store::open(&disk, options).unwrap();
        let (model, past, open) = (Model::new(), Vec::new(), Vec::new());
        Self { seed, chance, disk, store, model, past, open }
    }

    /// Files of another store become part of this one: as if all their rows were put now.
    fn ingest(&mut self) {
        let mut rows = BTreeMap::new();
        // All over the store, or in one corner of it, where there may be nothing.
        let span = [100, 12][self.chance.below(2) as usize];
        let from = self.chance.below(101 - span);
        for i in 0..=self.chance.below(20) {
            let value = vec![b'0' + (i % 10) as u8; self.chance.below(80) as usize];
            let key = from + self.chance.below(span);
            rows.insert(format!("k{key:03}").into_bytes(), value);
        }
        let (files, names) = external(rows.iter());
        // A flush that somebody has would be in the way.
        for job in self.open.extract_if(.., |job| job.kind() == JobKind::Flush) {
            job.run().unwrap();
        }
        self.store.engine.ingest(&mut self.store.shards, &files, &names).unwrap();
        for (key, value) in rows {
            self.model.insert(key, Cell { base: Some(value), operands: Vec::new() });
        }
    }

    /// A checkpoint opens as a store that holds what was committed.
    fn checkpoint(&mut self) {
        for shard in &mut self.store.shards {
            shard.commit().unwrap();
        }
        let target = MemoryDisk::new(self.seed);
        self.store.engine.checkpoint(&target).unwrap();
        let shards = 1 + self.chance.below(4) as usize;
        let copy = Store::open(&target, options(shards)).unwrap();
        let rows = copy.shards.iter().flat_map(|shard| {
            shard.scan(b"", None, Direction::Forward, None).unwrap().map(Result::unwrap)
        });
        assert_eq!(rows.collect::<Vec<_>>(), visible(&self.model), "checkpoint");
    }

    fn scrub(&mut self) {
        if let Some(job) = self.store.engine.scrub_step(1 + self.chance.below(5_000)) {
            job.run().unwrap();
        }
        assert_eq!(self.store.engine.damage(), []);
        assert_eq!(self.store.engine.scrub().bad_blocks, 0);
    }

    fn step(&mut self) {
        let shard = self.chance.below(self.store.shards.len() as u64) as usize;
        match self.chance.below(100) {
            0..70 => {
                let (lower, upper) = bounds(&self.store, shard);
                let batch = random_batch(&mut self.chance, &lower, &upper);
                apply(&mut self.model, &batch);
                self.store.shards[shard].apply(&batch, Durability::Buffered).unwrap();
            }
            70..80 => drop(self.store.shards[shard].commit().unwrap()),
            80..82 => self.store.shards[shard].rotate(),
            82..88 => {
                // Several at once, ended in any order; now and then one is given back.
                match self.chance.below(8) {
                    0..4 => self.open.extend(self.store.engine.next_job()),
                    kind if !self.open.is_empty() => {
                        let i = self.chance.below(self.open.len() as u64) as usize;
                        let job = self.open.swap_remove(i);
                        if kind < 7 {
                            job.run().unwrap();
                        }
                    }
                    _ => {}
                }
            }
            88..90 => self.store.run_jobs().unwrap(),
            90..93 => {
                let snapshot = self.store.shards[shard].snapshot();
                self.past.push((snapshot, self.model.clone()));
            }
            93..96 if !self.past.is_empty() => {
                let i = self.chance.below(self.past.len() as u64) as usize;
                self.past.swap_remove(i);
            }
            96 => self.reopen(),
            97..99 if self.seed >= FILES_FROM => match self.chance.below(3) {
                0 => self.ingest(),
                1 => self.checkpoint(),
                _ => self.scrub(),
            },
            _ => self.check(),
        }
        for shard in &mut self.store.shards {
            if shard.wants_rotation() {
                shard.rotate();
            }
        }
    }

    fn reopen(&mut self) {
        self.past.clear();
        self.open.clear();
        for shard in &mut self.store.shards {
            shard.commit().unwrap();
        }
        self.disk.crash(Crash::ProcessKill);
        let options = some_options(self.seed, &mut self.chance);
        self.store = Store::open(&self.disk, options).unwrap();
        self.check();
    }

    fn check(&mut self) {
        let want = visible(&self.model);
        let mut forward = Vec::new();
        for shard in &self.store.shards {
            let rows = shard.scan(b"", None, Direction::Forward, None).unwrap();
            forward.extend(mixed(rows, &mut self.chance));
        }
        assert_eq!(forward, want, "forward");
        let mut backward = Vec::new();
        for shard in self.store.shards.iter().rev() {
            let rows = shard.scan(b"", None, Direction::Backward, None).unwrap();
            backward.extend(rows.map(Result::unwrap));
        }
        backward.reverse();
        assert_eq!(backward, want, "backward");
        for i in 0..100 {
            let key = format!("k{i:03}").into_bytes();
            let want = self.model.get(&key).and_then(|cell| cell.value(&key));
            assert_eq!(self.store.get(&key).unwrap(), want, "get k{i:03}");
        }
        self.check_many();
        let (a, b) = (self.chance.key(100), self.chance.key(100));
        self.check_part(&a, &b);
        for (snapshot, model) in &self.past {
            let (lower, upper) = bounds(&self.store, snapshot.shard());
            let want: Vec<_> =
                visible(model).into_iter().filter(|(k, _)| *k >= lower && *k < upper).collect();
            let shard = &self.store.shards[snapshot.shard()];
            for direction in [Direction::Forward, Direction::Backward] {
                let rows = shard.scan(b"", None, direction, Some(snapshot)).unwrap();
                let mut rows: Vec<_> = rows.map(Result::unwrap).collect();
                if direction == Direction::Backward {
                    rows.reverse();
                }
                assert_eq!(rows, want, "snapshot at {} {direction:?}", snapshot.sequence());
            }
            for (key, value) in &want {
                assert_eq!(shard.get(key, Some(snapshot)).unwrap().as_deref(), Some(&value[..]));
            }
        }
    }

    /// Many keys at once, in any order, some twice, some absent: each shard's in one call.
    fn check_many(&mut self) {
        for shard in 0..self.store.shards.len() {
            let (lower, upper) = bounds(&self.store, shard);
            let keys: Vec<_> = (0..self.chance.below(150)).map(|_| self.chance.key(110)).collect();
            let keys: Vec<_> = keys.into_iter().filter(|k| *k >= lower && *k < upper).collect();
            let mut seen = Vec::new();
            let note = |i: usize, value: Option<&[u8]>| seen.push((i, value.map(<[u8]>::to_vec)));
            self.store.shards[shard].get_many(&keys, note).unwrap();
            let want = keys.iter().map(|key| self.model.get(key).and_then(|c| c.value(key)));
            assert_eq!(seen, want.enumerate().collect::<Vec<_>>());
        }
    }

    /// A scan of a part, both ways; parts that end before they start are empty.
    fn check_part(&mut self, a: &[u8], b: &[u8]) {
        let want: Vec<_> = visible(&self.model)
            .into_iter()
            .filter(|(k, _)| k.as_slice() >= a && k.as_slice() < b)
            .collect();
        for direction in [Direction::Forward, Direction::Backward] {
            let mut rows = Vec::new();
            for shard in &self.store.shards {
                let part = shard.scan(a, Some(b), direction, None).unwrap();
                rows.extend(mixed(part, &mut self.chance));
            }
            rows.sort();
            assert_eq!(rows, want, "{direction:?}");
        }
    }
}

#[test]
fn the_store_behaves_like_a_sorted_map_whatever_happens_inside() {
    for seed in (0..150).chain([1333]) {
        assert!(holds(seed, Vec::new()), "seed {seed}");
    }
}

#[test]
fn with_large_values_ingests_checkpoints_and_scrubs_it_still_does() {
    for seed in FILES_FROM..FILES_FROM + 150 {
        assert!(holds(seed, Vec::new()), "seed {seed}");
    }
}

#[test]
fn an_ingested_file_that_counts_as_older_than_what_was_there_is_caught() {
    let bug = vec![PlantedBug::IngestBelow];
    assert!((FILES_FROM..FILES_FROM + 20).any(|seed| !holds(seed, bug.clone())));
}

#[test]
fn an_ingested_file_that_goes_below_what_is_older_is_caught() {
    let bug = vec![PlantedBug::IngestPastLevel0];
    assert!((FILES_FROM..FILES_FROM + 20).any(|seed| !holds(seed, bug.clone())));
}

/// Whether a run from `seed` finds nothing wrong.
fn holds(seed: u64, planted_bugs: Vec<PlantedBug>) -> bool {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut run = Run::new(seed, planted_bugs);
        for _ in 0..600 {
            run.step();
        }
        run.check();
    }));
    outcome.is_ok()
}
