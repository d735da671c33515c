//! Tree: the keys of a memtable, sorted: a tree of wide nodes in the arena.
//!
//! One writer, any number of readers who take no lock. A key that is added becomes visible with one
//! store, in its leaf or, where a node is parted, in the parent (see `node`). A node that was parted
//! stays as it was for those who are still in it: it holds every key that was added before they
//! came, and what is added later they may not see anyway (see `memtable`).
#![allow(unsafe_code, reason = "nodes and keys stand in the arena; each use says why")]

use super::arena::{Arena, Bump};
use super::chain;
use super::node::{Branch, Goal, Inner, Item, Keys, Leaf, Order, SLOTS, prefix};
use crate::sync::atomic::{AtomicU64, Ordering};

const LEAF_WORDS: u32 = (size_of::<Leaf>() / 8) as u32;
const INNER_WORDS: u32 = (size_of::<Inner>() / 8) as u32;
const LINE_WORDS: usize = 8;
/// More would push each other out of what the processor can have under way.
const FETCHED_TOGETHER: usize = 8;

pub(super) struct Tree {
    pub(super) arena: Arena,
    /// The place of the root, and above it in the same word how many inner nodes are on the way to
    /// a leaf.
    root: AtomicU64,
}

/// The leaf that a descent came to, as it was then, and the keys between which its range lies: places of
/// entries, 0 where there is no bound.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) leaf: &'a Leaf,
    pub(super) order: Order,
    pub(super) lower: u32,
    pub(super) upper: u32,
}

/// What only the writer needs.
pub(super) struct Writer {
    pub(super) bump: Bump,
    /// Nodes that nobody can be in any more.
    pub(super) free_leaves: Vec<u32>,
    pub(super) free_inners: Vec<u32>,
    /// Nodes that were replaced since the last call of [`Writer::take_replaced`].
    pub(super) replaced: Vec<Replaced>,
}

/// A node that was parted: its copies serve from now on.
#[derive(Clone, Copy)]
pub(super) enum Replaced {
    Leaf(u32),
    Inner(u32),
}

#[cfg(test)]
impl Replaced {
    pub(super) fn extent(self) -> (u32, u32) {
        match self {
            Self::Leaf(place) => (place, LEAF_WORDS),
            Self::Inner(place) => (place, INNER_WORDS),
        }
    }
}

/// Where a key stands, or where it belongs.
pub(super) enum Slot<'a> {
    Entry(u32),
    Gap(Gap<'a>),
}

/// The place in a leaf that a new key belongs to. Used up at once: nothing may be written between.
pub(super) struct Gap<'a> {
    leaf: u32,
    position: usize,
    parent: Option<(&'a Inner, usize)>,
    lower: u32,
    upper: u32,
}

impl Keys for Arena {
    fn key(&self, entry: u32) -> &[u8] {
        chain::key(self, entry)
    }
}

/// A node with its separators or keys in order, about to be parted.
struct Parting {
    skip: u32,
    lower: u32,
    upper: u32,
}

impl Parting {
    /// How much of their keys `items` of the range from `lower` to `upper` shall skip: as before
    /// where that tells them apart, otherwise all that the range has in common.
    fn fit(&self, arena: &Arena, lower: u32, upper: u32, items: &mut [Item]) -> u32 {
        if items.windows(2).all(|pair| pair[0].prefix != pair[1].prefix) || lower == 0 || upper == 0
        {
            return self.skip;
        }
        let common = arena.key(lower).iter().zip(arena.key(upper)).take_while(|(a, b)| a == b);
        let skip = common.count() as u32;
        for item in items {
            item.prefix = prefix(arena.key(item.entry), skip);
        }
        skip
    }
}

impl Tree {
    /// An empty tree with room for `bytes`, which are kept for another one afterwards if they are many.
    pub(super) fn new(bytes: usize) -> (Self, Writer) {
        let (arena, bump) = Arena::new(bytes);
        let tree = Self { arena, root: AtomicU64::new(0) };
        let mut writer =
            Writer { bump, free_leaves: Vec::new(), free_inners: Vec::new(), replaced: Vec::new() };
        let leaf = tree.add_leaf(&mut writer, Leaf::new(0, []));
        tree.root.store(u64::from(leaf), Ordering::Release);
        (tree, writer)
    }

    fn leaf(&self, place: u32) -> &Leaf {
        // SAFETY: places of leaves come from `add_leaf`, by loads that synchronise with it; a leaf
        // changes through atomics only, and is not reused while anybody can reach it.
        let leaf = unsafe { &*self.arena.at(place).cast::<Leaf>() };
        leaf.watch.read();
        leaf
    }

    fn inner(&self, place: u32) -> &Inner {
        // SAFETY: as for leaves.
        let inner = unsafe { &*self.arena.at(place).cast::<Inner>() };
        inner.separators.watch.read();
        inner
    }

