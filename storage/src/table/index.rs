//! The index of a table, decoded when the table is opened and kept in memory.
//!
//! Promise: `first_block(key)` is the first block whose separator is at least `key`; the block
//! before it holds only keys below. A search looks at the first eight bytes of separators, sixteen
//! of them (two cache lines) a step, and at whole separators only where these are equal.

use super::footer::{Handle, TRAILER_BYTES};
use super::raw::{extend_key, take_tail};
use crate::codec::{take, u32_at, u64_at, varint, varint32};
use crate::key::Tag;
use crate::prefetch::prefetch;

/// Heads that one step of a search looks at.
const STEP: usize = 16;

/// A table's separators together are at most so many times as large as its file (and a little): blocks that
/// compress well are small, and of a separator the index may hold only what differs.
const UNFOLDED_RATIO_MAX: u64 = 64;
/// No data block takes fewer bytes of a file: one of payload, and a trailer.
const BLOCK_BYTES_MIN: u64 = 1 + TRAILER_BYTES as u64;

/// How the index block of a file is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IndexForm {
    /// Values are handles without a length before them, some as differences.
    pub(crate) delta_encoded: bool,
    /// Separators are user keys; else internal keys.
    pub(crate) user_keys: bool,
}

/// Separators and handles of the data blocks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    /// What all separators begin with.
    prefix: Vec<u8>,
    /// The rest of each, one after the other.
    suffixes: Vec<u8>,
    ends: Vec<u32>,
    /// Their first eight bytes; above them every sixteenth of the row below, and so on.
    heads: Vec<Vec<u64>>,
    handles: Vec<Handle>,
}

impl Index {
    /// Decodes the index block of a file of `file_bytes`; none when it is malformed, or claims more than
    /// such a file can have. `longest`: the bytes of the longest key of a block that it came to.
    pub(crate) fn parse(
        bytes: &[u8],
        form: IndexForm,
        file_bytes: u64,
        longest: &mut usize,
    ) -> Option<Self> {
        // Keys that share prefixes unfold: bounded before memory is taken for them.
        let mut room = file_bytes.saturating_mul(UNFOLDED_RATIO_MAX).saturating_add(1 << 20);
        let blocks_max = file_bytes / BLOCK_BYTES_MIN;
        let restarts = u32_at(bytes, bytes.len().checked_sub(4)?)?;
        let restarts = (restarts < 1 << 28).then_some(restarts as usize)?;
        let end = bytes.len().checked_sub(4 + restarts.checked_mul(4)?)?;
        let mut rest = &bytes[..end];
        let (mut key, mut separators, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        let mut handles = Vec::new();
        let mut before = Handle { offset: 0, size: 0 };
        while !rest.is_empty() {
            let (shared, handle);
            if form.delta_encoded {
                let (s, tail) = take_tail(&mut rest)?;
                *longest = (s + tail.len()).max(*longest);
                extend_key(&mut key, s, tail)?;
                shared = s;
                handle = if shared == 0 {
                    Handle::decode(&mut rest)?
                } else {
                    let coded = varint(&mut rest)?;
                    let grown = (coded >> 1) as i64 ^ -((coded & 1) as i64);
                    let offset = before.offset.checked_add(before.size)?;
                    Handle {
                        offset: offset.checked_add(TRAILER_BYTES as u64)?,
                        size: before.size.checked_add_signed(grown)?,
                    }
                };
            } else {
                shared = varint32(&mut rest)? as usize;
                let tail_len = varint32(&mut rest)? as usize;
                let value_len = varint32(&mut rest)? as usize;
                *longest = (shared + tail_len).max(*longest);
                extend_key(&mut key, shared, take(&mut rest, tail_len)?)?;
                handle = Handle::decode(&mut take(&mut rest, value_len)?)?;
            }
            let user_len = key.len().checked_sub(if form.user_keys { 0 } else { 8 })?;
            room = room.checked_sub(user_len as u64)?;
            if handles.len() as u64 >= blocks_max {
                return None;
            }
            separators.extend_from_slice(&key[..user_len]);
            ends.push(u32::try_from(separators.len()).ok()?);
            handles.push(handle);
            before = handle;
        }
        Some(Self::build(&separators, &ends, handles))
    }

    fn build(separators: &[u8], ends: &[u32], handles: Vec<Handle>) -> Self {
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let all = || {
            let pairs = starts.clone().zip(ends);
            pairs.map(|(start, end)| &separators[start as usize..*end as usize])
        };
        let first = all().next().unwrap_or_default();
        let prefix = all().map(|key| super::build::common(first, key)).min().unwrap_or(0);
        let mut suffixes = Vec::with_capacity(separators.len() - prefix * ends.len());
        let mut suffix_ends = Vec::with_capacity(ends.len());
        let mut row = Vec::with_capacity(ends.len());
        for key in all() {
            row.push(head_of(&key[prefix..]));
            suffixes.extend_from_slice(&key[prefix..]);
            suffix_ends.push(suffixes.len() as u32);
        }
        let mut heads = vec![row];
        while let Some(below) = heads.last()
            && below.len() > STEP
        {
            heads.push(below.chunks(STEP).map(|step| step[step.len() - 1]).collect());
        }
        let prefix = first[..prefix].to_vec();
        Self { prefix, suffixes, ends: suffix_ends, heads, handles }
    }

    /// The blocks `from..to` alone.
    pub(crate) fn part(&self, from: usize, to: usize) -> Self {
        let (mut separators, mut ends) = (Vec::new(), Vec::new());
        for i in from..to {
            separators.extend_from_slice(&self.separator(i));
            ends.push(separators.len() as u32);
        }
        Self::build(&separators, &ends, self.handles[from..to].to_vec())
    }

    /// Number of blocks.
    pub(crate) fn len(&self) -> usize {
        self.handles.len()
    }

    pub(crate) fn handle(&self, i: usize) -> Handle {
        self.handles[i]
    }

    /// Asks for the memory of [`Index::handle`].
    pub(crate) fn prefetch_handle(&self, i: usize) {
        if let Some(handle) = self.handles.get(i) {
            prefetch(handle);
        }
    }

    /// The block that stands at `offset`.
    pub(crate) fn at(&self, offset: u64) -> Option<usize> {
        self.handles.iter().position(|handle| handle.offset == offset)
    }

    /// A key from the last of block `i` (inclusive) to the first of the next.
    pub(crate) fn separator(&self, i: usize) -> Vec<u8> {
        [&self.prefix, self.suffix(i)].concat()
    }

    fn suffix(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.suffixes[start as usize..self.ends[i] as usize]
    }

    /// The first block whose separator is at least `key`; the number of blocks if none.
    pub(crate) fn first_block(&self, key: &[u8]) -> usize {
        let shared = key.len().min(self.prefix.len());
        match key[..shared].cmp(&self.prefix) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Greater => self.len(),
            std::cmp::Ordering::Equal => self.first_suffix(&key[shared..]),
        }
    }

