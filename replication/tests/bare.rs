//! Bare: a replica of one slot without coordinators or storage. It keeps every operand until a test
//! folds some, so that laws can be tried in every order.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;
use ringdb_replication::fold::{self, Folded, Patch};
use ringdb_replication::record::Record;
use ringdb_replication::{Delta, DotSet};

#[derive(Clone, Default)]
pub(crate) struct Replica {
    pub(crate) clock: DotSet,
    /// Base record and operands of each key.
    pub(crate) keys: BTreeMap<Bytes, (Vec<u8>, Vec<Bytes>)>,
}

impl Replica {
    pub(crate) fn record(&self, row: &Bytes) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some((base, operands)) = self.keys.get(row) {
            fold::fold(Some(base), operands.iter().map(|o| &o[..]), &mut out);
        }
        out
    }

    pub(crate) fn push(&mut self, row: &[u8], operand: Bytes) {
        self.keys.entry(Bytes::copy_from_slice(row)).or_default().1.push(operand);
    }

    /// Takes in a delta; false if its dot was there already.
    pub(crate) fn apply(&mut self, raw: &Bytes) -> bool {
        let delta = Delta::decode(raw).expect("ours");
        if !self.clock.insert(delta.dot) {
            return false;
        }
        let pending = delta.discard.minus(&self.clock);
        let none = DotSet::new();
        let operand = fold::delta_operand(
            raw,
            if delta.discards_values { &pending } else { &none },
            if delta.discards_expiry { &pending } else { &none },
        );
        self.push(delta.row, operand);
        true
    }

    /// Joins another replica's state of a key, as read repair does.
    pub(crate) fn install(&mut self, row: &Bytes, state: &[u8], seen: &DotSet) {
        let theirs = Record::decode(state).expect("ours");
        let patch = Patch::of_state(&theirs, seen, &self.clock);
        self.clock.union(&patch.learned);
        self.push(row, patch.to_operand());
    }

    /// Folds some operands of a key together, as a memtable or a compaction may.
    pub(crate) fn squash(&mut self, row: &Bytes, rng: &mut StdRng) {
        let Some((base, operands)) = self.keys.get_mut(row) else { return };
        if operands.is_empty() {
            return;
        }
        let to = rng.random_range(0..=operands.len());
        let mut out = Vec::new();
        if rng.random_bool(0.5) {
            let folded = fold::fold(Some(base), operands[..to].iter().map(|o| &o[..]), &mut out);
            assert_ne!(folded, Folded::Unreadable);
            *base = out;
            operands.drain(..to);
        } else {
            let from = rng.random_range(0..=to);
            if from < to {
                assert!(fold::fold_partial(operands[from..to].iter().map(|o| &o[..]), &mut out));
                operands.splice(from..to, [Bytes::from(out)]);
            }
        }
    }
}
