//! Writer: changes the store until somebody kills it, and keeps the ledger.

use crate::ledger::{ABSENT, KEYS, Ledger, Record, SHARDS};
use crate::{Arguments, Chance};
use ringdb_storage::{Batch, Durability, Engine, FileDisk, Folded, Merge, Options, Shard};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Values are numbers with something behind them; merges add. Nothing else is folded.
pub(crate) struct Add;

pub(crate) fn key(k: u64) -> Vec<u8> {
    format!("key-{k:08}").into_bytes()
}

/// The value that says `number`: its length varies.
pub(crate) fn value(number: u64) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    let rest = usize::try_from(number % 300).unwrap_or_default();
    value.extend(
        (0..rest).map(|i| number.to_le_bytes()[i % 8] ^ u8::try_from(i % 256).unwrap_or(0)),
    );
    value
}

/// The number that a value says, if it is one of ours and whole.
pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    (value(number) == bytes).then_some(number)
}

fn add(numbers: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    numbers.sum()
}

impl Merge for Add {
    fn full(&self, _: &[u8], base: Option<&[u8]>, operands: &[&[u8]], out: &mut Vec<u8>) -> Folded {
        let base = base.map_or(Some(0), number);
        match add(std::iter::once(base).chain(operands.iter().map(|o| number(o)))) {
            Some(sum) => {
                out.extend_from_slice(&value(sum));
                Folded::Value
            }
            None => Folded::Carry,
        }
    }

    fn partial(&self, _: &[u8], operands: &[&[u8]], out: &mut Vec<u8>) -> bool {
        add(operands.iter().map(|o| number(o))).is_some_and(|sum| {
            out.extend_from_slice(&value(sum));
            true
        })
    }
}

/// So small that a fraction of a second reaches flushes, compactions and new log segments.
pub(crate) fn options() -> Options {
    let split = |shard: u64| key(shard * KEYS / SHARDS);
    Options {
        splits: (1..SHARDS).map(split).collect(),
        memtable_bytes: 128 << 10,
        log_segment_bytes: 96 << 10,
        log_retain_bytes: 64 << 10,
        table_bytes: 64 << 10,
        level1_bytes: 256 << 10,
        ..Options::small()
    }
}

/// Never comes back.
pub(crate) fn write(directory: &Path, arguments: &Arguments) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let disk = Arc::new(FileDisk::new(directory.join("store")).map_err(|e| text(&e))?);
    let ledger = Ledger::open(directory).map_err(|e| text(&e))?;
    let (engine, shards) =
        Engine::open(disk, options(), Arc::new(Add), &mut |_| {}).map_err(|e| text(&e))?;
    println!("ready");
    std::io::stdout().flush().map_err(|e| text(&e))?;
    std::thread::scope(|scope| {
        for mut shard in shards {
            let (ledger, chance) = (&ledger, Chance(arguments.seed ^ shard.number() as u64));
            scope.spawn(move || {
                let kinds = if arguments.seed.is_multiple_of(2) { 3 } else { 50 };
                let mut writer =
                    Writer { ledger, shard: &mut shard, chance, arguments, batch: 0, kinds };
                loop {
                    writer.turn();
                }
            });
        }
        loop {
            match engine.next_job() {
                Some(job) => job.run().expect("the disk works"),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    })
}

struct Writer<'a> {
    ledger: &'a Ledger,
    shard: &'a mut Shard,
    chance: Chance,
    arguments: &'a Arguments,
    batch: u64,
    /// One turn in so many is synced. A log that is seldom synced is written through memory.
    kinds: u64,
}

impl Writer<'_> {
    /// A few batches, then all of them promised.
    fn turn(&mut self) {
        let mut open: Vec<(u64, Record)> = Vec::new();
        let batches = 1 + self.chance.below(4);
        for i in 0..batches {
            let last = i + 1 == batches;
            self.batch += 1;
            let batch = self.fill(&mut open);
            if self.arguments.early {
                self.promise(&open);
            }
            let durability = match (last, self.chance.below(self.kinds)) {
                (false, _) | (true, 0) => Durability::Buffered,
                (true, 1) => Durability::Sync,
                (true, _) => Durability::Os,
            };
            self.shard.apply(&batch, durability).expect("the disk works");
        }
        self.shard.commit().expect("the disk works");
        self.promise(&open);
        if self.shard.wants_rotation() && self.shard.unflushed() < 3 {
            self.shard.rotate();
        }
    }

    /// One batch of changes to keys that no open batch changes, written to the ledger as pending.
    fn fill(&mut self, open: &mut Vec<(u64, Record)>) -> Batch {
        let mut batch = Batch::new();
        let width = KEYS / SHARDS;
        let first = self.shard.number() as u64 * width;
        for _ in 0..=self.chance.below(6) {
            let k = first + self.chance.below(width);
            let deletes = if self.chance.below(40) == 0 { 1 + self.chance.below(20) } else { 1 };
            let range = k..(k + deletes).min(first + width);
            if range.clone().any(|k| open.iter().any(|(other, _)| *other == k)) {
                continue;
            }
            if deletes > 1 {
                batch.delete_range(&key(range.start), &key(range.end));
                range.for_each(|k| self.pend(k, |_| ABSENT, open));
                continue;
            }
            let operand = self.chance.below(1 << 40);
            match self.chance.below(10) {
                0 => {
                    batch.delete(&key(k));
                    self.pend(k, |_| ABSENT, open);
                }
                1..=3 => {
                    batch.merge(&key(k), &value(operand));
                    let sum = |old| if old == ABSENT { operand } else { old + operand };
                    self.pend(k, sum, open);
                }
                _ => {
                    batch.put(&key(k), &value(operand));
                    self.pend(k, |_| operand, open);
                }
            }
        }
        batch
    }

    fn pend(&self, k: u64, becomes: impl Fn(u64) -> u64, open: &mut Vec<(u64, Record)>) {
        let old = self.ledger.get(k).expect("the ledger is readable");
        assert_eq!(old.promised, old.pending, "one change of a key at a time");
        let pending = becomes(old.promised);
        let record = Record { promised: old.promised, pending, batch: self.batch };
        self.ledger.set(k, record).expect("the ledger is writable");
        open.push((k, record));
    }

    fn promise(&self, open: &[(u64, Record)]) {
        for (k, record) in open {
            let kept = Record { promised: record.pending, ..*record };
            self.ledger.set(*k, kept).expect("the ledger is writable");
        }
    }
}
