//! Cursor: walks the keys of a memtable, leaf by leaf, forward or backward.
//!
//! A leaf is looked at as it was when the cursor came to it; the next one is found from the root, by
//! the key at which the leaf's range ends.

use super::Memtable;
use super::chain;
use super::node::Goal;
use super::tree::Found;
use crate::key::Tag;
use crate::merge::Direction;

pub(crate) struct Cursor<'a> {
    memtable: &'a Memtable,
    direction: Direction,
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    leaf: Found<'a>,
    /// Forward: the head's position in the leaf. Backward: one more than it.
    position: usize,
    /// Where the rows of this leaf end, in the direction of the walk.
    stop: usize,
    /// No leaf after this one has rows of the range.
    last: bool,
    /// The head's entry; 0 when there is none.
    entry: u32,
}

impl<'a> Cursor<'a> {
    /// A cursor over the keys from `start` (inclusive) to `end` (exclusive; none = to the end).
    pub(crate) fn new(
        memtable: &'a Memtable,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
    ) -> Self {
        let goal = match (direction, end) {
            (Direction::Forward, _) => Goal::At(start),
            (Direction::Backward, Some(end)) => Goal::Below(end),
            (Direction::Backward, None) => Goal::Last,
        };
        let mut cursor = Self {
            memtable,
            direction,
            start: start.to_vec(),
            end: end.map(|end| end.max(start).to_vec()),
            leaf: memtable.tree.find(goal),
            position: 0,
            stop: 0,
            last: false,
            entry: 0,
        };
        let bound = match direction {
            Direction::Forward => Some(start.to_vec()),
            Direction::Backward => cursor.end.clone(),
        };
        cursor.enter(bound.as_deref());
        cursor.settle();
        cursor
    }

    fn key_of(&self, entry: u32) -> &'a [u8] {
        chain::key(&self.memtable.tree.arena, entry)
    }

    fn rank(&self, key: &[u8]) -> usize {
        self.leaf.leaf.find(self.leaf.order, key, &self.memtable.tree.arena).0
    }

    /// Finds the part of the leaf at hand that belongs to the range; `bound` is where it begins.
    fn enter(&mut self, bound: Option<&[u8]>) {
        let Found { leaf, order, lower, upper } = self.leaf;
        for position in 0..order.len() {
            self.memtable.tree.arena.prefetch(leaf.entry(order.slot(position)));
        }
        match self.direction {
            Direction::Forward => {
                self.position = bound.map_or(0, |bound| self.rank(bound));
                let beyond = (upper != 0).then(|| self.key_of(upper));
                let end = self.end.as_deref();
                let inside = end.filter(|end| beyond.is_none_or(|beyond| *end <= beyond));
                self.last = beyond.is_none() || inside.is_some();
                // A leaf that is being parted may still hold what its range has lost.
                let stop = inside.or(beyond).map(|stop| self.rank(stop));
                self.stop = stop.unwrap_or(order.len());
            }
            Direction::Backward => {
                self.position = bound.map_or(order.len(), |bound| self.rank(bound));
                self.last = lower == 0 || self.start.as_slice() >= self.key_of(lower);
                self.stop = if self.last { self.rank(&self.start) } else { 0 };
            }
        }
    }

    /// Goes on to leaves until there is a head.
    fn settle(&mut self) {
        loop {
            let there = match self.direction {
                Direction::Forward => self.position < self.stop,
                Direction::Backward => self.position > self.stop,
            };
            if there {
                let back = usize::from(self.direction == Direction::Backward);
                self.entry = self.leaf.leaf.entry(self.leaf.order.slot(self.position - back));
                return;
            }
            if self.last {
                self.entry = 0;
                return;
            }
            let (goal, bound) = match self.direction {
                Direction::Forward => {
                    let bound = self.key_of(self.leaf.upper);
                    (Goal::At(bound), bound)
                }
                Direction::Backward => {
                    let bound = self.key_of(self.leaf.lower);
                    (Goal::Below(bound), bound)
                }
            };
            self.leaf = self.memtable.tree.find(goal);
            self.enter(Some(bound));
        }
    }

    /// The key at hand; none at the end.
    pub(crate) fn key(&self) -> Option<&'a [u8]> {
        (self.entry != 0).then(|| self.key_of(self.entry))
    }

    /// The versions of the key at hand, newest first.
    pub(crate) fn versions(&self) -> impl Iterator<Item = (Tag, &'a [u8])> + use<'a> {
        let arena = &self.memtable.tree.arena;
        let newest = if self.entry == 0 { 0 } else { chain::newest(arena, self.entry) };
        self.memtable.versions(newest)
    }

    /// Goes on to the next key.
    pub(crate) fn advance(&mut self) {
        match self.direction {
            Direction::Forward => self.position += 1,
            Direction::Backward => self.position -= 1,
        }
        self.settle();
    }

    /// Passes over rows older than `cover` up to `bound`, as [`crate::merge::Merged::skip_covered`] says.
    pub(crate) fn skip_covered(&mut self, bound: Option<&[u8]>, cover: u64) {
        if self.memtable.last_row() < cover {
            return self.jump(bound);
        }
        while let Some(key) = self.key() {
            let inside = match (self.direction, bound) {
                (_, None) => true,
                (Direction::Forward, Some(bound)) => key < bound,
                (Direction::Backward, Some(bound)) => key >= bound,
            };
            let newest = chain::newest(&self.memtable.tree.arena, self.entry);
            if !inside || chain::tag(&self.memtable.tree.arena, newest).sequence() >= cover {
                break;
            }
            self.advance();
        }
    }

    /// Goes on to the first key from `bound` on, or backward to the last one below it; none: to the end.
    fn jump(&mut self, bound: Option<&[u8]>) {
        let Some(key) = self.key() else { return };
        let goal = match (self.direction, bound) {
            (Direction::Forward, Some(bound)) if key < bound => Goal::At(bound),
            (Direction::Backward, Some(bound)) if key >= bound => Goal::Below(bound),
            (_, Some(_)) => return,
            (_, None) => {
                self.entry = 0;
                (self.position, self.last) = (self.stop, true);
                return;
            }
        };
        self.leaf = self.memtable.tree.find(goal);
        self.enter(bound);
        self.settle();
    }
}