    fn add_leaf(&self, writer: &mut Writer, leaf: Leaf) -> u32 {
        let free = writer.free_leaves.pop();
        let place = free.unwrap_or_else(|| self.arena.allocate(&mut writer.bump, LEAF_WORDS, true));
        // SAFETY: a whole leaf, on a line, known to nobody else until its place is published.
        unsafe { self.arena.at(place).cast::<Leaf>().write(leaf) };
        place
    }

    fn add_inner(&self, writer: &mut Writer, inner: Inner) -> u32 {
        let free = writer.free_inners.pop();
        let place =
            free.unwrap_or_else(|| self.arena.allocate(&mut writer.bump, INNER_WORDS, true));
        // SAFETY: as for leaves.
        unsafe { self.arena.at(place).cast::<Inner>().write(inner) };
        place
    }

    /// Nobody can be in this node any more: its place can be used again.
    pub(super) fn end(&self, writer: &mut Writer, node: Replaced) {
        match node {
            Replaced::Leaf(place) => {
                self.leaf(place).watch.end();
                writer.free_leaves.push(place);
            }
            Replaced::Inner(place) => {
                self.inner(place).separators.watch.end();
                writer.free_inners.push(place);
            }
        }
    }

    fn root(&self) -> (u32, u64) {
        let root = self.root.load(Ordering::Acquire);
        (root as u32, root >> 32)
    }

    /// The entry of `key`.
    pub(super) fn get(&self, key: &[u8]) -> Option<u32> {
        let (mut place, height) = self.root();
        for _ in 0..height {
            (_, _, place) = self.inner(place).descend(Goal::At(key), &self.arena);
        }
        let leaf = self.leaf(place);
        let order = leaf.order();
        let (position, there) = leaf.find(order, key, &self.arena);
        there.then(|| leaf.entry(order.slot(position)))
    }

    /// Asks for the memory on the ways to `keys`, for all of them a step at a time, so that the waits
    /// for memory, which are most of what looking up a key costs, overlap.
    pub(super) fn fetch<K: AsRef<[u8]>>(&self, keys: &[K]) {
        let (root, height) = self.root();
        for keys in keys.chunks(FETCHED_TOGETHER) {
            let mut places = [root; FETCHED_TOGETHER];
            for level in (0..height).rev() {
                let words = if level == 0 { LEAF_WORDS } else { INNER_WORDS };
                for (place, key) in places.iter_mut().zip(keys) {
                    let goal = Goal::At(key.as_ref());
                    (_, _, *place) = self.inner(*place).descend(goal, &self.arena);
                    for line in (0..words).step_by(LINE_WORDS) {
                        self.arena.prefetch(*place + line);
                    }
                }
            }
            for (place, key) in places.iter_mut().zip(keys) {
                let leaf = self.leaf(*place);
                *place = leaf.likely(leaf.order(), key.as_ref()).unwrap_or(0);
                self.arena.prefetch(*place);
            }
            for entry in places[..keys.len()].iter().filter(|entry| **entry != 0) {
                self.arena.prefetch(chain::newest(&self.arena, *entry));
            }
        }
    }

    /// The leaf that `goal` looks for.
    pub(super) fn find(&self, goal: Goal<'_>) -> Found<'_> {
        let (mut place, height) = self.root();
        let (mut lower, mut upper) = (0, 0);
        for _ in 0..height {
            let inner = self.inner(place);
            let (order, position, child) = inner.descend(goal, &self.arena);
            if position > 0 {
                lower = inner.separators.entry(order.slot(position - 1));
            }
            if position < order.len() {
                upper = inner.separators.entry(order.slot(position));
            }
            place = child;
        }
        let leaf = self.leaf(place);
        Found { leaf, order: leaf.order(), lower, upper }
    }

    /// Every node that a reader can come to, and every entry.
    #[cfg(test)]
    pub(super) fn all(&self) -> (Vec<Replaced>, Vec<u32>) {
        let (root, height) = self.root();
        let (mut nodes, mut places) = (Vec::new(), vec![root]);
        for _ in 0..height {
            nodes.extend(places.iter().map(|place| Replaced::Inner(*place)));
            let below = places.iter().flat_map(|place| {
                let order = self.inner(*place).separators.order();
                (0..=order.len()).map(move |i| self.inner(*place).child(order, i))
            });
            places = below.collect();
        }
        nodes.extend(places.iter().map(|place| Replaced::Leaf(*place)));
        let entries = places.iter().flat_map(|place| {
            let leaf = self.leaf(*place);
            (0..leaf.order().len()).map(|slot| leaf.entry(slot))
        });
        (nodes, entries.collect())
    }

    /// Where `key` stands or belongs; the writer alone. Inner nodes on the way that are full are
    /// parted now, so that there is room above a leaf that has to be.
    pub(super) fn slot(&self, writer: &mut Writer, key: &[u8]) -> Slot<'_> {
        let (mut place, height) = self.root();
        let (mut lower, mut upper) = (0, 0);
        let mut parent: Option<(&Inner, usize)> = None;
        for level in (1..=height).rev() {
            let mut inner = self.inner(place);
            if inner.separators.order().len() == SLOTS {
                let (item, low, high) = self.part_inner(writer, place, lower, upper);
                self.place_parted(writer, parent, level, (low, item, high));
                writer.replaced.push(Replaced::Inner(place));
                // The same way again, one step shorter: the halves have room.
                let above = key >= self.arena.key(item.entry);
                *(if above { &mut lower } else { &mut upper }) = item.entry;
                place = if above { high } else { low };
                inner = self.inner(place);
            }
            let (order, position, child) = inner.descend(Goal::At(key), &self.arena);
            if position > 0 {
                lower = inner.separators.entry(order.slot(position - 1));
            }
            if position < order.len() {
                upper = inner.separators.entry(order.slot(position));
            }
            parent = Some((inner, position));
            place = child;
        }
        let leaf = self.leaf(place);
        let order = leaf.order();
        let (position, there) = leaf.find(order, key, &self.arena);
        if there {
            return Slot::Entry(leaf.entry(order.slot(position)));
        }
        Slot::Gap(Gap { leaf: place, position, parent, lower, upper })
    }

