//! Range deletions, cut into pieces that do not overlap.
//!
//! Each piece knows the sequences that delete it, newest first, so that the question "which
//! deletion covers this key for that reader" is one ordered look-up.

use std::collections::BTreeMap;
use std::ops::Bound;

/// Keys that the same deletion covers, or none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stretch<'a> {
    /// The greatest sequence that deletes them; 0 when none does.
    pub(crate) cover: u64,
    /// The first key; none: there is none before them.
    pub(crate) start: Option<&'a [u8]>,
    /// The first key after them; none: there is none.
    pub(crate) end: Option<&'a [u8]>,
}

/// A set of range deletions.
#[derive(Debug, Clone, Default)]
pub(crate) struct RangeTombstones {
    pieces: BTreeMap<Vec<u8>, Piece>,
}

#[derive(Debug, Clone)]
struct Piece {
    end: Vec<u8>,
    /// Newest first.
    sequences: Vec<u64>,
}

impl RangeTombstones {
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// In how many pieces they are cut.
    pub(crate) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Adds the deletion of `start..end` at `sequence`. `snapshot` is the newest reader of the past
    /// (`u64::MAX`: assume that any past has readers): deletions newer than it that this one
    /// overrules are forgotten.
    pub(crate) fn add(&mut self, start: &[u8], end: &[u8], sequence: u64, snapshot: u64) {
        if start >= end {
            return;
        }
        self.split(start);
        self.split(end);
        let mut at = start.to_vec();
        let mut gaps = Vec::new();
        let bounds = (Bound::Included(start), Bound::Excluded(end));
        for (piece_start, piece) in self.pieces.range_mut::<[u8], _>(bounds) {
            if at < *piece_start {
                gaps.push((at.clone(), piece_start.clone()));
            }
            at.clone_from(&piece.end);
            let place = piece.sequences.partition_point(|s| *s > sequence);
            if piece.sequences.get(place) != Some(&sequence) {
                piece.sequences.insert(place, sequence);
            }
            let newest = piece.sequences[0];
            piece.sequences.retain(|s| *s == newest || *s <= snapshot);
        }
        if at.as_slice() < end {
            gaps.push((at, end.to_vec()));
        }
        for (start, end) in gaps {
            self.pieces.insert(start, Piece { end, sequences: vec![sequence] });
        }
    }

    /// Adds all of `other`.
    pub(crate) fn add_all(&mut self, other: &Self) {
        self.add_all_above(other, u64::MAX);
    }

    /// Adds all of `other`, forgetting what is overruled as [`RangeTombstones::add`] does.
    pub(crate) fn add_all_above(&mut self, other: &Self, snapshot: u64) {
        for (start, end, sequence) in other.iter() {
            self.add(start, end, sequence, snapshot);
        }
    }

    /// About what it takes in memory: its keys and sequences, and its part of the nodes of a map.
    pub(crate) fn bytes(&self) -> usize {
        let piece = |(start, piece): (&Vec<u8>, &Piece)| {
            start.len() + piece.end.len() + 8 * piece.sequences.len() + 112
        };
        self.pieces.iter().map(piece).sum()
    }

