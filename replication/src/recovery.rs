//! Recovery: what a machine is told of the life before, from the log and the clock rows.

use ring::{Hlc, Slot, WallMillis};

use crate::causality::DotSet;
use crate::delta::Delta;
use crate::event::RowChange;
use crate::fold::{self, Patch};
use crate::known::Known;
use crate::row;
use crate::slots::Slots;

/// Slot clocks and known requests, gathered before a machine starts.
#[derive(Clone, Debug)]
pub struct Recovery {
    pub(crate) slots: Slots,
    pub(crate) known: Known,
    pub(crate) hlc: Hlc,
    /// Changes that could not be read: a newer version wrote them, or they are damaged.
    pub(crate) unreadable: u64,
}

impl Recovery {
    /// Nothing recovered yet, for `core` of `cores`.
    #[must_use]
    pub fn new(core: u8, cores: u8) -> Self {
        Self { slots: Slots::new(core, cores), known: Known::default(), hlc: Hlc(0), unreadable: 0 }
    }

    /// A change found in the log, or a clock row found in the tables; in any order. Changes of slots
    /// of other cores are passed over.
    pub fn learn(&mut self, change: &RowChange) {
        let (row, understood) = match change {
            RowChange::Put { row, value } => (row, self.learn_put(row, value)),
            RowChange::Merge { row, operand } => (row, self.learn_operand(row, operand)),
        };
        if understood.is_none() {
            tracing::warn!(row = ?row, "a change in the log cannot be read; its slot will be pulled");
            self.unreadable += 1;
        }
    }

    /// What is known of a slot of this core.
    #[must_use]
    pub fn clock(&self, slot: Slot) -> &DotSet {
        self.slots.clock(slot)
    }

    /// How many changes could not be read.
    #[must_use]
    pub const fn unreadable(&self) -> u64 {
        self.unreadable
    }

    fn slot(&self, row: &[u8]) -> Option<Slot> {
        row::slot_of(row).filter(|slot| self.slots.owns(*slot))
    }

    fn learn_put(&mut self, row: &[u8], value: &[u8]) -> Option<()> {
        let Some(slot) = self.slot(row) else { return Some(()) };
        if !row::is_clock(row) {
            return Some(());
        }
        self.slots.learn_clock_row(slot, value).then_some(())
    }

    fn learn_operand(&mut self, row: &[u8], operand: &[u8]) -> Option<()> {
        let Some(slot) = self.slot(row) else { return Some(()) };
        let state = self.slots.get_mut(slot);
        state.dirty = true;
        if let Some(raw) = fold::delta_of(operand) {
            let delta = Delta::decode(raw)?;
            state.clock.insert(delta.dot);
            if delta.count.is_some() || !delta.resets.is_empty() {
                state.counters.add(row);
            }
            self.hlc = self.hlc.max(delta.hlc);
            if let Some(request) = delta.request {
                self.known.insert(request, WallMillis(delta.hlc.wall().0));
            }
        } else {
            let patch = Patch::decode(operand)?;
            state.clock.union(&patch.learned);
            if !patch.record.counts.is_empty() || !patch.record.resets.is_empty() {
                state.counters.add(row);
            }
        }
        Some(())
    }
}
