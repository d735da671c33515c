//! A block as the cache keeps it: decoded once, then searched and walked without decoding.
//!
//! ```text
//! words  | rows + 1 × u64: first bytes of the key behind the common prefix, end of key, end of
//!        | value (32, 16 and 16 bits); the first is zero
//! ends   | only where 16 bits do not do: rows + 1 × (end of key, end of value), 32 bits each
//! prefix | what all keys of the block have in common
//! keys   | rows × (tag, the rest of the key)
//! values |
//! ```
//! A search counts words; what it then compares, the tag and the value stand in one more place
//! each. It costs about as many bytes as the block in its file: the prefix pays for the words.

use super::build::common;
use super::footer::Payload;
use super::raw::{COPIED, KeyBuffer, RawBlock, copy_short, same_user_key};
use super::spare;
use crate::blob::TAG_FIRST;
use crate::codec::u64_at;
use crate::key::Tag;
use crate::limits::BLOCK_BYTES_MAX;
use crate::prefetch::prefetch;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};
use triomphe::ThinArc;

/// A verified, decoded block: a handle that is cheap to clone. Head and bytes are one allocation,
/// so that a search that has the handle waits for memory once and not twice.
#[derive(Debug, Clone)]
pub(crate) struct Block(SharedBlock);

/// The block behind a handle, as the cache keeps it.
pub(crate) type SharedBlock = ThinArc<Head, u8>;

/// Where the parts stand.
#[derive(Debug, Default)]
pub(crate) struct Head {
    rows: u32,
    /// Where the wide ends stand; 0 when the words hold them.
    ends_at: u32,
    prefix_at: u32,
    keys_at: u32,
    values_at: u32,
    /// No key has two versions in this block.
    unique: bool,
    /// Every value is what it looks like: none is escaped or stands elsewhere.
    plain: bool,
    /// Not decoded: the bytes up to `values_at` are those of the file; entries take the first `rows`.
    raw: bool,
    /// How often it was used of late.
    used: AtomicU8,
}

/// Uses that the cache counts at most.
const USED_MAX: u8 = 3;
/// Words that are counted rather than halved.
const COUNTED: usize = 64;
const WORD: usize = 8;
const TAG: usize = 8;

/// Where the parts of a raw entry stand, so that it is parsed once.
struct Parsed {
    shared: u32,
    tail_at: u32,
    value_at: u32,
    end: u32,
}

/// Memory for decoding, to be used again.
#[derive(Default)]
pub(crate) struct DecodeScratch {
    parsed: Vec<Parsed>,
    key: KeyBuffer,
    /// The decoded block; keeps its size.
    out: Vec<u8>,
}

impl DecodeScratch {
    /// Gives back what is more than `bytes_max`.
    pub(crate) fn shrink(&mut self, bytes_max: usize) {
        if self.parsed.capacity() * size_of::<Parsed>() > bytes_max {
            self.parsed = Vec::new();
        }
        if self.out.len() > bytes_max {
            self.out = Vec::new();
        }
    }
}

impl Block {
    /// What a block costs beside its bytes: its head, the allocation, its place in the cache.
    pub(crate) const OVERHEAD_BYTES: usize = 80;