    /// The greatest sequence up to `bound` that deletes `key`; 0 when none does.
    pub(crate) fn covering(&self, key: &[u8], bound: u64) -> u64 {
        if self.pieces.is_empty() {
            return 0;
        }
        let upto = (Bound::Unbounded, Bound::Included(key));
        match self.pieces.range::<[u8], _>(upto).next_back() {
            Some((_, piece)) if key < piece.end.as_slice() => {
                piece.sequences.iter().copied().find(|s| *s <= bound).unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// The keys around `key` for which [`RangeTombstones::covering`] says the same.
    pub(crate) fn stretch(&self, key: &[u8], bound: u64) -> Stretch<'_> {
        let upto = (Bound::Unbounded, Bound::Included(key));
        let beyond = (Bound::Excluded(key), Bound::Unbounded);
        let next = || self.pieces.range::<[u8], _>(beyond).next().map(|(start, _)| &start[..]);
        match self.pieces.range::<[u8], _>(upto).next_back() {
            Some((start, piece)) if key < piece.end.as_slice() => {
                let cover = piece.sequences.iter().copied().find(|s| *s <= bound).unwrap_or(0);
                Stretch { cover, start: Some(start), end: Some(&piece.end) }
            }
            Some((_, piece)) => Stretch { cover: 0, start: Some(&piece.end), end: next() },
            None => Stretch { cover: 0, start: None, end: next() },
        }
    }

    /// True when every key in `lower..upper` is deleted by some deletion newer than `above` that no
    /// reader older than it can look behind: `oldest` is the oldest of those, if there is any.
    pub(crate) fn bury(&self, lower: &[u8], upper: &[u8], above: u64, oldest: Option<u64>) -> bool {
        if lower >= upper {
            // Bounds that a damaged table claims.
            return false;
        }
        let buries = |s: u64| s > above && oldest.is_none_or(|oldest| oldest >= s);
        let upto = (Bound::Unbounded, Bound::Included(lower));
        let first = self.pieces.range::<[u8], _>(upto).next_back();
        let rest = self.pieces.range::<[u8], _>((Bound::Excluded(lower), Bound::Excluded(upper)));
        let mut at = lower;
        for (start, piece) in first.into_iter().chain(rest) {
            if start.as_slice() > at || !piece.sequences.iter().any(|s| buries(*s)) {
                break;
            }
            at = at.max(&piece.end);
            if at >= upper {
                break;
            }
        }
        at >= upper
    }

    /// All deletions as (start, end, sequence), by start, then newest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8], u64)> {
        self.pieces.iter().flat_map(|(start, piece)| {
            piece.sequences.iter().map(|s| (start.as_slice(), piece.end.as_slice(), *s))
        })
    }

    /// Makes `at` a boundary, if a piece spans it.
    fn split(&mut self, at: &[u8]) {
        let below = (Bound::Unbounded, Bound::Excluded(at));
        let Some((_, piece)) = self.pieces.range_mut::<[u8], _>(below).next_back() else { return };
        if at < piece.end.as_slice() {
            let end = std::mem::replace(&mut piece.end, at.to_vec());
            let upper = Piece { end, sequences: piece.sequences.clone() };
            self.pieces.insert(at.to_vec(), upper);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_buried_when_pieces_that_no_reader_sees_behind_cover_all_of_it() {
        let mut set = RangeTombstones::default();
        for (start, end, sequence) in [(b"b", b"f", 5), (b"f", b"m", 9), (b"n", b"z", 9)] {
            set.add(start, end, sequence, u64::MAX);
        }
        assert!(set.bury(b"b", b"m", 4, None));
        assert!(set.bury(b"c", b"g", 4, Some(9)));
        assert!(!set.bury(b"c", b"g", 4, Some(8)), "a reader at 8 sees what 9 deleted");
        assert!(!set.bury(b"c", b"g", 5, None), "the change at 5 is as new as the deletion");
        assert!(!set.bury(b"a", b"c", 1, None) && !set.bury(b"k", b"o", 1, None), "gaps");
        assert!(!set.bury(b"y", b"zz", 1, None));
    }

    #[test]
    fn overlapping_deletions_cover_what_each_of_them_covered() {
        let mut set = RangeTombstones::default();
        let ranges: [(&[u8], &[u8], u64); 4] =
            [(b"b", b"m", 5), (b"d", b"f", 9), (b"a", b"e", 7), (b"k", b"z", 3)];
        for (start, end, sequence) in ranges {
            set.add(start, end, sequence, u64::MAX);
        }
        for key in b'a'..=b'z' {
            for bound in 0..12 {
                let want = ranges
                    .iter()
                    .filter(|(s, e, q)| *s <= &[key][..] && &[key][..] < *e && *q <= bound)
                    .map(|(_, _, q)| *q)
                    .max()
                    .unwrap_or(0);
                assert_eq!(set.covering(&[key], bound), want, "{} at {bound}", key as char);
                let stretch = set.stretch(&[key], bound);
                assert_eq!(stretch.cover, want);
                for other in b'`'..=b'{' {
                    let other = &[other][..];
                    let inside = stretch.start.is_none_or(|start| start <= other)
                        && stretch.end.is_none_or(|end| other < end);
                    assert!(!inside || set.covering(other, bound) == want);
                    assert!(inside || other != [key]);
                }
            }
        }
    }
}
