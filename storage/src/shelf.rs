//! What all tables share: the block cache, the blob files, and the list of what was found damaged.

use crate::blob::{Blobs, Pointer, Stored, stored};
use crate::cache::BlockCache;
use crate::error::{Damage, Error};
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shared by all tables of a store.
pub(crate) struct Shelf {
    pub(crate) cache: BlockCache,
    pub(crate) blobs: Blobs,
    damage: Mutex<BTreeSet<Damage>>,
}

impl Shelf {
    pub(crate) fn new(cache_bytes: usize, blobs: Blobs) -> Self {
        Self { cache: BlockCache::new(cache_bytes), blobs, damage: Mutex::default() }
    }

    /// One without blob files.
    #[cfg(test)]
    pub(crate) fn alone(cache_bytes: usize) -> Self {
        let disk = std::sync::Arc::new(crate::disk::MemoryDisk::new(0));
        Self::new(cache_bytes, Blobs::new(disk, false))
    }

    /// The large value of `key` that `pointer` leads to; none when its damage was repaired
    /// elsewhere. Damage is reported.
    pub(crate) fn load(&self, pointer: Pointer, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let loaded = self.blobs.load(pointer, key);
        // Of a file that is not there every table told when the store was opened.
        if let Err(Error::Damaged(damage)) = &loaded
            && !self.blobs.is_missing(pointer.file)
        {
            self.report(damage);
        }
        loaded
    }

    /// The large value of `key` that `pointer` leads to cannot be had from the disk: reported, as an error.
    pub(crate) fn lose(&self, pointer: Pointer, key: &[u8]) -> Error {
        let lost = self.blobs.lost(pointer, key);
        if let Error::Damaged(damage) = &lost {
            self.report(damage);
        }
        lost
    }

    /// The value of `key` that a table holds as `bytes`, unless it is there as it is.
    pub(crate) fn resolve(&self, bytes: &[u8], key: &[u8]) -> Result<Resolved, Error> {
        Ok(match stored(bytes) {
            Stored::Inline(raw) if raw.len() == bytes.len() => Resolved::AsItIs,
            Stored::Inline(raw) => Resolved::Value(raw.to_vec()),
            Stored::Elsewhere(pointer) => match self.load(pointer, key)? {
                Some(value) => Resolved::Value(value),
                None => Resolved::Absent,
            },
        })
    }

    pub(crate) fn report(&self, damage: &Damage) {
        if self.damage_found().insert(damage.clone()) {
            tracing::error!(%damage, keys = %damage.keys(), "damaged data found");
        }
    }

    pub(crate) fn damage_found(&self) -> MutexGuard<'_, BTreeSet<Damage>> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the bytes of a put in a table turned out to be.
pub(crate) enum Resolved {
    AsItIs,
    Value(Vec<u8>),
    /// It was damaged and repaired elsewhere.
    Absent,
}
