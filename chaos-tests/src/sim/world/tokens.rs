//! Tokens: clients that are sessions say what they have seen, and learn what answers had seen.

use std::rc::Rc;

use bytes::Bytes;
use replication::encoding::Reader;
use replication::{DotSet, Outcome, Request};

use super::World;
use crate::check::truth::op_of;
use crate::history::{Ask, Asked};
use crate::workload::Client;

impl Client {
    /// Puts the session's token into a request that may carry one, and tells which requests it covers.
    pub(super) fn carry(&self, tokens: bool, request: &mut Request) -> Rc<[u64]> {
        let slot = request.slot();
        let (Request::Task(replication::Task { after, .. })
        | Request::Range { after, .. }
        | Request::DeleteRange { after, .. }) = request
        else {
            return Rc::default();
        };
        if !tokens {
            return Rc::default();
        }
        let mut token = Vec::new();
        if let Some(seen) = self.session.tokens.get(&slot) {
            seen.encode(&mut token);
        }
        *after = Some(Bytes::from(token));
        self.session.requests.iter().copied().collect()
    }
}

impl World {
    /// An answer had seen this of a slot.
    pub(super) fn learn(&mut self, asked: &Asked, seen: &Bytes) {
        let Some(seen) = DotSet::decode(&mut Reader::new(seen)) else { return };
        let slot = match &asked.ask {
            Ask::Range(span) | Ask::DeleteRange(span) => Some(span.slot),
            _ => asked.rows.first().and_then(|row| replication::row::slot_of(row)),
        };
        if let Some(slot) = slot {
            self.clients[asked.client].session.tokens.entry(slot).or_default().union(&seen);
        }
    }

    /// A task was done, at whatever level: its effects and what it showed have been seen. The outcomes
    /// of its ops alone.
    pub(super) fn learn_of_task<'a>(
        &mut self,
        op: u64,
        asked: &Asked,
        outcomes: &'a [Outcome],
    ) -> &'a [Outcome] {
        let Some((Outcome::Seen(seen), of_ops)) = outcomes.split_last() else { return outcomes };
        self.learn(asked, seen);
        // Whoever was shown one of the values that a request wrote need not have seen the others: a repair
        // brings a replica one key.
        let history = self.history.all();
        let of_value = |value: &[u8]| {
            let wrote_one = |op: &u64| history.get(*op as usize).is_some_and(|a| a.rows.len() == 1);
            op_of(value).filter(wrote_one)
        };
        let known = &mut self.clients[asked.client].session.requests;
        known.insert(op);
        for outcome in of_ops {
            match outcome {
                Outcome::Read { found: Some(found), .. } => known.extend(of_value(&found.value)),
                Outcome::Siblings { values, .. } => {
                    known.extend(values.iter().filter_map(|v| of_value(&v.value)));
                }
                _ => {}
            }
        }
        of_ops
    }
}
