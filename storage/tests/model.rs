//! The store against a BTreeMap: random changes, reads both ways, snapshots, reopens.

use crate::fixture::{Append, Chance, Store, options};
use ringdb_storage::{
    Batch, Crash, Direction, Durability, Folded, Job, MemoryDisk, Merge, Op, Snapshot,
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
    chance: Chance,
    disk: MemoryDisk,
    store: Store,
    model: Model,
    /// Snapshots with what the model was then; all of the shards of the current run.
    past: Vec<(Snapshot, Model)>,
    /// Jobs that were taken and not yet run.
    open: Vec<Job>,
}

fn bounds(store: &Store, shard: usize) -> (Vec<u8>, Vec<u8>) {
    let splits = &store.options.splits;
    let lower = if shard == 0 { Vec::new() } else { splits[shard - 1].clone() };
    (lower, splits.get(shard).cloned().unwrap_or_else(|| b"z".to_vec()))
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let disk = MemoryDisk::new(seed);
        let store = Store::open(&disk, options(1 + chance.below(4) as usize)).unwrap();
        Self { chance, disk, store, model: Model::new(), past: Vec::new(), open: Vec::new() }
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
        let shards = 1 + self.chance.below(4) as usize;
        self.store = Store::open(&self.disk, options(shards)).unwrap();
        self.check();
    }

    fn check(&mut self) {
        let want = visible(&self.model);
        let mut forward = Vec::new();
        for shard in &self.store.shards {
            let rows = shard.scan(b"", None, Direction::Forward, None).unwrap();
            forward.extend(rows.map(Result::unwrap));
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

    /// A scan of a part, both ways; parts that end before they start are empty.
    fn check_part(&self, a: &[u8], b: &[u8]) {
        let want: Vec<_> = visible(&self.model)
            .into_iter()
            .filter(|(k, _)| k.as_slice() >= a && k.as_slice() < b)
            .collect();
        for direction in [Direction::Forward, Direction::Backward] {
            let mut rows = Vec::new();
            for shard in &self.store.shards {
                let part = shard.scan(a, Some(b), direction, None).unwrap();
                rows.extend(part.map(Result::unwrap));
            }
            rows.sort();
            assert_eq!(rows, want, "{direction:?}");
        }
    }
}

#[test]
fn the_store_behaves_like_a_sorted_map_whatever_happens_inside() {
    for seed in (0..150).chain([1333]) {
        let mut run = Run::new(seed);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..600 {
                run.step();
            }
            run.check();
        }));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
