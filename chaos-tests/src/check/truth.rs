//! Truth: every mutation that any machine ever minted, and what became known of it.
//!
//! It is gathered where a machine hands its change to the disk, so it holds what clients were never
//! told of as well. "Replaced" always means: a minted delta's discard context holds the dot.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use replication::message::RequestKey;
use replication::record::Counts;
use replication::{Delta, Dot, DotSet, RowChange, fold};
use ring::{Actor, Hlc, Slot, WallMillis};

use super::Violation;
use crate::history::{CELL_BYTES, op_of_cell};

/// One mutation.
#[derive(Clone, Debug)]
pub struct Minted {
    /// Its slot.
    pub slot: Slot,
    /// Its name there.
    pub dot: Dot,
    /// Its key.
    pub row: Bytes,
    /// Its time by the minter's hybrid clock.
    pub hlc: Hlc,
    /// When it was minted, in true time.
    pub at: u64,
    /// What it replaces.
    pub discard: DotSet,
    /// It replaces values.
    pub discards_values: bool,
    /// It replaces expiries.
    pub discards_expiry: bool,
    /// The value that it adds.
    pub value: Option<Bytes>,
    /// The expiry that it adds.
    pub expiry: Option<WallMillis>,
    /// The minter's part of a counter.
    pub count: Option<(u64, i128)>,
    /// What it has seen of the counter that it resets.
    pub resets: Counts,
    /// The client's request, as its value tells.
    pub op: Option<u64>,
    /// When the client heard that it was done, and how many copies it waited for.
    pub acked: Option<(u64, u8)>,
    /// Deltas that replace its value.
    pub replaced_by: Vec<usize>,
    /// Reads that returned its value: when they ended, and how many copies they asked.
    pub read: Vec<(u64, u8)>,
    /// A deletion that had to see it was acknowledged: when, with which read and write level.
    pub deleted: Option<(u64, u8, u8)>,
}

/// Everything that was minted.
#[derive(Debug, Default)]
pub struct Truth {
    minted: Vec<Minted>,
    by_dot: BTreeMap<(Slot, Dot), usize>,
    by_row: BTreeMap<Bytes, Vec<usize>>,
    by_op: BTreeMap<u64, Vec<usize>>,
    /// Values not replaced yet.
    alive: BTreeMap<Bytes, Vec<usize>>,
    /// Requests whose cells some value of the key held.
    cells: BTreeMap<Bytes, BTreeSet<u64>>,
    requests: BTreeMap<RequestKey, (Actor, u64)>,
    /// What reads showed before this time proves nothing any more: all machines lost power.
    pub reads_void_before: u64,
    /// The first promise that was found broken.
    pub broken: Option<Violation>,
}

impl Truth {
    /// A machine applies changes: notes those that it minted itself.
    pub fn applied(&mut self, now: u64, turn: u64, me: Actor, changes: &[RowChange]) {
        for change in changes {
            let RowChange::Merge { operand, .. } = change else { continue };
            let Some(raw) = fold::delta_of(operand) else { continue };
            let Some(delta) = Delta::decode(raw) else { continue };
            if delta.dot.actor == me {
                self.mint(now, turn, &delta);
            }
        }
    }

