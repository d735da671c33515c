//! Blocks as they stand in a file: walking the entries without trusting the bytes.

use crate::codec::{take, u32_at, varint32};
use crate::limits::KEY_BYTES_MAX;
use std::ops::Range;

/// Bytes of a key that are copied whether it has so many or not.
pub(crate) const COPIED: usize = 32;
/// Bytes of a tag behind a user key.
pub(crate) const TAG: usize = 8;

/// A verified, uncompressed block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawBlock<'a> {
    /// All entries, without the restart points behind them.
    pub(crate) entries: &'a [u8],
    /// Where entries stand that share nothing, 32 bits each.
    restarts: &'a [u8],
}

/// One entry as it stands in a block.
pub(crate) struct RawEntry {
    /// Bytes that its key has in common with the key before.
    pub(crate) shared: usize,
    pub(crate) tail: Range<usize>,
    pub(crate) value: Range<usize>,
}

/// In the footer: a hash index stands between restart points and footer.
const HASH_INDEX: u32 = 1 << 31;

impl<'a> RawBlock<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Option<Self> {
        let mut restarts_end = bytes.len().checked_sub(4)?;
        let footer = u32_at(bytes, restarts_end)?;
        if footer & HASH_INDEX != 0 {
            let buckets_at = restarts_end.checked_sub(2)?;
            let buckets: [u8; 2] = bytes.get(buckets_at..restarts_end)?.try_into().ok()?;
            restarts_end = buckets_at.checked_sub(usize::from(u16::from_le_bytes(buckets)))?;
        }
        let restarts = footer & !HASH_INDEX;
        // Bits 28 to 30 announce layouts that this reader does not know.
        let restarts = (restarts > 0 && restarts < 1 << 28).then_some(restarts as usize)?;
        let entries_end = restarts_end.checked_sub(restarts.checked_mul(4)?)?;
        Some(Self { entries: &bytes[..entries_end], restarts: &bytes[entries_end..restarts_end] })
    }

    /// One to be walked, not searched: the restart points are not at hand.
    pub(crate) fn of_entries(entries: &'a [u8]) -> Self {
        Self { entries, restarts: &[] }
    }

    /// Where the entries begin among which the first with a user key of at least `key` is; none when
    /// a restart point leads nowhere.
    pub(crate) fn interval(&self, key: &[u8]) -> Option<usize> {
        // Those before `low` begin below `key`, those from `high` on do not.
        let (mut low, mut high) = (0, self.restarts.len() / 4);
        while low < high {
            let middle = usize::midpoint(low, high);
            let (entry, _) = self.entry(u32_at(self.restarts, 4 * middle)? as usize)?;
            let internal = &self.entries[entry.tail];
            let user = internal.get(..internal.len().checked_sub(TAG)?)?;
            if entry.shared != 0 {
                return None;
            }
            if user < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        match low.checked_sub(1) {
            Some(before) => Some(u32_at(self.restarts, 4 * before)? as usize),
            None => Some(0),
        }
    }

    /// The entry at `offset` and where the next one stands; none at the end or when malformed.
    #[inline]
    pub(crate) fn entry(&self, offset: usize) -> Option<(RawEntry, usize)> {
        let (shared, tail_len, value_len, at) = match self.entries.get(offset..offset + 3) {
            // Nearly always: lengths of one byte.
            Some(&[shared, tail, value]) if (shared | tail | value) < 0x80 => {
                (usize::from(shared), usize::from(tail), usize::from(value), offset + 3)
            }
            _ => {
                let mut rest = self.entries.get(offset..)?;
                let shared = varint32(&mut rest)? as usize;
                let tail_len = varint32(&mut rest)? as usize;
                let value_len = varint32(&mut rest)? as usize;
                (shared, tail_len, value_len, self.entries.len() - rest.len())
            }
        };
        let value_at = at.checked_add(tail_len)?;
        let end = value_at.checked_add(value_len)?;
        if end > self.entries.len() {
            return None;
        }
        Some((RawEntry { shared, tail: at..value_at, value: value_at..end }, end))
    }

    /// True when `offset` is where the entries end, as it must be when no entry is there.
    pub(crate) fn ends_at(&self, offset: usize) -> bool {
        offset == self.entries.len()
    }

    /// Bytes of the longest internal key that an entry claims, up to where the entries cannot be told apart.
    pub(crate) fn longest_key(&self) -> usize {
        let (mut at, mut longest) = (0, 0);
        while let Some((entry, next)) = self.entry(at) {
            longest = longest.max(entry.shared.saturating_add(entry.tail.len()));
            at = next;
        }
        longest
    }

    /// Calls `visit` with the whole key and the value of each entry until it gives none; none when
    /// it did or the block is malformed.
    pub(crate) fn each(&self, mut visit: impl FnMut(&[u8], &[u8]) -> Option<()>) -> Option<()> {
        let (mut at, mut key) = (0, Vec::new());
        while let Some((entry, next)) = self.entry(at) {
            extend_key(&mut key, entry.shared, self.entries.get(entry.tail)?)?;
            visit(&key, self.entries.get(entry.value)?)?;
            at = next;
        }
        self.ends_at(at).then_some(())
    }
}

