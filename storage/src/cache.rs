//! Blocks worth keeping: a CLOCK cache of verified, decoded blocks within a budget of bytes.
//!
//! Once it is full it takes in what is missed twice within a while. What is read once is not even
//! decoded: its reader goes through the bytes of the file.
//!
//! A table has a [`Slots`]: one place for each of its blocks, so that a hit is an index and an
//! atomic load, without a hash, a lock, or a search. Only what brings or removes a block takes a
//! lock. Promise: the blocks in all places together cost at most the budget.

use crate::table::{Block, SharedBlock};
use arc_swap::{ArcSwapAny, Guard};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Parts of the clock, each with a lock of its own.
const PARTS: usize = 16;
/// A block that costs more than this part of the budget is not kept.
const SHARE_MAX: usize = 8;

/// An age of the cache is over when blocks of this part of the budget were not there: a block is kept
/// when it is missed twice within one to two ages.
const AGE_SHARE: usize = 2;
/// Ages with numbers of their own.
const AGES: usize = 254;
const PRESENT: u8 = 255;

type Place = ArcSwapAny<Option<SharedBlock>>;

/// The places for the blocks of one table.
pub(crate) struct Slots {
    /// The table's number: spreads its blocks over the parts of the clock.
    number: u64,
    places: Box<[Place]>,
    /// In which age of the cache each block was last asked for and not there; 0: never;
    /// [`PRESENT`]: it may be there. Small, so that a miss is known without a look at the place.
    missed: Box<[AtomicU8]>,
}

impl Slots {
    pub(crate) fn new(number: u64, blocks: usize) -> Self {
        let places = (0..blocks).map(|_| Place::new(None)).collect();
        Self { number, places, missed: (0..blocks).map(|_| AtomicU8::new(0)).collect() }
    }

    /// Block `i`, if it is kept.
    pub(crate) fn get(&self, i: usize) -> Option<Block> {
        if self.missed.get(i)?.load(Ordering::Acquire) != PRESENT {
            return None;
        }
        let shared = self.places.get(i)?.load();
        // Before it is counted who holds it, which lets nothing behind it begin.
        Block::prefetch(shared.as_ref()?);
        let block = Block::of_shared(Guard::into_inner(shared)?);
        block.touch();
        Some(block)
    }

    /// Asks for the memory of block `i` that a search looks at first; false when it is not kept.
    pub(crate) fn prefetch(&self, i: usize) -> bool {
        let here = |missed: &AtomicU8| missed.load(Ordering::Acquire) == PRESENT;
        let place = self.places.get(i).filter(|_| self.missed.get(i).is_some_and(here));
        place.is_some_and(|place| place.load().as_ref().map(Block::prefetch).is_some())
    }
}

/// The cache.
pub(crate) struct BlockCache {
    budget: usize,
    /// What the blocks in their places cost, and those about to be put there.
    bytes: AtomicUsize,
    /// Bytes of blocks that were asked for and not there since the cache is full: its clock for who
    /// was asked for of late.
    missed: AtomicUsize,
    parts: Vec<Mutex<Clock>>,
}

#[derive(Default)]
struct Clock {
    ring: Vec<(Arc<Slots>, u32)>,
    hand: usize,
}

impl BlockCache {
    pub(crate) fn new(bytes: usize) -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Self { budget: bytes, bytes: AtomicUsize::new(0), missed: AtomicUsize::new(0), parts }
    }

    /// True when block `i` of a table, which was asked for and is not there, is worth decoding and
    /// keeping: while there is room, and after that when it was asked for not long ago, too. So what
    /// is read once, by a scan or at random, costs neither that nor the place of something better.
    pub(crate) fn wants(&self, slots: &Slots, i: usize, bytes: usize) -> bool {
        let cost = bytes + Block::OVERHEAD_BYTES;
        if cost > self.budget / SHARE_MAX {
            return false;
        }
        if self.bytes.load(Ordering::Relaxed) + cost <= self.budget {
            return true;
        }
        let (Some(missed), Some(place)) = (slots.missed.get(i), slots.places.get(i)) else {
            return false;
        };
        let age = self.missed.fetch_add(cost, Ordering::Relaxed) / (self.budget / AGE_SHARE);
        let now = (age % AGES) as u8 + 1;
        let before = if now == 1 { AGES as u8 } else { now - 1 };
        let last = missed.load(Ordering::Relaxed);
        if last == PRESENT {
            // It came just now, or it has just gone.
            return place.load().is_none();
        }
        if missed.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return false;
        }
        // A block of so long ago that its age has this number again is kept too soon: no harm.
        last == now || last == before
    }

    /// Keeps `block` as block `i` of a table, if its place is empty and it is not too large.
    pub(crate) fn insert(&self, slots: &Arc<Slots>, i: usize, block: &Block) {
        let cost = block.cost();
        let (Some(place), Ok(number)) = (slots.places.get(i), u32::try_from(i)) else { return };
        if cost > self.budget / SHARE_MAX {
            return;
        }
        let part = crate::codec::scatter(slots.number << 32 ^ i as u64) as usize % PARTS;
        // The cost counts before the block is there, so that the budget holds at every moment.
        self.bytes.fetch_add(cost, Ordering::Relaxed);
        for victim in 0..PARTS {
            let mut clock = self.part((part + victim) % PARTS);
            while self.bytes.load(Ordering::Relaxed) > self.budget {
                let Some(freed) = clock.evict() else { break };
                self.bytes.fetch_sub(freed, Ordering::Relaxed);
            }
            if self.bytes.load(Ordering::Relaxed) <= self.budget {
                break;
            }
        }
        let mut clock = self.part(part);
        let fits = self.bytes.load(Ordering::Relaxed) <= self.budget;
        if fits && place.load().is_none() {
            clock.ring.push((slots.clone(), number));
            place.store(Some(block.shared().clone()));
            slots.missed[i].store(PRESENT, Ordering::Release);
        } else {
            self.bytes.fetch_sub(cost, Ordering::Relaxed);
        }
    }

    /// Lets go of all blocks of a table that nobody reads any more.
    pub(crate) fn forget(&self, slots: &Arc<Slots>) {
        for part in 0..PARTS {
            let mut clock = self.part(part);
            let mut freed = 0;
            clock.ring.retain(|(owner, i)| {
                let stays = !Arc::ptr_eq(owner, slots);
                if !stays {
                    freed += owner.clear(*i);
                }
                stays
            });
            self.bytes.fetch_sub(freed, Ordering::Relaxed);
        }
    }

    /// What the blocks held cost, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn part(&self, part: usize) -> MutexGuard<'_, Clock> {
        self.parts[part].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    /// Empties a place; what its block cost.
    fn clear(&self, i: u32) -> usize {
        self.missed[i as usize].store(0, Ordering::Release);
        self.places[i as usize].swap(None).map_or(0, |block| Block::of_shared(block).cost())
    }
}

