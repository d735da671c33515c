//! Views and snapshots against a BTreeMap: each shows its moment, whatever is written and merged after it.
//!
//! Here a shard is read by others too, so that its memtable is not its writer's alone, and among the
//! operands are some that the merge cannot parse.

use crate::fixture::{Chance, Store, external, options};
use crate::storm::factor;
use crate::walks::mixed;
use ringdb_storage::{
    Batch, Crash, Direction, Durability, Error, Job, JobKind, MemoryDisk, Op, Options, Reader,
    Scan, Shard, Snapshot, View,
};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a key holds.
#[derive(Clone, Default, Debug)]
struct Cell {
    value: Option<Vec<u8>>,
    /// An operand that cannot be parsed stands above: those after it have no effect.
    carried: bool,
    /// What the value was before its last operands. Which of them are folded is the store's affair, and
    /// a read below a carried operand shows what has been folded.
    unfolded: Vec<Option<Vec<u8>>>,
}

impl Cell {
    fn merge(&mut self, operand: &[u8]) {
        self.carried |= operand == b"!";
        if !self.carried {
            self.unfolded.push(self.value.clone());
            self.value.get_or_insert_default().extend_from_slice(operand);
        }
    }

    fn may_show(&self, seen: Option<&[u8]>) -> bool {
        let same = |value: &Option<Vec<u8>>| value.as_deref() == seen;
        same(&self.value) || (self.carried && self.unfolded.iter().any(same))
    }
}

type Model = BTreeMap<Vec<u8>, Cell>;

/// First key and first key after it.
type Bounds = (Vec<u8>, Vec<u8>);

fn within((lower, upper): &Bounds, key: &[u8]) -> bool {
    key >= lower.as_slice() && key < upper.as_slice()
}

fn put_into(model: &mut Model, key: &[u8], value: &[u8]) {
    model.insert(key.to_vec(), Cell { value: Some(value.to_vec()), ..Cell::default() });
}

/// What `batch` does to the shard of `bounds`.
fn apply(model: &mut Model, batch: &Batch, bounds: &Bounds) {
    for op in batch.ops() {
        match op {
            Op::Put { key, value } => put_into(model, key, value),
            Op::Delete { key } => drop(model.remove(key)),
            Op::Merge { key, operand } => model.entry(key.to_vec()).or_default().merge(operand),
            Op::DeleteRange { start, end } => model.retain(|key, _| {
                !within(bounds, key) || key.as_slice() < start || key.as_slice() >= end
            }),
        }
    }
}

/// Whoever can be asked for rows.
#[derive(Clone, Copy)]
enum Witness<'a> {
    View(&'a View),
    Shard(&'a Shard, Option<&'a Snapshot>),
}

impl<'a> Witness<'a> {
    fn get(self, key: &[u8]) -> Option<Vec<u8>> {
        let value = match self {
            Self::View(view) => view.get(key),
            Self::Shard(shard, snapshot) => shard.get(key, snapshot),
        };
        value.unwrap().map(|value| value.to_vec())
    }

    fn get_many(self, keys: &[Vec<u8>]) -> Vec<(usize, Option<Vec<u8>>)> {
        let mut seen = Vec::new();
        let note = |i: usize, value: Option<&[u8]>| seen.push((i, value.map(<[u8]>::to_vec)));
        match self {
            Self::View(view) => view.get_many(keys, note).unwrap(),
            Self::Shard(shard, None) => shard.get_many(keys, note).unwrap(),
            // The past is asked key by key.
            Self::Shard(..) => {
                return keys.iter().map(|key| self.get(key)).enumerate().collect();
            }
        }
        seen
    }

