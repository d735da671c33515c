//! Memtable: the newest changes of a shard, sorted, in an arena.
//!
//! One writer, any number of readers who take no lock. A reader has a *bound*, a sequence that was
//! published before it began, and passes over what is newer; so it does not matter what of a batch
//! that is being applied it meets.
//!
//! What nobody can see any more is used again: a change that was overwritten, a node that was parted.
//! Nobody can see it when
//!
//! * the memtable is the shard's alone (it has no [`crate::Reader`]): at once, since whoever borrowed
//!   something from the shard keeps it from writing meanwhile; or
//! * all views that were published while it could still be reached are gone: the shard counts them,
//!   and gives back what [`Active::take_retired`] gathered with [`Active::reclaim`].
//!
//! And a change is unlinked from its key only when a newer one settles the value for every reader
//! there is or will be: when that one is not above the bound of the oldest view (`safe`), and no
//! snapshot stands between. A merge is folded at once where that is cheap and allowed, so that a hot
//! key costs one entry and its chain is bounded.

#[cfg(test)]
mod accounting;
mod arena;
mod chain;
mod cursor;
mod deletions;
#[cfg(all(test, any(loom, shuttle)))]
mod models;
mod node;
mod region;
mod tree;

#[cfg(test)]
mod tests;

pub(crate) use arena::HUGE_FROM;
pub(crate) use cursor::Cursor;

use crate::batch::Op;
use crate::fold::{Bounded, Folded, Merge};
use crate::key::{KeyRange, Kind, Tag};
use crate::limits::{EAGER_FOLD_BYTES_MAX, FOLDED_BYTES_MAX, MERGE_CHAIN_MAX};
use crate::options::Options;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Counted, Mutex, lock};
use crate::tombstones::{Keep, RangeTombstones};
use deletions::{Deletions, OldSets};
use std::sync::Arc;
use tree::{Replaced, Slot, Tree, Writer};

/// What readers see of a memtable.
pub(crate) struct Memtable {
    tree: Tree,
    deletions: Deletions,
    /// Lists of range deletions that count no more, kept for those who may be reading them.
    old_deletions: Mutex<Vec<OldSets>>,
    /// Sequence of the newest change; 0 when there is none.
    last_sequence: AtomicU64,
    /// The same of those that are no range deletions.
    last_row: AtomicU64,
}

/// A memtable that takes writes, and what only its writer knows.
pub(crate) struct Active {
    memtable: Counted<Memtable>,
    writer: Writer,
    /// Places of versions that can be used again, by class.
    free: Vec<Vec<u32>>,
    /// Every reader sees at least what was published with this sequence; the maximum while the
    /// memtable is the writer's alone.
    safe: u64,
    retired: Retired,
    rows: usize,
    tombstone_bytes: usize,
    /// What is folded is put together here: a value of its own each time costs more than the folding.
    scratch: Vec<u8>,
}

/// A larger one is given back.
const SCRATCH_BYTES_MAX: usize = 256 << 10;

/// What was taken out of reach, but may still be in somebody's hands.
#[derive(Default)]
pub(crate) struct Retired {
    versions: Vec<u32>,
    nodes: Vec<Replaced>,
    /// Entries that have a newer version above another: once that is safe, the older ones can go.
    superseded: Vec<u32>,
    /// Range deletions since: once one is safe, those that it overrules can go.
    overruling: usize,
}

/// So many keys may have superseded versions before it is worth a new view to get rid of them; also
/// about how many operands of one key a reader may meet.
const RETIRED_MAX: usize = 256;

/// After so many range deletions a new view is worth while: of those over one key that no view has made
/// safe each is kept, with each piece of it.
const OVERRULING_MAX: usize = 32;

impl Memtable {
    pub(crate) fn last_sequence(&self) -> u64 {
        self.last_sequence.load(Ordering::Relaxed)
    }

    /// Sequence of the newest change that is no range deletion, of those that a reader may see.
    fn last_row(&self) -> u64 {
        self.last_row.load(Ordering::Relaxed)
    }

    /// The sets of its range deletions, which count together.
    pub(crate) fn tombstones(&self) -> &[Arc<RangeTombstones>] {
        self.deletions.sets()
    }

    /// Its range deletions as one set, without what neither a reader at one of `snapshots` nor one of
    /// the present can see.
    pub(crate) fn all_tombstones(&self, snapshots: &[u64]) -> RangeTombstones {
        let sets: Vec<&RangeTombstones> = self.tombstones().iter().map(AsRef::as_ref).collect();
        RangeTombstones::union(&sets, Keep::Seen(snapshots))
    }

