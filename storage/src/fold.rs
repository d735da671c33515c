//! Folding: what the changes of one key amount to.
//!
//! Operands that a merge cannot parse are carried along: kept as they are, never dropped, never an
//! error.

use crate::key::Kind;
use crate::limits::FOLDED_BYTES_MAX;

/// The meaning of merge operands, given by the layer above. Must be deterministic, and folding must
/// be associative: folding operands among themselves first changes nothing.
///
/// It must not panic, whatever the bytes are: [`Folded::Carry`] is the answer to those that it cannot
/// parse. A panic in the middle of a write poisons the store, and the write is told to nobody. But operands
/// are folded later too, by reads, flushes and merges of tables, and by the next start: one over which it
/// panics only there stays in the log, and so every start may panic, or every flush, until a [`Merge`] that
/// carries it is given.
pub trait Merge: Send + Sync {
    /// Folds `operands` (oldest first) onto `base` into `out`, which is empty.
    fn full(
        &self,
        key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Folded;

    /// Folds `operands` (oldest first, at least two) into one operand in `out`, which is empty.
    /// False: cannot; keep them as they are.
    fn partial(&self, key: &[u8], operands: &[&[u8]], out: &mut Vec<u8>) -> bool;
}

/// What operands folded onto a base gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folded {
    /// `out` is the value.
    Value,
    /// The key has no value.
    Deleted,
    /// Cannot parse them: keep base and operands as they are. A read shows the base.
    Carry,
}

/// For stores that never merge: every operand is carried.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMerge;

impl Merge for NoMerge {
    fn full(&self, _: &[u8], _: Option<&[u8]>, _: &[&[u8]], _: &mut Vec<u8>) -> Folded {
        Folded::Carry
    }
    fn partial(&self, _: &[u8], _: &[&[u8]], _: &mut Vec<u8>) -> bool {
        false
    }
}

/// A merge for what is to be kept: a result that no block could hold is not made, and its operands
/// are carried. Readers fold without a bound, so nothing of it is hidden from them.
pub(crate) struct Bounded<'a> {
    merge: &'a dyn Merge,
    bytes_max: usize,
}

impl<'a> Bounded<'a> {
    pub(crate) fn new(merge: &'a dyn Merge) -> Self {
        Self { merge, bytes_max: FOLDED_BYTES_MAX }
    }
}

impl Merge for Bounded<'_> {
    fn full(
        &self,
        key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Folded {
        match self.merge.full(key, base, operands, out) {
            Folded::Value if out.len() > self.bytes_max => Folded::Carry,
            folded => folded,
        }
    }

    fn partial(&self, key: &[u8], operands: &[&[u8]], out: &mut Vec<u8>) -> bool {
        self.merge.partial(key, operands, out) && out.len() <= self.bytes_max
    }
}

/// One change of a key as flush and compaction handle it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) sequence: u64,
    pub(crate) kind: Kind,
    pub(crate) value: Vec<u8>,
}

/// What has to be kept of `changes` of `key` (newest first), for the readers at `snapshots`
/// (ascending) and at the present.
///
/// `covered(sequence)`: the greatest sequence of a range deletion over the key that a reader
/// between this sequence and the next snapshot sees; 0 when none. `bottom`: nothing older exists
/// anywhere below.
pub(crate) fn compact(
    merge: &dyn Merge,
    key: &[u8],
    changes: Vec<Change>,
    snapshots: &[u64],
    covered: &dyn Fn(u64) -> u64,
    bottom: bool,
) -> Vec<Change> {
    let stratum = |sequence: u64| snapshots.partition_point(|s| *s < sequence);
    let mut kept: Vec<Change> = Vec::new();
    let mut changes = changes.into_iter().peekable();
    while let Some(first) = changes.peek() {
        let this = stratum(first.sequence);
        // No reader sees anything of this stratum that a range deletion in it has covered.
        let limit = snapshots.get(this).copied().unwrap_or(u64::MAX);
        let cover = covered(limit);
        let mut operands: Vec<Change> = Vec::new();
        let mut base: Option<Change> = None;
        let mut hidden = false;
        while let Some(change) = changes.next_if(|c| stratum(c.sequence) == this) {
            if base.is_some() || hidden {
                continue;
            }
            if change.sequence < cover {
                hidden = true;
            } else if change.kind == Kind::Merge {
                operands.push(change);
            } else {
                base = Some(change);
            }
        }
        let oldest = changes.peek().is_none();
        // A range deletion hides whatever is older, so operands above it start from nothing.
        let covered_here = cover > 0 && stratum(cover) == this;
        let grounded = hidden || covered_here || base.is_some() || (bottom && oldest);
        fold_stratum(merge, key, operands, base, grounded, &mut kept);
    }
    while bottom && kept.last().is_some_and(|c| c.kind == Kind::Delete) {
        kept.pop();
    }
    kept
}

