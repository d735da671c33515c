//! Reads: with R + W > N a read shows what was acknowledged before it began, and what an earlier
//! read showed, unless something has replaced it; and never what was replaced for sure.

use bytes::Bytes;
use replication::Dot;
use replication::row::{self, Keyspace};
use ring::Hlc;
use ring::Slot;

use super::truth::{Minted, Truth};
use crate::history::Asked;

/// Copies of each key.
const COPIES: u8 = 3;

/// A plain read ended and showed this.
pub fn winner(truth: &mut Truth, asked: &Asked, now: u64, shown: Option<&Bytes>) {
    let Some(row) = asked.rows.first() else { return };
    let found: Vec<usize> = shown.map(|v| of_value(truth, row, v)).unwrap_or_default();
    if let Some(value) = shown
        && !is_sound(truth, asked, row, value, &found)
    {
        return;
    }
    let best = found.iter().map(|i| order(truth.get(*i))).max();
    let missed = sure(truth, asked, row)
        .into_iter()
        .find(|i| best.is_none_or(|best| order(truth.get(*i)) > best));
    if let Some(missed) = missed {
        let m = truth.get(missed);
        let text = format!(
            "{asked:?} showed {shown:?} though {:?} of {} stood, acked {:?}, read {:?}",
            m.value, m.dot, m.acked, m.read
        );
        truth.breaks("a read shows what was acknowledged or read before", text);
    }
    note_read(truth, asked, now, &found);
}

/// A read of siblings ended and showed these.
pub fn siblings(truth: &mut Truth, asked: &Asked, now: u64, shown: &[Bytes]) {
    let Some(row) = asked.rows.first() else { return };
    let mut all = Vec::new();
    for value in shown {
        let found = of_value(truth, row, value);
        if !is_sound(truth, asked, row, value, &found) {
            return;
        }
        all.extend(found);
    }
    let missed = sure(truth, asked, row).into_iter().find(|i| !all.contains(i));
    if let Some(missed) = missed {
        let m = truth.get(missed);
        let text = format!("{asked:?} showed {shown:?} without {:?} of {}", m.value, m.dot);
        truth.breaks("a read of siblings shows all of them", text);
    }
    note_read(truth, asked, now, &all);
}

/// A write that was to happen only if there was no value did happen: nothing stood that it had to
/// know of.
pub fn found_nothing(truth: &mut Truth, asked: &Asked, op: u64) {
    let Some(row) = asked.rows.first() else { return };
    let stood = sure(truth, asked, row).into_iter().find(|i| truth.get(*i).op != Some(op));
    if let Some(stood) = stood {
        let m = truth.get(stood);
        let text = format!("{asked:?} found nothing, though {:?} of {} stood", m.value, m.dot);
        truth.breaks("what is set if absent was absent", text);
    }
}

/// A deletion was acknowledged: it saw whatever was sure when it began.
pub fn deleted(truth: &mut Truth, asked: &Asked, now: u64, minted: bool) {
    let Some(row) = asked.rows.first() else { return };
    let void = truth.reads_void_before;
    let seen: Vec<usize> = truth
        .indexes_of_row(row)
        .into_iter()
        .filter(|i| {
            let m = truth.get(*i);
            m.value.is_some() && m.deleted.is_none() && is_sure(m, asked, void)
        })
        .collect();
    // A deletion that found nothing rests on what its read left behind on N - R + 1 copies.
    let write = if minted { asked.write } else { COPIES + 1 - asked.read };
    // A read at ONE leaves nothing behind.
    if !minted && (asked.at < void || asked.read < 2) {
        return;
    }
    for i in seen {
        truth.get_mut(i).deleted = Some((now, asked.read, write));
    }
}

/// A flush of a slot was acknowledged.
pub fn flushed(truth: &mut Truth, slot: Slot, keyspace: Keyspace, asked: &Asked, now: u64) {
    let rows: Vec<_> = truth
        .rows()
        .filter(|r| row::slot_of(r) == Some(slot) && row::keyspace_of(r) == Some(keyspace))
        .cloned()
        .collect();
    for row in rows {
        let asked = Asked { rows: vec![row], ..asked.clone() };
        deleted(truth, &asked, now, true);
    }
}

fn of_value(truth: &Truth, row: &[u8], value: &Bytes) -> Vec<usize> {
    let is_it = |m: &Minted| m.row == row && m.value.as_ref() == Some(value);
    if value.contains(&b'#') {
        // A value of cells names many requests.
        let all = truth.indexes_of_row(row).into_iter();
        return all.filter(|i| is_it(truth.get(*i))).collect();
    }
    let Some(op) = super::truth::op_of(value) else { return Vec::new() };
    truth.of_op(op).into_iter().filter(|i| is_it(truth.get(*i))).collect()
}

fn order(m: &Minted) -> (Hlc, Dot) {
    (m.hlc, m.dot)
}

/// A value may be shown if it was minted for this key and not replaced for sure.
fn is_sound(truth: &mut Truth, asked: &Asked, row: &[u8], value: &Bytes, found: &[usize]) -> bool {
    if found.is_empty() {
        let text = format!("{asked:?} showed {value:?}, which nobody minted for {row:?}");
        truth.breaks("nothing is invented", text);
        return false;
    }
    let replaced = |m: &Minted| {
        let by_write = m.replaced_by.iter().find(|e| {
            let by = truth.get(**e);
            by.op.is_some_and(|op| asked.has_seen(op))
                || by.acked.is_some_and(|(at, write)| at < asked.at && asked.read + write > COPIES)
        });
        let by_deletion =
            m.deleted.is_some_and(|(at, _, write)| at < asked.at && asked.read + write > COPIES);
        by_write.is_some() || by_deletion
    };
    if found.iter().all(|i| replaced(truth.get(*i))) {
        let m = truth.get(found[0]);
        let by: Vec<_> = m.replaced_by.iter().map(|e| truth.get(*e).dot).collect();
        let text = format!(
            "{asked:?} showed {value:?} of {}, replaced by {by:?}, deleted {:?}",
            m.dot, m.deleted
        );
        truth.breaks("what was replaced for sure is not shown again", text);
        return false;
    }
    true
}

/// True if every read at this level that begins now has to know of the value.
fn is_sure(m: &Minted, asked: &Asked, void: u64) -> bool {
    // What the same connection asked before took effect before.
    let before = m.op.is_some_and(|op| asked.after.contains(&op));
    let acked =
        m.acked.is_some_and(|(at, write)| (before || at < asked.at) && asked.read + write > COPIES);
    // A read left the value on N - R + 1 copies; one that asks as many copies meets one of them.
    let read =
        m.read.iter().any(|(at, r)| *at < asked.at && *at > void && *r >= 2 && asked.read >= *r);
    // A session is never shown less than it has seen, at whatever level.
    acked || read || m.op.is_some_and(|op| asked.has_seen(op))
}

/// Values that the read must know of and that nothing has replaced.
fn sure(truth: &Truth, asked: &Asked, row: &[u8]) -> Vec<usize> {
    let void = truth.reads_void_before;
    truth
        .alive_of(row)
        .iter()
        .copied()
        .filter(|i| {
            let m = truth.get(*i);
            m.replaced_by.is_empty() && is_sure(m, asked, void)
        })
        .collect()
}

fn note_read(truth: &mut Truth, asked: &Asked, now: u64, shown: &[usize]) {
    for i in shown {
        let m = truth.get_mut(*i);
        if m.read.len() < 8 && m.read.iter().all(|(_, r)| *r > asked.read) || m.read.is_empty() {
            m.read.push((now, asked.read));
        }
    }
}