    fn scan(self, part: &Bounds, direction: Direction) -> Result<Scan<'a>, Error> {
        let (start, end) = part;
        match self {
            Self::View(view) => view.scan(start, Some(end), direction),
            Self::Shard(shard, past) => shard.scan(start, Some(end), direction, past),
        }
    }

    /// Compares what it shows of the shard of `bounds` with `model`.
    fn check(self, model: &Model, bounds: &Bounds, chance: &mut Chance) {
        let may_show = |key: &[u8], seen: Option<&[u8]>| {
            let cell = model.get(key).cloned().unwrap_or_default();
            assert!(cell.may_show(seen), "{} is {seen:?}, not {cell:?}", key.escape_ascii());
        };
        let (a, b) = (chance.key(100), chance.key(100));
        let part = (a.max(bounds.0.clone()), b.min(bounds.1.clone()));
        for part in [bounds, &part] {
            for direction in [Direction::Forward, Direction::Backward] {
                let mut rows = mixed(self.scan(part, direction).unwrap(), chance);
                if direction == Direction::Backward {
                    rows.reverse();
                }
                assert!(rows.is_sorted_by(|a, b| a.0 < b.0), "{direction:?}: {rows:?}");
                let rows: BTreeMap<_, _> = rows.into_iter().collect();
                assert!(rows.keys().all(|key| within(part, key)), "{direction:?}: {rows:?}");
                for key in rows.keys().chain(model.keys()).filter(|key| within(part, key)) {
                    may_show(key, rows.get(key).map(Vec::as_slice));
                }
            }
        }
        let keys = (0..100).map(|i| format!("k{i:03}").into_bytes());
        let keys: Vec<_> = keys.filter(|key| within(bounds, key)).collect();
        keys.iter().for_each(|key| may_show(key, self.get(key).as_deref()));
        let keys: Vec<_> = (0..chance.below(60)).map(|_| chance.key(100)).collect();
        let keys: Vec<_> = keys.into_iter().filter(|key| within(bounds, key)).collect();
        let seen = self.get_many(&keys);
        assert!(seen.iter().map(|(i, _)| *i).eq(0..keys.len()), "{seen:?} of {}", keys.len());
        seen.iter().for_each(|(i, value)| may_show(&keys[*i], value.as_deref()));
    }
}

/// What a run writes, and how much of it.
struct Habits {
    /// So many different keys.
    keys: u64,
    /// Range deletions, in percent of the changes.
    ranges: u64,
}

struct Run {
    chance: Chance,
    habits: Habits,
    disk: MemoryDisk,
    store: Store,
    model: Model,
    /// Of each shard, once it has one.
    readers: Vec<Option<Reader>>,
    /// Shard, view, and the model when it was taken.
    views: Vec<(usize, View, Model)>,
    past: Vec<(Snapshot, Model)>,
    /// Jobs that were taken and not yet run.
    open: Vec<Job>,
}

/// So many views or snapshots are held at once.
const HELD_MAX: usize = 6;

/// Options that differ from run to run. A large memtable lives through many changes of its views.
fn some_options(chance: &mut Chance) -> Options {
    Options {
        memtable_bytes: [4 << 10, 16 << 10, 64 << 10][chance.below(3) as usize],
        large_value_bytes: [20, usize::MAX][chance.below(2) as usize],
        blob_file_bytes: 700,
        ..options(1 + chance.below(4) as usize)
    }
}