impl Clock {
    /// Passes over blocks used since the last round, drops the first that was not; what it cost.
    fn evict(&mut self) -> Option<usize> {
        loop {
            self.hand = if self.hand < self.ring.len() { self.hand } else { 0 };
            let (slots, i) = self.ring.get(self.hand)?;
            let block = slots.places[*i as usize].load_full().map(Block::of_shared);
            let used = block.is_some_and(|block| block.cool());
            if used {
                self.hand += 1;
                continue;
            }
            let freed = slots.clear(*i);
            self.ring.swap_remove(self.hand);
            return Some(freed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_of(value_bytes: usize) -> Block {
        Block::of_one(&vec![7; value_bytes])
    }

    #[test]
    fn the_budget_holds_and_what_is_used_stays() {
        let cost = block_of(100).cost();
        let cache = BlockCache::new(640 * cost);
        let slots = Arc::new(Slots::new(1, 3000));
        cache.insert(&slots, 0, &block_of(100));
        for i in 1..3000 {
            cache.insert(&slots, i, &block_of(100));
            assert!(slots.get(0).is_some(), "used all the time, gone at {i}");
            let kept = slots.places.iter().filter(|p| p.load().is_some()).count();
            assert_eq!(cache.bytes(), kept * cost);
            assert_eq!(kept, (i + 1).min(640), "after {i}");
        }
        cache.insert(&slots, 1, &block_of(100 * cost));
        assert!(slots.get(1).is_none(), "too large to keep");
    }

    #[test]
    fn a_full_cache_wants_what_is_missed_again_soon_and_nothing_that_is_missed_once() {
        let (bytes, cost) = (1000, 1000 + Block::OVERHEAD_BYTES);
        let cache = BlockCache::new(100 * cost);
        let slots = Arc::new(Slots::new(1, 2000));
        assert!(cache.wants(&slots, 0, bytes), "there is room");
        let filler = Arc::new(Slots::new(2, 200));
        (0..200).for_each(|i| cache.insert(&filler, i, &block_of(1000)));
        let mut wanted = 0;
        for pass in 0..3 {
            // Longer than the memory of who was asked for: a scan changes nothing, however often.
            wanted += (0..1000).filter(|i| cache.wants(&slots, *i, bytes)).count();
            assert_eq!(wanted, 0, "in pass {pass}");
        }
        assert!(!cache.wants(&slots, 1500, bytes), "for the first time");
        assert!((0..20).all(|i| !cache.wants(&slots, 1600 + i, bytes)));
        assert!(cache.wants(&slots, 1500, bytes), "again");
        assert!(!cache.wants(&slots, 1501, 100 * cost), "too large to keep");
    }

    #[test]
    fn a_table_that_is_gone_takes_its_blocks_with_it() {
        let cache = BlockCache::new(1 << 20);
        let (gone, stays) = (Arc::new(Slots::new(1, 50)), Arc::new(Slots::new(2, 50)));
        for i in 0..50 {
            cache.insert(&gone, i, &block_of(100));
            cache.insert(&stays, i, &block_of(100));
        }
        cache.forget(&gone);
        assert_eq!(cache.bytes(), 50 * block_of(100).cost());
        assert!((0..50).all(|i| gone.get(i).is_none() && stays.get(i).is_some()));
        assert_eq!(Arc::strong_count(&gone), 1, "nothing in the cache holds on to it");
    }

    #[test]
    fn threads_that_insert_and_read_at_once_stay_within_the_budget() {
        let cost = block_of(100).cost();
        let cache = BlockCache::new(40 * cost);
        let slots = Arc::new(Slots::new(1, 200));
        std::thread::scope(|scope| {
            for t in 0..4 {
                let (cache, slots) = (&cache, &slots);
                scope.spawn(move || {
                    for round in 0..2000u64 {
                        let i = crate::codec::scatter(round * 4 + t) as usize % 200;
                        match slots.get(i) {
                            Some(block) => assert_eq!(block.rows(), 1),
                            None => cache.insert(slots, i, &block_of(100)),
                        }
                        // What each thread is about to put there counts already.
                        assert!(cache.bytes() <= 44 * cost);
                    }
                });
            }
        });
        let kept = slots.places.iter().filter(|p| p.load().is_some()).count();
        assert!(kept <= 40, "{kept} blocks where 40 fit");
        assert_eq!(cache.bytes(), kept * cost);
    }
}
