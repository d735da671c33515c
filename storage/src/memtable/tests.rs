//! The memtable against a sorted map of versions; readers on other threads; what it holds in memory.

use super::*;
use crate::fold::NoMerge;
use crate::merge::Direction;
use std::collections::BTreeMap;

/// Concatenates.
pub(super) struct Append;

impl Merge for Append {
    fn full(&self, _: &[u8], base: Option<&[u8]>, operands: &[&[u8]], out: &mut Vec<u8>) -> Folded {
        out.extend_from_slice(base.unwrap_or_default());
        operands.iter().for_each(|operand| out.extend_from_slice(operand));
        Folded::Value
    }
    fn partial(&self, _: &[u8], operands: &[&[u8]], out: &mut Vec<u8>) -> bool {
        operands.iter().for_each(|operand| out.extend_from_slice(operand));
        true
    }
}

pub(super) fn everything() -> KeyRange {
    KeyRange { lower: Vec::new(), upper: None }
}

pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        crate::codec::scatter(self.0) % n
    }
    /// Keys of many lengths, with common beginnings longer than a node keeps of them.
    pub(super) fn key(&mut self) -> Vec<u8> {
        let common = ["", "a", "abcdefghijkl", "abcdefghijklmnopqrst", "\0\0\0\0\0\0\0\0\0"];
        let mut key = common[self.below(5) as usize].as_bytes().to_vec();
        for _ in 0..self.below(4) {
            key.push([0, 1, b'a', b'z', 255][self.below(5) as usize]);
        }
        key
    }
}

fn put(active: &mut Active, key: &[u8], value: &[u8], sequence: u64, snapshot: u64) {
    let op = Op::Put { key, value };
    active.apply(op, sequence, snapshot, &everything(), &NoMerge, &|_| false);
}

fn rows(memtable: &Memtable, start: &[u8], end: Option<&[u8]>, way: Direction) -> Vec<Vec<u8>> {
    let mut cursor = Cursor::new(memtable, start, end, way);
    let mut rows = Vec::new();
    while let Some(key) = cursor.key() {
        rows.push(key.to_vec());
        cursor.advance();
    }
    rows
}

#[test]
fn what_is_asked_for_ahead_is_there_whatever_the_shape_of_the_tree() {
    let mut chance = Chance(77);
    let mut active = Active::new(1 << 16);
    for sequence in 1..if cfg!(miri) { 60 } else { 3000 } {
        let keys: Vec<Vec<u8>> = (0..chance.below(20)).map(|_| chance.key()).collect();
        active.memtable().fetch(&keys);
        put(&mut active, &chance.key(), b"value", sequence, 0);
        active.memtable().fetch(&keys[keys.len() / 2..]);
    }
}

#[test]
fn it_is_a_sorted_map_for_keys_of_every_kind() {
    let keys = if cfg!(miri) { 60 } else { 4000 };
    for seed in 0..if cfg!(miri) { 1 } else { 10 } {
        let mut chance = Chance(seed * 1_000_000);
        // The first block is soon full.
        let mut active = Active::new(100);
        let mut model = BTreeMap::new();
        for sequence in 1..=keys {
            let mut key = chance.key();
            key.extend_from_slice(&chance.below(keys).to_be_bytes()[5..]);
            put(&mut active, &key, format!("{sequence}").as_bytes(), sequence, 0);
            model.insert(key, format!("{sequence}").into_bytes());
        }
        let memtable = active.memtable();
        let all: Vec<Vec<u8>> = model.keys().cloned().collect();
        assert_eq!(rows(memtable, b"", None, Direction::Forward), all);
        for (key, value) in &model {
            let versions: Vec<_> = memtable.get(key).map(|(_, value)| value.to_vec()).collect();
            assert_eq!(versions, std::slice::from_ref(value));
            assert!(memtable.get(&[key, &b"\0"[..]].concat()).next().is_none());
        }
        for _ in 0..if cfg!(miri) { 5 } else { 200 } {
            let (a, b) = (chance.key(), chance.key());
            let end = (chance.below(4) > 0).then_some(b.as_slice());
            let stop = end.map(|end| end.max(&a).to_vec());
            let inside = |key: &&Vec<u8>| **key >= a && stop.as_ref().is_none_or(|s| **key < *s);
            let mut want: Vec<Vec<u8>> = all.iter().filter(inside).cloned().collect();
            assert_eq!(rows(memtable, &a, end, Direction::Forward), want);
            want.reverse();
            assert_eq!(rows(memtable, &a, end, Direction::Backward), want);
        }
    }
}

