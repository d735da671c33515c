//! Every interleaving of a memtable's writer and a reader, as far as a model checker can say.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p ringdb-storage --lib --release --target-dir target/loom models::
//! RUSTFLAGS="--cfg shuttle" cargo test -p ringdb-storage --lib --release --target-dir target/shuttle models::
//! ```
//!
//! A model is a list of changes: some are there before, a thread makes the others and publishes them
//! batch by batch. Another takes a bound and must read what a sorted map would hold at that sequence.

mod chains;
mod deletions;
mod memory;
mod tree;

use super::tests::Append;
use super::*;
use crate::merge::{Direction, MemtableCursor, Merged, Source};
use crate::scan::Scan;
use crate::shelf::Shelf;
use crate::value::{Bytes, Resolver};
use std::collections::{BTreeMap, VecDeque};
use std::sync::LazyLock;

#[cfg(loom)]
use loom::thread;
#[cfg(shuttle)]
use shuttle::thread;

/// Loom: every interleaving with at most three forced switches, under the weak memory model.
/// Shuttle: many schedules by chance, with sequential consistency, of larger cases.
fn model(f: impl Fn() + Send + Sync + 'static) {
    #[cfg(loom)]
    {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.max_branches = 100_000;
        model.check(f);
    }
    #[cfg(shuttle)]
    {
        let f = Arc::new(f);
        let first = f.clone();
        shuttle::check_random(move || first(), 20_000);
        // By chance two threads get on about alike; here one of them stands still for long.
        shuttle::check_pct(move || f(), 10_000, 3);
    }
}

/// What a writer does. Changes have the next sequence, and write that sequence.
#[derive(Debug, Clone, Copy)]
enum Step {
    Put(u64),
    /// A value that fills more than one page, and does not fit into the first block.
    PutLarge(u64),
    Delete(u64),
    Merge(u64),
    DeleteRange(u64, u64),
    /// Gives readers a new view, and back to the memtable what nobody can hold any more.
    View,
    /// Somebody takes the view of now and keeps it.
    Hold,
    /// And lets it go.
    LetGo,
}
use Step::{Delete, DeleteRange, Hold, LetGo, Put, PutLarge, View};

fn large(sequence: u64) -> Vec<u8> {
    sequence.to_be_bytes().repeat(700)
}

type Rows = BTreeMap<u64, Vec<u8>>;

/// What a reader sees whose bound is `bound`.
fn expected<'a>(steps: impl Iterator<Item = &'a Step>, bound: u64) -> Rows {
    let mut rows = Rows::new();
    let changes = steps.filter(|step| !matches!(step, View | Hold | LetGo));
    for (step, sequence) in changes.zip(1..=bound) {
        match *step {
            Put(key) => drop(rows.insert(key, sequence.to_be_bytes().to_vec())),
            PutLarge(key) => drop(rows.insert(key, large(sequence))),
            Delete(key) => drop(rows.remove(&key)),
            Step::Merge(key) => rows.entry(key).or_default().extend(sequence.to_be_bytes()),
            DeleteRange(start, end) => rows.retain(|key, _| *key < start || *key >= end),
            View | Hold | LetGo => {}
        }
    }
    rows
}

/// What readers go through: see `reader`, which does the same with what models do not know.
struct Published {
    view: Mutex<Counted<Sight>>,
    sequence: AtomicU64,
}

struct Sight {
    memtable: Counted<Memtable>,
    floor: u64,
}

/// The writer's side of it: see `shard`.
struct Shard {
    active: Active,
    sequence: u64,
    published: Counted<Published>,
    view: Counted<Sight>,
    replaced: VecDeque<(Counted<Sight>, Retired)>,
    held: Option<Counted<Sight>>,
}

impl Shard {
    fn new(bytes: usize) -> Self {
        let mut active = Active::new(bytes);
        active.share(0);
        let view = Counted::new(Sight { memtable: active.memtable().clone(), floor: 0 });
        let published = Published { view: Mutex::new(view.clone()), sequence: AtomicU64::new(0) };
        let published = Counted::new(published);
        Self { active, sequence: 0, published, view, replaced: VecDeque::new(), held: None }
    }

    fn write(&mut self, batch: &[Step]) {
        for step in batch {
            let sequence = self.sequence + 1;
            let value = match step {
                PutLarge(_) => large(sequence),
                _ => sequence.to_be_bytes().to_vec(),
            };
            let (key, end) = match *step {
                Put(key) | PutLarge(key) | Delete(key) | Step::Merge(key) => (key, 0),
                DeleteRange(start, end) => (start, end),
                View => {
                    self.publish();
                    self.change_view();
                    continue;
                }
                Hold => {
                    self.held = Some(self.view.clone());
                    continue;
                }
                LetGo => {
                    self.held = None;
                    continue;
                }
            };
            let (key, end) = (key.to_be_bytes(), end.to_be_bytes());
            let op = match step {
                Put(_) | PutLarge(_) => Op::Put { key: &key, value: &value },
                Delete(_) => Op::Delete { key: &key },
                Step::Merge(_) => Op::Merge { key: &key, operand: &value },
                DeleteRange(..) | View | Hold | LetGo => Op::DeleteRange { start: &key, end: &end },
            };
            let range = KeyRange { lower: Vec::new(), upper: None };
            self.active.apply(op, sequence, 0, &range, &Append, &|_| false);
            self.sequence = sequence;
        }
        self.publish();
    }

