//! What all tables share: the block cache, and the list of what was found damaged.

use crate::cache::BlockCache;
use crate::error::Damage;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shared by all tables of a store.
pub(crate) struct Shelf {
    pub(crate) cache: BlockCache,
    damage: Mutex<BTreeSet<Damage>>,
}

impl Shelf {
    pub(crate) fn new(cache_bytes: usize) -> Self {
        Self { cache: BlockCache::new(cache_bytes), damage: Mutex::default() }
    }

    pub(crate) fn report(&self, damage: &Damage) {
        if self.damage_found().insert(damage.clone()) {
            tracing::error!(%damage, "damaged data found");
        }
    }

    pub(crate) fn damage_found(&self) -> MutexGuard<'_, BTreeSet<Damage>> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
