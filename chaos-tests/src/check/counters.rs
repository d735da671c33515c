//! Counters: while the world runs a counter lies between what is sure and what may be; at the end it
//! is exactly the sum of the increments that arrived, less what resets had seen of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use replication::row::Row;
use replication::{Dot, DotSet, Record, decimal};
use ring::{Actor, Slot, WallMillis};

use super::convergence::Copies;
use super::truth::Truth;
use crate::history::{Ask, Asked, End};

/// One increment as its client knows it.
#[derive(Clone, Copy, Debug)]
struct Added {
    by: i128,
    op: u64,
    write: u8,
    end: End,
    ended: u64,
}

/// Counters that are never reset.
#[derive(Debug, Default)]
pub struct Counters(BTreeMap<Row, Vec<Added>>);

impl Counters {
    /// A request begins.
    pub fn begins(&mut self, asked: &Asked, op: u64) {
        if let Some((row, by)) = increment_of(asked) {
            let added = Added { by, op, write: asked.write, end: End::Open, ended: 0 };
            self.0.entry(row).or_default().push(added);
        }
    }

    /// A request ends.
    pub fn ends(&mut self, asked: &Asked, op: u64) {
        let Some((row, _)) = increment_of(asked) else { return };
        let all = self.0.entry(row).or_default();
        if let Some(added) = all.iter_mut().rfind(|a| a.op == op) {
            added.end = asked.end;
            added.ended = asked.ended;
        }
    }

    /// The counters that were ever added to.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.0.keys()
    }

    /// A read of a counter ended and showed this.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, asked: &Asked, shown: Option<&Bytes>) -> Result<(), String> {
        let Some(row) = asked.rows.first() else { return Ok(()) };
        let value = match shown {
            None => 0,
            Some(text) => {
                decimal::parse(text).ok_or_else(|| format!("{asked:?} showed {text:?}"))?
            }
        };
        let (mut low, mut high) = (0i128, 0i128);
        for a in self.0.get(row).into_iter().flatten() {
            let before = a.ended < asked.at || asked.after.contains(&a.op);
            let sure =
                a.end == End::Done && before && asked.read + a.write > 3 || asked.has_seen(a.op);
            if a.end == End::Failed {
                continue;
            }
            if sure {
                low += a.by;
                high += a.by;
            } else {
                low += a.by.min(0);
                high += a.by.max(0);
            }
        }
        if (low..=high).contains(&value) {
            Ok(())
        } else {
            let text = [value, low, high].map(decimal::format);
            Err(format!("{asked:?} showed {}, not between {} and {}", text[0], text[1], text[2]))
        }
    }
}

fn increment_of(asked: &Asked) -> Option<(Row, i128)> {
    match asked.ask {
        Ask::Add(by) => Some((asked.rows.first()?.clone(), decimal::of_integer(by))),
        Ask::AddThousandths(by) => {
            Some((asked.rows.first()?.clone(), i128::from(by) * decimal::ONE / 1_000))
        }
        Ask::Multi(by) => Some((asked.rows.last()?.clone(), decimal::of_integer(by))),
        _ => None,
    }
}

/// At the end, from the set of all deltas. If replicas `moved`, a record may show an increment that is in no clock:
/// whoever minted it was asked for the record, and keeps the slot no more.
pub fn check_model(
    truth: &mut Truth,
    copies: &Copies,
    clocks: &BTreeMap<Slot, DotSet>,
    moved: bool,
) {
    let mut wrong = None;
    for (row, by_node) in copies {
        let mut counts: BTreeMap<Actor, ((u64, u64), i128)> = BTreeMap::new();
        let mut resets = counts.clone();
        let mut is_counter = false;
        let shows = |bytes: &Bytes, dot| {
            Record::decode(bytes).is_some_and(|r| r.counts.iter().any(|count| count.dot() == dot))
        };
        for m in truth.of_row(row) {
            let in_clock = clocks.get(&m.slot).is_some_and(|c| c.contains(m.dot));
            let is_there = in_clock || (moved && by_node.values().any(|bytes| shows(bytes, m.dot)));
            if !is_there {
                continue;
            }
            let newer = |of: &mut BTreeMap<Actor, ((u64, u64), i128)>, actor, age, total| {
                let entry = of.entry(actor).or_insert((age, total));
                if age > entry.0 {
                    *entry = (age, total);
                }
            };
            if let Some((generation, total)) = m.count {
                is_counter = true;
                newer(&mut counts, m.dot.actor, (generation, m.dot.seq), total);
            }
            for r in &m.resets {
                // A reset knows what somebody has minted, and nothing else.
                let of = truth.of_row(row).find(|i| i.dot == Dot::new(r.actor, r.n));
                if of.is_none_or(|i| i.count != Some((r.generation, r.total))) {
                    wrong = Some(format!("{row:?}: {} resets {r:?}, which nobody minted", m.dot));
                }
                newer(&mut resets, r.actor, (r.generation, r.n), r.total);
                newer(&mut counts, r.actor, (r.generation, r.n), r.total);
            }
        }
        if !is_counter {
            continue;
        }
        let mut sum = 0i128;
        for (actor, (age, total)) in &counts {
            let seen = match resets.get(actor) {
                Some((reset, _)) if reset >= age => continue,
                Some((reset, seen)) if reset.0 == age.0 => *seen,
                _ => 0,
            };
            sum += total - seen;
        }
        for (node, bytes) in by_node {
            let record = Record::decode(bytes).unwrap_or_default();
            let shown = record.view(WallMillis(0)).sum.unwrap_or(0);
            if shown != sum {
                wrong = Some(format!(
                    "{row:?} on {node} sums to {}, the deltas to {}",
                    decimal::format(shown),
                    decimal::format(sum)
                ));
            }
        }
    }
    if let Some(text) = wrong {
        truth.breaks("a counter is exact at the end", text);
    }
}
