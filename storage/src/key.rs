//! Internal keys: which change of a key is meant; and key ranges.
//!
//! Order: user key ascending, then sequence descending, so that the newest change comes first.

use std::borrow::Borrow;

/// What a change does, with the number that a table stores for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Delete = 0,
    Put = 1,
    Merge = 2,
}

/// The number for a range deletion, in the log and in a table's range_del block.
pub(crate) const RANGE_DELETE: u8 = 0xF;

/// Sequence and kind in one number that sorts by sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tag(pub(crate) u64);

impl Tag {
    pub(crate) fn new(sequence: u64, kind: Kind) -> Self {
        Self(sequence << 8 | kind as u64)
    }
    pub(crate) fn sequence(self) -> u64 {
        self.0 >> 8
    }
    /// None when a table holds a kind that we never write.
    pub(crate) fn kind(self) -> Option<Kind> {
        match self.0 & 0xff {
            0 => Some(Kind::Delete),
            1 => Some(Kind::Put),
            2 => Some(Kind::Merge),
            _ => None,
        }
    }
}

/// Keys from `lower` (inclusive) to `upper` (exclusive; none = to the end).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) lower: Vec<u8>,
    pub(crate) upper: Option<Vec<u8>>,
}

impl KeyRange {
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        key >= self.lower.as_slice() && self.upper.as_deref().is_none_or(|upper| key < upper)
    }

    /// The part of `start..end` inside this range, if any.
    pub(crate) fn clip<'a>(
        &'a self,
        start: &'a [u8],
        end: &'a [u8],
    ) -> Option<(&'a [u8], &'a [u8])> {
        let start = start.max(self.lower.as_slice());
        let end = self.upper.as_deref().map_or(end, |upper| end.min(upper));
        (start < end).then_some((start, end))
    }

    /// The keys that are in both, if any.
    pub(crate) fn shared_with(&self, other: &Self) -> Option<Self> {
        let lower = self.lower.clone().max(other.lower.clone());
        let upper = match (&self.upper, &other.upper) {
            (Some(a), Some(b)) => Some(a.min(b).clone()),
            (a, b) => a.clone().or_else(|| b.clone()),
        };
        (!ends_before(upper.as_ref(), &lower)).then_some(Self { lower, upper })
    }

    /// The ranges that `splits` cut the key space into.
    pub(crate) fn of_splits(splits: &[Vec<u8>]) -> Vec<Self> {
        (0..=splits.len())
            .map(|i| Self {
                lower: if i == 0 { Vec::new() } else { splits[i - 1].clone() },
                upper: splits.get(i).cloned(),
            })
            .collect()
    }
}

/// True when `a` ends at or before the key `b` (where none means: after every key).
pub(crate) fn ends_before<A: Borrow<[u8]>>(a: Option<&A>, b: &[u8]) -> bool {
    a.is_some_and(|a| a.borrow() <= b)
}
