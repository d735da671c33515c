//! Groups: many writers, one at a time, and whoever writes takes along what the others brought.
//!
//! The first to come leads: it writes its own batch and all that had gathered, makes them durable
//! with one sync when any of them asked for it, and wakes those who waited for this group, once.
//! What comes meanwhile gathers for the next group, so that its size follows the speed of the disk;
//! there is no timer. A writer that does not wait for the disk is not held up by a sync.

use crate::batch::Batch;
use crate::error::Error;
use crate::shard::Durability;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, lock, wait};
use std::collections::BTreeMap;

/// What a group is written to. Its calls exclude each other where they need to.
pub(crate) trait Target {
    /// Applies `batches` in order, and commits them unless all may stay buffered.
    fn write(
        &self,
        batches: &mut dyn Iterator<Item = &Batch>,
        durability: Durability,
    ) -> Result<(), Error>;
    /// Makes durable what was written before the call.
    fn sync(&self) -> Result<(), Error>;
}

/// The queue before a [`Target`].
#[derive(Default)]
pub(crate) struct Groups {
    state: Mutex<State>,
    /// Where those of even and of odd groups wait.
    over: [Condvar; 2],
    /// The number of the last group that is over.
    last_over: AtomicU64,
}

#[derive(Default)]
struct State {
    phase: Phase,
    /// What gathers for the group `number`.
    open: Gathered,
    number: u64,
    /// An emptied group, whose memory the next one takes.
    spare: Gathered,
    /// Groups that failed, and how many of their members do not know it yet.
    failed: BTreeMap<u64, (Error, usize)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Idle,
    Writing,
    Syncing,
}

/// Batches of several writers; those beyond `len` are memory to be used again.
#[derive(Default)]
struct Gathered {
    batches: Vec<Batch>,
    len: usize,
    sync: bool,
    os: bool,
}

impl Gathered {
    fn push(&mut self, batch: &Batch, durability: Durability) {
        if self.len == self.batches.len() {
            self.batches.push(Batch::new());
        }
        self.batches[self.len].append(batch);
        self.len += 1;
        self.sync |= durability == Durability::Sync;
        self.os |= durability == Durability::Os;
    }

    fn durability(&self, own: Durability) -> Durability {
        match own {
            _ if self.sync || own == Durability::Sync => Durability::Sync,
            _ if self.os || own == Durability::Os => Durability::Os,
            _ => Durability::Buffered,
        }
    }

    fn clear(&mut self) {
        self.batches[..self.len].iter_mut().for_each(Batch::clear);
        (self.len, self.sync, self.os) = (0, false, false);
    }
}

/// How often a writer looks whether its group is over before it sleeps: a few microseconds, about
/// what it costs to be woken.
const LOOKS: usize = 60;

impl Groups {
    /// Writes `batch` to `target`, alone or with others.
    pub(crate) fn write(
        &self,
        target: &impl Target,
        batch: &Batch,
        durability: Durability,
    ) -> Result<(), Error> {
        let mut state = lock(&self.state);
        if state.phase == Phase::Syncing && durability != Durability::Sync {
            drop(state);
            return target.write(&mut std::iter::once(batch), durability);
        }
        if state.phase == Phase::Idle {
            return self.lead(state, target, Some(batch), durability, 0);
        }
        // Numbered from 1, so that at the start group 0 is over.
        let mine = state.number + 1;
        state.open.push(batch, durability);
        if durability != Durability::Sync {
            drop(state);
            self.look(mine);
            state = lock(&self.state);
        }
        loop {
            // A group is over when its number is; groups are over in order.
            if self.last_over.load(Ordering::Acquire) >= mine {
                return Self::outcome(&mut state, mine);
            }
            if state.phase == Phase::Idle {
                return self.lead(state, target, None, durability, mine);
            }
            state = wait(&self.over[(mine & 1) as usize], state);
        }
    }

    /// Looks for a while whether a group is over.
    fn look(&self, group: u64) {
        for _ in 0..if cfg!(any(loom, shuttle)) { 0 } else { LOOKS } {
            if self.last_over.load(Ordering::Acquire) >= group {
                return;
            }
            std::hint::spin_loop();
        }
    }

    fn outcome(state: &mut State, group: u64) -> Result<(), Error> {
        let Some((error, left)) = state.failed.get_mut(&group) else { return Ok(()) };
        let error = error.clone();
        *left -= 1;
        if *left == 0 {
            state.failed.remove(&group);
        }
        Err(error)
    }

    /// Carries out the group that is open, with `own` before it.
    fn lead(
        &self,
        mut state: crate::sync::MutexGuard<'_, State>,
        target: &impl Target,
        own: Option<&Batch>,
        durability: Durability,
        mine: u64,
    ) -> Result<(), Error> {
        state.phase = Phase::Writing;
        state.number += 1;
        let number = state.number;
        debug_assert!(own.is_some() || mine == number, "who waits is in the group that is open");
        let spare = std::mem::take(&mut state.spare);
        let mut group = std::mem::replace(&mut state.open, spare);
        drop(state);
        let durability = group.durability(durability);
        let mut batches = own.into_iter().chain(&group.batches[..group.len]);
        let mut done = target.write(&mut batches, durability);
        if durability == Durability::Sync && done.is_ok() {
            lock(&self.state).phase = Phase::Syncing;
            done = target.sync();
        }
        let others = group.len - usize::from(own.is_none());
        group.clear();
        let mut state = lock(&self.state);
        state.spare = group;
        state.phase = Phase::Idle;
        self.last_over.store(number, Ordering::Release);
        if others > 0 {
            if let Err(e) = &done {
                state.failed.insert(number, (e.clone(), others));
            }
            self.over[(number & 1) as usize].notify_all();
        }
        if state.open.len > 0 {
            // Woken last, so that those of this group may have come back when it takes the next.
            self.over[((number + 1) & 1) as usize].notify_one();
        }
        done
    }
}
