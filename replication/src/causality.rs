//! Who has seen what: dots, and sets of dots kept as runs.
//!
//! Every mutation is named by a [`Dot`]: an actor and a number that grows by one with each mutation
//! of that actor in that slot. A [`DotSet`] holds dots as runs per actor, so a replica that missed
//! nothing needs one run an actor and a gap costs one more. It is used as a slot's clock (what a
//! replica has applied), as a discard context (what a write replaces) and as a seen set (what a state
//! answer speaks about). Invariant: actors ascend; runs of an actor ascend, do not touch, and are
//! not empty; sequences start at 1.
//!
//! Preguiça et al., "Dotted Version Vectors" (2010); Gonçalves et al., "DottedDB" (SRDS 2017).

use core::fmt;

use bytes::Bytes;
use ring::Actor;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::encoding::{Reader, put_varint};

/// The name of one mutation within a slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Who minted it.
    pub actor: Actor,
    /// The how-manieth of that actor in that slot, from 1.
    pub seq: u64,
}

impl Dot {
    /// The dot `seq` of `actor`.
    #[must_use]
    pub const fn new(actor: Actor, seq: u64) -> Self {
        Self { actor, seq }
    }

    /// Appends the encoded form.
    pub fn encode(self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.actor.node.0));
        put_varint(out, u64::from(self.actor.incarnation.0));
        put_varint(out, self.seq);
    }

    /// Reads what [`Dot::encode`] wrote.
    pub fn decode(r: &mut Reader<'_>) -> Option<Self> {
        Some(Self { actor: decode_actor(r)?, seq: r.varint()? })
    }
}

/// Reads a node number and an incarnation.
pub(crate) fn decode_actor(r: &mut Reader<'_>) -> Option<Actor> {
    Some(Actor::new(u32::try_from(r.varint()?).ok()?, u32::try_from(r.varint()?).ok()?))
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.actor, self.seq)
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

type Runs = SmallVec<[(u64, u64); 1]>;

#[derive(Clone, PartialEq, Eq)]
struct Entry {
    actor: Actor,
    runs: Runs,
}

/// A set of dots of one slot.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DotSet {
    entries: SmallVec<[Entry; 3]>,
}