#[test]
fn a_hot_key_takes_no_more_memory_however_often_it_changes() {
    let mut active = Active::new(1 << 20);
    for sequence in 1..=100u64 {
        put(&mut active, b"other", &[7; 50], sequence, 0);
        put(&mut active, b"hot", &[1; 50][..sequence as usize % 50], sequence, 0);
    }
    let before = active.bytes();
    for sequence in 101..if cfg!(miri) { 150 } else { 5000u64 } {
        put(&mut active, b"hot", &[1; 50][..sequence as usize % 50], sequence, 0);
    }
    assert!(active.bytes() <= before + 64, "{before} became {}", active.bytes());
    let grown = |merge: &dyn Merge| {
        let mut active = Active::new(1 << 20);
        let base = active.bytes();
        let operands = if cfg!(miri) { 60 } else { 2000u64 };
        for sequence in 1..=operands {
            let op = Op::Merge { key: b"set", operand: b"x" };
            active.apply(op, sequence, 0, &everything(), merge, &|_| true);
        }
        let bytes: usize = active.memtable().get(b"set").map(|(_, value)| value.len()).sum();
        assert_eq!(bytes as u64, operands);
        active.bytes() - base
    };
    // Two of each of the sizes on the way, eight for each doubling; for other keys to use again.
    assert!(grown(&Append) < 52_000, "{}", grown(&Append));
}

#[test]
fn what_a_snapshot_sees_stays_and_what_lies_between_goes() {
    let mut active = Active::new(1 << 16);
    for sequence in 1..=9u64 {
        let snapshot = [0, 0, 0, 3, 3, 3, 3, 7, 7][sequence as usize - 1];
        put(&mut active, b"k", format!("{sequence}").as_bytes(), sequence, snapshot);
    }
    let versions: Vec<u64> = active.memtable().get(b"k").map(|(tag, _)| tag.sequence()).collect();
    assert_eq!(versions, [9, 7, 3]);
}

#[test]
fn with_readers_a_version_stays_until_all_see_a_newer_one() {
    let mut active = Active::new(1 << 16);
    put(&mut active, b"k", b"1", 1, 0);
    active.share(1);
    for sequence in 2..=5u64 {
        put(&mut active, b"k", b"x", sequence, 0);
    }
    let sequences = |active: &Active| -> Vec<u64> {
        active.memtable().get(b"k").map(|(tag, _)| tag.sequence()).collect()
    };
    assert_eq!(sequences(&active), [5, 4, 3, 2, 1]);
    let retired = active.take_retired();
    put(&mut active, b"k", b"x", 6, 0);
    active.reclaim(retired, 3, 0, &NoMerge);
    assert_eq!(sequences(&active), [6, 5, 4, 3]);
    let retired = active.take_retired();
    let before = active.bytes();
    active.reclaim(retired, 6, 0, &NoMerge);
    assert_eq!(sequences(&active), [6]);
    // Out of reach, but not in use again before those who may hold them are gone.
    put(&mut active, b"k", b"x", 7, 0);
    assert!(active.bytes() > before - 1);
    let retired = active.take_retired();
    active.reclaim(retired, 7, 0, &NoMerge);
    let before = active.bytes();
    for sequence in 8..12 {
        put(&mut active, b"k", b"x", sequence, 0);
    }
    assert_eq!(active.bytes(), before, "places were used again");
}

#[test]
fn with_readers_operands_are_folded_once_everybody_sees_all_of_them() {
    let mut active = Active::new(1 << 16);
    active.share(0);
    for sequence in 1..=100u64 {
        let op = Op::Merge { key: b"k", operand: &[sequence as u8] };
        active.apply(op, sequence, 0, &everything(), &Append, &|_| false);
    }
    assert_eq!(active.memtable().get(b"k").count(), 100);
    let retired = active.take_retired();
    active.reclaim(retired, 60, 0, &Append);
    let chain: Vec<_> = active.memtable().get(b"k").map(|(t, v)| (t.sequence(), v.len())).collect();
    assert_eq!(chain.len(), 41);
    assert_eq!(chain[40], (60, 60), "the oldest sixty are one");
    assert_eq!(chain[39], (61, 1));
}

