//! Open: the engine on a disk, and what each core's machine is told of the life before.
//!
//! A machine learns every slot clock: from the log, and from the rows that clocks were put into when
//! the log behind them went.

use std::sync::Arc;

use bytes::Bytes;
use replication::row;
use replication::{Recovery, RowChange};
use ring::Slot;
use storage::{Direction, Disk, Engine, Error, LogBatch, Op, OpenError, Options};

use crate::store::{Folding, Store};

/// A store that was opened.
pub struct Opened {
    /// The engine.
    pub engine: Arc<Engine>,
    /// One a core.
    pub stores: Vec<Store>,
    /// What each core's machine is told.
    pub recoveries: Vec<Recovery>,
}

/// The keys at which the rows of `cores` cores are split.
#[must_use]
pub fn splits(cores: usize) -> Vec<Vec<u8>> {
    let first_of = |core: usize| Slot::all().find(|slot| slot.core(cores) == core);
    (1..cores).filter_map(first_of).map(row::start_of).collect()
}

/// Opens the engine, its rows split between `cores` cores, and gathers what machines are told.
///
/// # Errors
/// What the engine says; a clock that cannot be read is damage like any other.
pub fn open(disk: Arc<dyn Disk>, options: Options, cores: u8) -> Result<Opened, OpenError> {
    let count = usize::from(cores);
    let mut recoveries: Vec<Recovery> = (0..cores).map(|c| Recovery::new(c, cores)).collect();
    let mut replay = |batch: LogBatch<'_>| {
        for change in batch.ops().filter_map(change_of) {
            let (RowChange::Merge { row, .. } | RowChange::Put { row, .. }) = &change;
            if let Some(slot) = row::slot_of(row).filter(|s| s.0 < ring::SLOTS) {
                recoveries[slot.core(count)].learn(&change);
            }
        }
    };
    let options = Options { splits: splits(count), ..options };
    let (engine, shards) = Engine::open(disk, options, Arc::new(Folding), &mut replay)?;
    let stores: Vec<Store> = shards.into_iter().map(Store::new).collect();
    for (store, recovery) in stores.iter().zip(&mut recoveries) {
        learn_clocks(store, recovery)?;
    }
    Ok(Opened { engine, stores, recoveries })
}

fn change_of(op: Op<'_>) -> Option<RowChange> {
    let copy = Bytes::copy_from_slice;
    match op {
        Op::Put { key, value } => Some(RowChange::Put { row: copy(key), value: copy(value) }),
        Op::Merge { key, operand } => {
            Some(RowChange::Merge { row: copy(key), operand: copy(operand) })
        }
        Op::Delete { .. } | Op::DeleteRange { .. } => None,
    }
}

