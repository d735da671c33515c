//! Slots: what this replica has applied, slot by slot, and how a mutation enters it.
//!
//! Invariant: a dot enters the clock together with the change that it names (the row change and the
//! clock are handed out by one call, and the caller puts them in one batch). A delta is applied at
//! most once; what it discards beyond the clock is kept as pending, never guessed.

use bytes::Bytes;
use ring::{Actor, SLOTS, Slot};

use crate::bugs::Bug;
use crate::causality::{Dot, DotSet};
use crate::delta::Delta;
use crate::encoding::Reader;
use crate::event::RowChange;
use crate::fold::{self, Patch};
use crate::raw::RawDelta;
use crate::record::Record;
use crate::row::{self, Row};

/// Which keys of a slot may have a counter: one bit for all keys whose hashes share six bits. Never
/// falsely false.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters(u64);

impl Counters {
    /// Every key may.
    const EVERY: Self = Self(u64::MAX);

    fn bit(row: &[u8]) -> u64 {
        1 << (row::hash48(row) % 64)
    }

    /// This key has one.
    pub(crate) fn add(&mut self, row: &[u8]) {
        self.0 |= Self::bit(row);
    }

    /// Whether this key may have one.
    pub(crate) fn may_have(self, row: &[u8]) -> bool {
        self.0 != 0 && self.0 & Self::bit(row) != 0
    }
}

/// What a replica knows of one slot.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlotState {
    /// Everything applied.
    pub(crate) clock: DotSet,
    /// Dots that clients of this node were told of and that may not have arrived here yet. Nearly
    /// always none, and then it takes no room: there are thousands of slots.
    heard: Option<Box<DotSet>>,
    /// Which keys of the slot may have a counter.
    pub(crate) counters: Counters,
    /// The clock row on disk is behind.
    pub(crate) dirty: bool,
}

impl SlotState {
    /// True if all that clients of this node were told of has arrived here.
    pub(crate) fn has_what_was_heard(&self) -> bool {
        self.heard.as_ref().is_none_or(|heard| self.clock.covers(heard))
    }

    /// A client of this node was told of these dots.
    pub(crate) fn hear(&mut self, dots: &DotSet) {
        let mut all = dots.clone();
        if let Some(heard) = &self.heard {
            all.union(heard);
        }
        let missing = all.minus(&self.clock);
        self.heard = (!missing.is_empty()).then(|| Box::new(missing));
    }
}

/// All slots of a core.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    first: u16,
    states: Vec<SlotState>,
}

impl Slots {
    /// The slots that `core` of `cores` owns, all empty.
    pub(crate) fn new(core: u8, cores: u8) -> Self {
        let owned = |s: &Slot| s.core(usize::from(cores)) == usize::from(core);
        let first = Slot::all().find(owned).map_or(SLOTS, |s| s.0);
        let count = Slot::all().filter(owned).count();
        Self { first, states: vec![SlotState::default(); count] }
    }

