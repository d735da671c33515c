//! Snapshots: readers of the past, and who must be told of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The live snapshots of a shard.
#[derive(Default)]
pub(crate) struct Snapshots {
    live: Mutex<BTreeMap<u64, usize>>,
    /// The newest of them; 0 when there is none.
    newest: AtomicU64,
}

/// A moment of one shard, to read from. What it sees is kept until it is dropped.
pub struct Snapshot {
    pub(crate) sequence: u64,
    shard: usize,
    all: Arc<Snapshots>,
}

impl Snapshots {
    pub(crate) fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// All live ones, ascending.
    pub(crate) fn live(&self) -> Vec<u64> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<u64, usize>)) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut live);
        let newest = live.last_key_value().map_or(0, |(sequence, _)| *sequence);
        self.newest.store(newest, Ordering::Release);
    }
}

impl Snapshot {
    pub(crate) fn take(shard: usize, sequence: u64, all: &Arc<Snapshots>) -> Self {
        all.change(|live| *live.entry(sequence).or_default() += 1);
        Self { sequence, shard, all: all.clone() }
    }

    /// Sequence of the last change that it sees.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The shard that it belongs to.
    #[must_use]
    pub fn shard(&self) -> usize {
        self.shard
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.all.change(|live| {
            let count = live.get_mut(&self.sequence).expect("a live snapshot is listed");
            *count -= 1;
            if *count == 0 {
                live.remove(&self.sequence);
            }
        });
    }
}
