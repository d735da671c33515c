//! Key/value blocks: entries whose keys share prefixes, with restart points to search from.
//!
//! `entry = shared varint | non_shared varint | value_len varint | key tail | value`; then the
//! offsets of the restart points and their number.

use crate::codec::{put_varint, take, u32_at, u64_at, varint32};
use crate::key::Tag;

/// Builds one block.
pub(crate) struct BlockBuilder {
    bytes: Vec<u8>,
    restarts: Vec<u32>,
    interval: u32,
    since_restart: u32,
    last_key: Vec<u8>,
}

impl BlockBuilder {
    pub(crate) fn new(interval: u32) -> Self {
        let restarts = vec![0];
        Self { bytes: Vec::new(), restarts, interval, since_restart: 0, last_key: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Size of the finished block.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len() + 4 * self.restarts.len() + 4
    }

    /// Adds an entry. `with_len` is false in an index, whose values delimit themselves.
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8], with_len: bool) {
        let mut shared = 0;
        if self.since_restart < self.interval && !self.bytes.is_empty() {
            shared = key.iter().zip(&self.last_key).take_while(|(a, b)| a == b).count();
            self.since_restart += 1;
        } else {
            if !self.bytes.is_empty() {
                self.restarts.push(u32::try_from(self.bytes.len()).expect("blocks are small"));
            }
            self.since_restart = 1;
        }
        put_varint(&mut self.bytes, shared as u64);
        put_varint(&mut self.bytes, (key.len() - shared) as u64);
        if with_len {
            put_varint(&mut self.bytes, value.len() as u64);
        }
        self.bytes.extend_from_slice(&key[shared..]);
        self.bytes.extend_from_slice(value);
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
    }

    /// The block's bytes; the builder is ready for the next one.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        for restart in &self.restarts {
            self.bytes.extend_from_slice(&restart.to_le_bytes());
        }
        self.bytes.extend_from_slice(&(self.restarts.len() as u32).to_le_bytes());
        self.restarts.clear();
        self.restarts.push(0);
        self.since_restart = 0;
        self.last_key.clear();
        std::mem::take(&mut self.bytes)
    }
}

/// A verified, uncompressed block.
#[derive(Debug)]
pub(crate) struct Block {
    bytes: Vec<u8>,
    /// Where the restart offsets begin.
    entries_end: usize,
    restarts: usize,
}

/// One entry as it stands in a block.
pub(crate) struct RawEntry {
    pub(crate) shared: usize,
    pub(crate) tail: std::ops::Range<usize>,
    pub(crate) value: std::ops::Range<usize>,
}

impl Block {
    pub(crate) fn new(bytes: Vec<u8>) -> Option<Self> {
        let footer = u32_at(&bytes, bytes.len().checked_sub(4)?)?;
        // Bits 28 to 31 announce layouts that this reader does not know.
        let restarts = (footer < 1 << 28).then_some(footer as usize)?;
        let entries_end = bytes.len().checked_sub(4 + restarts.checked_mul(4)?)?;
        (restarts > 0).then_some(Self { bytes, entries_end, restarts })
    }

    /// A block without entries.
    pub(crate) fn empty() -> Self {
        Self { bytes: vec![0, 0, 0, 0, 1, 0, 0, 0], entries_end: 0, restarts: 1 }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The entry at `offset` and where the next one stands; none at the end or when malformed.
    pub(crate) fn entry(&self, offset: usize) -> Option<(RawEntry, usize)> {
        let entries = self.bytes.get(..self.entries_end)?;
        let mut rest = entries.get(offset..)?;
        let shared = varint32(&mut rest)? as usize;
        let tail_len = varint32(&mut rest)? as usize;
        let value_len = varint32(&mut rest)? as usize;
        let tail_at = self.entries_end - rest.len();
        take(&mut rest, tail_len)?;
        let value_at = self.entries_end - rest.len();
        take(&mut rest, value_len)?;
        let end = self.entries_end - rest.len();
        Some((RawEntry { shared, tail: tail_at..value_at, value: value_at..end }, end))
    }

    /// True when `offset` is where the entries end, as it must be when no entry is there.
    pub(crate) fn ends_at(&self, offset: usize) -> bool {
        offset == self.entries_end
    }

    /// A restart point at or before the first entry whose user key is at least `key`.
    pub(crate) fn seek(&self, key: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.restarts);
        // The last restart whose key is below `key`.
        while low + 1 < high {
            let middle = usize::midpoint(low, high);
            if self.restart_key(middle)? < key {
                low = middle;
            } else {
                high = middle;
            }
        }
        self.restart(low)
    }

    fn restart(&self, i: usize) -> Option<usize> {
        Some(u32_at(&self.bytes, self.entries_end + 4 * i)? as usize)
    }

    fn restart_key(&self, i: usize) -> Option<&[u8]> {
        let (entry, _) = self.entry(self.restart(i)?)?;
        let internal = self.bytes.get(entry.tail)?;
        internal.get(..internal.len().checked_sub(8)?)
    }
}

/// All entries of a block, laid out to be walked both ways.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    keys: Vec<u8>,
    entries: Vec<DecodedEntry>,
}

#[derive(Debug, Clone, Copy)]
struct DecodedEntry {
    key: (u32, u32),
    tag: Tag,
    value: (u32, u32),
}

impl Decoded {
    /// Decodes `block`; false when it is malformed.
    pub(crate) fn fill(&mut self, block: &Block) -> bool {
        self.keys.clear();
        self.entries.clear();
        let mut offset = 0;
        let mut last = 0..0;
        while let Some((entry, next)) = block.entry(offset) {
            let at = self.keys.len();
            if entry.shared > last.len() {
                return false;
            }
            self.keys.extend_from_within(last.start..last.start + entry.shared);
            self.keys.extend_from_slice(&block.bytes[entry.tail]);
            last = at..self.keys.len();
            let Some(key_end) = self.keys.len().checked_sub(8).filter(|end| *end >= at) else {
                return false;
            };
            let Some(tag) = u64_at(&self.keys, key_end) else { return false };
            self.entries.push(DecodedEntry {
                key: (at as u32, key_end as u32),
                tag: Tag(tag),
                value: (entry.value.start as u32, entry.value.end as u32),
            });
            offset = next;
        }
        block.ends_at(offset)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn key(&self, i: usize) -> &[u8] {
        let (start, end) = self.entries[i].key;
        &self.keys[start as usize..end as usize]
    }

    pub(crate) fn tag(&self, i: usize) -> Tag {
        self.entries[i].tag
    }

    /// Where the value stands in the block.
    pub(crate) fn value(&self, i: usize) -> std::ops::Range<usize> {
        let (start, end) = self.entries[i].value;
        start as usize..end as usize
    }

    /// Number of entries with a user key below `key`.
    pub(crate) fn below(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.entries.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.key(middle) < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}
