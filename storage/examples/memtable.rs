//! The memtable beside what it replaced and what it might have been: CPU time of the thread for each
//! insert, get, missing get and row of a walk, in nanoseconds, and bytes held.
//!
//! ```text
//! cargo run --release -p ringdb-storage --example memtable [-- keys rounds]
//! ```
//!
//! `sorted map` is a B-tree of boxed keys with their values behind them, as the memtable was;
//! `skip list` is an arena skip list with the key's first four bytes in each link.

#![allow(clippy::unwrap_used, reason = "an example that cannot go on has failed")]

use ringdb_storage::Direction;
use ringdb_storage::measure::BareMemtable;
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::hint::black_box;

fn scatter(v: u64) -> u64 {
    let mut z = v.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn key(i: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&scatter(i).to_be_bytes());
    key[8..].copy_from_slice(&scatter(i ^ 1 << 60).to_be_bytes());
    key
}

/// Nanoseconds that this thread was on a processor.
fn cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

trait Table {
    fn put(&mut self, key: &[u8], value: &[u8]);
    fn get(&self, key: &[u8]) -> Option<&[u8]>;
    fn walk(&self) -> usize;
    fn bytes(&self) -> usize;
}

impl Table for BareMemtable {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        Self::put(self, key, value);
    }
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        Self::get(self, key)
    }
    fn walk(&self) -> usize {
        Self::walk(self, Direction::Forward).0
    }
    fn bytes(&self) -> usize {
        Self::bytes(self)
    }
}

/// The sorted map that the memtable was.
#[derive(Default)]
struct Map {
    rows: BTreeMap<Boxed, (u64, Vec<u64>)>,
    bytes: usize,
}

#[derive(PartialEq, Eq)]
struct Boxed {
    data: Box<[u8]>,
    key_len: u32,
}

impl Borrow<[u8]> for Boxed {
    fn borrow(&self) -> &[u8] {
        &self.data[..self.key_len as usize]
    }
}
impl PartialOrd for Boxed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Boxed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let (a, b): (&[u8], &[u8]) = (self.borrow(), other.borrow());
        a.cmp(b)
    }
}

impl Table for Map {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        let data = [key, value].concat().into_boxed_slice();
        self.bytes += data.len() + 112;
        self.rows.insert(Boxed { data, key_len: key.len() as u32 }, (1, Vec::new()));
    }
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.rows.get_key_value(key).map(|(k, _)| &k.data[k.key_len as usize..])
    }
    fn walk(&self) -> usize {
        self.rows.keys().map(|k| usize::from(k.data[0] < 255) | 1).sum()
    }
    fn bytes(&self) -> usize {
        self.bytes
    }
}

const HEIGHT_MAX: usize = 12;

/// A skip list in one vector of words: a node is its links, its lengths, its key and its value.
struct SkipList {
    words: Vec<u64>,
    height: usize,
    chance: u64,
}

impl SkipList {
    fn new() -> Self {
        let mut words = Vec::with_capacity(16 << 20);
        words.resize(HEIGHT_MAX + 1, 0);
        Self { words, height: 1, chance: 0 }
    }
    fn bytes_of(&self, node: u32) -> (&[u64], usize, usize) {
        let lens = self.words[node as usize];
        (&self.words[node as usize + 1..], (lens >> 32) as usize, lens as u32 as usize)
    }
    fn key_is_below(&self, node: u32, key: &[u8]) -> bool {
        let (words, key_len, _) = self.bytes_of(node);
        let mut mine = [0; 64];
        for (i, word) in words[..key_len.div_ceil(8)].iter().enumerate() {
            mine[i * 8..i * 8 + 8].copy_from_slice(&word.to_be_bytes());
        }
        mine[..key_len] < *key
    }
    /// The links before `key` in each level. A link is four bytes of the key and a place; the links
    /// of a node stand before it.
    fn find(&self, key: &[u8], before: &mut [usize; HEIGHT_MAX]) -> u32 {
        let wanted = u64::from(u32::from_be_bytes(key[..4].try_into().unwrap()));
        let mut node = HEIGHT_MAX;
        let mut next = 0;
        for level in (0..self.height).rev() {
            loop {
                let link = self.words[node - 1 - level];
                next = link as u32;
                let prefix = link >> 32;
                let below = next != 0
                    && (prefix < wanted || (prefix == wanted && self.key_is_below(next, key)));
                if !below {
                    break;
                }
                node = next as usize;
            }
            before[level] = node - 1 - level;
        }
        next
    }
}