    /// The slots, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = Slot> + use<> {
        let first = self.first;
        (0..self.states.len() as u16).map(move |i| Slot(first + i))
    }

    /// True if this core owns the slot.
    pub(crate) fn owns(&self, slot: Slot) -> bool {
        slot.0 >= self.first && usize::from(slot.0 - self.first) < self.states.len()
    }

    pub(crate) fn get(&self, slot: Slot) -> &SlotState {
        &self.states[usize::from(slot.0 - self.first)]
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> &mut SlotState {
        &mut self.states[usize::from(slot.0 - self.first)]
    }

    pub(crate) fn clock(&self, slot: Slot) -> &DotSet {
        &self.get(slot).clock
    }

    /// The next dot of `me` in the slot.
    pub(crate) fn next_dot(&self, slot: Slot, me: Actor) -> Dot {
        Dot::new(me, self.clock(slot).highest(me) + 1)
    }

    /// Takes in a delta of `row`. `None` if its dot is in the clock already.
    pub(crate) fn apply(
        &mut self,
        delta: &Delta<'_>,
        row: Row,
        raw: &RawDelta,
        bugs: &[Bug],
    ) -> Option<RowChange> {
        let state = self.get_mut(delta.slot());
        if bugs.contains(&Bug::MaximumOnReceipt) {
            if state.clock.highest(delta.dot.actor) >= delta.dot.seq {
                return None;
            }
            state.clock.insert_run(delta.dot.actor, 1, delta.dot.seq);
        } else if !state.clock.insert(delta.dot) {
            return None;
        }
        state.dirty = true;
        if delta.count.is_some() || !delta.resets.is_empty() {
            state.counters.add(delta.row);
        }
        // The usual case: all that is replaced has been here.
        if state.clock.covers(&delta.discard) || bugs.contains(&Bug::DropsPending) {
            return Some(RowChange::Merge { row, operand: raw.operand() });
        }
        let pending = delta.discard.minus(&state.clock);
        let none = DotSet::new();
        let operand = fold::delta_operand(
            raw.encoded(),
            if delta.discards_values { &pending } else { &none },
            if delta.discards_expiry { &pending } else { &none },
        );
        Some(RowChange::Merge { row, operand })
    }

    /// Takes in a key's state from another replica: what it holds and what it has seen. The clock
    /// learns the live dots that came, and nothing else.
    pub(crate) fn install(
        &mut self,
        slot: Slot,
        row: Bytes,
        theirs: &Record<'_>,
        seen: &DotSet,
        bugs: &[Bug],
    ) -> RowChange {
        let state = self.get_mut(slot);
        let patch = if bugs.contains(&Bug::ForgetsSeen) {
            Patch::of_live(theirs, &state.clock)
        } else {
            Patch::of_state(theirs, seen, &state.clock)
        };
        if !theirs.counts.is_empty() || !theirs.resets.is_empty() {
            state.counters.add(&row);
        }
        state.clock.union(&patch.learned);
        state.dirty = true;
        RowChange::Merge { row, operand: patch.to_operand() }
    }

    /// The change that forgets pending discards which the clock covers by now, if there are any.
    pub(crate) fn strip(&self, row: &Bytes, record: &Record<'_>) -> Option<RowChange> {
        let clock = self.clock(row::slot_of(row)?);
        let mut pending = record.pending.clone();
        pending.union(&record.pending_expiry);
        let learned = pending.minus(&pending.minus(clock));
        if learned.is_empty() {
            return None;
        }
        let patch = Patch { learned, ..Patch::default() };
        Some(RowChange::Merge { row: row.clone(), operand: patch.to_operand() })
    }

    /// The row that keeps a slot's clock.
    pub(crate) fn clock_row(&self, slot: Slot) -> RowChange {
        let state = self.get(slot);
        let mut value = vec![u8::from(state.counters != Counters::default())];
        state.clock.encode(&mut value);
        RowChange::Put { row: row::of_clock(slot), value: Bytes::from(value) }
    }

    /// Reads a clock row back into the slot's state.
    pub(crate) fn learn_clock_row(&mut self, slot: Slot, value: &[u8]) -> bool {
        let mut r = Reader::new(value);
        let (Some(counters), Some(clock)) = (r.byte(), DotSet::decode(&mut r)) else {
            return false;
        };
        let state = self.get_mut(slot);
        if counters != 0 {
            // The row says that there are some, and not which.
            state.counters = Counters::EVERY;
        }
        state.clock.union(&clock);
        true
    }
}

#[cfg(test)]
mod tests {
    use ring::Incarnation;

    use super::*;

    #[test]
    fn a_counter_is_never_overlooked_and_the_clock_row_says_that_there_are_some() {
        let mut slots = Slots::new(0, 1);
        let rows: Vec<Row> =
            (0..100).map(|i| row::of_key(0, format!("{{t}}{i}").as_bytes())).collect();
        let slot = row::slot_of(&rows[0]).expect("a row has a slot");
        let me = Actor { node: ring::NodeId(1), incarnation: Incarnation(1) };
        let mut scratch = Vec::new();
        for (i, row) in rows[..10].iter().enumerate() {
            assert!(rows[..i].iter().all(|r| slots.get(slot).counters.may_have(r)));
            let mut delta = Delta::new(row, slots.next_dot(slot, me), ring::Hlc(1));
            delta.count = Some((delta.dot.seq, 1));
            let raw = RawDelta::of(&delta, &mut scratch);
            assert!(slots.apply(&delta, row.clone(), &raw, &[]).is_some());
        }
        let counters = slots.get(slot).counters;
        let others = rows[10..].iter().filter(|r| counters.may_have(r)).count();
        assert!(others < 45, "{others} of 90 other keys are taken for counters");
        // What a restart reads back.
        let RowChange::Put { value, .. } = slots.clock_row(slot) else {
            panic!("a clock row is put")
        };
        let mut later = Slots::new(0, 1);
        assert!(!later.get(slot).counters.may_have(&rows[0]));
        assert!(later.learn_clock_row(slot, &value));
        assert!(rows.iter().all(|r| later.get(slot).counters.may_have(r)));
    }
}