    /// True when the separator of block `i` is `key`.
    pub(crate) fn ends_with(&self, i: usize, key: &[u8]) -> bool {
        key.strip_prefix(self.prefix.as_slice()) == Some(self.suffix(i))
    }

    /// True when the separator of block `i` is below `key`.
    pub(crate) fn is_below(&self, i: usize, key: &[u8]) -> bool {
        let shared = key.len().min(self.prefix.len());
        match self.prefix[..].cmp(&key[..shared]) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Greater => false,
            std::cmp::Ordering::Equal => self.suffix(i) < &key[shared..],
        }
    }

    fn first_suffix(&self, suffix: &[u8]) -> usize {
        let wanted = head_of(suffix);
        let mut at = 0;
        for row in self.heads.iter().rev() {
            let from = at * STEP;
            let Some(step) = row.get(from..row.len().min(from + STEP)) else { return self.len() };
            at = from + step.iter().map(|head| usize::from(*head < wanted)).sum::<usize>();
        }
        let row = &self.heads[0];
        if row.get(at) != Some(&wanted) {
            return at;
        }
        let equal = row[at..].partition_point(|head| *head == wanted);
        let (mut low, mut high) = (at, at + equal);
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.suffix(middle) < suffix {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// The first eight bytes as a number that sorts as they do.
fn head_of(suffix: &[u8]) -> u64 {
    match suffix.first_chunk::<8>() {
        Some(head) => u64::from_be_bytes(*head),
        None => {
            let mut head = [0; 8];
            head[..suffix.len()].copy_from_slice(suffix);
            u64::from_be_bytes(head)
        }
    }
}

/// The tag at the end of an internal key.
pub(crate) fn split_internal(internal: &[u8]) -> Option<(&[u8], Tag)> {
    let end = internal.len().checked_sub(8)?;
    Some((&internal[..end], Tag(u64_at(internal, end)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_finds_the_first_separator_at_or_above_the_key() {
        for (count, shared) in [(0, 0), (1, 3), (16, 1), (17, 0), (300, 20), (5000, 2)] {
            let key = |i: u32| {
                let tail: &[u8] = if i.is_multiple_of(3) { b"" } else { b"a longer tail" };
                [&vec![b's'; shared], &(2 * i / 5).to_be_bytes()[..], tail].concat()
            };
            let mut keys: Vec<Vec<u8>> = (1..=count).map(key).collect();
            keys.sort();
            keys.dedup();
            let (mut separators, mut ends) = (Vec::new(), Vec::new());
            for key in &keys {
                separators.extend_from_slice(key);
                ends.push(separators.len() as u32);
            }
            let handles = (0..keys.len() as u64).map(|offset| Handle { offset, size: 1 });
            let index = Index::build(&separators, &ends, handles.collect());
            let mut wanted = keys.clone();
            wanted.extend(
                (0..=2 * count).map(|i| [&vec![b's'; shared], &i.to_be_bytes()[..]].concat()),
            );
            wanted.extend([vec![], vec![0], b"s".to_vec(), vec![0xff; 30]]);
            for key in wanted {
                let want = keys.partition_point(|k| *k < key);
                assert_eq!(index.first_block(&key), want, "{key:x?} of {count}");
                assert_eq!(want < keys.len() && index.ends_with(want, &key), keys.contains(&key));
            }
            for (i, key) in keys.iter().enumerate() {
                assert_eq!(index.separator(i), *key);
            }
        }
    }
}
