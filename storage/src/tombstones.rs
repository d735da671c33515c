//! Range deletions, cut into pieces that do not overlap.
//!
//! Each piece knows the sequences that delete it, newest first, so that the question "which
//! deletion covers this key for that reader" is one ordered look-up. Of n deletions over each other
//! there may be n pieces with n sequences each: who puts sets together says which of the sequences
//! still count ([`Keep`]), and may say how many there can be at most.

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

/// Which sequences of a piece somebody may still ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keep<'a> {
    /// All: nothing is known of the readers.
    All,
    /// Those that a reader at one of these (ascending) sees, and the newest.
    Seen(&'a [u64]),
    /// Those that a reader up to `snapshot` or from `safe` on may see.
    Outside { snapshot: u64, safe: u64 },
}

impl Keep<'_> {
    /// Forgets of `sequences`, newest first, what nobody can ask for.
    fn trim(self, sequences: &mut Vec<u64>) {
        let mut newer: Option<u64> = None;
        sequences.retain(|s| {
            let Some(newer) = newer.replace(*s) else { return true };
            match self {
                Self::All => true,
                // Who sees this one sees the newer one too, if no reader stands between.
                Self::Seen(readers) => {
                    let next = readers.partition_point(|reader| reader < s);
                    readers.get(next).is_some_and(|reader| *reader < newer)
                }
                Self::Outside { snapshot, safe } => *s <= snapshot || newer > safe,
            }
        });
    }
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

    /// All of `sets` as one.
    pub(crate) fn union(sets: &[&Self], keep: Keep<'_>) -> Self {
        Self::union_within(sets, keep, usize::MAX).expect("there is no bound")
    }

    /// The same; none when that would have more than `sequences_max` sequences, counted for each piece.
    pub(crate) fn union_within(
        sets: &[&Self],
        keep: Keep<'_>,
        sequences_max: usize,
    ) -> Option<Self> {
        match sets {
            [] => Some(Self::default()),
            [one] => one.merged(&Self::default(), keep, sequences_max),
            // In halves, so that each piece is copied a few times and not once for each set.
            _ => {
                let (first, rest) = sets.split_at(sets.len() / 2);
                let first = Self::union_within(first, keep, sequences_max)?;
                let rest = Self::union_within(rest, keep, sequences_max)?;
                first.merged(&rest, keep, sequences_max)
            }
        }
    }

    fn merged(&self, other: &Self, keep: Keep<'_>, sequences_max: usize) -> Option<Self> {
        let mut edges: Vec<&[u8]> = Vec::with_capacity(2 * (self.len() + other.len()));
        for (start, piece) in self.pieces.iter().chain(&other.pieces) {
            edges.extend([start.as_slice(), &piece.end]);
        }
        edges.sort();
        edges.dedup();
        let (mut ours, mut theirs) = (self.pieces.iter(), other.pieces.iter());
        let (mut our, mut their) = (ours.next(), theirs.next());
        let mut pieces: Vec<(Vec<u8>, Piece)> = Vec::new();
        let mut count = 0;
        for edge in edges.windows(2) {
            let &[start, end] = edge else { continue };
            let mut sequences = Vec::new();
            for (piece, rest) in [(&mut our, &mut ours), (&mut their, &mut theirs)] {
                if piece.is_some_and(|(_, piece)| piece.end.as_slice() <= start) {
                    *piece = rest.next();
                }
                if let Some((_, piece)) = piece.filter(|(from, _)| from.as_slice() <= start) {
                    sequences.extend_from_slice(&piece.sequences);
                }
            }
            sequences.sort_unstable_by(|a, b| b.cmp(a));
            sequences.dedup();
            keep.trim(&mut sequences);
            if sequences.is_empty() {
                continue;
            }
            match pieces.last_mut() {
                Some((_, last)) if last.end == start && last.sequences == sequences => {
                    last.end = end.to_vec();
                }
                _ => {
                    count += sequences.len();
                    if count > sequences_max {
                        return None;
                    }
                    sequences.shrink_to_fit();
                    pieces.push((start.to_vec(), Piece { end: end.to_vec(), sequences }));
                }
            }
        }
        Some(Self { pieces: pieces.into_iter().collect() })
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

/// Range deletions as a file lists them, which need not be a good one: gathered without taking more memory than
/// they may have, or time. What is listed as pieces that do not overlap, by key, costs a copy.
pub(crate) struct Gathering {
    /// Sets already put together, each at least twice as large as the next.
    sets: Vec<RangeTombstones>,
    /// Pieces after these, while they ascend.
    ascending: Vec<(Vec<u8>, Piece)>,
    sequences_max: usize,
}

impl Gathering {
    /// Up to `sequences_max` sequences, counted for each piece.
    pub(crate) fn within(sequences_max: usize) -> Self {
        Self { sets: Vec::new(), ascending: Vec::new(), sequences_max }
    }

    /// None when that is too much.
    pub(crate) fn add(&mut self, start: &[u8], end: &[u8], sequence: u64) -> Option<()> {
        if start >= end {
            return Some(());
        }
        if let Some((from, last)) = self.ascending.last_mut() {
            let older = last.sequences.last().is_some_and(|newer| sequence < *newer);
            if from == start && last.end == end && older {
                last.sequences.push(sequence);
                return Some(());
            }
            if start < last.end.as_slice() {
                self.close()?;
            }
        }
        let piece = Piece { end: end.to_vec(), sequences: vec![sequence] };
        self.ascending.push((start.to_vec(), piece));
        Some(())
    }

    fn close(&mut self) -> Option<()> {
        let pieces = std::mem::take(&mut self.ascending).into_iter().collect();
        let mut newest = RangeTombstones { pieces };
        while let Some(set) = self.sets.pop_if(|set| set.len() <= 2 * newest.len()) {
            newest = set.merged(&newest, Keep::All, self.sequences_max)?;
        }
        self.sets.push(newest);
        Some(())
    }

    /// All of them; none when that is too much.
    pub(crate) fn finish(mut self) -> Option<RangeTombstones> {
        self.close()?;
        match &self.sets[..] {
            [_] => self.sets.pop(),
            sets => {
                let sets: Vec<_> = sets.iter().collect();
                RangeTombstones::union_within(&sets, Keep::All, self.sequences_max)
            }
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

    #[test]
    fn a_union_covers_what_its_sets_covered_for_everybody_who_still_asks() {
        let mut state = 7u64;
        let mut below = move |n: u64| {
            state = state.wrapping_add(1);
            crate::codec::scatter(state) % n
        };
        for _ in 0..if cfg!(miri) { 5 } else { 500 } {
            let mut sets = vec![RangeTombstones::default(); 1 + below(5) as usize];
            let mut plain = RangeTombstones::default();
            for sequence in 1..=20 {
                let (start, end) = ([b'a' + below(12) as u8], [b'a' + below(12) as u8]);
                let set = below(sets.len() as u64) as usize;
                sets[set].add(&start, &end, sequence, u64::MAX);
                plain.add(&start, &end, sequence, u64::MAX);
            }
            let sets: Vec<_> = sets.iter().collect();
            let (a, b) = (below(21), below(21));
            let (snapshot, safe) = (a.min(b), a.max(b));
            let seen = [snapshot, safe];
            for keep in [Keep::All, Keep::Seen(&seen), Keep::Outside { snapshot, safe }] {
                let union = RangeTombstones::union(&sets, keep);
                for bound in 0..=21 {
                    let asks = match keep {
                        Keep::All => true,
                        Keep::Seen(readers) => bound >= 20 || readers.contains(&bound),
                        Keep::Outside { snapshot, safe } => bound <= snapshot || bound >= safe,
                    };
                    for key in (b'`'..b'p').filter(|_| asks) {
                        let want = plain.covering(&[key], bound);
                        assert_eq!(union.covering(&[key], bound), want, "{keep:?} {bound}");
                    }
                }
            }
        }
    }

    #[test]
    fn deletions_over_each_other_stay_few_where_nobody_looks_behind_them() {
        let key = |i: u64| i.to_be_bytes();
        let mut sets = Vec::new();
        for i in 1..=200 {
            let mut set = RangeTombstones::default();
            set.add(&key(0), &key(i), i, u64::MAX);
            sets.push(set);
        }
        let sets: Vec<_> = sets.iter().collect();
        let sequences = |keep| RangeTombstones::union(&sets, keep).iter().count();
        assert_eq!(sequences(Keep::Seen(&[])), 1);
        assert_eq!(sequences(Keep::Seen(&[100])), 3, "two up to 100, one up to 200");
        assert_eq!(sequences(Keep::Outside { snapshot: 0, safe: u64::MAX }), 1);
        assert_eq!(sequences(Keep::All), 200 * 201 / 2);
        assert!(RangeTombstones::union_within(&sets, Keep::All, 200 * 201 / 2 - 1).is_none());
    }
}
