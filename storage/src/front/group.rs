//! Groups: many writers, one at a time, and whoever writes takes along what the others brought.
//!
//! The first to come leads: it writes its own batch and all that had gathered, makes them durable
//! with one sync when any of them asked for it, and wakes those who waited for this group, once.
//! What comes meanwhile gathers for the next group, so that its size follows the speed of the disk;
//! there is no timer. A writer that does not wait for the disk and comes while a group is synced, or waits for
//! its turn on the disk ([`Target::turn`]), is not held up by that; one that gathered before may be.

use crate::batch::Batch;
use crate::error::Error;
use crate::shard::Durability;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Bell, Mutex, MutexGuard, lock, yield_now};
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

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
    /// Waits until nothing else is being synced that this should not meet on the disk, and keeps it away
    /// while it is held: from before a group is taken until it is synced.
    fn turn(&self) -> Option<MutexGuard<'_, ()>>;
    /// A panic broke off one of the calls above: nothing is written from now on. What those hear whose
    /// batches it concerns.
    fn broke_off(&self) -> Error;
}

/// The queue before a [`Target`].
#[derive(Default)]
pub(crate) struct Groups {
    state: Mutex<State>,
    /// The number of the last group that is over.
    last_over: AtomicU64,
    /// How many groups stand in `State::failed`.
    failed: AtomicU64,
    /// What those sleep on whose group has an even number, and an odd one: at most two groups have
    /// sleepers at a time.
    bells: [Bell; 2],
}

#[derive(Default)]
struct State {
    phase: Phase,
    /// What gathers for the group `number`.
    open: Gathered,
    number: u64,
    /// An emptied group, whose memory the next one takes.
    spare: Gathered,
    /// How many went to sleep after their group was taken.
    led_sleepers: usize,
    /// Members of the last group that was synced.
    synced_last: usize,
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
    /// How many sleep until it is over, or until one of them is to lead it. Whoever looked first and
    /// need not sleep any more may be counted too.
    sleepers: usize,
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
        self.batches[..self.len].iter_mut().for_each(Batch::reset);
        (self.len, self.sleepers, self.sync, self.os) = (0, 0, false, false);
    }
}