/// The key at hand while a block is walked.
#[derive(Default)]
pub(crate) struct KeyBuffer {
    /// Keeps its size; `len` bytes of it count.
    pub(crate) bytes: Vec<u8>,
    pub(crate) len: usize,
}

impl KeyBuffer {
    /// Makes of the key before the next one, whose tail stands at `tail` in `entries`; none when it
    /// shares more than there is, or is too long.
    #[inline]
    pub(crate) fn extend(
        &mut self,
        shared: usize,
        entries: &[u8],
        tail: Range<usize>,
    ) -> Option<()> {
        let len = shared + tail.len();
        if shared > self.len || len > KEY_BYTES_MAX + TAG {
            return None;
        }
        if self.bytes.len() < len + COPIED {
            self.bytes.resize(len + COPIED, 0);
        }
        copy_short(self.bytes.get_mut(shared..)?, entries.get(tail.start..)?, tail.len())?;
        self.len = len;
        Some(())
    }

    #[inline]
    pub(crate) fn get(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Copies the first `len` bytes of `from` to the front of `to`, and perhaps more than these: a copy of
/// one length costs less than one of the right length.
#[inline]
pub(crate) fn copy_short(to: &mut [u8], from: &[u8], len: usize) -> Option<()> {
    match (to.first_chunk_mut::<COPIED>(), from.first_chunk::<COPIED>()) {
        (Some(to), Some(from)) if len <= COPIED => *to = *from,
        _ => to.get_mut(..len)?.copy_from_slice(from.get(..len)?),
    }
    Some(())
}

/// Whether the internal key `before[..shared] + tail` has the user key of `before`.
#[inline]
pub(crate) fn same_user_key(before: &[u8], shared: usize, tail: &[u8]) -> bool {
    let len = shared + tail.len();
    if before.len() != len || len < TAG {
        return false;
    }
    let user_len = len - TAG;
    // Nearly always the first byte that is not shared is another.
    shared >= user_len
        || (before[shared] == tail[0] && before[shared..user_len] == tail[..user_len - shared])
}

/// Makes of the key before the next one; none when it shares more than there is, or is too long.
pub(crate) fn extend_key(key: &mut Vec<u8>, shared: usize, tail: &[u8]) -> Option<()> {
    if shared > key.len() || shared + tail.len() > KEY_BYTES_MAX + TAG {
        return None;
    }
    key.truncate(shared);
    key.extend_from_slice(tail);
    Some(())
}

/// The shared length and the tail of the key of an index entry, whose value says its own length.
pub(crate) fn take_tail<'a>(input: &mut &'a [u8]) -> Option<(usize, &'a [u8])> {
    let shared = varint32(input)? as usize;
    let tail_len = varint32(input)? as usize;
    Some((shared, take(input, tail_len)?))
}