/// One writer adds keys in a scattered order and changes them; readers see every key up to their
/// bound, in order, with the newest value that the bound allows.
#[test]
fn readers_see_all_that_was_published_and_nothing_else_while_it_is_written() {
    let count: u64 = if cfg!(miri) { 40 } else { 20_000 };
    let mut active = Active::new(1 << 12);
    active.share(0);
    let memtable = active.memtable().clone();
    let published = AtomicU64::new(0);
    let done = std::sync::atomic::AtomicBool::new(false);
    // The key of a sequence; every fourth change repeats the key before.
    let number = |sequence: u64| (sequence - sequence / 4) * 7919 % 1_000_003;
    let key = |number: u64| format!("key{number:09}").into_bytes();
    std::thread::scope(|scope| {
        for seed in 0..2u64 {
            let (memtable, published, done) = (&memtable, &published, &done);
            scope.spawn(move || {
                let mut chance = Chance(seed << 40);
                while !done.load(Ordering::Relaxed) {
                    let bound = published.load(Ordering::Acquire);
                    if bound == 0 {
                        std::thread::yield_now();
                        continue;
                    }
                    for _ in 0..20 {
                        let sequence = 1 + chance.below(bound);
                        let key = key(number(sequence));
                        let mut versions =
                            memtable.get(&key).filter(|(tag, _)| tag.sequence() <= bound);
                        let (tag, value) = versions.next().expect("published");
                        assert!(tag.sequence() >= sequence);
                        assert_eq!(value, tag.sequence().to_be_bytes());
                    }
                    let way = [Direction::Forward, Direction::Backward][(bound % 2) as usize];
                    let mut rows = rows(memtable, b"", None, way);
                    if way == Direction::Backward {
                        rows.reverse();
                    }
                    assert!(rows.is_sorted_by(|a, b| a < b));
                    let mut want: Vec<_> = (1..=bound).map(|s| key(number(s))).collect();
                    want.sort();
                    want.dedup();
                    let mut rows = rows.iter();
                    assert!(want.iter().all(|key| rows.any(|row| row == key)), "at {bound}");
                }
            });
        }
        for sequence in 1..=count {
            let (key, value) = (key(number(sequence)), sequence.to_be_bytes());
            put(&mut active, &key, &value, sequence, 0);
            published.store(sequence, Ordering::Release);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn skipping_what_a_deletion_hides_passes_over_all_of_it_and_nothing_else() {
    for seed in 0..if cfg!(miri) { 3 } else { 300 } {
        let mut chance = Chance(seed << 32);
        let mut active = Active::new(1 << 12);
        let (mut newest, mut last) = (BTreeMap::new(), 0);
        for sequence in 1..=1 + chance.below(150) {
            let key = chance.key();
            put(&mut active, &key, b"value", sequence, 0);
            newest.insert(key, sequence);
            last = sequence;
        }
        let (start, end, bound) = (chance.key(), chance.key(), chance.key());
        let end = (chance.below(3) > 0).then_some(&end[..]);
        let bound = (chance.below(5) > 0).then_some(&bound[..]);
        let cover = [last + 1, chance.below(last + 1)][chance.below(2) as usize];
        for way in [Direction::Forward, Direction::Backward] {
            let all = rows(active.memtable(), &start, end, way);
            let mut cursor = Cursor::new(active.memtable(), &start, end, way);
            let steps = chance.below(all.len() as u64 + 1) as usize;
            (0..steps).for_each(|_| cursor.advance());
            cursor.skip_covered(bound, cover);
            let hidden = |key: &&Vec<u8>| {
                let inside = match way {
                    Direction::Forward => bound.is_none_or(|bound| key.as_slice() < bound),
                    Direction::Backward => bound.is_none_or(|bound| key.as_slice() >= bound),
                };
                inside && newest[*key] < cover
            };
            for want in all[steps..].iter().skip_while(hidden) {
                assert_eq!(cursor.key(), Some(&want[..]), "seed {seed} {way:?}");
                cursor.advance();
            }
            assert_eq!(cursor.key(), None, "seed {seed} {way:?}");
        }
    }
}
