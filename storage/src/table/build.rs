//! Building key/value blocks: keys share prefixes, with restart points to search from.
//!
//! `entry = shared varint | non_shared varint | value_len varint | key tail | value`; then the
//! offsets of the restart points and their number. A builder keeps its memory from block to block.

use crate::codec::put_varint;
use crate::key::Tag;

/// Builds one block after the other.
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

    /// Adds a change: its key in the block is the user key and the tag behind it.
    pub(crate) fn add_change(&mut self, key: &[u8], tag: Tag, value: &[u8]) {
        let tag = tag.0.to_le_bytes();
        let shared = if self.restarts_here() {
            0
        } else {
            let mut shared = common(key, &self.last_key);
            if shared == key.len() {
                shared += common(&tag, &self.last_key[shared..]);
            }
            shared
        };
        self.head(shared, key.len() + tag.len(), Some(value.len()));
        let tail = key.get(shared..).unwrap_or_default();
        self.bytes.extend_from_slice(tail);
        self.bytes.extend_from_slice(&tag[shared.saturating_sub(key.len())..]);
        self.bytes.extend_from_slice(value);
        // What is shared stands there already.
        self.last_key.truncate(shared.min(key.len()));
        self.last_key.extend_from_slice(tail);
        self.last_key.extend_from_slice(&tag);
    }

    /// Adds an entry. `with_len` is false in an index, whose values delimit themselves.
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8], with_len: bool) {
        let shared = if self.restarts_here() { 0 } else { common(key, &self.last_key) };
        self.head(shared, key.len(), with_len.then_some(value.len()));
        self.bytes.extend_from_slice(&key[shared..]);
        self.bytes.extend_from_slice(value);
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(&key[shared..]);
    }

    /// Whether the next entry begins a restart interval; notes it if so.
    fn restarts_here(&mut self) -> bool {
        if self.since_restart < self.interval && !self.bytes.is_empty() {
            self.since_restart += 1;
            return false;
        }
        if !self.bytes.is_empty() {
            self.restarts.push(u32::try_from(self.bytes.len()).expect("blocks are small"));
        }
        self.since_restart = 1;
        true
    }

    fn head(&mut self, shared: usize, key_len: usize, value_len: Option<usize>) {
        let tail_len = key_len - shared;
        if let Some(value_len) = value_len
            && (shared | tail_len | value_len) < 0x80
        {
            self.bytes.extend_from_slice(&[shared as u8, tail_len as u8, value_len as u8]);
            return;
        }
        put_varint(&mut self.bytes, shared as u64);
        put_varint(&mut self.bytes, tail_len as u64);
        if let Some(value_len) = value_len {
            put_varint(&mut self.bytes, value_len as u64);
        }
    }

    /// The block's bytes; [`BlockBuilder::clear`] makes the builder ready for the next one.
    pub(crate) fn finish(&mut self) -> &[u8] {
        for restart in &self.restarts {
            self.bytes.extend_from_slice(&restart.to_le_bytes());
        }
        self.bytes.extend_from_slice(&(self.restarts.len() as u32).to_le_bytes());
        &self.bytes
    }

    /// Forgets the entries, keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.restarts.clear();
        self.restarts.push(0);
        self.since_restart = 0;
        self.last_key.clear();
    }
}

/// Length of the prefix that `a` and `b` have in common.
pub(crate) fn common(a: &[u8], b: &[u8]) -> usize {
    let mut shared = 0;
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("a chunk of 8"));
        let differing = word(a) ^ word(b);
        if differing != 0 {
            return shared + differing.trailing_zeros() as usize / 8;
        }
        shared += 8;
    }
    shared + a[shared..].iter().zip(&b[shared..]).take_while(|(a, b)| a == b).count()
}