    /// The greatest sequence up to `bound` of a range deletion over `key`; 0 when there is none.
    pub(crate) fn covering(&self, key: &[u8], bound: u64) -> u64 {
        self.tombstones().iter().map(|set| set.covering(key, bound)).max().unwrap_or(0)
    }

    /// Asks for the memory that looking up `keys` is going to read.
    pub(crate) fn fetch<K: AsRef<[u8]>>(&self, keys: &[K]) {
        self.tree.fetch(keys);
    }

    /// The versions of `key`, newest first.
    pub(crate) fn get(&self, key: &[u8]) -> impl Iterator<Item = (Tag, &[u8])> {
        let entry = self.tree.get(key);
        self.versions(entry.map_or(0, |entry| chain::newest(&self.tree.arena, entry)))
    }

    fn versions(&self, version: u32) -> impl Iterator<Item = (Tag, &[u8])> {
        chain::versions(&self.tree.arena, version).map(|(_, tag, value)| (tag, value))
    }
}

impl Active {
    /// An empty memtable as a store wants it, its writer's alone.
    pub(crate) fn of(options: &Options) -> Self {
        Self::new(options.memtable_bytes)
    }

    /// An empty memtable that is expected to hold about `bytes`, its writer's alone.
    pub(crate) fn new(bytes: usize) -> Self {
        // What is beyond goes to further blocks; untouched memory costs nothing.
        let (tree, writer) = Tree::new(bytes + bytes / 4 + (4 << 10));
        let memtable = Memtable {
            tree,
            deletions: Deletions::default(),
            old_deletions: Mutex::new(Vec::new()),
            last_sequence: AtomicU64::new(0),
            last_row: AtomicU64::new(0),
        };
        Self {
            memtable: Counted::new(memtable),
            writer,
            free: Vec::new(),
            safe: u64::MAX,
            retired: Retired::default(),
            rows: 0,
            tombstone_bytes: 0,
            scratch: Vec::new(),
        }
    }

    pub(crate) fn memtable(&self) -> &Counted<Memtable> {
        &self.memtable
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0 && self.memtable.tombstones().is_empty()
    }

    /// Bytes that the memtable holds in memory, reachable or waiting to be used again.
    pub(crate) fn bytes(&self) -> usize {
        self.writer.bump.bytes() + self.tombstone_bytes
    }

    /// From now on there are readers, who see at least what `sequence` published.
    pub(crate) fn share(&mut self, sequence: u64) {
        self.safe = sequence;
    }

    fn is_alone(&self) -> bool {
        self.safe == u64::MAX
    }

    /// True when so much is out of reach that a new view is worth while.
    pub(crate) fn wants_new_view(&self) -> bool {
        self.retired.superseded.len() + self.retired.versions.len() >= RETIRED_MAX
            || self.retired.overruling >= OVERRULING_MAX
    }

    /// What was taken out of reach since the last call: to be given to [`Active::reclaim`] when all
    /// views are gone that were published before this call.
    pub(crate) fn take_retired(&mut self) -> Retired {
        std::mem::take(&mut self.retired)
    }

    /// All views that could reach what is in `retired` are gone, and every reader sees at least
    /// what `safe` published. `snapshot`: as in [`Active::apply`].
    pub(crate) fn reclaim(
        &mut self,
        retired: Retired,
        safe: u64,
        snapshot: u64,
        merge: &dyn Merge,
    ) {
        self.safe = safe;
        let merge = &Bounded::new(merge);
        retired.versions.into_iter().for_each(|version| self.free_version(version));
        retired.nodes.into_iter().for_each(|node| self.free_node(node));
        let mut superseded = retired.superseded;
        superseded.sort_unstable();
        superseded.dedup();
        superseded.into_iter().for_each(|entry| self.trim(entry, snapshot, merge));
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
        let merge = &Bounded::new(merge);
        if sequence > self.memtable.last_sequence() {
            self.memtable.last_sequence.store(sequence, Ordering::Relaxed);
        }
        if !matches!(op, Op::DeleteRange { .. }) && sequence > self.memtable.last_row() {
            self.memtable.last_row.store(sequence, Ordering::Relaxed);
        }
        match op {
            Op::Put { key, value } => self.set(key, Tag::new(sequence, Kind::Put), value, snapshot),
            Op::Delete { key } => self.set(key, Tag::new(sequence, Kind::Delete), &[], snapshot),
            Op::Merge { key, operand } => {
                self.merge(key, operand, sequence, snapshot, merge, absent_below);
            }
            Op::DeleteRange { start, end } => {
                if let Some((start, end)) = range.clip(start, end) {
                    self.delete_range(start, end, sequence, snapshot);
                }
            }
        }
        if self.is_alone() {
            while let Some(node) = self.writer.replaced.pop() {
                self.free_node(node);
            }
        } else {
            self.retired.nodes.append(&mut self.writer.replaced);
        }
    }

