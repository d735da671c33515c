//! Blocks worth keeping: a sharded CLOCK cache of verified, uncompressed blocks.

use crate::table::Block;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

const PARTS: usize = 16;

/// The cache. A block is found by its table's number and its offset.
pub(crate) struct BlockCache {
    parts: Vec<Mutex<Part>>,
    part_bytes: usize,
}

#[derive(Default)]
struct Part {
    places: HashMap<(u64, u64), usize>,
    ring: Vec<Entry>,
    hand: usize,
    bytes: usize,
}

struct Entry {
    key: (u64, u64),
    block: Arc<Block>,
    used: bool,
}

impl BlockCache {
    pub(crate) fn new(bytes: usize) -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Self { parts, part_bytes: bytes / PARTS }
    }

    pub(crate) fn get(&self, table: u64, offset: u64) -> Option<Arc<Block>> {
        let mut part = self.part(table, offset).lock().unwrap_or_else(PoisonError::into_inner);
        let place = *part.places.get(&(table, offset))?;
        let entry = &mut part.ring[place];
        entry.used = true;
        Some(entry.block.clone())
    }

    pub(crate) fn insert(&self, table: u64, offset: u64, block: &Arc<Block>) {
        let cost = block.bytes().len();
        if cost > self.part_bytes / 2 {
            return;
        }
        let part = &mut *self.part(table, offset).lock().unwrap_or_else(PoisonError::into_inner);
        if part.places.contains_key(&(table, offset)) {
            return;
        }
        while part.bytes + cost > self.part_bytes && !part.ring.is_empty() {
            part.evict();
        }
        part.places.insert((table, offset), part.ring.len());
        part.ring.push(Entry { key: (table, offset), block: block.clone(), used: false });
        part.bytes += cost;
    }

    /// Bytes of blocks held.
    pub(crate) fn bytes(&self) -> usize {
        let held = |part: &Mutex<Part>| part.lock().unwrap_or_else(PoisonError::into_inner).bytes;
        self.parts.iter().map(held).sum()
    }

    fn part(&self, table: u64, offset: u64) -> &Mutex<Part> {
        &self.parts[(crate::codec::scatter(table ^ offset.rotate_left(24)) as usize) % PARTS]
    }
}

impl Part {
    /// Passes over blocks used since the last round, drops the first that was not.
    fn evict(&mut self) {
        loop {
            self.hand %= self.ring.len();
            let entry = &mut self.ring[self.hand];
            if std::mem::take(&mut entry.used) {
                self.hand += 1;
                continue;
            }
            let gone = self.ring.swap_remove(self.hand);
            self.places.remove(&gone.key);
            self.bytes -= gone.block.bytes().len();
            if let Some(moved) = self.ring.get(self.hand) {
                self.places.insert(moved.key, self.hand);
            }
            return;
        }
    }
}
