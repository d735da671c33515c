//! Every interleaving of writers in a group, as far as a model checker can say.

use super::group::{Groups, Target};
use crate::batch::{Batch, Op};
use crate::error::Error;
use crate::shard::Durability;
use crate::sync::{Mutex, MutexGuard, lock};
use std::sync::Arc;

#[cfg(loom)]
use loom::thread;
#[cfg(shuttle)]
use shuttle::thread;

fn model(f: impl Fn() + Send + Sync + 'static) {
    #[cfg(loom)]
    {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(f);
    }
    #[cfg(shuttle)]
    shuttle::check_random(f, 20_000);
}

/// Remembers what was written and what of it was synced; fails from some sync on.
#[derive(Default)]
struct Ledger {
    state: Mutex<(Vec<Vec<u8>>, usize, usize)>,
    syncs_that_work: usize,
    /// True while somebody has the turn; shared by the lanes of one store.
    turn: Arc<Mutex<()>>,
}

impl Target for Ledger {
    fn write(&self, batches: &mut dyn Iterator<Item = &Batch>, _: Durability) -> Result<(), Error> {
        for batch in batches {
            for op in batch.ops() {
                let Op::Put { key, .. } = op else { continue };
                lock(&self.state).0.push(key.to_vec());
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), Error> {
        let mut state = lock(&self.state);
        if state.2 == self.syncs_that_work {
            return Err(Error::NoSpace);
        }
        state.1 = state.0.len();
        state.2 += 1;
        Ok(())
    }

    fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        Some(lock(&self.turn))
    }

    fn broke_off(&self) -> Error {
        Error::NoSpace
    }
}

/// Some write, each with a durability: each returns, and what was acknowledged holds.
fn writers(durabilities: &'static [Durability], syncs_that_work: usize) {
    model(move || {
        let ledger = Ledger { syncs_that_work, ..Ledger::default() };
        let shared = Arc::new((Groups::default(), ledger));
        let write = |name: u8, durability: Durability, shared: &(Groups, Ledger)| {
            let mut batch = Batch::new();
            batch.put(&[name], b"");
            let done = shared.0.write(&shared.1, &batch, durability);
            let state = lock(&shared.1.state);
            let at = state.0.iter().position(|key| *key == [name]);
            let at = at.expect("whoever returns was written");
            if durability == Durability::Sync && done.is_ok() {
                assert!(at < state.1, "acknowledged and not synced");
            }
            if durability != Durability::Sync && shared.1.syncs_that_work > 10 {
                assert!(done.is_ok());
            }
        };
        let threads: Vec<_> = durabilities[1..]
            .iter()
            .zip(1..)
            .map(|(durability, name)| {
                let shared = shared.clone();
                thread::spawn(move || write(name, *durability, &shared))
            })
            .collect();
        write(0, durabilities[0], &shared);
        threads.into_iter().for_each(|thread| drop(thread.join()));
        assert_eq!(lock(&shared.1.state).0.len(), durabilities.len(), "each once");
    });
}

#[test]
fn writers_that_sync_are_all_woken_and_synced() {
    writers(&[Durability::Sync; 3], 100);
}

#[test]
fn writers_of_every_durability_are_woken() {
    writers(&[Durability::Os, Durability::Sync, Durability::Buffered], 100);
}

#[test]
fn a_failed_sync_is_told_to_all_of_its_group_and_nobody_waits_for_ever() {
    writers(&[Durability::Sync; 3], 1);
}

#[cfg(shuttle)]
#[test]
fn many_writers_are_woken() {
    writers(&[Durability::Sync; 7], 100);
}

/// Two lanes of a store take turns on the disk: all writers return, and none is acknowledged whose lane
/// was not synced.
#[test]
fn two_lanes_that_take_turns_wake_all_of_theirs() {
    model(|| {
        let turn = Arc::new(Mutex::new(()));
        let lane = || {
            let turn = turn.clone();
            Arc::new((
                Groups::default(),
                Ledger { turn, syncs_that_work: 100, ..Ledger::default() },
            ))
        };
        let lanes = [lane(), lane()];
        let write = |name: u8, durability: Durability, lane: &(Groups, Ledger)| {
            let mut batch = Batch::new();
            batch.put(&[name], b"");
            assert!(lane.0.write(&lane.1, &batch, durability).is_ok());
            let state = lock(&lane.1.state);
            let at = state.0.iter().position(|key| *key == [name]);
            let at = at.expect("whoever returns was written");
            assert!(durability != Durability::Sync || at < state.1, "acknowledged and not synced");
        };
        let (a, b) = (lanes[0].clone(), lanes[1].clone());
        let other = thread::spawn(move || write(1, Durability::Sync, &b));
        let same = thread::spawn(move || write(2, Durability::Os, &a));
        write(0, Durability::Sync, &lanes[0]);
        assert!(other.join().is_ok() && same.join().is_ok());
        assert_eq!(lock(&lanes[0].1.state).0.len(), 2, "each once");
        assert_eq!(lock(&lanes[1].1.state).0.len(), 1, "each once");
    });
}
