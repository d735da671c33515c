//! Searching and walking a block as it stands in the file: what is passed over costs little, and
//! nothing is copied but the key at hand. The bytes are not trusted.

use super::build::common;
use super::raw::{KeyBuffer, RawBlock, RawEntry, TAG, same_user_key};
use crate::codec::u64_at;
use crate::key::Tag;
use std::cmp::Ordering;
use std::ops::Range;

/// A walk over the entries of a block of changes, which stands at one of them.
#[derive(Default)]
pub(crate) struct Walk {
    /// User key and tag.
    key: KeyBuffer,
    value: Range<usize>,
    /// Where the next entry stands.
    next: usize,
}

impl Walk {
    /// Goes to the first entry; false when there is none, and none when it is malformed.
    pub(crate) fn first(&mut self, block: &RawBlock<'_>) -> Option<bool> {
        (self.key.len, self.next) = (0, 0);
        self.step(block)
    }

    /// Goes to the first entry with a user key of at least `key`; as [`Walk::first`].
    pub(crate) fn seek(&mut self, block: &RawBlock<'_>, key: &[u8]) -> Option<bool> {
        (self.key.len, self.next) = (0, block.interval(key)?);
        // What the user key at hand, which is below `key`, has in common with it.
        let (mut same, mut user_len) = (0, 0);
        while let Some((entry, next)) = block.entry(self.next) {
            let shared = entry.shared;
            self.enter(block, entry, next)?;
            let user = self.user_key();
            // It differs from `key` where the key before did, in the same byte.
            let as_before = shared > same && same < user_len && user.len() > same;
            if !as_before {
                same = common(user, key);
                let order = match (user.get(same), key.get(same)) {
                    (Some(a), Some(b)) => a.cmp(b),
                    (a, b) => a.is_some().cmp(&b.is_some()),
                };
                if order != Ordering::Less {
                    return Some(true);
                }
            }
            user_len = user.len();
        }
        block.ends_at(self.next).then_some(false)
    }

    /// Goes to the next entry; as [`Walk::first`].
    #[inline]
    pub(crate) fn step(&mut self, block: &RawBlock<'_>) -> Option<bool> {
        let Some((entry, next)) = block.entry(self.next) else {
            return block.ends_at(self.next).then_some(false);
        };
        self.enter(block, entry, next)?;
        Some(true)
    }

    /// Goes to the first entry with another user key; as [`Walk::first`].
    pub(crate) fn step_key(&mut self, block: &RawBlock<'_>) -> Option<bool> {
        loop {
            let again = self.repeats(block);
            let there = self.step(block)?;
            if !again {
                return Some(there);
            }
        }
    }

    /// True when the next entry has the same user key.
    #[inline]
    pub(crate) fn repeats(&self, block: &RawBlock<'_>) -> bool {
        block.entry(self.next).is_some_and(|(entry, _)| self.has_key_of(block, &entry))
    }

    #[inline]
    fn has_key_of(&self, block: &RawBlock<'_>, entry: &RawEntry) -> bool {
        same_user_key(self.key.get(), entry.shared, &block.entries[entry.tail.clone()])
    }

    /// Shows `visit` the key and the value at hand and those that follow, as long as each is the only
    /// change of its key and `look` does not want to stop at it. Where it stands then: at the entry
    /// that it stopped at, or that `visit` said false to, or at the end. None as above.
    #[inline]
    pub(crate) fn run(
        &mut self,
        block: &RawBlock<'_>,
        mut stops: impl FnMut(Tag, &[u8]) -> bool,
        mut visit: impl FnMut(&[u8], &[u8]) -> bool,
        mut goes_on: impl FnMut(&[u8]) -> bool,
    ) -> Option<Ran> {
        loop {
            let following = block.entry(self.next);
            let value = &block.entries[self.value.clone()];
            let again = following.as_ref().is_some_and(|(e, _)| self.has_key_of(block, e));
            if again || stops(self.tag(), value) {
                return Some(Ran::Stopped);
            }
            if !visit(self.user_key(), value) {
                return Some(Ran::Broke);
            }
            let Some((entry, next)) = following else {
                return block.ends_at(self.next).then_some(Ran::Ended);
            };
            self.enter(block, entry, next)?;
            if !goes_on(self.user_key()) {
                return Some(Ran::Left);
            }
        }
    }

    #[inline]
    fn enter(&mut self, block: &RawBlock<'_>, entry: RawEntry, next: usize) -> Option<()> {
        self.key.extend(entry.shared, block.entries, entry.tail)?;
        (self.value, self.next) = (entry.value, next);
        (self.key.len >= TAG).then_some(())
    }

    /// The user key at hand.
    #[inline]
    pub(crate) fn user_key(&self) -> &[u8] {
        &self.key.get()[..self.key.len.saturating_sub(TAG)]
    }

    /// The tag at hand.
    #[inline]
    pub(crate) fn tag(&self) -> Tag {
        Tag(u64_at(self.key.get(), self.key.len.saturating_sub(TAG)).unwrap_or(0))
    }

    /// Where the value at hand stands in the entries.
    #[inline]
    pub(crate) fn value(&self) -> Range<usize> {
        self.value.clone()
    }
}

/// Why a [`Walk::run`] ended.
pub(crate) enum Ran {
    /// At an entry that wants a closer look.
    Stopped,
    /// At the entry shown last.
    Broke,
    /// At an entry that is beyond.
    Left,
    /// There are no more.
    Ended,
}
