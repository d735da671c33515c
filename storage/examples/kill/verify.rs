//! Verify: what is left after a kill, against the ledger.

use crate::Chance;
use crate::ledger::{ABSENT, KEYS, Ledger, Record, SHARDS};
use crate::writer::{Add, key, number, options};
use ringdb_storage::{Direction, Engine, FileDisk, Shard};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// What was looked at.
#[derive(Default)]
pub(crate) struct Counts {
    /// Rows found.
    pub(crate) rows: u64,
    /// Keys that were promised to be something.
    pub(crate) promised: u64,
    /// Batches that were open at the kill, and how many of them survived.
    pub(crate) open: u64,
    pub(crate) survived: u64,
    /// Tables and log segments that were there.
    pub(crate) tables: u64,
    pub(crate) segments: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.promised += other.promised;
        self.open += other.open;
        self.survived += other.survived;
        self.tables += other.tables;
        self.segments += other.segments;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} promises kept, {} rows scanned, {} of {} open batches survived, {} tables, {} segments",
            self.promised, self.rows, self.survived, self.open, self.tables, self.segments
        )
    }
}

/// Looks at every key of the store that a killed writer left, and settles the ledger with it.
pub(crate) fn verify(directory: &Path, seed: u64) -> Result<Counts, String> {
    let text = |e: &dyn fmt::Display| e.to_string();
    let disk = Arc::new(FileDisk::new(directory.join("store")).map_err(|e| text(&e))?);
    let ledger = Ledger::open(directory).map_err(|e| text(&e))?;
    let (engine, shards) =
        Engine::open(disk, options(), Arc::new(Add), &mut |_| {}).map_err(|e| text(&e))?;
    if !engine.damage().is_empty() {
        return Err(format!("a kill damaged the store: {:?}", engine.damage()));
    }
    let mut counts = Counts::default();
    let mut chance = Chance(seed);
    for shard in &shards {
        check(shard, &ledger, &mut counts, chance.below(2) == 0)?;
    }
    let stats = engine.stats();
    counts.tables = stats.tables.iter().sum::<usize>() as u64;
    counts.segments = stats.log_segments as u64;
    Ok(counts)
}

fn check(
    shard: &Shard,
    ledger: &Ledger,
    counts: &mut Counts,
    backward: bool,
) -> Result<(), String> {
    let direction = if backward { Direction::Backward } else { Direction::Forward };
    let scan = shard.scan(b"", None, direction, None).map_err(|e| e.to_string())?;
    let mut rows = BTreeMap::new();
    for row in scan {
        let (key, value) = row.map_err(|e| e.to_string())?;
        rows.insert(key, value);
    }
    counts.rows += rows.len() as u64;
    // Whether each open batch is there: every key of it must say the same.
    let mut open: BTreeMap<u64, bool> = BTreeMap::new();
    let width = KEYS / SHARDS;
    let first = shard.number() as u64 * width;
    for k in first..first + width {
        let record = ledger.get(k).map_err(|e| e.to_string())?;
        let got = shard.get(&key(k), None).map_err(|e| e.to_string())?;
        let scanned = rows.remove(&key(k));
        if got.as_deref() != scanned.as_deref() {
            return Err(format!("key {k}: get says {got:?}, the scan {scanned:?}"));
        }
        let found = match &got {
            Some(bytes) => number(bytes).ok_or_else(|| format!("key {k} holds {bytes:?}"))?,
            None => ABSENT,
        };
        if found != record.promised && found != record.pending {
            return Err(format!("key {k} is {found}, and the ledger says {record:?}"));
        }
        counts.promised += 1;
        if record.promised != record.pending {
            let there = found == record.pending;
            if *open.entry(record.batch).or_insert(there) != there {
                return Err(format!("batch {} is there in part: key {k}", record.batch));
            }
        }
        let settled = Record { promised: found, pending: found, batch: 0 };
        ledger.set(k, settled).map_err(|e| e.to_string())?;
    }
    if let Some((key, _)) = rows.pop_first() {
        return Err(format!("a row that nobody wrote: {}", key.escape_ascii()));
    }
    let there: Vec<bool> = open.values().copied().collect();
    if there.windows(2).any(|pair| !pair[0] && pair[1]) {
        return Err(format!("a later batch survived an earlier one: {open:?}"));
    }
    counts.open += there.len() as u64;
    counts.survived += there.iter().filter(|there| **there).count() as u64;
    Ok(())
}