    fn delete_range(&mut self, start: &[u8], end: &[u8], sequence: u64, snapshot: u64) {
        // What another range deletion overrules may be forgotten only where nobody sees between.
        let keep = Keep::Outside { snapshot, safe: self.safe };
        let old = self.memtable.deletions.add(start, end, sequence, keep);
        if self.is_alone() {
            self.tombstone_bytes = self.memtable.deletions.bytes();
        } else {
            self.tombstone_bytes += self.memtable.deletions.bytes_of_last();
            self.retired.overruling += 1;
            lock(&self.memtable.old_deletions).extend(old);
        }
    }

    fn set(&mut self, key: &[u8], tag: Tag, value: &[u8], snapshot: u64) {
        let Self { memtable, writer, .. } = self;
        let tree = &memtable.tree;
        let entry = match tree.slot(writer, key) {
            Slot::Gap(gap) => {
                add(tree, writer, &gap, key, tag, value);
                self.rows += 1;
                return;
            }
            Slot::Entry(entry) => entry,
        };
        let newest = chain::newest(&tree.arena, entry);
        let version = self.push(entry, tag, newest, value);
        if self.is_alone() {
            self.drop_hidden(version, snapshot);
        } else {
            self.retired.superseded.push(entry);
        }
    }

    /// Writes a version with `older` behind it and makes it the newest of `entry`.
    fn push(&mut self, entry: u32, tag: Tag, older: u32, value: &[u8]) -> u32 {
        let version = self.write_version(tag, older, value);
        chain::push(&self.memtable.tree.arena, entry, version);
        version
    }

    fn write_version(&mut self, tag: Tag, older: u32, value: &[u8]) -> u32 {
        let arena = &self.memtable.tree.arena;
        let words = chain::version_words(value.len());
        let free = self.free.get_mut(chain::class(words)).and_then(Vec::pop);
        let version = free.unwrap_or_else(|| arena.allocate(&mut self.writer.bump, words, false));
        chain::write_version(arena, version, tag, older, value);
        version
    }

    /// Unlinks what is older than `version`, which settles the value for every reader, except what
    /// a snapshot sees.
    fn drop_hidden(&mut self, version: u32, snapshot: u64) {
        let memtable = self.memtable.clone();
        let arena = &memtable.tree.arena;
        let mut at = chain::older(arena, version);
        while at != 0 && chain::tag(arena, at).sequence() > snapshot {
            let next = chain::older(arena, at);
            chain::relink(arena, version, next);
            self.retire(at);
            at = next;
        }
    }

    fn retire(&mut self, version: u32) {
        if self.is_alone() {
            self.free_version(version);
        } else {
            self.retired.versions.push(version);
        }
    }

    fn free_version(&mut self, version: u32) {
        let words = chain::end(&self.memtable.tree.arena, version);
        let class = chain::class(words);
        if self.free.len() <= class {
            self.free.resize_with(class + 1, Vec::new);
        }
        self.free[class].push(version);
    }

    fn free_node(&mut self, node: Replaced) {
        self.memtable.tree.end(&mut self.writer, node);
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
        let memtable = self.memtable.clone();
        let tree = &memtable.tree;
        let tag = Tag::new(sequence, Kind::Merge);
        let mut out = std::mem::take(&mut self.scratch);
        let entry = match tree.slot(&mut self.writer, key) {
            Slot::Entry(entry) => entry,
            Slot::Gap(gap) => {
                self.rows += 1;
                if absent_below(key)
                    && let Some(kind) = full(merge, key, None, operand, &mut out)
                {
                    // The oldest version of its key: reads need not look for a base.
                    let tag = Tag::new(sequence, kind);
                    add(tree, &mut self.writer, &gap, key, tag, value_of(kind, &out));
                } else {
                    // What it has below decides later.
                    add(tree, &mut self.writer, &gap, key, tag, operand);
                }
                return self.keep_scratch(out);
            }
        };
        let arena = &tree.arena;
        let newest = chain::newest(arena, entry);
        let (newest_tag, old) = (chain::tag(arena, newest), chain::value(arena, newest));
        let cover = memtable.covering(key, u64::MAX);
        let foldable = newest_tag.sequence() > snapshot.max(cover);
        let short = || chain::versions(arena, newest).nth(MERGE_CHAIN_MAX - 1).is_none();
        let folded = if foldable && (old.len() <= EAGER_FOLD_BYTES_MAX || !short()) {
            match newest_tag.kind() {
                Some(Kind::Put) => full(merge, key, Some(old), operand, &mut out),
                Some(Kind::Delete) => full(merge, key, None, operand, &mut out),
                // A reader between the two must not find the one within the other.
                Some(Kind::Merge) => (self.is_alone()
                    && merge.partial(key, &[old, operand], &mut out))
                .then_some(Kind::Merge),
                None => None,
            }
        } else {
            None
        };
        if let Some(kind) = folded {
            let (tag, value) = (Tag::new(sequence, kind), value_of(kind, &out));
            if self.is_alone() {
                self.push(entry, tag, chain::older(arena, newest), value);
                self.free_version(newest);
            } else {
                self.push(entry, tag, newest, value);
                self.retired.superseded.push(entry);
            }
            return self.keep_scratch(out);
        }
        self.keep_scratch(out);
        let version = self.push(entry, tag, newest, operand);
        if !self.is_alone() {
            self.retired.superseded.push(entry);
        } else if chain::versions(arena, version).nth(MERGE_CHAIN_MAX).is_some() {
            self.fold_chain(entry, 0, version, snapshot.max(cover), merge);
        }
    }