fn bounds(options: &Options, shard: usize) -> Bounds {
    let splits = &options.splits;
    let lower = if shard == 0 { Vec::new() } else { splits[shard - 1].clone() };
    (lower, splits.get(shard).cloned().unwrap_or_else(|| b"z".to_vec()))
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let disk = MemoryDisk::new(seed);
        let options = some_options(&mut chance);
        let readers = vec![None; options.shards()];
        let store = Store::open(&disk, options).unwrap();
        let keys = [10, 25, 100][chance.below(3) as usize];
        let habits = Habits { keys, ranges: [5, 20, 60][chance.below(3) as usize] };
        let (model, views, past, open) = Default::default();
        Self { chance, habits, disk, store, model, readers, views, past, open }
    }

    fn key(&mut self) -> Vec<u8> {
        let apart = 100 / self.habits.keys;
        format!("k{:03}", self.chance.below(self.habits.keys) * apart).into_bytes()
    }

    fn batch(&mut self, bounds: &Bounds) -> Batch {
        let mut batch = Batch::new();
        for _ in 0..=self.chance.below(4) {
            let key = loop {
                let key = self.key();
                if within(bounds, &key) {
                    break key;
                }
            };
            let letter = b'a' + (self.chance.below(26) as u8);
            if self.chance.below(100) < self.habits.ranges {
                // Cut to the shard by the shard.
                let (a, b) = (self.chance.key(100), self.chance.key(101));
                batch.delete_range(&a.clone().min(b.clone()), &a.max(b));
                continue;
            }
            match self.chance.below(20) {
                0..8 => batch.put(&key, &vec![letter; self.chance.below(40) as usize]),
                8..11 => batch.delete(&key),
                11 => batch.merge(&key, b"!"),
                _ => batch.merge(&key, &[letter.to_ascii_uppercase()]),
            }
        }
        batch
    }

    fn write(&mut self, shard: usize) {
        let bounds = bounds(&self.store.options, shard);
        let batch = self.batch(&bounds);
        apply(&mut self.model, &batch, &bounds);
        self.store.shards[shard].apply(&batch, Durability::Buffered).unwrap();
        if self.store.shards[shard].wants_rotation() {
            self.store.shards[shard].rotate();
        }
    }

    fn step(&mut self) {
        let shard = self.chance.below(self.store.shards.len() as u64) as usize;
        match self.chance.below(1000) {
            0..550 => self.write(shard),
            // So much that what a view sees is out of date many times over.
            550..560 => (0..100).for_each(|_| self.write(shard)),
            560..620 => drop(self.store.shards[shard].commit().unwrap()),
            620..635 => self.store.shards[shard].rotate(),
            635..640 => self.store.shards[shard].rotate_held(),
            640..700 => self.some_job(),
            700..715 => self.store.run_jobs().unwrap(),
            715..790 => self.take_view(shard),
            790..820 => drop(some_of(&mut self.views, &mut self.chance)),
            820..850 if self.past.len() < HELD_MAX => {
                let snapshot = self.store.shards[shard].snapshot();
                self.past.push((snapshot, self.model.clone()));
            }
            850..880 => drop(some_of(&mut self.past, &mut self.chance)),
            880..885 => self.reopen(),
            885..895 => self.ingest(),
            895..950 => self.check_one(),
            950..970 => self.walk(shard),
            _ => self.check(shard),
        }
    }

    /// The first view of a shard brings its reader, amid whatever its memtable holds.
    fn take_view(&mut self, shard: usize) {
        if self.views.len() < HELD_MAX {
            let store = &mut self.store;
            let reader = self.readers[shard].get_or_insert_with(|| store.shards[shard].reader());
            self.views.push((shard, reader.view(), self.model.clone()));
        }
    }

    /// A walk that others write beneath: it shows the moment at which its view was taken.
    fn walk(&mut self, shard: usize) {
        let Some(reader) = &self.readers[shard] else { return };
        let (view, model) = (reader.view(), self.model.clone());
        let bounds = bounds(&self.store.options, shard);
        let direction = [Direction::Forward, Direction::Backward][self.chance.below(2) as usize];
        let mut scan = Witness::View(&view).scan(&bounds, direction).unwrap();
        let mut rows = BTreeMap::new();
        while let Some((key, value)) = scan.next_row().unwrap() {
            rows.insert(key.to_vec(), value.to_vec());
            (0..self.chance.below(20)).for_each(|_| self.write(shard));
            if self.chance.below(8) == 0 {
                self.store.run_jobs().unwrap();
            }
        }
        for key in rows.keys().chain(model.keys()).filter(|key| within(&bounds, key)) {
            let (cell, seen) = (model.get(key).cloned().unwrap_or_default(), rows.get(key));
            assert!(cell.may_show(seen.map(Vec::as_slice)), "walk: {seen:?}, not {cell:?}");
        }
    }

    /// Several at once, ended in any order; now and then one is given back.
    fn some_job(&mut self) {
        match self.chance.below(8) {
            0..4 => self.open.extend(self.store.engine.next_job()),
            kind => {
                let job = some_of(&mut self.open, &mut self.chance);
                if let Some(job) = job.filter(|_| kind < 7) {
                    job.run().unwrap();
                }
            }
        }
    }

    /// Files of another store become part of this one: as if all their rows were put now.
    fn ingest(&mut self) {
        let mut rows = BTreeMap::new();
        for i in 0..=self.chance.below(20) {
            let value = vec![b'0' + (i % 10) as u8; self.chance.below(40) as usize];
            rows.insert(self.key(), value);
        }
        let (files, names) = external(rows.iter());
        // A flush that somebody has would be in the way.
        for job in self.open.extract_if(.., |job| job.kind() == JobKind::Flush) {
            job.run().unwrap();
        }
        self.store.engine.ingest(&mut self.store.shards, &files, &names).unwrap();
        rows.iter().for_each(|(key, value)| put_into(&mut self.model, key, value));
    }

    fn reopen(&mut self) {
        for shard in &mut self.store.shards {
            shard.commit().unwrap();
        }
        (self.past, self.open) = Default::default();
        // Views need neither their shard nor its reader.
        self.store.shards.clear();
        self.readers.clear();
        self.check_views();
        self.views.clear();
        self.disk.crash(Crash::ProcessKill);
        let options = some_options(&mut self.chance);
        self.readers.resize(options.shards(), None);
        self.store = Store::open(&self.disk, options).unwrap();
        (0..self.store.shards.len()).for_each(|shard| self.check(shard));
    }

    fn check_views(&mut self) {
        for (shard, view, model) in &self.views {
            let bounds = bounds(&self.store.options, *shard);
            Witness::View(view).check(model, &bounds, &mut self.chance);
        }
    }

    /// One view, which goes to the others again.
    fn check_one(&mut self) {
        let Some((shard, view, model)) = some_of(&mut self.views, &mut self.chance) else { return };
        let bounds = bounds(&self.store.options, shard);
        Witness::View(&view).check(&model, &bounds, &mut self.chance);
        self.views.push((shard, view, model));
    }

    /// All that is held, and the present as the shard and its readers see it.
    fn check(&mut self, shard: usize) {
        self.check_views();
        let here = bounds(&self.store.options, shard);
        let writer = &self.store.shards[shard];
        Witness::Shard(writer, None).check(&self.model, &here, &mut self.chance);
        if let Some(reader) = &self.readers[shard] {
            Witness::View(&reader.view()).check(&self.model, &here, &mut self.chance);
            for (key, cell) in self.model.iter().filter(|(key, _)| within(&here, key)) {
                assert!(cell.may_show(reader.get(key).unwrap().as_deref()), "{cell:?}");
            }
        }
        for (snapshot, model) in &self.past {
            let there = bounds(&self.store.options, snapshot.shard());
            let shard = &self.store.shards[snapshot.shard()];
            Witness::Shard(shard, Some(snapshot)).check(model, &there, &mut self.chance);
        }
    }
}

/// Takes one out.
fn some_of<T>(all: &mut Vec<T>, chance: &mut Chance) -> Option<T> {
    let i = chance.below(all.len().max(1) as u64) as usize;
    (i < all.len()).then(|| all.swap_remove(i))
}

#[test]
fn held_views_and_snapshots_show_their_moment_whatever_comes_after_it_in_a_storm() {
    for seed in 0..SEEDS * factor() {
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let mut run = Run::new(seed);
            (0..600).for_each(|_| run.step());
            (0..run.store.shards.len()).for_each(|shard| run.check(shard));
        }));
        assert!(ran.is_ok(), "seed {seed}");
    }
}

/// So many runs usually.
const SEEDS: u64 = 100;
