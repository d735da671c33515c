//! Status: the cluster as this node sees it, in plain numbers.

use std::sync::atomic::Ordering;

use ring::NodeId;
use ring::keyspace::Level;
use ring::liveness::NodeState;
use wire::admin::NodeState as MemberState;
use wire::{ClusterStatus, NodeStatus};

use crate::clock;
use crate::shared::Shared;
use crate::turn::LOOK_AROUND;

/// Why the node should get no traffic; empty if it should.
#[must_use]
pub fn not_ready(shared: &Shared) -> Vec<String> {
    let mut reasons = Vec::new();
    if shared.draining.load(Ordering::Relaxed) {
        let waits = shared.waits();
        let told = if waits.is_over() { String::new() } else { format!(": {waits}") };
        reasons.push(format!("draining{told}"));
    }
    let mut add = |reason: &str| reasons.push(reason.to_owned());
    if shared.is_full() && shared.is_loading() {
        add("its disk is full");
    } else if shared.is_loading() {
        add("catching up with its peers");
    }
    if shared.members().quorum_of_mine < 1.0 {
        add("no quorum for some of its slots");
    }
    if shared.engine.stats().poisoned {
        add("the disk failed");
    }
    reasons
}

/// The cluster as this node sees it.
#[must_use]
pub fn of(shared: &Shared) -> ClusterStatus {
    let (layout, view, config) = (shared.layout(), shared.members(), &shared.config);
    let policy = shared.policies().default;
    let copies = layout.table.width().min(policy.n);
    let needed = |level: Level| level.needed(copies).unwrap_or(0);
    let firsts = layout.table.firsts();
    let now = clock::mono();
    let keys = shared.report().keys;
    let node = |id: &NodeId, member: &ring::Member| {
        let seen = view.members.get(id);
        let up = seen.is_some_and(|m| m.up);
        let state = seen.map_or(NodeState::Starting, |m| m.state);
        let mine = *id == config.node;
        let engine = mine.then(|| shared.engine.stats());
        let since = seen.map_or(now, |m| m.since);
        NodeStatus {
            id: id.0,
            name: member.name.clone(),
            zone: member.zone.clone(),
            address: member.peer.clone(),
            state: match state {
                NodeState::Draining => MemberState::Draining,
                NodeState::Starting | NodeState::CatchingUp | NodeState::Ready => {
                    MemberState::Normal
                }
            },
            up,
            ready: up && state == NodeState::Ready,
            owns: f64::from(firsts.get(id).copied().unwrap_or(0)) / f64::from(ring::SLOTS),
            load_bytes: engine
                .map_or(0, |e| e.table_bytes.iter().sum::<u64>() + e.blob_bytes + e.log_bytes),
            keys: mine.then(|| keys.live()).flatten().unwrap_or(0),
            // Cores tell what they count once in a while.
            keys_age_ms: keys.age.filter(|_| mine).map(|a| (a + LOOK_AROUND).as_millis() as u64),
            last_seen_ms: if up { 0 } else { now.since(since).as_millis() as u64 },
            incarnation: seen.map_or(0, |m| m.incarnation.0),
            version: if mine { env!("CARGO_PKG_VERSION").to_owned() } else { String::new() },
        }
    };
    ClusterStatus {
        cluster: shared.cluster.to_string(),
        name: config.cluster_name.clone(),
        epoch: layout.epoch.0,
        n: policy.n,
        r: needed(policy.read),
        w: needed(policy.write),
        wire_version: wire::frame::WIRE_VERSION,
        nodes: layout.members.iter().map(|(id, member)| node(id, member)).collect(),
        slots_quorum_readable: view.quorum,
        slots_quorum_writable: view.quorum,
        reporter: config.name.clone(),
    }
}