    fn publish(&self) {
        self.published.sequence.store(self.sequence, Ordering::Release);
    }

    fn change_view(&mut self) {
        let memtable = self.active.memtable().clone();
        let next = Counted::new(Sight { memtable, floor: self.sequence });
        let old = std::mem::replace(&mut self.view, next.clone());
        drop(std::mem::replace(&mut *lock(&self.published.view), next));
        self.replaced.push_back((old, self.active.take_retired()));
        while let Some((oldest, _)) = self.replaced.front_mut() {
            if Counted::get_mut(oldest).is_none() {
                break;
            }
            let (_, retired) = self.replaced.pop_front().expect("there is a front");
            let oldest = self.replaced.front().map_or(&self.view, |(oldest, _)| oldest);
            self.active.reclaim(retired, oldest.floor, 0, &Append);
        }
    }
}

/// Of standard types alone, and the same for all models.
static SHELF: LazyLock<Shelf> = LazyLock::new(|| Shelf::alone(0));

/// The value of a key, as `sources` looks it up.
fn get(memtable: &Memtable, key: u64, bound: u64) -> Option<Vec<u8>> {
    let key = key.to_be_bytes();
    let mut resolver = Resolver::new(bound);
    resolver.cover(memtable.covering(&key, bound));
    for (tag, value) in memtable.get(&key) {
        if !resolver.see(tag, || Bytes::Borrowed(value)) {
            break;
        }
    }
    resolver.end_of_source();
    let found = resolver.finish(&key, &Append, &SHELF).expect("nothing is damaged");
    found.map(|value| value.to_vec())
}

/// All rows, as `sources` walks them.
fn scan(memtable: &Memtable, direction: Direction, bound: u64) -> Vec<(u64, Vec<u8>)> {
    let cursor = MemtableCursor::new(memtable, b"", None, direction);
    let rows = Merged::new(vec![Source::Memtable(cursor)], direction);
    let mut tombstones: Vec<&RangeTombstones> = Vec::new();
    tombstones.extend(memtable.tombstones().iter().map(AsRef::as_ref));
    let scan = Scan::new(rows, tombstones, direction, &Append, &SHELF, bound);
    let mut rows: Vec<(u64, Vec<u8>)> = scan
        .map(|row| row.expect("nothing is damaged"))
        .map(|(key, value)| (u64::from_be_bytes(key.try_into().expect("eight bytes")), value))
        .collect();
    if direction == Backward {
        rows.reverse();
    }
    rows
}

/// How a model reads.
#[derive(Debug, Clone, Copy)]
enum Read {
    Gets,
    Scan(Direction),
}
use Direction::{Backward, Forward};
use Read::Gets;

impl Read {
    fn sees(self, memtable: &Memtable, bound: u64, rows: &Rows, keys: &[u64]) {
        match self {
            Gets => {
                for key in keys {
                    let found = get(memtable, *key, bound);
                    assert_eq!(found.as_ref(), rows.get(key), "{key} at {bound}");
                }
            }
            Self::Scan(direction) => {
                let found = scan(memtable, direction, bound);
                assert!(found.iter().map(|(k, v)| (k, v)).eq(rows), "{found:?} at {bound}");
            }
        }
    }
}

/// One thread writes `batches` while another reads with the bound that it finds published, and at all
/// before if nothing is given back meanwhile.
fn what_is_read_is_what_was_published(
    before: &'static [Step],
    batches: &'static [&'static [Step]],
    read: Read,
) {
    model(move || {
        let mut shard = Shard::new(0);
        shard.write(before);
        let first = shard.sequence;
        let (published, memtable) = (shard.published.clone(), shard.active.memtable().clone());
        let writer = thread::spawn(move || {
            batches.iter().for_each(|batch| shard.write(batch));
            shard
        });
        let steps = || before.iter().chain(batches.iter().copied().flatten());
        let mut keys: Vec<u64> = expected(steps(), first).into_keys().collect();
        keys.extend(steps().filter_map(|step| match step {
            Put(key) | PutLarge(key) | Step::Merge(key) => Some(*key),
            _ => None,
        }));
        keys.sort_unstable();
        keys.dedup();
        if steps().any(|step| matches!(step, View)) {
            let view = lock(&published.view).clone();
            // Only now: then it is not below the floor of the view.
            let bound = published.sequence.load(Ordering::Acquire);
            read.sees(&view.memtable, bound, &expected(steps(), bound), &keys);
        } else {
            let bound = published.sequence.load(Ordering::Acquire);
            read.sees(&memtable, bound, &expected(steps(), bound), &keys);
            if bound > first {
                read.sees(&memtable, first, &expected(steps(), first), &keys);
            }
        }
        drop((published, memtable));
        drop(writer.join().expect("the writer did not fail"));
    });
}