/// Goes from slot to slot that holds anything: a slot's clock is its last row.
fn learn_clocks(store: &Store, recovery: &mut Recovery) -> Result<(), Error> {
    let mut from = Bytes::new();
    loop {
        let mut scan = store.shard().scan(&from, None, Direction::Forward, None)?;
        let mut next = None;
        while let Some((key, value)) = scan.next_row()? {
            if row::is_clock(key) {
                let (row, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(&value));
                recovery.learn(&RowChange::Put { row, value });
                continue;
            }
            next = row::slot_of(key).filter(|slot| slot.0 < ring::SLOTS);
            break;
        }
        match next {
            Some(slot) => from = row::of_clock(slot),
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_owns_the_rows_of_its_slots() {
        for cores in [1, 2, 3, 7, 64] {
            let splits = splits(cores);
            assert_eq!(splits.len(), cores - 1);
            for slot in Slot::all() {
                let row = row::of_clock(slot);
                let shard = splits.partition_point(|s| s[..] <= row[..]);
                assert_eq!(shard, slot.core(cores), "{slot} of {cores} cores");
            }
        }
    }

    #[test]
    fn clocks_in_rows_are_learned_whatever_lies_between_them() {
        let disk = Arc::new(storage::MemoryDisk::new(1));
        let options = || Options { log_retain_bytes: 0, ..Options::small() };
        let clock = |n| {
            let mut dots = replication::DotSet::new();
            let node = ring::NodeId(1);
            let actor = ring::Actor { node, incarnation: ring::Incarnation(1) };
            dots.insert(replication::Dot::new(actor, n));
            // First whether the slot has counters.
            let mut encoded = vec![0];
            dots.encode(&mut encoded);
            Bytes::from(encoded)
        };
        let slots = [Slot(0), Slot(1), Slot(777), Slot(16_383)];
        {
            let mut opened = open(disk.clone(), options(), 2).expect("an empty disk opens");
            for (n, slot) in (1..).zip(slots) {
                let store = &mut opened.stores[slot.core(2)];
                let (row, value) = (row::of_clock(slot), clock(n));
                let mut changes = vec![RowChange::Put { row, value }];
                if slot != Slot(1) {
                    // A record before the clock; what it says does not matter here.
                    let mut row = row::range_of(slot, 0).0;
                    row.extend_from_slice(b"k\0\0\0\0\x01");
                    changes.push(RowChange::Put { row: row.into(), value: clock(n) });
                }
                store.apply(&changes).expect("there is room");
                store.commit().expect("there is room");
                store.rotate();
            }
            while let Some(job) = opened.engine.next_job() {
                job.run().expect("there is room");
            }
        }
        let opened = open(disk, options(), 2).expect("it opens again");
        for slot in slots {
            let known = opened.recoveries[slot.core(2)].clock(slot);
            assert!(!known.is_empty(), "{slot:?} was not learned");
        }
    }

    #[test]
    fn what_is_held_is_flushed_when_it_is_released_and_told_by_the_log_before() {
        let disk = Arc::new(storage::MemoryDisk::new(1));
        let options = || Options { log_retain_bytes: 0, ..Options::small() };
        let mut dots = replication::DotSet::new();
        let actor = ring::Actor { node: ring::NodeId(1), incarnation: ring::Incarnation(1) };
        dots.insert(replication::Dot::new(actor, 1));
        let mut value = vec![0];
        dots.encode(&mut value);
        let change =
            |slot| RowChange::Put { row: row::of_clock(slot), value: value.clone().into() };
        let tables = |engine: &Engine| engine.stats().tables.iter().sum::<usize>();
        let run = |engine: &Engine| {
            let mut jobs = 0;
            while let Some(job) = engine.next_job() {
                job.run().expect("there is room");
                jobs += 1;
            }
            jobs
        };
        let mut opened = open(disk.clone(), options(), 1).expect("an empty disk opens");
        let store = &mut opened.stores[0];
        store.apply(&[change(Slot(1))]).expect("there is room");
        store.commit().expect("there is room");
        store.rotate_held();
        store.apply(&[change(Slot(2))]).expect("there is room");
        store.commit().expect("there is room");
        run(&opened.engine);
        assert_eq!(tables(&opened.engine), 0, "it is held");
        drop(opened);

        let mut opened = open(disk.clone(), options(), 1).expect("it opens again");
        for slot in [Slot(1), Slot(2)] {
            assert!(!opened.recoveries[0].clock(slot).is_empty(), "{slot:?}");
        }
        let store = &mut opened.stores[0];
        store.apply(&[change(Slot(3))]).expect("there is room");
        store.commit().expect("there is room");
        store.rotate_held();
        run(&opened.engine);
        let before = tables(&opened.engine);
        let store = &mut opened.stores[0];
        store.apply(&[change(Slot(4))]).expect("there is room");
        store.commit().expect("there is room");
        store.release();
        assert!(run(&opened.engine) > 0, "it is released");
        assert!(tables(&opened.engine) > before);
        // The table did not become durable before what was committed after its memtable.
        disk.crash(storage::Crash::PowerLoss(storage::Survival::None));
        drop(opened);

        let opened = open(disk, options(), 1).expect("it opens again");
        for slot in [Slot(1), Slot(2), Slot(3), Slot(4)] {
            assert!(!opened.recoveries[0].clock(slot).is_empty(), "{slot:?}");
        }
    }
}
