//! Convergence: after everything is mended, reading a key once at ALL makes its replicas equal, and
//! after new connections the clocks of a slot are equal too.

use std::collections::BTreeMap;

use bytes::Bytes;
use replication::{DotSet, Record};
use ring::{NodeId, Slot};

use super::truth::Truth;

/// What each replica of each key keeps: encoded records.
pub type Copies = BTreeMap<Bytes, BTreeMap<NodeId, Bytes>>;

/// The replicas of every key have equal records.
pub fn records(truth: &mut Truth, copies: &Copies, when: &str) {
    for (row, by_node) in copies {
        let digests: Vec<_> = by_node
            .iter()
            .map(|(node, bytes)| (*node, Record::decode(bytes).map(|r| r.digest())))
            .collect();
        if digests.windows(2).any(|w| w[0].1 != w[1].1) {
            let shown: Vec<_> =
                by_node.iter().map(|(n, b)| format!("{n}: {:?}", Record::decode(b))).collect();
            let text = format!("{row:?} differs {when}: {}", shown.join("; "));
            truth.breaks("replicas converge", text);
            return;
        }
    }
}

/// The clocks of every slot are equal; returns them.
pub fn clocks(
    truth: &mut Truth,
    clocks: &BTreeMap<Slot, BTreeMap<NodeId, DotSet>>,
) -> BTreeMap<Slot, DotSet> {
    let mut agreed = BTreeMap::new();
    for (slot, by_node) in clocks {
        let mut nodes = by_node.iter();
        let Some((_, first)) = nodes.next() else { continue };
        if let Some((node, other)) = nodes.find(|(_, c)| *c != first) {
            let text = format!("{slot:?}: {node} has {other:?}, another one {first:?}");
            truth.breaks("slot clocks become equal", text);
        }
        agreed.insert(*slot, first.clone());
    }
    agreed
}
