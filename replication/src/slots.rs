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

/// What a replica knows of one slot.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlotState {
    /// Everything applied.
    pub(crate) clock: DotSet,
    /// Dots that clients of this node were told of and that may not have arrived here yet. Nearly
    /// always none, and then it takes no room: there are thousands of slots.
    heard: Option<Box<DotSet>>,
    /// A key of the slot may have a counter. Never falsely false.
    pub(crate) counters: bool,
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
        state.counters |= delta.count.is_some() || !delta.resets.is_empty();
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
        let mut patch = Patch::default();
        for v in &theirs.values {
            if !state.clock.contains(v.dot) {
                patch.learned.insert(v.dot);
                patch.record.add_value(*v);
            }
        }
        for e in &theirs.expiries {
            // A dot already in the clock may name a value whose expiry was replaced here.
            if !state.clock.contains(e.dot) {
                patch.learned.insert(e.dot);
                patch.record.add_expiry(*e);
            }
        }
        for c in &theirs.counts {
            patch.record.add_count(*c);
        }
        for c in &theirs.resets {
            patch.record.add_reset(*c);
        }
        state.counters |= !theirs.counts.is_empty() || !theirs.resets.is_empty();
        state.clock.union(&patch.learned);
        state.dirty = true;
        if !bugs.contains(&Bug::ForgetsSeen) {
            let live_values: DotSet = theirs.values.iter().map(|v| v.dot).collect();
            let live_expiries: DotSet = theirs.expiries.iter().map(|e| e.dot).collect();
            let mut dead = seen.clone();
            dead.union(&theirs.pending);
            patch.discard = dead.minus(&live_values);
            patch.record.pending = patch.discard.minus(&state.clock);
            let mut dead = seen.clone();
            dead.union(&theirs.pending_expiry);
            patch.discard_expiry = dead.minus(&live_expiries);
            patch.record.pending_expiry = patch.discard_expiry.minus(&state.clock);
        }
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
        let mut value = vec![u8::from(state.counters)];
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
        state.counters |= counters != 0;
        state.clock.union(&clock);
        true
    }
}
