//! The store of one core: carries out storage effects on the real engine, as the node's does.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use replication::listing::{Listings, Rows};
use replication::row::{self, Keyspace, Row};
use replication::{DotSet, Recovery, RowChange, delta, fold};
use ring::Slot;
use storage::{
    Batch, Direction, Durability, Engine, Error, Folded, LogBatch, MemoryDisk, Merge, Op,
    OpenError, Options, Shard, SyncHandle,
};

/// What merge operands mean.
struct Folding;

impl Merge for Folding {
    fn full(
        &self,
        _key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Folded {
        match fold::fold(base, operands.iter().copied(), out) {
            fold::Folded::Record => Folded::Value,
            fold::Folded::Nothing => Folded::Deleted,
            fold::Folded::Unreadable => Folded::Carry,
        }
    }

    fn partial(&self, _key: &[u8], operands: &[&[u8]], out: &mut Vec<u8>) -> bool {
        fold::fold_partial(operands.iter().copied(), out)
    }
}

/// The keys at which the rows of `cores` cores are split.
#[must_use]
pub fn splits(cores: u8) -> Vec<Vec<u8>> {
    let cores = usize::from(cores);
    let first_of = |core: usize| Slot::all().find(|slot| slot.core(cores) == core);
    (1..cores).filter_map(first_of).map(row::start_of).collect()
}

/// A store that was opened, and what each core's machine is told of it.
pub struct Opened {
    /// The engine.
    pub engine: Arc<Engine>,
    /// One a core.
    pub stores: Vec<Store>,
    /// One a core.
    pub recoveries: Vec<Recovery>,
}

/// Opens the engine on a disk and gathers what the machines must be told.
///
/// # Errors
/// What the engine says.
pub fn open(disk: &MemoryDisk, options: Options, cores: u8) -> Result<Opened, OpenError> {
    let mut recoveries: Vec<Recovery> = (0..cores).map(|c| Recovery::new(c, cores)).collect();
    let mut replay = |batch: LogBatch<'_>| {
        for change in batch.ops().filter_map(change_of) {
            for recovery in &mut recoveries {
                recovery.learn(&change);
            }
        }
    };
    let (engine, shards) =
        Engine::open(Arc::new(disk.clone()), options, Arc::new(Folding), &mut replay)?;
    let stores: Vec<Store> = shards.into_iter().map(Store::new).collect();
    for store in &stores {
        let mut scan = store.shard.scan(&[], None, Direction::Forward, None)?;
        while let Some((key, value)) = scan.next_row()? {
            if row::is_clock(key) {
                let change = RowChange::Put {
                    row: Bytes::copy_from_slice(key),
                    value: Bytes::copy_from_slice(&value),
                };
                recoveries.iter_mut().for_each(|r| r.learn(&change));
            }
        }
    }
    Ok(Opened { engine, stores, recoveries })
}

fn change_of(op: Op<'_>) -> Option<RowChange> {
    match op {
        Op::Put { key, value } => Some(RowChange::Put {
            row: Bytes::copy_from_slice(key),
            value: Bytes::copy_from_slice(value),
        }),
        Op::Merge { key, operand } => Some(RowChange::Merge {
            row: Bytes::copy_from_slice(key),
            operand: Bytes::copy_from_slice(operand),
        }),
        Op::Delete { .. } | Op::DeleteRange { .. } => None,
    }
}