    fn mint(&mut self, now: u64, turn: u64, delta: &Delta<'_>) {
        let slot = delta.slot();
        if let Some(known) = self.by_dot.get(&(slot, delta.dot)) {
            let known = &self.minted[*known];
            let same = known.row == delta.row
                && known.hlc == delta.hlc
                && known.value.as_deref() == delta.value;
            if !same {
                let text = format!("{slot:?} {} names two mutations", delta.dot);
                self.breaks("a dot names one mutation", text);
            }
            return;
        }
        if let Some(request) = delta.request {
            let by = (delta.dot.actor, turn);
            let first = *self.requests.entry(request).or_insert(by);
            if first != by {
                let text = format!("{request:?} was minted by {first:?} and by {by:?}");
                self.breaks("a request is minted once", text);
            }
        }
        let index = self.minted.len();
        let row = Bytes::copy_from_slice(delta.row);
        let minted = Minted {
            slot,
            dot: delta.dot,
            row: row.clone(),
            hlc: delta.hlc,
            at: now,
            discard: delta.discard.clone(),
            discards_values: delta.discards_values,
            discards_expiry: delta.discards_expiry,
            value: delta.value.map(Bytes::copy_from_slice),
            expiry: delta.expiry,
            count: delta.count,
            resets: delta.resets.clone(),
            op: delta.value.and_then(|value| self.maker_of(&row, value)),
            acked: None,
            replaced_by: Vec::new(),
            read: Vec::new(),
            deleted: None,
        };
        let alive = self.alive.entry(row.clone()).or_default();
        if delta.discards_values {
            alive.retain(|i| {
                let replaced = delta.discard.contains(self.minted[*i].dot);
                if replaced {
                    self.minted[*i].replaced_by.push(index);
                }
                // Others may replace it too: it stays in sight for a while.
                !replaced || self.minted[*i].replaced_by.len() < 4
            });
        }
        if delta.value.is_some() {
            alive.push(index);
        }
        if let Some(op) = minted.op {
            self.by_op.entry(op).or_default().push(index);
        }
        self.by_dot.insert((slot, delta.dot), index);
        self.by_row.entry(row).or_default().push(index);
        self.minted.push(minted);
    }

    /// The request that made a value: named behind its last mark, or by the one cell that no value of
    /// the key held before.
    fn maker_of(&mut self, row: &Bytes, value: &[u8]) -> Option<u64> {
        if !value.contains(&b'#') {
            return op_of(value);
        }
        let known = self.cells.entry(row.clone()).or_default();
        let new = value.chunks(CELL_BYTES).filter_map(op_of_cell).find(|op| !known.contains(op));
        known.extend(new);
        new
    }

    /// A promise is broken.
    pub fn breaks(&mut self, promise: &'static str, text: String) {
        if self.broken.is_none() {
            self.broken = Some(Violation::new(promise, text));
        }
    }

    /// Everything minted, in order.
    #[must_use]
    pub fn all(&self) -> &[Minted] {
        &self.minted
    }

    /// The mutations of a key, in order.
    pub fn of_row(&self, row: &[u8]) -> impl Iterator<Item = &Minted> {
        self.by_row.get(row).into_iter().flatten().map(|i| &self.minted[*i])
    }

    /// Their numbers.
    #[must_use]
    pub fn indexes_of_row(&self, row: &[u8]) -> Vec<usize> {
        self.by_row.get(row).cloned().unwrap_or_default()
    }

    /// The values of a key that were not replaced yet, and some that were.
    #[must_use]
    pub fn alive_of(&self, row: &[u8]) -> &[usize] {
        self.alive.get(row).map_or(&[], Vec::as_slice)
    }

    /// The keys that were ever written.
    pub fn rows(&self) -> impl Iterator<Item = &Bytes> {
        self.by_row.keys()
    }

    /// A mutation by number.
    #[must_use]
    pub fn get(&self, index: usize) -> &Minted {
        &self.minted[index]
    }

    /// A mutation by number, to be marked.
    pub fn get_mut(&mut self, index: usize) -> &mut Minted {
        &mut self.minted[index]
    }

    /// The mutations that carry out a client's request.
    #[must_use]
    pub fn of_op(&self, op: u64) -> Vec<usize> {
        self.by_op.get(&op).cloned().unwrap_or_default()
    }
}

/// The request that made a value: the number behind its last mark.
#[must_use]
pub fn op_of(value: &[u8]) -> Option<u64> {
    let mark = value.iter().rposition(|b| matches!(b, b'=' | b'+'))?;
    core::str::from_utf8(&value[mark + 1..]).ok()?.parse().ok()
}