    fn keep_scratch(&mut self, mut out: Vec<u8>) {
        if out.capacity() <= SCRATCH_BYTES_MAX {
            out.clear();
            self.scratch = out;
        }
    }

    /// Unlinks or folds what of an entry no reader needs apart any more.
    fn trim(&mut self, entry: u32, snapshot: u64, merge: &dyn Merge) {
        let memtable = self.memtable.clone();
        let arena = &memtable.tree.arena;
        // The first version that everybody sees.
        let (mut above, mut at) = (0, chain::newest(arena, entry));
        while at != 0 && chain::tag(arena, at).sequence() > self.safe {
            (above, at) = (at, chain::older(arena, at));
        }
        if at == 0 {
            return;
        }
        if chain::tag(arena, at).kind() == Some(Kind::Merge) {
            let cover = memtable.covering(chain::key(arena, entry), u64::MAX);
            self.fold_chain(entry, above, at, snapshot.max(cover), merge);
        } else {
            self.drop_hidden(at, snapshot);
        }
    }

    /// Folds the operands from `first` on that are above `floor` into one, together with the value
    /// below them where that is above `floor` too. `above` is the version before, 0 if there is none.
    fn fold_chain(&mut self, entry: u32, above: u32, first: u32, floor: u64, merge: &dyn Merge) {
        let memtable = self.memtable.clone();
        let arena = &memtable.tree.arena;
        let key = chain::key(arena, entry);
        let visible = chain::versions(arena, first);
        let visible: Vec<_> = visible.take_while(|(_, tag, _)| tag.sequence() > floor).collect();
        let operands = visible.iter().take_while(|(_, tag, _)| tag.kind() == Some(Kind::Merge));
        let mut operands: Vec<&[u8]> = operands.map(|(_, _, value)| *value).collect();
        operands.reverse();
        let gathered: usize = visible.iter().map(|(.., value)| value.len()).sum();
        if gathered > FOLDED_BYTES_MAX {
            // It would hardly fit, and would be tried again with every operand that comes.
            return;
        }
        let mut out = Vec::new();
        let (kind, folded) = match visible.get(operands.len()) {
            Some((_, tag, value)) if !operands.is_empty() => {
                let base = (tag.kind() == Some(Kind::Put)).then_some(*value);
                match merge.full(key, base, &operands, &mut out) {
                    Folded::Value => (Kind::Put, operands.len() + 1),
                    Folded::Deleted => (Kind::Delete, operands.len() + 1),
                    Folded::Carry => return,
                }
            }
            None if operands.len() > 1 && merge.partial(key, &operands, &mut out) => {
                (Kind::Merge, operands.len())
            }
            _ => return,
        };
        let tag = Tag::new(visible[0].1.sequence(), kind);
        let below = chain::older(arena, visible[folded - 1].0);
        let version = self.write_version(tag, below, value_of(kind, &out));
        if above == 0 {
            chain::push(arena, entry, version);
        } else {
            chain::relink(arena, above, version);
        }
        visible[..folded].iter().for_each(|(place, ..)| self.retire(*place));
        if kind != Kind::Merge {
            self.drop_hidden(version, floor);
        }
    }
}

/// Writes an entry for `key` and puts it into its place.
fn add(tree: &Tree, writer: &mut Writer, gap: &tree::Gap<'_>, key: &[u8], tag: Tag, value: &[u8]) {
    let words = chain::entry_words(key, value.len());
    let entry = tree.arena.allocate(&mut writer.bump, words, false);
    chain::write_entry(&tree.arena, entry, key, tag, value);
    tree.insert(writer, gap, key, entry);
}

fn value_of(kind: Kind, out: &[u8]) -> &[u8] {
    if kind == Kind::Delete { &[] } else { out }
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