impl Table for SkipList {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        let mut before = [0; HEIGHT_MAX];
        self.find(key, &mut before);
        self.chance = self.chance.wrapping_add(1);
        let height = 1 + (scatter(self.chance).trailing_zeros() as usize / 2).min(HEIGHT_MAX - 1);
        while self.height < height {
            before[self.height] = HEIGHT_MAX - 1 - self.height;
            self.height += 1;
        }
        let node = self.words.len() + height;
        let prefix = u64::from(u32::from_be_bytes(key[..4].try_into().unwrap()));
        for level in (0..height).rev() {
            let link = self.words[before[level]];
            self.words.push(link);
            self.words[before[level]] = prefix << 32 | node as u64;
        }
        self.words.push((key.len() as u64) << 32 | value.len() as u64);
        for part in [key, value] {
            let words = part.chunks(8).map(|chunk| {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                u64::from_be_bytes(word)
            });
            self.words.extend(words);
        }
    }
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let node = self.find(key, &mut [0; HEIGHT_MAX]);
        // Touches the value, as the others do; its bytes are not handed out by this sketch.
        let (words, key_len, _) = self.bytes_of(node);
        black_box(words[key_len.div_ceil(8)]);
        let head = u64::from_be_bytes(key[..8].try_into().unwrap());
        (node != 0 && words[0] == head && !self.key_is_below(node, key)).then_some(&[])
    }
    fn walk(&self) -> usize {
        let (mut node, mut rows) = (self.words[HEIGHT_MAX - 1] as u32, 0);
        while node != 0 {
            rows += black_box(self.bytes_of(node).0[0]).min(1) as usize;
            node = self.words[node as usize - 1] as u32;
        }
        rows
    }
    fn bytes(&self) -> usize {
        self.words.len() * 8
    }
}

fn measure(name: &str, mut table: impl Table, keys: u64) {
    let value = [7; 100];
    let begin = cpu();
    for i in 0..keys {
        table.put(&key(i), &value);
    }
    let inserted = cpu();
    let mut found = 0;
    for i in 0..keys {
        // Values are looked at: to find them without reading them would be cheaper than it is.
        let value = table.get(&key(scatter(i) % keys));
        found += u64::from(value.is_some_and(|v| v.first().is_none_or(|b| black_box(*b) == 7)));
    }
    let got = cpu();
    for i in 0..keys {
        found += u64::from(table.get(&key(i + keys)).is_some());
    }
    let missed = cpu();
    let rows = table.walk();
    let walked = cpu();
    assert!(found >= keys && found < keys + keys / 1000 && rows as u64 == keys, "{name} {found}");
    let each = |from: u64, to: u64| (to - from) as f64 / keys as f64;
    println!(
        "{name:<22} insert {:6.0}   get {:6.0}   missing {:6.0}   walk {:5.1}   MiB {:5.1}",
        each(begin, inserted),
        each(inserted, got),
        each(got, missed),
        each(missed, walked),
        table.bytes() as f64 / f64::from(1 << 20),
    );
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse().unwrap());
    let keys = arguments.next().unwrap_or(450_000);
    let rounds = arguments.next().unwrap_or(3);
    println!("{keys} random keys of 16 bytes, values of 100; CPU ns for each");
    for _ in 0..rounds {
        measure("memtable", BareMemtable::new(80 << 20), keys);
        let mut shared = BareMemtable::new(80 << 20);
        shared.share();
        measure("memtable, shared", shared, keys);
        measure("sorted map", Map::default(), keys);
        measure("skip list, fat links", SkipList::new(), keys);
    }
}
