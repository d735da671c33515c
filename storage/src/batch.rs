//! Batch: changes that live or die together, encoded as they are appended.
//!
//! The encoding is what the log stores: kind, key length, key, and for all but a deletion the
//! length and bytes of value, operand or range end.

use crate::codec;
use crate::error::Error;
use crate::key::{Kind, RANGE_DELETE};
use crate::limits::{BATCH_BYTES_MAX, KEY_BYTES_MAX};

/// Changes to be applied atomically. Reusable: [`Batch::clear`] keeps the memory.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    count: u32,
    key_bytes_max: usize,
}

/// Memory that [`Batch::reset`] keeps.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// One change of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op<'a> {
    /// The key has this value.
    Put {
        /// The key.
        key: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// The key has no value.
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// The key's value changes by this operand; see [`crate::Merge`].
    Merge {
        /// The key.
        key: &'a [u8],
        /// What is folded onto its value.
        operand: &'a [u8],
    },
    /// All keys from `start` (inclusive) to `end` (exclusive) have no value.
    DeleteRange {
        /// First key deleted.
        start: &'a [u8],
        /// First key after it that is not.
        end: &'a [u8],
    },
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives `key` the value `value`.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.push(Kind::Put as u8, key, Some(value));
    }

    /// Removes `key`.
    pub fn delete(&mut self, key: &[u8]) {
        self.push(Kind::Delete as u8, key, None);
    }

    /// Folds `operand` onto the value of `key`, without reading it now.
    pub fn merge(&mut self, key: &[u8], operand: &[u8]) {
        self.push(Kind::Merge as u8, key, Some(operand));
    }

    /// Removes the keys from `start` (inclusive) to `end` (exclusive) that the shard holds. Does
    /// nothing when the range is empty.
    pub fn delete_range(&mut self, start: &[u8], end: &[u8]) {
        if start < end {
            self.key_bytes_max = self.key_bytes_max.max(end.len());
            self.push(RANGE_DELETE, start, Some(end));
        }
    }

    /// Appends all changes of `other`.
    pub fn append(&mut self, other: &Self) {
        self.bytes.extend_from_slice(&other.bytes);
        self.count += other.count;
        self.key_bytes_max = self.key_bytes_max.max(other.key_bytes_max);
    }

    /// Forgets the changes, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
        self.key_bytes_max = 0;
    }

    /// As [`Batch::clear`], and gives back what one large batch took.
    pub(crate) fn reset(&mut self) {
        self.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
    }

    /// Number of changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// True when there are no changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size as encoded, in bytes: what the log will hold for it.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    /// The changes, in the order in which they were added.
    #[must_use]
    pub fn ops(&self) -> Ops<'_> {
        Ops { bytes: &self.bytes, left: self.count }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.bytes.len() > BATCH_BYTES_MAX {
            return Err(Error::TooLarge { bytes: self.bytes.len(), bytes_max: BATCH_BYTES_MAX });
        }
        if self.key_bytes_max > KEY_BYTES_MAX {
            return Err(Error::TooLarge { bytes: self.key_bytes_max, bytes_max: KEY_BYTES_MAX });
        }
        Ok(())
    }

    fn push(&mut self, kind: u8, key: &[u8], value: Option<&[u8]>) {
        self.key_bytes_max = self.key_bytes_max.max(key.len());
        self.bytes.push(kind);
        codec::put_bytes(&mut self.bytes, key);
        if let Some(value) = value {
            codec::put_bytes(&mut self.bytes, value);
        }
        self.count += 1;
    }
}

/// Iterator over the changes of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Ops<'a> {
    bytes: &'a [u8],
    left: u32,
}

impl<'a> Ops<'a> {
    /// The `count` changes in `bytes`, or none when the bytes do not hold exactly these.
    pub(crate) fn checked(bytes: &'a [u8], count: u32) -> Option<Self> {
        let ops = Self { bytes, left: count };
        let mut probe = ops;
        for _ in 0..count {
            probe.parse()?;
        }
        probe.bytes.is_empty().then_some(ops)
    }

    /// Takes `count` changes off the front of `input`.
    pub(crate) fn taken(input: &mut &'a [u8], count: u32) -> Option<Self> {
        let whole = *input;
        let mut probe = Self { bytes: whole, left: count };
        for _ in 0..count {
            probe.parse()?;
        }
        *input = probe.bytes;
        Some(Self { bytes: &whole[..whole.len() - probe.bytes.len()], left: count })
    }

    fn parse(&mut self) -> Option<Op<'a>> {
        let kind = *codec::take(&mut self.bytes, 1)?.first()?;
        let key = codec::bytes(&mut self.bytes)?;
        Some(match kind {
            0 => Op::Delete { key },
            1 => Op::Put { key, value: codec::bytes(&mut self.bytes)? },
            2 => Op::Merge { key, operand: codec::bytes(&mut self.bytes)? },
            RANGE_DELETE => Op::DeleteRange { start: key, end: codec::bytes(&mut self.bytes)? },
            _ => return None,
        })
    }
}

impl<'a> Iterator for Ops<'a> {
    type Item = Op<'a>;

    fn next(&mut self) -> Option<Op<'a>> {
        self.left = self.left.checked_sub(1)?;
        self.parse()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Ops<'_> {}

/// A batch as the log holds it.
#[derive(Debug, Clone, Copy)]
pub struct LogBatch<'a> {
    pub(crate) first_sequence: u64,
    pub(crate) ops: Ops<'a>,
}

impl<'a> LogBatch<'a> {
    /// The changes, in order.
    #[must_use]
    pub fn ops(&self) -> Ops<'a> {
        self.ops
    }

    /// Sequence of the first change; each further change has the next one.
    #[must_use]
    pub fn first_sequence(&self) -> u64 {
        self.first_sequence
    }
}
