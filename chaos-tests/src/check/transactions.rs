//! Transactions: of one slot all is seen or nothing, and a watched key that changed stops them.
//!
//! What is promised of WATCH, exactly: EXEC compares what R replicas have with what was read when the
//! key was watched. So if R + W > N, a write that was minted after the WATCH was answered and
//! acknowledged before the EXEC was sent is seen by it, and it does nothing. A write that was under
//! way meanwhile may or may not be.

use bytes::Bytes;
use replication::row::Row;

use super::truth::{Truth, op_of};
use crate::history::{Asked, End, History};

/// Copies of each key.
const COPIES: u8 = 3;

/// A transaction was carried out though these keys were watched since then.
pub fn watched(truth: &mut Truth, asked: &Asked, op: u64, watched: &[(Row, u64)]) {
    for (row, since) in watched {
        let seen = |m: &&super::truth::Minted| {
            let acked = m.acked.is_some_and(|(at, w)| at < asked.at && asked.read + w > COPIES);
            acked && m.at > *since && m.op != Some(op)
        };
        let changed = truth.of_row(row).find(seen).map(|m| format!("{:?} of {}", m.value, m.dot));
        if let Some(changed) = changed {
            let text = format!("{asked:?} was carried out though {changed} came after {since}");
            truth.breaks("a watched key that changed stops a transaction", text);
            return;
        }
    }
}

/// Both keys of a pair were read at once, or at the end: of two transactions that both were
/// acknowledged before, one hides the other on both keys.
pub fn pair(truth: &mut Truth, history: &History, asked: &Asked, shown: &[Option<Bytes>]) {
    let [Some(first), Some(second)] = shown else { return };
    if first == second || asked.read < 2 {
        return;
    }
    let sure = |value: &Bytes| {
        let by = op_of(value).and_then(|op| history.all().get(op as usize));
        by.is_some_and(|by| {
            by.end == End::Done && by.ended < asked.at && asked.read + by.write > COPIES
        })
    };
    if sure(first) && sure(second) {
        let text = format!("{asked:?} showed {first:?} and {second:?}, both acknowledged before");
        truth.breaks("a transaction on one slot is seen whole or not at all", text);
    }
}
