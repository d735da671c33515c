//! Accounting: what a memtable says that it holds is what it took from its arena, word by word; and
//! no change takes more than it brings.

use super::tests::{Append, Chance, everything};
use super::*;
use std::collections::BTreeMap;

/// A memtable that is changed at random, with or without readers, and what waits until views are gone.
struct Story {
    chance: Chance,
    active: Active,
    sequence: u64,
    /// Oldest first, each with the sequence that was published then.
    waiting: Vec<(u64, Retired)>,
    deletions: usize,
}

impl Story {
    fn new(seed: u64, bytes: usize, shared: bool) -> Self {
        let mut active = Active::new(bytes);
        if shared {
            active.share(0);
        }
        let chance = Chance(seed << 32);
        Self { chance, active, sequence: 0, waiting: Vec::new(), deletions: 0 }
    }

    fn value(&mut self) -> Vec<u8> {
        let most = [9, 60, 900, 20_000][self.chance.below(40).saturating_sub(36) as usize];
        vec![7; self.chance.below(most) as usize]
    }

    /// Changes something; and asserts that this took no more than it brought.
    fn change(&mut self) {
        self.sequence += 1;
        let (key, value) = (self.chance.key(), self.value());
        let end = [&key[..], b"z"].concat();
        let stands: usize = self.active.memtable().get(&key).map(|(_, value)| value.len()).sum();
        // The change, at worst rounded to an eighth; and nodes that are parted for it.
        let mut most = (key.len() + value.len()) * 9 / 8 + (4 << 10);
        let op = match self.chance.below(20) {
            0..10 => Op::Put { key: &key, value: &value },
            10..13 => Op::Delete { key: &key },
            13..19 => {
                // Folded into what is there.
                most += stands * 9 / 8;
                Op::Merge { key: &key, operand: &value }
            }
            _ => {
                self.deletions += 1;
                // Two more pieces, with a sequence of each before it.
                most += 2 * (8 * self.deletions + 2 * end.len() + 112);
                if !self.active.is_alone() {
                    // A set with what those before it hold, of which nobody knows who reads them.
                    most += self.active.tombstone_bytes;
                }
                Op::DeleteRange { start: &key, end: &end }
            }
        };
        let snapshot = self.sequence.saturating_sub(1 + self.chance.below(100)) / 50 * 50;
        let before = self.active.bytes();
        self.active.apply(op, self.sequence, snapshot, &everything(), &Append, &|_| false);
        let grown = self.active.bytes().saturating_sub(before);
        assert!(grown <= most, "{op:?} took {grown} bytes");
    }

    /// A new view, or the end of the oldest one.
    fn change_views(&mut self) {
        if self.active.is_alone() {
            return;
        }
        if self.chance.below(2) == 0 {
            self.waiting.push((self.sequence, self.active.take_retired()));
        } else if !self.waiting.is_empty() {
            // All views are gone that were there before the one of this sequence.
            let (safe, retired) = self.waiting.remove(0);
            self.active.reclaim(retired, safe, 0, &Append);
        }
    }

    /// Every place that somebody knows, with its words and those that may be lost behind it.
    fn places(&self) -> BTreeMap<u32, (u32, u32, bool)> {
        let mut places = BTreeMap::new();
        let tree = &self.active.memtable.tree;
        let arena = &tree.arena;
        let mut take = |place, words, lost, is_node| {
            let twice = places.insert(place, (words, lost, is_node));
            assert!(twice.is_none(), "{place} is known twice");
        };
        let waiting =
            || self.waiting.iter().map(|(_, retired)| retired).chain([&self.active.retired]);
        let (mut nodes, entries) = tree.all();
        nodes.extend(waiting().flat_map(|retired| retired.nodes.iter().copied()));
        nodes.extend(self.active.writer.free_leaves.iter().map(|place| Replaced::Leaf(*place)));
        nodes.extend(self.active.writer.free_inners.iter().map(|place| Replaced::Inner(*place)));
        for node in nodes {
            let (place, words) = node.extent();
            take(place, words, 0, true);
        }
        let mut versions: Vec<u32> = self.active.free.iter().flatten().copied().collect();
        versions.extend(waiting().flat_map(|retired| retired.versions.iter().copied()));
        for entry in entries {
            take(entry, chain::key_words(arena, entry), 0, false);
            let chain = chain::versions(arena, chain::newest(arena, entry));
            versions.extend(chain.map(|(place, ..)| place));
        }
        for version in versions {
            let (words, lost) = chain::words_taken(arena, version);
            take(version, words, lost, false);
        }
        places
    }

    fn holds_what_it_says(&self) {
        let line = 8;
        let bump = &self.active.writer.bump;
        let starts = self.active.memtable.tree.arena.starts();
        // What stands before each place is known, too: the words of a block are used in turn.
        let (mut end, mut may_be_lost, mut used, mut at_ends) = (0, line, 0u64, 0u64);
        for (place, (words, lost, is_node)) in self.places() {
            assert!(place >= end, "{place} is within what ends at {end}");
            if starts.contains(&place) {
                at_ends += u64::from(may_be_lost);
                (end, may_be_lost) = (place, 0);
            }
            let passed_over = place - end;
            let aligned = if is_node { line - 1 } else { 0 };
            assert!(passed_over <= may_be_lost + aligned, "{passed_over} words before {place}");
            used += u64::from(passed_over + words);
            (end, may_be_lost) = (place + words, lost);
        }
        assert!(bump.next() - end <= may_be_lost);
        used += u64::from(bump.next() - end);
        // Where a block ends, what was lost cannot be told from what was never handed out.
        let said = bump.bytes() as u64 / 8;
        assert!((used..=used + at_ends).contains(&said), "says {said} words and holds {used}");
        let old = lock(&self.active.memtable.old_deletions);
        let lists = old.iter().map(OldSets::sets).chain([self.active.memtable.tombstones()]);
        let sets: BTreeMap<_, _> =
            lists.flatten().map(|set| (Arc::as_ptr(set), set.bytes())).collect();
        assert_eq!(self.active.tombstone_bytes, sets.values().sum::<usize>());
        assert_eq!(self.active.bytes(), bump.bytes() + self.active.tombstone_bytes);
    }
}

#[test]
fn a_memtable_holds_what_it_says_and_takes_what_it_is_given() {
    for seed in 0..if cfg!(miri) { 2 } else { 24 } {
        let bytes = [100, 16 << 10, 1 << 20, HUGE_FROM][(seed / 2 % 4) as usize];
        let mut story = Story::new(seed, bytes, seed % 2 == 1);
        for i in 1..=if cfg!(miri) { 60 } else { 2000 } {
            story.change();
            if story.chance.below(20) == 0 {
                story.change_views();
            }
            if i % if cfg!(miri) { 20 } else { 97 } == 0 {
                story.holds_what_it_says();
            }
        }
        story.holds_what_it_says();
    }
}