    /// Decodes a block of a file; none when it is malformed.
    pub(crate) fn decode(raw: &[u8], scratch: &mut DecodeScratch) -> Option<Self> {
        let raw = RawBlock::new(raw)?;
        let DecodeScratch { parsed, key, out } = scratch;
        parsed.clear();
        key.len = 0;
        let (mut at, mut prefix, mut unique) = (0, usize::MAX, true);
        let (mut keys_len, mut values_len) = (0usize, 0usize);
        let mut first: &[u8] = &[];
        while let Some((entry, next)) = raw.entry(at) {
            let tail = &raw.entries[entry.tail.clone()];
            let len = entry.shared + tail.len();
            let user_len = len.checked_sub(8)?;
            if parsed.is_empty() {
                first = tail;
                prefix = user_len;
            } else {
                // A restart shares more than it says.
                let shared = if entry.shared == 0 { common(first, tail) } else { entry.shared };
                prefix = prefix.min(shared).min(user_len);
                unique &= !same_user_key(key.get(), entry.shared, tail);
            }
            key.extend(entry.shared, raw.entries, entry.tail.clone())?;
            keys_len += user_len;
            values_len += entry.value.len();
            parsed.push(Parsed {
                shared: entry.shared as u32,
                tail_at: entry.tail.start as u32,
                value_at: entry.value.start as u32,
                end: next as u32,
            });
            // Keys that share prefixes unfold: bounded here, before memory is taken for them.
            if keys_len.saturating_sub(parsed.len() * prefix) > BLOCK_BYTES_MAX {
                return None;
            }
            at = next;
        }
        if !raw.ends_at(at) {
            return None;
        }
        let rows = parsed.len();
        let prefix = if rows == 0 { 0 } else { prefix };
        let keys_len = keys_len - rows * prefix;
        if keys_len > BLOCK_BYTES_MAX {
            return None;
        }
        let keys_len = keys_len + TAG * rows;
        let narrow = keys_len <= usize::from(u16::MAX) && values_len <= usize::from(u16::MAX);
        let words_len = WORD * (rows + 1);
        let prefix_at = if narrow { words_len } else { 2 * words_len };
        let keys_at = prefix_at + prefix;
        let values_at = keys_at + keys_len;
        let total = u32::try_from(values_at + values_len).ok()?;

        // Copies of one length may go beyond: what stands there is written later.
        let room = total as usize + COPIED;
        if out.len() < room {
            out.resize(room, 0);
        }
        let (words, rest) = out[..room].split_at_mut(words_len);
        let (ends, rest) = rest.split_at_mut(prefix_at - words_len);
        let (mut key_end, mut value_end, mut plain) = (0, 0, true);
        key.len = 0;
        words[..WORD].fill(0);
        ends.iter_mut().take(WORD).for_each(|byte| *byte = 0);
        for (i, (entry, word)) in
            parsed.iter().zip(words[WORD..].chunks_exact_mut(WORD)).enumerate()
        {
            key.extend(
                entry.shared as usize,
                raw.entries,
                entry.tail_at as usize..entry.value_at as usize,
            )?;
            let user_len = key.len.checked_sub(TAG)?;
            let (suffix_len, place) = (user_len.checked_sub(prefix)?, prefix + key_end);
            if key_end + TAG + suffix_len > keys_len {
                return None;
            }
            rest[place..place + TAG].copy_from_slice(&key.bytes[user_len..user_len + TAG]);
            copy_short(&mut rest[place + TAG..], &key.bytes[prefix..], suffix_len)?;
            key_end += TAG + suffix_len;
            value_end += (entry.end - entry.value_at) as usize;
            let mut packed = u64::from(head_of(&key.bytes[prefix..user_len])) << 32;
            if narrow {
                packed |= (key_end << 16 | value_end) as u64;
            } else {
                let both = (key_end as u64) << 32 | value_end as u64;
                ends.get_mut(WORD * (i + 1)..WORD * (i + 2))?.copy_from_slice(&both.to_le_bytes());
            }
            word.copy_from_slice(&packed.to_le_bytes());
        }
        if rows > 0 {
            rest[..prefix].copy_from_slice(key.get().get(..prefix)?);
        }
        let mut values = rest.get_mut(prefix + keys_len..)?;
        for entry in parsed.iter() {
            let value = raw.entries.get(entry.value_at as usize..entry.end as usize)?;
            let place;
            (place, values) = values.split_at_mut_checked(value.len())?;
            place.copy_from_slice(value);
            plain &= value.first() != Some(&TAG_FIRST);
        }
        let head = Head {
            rows: rows as u32,
            ends_at: if narrow { 0 } else { words_len as u32 },
            prefix_at: prefix_at as u32,
            keys_at: keys_at as u32,
            values_at: values_at as u32,
            unique,
            plain,
            raw: false,
            used: AtomicU8::new(0),
        };
        Some(Self(ThinArc::from_header_and_slice(head, &out[..total as usize])))
    }

    /// A block as it stands in the file, for somebody who walks it once; none when it is malformed.
    /// Of all that a block can be asked only [`Block::raw`], [`Block::content`] and [`Block::bytes`]
    /// make sense then.
    pub(crate) fn of_payload(payload: Payload<'_>) -> Option<Self> {
        let len = payload.len();
        let block = spare::fill(len, |room| {
            payload.unpack(room)?;
            let entries = RawBlock::new(room)?.entries.len();
            Some(Head {
                rows: u32::try_from(entries).ok()?,
                values_at: u32::try_from(len).ok()?,
                raw: true,
                ..Head::default()
            })
        });
        block.map(Self)
    }

    /// What the file holds, if it is not decoded.
    pub(crate) fn content(&self) -> Option<&[u8]> {
        self.at().raw.then(|| &self.bytes()[..self.at().values_at as usize])
    }

    /// Its memory may be used again, if nobody else has it.
    pub(crate) fn spare(self) {
        if self.at().raw {
            spare::keep(self.0);
        }
    }