/// Deltas wanted that stand in the retained log.
///
/// # Errors
/// What the engine says.
pub fn scan_log(engine: &Engine, wanted: &[(Slot, DotSet)]) -> Result<Vec<(Slot, Bytes)>, Error> {
    let mut found = Vec::new();
    engine.read_log(None, &mut |_, batch| {
        for op in batch.ops() {
            let Op::Merge { operand, .. } = op else { continue };
            let Some(raw) = fold::delta_of(operand) else { continue };
            let Some((slot, dot)) = delta::name_of(raw) else { continue };
            if wanted.iter().any(|(s, dots)| *s == slot && dots.contains(dot)) {
                found.push((slot, Bytes::copy_from_slice(raw)));
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// One core's part of the engine.
pub struct Store {
    shard: Shard,
    batch: Batch,
    listings: Listings,
}

impl Store {
    fn new(shard: Shard) -> Self {
        Self { shard, batch: Batch::new(), listings: Listings::default() }
    }

    /// Applies all changes or none; visible at once.
    ///
    /// # Errors
    /// What the engine says.
    pub fn apply(&mut self, changes: &[RowChange]) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        self.batch.clear();
        for change in changes {
            match change {
                RowChange::Merge { row, operand } => self.batch.merge(row, operand),
                RowChange::Put { row, value } => self.batch.put(row, value),
            }
        }
        self.shard.apply(&self.batch, Durability::Buffered).map(|_| ())
    }

    /// Gives everything applied to the operating system.
    ///
    /// # Errors
    /// What the engine says.
    pub fn commit(&mut self) -> Result<(), Error> {
        self.shard.commit().map(|_| ())
    }

    /// What makes durable what was committed.
    #[must_use]
    pub fn sync_handle(&self) -> SyncHandle {
        self.shard.sync_handle()
    }

    /// The encoded records of rows.
    ///
    /// # Errors
    /// What the engine says.
    pub fn load(&self, rows: &[Row]) -> Result<Vec<Bytes>, Error> {
        let mut records = Vec::with_capacity(rows.len());
        self.shard.get_many(rows, |_, value| {
            records.push(value.map_or_else(Bytes::new, Bytes::copy_from_slice));
        })?;
        Ok(records)
    }

    /// Lists rows in the order of SCAN.
    ///
    /// # Errors
    /// What the engine says.
    pub fn list(
        &mut self,
        keyspace: Keyspace,
        from: (Slot, u64),
        last: Slot,
        count: u32,
    ) -> Result<replication::listing::Listed, String> {
        self.listings.list(&Source(&self.shard), keyspace, from, last, count)
    }

    /// Rows of a slot from `from` on, about `bytes` of them, and where to go on.
    ///
    /// # Errors
    /// What the engine says.
    pub fn read_rows(
        &self,
        slot: Slot,
        from: &[u8],
        bytes: u32,
    ) -> Result<(Vec<(Row, Bytes)>, Row), Error> {
        let (first, end) = row::range_of_slot(slot);
        let start = if from.is_empty() { &first[..] } else { from };
        let mut scan = self.shard.scan(start, Some(&end), Direction::Forward, None)?;
        let (mut rows, mut sum) = (Vec::new(), 0);
        while let Some((key, value)) = scan.next_row()? {
            if sum >= bytes as usize {
                return Ok((rows, Bytes::copy_from_slice(key)));
            }
            sum += key.len() + value.len();
            rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(&value)));
        }
        Ok((rows, Row::new()))
    }

    /// Whether the memtable should become a table.
    #[must_use]
    pub fn wants_rotation(&self) -> bool {
        self.shard.wants_rotation()
    }

    /// Begins a new memtable and a new file of the log.
    pub fn rotate(&mut self) {
        self.shard.rotate();
    }
}

struct Source<'a>(&'a Shard);

impl Rows for Source<'_> {
    fn each(
        &self,
        slot: Slot,
        keyspace: Keyspace,
        f: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), String> {
        let (start, end) = row::range_of(slot, keyspace);
        let told = |e: Error| e.to_string();
        let mut scan = self.0.scan(&start, Some(&end), Direction::Forward, None).map_err(told)?;
        while let Some((key, value)) = scan.next_row().map_err(told)? {
            f(key, &value);
        }
        Ok(())
    }

    fn get(&self, row: &[u8]) -> Result<Vec<u8>, String> {
        let copy = |value: Option<&[u8]>| value.map(<[u8]>::to_vec).unwrap_or_default();
        self.0.get_with(row, copy).map_err(|e| e.to_string())
    }
}