fn fold_stratum(
    merge: &dyn Merge,
    key: &[u8],
    operands: Vec<Change>,
    base: Option<Change>,
    grounded: bool,
    kept: &mut Vec<Change>,
) {
    let Some(newest) = operands.first().map(|o| o.sequence) else {
        kept.extend(base);
        return;
    };
    let oldest_first: Vec<&[u8]> = operands.iter().rev().map(|o| o.value.as_slice()).collect();
    let mut out = Vec::new();
    if grounded {
        let value = base.as_ref().filter(|b| b.kind == Kind::Put).map(|b| b.value.as_slice());
        let kind = match merge.full(key, value, &oldest_first, &mut out) {
            Folded::Value => Some(Kind::Put),
            Folded::Deleted => Some(Kind::Delete),
            Folded::Carry => None,
        };
        if let Some(kind) = kind {
            let value = if kind == Kind::Put { out } else { Vec::new() };
            kept.push(Change { sequence: newest, kind, value });
            return;
        }
        out.clear();
    }
    if operands.len() > 1 && merge.partial(key, &oldest_first, &mut out) {
        kept.push(Change { sequence: newest, kind: Kind::Merge, value: out });
    } else {
        kept.extend(fold_neighbours(merge, key, operands));
    }
    kept.extend(base);
}

/// Folds what can be folded between operands that cannot, so that one that nobody can parse does not
/// make a chain grow without bound. Newest first, as given.
fn fold_neighbours(merge: &dyn Merge, key: &[u8], operands: Vec<Change>) -> Vec<Change> {
    let mut folded: Vec<Change> = Vec::new();
    for operand in operands.into_iter().rev() {
        let mut out = Vec::new();
        match folded.last_mut() {
            Some(older) if merge.partial(key, &[&older.value, &operand.value], &mut out) => {
                *older = Change { value: out, ..operand };
            }
            _ => folded.push(operand),
        }
    }
    folded.reverse();
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appends; `!` cannot be parsed.
    struct Append;

    impl Merge for Append {
        fn full(
            &self,
            _: &[u8],
            base: Option<&[u8]>,
            operands: &[&[u8]],
            out: &mut Vec<u8>,
        ) -> Folded {
            let Some(base) = base else { return Folded::Carry };
            out.extend_from_slice(base);
            operands.iter().for_each(|o| out.extend_from_slice(o));
            Folded::Value
        }
        fn partial(&self, _: &[u8], operands: &[&[u8]], out: &mut Vec<u8>) -> bool {
            operands.iter().for_each(|o| out.extend_from_slice(o));
            !operands.contains(&&b"!"[..])
        }
    }

    #[test]
    fn what_would_outgrow_a_block_stays_in_pieces_that_do_not() {
        let merge = Bounded { merge: &Append, bytes_max: 4 };
        let operand = |sequence: u64, value: &[u8]| {
            let value = value.to_vec();
            Change { sequence, kind: Kind::Merge, value }
        };
        let put = Change { sequence: 1, kind: Kind::Put, value: b"ab".to_vec() };
        let few = vec![operand(3, b"d"), operand(2, b"c"), put.clone()];
        let whole = Change { sequence: 3, kind: Kind::Put, value: b"abcd".to_vec() };
        assert_eq!(compact(&merge, b"k", few.clone(), &[], &|_| 0, true), [whole]);
        let more = [vec![operand(5, b"fg"), operand(4, b"e")], few].concat();
        let kept = compact(&merge, b"k", more, &[], &|_| 0, true);
        assert_eq!(kept, [operand(5, b"fg"), operand(4, b"cde"), put.clone()]);
        assert_eq!(compact(&merge, b"k", kept.clone(), &[], &|_| 0, true), kept, "settled");
    }

    #[test]
    fn operands_around_one_that_cannot_be_parsed_are_folded_all_the_same() {
        let operand = |sequence: u64, value: &[u8]| {
            let value = value.to_vec();
            Change { sequence, kind: Kind::Merge, value }
        };
        let changes = vec![
            operand(9, b"e"),
            operand(8, b"d"),
            operand(7, b"!"),
            operand(6, b"c"),
            operand(5, b"b"),
            operand(4, b"a"),
        ];
        let kept = compact(&Append, b"k", changes, &[], &|_| 0, false);
        assert_eq!(kept, [operand(9, b"de"), operand(7, b"!"), operand(6, b"abc")]);
    }
}
