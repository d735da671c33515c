//! Siblings: none invented, none dropped. At the end the live values and expiries of a key are those
//! that were minted, arrived, and are in no minted discard: the naive model of causal histories.
//! And where they are kept, no write discards a value that its client was not shown.

use std::collections::BTreeMap;

use replication::{Dot, DotSet, Record, row};
use ring::Slot;

use super::convergence::Copies;
use super::truth::{Minted, Truth};
use crate::history::{Ask, History};
use crate::workload::KEPT;

/// At the end, against what each replica keeps and the clock that all agreed on.
pub fn check(truth: &mut Truth, copies: &Copies, clocks: &BTreeMap<Slot, DotSet>) {
    let mut wrong = None;
    for (row, by_node) in copies {
        let arrived = |m: &&Minted| clocks.get(&m.slot).is_some_and(|c| c.contains(m.dot));
        let all: Vec<&Minted> = truth.of_row(row).collect();
        let here: Vec<&Minted> = all.iter().copied().filter(|m| arrived(m)).collect();
        for (node, bytes) in by_node {
            let Some(record) = Record::decode(bytes) else {
                wrong = Some(format!("{row:?} cannot be read on {node}"));
                break;
            };
            let values: Vec<Dot> = record.values.iter().map(|v| v.dot).collect();
            let expiries: Vec<Dot> = record.expiries.iter().map(|e| e.dot).collect();
            let of_values = (
                |m: &Minted| m.value.is_some(),
                (|m: &Minted| m.discards_values) as fn(&Minted) -> bool,
            );
            let found = judge(&values, &here, &all, of_values.0, of_values.1);
            let found = found.map(|why| format!("value {why}")).or_else(|| {
                let why =
                    judge(&expiries, &here, &all, |m| m.expiry.is_some(), |m| m.discards_expiry);
                why.map(|why| format!("expiry {why}"))
            });
            if let Some(why) = found {
                wrong = Some(format!("{row:?} on {node}: {why}"));
                break;
            }
        }
        if wrong.is_some() {
            break;
        }
    }
    if let Some(text) = wrong {
        truth.breaks("siblings are neither invented nor dropped", text);
    }
}

/// At the end: in the keyspace that keeps siblings, who replaced a value had been shown it.
pub fn check_kept(truth: &mut Truth, history: &History) {
    let mut wrong = None;
    // The one value that a mutation may have replaced which replaces one at most.
    let mut of_one: BTreeMap<usize, Dot> = BTreeMap::new();
    let kept = |m: &&Minted| row::keyspace_of(&m.row) == Some(KEPT);
    for m in truth.all().iter().filter(kept) {
        // Whoever was the first did not know that it was replaced already. Deletions, which name no
        // request, are of all that a quorum knew.
        let Some(e) = m.replaced_by.first() else { continue };
        let by = truth.get(*e);
        let Some(op) = by.op else { continue };
        let ask = &history.get(op).ask;
        let may = match ask {
            Ask::Resolve(shown) => m.op.is_some_and(|op| shown.contains(&op)),
            // It showed the client one, or was made of one.
            Ask::Write => *of_one.entry(*e).or_insert(m.dot) == m.dot,
            _ => false,
        };
        if !may {
            wrong = Some(format!(
                "{:?} of {} was replaced by {:?} of {}: {ask:?}",
                m.value, m.dot, by.value, by.dot
            ));
            break;
        }
    }
    if let Some(text) = wrong {
        truth.breaks("where siblings are kept, who replaces a value was shown it", text);
    }
}

/// What is wrong with the live dots of a key, if anything is.
fn judge(
    live: &[Dot],
    here: &[&Minted],
    all: &[&Minted],
    adds: impl Fn(&Minted) -> bool,
    discards: impl Fn(&Minted) -> bool,
) -> Option<String> {
    for dot in live {
        let minted = all.iter().any(|m| m.dot == *dot && adds(m));
        if !minted {
            return Some(format!("{dot} was never minted"));
        }
        // What never arrived anywhere discards nothing for sure.
        let replaced = here.iter().find(|m| discards(m) && m.discard.contains(*dot));
        if let Some(by) = replaced {
            return Some(format!("{dot} is live though {} replaced it", by.dot));
        }
    }
    for m in here.iter().filter(|m| adds(m)) {
        let replaced = all.iter().any(|e| discards(e) && e.discard.contains(m.dot));
        if !replaced && !live.contains(&m.dot) {
            return Some(format!("{} is gone though nothing replaced it", m.dot));
        }
    }
    None
}
