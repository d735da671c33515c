//! Nodes of the tree: up to fifteen keys each, in three cache lines, read while they are written.
//! (Three keys each where a model checker tries every interleaving.)
//!
//! A node's slots are filled one after the other and never changed; which of them count, and in what
//! order, stands in one word, and storing that word publishes a slot. So a reader that has loaded
//! the word sees a set of slots that stays as it is. A key stands here as eight of its bytes, those
//! behind what all keys that can come to this node have in common, and as the place of its entry,
//! which is looked at only where the eight bytes are equal.

use crate::sync::Watch;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::cmp;

/// Keys in a node.
pub(super) const SLOTS: usize = if cfg!(any(loom, shuttle)) { 3 } else { 15 };

/// Finds the key of an entry.
pub(super) trait Keys {
    fn key(&self, entry: u32) -> &[u8];
}

/// A leaf; and the part of an inner node that holds its separators.
#[repr(C, align(64))]
pub(super) struct Leaf {
    order: AtomicU64,
    prefix: [AtomicU64; SLOTS],
    entry: [AtomicU32; SLOTS],
    /// How many bytes all keys of this node's range have in common.
    pub(super) skip: u32,
    pub(super) watch: Watch,
}

/// An inner node: the keys at which its children are parted.
#[repr(C, align(64))]
pub(super) struct Inner {
    pub(super) separators: Leaf,
    /// The child below the first separator.
    first: AtomicU32,
    /// The child at and above the separator in the same slot.
    child: [AtomicU32; SLOTS],
}

#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(size_of::<Leaf>() == 192 && size_of::<Inner>() == 256);

/// Which slots count, in ascending order of their keys: four bits for how many, then four a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Order(u64);

impl Order {
    pub(super) fn len(self) -> usize {
        (self.0 & 15) as usize
    }
    pub(super) fn slot(self, position: usize) -> usize {
        (self.0 >> (4 + 4 * position) & 15) as usize
    }
    /// With the next free slot at `position`.
    fn with(self, position: usize) -> Self {
        let (at, count) = (4 + 4 * position, self.0 & 15);
        let below = self.0 & ((1 << at) - 1);
        // Two shifts, since together they may reach 64.
        let above = (self.0 >> at) << at << 4;
        Self((above | count << at | below) + 1)
    }
    /// The first `count` slots as they stand.
    fn ascending(count: usize) -> Self {
        (0..count).fold(Self(0), Self::with)
    }
}

