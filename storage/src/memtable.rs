//! Memtable: the newest changes of a shard, sorted.
//!
//! One writer. A change that no snapshot can see is overwritten in place, and a merge is folded at
//! once where that is cheap, so that a hot key costs one entry. Key and first value share one
//! allocation.

use crate::batch::Op;
use crate::fold::{Folded, Merge};
use crate::key::{KeyRange, Kind, Tag};
use crate::limits::{EAGER_FOLD_BYTES_MAX, MERGE_CHAIN_MAX};
use crate::tombstones::RangeTombstones;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;

/// What an entry costs beside its bytes, roughly: key, versions, its part of a tree node.
const ENTRY_OVERHEAD_BYTES: usize = 112;

/// The newest changes of a shard.
#[derive(Default)]
pub(crate) struct Memtable {
    rows: BTreeMap<MemKey, Versions>,
    tombstones: RangeTombstones,
    bytes: usize,
    /// Sequence of the newest change; 0 when there is none.
    last_sequence: u64,
}

/// A key, and behind it in the same allocation the first value it had.
pub(crate) struct MemKey {
    data: Box<[u8]>,
    key_len: u32,
}

/// The changes of one key: usually one.
pub(crate) struct Versions {
    newest: Version,
    /// Newest last.
    older: Vec<Version>,
}

struct Version {
    tag: Tag,
    value: Stored,
}

enum Stored {
    WithKey,
    Own(Box<[u8]>),
}

impl MemKey {
    fn new(key: &[u8], value: &[u8]) -> Self {
        let mut data = Vec::with_capacity(key.len() + value.len());
        data.extend_from_slice(key);
        data.extend_from_slice(value);
        let key_len = u32::try_from(key.len()).expect("keys are at most KEY_BYTES_MAX long");
        Self { data: data.into_boxed_slice(), key_len }
    }
    pub(crate) fn key(&self) -> &[u8] {
        &self.data[..self.key_len as usize]
    }
    fn value<'a>(&'a self, version: &'a Version) -> &'a [u8] {
        match &version.value {
            Stored::WithKey => &self.data[self.key_len as usize..],
            Stored::Own(bytes) => bytes,
        }
    }
    /// The versions as (tag, value), newest first.
    pub(crate) fn versions<'a>(
        &'a self,
        versions: &'a Versions,
    ) -> impl Iterator<Item = (Tag, &'a [u8])> {
        std::iter::once(&versions.newest)
            .chain(versions.older.iter().rev())
            .map(|v| (v.tag, self.value(v)))
    }
}

impl Borrow<[u8]> for MemKey {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}
impl PartialEq for MemKey {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for MemKey {}
impl PartialOrd for MemKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for MemKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key())
    }
}

