//! How far each part of the key space has reached the tables.
//!
//! Promise: every change of a key with a sequence up to the key's mark is in a table, so replay
//! skips it. Marks belong to key ranges rather than to log segments, because the ranges of the
//! shards change between runs and a merge operand must never be applied twice.

use crate::key::{KeyRange, ends_before};

/// Marks by key range; without a mark: 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Flushed {
    /// By lower bound, not overlapping.
    pub(crate) pieces: Vec<(KeyRange, u64)>,
}

impl Flushed {
    /// Raises the marks in `range` to at least `sequence`. Never lowers one: the streams of one run
    /// count for themselves, so a shard that inherits two ranges may flush first what is lower.
    pub(crate) fn raise(&mut self, range: &KeyRange, sequence: u64) {
        let raised = self.cut(&range.lower, range.upper.as_deref());
        let mut pieces: Vec<(KeyRange, u64)> =
            raised.into_iter().map(|(part, mark)| (part, mark.max(sequence))).collect();
        for (piece, mark) in self.pieces.drain(..) {
            if piece.lower < range.lower {
                let mut left = piece.clone();
                if !ends_before(left.upper.as_ref(), &range.lower) {
                    left.upper = Some(range.lower.clone());
                }
                pieces.push((left, mark));
            }
            if let Some(upper) = &range.upper
                && !ends_before(piece.upper.as_ref(), upper)
            {
                let lower = piece.lower.max(upper.clone());
                pieces.push((KeyRange { lower, upper: piece.upper }, mark));
            }
        }
        pieces.sort_by(|a, b| a.0.lower.cmp(&b.0.lower));
        for (piece, mark) in pieces {
            match self.pieces.last_mut() {
                Some((last, same))
                    if *same == mark && last.upper.as_ref() == Some(&piece.lower) =>
                {
                    last.upper = piece.upper;
                }
                _ => self.pieces.push((piece, mark)),
            }
        }
    }

    /// The mark of `key`.
    pub(crate) fn at(&self, key: &[u8]) -> u64 {
        let i = self.pieces.partition_point(|(range, _)| range.lower.as_slice() <= key);
        match i.checked_sub(1).map(|i| &self.pieces[i]) {
            Some((range, mark)) if range.contains(key) => *mark,
            _ => 0,
        }
    }

    /// The lowest mark in `range`.
    pub(crate) fn lowest(&self, range: &KeyRange) -> u64 {
        let marks = self.cut(&range.lower, range.upper.as_deref());
        marks.iter().map(|(_, mark)| *mark).min().unwrap_or(0)
    }

    /// The parts of `start..end` whose mark is below `sequence`.
    pub(crate) fn below(&self, start: &[u8], end: Option<&[u8]>, sequence: u64) -> Vec<KeyRange> {
        let cut = self.cut(start, end).into_iter();
        cut.filter(|(_, mark)| *mark < sequence).map(|(range, _)| range).collect()
    }

    /// The greatest mark.
    pub(crate) fn highest(&self) -> u64 {
        self.pieces.iter().map(|(_, mark)| *mark).max().unwrap_or(0)
    }

    /// `start..end` cut into parts of one mark each, gaps with mark 0.
    fn cut(&self, start: &[u8], end: Option<&[u8]>) -> Vec<(KeyRange, u64)> {
        let mut parts = Vec::new();
        let mut at = Some(start.to_vec());
        for (piece, mark) in &self.pieces {
            let Some(from) = at.clone() else { break };
            if ends_before(piece.upper.as_ref(), &from) {
                continue;
            }
            if end.is_some_and(|end| piece.lower.as_slice() >= end) {
                break;
            }
            if from < piece.lower {
                parts.push((KeyRange { lower: from, upper: Some(piece.lower.clone()) }, 0));
            }
            let lower = at.take().expect("checked above").max(piece.lower.clone());
            let upper = match (piece.upper.clone(), end) {
                (Some(upper), Some(end)) => Some(upper.min(end.to_vec())),
                (Some(upper), None) => Some(upper),
                (None, end) => end.map(<[u8]>::to_vec),
            };
            at.clone_from(&upper);
            parts.push((KeyRange { lower, upper }, *mark));
        }
        if let Some(from) = at
            && end.is_none_or(|end| from.as_slice() < end)
        {
            parts.push((KeyRange { lower: from, upper: end.map(<[u8]>::to_vec) }, 0));
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(lower: &str, upper: Option<&str>) -> KeyRange {
        KeyRange { lower: lower.into(), upper: upper.map(Into::into) }
    }

    #[test]
    fn marks_follow_the_ranges_of_changing_shards() {
        let mut flushed = Flushed::default();
        flushed.raise(&range("", Some("m")), 10);
        flushed.raise(&range("m", None), 20);
        flushed.raise(&range("f", Some("t")), 30);
        let marks: Vec<u64> =
            ["", "e", "f", "m", "s", "t", "z"].map(|k| flushed.at(k.as_bytes())).into();
        assert_eq!(marks, [10, 10, 30, 30, 30, 20, 20]);
        assert_eq!(flushed.lowest(&range("g", None)), 20);
        assert_eq!(
            flushed.below(b"a", Some(b"u"), 25),
            [range("a", Some("f")), range("t", Some("u"))]
        );
        flushed.raise(&range("a", None), 15);
        assert_eq!([flushed.at(b""), flushed.at(b"a"), flushed.at(b"g")], [10, 15, 30]);
        flushed.raise(&range("", None), 40);
        assert_eq!(flushed.pieces, [(range("", None), 40)]);
    }

    #[test]
    fn what_was_never_marked_counts_as_zero() {
        let mut flushed = Flushed::default();
        assert_eq!(flushed.lowest(&range("", None)), 0);
        flushed.raise(&range("b", Some("c")), 5);
        assert_eq!(flushed.lowest(&range("a", Some("c"))), 0);
        assert_eq!(flushed.lowest(&range("b", Some("c"))), 5);
        assert_eq!(flushed.below(b"a", None, 3), [range("a", Some("b")), range("c", None)]);
    }
}