/// The eight bytes of `key` behind the first `skip`, as a number that sorts as they do. Shorter keys
/// are filled with zeros: equal numbers say nothing.
pub(super) fn prefix(key: &[u8], skip: u32) -> u64 {
    let rest = key.get(skip as usize..).unwrap_or_default();
    if let Some(head) = rest.first_chunk::<8>() {
        return u64::from_be_bytes(*head);
    }
    let mut bytes = [0; 8];
    bytes[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(bytes)
}

/// A key to be put into a node.
#[derive(Clone, Copy, Default)]
pub(super) struct Item {
    pub(super) prefix: u64,
    pub(super) entry: u32,
}

/// A key and the child at and above it.
pub(super) type Branch = (Item, u32);

impl Leaf {
    /// A node with `items`, which are in order.
    pub(super) fn new(skip: u32, items: impl IntoIterator<Item = Item>) -> Self {
        let mut leaf = Self {
            order: AtomicU64::new(0),
            prefix: std::array::from_fn(|_| AtomicU64::new(0)),
            entry: std::array::from_fn(|_| AtomicU32::new(0)),
            skip,
            watch: Watch::new(),
        };
        let mut count = 0;
        for item in items {
            leaf.prefix[count] = AtomicU64::new(item.prefix);
            leaf.entry[count] = AtomicU32::new(item.entry);
            count += 1;
        }
        leaf.order = AtomicU64::new(Order::ascending(count).0);
        leaf
    }

    /// The slots that count now.
    pub(super) fn order(&self) -> Order {
        Order(self.order.load(Ordering::Acquire))
    }

    pub(super) fn entry(&self, slot: usize) -> u32 {
        self.entry[slot].load(Ordering::Relaxed)
    }

    pub(super) fn item(&self, slot: usize) -> Item {
        Item { prefix: self.prefix[slot].load(Ordering::Relaxed), entry: self.entry(slot) }
    }

    /// Where in `order` the keys begin and end that have the same eight bytes as `key`.
    #[inline]
    fn alike(&self, order: Order, key: &[u8]) -> (usize, usize) {
        let wanted = prefix(key, self.skip);
        let (mut below, mut equal) = (0, 0);
        // Slots are filled in turn, so those of an order are the first ones.
        for slot in &self.prefix[..order.len().min(SLOTS)] {
            let prefix = slot.load(Ordering::Relaxed);
            below += usize::from(prefix < wanted);
            equal += usize::from(prefix == wanted);
        }
        (below, below + equal)
    }

    /// How many of the keys of `order` are below `key`, and whether the next one is `key`.
    pub(super) fn find(&self, order: Order, key: &[u8], keys: &impl Keys) -> (usize, bool) {
        let (mut low, mut high) = self.alike(order, key);
        while low < high {
            let middle = (low + high) / 2;
            let other = keys.key(self.entry(order.slot(middle)));
            match other[self.skip as usize..].cmp(key.get(self.skip as usize..).unwrap_or_default())
            {
                cmp::Ordering::Less => low = middle + 1,
                cmp::Ordering::Equal => return (middle, true),
                cmp::Ordering::Greater => high = middle,
            }
        }
        (low, false)
    }

    /// The entry that [`Leaf::find`] is going to look at first, if any; looks at none itself.
    pub(super) fn likely(&self, order: Order, key: &[u8]) -> Option<u32> {
        let (low, high) = self.alike(order, key);
        (low < high).then(|| self.entry(order.slot((low + high) / 2)))
    }

    /// Adds a key at `position`; the writer alone, and only where there is room.
    pub(super) fn insert(&self, position: usize, item: Item) {
        let order = Order(self.order.load(Ordering::Relaxed));
        let slot = order.len();
        self.prefix[slot].store(item.prefix, Ordering::Relaxed);
        self.entry[slot].store(item.entry, Ordering::Relaxed);
        // Publishes the slot: a reader that sees it in the order sees what it holds.
        self.order.store(order.with(position).0, Ordering::Release);
    }
}

impl Inner {
    /// A node over `first` and then `branches`, which are in order.
    pub(super) fn new(skip: u32, first: u32, branches: &[Branch]) -> Self {
        let mut inner = Self {
            separators: Leaf::new(skip, branches.iter().map(|(item, _)| *item)),
            first: AtomicU32::new(first),
            child: std::array::from_fn(|_| AtomicU32::new(0)),
        };
        for (slot, (_, child)) in inner.child.iter_mut().zip(branches) {
            *slot = AtomicU32::new(*child);
        }
        inner
    }

    fn at(&self, order: Order, position: usize) -> &AtomicU32 {
        match position.checked_sub(1) {
            None => &self.first,
            Some(position) => &self.child[order.slot(position)],
        }
    }

    /// The child at `position`: below the first separator, or at and above the one before.
    pub(super) fn child(&self, order: Order, position: usize) -> u32 {
        self.at(order, position).load(Ordering::Acquire)
    }

    /// The way to what `goal` looks for: the order that was looked at, the position in it and the
    /// child there, which covers all of the range between the separators around it.
    pub(super) fn descend(&self, goal: Goal<'_>, keys: &impl Keys) -> (Order, usize, u32) {
        let mut order = self.separators.order();
        loop {
            let (below, equal) = match goal {
                Goal::At(key) | Goal::Below(key) => self.separators.find(order, key, keys),
                Goal::Last => (order.len(), false),
            };
            let position = below + usize::from(equal && matches!(goal, Goal::At(_)));
            let child = self.child(order, position);
            // A child that was parted keeps its place with the lower half; the upper half has a
            // separator, and that was published before. Seeing the half means seeing the order.
            let now = self.separators.order();
            if now == order {
                return (order, position, child);
            }
            order = now;
        }
    }

    /// The child at `position` is parted: `upper` takes what is at and above `item`, `lower` the
    /// rest. Until the last store the old child serves both.
    pub(super) fn part(&self, position: usize, lower: u32, item: Item, upper: u32) {
        let order = self.separators.order();
        self.child[order.len()].store(upper, Ordering::Relaxed);
        let old = self.at(order, position);
        self.separators.insert(position, item);
        old.store(lower, Ordering::Release);
    }
}

/// What a descent looks for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal<'a> {
    /// The leaf whose range holds the key.
    At(&'a [u8]),
    /// The leaf whose range holds the greatest keys below the key.
    Below(&'a [u8]),
    /// The last leaf.
    Last,
}