    /// The entries, if it is not decoded.
    pub(crate) fn raw(&self) -> Option<RawBlock<'_>> {
        self.at().raw.then(|| RawBlock::of_entries(&self.bytes()[..self.at().rows as usize]))
    }

    /// A block without rows.
    pub(crate) fn empty() -> Self {
        let at = WORD as u32;
        let head = Head { prefix_at: at, keys_at: at, values_at: at, ..Head::default() };
        Self(ThinArc::from_header_and_slice(head, &[0; WORD]))
    }

    pub(crate) fn of_shared(shared: SharedBlock) -> Self {
        Self(shared)
    }

    pub(crate) fn shared(&self) -> &SharedBlock {
        &self.0
    }

    fn at(&self) -> &Head {
        &self.0.header.header
    }

    /// A block with one row, to be put somewhere.
    #[cfg(test)]
    pub(crate) fn of_one(value: &[u8]) -> Self {
        let mut builder = super::build::BlockBuilder::new(16);
        builder.add_change(b"key", Tag(1), value);
        Self::decode(builder.finish(), &mut DecodeScratch::default()).expect("a sound block")
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0.slice
    }

    /// Touches what a search looks at first, so that several blocks come from memory at once.
    pub(crate) fn warm(&self) -> u8 {
        let words = self.bytes().iter().step_by(64).take(8);
        words.fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    /// Asks for what a search looks at first, without a look at any of it.
    #[inline]
    pub(crate) fn prefetch(shared: &SharedBlock) {
        let start = shared.as_ptr().cast::<u8>();
        (0..6).for_each(|line| prefetch(start.wrapping_add(64 * line)));
    }

    /// Asks for the key and the value of row `i`.
    pub(crate) fn prefetch_row(&self, i: usize) {
        if i < self.rows() {
            let key_at = self.at().keys_at as usize + self.ends(i).0;
            let bytes = self.bytes();
            [key_at, self.value(i).start]
                .iter()
                .filter_map(|at| bytes.get(*at))
                .for_each(|byte| prefetch(byte));
        }
    }

    /// Number of changes.
    pub(crate) fn rows(&self) -> usize {
        self.at().rows as usize
    }

    /// What it costs to keep it, in bytes.
    pub(crate) fn cost(&self) -> usize {
        self.bytes().len() + Self::OVERHEAD_BYTES
    }

    /// Notes that it was used; the cache keeps used blocks longer.
    pub(crate) fn touch(&self) {
        let used = self.at().used.load(Ordering::Relaxed);
        if used < USED_MAX {
            self.at().used.store(used + 1, Ordering::Relaxed);
        }
    }

    /// Takes one use away; false when there was none left.
    pub(crate) fn cool(&self) -> bool {
        let used = self.at().used.load(Ordering::Relaxed);
        self.at().used.store(used.saturating_sub(1), Ordering::Relaxed);
        used > 0
    }

    /// What all user keys begin with.
    pub(crate) fn prefix(&self) -> &[u8] {
        &self.bytes()[self.at().prefix_at as usize..self.at().keys_at as usize]
    }

    /// The user key of row `i` behind the prefix.
    #[inline]
    pub(crate) fn suffix(&self, i: usize) -> &[u8] {
        let at = self.at().keys_at as usize;
        &self.bytes()[at + self.ends(i).0 + TAG..at + self.ends(i + 1).0]
    }

    /// The user key of row `i`.
    pub(crate) fn key(&self, i: usize) -> Vec<u8> {
        [self.prefix(), self.suffix(i)].concat()
    }

    /// Copies the user key of row `i` behind the prefix to `at` in `key`, which is made large enough
    /// for it and more; where it ends.
    #[inline]
    pub(crate) fn copy_suffix(&self, i: usize, key: &mut Vec<u8>, at: usize) -> usize {
        let from = self.at().keys_at as usize + self.ends(i).0 + TAG;
        let to = self.at().keys_at as usize + self.ends(i + 1).0;
        let len = to - from;
        if key.len() < at + len.max(COPIED) {
            key.resize(at + len.max(COPIED), 0);
        }
        // A copy of one length costs less than one of the right length.
        match self.bytes()[from..].first_chunk::<COPIED>() {
            Some(some) if len <= COPIED => key[at..at + COPIED].copy_from_slice(some),
            _ => key[at..at + len].copy_from_slice(&self.bytes()[from..to]),
        }
        at + len
    }

    /// True when row after row is a key of its own.
    pub(crate) fn is_unique(&self) -> bool {
        self.at().unique
    }

    /// True when no value is escaped or stands elsewhere.
    pub(crate) fn is_plain(&self) -> bool {
        self.at().plain
    }

    #[inline]
    pub(crate) fn tag(&self, i: usize) -> Tag {
        Tag(u64_at(self.bytes(), self.at().keys_at as usize + self.ends(i).0).unwrap_or(0))
    }

    /// Where the value of row `i` stands in [`Block::bytes`].
    #[inline]
    pub(crate) fn value(&self, i: usize) -> Range<usize> {
        let at = self.at().values_at as usize;
        at + self.ends(i).1..at + self.ends(i + 1).1
    }

    /// The first row after `i` whose user key is another.
    pub(crate) fn next_key(&self, i: usize) -> usize {
        let mut next = i + 1;
        if !self.at().unique {
            while next < self.rows() && self.suffix(next) == self.suffix(i) {
                next += 1;
            }
        }
        next
    }

    /// The first row with the user key of row `i`.
    pub(crate) fn first_of_key(&self, i: usize) -> usize {
        let mut first = i;
        if !self.at().unique {
            while first > 0 && self.suffix(first - 1) == self.suffix(i) {
                first -= 1;
            }
        }
        first
    }

    /// Number of rows with a user key below `key`.
    pub(crate) fn below(&self, key: &[u8]) -> usize {
        self.seek(key).0
    }

    /// The rows with the user key `key`, newest first.
    pub(crate) fn find(&self, key: &[u8]) -> Range<usize> {
        let (from, here) = self.seek(key);
        from..if here { self.next_key(from) } else { from }
    }

    /// Number of rows with a user key below `key`, and whether the next row has that key.
    fn seek(&self, key: &[u8]) -> (usize, bool) {
        let prefix = self.prefix();
        let shared = key.len().min(prefix.len());
        match key[..shared].cmp(prefix) {
            std::cmp::Ordering::Less => (0, false),
            std::cmp::Ordering::Greater => (self.rows(), false),
            std::cmp::Ordering::Equal => self.seek_suffix(&key[shared..]),
        }
    }

    fn seek_suffix(&self, suffix: &[u8]) -> (usize, bool) {
        let words = &self.bytes()[WORD..WORD * (self.rows() + 1)];
        // Words from `first` to before `beyond` have the wanted head.
        let head = u64::from(head_of(suffix));
        let (first, beyond) = (head << 32, head << 32 | 0xffff_ffff);
        // Halve while that saves more than it costs, then count without branches.
        let (mut from, mut to) = (0, self.rows());
        while to - from > COUNTED {
            let middle = usize::midpoint(from, to);
            if u64_at(words, WORD * middle).unwrap_or(0) < first {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        let (mut less, mut upto) = (0, 0);
        for word in words[WORD * from..WORD * to].chunks_exact(WORD) {
            let word = u64::from_le_bytes(word.try_into().expect("a chunk of 8"));
            less += u64::from(word < first);
            upto += u64::from(word <= beyond);
        }
        let mut low = from + less as usize;
        let mut high = from + upto as usize;
        // Equal heads may go on beyond where halving stopped.
        while high >= to && high < self.rows() && self.head(high) == head {
            high += 1;
        }
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.suffix(middle).cmp(suffix) {
                std::cmp::Ordering::Less => low = middle + 1,
                // Keys that come twice stand next to each other: the first of them is meant.
                std::cmp::Ordering::Equal if self.at().unique => return (middle, true),
                std::cmp::Ordering::Equal => return (self.first_of_key(middle), true),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        (low, false)
    }

    fn head(&self, i: usize) -> u64 {
        u64_at(self.bytes(), WORD * (i + 1)).unwrap_or(0) >> 32
    }

    /// Where the key and the value before row `i` end, from where all keys and values begin.
    #[inline]
    fn ends(&self, i: usize) -> (usize, usize) {
        let both = u64_at(self.bytes(), self.at().ends_at as usize + WORD * i).unwrap_or(0);
        if self.at().ends_at == 0 {
            ((both >> 16 & 0xffff) as usize, (both & 0xffff) as usize)
        } else {
            ((both >> 32) as usize, (both & 0xffff_ffff) as usize)
        }
    }
}

/// The first four bytes as a number that sorts as they do.
fn head_of(suffix: &[u8]) -> u32 {
    match suffix.first_chunk::<4>() {
        Some(head) => u32::from_be_bytes(*head),
        None => {
            let mut head = [0; 4];
            head[..suffix.len()].copy_from_slice(suffix);
            u32::from_be_bytes(head)
        }
    }
}
