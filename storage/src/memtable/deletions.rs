//! Deletions: the range deletions of a memtable, added to while others read them.
//!
//! They stand in few sets, each at least twice as large as the next, so that adding one copies little
//! on the whole, and asking for a key asks few. A list of sets never changes: adding makes another,
//! and hands back the old one, to be dropped when nobody reads it any more.
#![allow(unsafe_code, reason = "a list is freed when its readers are gone; each use says why")]

use crate::sync::Watch;
use crate::sync::atomic::{AtomicPtr, Ordering};
use crate::tombstones::{Keep, RangeTombstones};
use std::ptr::NonNull;
use std::sync::Arc;

/// The list that counts; null while there is none.
#[derive(Default)]
pub(super) struct Deletions {
    current: AtomicPtr<Sets>,
}

struct Sets {
    sets: Vec<Arc<RangeTombstones>>,
    /// About what each takes in memory.
    bytes: Vec<usize>,
    watch: Watch,
}

/// A list that counts no more. Dropping it frees it: only when nobody can be reading it, which is at
/// once where there are no readers, and otherwise with the memtable.
pub(super) struct OldSets(NonNull<Sets>);

// SAFETY: it owns what it points to, which is Send and Sync.
unsafe impl Send for OldSets {}

impl Drop for OldSets {
    fn drop(&mut self) {
        // SAFETY: made by Box, taken out of reach once, and its holder knows that no reader is left.
        unsafe { Box::from_raw(self.0.as_ptr()) }.watch.end();
    }
}

#[cfg(test)]
impl OldSets {
    pub(super) fn sets(&self) -> &[Arc<RangeTombstones>] {
        // SAFETY: it owns what it points to.
        unsafe { &self.0.as_ref().sets }
    }
}

impl Deletions {
    /// The sets, which count together.
    pub(super) fn sets(&self) -> &[Arc<RangeTombstones>] {
        self.list().map_or(&[], |list| &list.sets)
    }

    fn list(&self) -> Option<&Sets> {
        let current = self.current.load(Ordering::Acquire);
        // SAFETY: null, or a list that was published with a store and is freed only when those are
        // gone who may have loaded it (see `memtable`); it never changes.
        let list = unsafe { current.as_ref() };
        list.inspect(|list| list.watch.read())
    }

    /// Adds the deletion of `start..end` at `sequence`; the writer alone. Of those that overrule each
    /// other `keep` says which still count. Returns the list that counted before.
    pub(super) fn add(
        &self,
        start: &[u8],
        end: &[u8],
        sequence: u64,
        keep: Keep<'_>,
    ) -> Option<OldSets> {
        let (mut sets, mut bytes) = match self.list() {
            Some(list) => (list.sets.clone(), list.bytes.clone()),
            None => (Vec::new(), Vec::new()),
        };
        let mut newest = RangeTombstones::default();
        newest.add(start, end, sequence, u64::MAX);
        while let Some(set) = sets.pop_if(|set| set.len() <= 2 * newest.len()) {
            newest = RangeTombstones::union(&[&*set, &newest], keep);
        }
        bytes.truncate(sets.len());
        bytes.push(newest.bytes());
        sets.push(Arc::new(newest));
        let list = Box::into_raw(Box::new(Sets { sets, bytes, watch: Watch::new() }));
        // Publishes the list and what is in it.
        NonNull::new(self.current.swap(list, Ordering::AcqRel)).map(OldSets)
    }

    /// About what they take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.list().map_or(0, |list| list.bytes.iter().sum())
    }
}

impl Deletions {
    /// About what the set takes that was added last.
    pub(super) fn bytes_of_last(&self) -> usize {
        self.list().and_then(|list| list.bytes.last().copied()).unwrap_or(0)
    }
}

impl Drop for Deletions {
    fn drop(&mut self) {
        drop(NonNull::new(self.current.load(Ordering::Relaxed)).map(OldSets));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_range_deletions_stand_in_few_sets_and_cover_what_one_set_would() {
        let (deletions, mut plain) = (Deletions::default(), RangeTombstones::default());
        let mut old = Vec::new();
        for i in 0..if cfg!(miri) { 25 } else { 300u64 } {
            let start = format!("{:03}", i * 37 % 290);
            let end = format!("{:03}", i * 37 % 290 + i % 9);
            old.extend(deletions.add(start.as_bytes(), end.as_bytes(), i + 1, Keep::All));
            plain.add(start.as_bytes(), end.as_bytes(), i + 1, u64::MAX);
        }
        assert!(deletions.sets().len() < 10, "{} sets", deletions.sets().len());
        for key in (0..300).step_by(if cfg!(miri) { 30 } else { 1 }) {
            let key = format!("{key:03}");
            for bound in [1, 20, 150, 300] {
                let sets = deletions.sets().iter();
                let found = sets.map(|set| set.covering(key.as_bytes(), bound)).max();
                assert_eq!(found.unwrap_or(0), plain.covering(key.as_bytes(), bound));
            }
        }
    }
}
