//! Durability: what was acknowledged is there at the end, or was replaced by something that was
//! minted; and what was refused never happened.

use std::collections::BTreeMap;

use replication::{DotSet, Record};
use ring::Slot;

use super::convergence::Copies;
use super::truth::Truth;
use crate::history::{Asked, End, History};

/// A request was acknowledged.
pub fn acknowledged(truth: &mut Truth, op: u64, asked: &Asked, now: u64) {
    for i in truth.of_op(op) {
        let m = truth.get_mut(i);
        if m.acked.is_none() {
            m.acked = Some((now, asked.write));
        }
    }
}

/// A request was refused with the promise that nothing was done.
pub fn failed(truth: &mut Truth, op: u64, asked: &Asked) {
    if let Some(i) = truth.of_op(op).first() {
        let text = format!("op {op} {asked:?} was refused and minted as {}", truth.get(*i).dot);
        truth.breaks("what is refused is not done", text);
    }
}

/// At the end: what was refused was not done later either.
pub fn check_refused(truth: &mut Truth, history: &History) {
    let refused = history.all().iter().enumerate().filter(|(_, asked)| asked.end == End::Failed);
    for (op, asked) in refused {
        failed(truth, op as u64, asked);
    }
}

/// At the end, against what each replica keeps and the clock that all agreed on.
pub fn check(truth: &mut Truth, copies: &Copies, clocks: &BTreeMap<Slot, DotSet>) {
    let mut lost = None;
    for m in truth.all().iter().filter(|m| m.acked.is_some()) {
        let is_known = clocks.get(&m.slot).is_some_and(|c| c.contains(m.dot));
        let nodes = copies.get(&m.row);
        let live = |bytes: &bytes::Bytes| {
            Record::decode(bytes).is_some_and(|r| r.values.iter().any(|v| v.dot == m.dot))
        };
        let is_there = nodes.is_some_and(|n| !n.is_empty() && n.values().all(live));
        let is_replaced = !m.replaced_by.is_empty();
        if !(is_replaced || is_known && is_there) {
            lost = Some(format!(
                "{:?} of {} (acked {:?}) in clocks: {is_known}, on all replicas: {is_there}",
                m.value, m.dot, m.acked
            ));
            break;
        }
    }
    if let Some(text) = lost {
        truth.breaks("no acknowledged write is lost", text);
    }
}
