//! Listings: the rows of a slot in the order of SCAN.
//!
//! The cursor of SCAN is a slot and a hash within it, so a slot's keys must be found in hash order
//! though the engine sorts them by key. A slot with few rows is sorted on the spot. A large one is
//! sorted once and the order kept for a while, so that a scan over it is not quadratic: a key that
//! exists during the whole scan is in the order from the start, one that comes later need not be
//! returned, and one that is gone is found to be gone when its record is read.
//!
//! Most slots of a small keyspace hold nothing: a run of such slots costs one look for where it ends,
//! not a read of each.

use ring::Slot;

use crate::row::{self, Keyspace, Row};

/// A slot with more rows than this is cut in hash order; a smaller one is returned whole.
pub const WHOLE_SLOT_MAX: usize = 1_024;

/// How many large slots' orders are kept.
const ORDERS_MAX: usize = 8;

/// Reads the rows of one replica; implemented over the engine.
pub trait Rows {
    /// Calls `f` with every row of a keyspace in a slot and its encoded record, in row order.
    ///
    /// # Errors
    /// What the engine says.
    fn each(
        &self,
        slot: Slot,
        keyspace: Keyspace,
        f: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), String>;

    /// The first slot from `from` to `last` that may hold rows of a keyspace; those before it hold
    /// none, and all hold none if there is no such slot. What cannot be read may be a row: reading
    /// its slot says so.
    fn first_filled(&self, from: Slot, last: Slot, keyspace: Keyspace) -> Option<Slot>;

    /// The encoded record of one row; empty if there is none.
    ///
    /// # Errors
    /// What the engine says.
    fn get(&self, row: &[u8]) -> Result<Vec<u8>, String>;
}

/// What a listing gives: rows with their records, and where to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// In cursor order.
    pub rows: Vec<(Row, bytes::Bytes)>,
    /// Every row before this (slot, hash) is in it; the slot may be one past the last.
    pub next: (u32, u64),
}

struct Order {
    slot: Slot,
    keyspace: Keyspace,
    rows: Vec<(u64, Row)>,
}

/// The orders of large slots that were listed lately.
#[derive(Default)]
pub struct Listings {
    orders: Vec<Order>,
}

impl Listings {
    /// Lists whole slots from `from` (and `from_hash` within it) to `last`, until `count` rows are
    /// reached. Only a slot with more than [`WHOLE_SLOT_MAX`] rows is cut, never between equal
    /// hashes.
    ///
    /// # Errors
    /// What the engine says.
    pub fn list(
        &mut self,
        source: &dyn Rows,
        keyspace: Keyspace,
        (from, from_hash): (Slot, u64),
        last: Slot,
        count: u32,
    ) -> Result<Listed, String> {
        let mut out = Listed::default();
        let count = (count as usize).max(1);
        let mut raw = from.0;
        while raw <= last.0 {
            let mut follows = raw + 1;
            let slot = Slot(raw);
            let start = if slot == from { from_hash } else { 0 };
            out.next = (u32::from(raw), start);
            if out.rows.len() >= count {
                return Ok(out);
            }
            if let Some(order) = self.known(slot, keyspace, start) {
                if let Some(cut) = take(source, &order.rows, start, count, &mut out)? {
                    out.next = (u32::from(raw), cut);
                    return Ok(out);
                }
            } else {
                let mut rows = Vec::new();
                source.each(slot, keyspace, &mut |row, record| {
                    if let Some(key) = row::key_of(row) {
                        rows.push((row::hash48(&key), Row::copy_from_slice(row), record.to_vec()));
                    }
                })?;
                rows.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
                if rows.is_empty() {
                    follows = self.behind_empty(source, keyspace, follows, last);
                } else if rows.len() <= WHOLE_SLOT_MAX {
                    out.rows.extend(
                        rows.into_iter().filter(|r| r.0 >= start).map(|r| (r.1, r.2.into())),
                    );
                } else {
                    let rows = rows.into_iter().map(|r| (r.0, r.1)).collect();
                    self.keep(Order { slot, keyspace, rows });
                    let rows = &self.orders.last().expect("kept just now").rows;
                    if let Some(cut) = take(source, rows, start, count, &mut out)? {
                        out.next = (u32::from(raw), cut);
                        return Ok(out);
                    }
                }
            }
            out.next = (u32::from(follows), 0);
            raw = follows;
        }
        Ok(out)
    }

    /// Where a walk goes on that would read slot `next`, after one without rows: at the first slot
    /// that may hold some, or past the last.
    fn behind_empty(
        &mut self,
        source: &dyn Rows,
        keyspace: Keyspace,
        next: u16,
        last: Slot,
    ) -> u16 {
        if next > last.0 {
            return next;
        }
        let filled = source.first_filled(Slot(next), last, keyspace);
        let filled = filled.map_or(last.0 + 1, |slot| slot.0);
        // Slots passed over are walked from their start, as if they were read.
        self.orders.retain(|o| o.keyspace != keyspace || !(next..filled).contains(&o.slot.0));
        filled
    }

    /// The kept order of a slot, unless a scan of it begins anew: that must see what is there now.
    fn known(&mut self, slot: Slot, keyspace: Keyspace, start: u64) -> Option<&Order> {
        if start == 0 {
            self.orders.retain(|o| (o.slot, o.keyspace) != (slot, keyspace));
            return None;
        }
        self.orders.iter().find(|o| (o.slot, o.keyspace) == (slot, keyspace))
    }

    fn keep(&mut self, order: Order) {
        if self.orders.len() == ORDERS_MAX {
            self.orders.remove(0);
        }
        self.orders.push(order);
    }
}

/// Takes rows from `start` on until `count` are reached; the hash to go on from, if not all.
fn take(
    source: &dyn Rows,
    rows: &[(u64, Row)],
    start: u64,
    count: usize,
    out: &mut Listed,
) -> Result<Option<u64>, String> {
    let begin = rows.partition_point(|(hash, _)| *hash < start);
    let mut previous = None;
    for (hash, row) in &rows[begin..] {
        if out.rows.len() >= count && previous != Some(*hash) {
            return Ok(Some(*hash));
        }
        previous = Some(*hash);
        let record = source.get(row)?;
        if !record.is_empty() {
            out.rows.push((row.clone(), record.into()));
        }
    }
    Ok(None)
}
