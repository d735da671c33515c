//! Build: the store that is read, and what was written to it.

use ringdb_storage::{
    Batch, Durability, Engine, Error, FileDisk, Folded, Merge, OpenError, Options, Shard, Snapshot,
};
use std::path::Path;
use std::sync::Arc;

/// No value.
pub(crate) const ABSENT: u64 = u64::MAX;
const BATCH: u64 = 500;

/// A store, open, with what its rows should be.
pub(crate) struct Built {
    pub(crate) engine: Arc<Engine>,
    pub(crate) shard: Shard,
    /// What each key is.
    pub(crate) expected: Vec<u64>,
    pub(crate) changes: u64,
    /// First key, first key after, sequence.
    ranges: Vec<(u32, u32, u64)>,
    /// Keeps old versions in the tables.
    _snapshot: Snapshot,
}

impl Built {
    /// Sequence of the newest range deletion over `key`; 0 when there is none.
    pub(crate) fn covered(&self, key: u32) -> u64 {
        let over = self.ranges.iter().filter(|(start, end, _)| (*start..*end).contains(&key));
        over.map(|(_, _, sequence)| *sequence).max().unwrap_or(0)
    }
}

pub(crate) fn key(k: u32) -> Vec<u8> {
    format!("row-{k:012}").into_bytes()
}

pub(crate) fn parse_key(key: &[u8]) -> Option<u32> {
    std::str::from_utf8(key.strip_prefix(b"row-")?).ok()?.parse().ok()
}

/// The value that says `number`.
pub(crate) fn value(number: u64) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    value.resize(8 + usize::try_from(number % 48).unwrap_or(0), b'v');
    value
}

/// The number that a value says.
pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    (value(number) == bytes).then_some(number)
}

/// Adds.
struct Add;

impl Merge for Add {
    fn full(&self, _: &[u8], base: Option<&[u8]>, operands: &[&[u8]], out: &mut Vec<u8>) -> Folded {
        let sum: Option<u64> = base.iter().chain(operands).map(|bytes| number(bytes)).sum();
        match sum {
            Some(sum) => {
                out.extend_from_slice(&value(sum));
                Folded::Value
            }
            None => Folded::Carry,
        }
    }

    fn partial(&self, _: &[u8], operands: &[&[u8]], out: &mut Vec<u8>) -> bool {
        let sum: Option<u64> = operands.iter().map(|bytes| number(bytes)).sum();
        sum.inspect(|sum| out.extend_from_slice(&value(*sum))).is_some()
    }
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn key(&mut self, keys: u32) -> u32 {
        u32::try_from(self.below(u64::from(keys))).unwrap_or(0)
    }
}

/// Every key once in scattered order, and as many changes again of other kinds in between.
pub(crate) fn build(directory: &Path, keys: u32) -> Result<Built, Box<dyn std::error::Error>> {
    let disk = Arc::new(FileDisk::new(directory)?);
    // Sizes by the number of keys, so that any number of them fills the same levels: the last one comes to
    // some forty bytes a key, which is so much more than `level1_bytes` that two levels stand above it, and a
    // table is small enough for the first of them to hold some.
    let scale = usize::try_from(keys)?;
    let options = Options {
        memtable_bytes: (scale * 2).max(64 << 10),
        log_retain_bytes: 0,
        table_bytes: scale as u64 / 4,
        level1_bytes: scale as u64 / 4,
        ..Options::default()
    };
    let opened: Result<_, OpenError> = Engine::open(disk, options, Arc::new(Add), &mut |_| {});
    let (engine, mut shards) = opened?;
    let mut shard = shards.pop().ok_or("a store has a shard")?;
    let mut expected = vec![ABSENT; usize::try_from(keys)?];
    let (mut ranges, mut changes, mut snapshot) = (Vec::new(), 0, None);
    let mut chance = Chance(5);
    let mut batch = Batch::new();
    // A step that shares no factor with the number of keys visits them all.
    let step = (1 << 20..).map(|n| 2 * n + 1).find(|n| gcd(*n, u64::from(keys)) == 1);
    let step = step.ok_or("some odd number has no common factor")?;
    for i in 0..u64::from(keys) {
        let k = u32::try_from(i * step % u64::from(keys))?;
        let first = chance.below(1 << 40);
        batch.put(&key(k), &value(first));
        expected[k as usize] = first;
        let k = chance.key(keys);
        let operand = chance.below(1 << 40);
        let now = &mut expected[k as usize];
        match chance.below(10) {
            0..5 => {
                batch.put(&key(k), &value(operand));
                *now = operand;
            }
            5..8 => {
                batch.merge(&key(k), &value(operand));
                *now = if *now == ABSENT { operand } else { *now + operand };
            }
            _ => {
                batch.delete(&key(k));
                *now = ABSENT;
            }
        }
        let ends = i % BATCH == BATCH - 1 || i + 1 == u64::from(keys);
        if ends {
            // Some 200 range deletions, each over a thousandth of the keys.
            let ranged = chance.below(u64::from(keys) / BATCH) < 200;
            let start = chance.key(keys);
            let end = (start + keys / 1000).min(keys);
            if ranged {
                batch.delete_range(&key(start), &key(end));
                expected[start as usize..end as usize].fill(ABSENT);
            }
            changes += batch.len() as u64;
            let position = shard.apply(&batch, Durability::Os)?;
            if ranged {
                ranges.push((start, end, position.sequence));
            }
            batch.clear();
            work(&engine, &mut shard, false)?;
        }
        if i == u64::from(keys) / 2 {
            snapshot = Some(shard.snapshot());
        }
    }
    work(&engine, &mut shard, true)?;
    let snapshot = snapshot.ok_or("half of the keys were passed")?;
    Ok(Built { engine, shard, expected, changes, ranges, _snapshot: snapshot })
}

/// Rotates a full memtable and does what is to be done in the background; or in the end any, which is only
/// flushed, so that level 0 holds a table too.
fn work(engine: &Engine, shard: &mut Shard, end: bool) -> Result<(), Error> {
    if end || shard.wants_rotation() {
        shard.rotate();
        while let Some(job) = if end { engine.next_flush() } else { engine.next_job() } {
            job.run()?;
        }
        shard.refresh();
    }
    Ok(())
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
