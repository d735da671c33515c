//! Reader: reads a shard from any thread, without a lock, while its one writer writes.

use crate::error::Error;
use crate::key::KeyRange;
use crate::merge::Direction;
use crate::scan::Scan;
use crate::sources::Sources;
use crate::value::Value;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a shard shows to other threads.
pub(crate) struct Published {
    sources: ArcSwap<Sources>,
    /// Sequence of the last change that readers may see: the last of a batch.
    sequence: AtomicU64,
}

impl Published {
    pub(crate) fn new(sources: Arc<Sources>, sequence: u64) -> Self {
        Self { sources: ArcSwap::new(sources), sequence: AtomicU64::new(sequence) }
    }

    /// All changes up to `sequence` are in the sources: readers see them from now on.
    pub(crate) fn raise(&self, sequence: u64) {
        self.sequence.store(sequence, Ordering::Release);
    }

    /// Readers who come from now on go through `sources`. Who still has older ones holds them.
    pub(crate) fn replace(&self, sources: Arc<Sources>) {
        self.sources.store(sources);
    }

    /// Read only after the sources: then it is not below their floor.
    pub(crate) fn bound(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }
}

/// Reads a shard from any thread. A batch is visible to it when the `apply` of it returns, and as a
/// whole. Clones are the same reader.
#[derive(Clone)]
pub struct Reader {
    published: Arc<Published>,
    range: KeyRange,
}

/// A shard as it was at a moment. It keeps in memory what it sees, and removed files on the disk:
/// drop it when it is not needed.
pub struct View {
    sources: Arc<Sources>,
    bound: u64,
}

impl Reader {
    pub(crate) fn new(published: Arc<Published>, range: KeyRange) -> Self {
        Self { published, range }
    }

    /// True when the shard owns `key`.
    #[must_use]
    pub fn owns(&self, key: &[u8]) -> bool {
        self.range.contains(key)
    }

    /// The shard as it is now.
    #[must_use]
    pub fn view(&self) -> View {
        let sources = self.published.sources.load_full();
        let bound = self.published.bound();
        View { sources, bound }
    }

    /// A copy of the value of `key`.
    ///
    /// # Errors
    /// As [`crate::Shard::get`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.get_with(key, |value| value.map(<[u8]>::to_vec))
    }

    /// Calls `f` with the value of `key`, without copying it.
    ///
    /// # Errors
    /// As [`crate::Shard::get`].
    pub fn get_with<T>(&self, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> T) -> Result<T, Error> {
        let sources = self.published.sources.load();
        let bound = self.published.bound();
        Ok(f(sources.get(key, bound)?.as_deref()))
    }

    /// Calls `f` with the index and value of each of `keys`, in order; all of one moment.
    ///
    /// # Errors
    /// As [`crate::Shard::get_many`].
    pub fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        f: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Error> {
        let sources = self.published.sources.load();
        let bound = self.published.bound();
        sources.get_many(keys, bound, f)
    }
}

impl View {
    /// Sequence of the last change that it may see.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.bound
    }

    /// The value of `key`, with all merges folded.
    ///
    /// # Errors
    /// As [`crate::Shard::get`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Value<'_>>, Error> {
        self.sources.get(key, self.bound)
    }

    /// Calls `f` with the index and value of each of `keys`, in order.
    ///
    /// # Errors
    /// As [`crate::Shard::get_many`].
    pub fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        f: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Error> {
        self.sources.get_many(keys, self.bound, f)
    }

    /// The rows from `start` to `end`, as [`crate::Shard::scan`] gives them.
    ///
    /// # Errors
    /// As [`crate::Shard::get`].
    pub fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
    ) -> Result<Scan<'_>, Error> {
        self.sources.scan(start, end, direction, self.bound)
    }
}