    /// Puts `entry`, whose key is `key`, where [`Tree::slot`] said.
    pub(super) fn insert(&self, writer: &mut Writer, gap: &Gap<'_>, key: &[u8], entry: u32) {
        let leaf = self.leaf(gap.leaf);
        let new = Item { prefix: prefix(key, leaf.skip), entry };
        let order = leaf.order();
        if order.len() < SLOTS {
            return leaf.insert(gap.position, new);
        }
        let mut items = [Item::default(); SLOTS + 1];
        for (i, item) in items.iter_mut().enumerate() {
            *item = match i.cmp(&gap.position) {
                std::cmp::Ordering::Less => leaf.item(order.slot(i)),
                std::cmp::Ordering::Equal => new,
                std::cmp::Ordering::Greater => leaf.item(order.slot(i - 1)),
            };
        }
        let Gap { lower, upper, .. } = *gap;
        // Keys that come in order leave full leaves behind.
        let cut = match gap.position {
            SLOTS if upper == 0 => SLOTS,
            0 if lower == 0 => 1,
            _ => items.len() / 2,
        };
        let middle = items[cut];
        let (low, high) = items.split_at_mut(cut);
        let parting = Parting { skip: leaf.skip, lower, upper };
        let low_skip = parting.fit(&self.arena, parting.lower, middle.entry, low);
        let high_skip = parting.fit(&self.arena, middle.entry, parting.upper, high);
        let low = self.add_leaf(writer, Leaf::new(low_skip, low.iter().copied()));
        let high = self.add_leaf(writer, Leaf::new(high_skip, high.iter().copied()));
        self.place_parted(writer, gap.parent, 0, (low, middle, high));
        writer.replaced.push(Replaced::Leaf(gap.leaf));
    }

    /// Two copies of the halves of a full inner node, and the separator between them.
    fn part_inner(
        &self,
        writer: &mut Writer,
        place: u32,
        lower: u32,
        upper: u32,
    ) -> (Item, u32, u32) {
        let inner = self.inner(place);
        let order = inner.separators.order();
        let branches: Vec<Branch> = (0..SLOTS)
            .map(|i| (inner.separators.item(order.slot(i)), inner.child(order, i + 1)))
            .collect();
        let cut = match (lower, upper) {
            // Keys in order make nodes at the end: leave full ones behind.
            (_, 0) => SLOTS - 2,
            _ => SLOTS / 2,
        };
        let (middle, middle_child) = branches[cut];
        let first = inner.child(order, 0);
        let parting = Parting { skip: inner.separators.skip, lower, upper };
        let half = |first: u32, branches: &[Branch], lower: u32, upper: u32| {
            let mut items: Vec<Item> = branches.iter().map(|(item, _)| *item).collect();
            let skip = parting.fit(&self.arena, lower, upper, &mut items);
            let branches: Vec<Branch> =
                items.into_iter().zip(branches).map(|(item, (_, child))| (item, *child)).collect();
            Inner::new(skip, first, &branches)
        };
        let low = half(first, &branches[..cut], parting.lower, middle.entry);
        let high = half(middle_child, &branches[cut + 1..], middle.entry, parting.upper);
        (middle, self.add_inner(writer, low), self.add_inner(writer, high))
    }

    /// Publishes the halves of a node that has `level` inner nodes below its parent.
    fn place_parted(
        &self,
        writer: &mut Writer,
        parent: Option<(&Inner, usize)>,
        level: u64,
        (low, middle, high): (u32, Item, u32),
    ) {
        if let Some((parent, position)) = parent {
            // A separator is compared by what its new node skips.
            let key = self.arena.key(middle.entry);
            let item = Item { prefix: prefix(key, parent.separators.skip), entry: middle.entry };
            return parent.part(position, low, item, high);
        }
        let item = Item { prefix: prefix(self.arena.key(middle.entry), 0), entry: middle.entry };
        let root = self.add_inner(writer, Inner::new(0, low, &[(item, high)]));
        self.root.store((level + 1) << 32 | u64::from(root), Ordering::Release);
    }
}