impl DotSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// True if it holds no dot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True if `dot` is in it.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        self.entries
            .iter()
            .find(|e| e.actor == dot.actor)
            .is_some_and(|e| e.runs.iter().any(|(lo, hi)| *lo <= dot.seq && dot.seq <= *hi))
    }

    /// The highest sequence of `actor` in it, gaps or not; 0 if there is none.
    #[must_use]
    pub fn highest(&self, actor: Actor) -> u64 {
        self.runs_of(actor).last().map_or(0, |(_, hi)| *hi)
    }

    /// The highest sequence of `actor` below which nothing is missing; 0 if 1 is missing.
    #[must_use]
    pub fn base(&self, actor: Actor) -> u64 {
        match self.runs_of(actor).first() {
            Some((1, hi)) => *hi,
            _ => 0,
        }
    }

    /// The actors that have a dot in it, ascending.
    pub fn actors(&self) -> impl Iterator<Item = Actor> + '_ {
        self.entries.iter().map(|e| e.actor)
    }

    /// How many runs it takes beyond one an actor: the number of gaps.
    #[must_use]
    pub fn gaps(&self) -> usize {
        self.entries.iter().map(|e| e.runs.len() - usize::from(e.runs[0].0 == 1)).sum()
    }

    /// How many dots it holds.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.entries.iter().flat_map(|e| &e.runs).map(|(lo, hi)| hi - lo + 1).sum()
    }

    /// Adds one dot; false if it was there already.
    pub fn insert(&mut self, dot: Dot) -> bool {
        let e = self.entry(dot.actor);
        // The usual case: the next one of that actor.
        if let Some((_, hi)) = e.runs.last_mut()
            && dot.seq == *hi + 1
        {
            *hi = dot.seq;
            return true;
        }
        insert_run(&mut e.runs, dot.seq, dot.seq)
    }

    /// Adds the dots `lo..=hi` of `actor`.
    pub fn insert_run(&mut self, actor: Actor, lo: u64, hi: u64) {
        debug_assert!(1 <= lo && lo <= hi, "an empty run {lo}..={hi}");
        insert_run(&mut self.entry(actor).runs, lo, hi);
    }

    /// Adds every dot of `other`.
    pub fn union(&mut self, other: &Self) {
        for e in &other.entries {
            let mine = self.entry(e.actor);
            if mine.runs == e.runs {
                continue;
            }
            for (lo, hi) in &e.runs {
                insert_run(&mut mine.runs, *lo, *hi);
            }
        }
    }

    /// Removes one dot.
    pub fn remove(&mut self, dot: Dot) {
        let mut one = Self::new();
        one.insert(dot);
        *self = self.minus(&one);
    }

    /// The dots of this set that are not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut out = Self::new();
        for e in &self.entries {
            let theirs = other.runs_of(e.actor);
            let mut runs = Runs::new();
            for (lo, hi) in &e.runs {
                subtract(*lo, *hi, theirs, &mut runs);
            }
            if !runs.is_empty() {
                out.entries.push(Entry { actor: e.actor, runs });
            }
        }
        out
    }

    /// True if every dot of `other` is in this set.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.entries.iter().all(|e| {
            let mine = self.runs_of(e.actor);
            e.runs.iter().all(|(lo, hi)| mine.iter().any(|(a, b)| a <= lo && hi <= b))
        })
    }

    /// The runs, actor by actor: `(actor, lowest, highest)`.
    pub fn runs(&self) -> impl Iterator<Item = (Actor, u64, u64)> + '_ {
        self.entries.iter().flat_map(|e| e.runs.iter().map(|(lo, hi)| (e.actor, *lo, *hi)))
    }

    /// Appends the encoded form; one byte if it is empty.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.entries.len() as u64);
        for e in &self.entries {
            put_varint(out, u64::from(e.actor.node.0));
            put_varint(out, u64::from(e.actor.incarnation.0));
            put_varint(out, e.runs.len() as u64);
            let mut last = 0;
            for (lo, hi) in &e.runs {
                put_varint(out, lo - last);
                put_varint(out, hi - lo);
                last = *hi;
            }
        }
    }

    /// The encoded form, as it travels and as clients keep it.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        self.encode(&mut out);
        out.into()
    }

    /// Reads what [`DotSet::encode`] wrote; `None` if it is malformed.
    pub fn decode(r: &mut Reader<'_>) -> Option<Self> {
        let n = r.count(5)?;
        let mut out = Self::new();
        for _ in 0..n {
            let actor = decode_actor(r)?;
            if out.entries.last().is_some_and(|e| e.actor >= actor) {
                return None;
            }
            let count = r.count(2)?;
            let mut runs = Runs::new();
            let mut last = 0u64;
            for i in 0..count {
                let step = r.varint()?;
                // Runs neither touch nor start at 0.
                if step < if i == 0 { 1 } else { 2 } {
                    return None;
                }
                let lo = last.checked_add(step)?;
                let hi = lo.checked_add(r.varint()?)?;
                runs.push((lo, hi));
                last = hi;
            }
            if runs.is_empty() {
                return None;
            }
            out.entries.push(Entry { actor, runs });
        }
        Some(out)
    }

    fn runs_of(&self, actor: Actor) -> &[(u64, u64)] {
        self.entries.iter().find(|e| e.actor == actor).map_or(&[], |e| &e.runs)
    }

    fn entry(&mut self, actor: Actor) -> &mut Entry {
        let at = self.entries.iter().position(|e| e.actor >= actor).unwrap_or(self.entries.len());
        if self.entries.get(at).is_none_or(|e| e.actor != actor) {
            self.entries.insert(at, Entry { actor, runs: Runs::new() });
        }
        &mut self.entries[at]
    }
}

/// Adds `lo..=hi` to sorted runs; false if nothing was new.
fn insert_run(runs: &mut Runs, mut lo: u64, mut hi: u64) -> bool {
    let from = runs.partition_point(|(_, b)| b.saturating_add(1) < lo);
    let to = from + runs[from..].iter().take_while(|(a, _)| *a <= hi.saturating_add(1)).count();
    if to == from {
        runs.insert(from, (lo, hi));
        return true;
    }
    if to == from + 1 && runs[from].0 <= lo && hi <= runs[from].1 {
        return false;
    }
    lo = lo.min(runs[from].0);
    hi = hi.max(runs[to - 1].1);
    runs.drain(from + 1..to);
    runs[from] = (lo, hi);
    true
}

/// Pushes what of `lo..=hi` is outside of `theirs`.
fn subtract(mut lo: u64, hi: u64, theirs: &[(u64, u64)], out: &mut Runs) {
    for (a, b) in theirs {
        if *b < lo {
            continue;
        }
        if *a > hi {
            break;
        }
        if *a > lo {
            out.push((lo, a - 1));
        }
        lo = b + 1;
        if lo > hi {
            return;
        }
    }
    out.push((lo, hi));
}

impl FromIterator<Dot> for DotSet {
    fn from_iter<T: IntoIterator<Item = Dot>>(dots: T) -> Self {
        let mut set = Self::new();
        for dot in dots {
            set.insert(dot);
        }
        set
    }
}

impl fmt::Debug for DotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (actor, lo, hi)) in self.runs().enumerate() {
            let comma = if i == 0 { "" } else { " " };
            if lo == hi {
                write!(f, "{comma}{actor}:{lo}")?;
            } else {
                write!(f, "{comma}{actor}:{lo}-{hi}")?;
            }
        }
        f.write_str("}")
    }
}