impl Memtable {
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.tombstones.is_empty()
    }
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
    pub(crate) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }
    pub(crate) fn tombstones(&self) -> &RangeTombstones {
        &self.tombstones
    }

    /// Applies `op` at `sequence`, which is above all before. `snapshot`: the newest live one, 0
    /// when there is none. Range deletions are cut to `range`. `absent_below` tells of a key that
    /// this memtable does not have whether nothing older has it either; false if that is unknown.
    pub(crate) fn apply(
        &mut self,
        op: Op<'_>,
        sequence: u64,
        snapshot: u64,
        range: &KeyRange,
        merge: &dyn Merge,
        absent_below: &dyn Fn(&[u8]) -> bool,
    ) {
        self.last_sequence = self.last_sequence.max(sequence);
        match op {
            Op::Put { key, value } => self.set(key, Tag::new(sequence, Kind::Put), value, snapshot),
            Op::Delete { key } => self.set(key, Tag::new(sequence, Kind::Delete), &[], snapshot),
            Op::Merge { key, operand } => {
                self.merge(key, operand, sequence, snapshot, merge, absent_below);
            }
            Op::DeleteRange { start, end } => {
                if let Some((start, end)) = range.clip(start, end) {
                    self.bytes += start.len() + end.len() + ENTRY_OVERHEAD_BYTES;
                    self.tombstones.add(start, end, sequence, snapshot);
                }
            }
        }
    }

    fn set(&mut self, key: &[u8], tag: Tag, value: &[u8], snapshot: u64) {
        match self.rows.entry(MemKey::new(key, value)) {
            btree_map::Entry::Vacant(vacant) => {
                self.bytes += key.len() + value.len() + ENTRY_OVERHEAD_BYTES;
                let newest = Version { tag, value: Stored::WithKey };
                vacant.insert(Versions { newest, older: Vec::new() });
            }
            btree_map::Entry::Occupied(mut occupied) => {
                let versions = occupied.get_mut();
                if versions.newest.tag.sequence() <= snapshot {
                    self.bytes += versions.push(tag, value);
                } else {
                    self.bytes =
                        (self.bytes + value.len()).saturating_sub(versions.newest.own_bytes());
                    versions.newest = Version { tag, value: Stored::Own(value.into()) };
                    versions.older.retain(|v| v.tag.sequence() <= snapshot);
                }
            }
        }
    }

    fn merge(
        &mut self,
        key: &[u8],
        operand: &[u8],
        sequence: u64,
        snapshot: u64,
        merge: &dyn Merge,
        absent_below: &dyn Fn(&[u8]) -> bool,
    ) {
        let tag = Tag::new(sequence, Kind::Merge);
        let cover = self.tombstones.covering(key, u64::MAX);
        // An open end: a second bound would be a second search.
        let slot = self.rows.range_mut::<[u8], _>((Bound::Included(key), Bound::Unbounded)).next();
        let Some((mem_key, versions)) = slot.filter(|(mem_key, _)| mem_key.key() == key) else {
            let mut out = Vec::new();
            return if absent_below(key)
                && let Some(kind) = full(merge, key, None, operand, &mut out)
            {
                // The oldest version of its key: reads need not look for a base.
                self.set(key, Tag::new(sequence, kind), &out, snapshot);
            } else {
                // What it has below decides later.
                self.set(key, tag, operand, snapshot);
            };
        };
        let newest = &versions.newest;
        let foldable = newest.tag.sequence() > snapshot && newest.tag.sequence() > cover;
        let chain = 1 + versions.older.len();
        let old = mem_key.value(newest);
        let own_before = newest.own_bytes();
        let mut out = Vec::new();
        let folded = foldable
            && (old.len() <= EAGER_FOLD_BYTES_MAX || chain >= MERGE_CHAIN_MAX)
            && match newest.tag.kind() {
                Some(Kind::Merge) => {
                    if merge.partial(key, &[old, operand], &mut out) {
                        Some(Kind::Merge)
                    } else {
                        None
                    }
                }
                Some(Kind::Put) => full(merge, key, Some(old), operand, &mut out),
                Some(Kind::Delete) => full(merge, key, None, operand, &mut out),
                None => None,
            }
            .is_some_and(|kind| {
                versions.newest = Version {
                    tag: Tag::new(sequence, kind),
                    value: Stored::Own(if kind == Kind::Delete {
                        Box::default()
                    } else {
                        std::mem::take(&mut out).into_boxed_slice()
                    }),
                };
                true
            });
        if folded {
            // What it costs now, not what it has cost: a hot key must not fill the memtable.
            self.bytes = (self.bytes + versions.newest.own_bytes()).saturating_sub(own_before);
            return;
        }
        self.bytes += versions.push(tag, operand);
        if versions.older.len() >= MERGE_CHAIN_MAX {
            versions.fold_chain(mem_key, snapshot.max(cover), merge);
        }
    }

    /// The versions of `key`, newest first.
    pub(crate) fn get(&self, key: &[u8]) -> impl Iterator<Item = (Tag, &[u8])> {
        let found = self.rows.get_key_value(key);
        found.into_iter().flat_map(|(mem_key, versions)| mem_key.versions(versions))
    }

    /// The rows from `start` (inclusive) to `end` (exclusive; none = to the end).
    pub(crate) fn range(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> btree_map::Range<'_, MemKey, Versions> {
        let end = end.map_or(Bound::Unbounded, |end| Bound::Excluded(end.max(start)));
        self.rows.range::<[u8], _>((Bound::Included(start), end))
    }
}

fn full(
    merge: &dyn Merge,
    key: &[u8],
    base: Option<&[u8]>,
    operand: &[u8],
    out: &mut Vec<u8>,
) -> Option<Kind> {
    match merge.full(key, base, &[operand], out) {
        Folded::Value => Some(Kind::Put),
        Folded::Deleted => Some(Kind::Delete),
        Folded::Carry => None,
    }
}

impl Version {
    fn own_bytes(&self) -> usize {
        match &self.value {
            Stored::WithKey => 0,
            Stored::Own(bytes) => bytes.len(),
        }
    }
}

impl Versions {
    /// Adds a newer version beside the others; the bytes it costs.
    fn push(&mut self, tag: Tag, value: &[u8]) -> usize {
        let newer = Version { tag, value: Stored::Own(value.into()) };
        self.older.push(std::mem::replace(&mut self.newest, newer));
        value.len() + size_of::<Version>()
    }

    /// Folds the newest operands above `floor` into one, together with the value below them where
    /// that is above `floor` too.
    fn fold_chain(&mut self, mem_key: &MemKey, floor: u64, merge: &dyn Merge) {
        let key = mem_key.key();
        let all: Vec<(Tag, &[u8])> = mem_key.versions(self).collect();
        let above = all.iter().take_while(|(tag, _)| tag.sequence() > floor);
        let operands: Vec<&[u8]> = above
            .take_while(|(tag, _)| tag.kind() == Some(Kind::Merge))
            .map(|(_, value)| *value)
            .collect();
        let below = all.get(operands.len()).filter(|(tag, _)| tag.sequence() > floor);
        let oldest_first: Vec<&[u8]> = operands.iter().rev().copied().collect();
        let mut out = Vec::new();
        let (kind, folded) = match below {
            Some((tag, value)) => {
                let base = (tag.kind() == Some(Kind::Put)).then_some(*value);
                match merge.full(key, base, &oldest_first, &mut out) {
                    Folded::Value => (Kind::Put, operands.len() + 1),
                    Folded::Deleted => (Kind::Delete, operands.len() + 1),
                    Folded::Carry => return,
                }
            }
            None if oldest_first.len() > 1 && merge.partial(key, &oldest_first, &mut out) => {
                (Kind::Merge, operands.len())
            }
            None => return,
        };
        let value = if kind == Kind::Delete { Vec::new() } else { out };
        let tag = Tag::new(self.newest.tag.sequence(), kind);
        self.older.truncate(self.older.len() + 1 - folded);
        self.newest = Version { tag, value: Stored::Own(value.into_boxed_slice()) };
    }
}