/// How often a writer looks whether its group is over before it lets others run: longer than it takes to
/// write a small group, much shorter than one that stands still.
const LOOKS: usize = 10;
/// How often it then lets others run before it sleeps: that costs a fifth of going to sleep and being woken,
/// and with sixteen writers on two cores it takes a third off what a write costs. To let them run
/// soon is a tenth cheaper than to look sixty times first: whoever runs brings more to the next group.
const YIELDS: usize = 2;
/// How often the leader of a group that is to be synced lets others run before it takes the group.
const GATHER_TURNS: usize = if cfg!(any(loom, shuttle)) { 1 } else { 16 };

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
            if self.look(mine) {
                return self.outcome(mine);
            }
            state = lock(&self.state);
            if self.is_over(mine) {
                drop(state);
                return self.outcome(mine);
            }
            if state.phase == Phase::Idle {
                return self.lead(state, target, None, durability, mine);
            }
        }
        // Not over, and somebody leads: this group, or one before it.
        let led = state.number >= mine;
        *(if led { &mut state.led_sleepers } else { &mut state.open.sleepers }) += 1;
        let bell = self.bell(mine);
        loop {
            // Groups end under the lock, and ring afterwards: this one's ring is still to come.
            let heard = bell.rings();
            drop(state);
            bell.rest(heard);
            if self.is_over(mine) {
                return self.outcome(mine);
            }
            state = lock(&self.state);
            if self.is_over(mine) {
                drop(state);
                return self.outcome(mine);
            }
            if state.phase == Phase::Idle && state.number < mine {
                return self.lead(state, target, None, durability, mine);
            }
        }
    }

    fn bell(&self, group: u64) -> &Bell {
        &self.bells[usize::from(group % 2 == 1)]
    }

    /// A group is over when its number is; groups are over in order.
    fn is_over(&self, group: u64) -> bool {
        self.last_over.load(Ordering::Acquire) >= group
    }

    /// Looks for a while whether a group is over.
    fn look(&self, group: u64) -> bool {
        for _ in 0..if cfg!(any(loom, shuttle)) { 0 } else { LOOKS } {
            if self.is_over(group) {
                return true;
            }
            std::hint::spin_loop();
        }
        // Where there are more threads than cores, whoever leads may stand still meanwhile.
        for _ in 0..if cfg!(any(loom, shuttle)) { 0 } else { YIELDS } {
            yield_now();
            if self.is_over(group) {
                return true;
            }
        }
        false
    }

    /// Lets those come who are about to: a sync costs much more than they do. Nobody waits for time:
    /// it ends when whoever can run has run and nobody came.
    fn gather<'a>(&'a self, mut state: MutexGuard<'a, State>, own: usize) -> MutexGuard<'a, State> {
        let mut turns = if state.synced_last > 1 { GATHER_TURNS } else { 0 };
        while turns > 0 {
            let before = state.open.len;
            drop(state);
            yield_now();
            state = lock(&self.state);
            turns = if state.open.len > before { turns - 1 } else { 0 };
        }
        state.synced_last = state.open.len + own;
        state
    }

    /// How a group ended that is over.
    fn outcome(&self, group: u64) -> Result<(), Error> {
        // What failed was counted before it was over.
        if self.failed.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        let mut state = lock(&self.state);
        let Some((error, left)) = state.failed.get_mut(&group) else { return Ok(()) };
        let error = error.clone();
        *left -= 1;
        if *left == 0 {
            state.failed.remove(&group);
            self.failed.fetch_sub(1, Ordering::Release);
        }
        Err(error)
    }

    /// Carries out the group that is open, with `own` before it.
    fn lead<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        target: &impl Target,
        own: Option<&Batch>,
        durability: Durability,
        mine: u64,
    ) -> Result<(), Error> {
        state.phase = Phase::Writing;
        // What folds values is the caller's and may panic. The group ends all the same: nobody of it may sleep
        // for ever, nor those who come after.
        let mut panic = None;
        let mut turn = None;
        if state.open.sync || durability == Durability::Sync {
            // Nothing is written meanwhile: who does not wait for the disk need not wait for this.
            state.phase = Phase::Syncing;
            drop(state);
            turn = caught(&mut panic, || target.turn()).flatten();
            state = lock(&self.state);
            state.phase = Phase::Writing;
            state = self.gather(state, usize::from(own.is_some()));
        }
        state.number += 1;
        let number = state.number;
        debug_assert!(own.is_some() || mine == number, "who waits is in the group that is open");
        let spare = std::mem::take(&mut state.spare);
        let mut group = std::mem::replace(&mut state.open, spare);
        drop(state);
        let durability = group.durability(durability);
        let mut batches = own.into_iter().chain(&group.batches[..group.len]);
        let done = caught(&mut panic, || {
            target.write(&mut batches, durability)?;
            if durability == Durability::Sync {
                lock(&self.state).phase = Phase::Syncing;
                target.sync()?;
            }
            Ok(())
        });
        let done = done.unwrap_or_else(|| Err(target.broke_off()));
        drop(turn);
        let others = group.len - usize::from(own.is_none());
        let sleepers = group.sleepers;
        group.clear();
        let mut state = lock(&self.state);
        state.spare = group;
        state.phase = Phase::Idle;
        if others > 0
            && let Err(e) = &done
        {
            state.failed.insert(number, (e.clone(), others));
            self.failed.fetch_add(1, Ordering::Release);
        }
        self.last_over.store(number, Ordering::Release);
        let sleepers = sleepers + std::mem::take(&mut state.led_sleepers);
        let next_sleeps = state.open.sleepers > 0;
        drop(state);
        if sleepers > 0 {
            self.bell(number).ring_for_all();
        }
        // Woken last, so that those of this group may have come back when it takes the next.
        if next_sleeps {
            self.bell(number + 1).ring_for_one();
        }
        panic.map_or(done, |panic| resume_unwind(panic))
    }
}

/// What `act` gives; nothing when it panics, or something did before.
fn caught<T>(panic: &mut Option<Box<dyn Any + Send>>, act: impl FnOnce() -> T) -> Option<T> {
    if panic.is_some() {
        return None;
    }
    // What it leaves half done is never used again: see `Target::broke_off`.
    catch_unwind(AssertUnwindSafe(act)).map_err(|caught| *panic = Some(caught)).ok()
}
