//! Optimum: the fewest copies that any table with the same promises can move, exactly.
//!
//! Slots whose surviving copies are the same form a class. A flow goes from classes through their
//! zones (bounded as promise 1 wants it) to nodes (bounded by their shares, rounded either way); it
//! costs 1 where a node does not keep the slot yet. Legal replica sets are the bases of a matroid,
//! so a flow in whole numbers always falls apart into legal sets, and its least cost is the optimum.

use std::collections::{BTreeMap, VecDeque};

use ringdb_ring::assign::ideal_loads;
use ringdb_ring::{Layout, Member, NodeId, SLOTS};

/// Reward for each unit of a lower bound: more than all moves together cost.
const DUE: i64 = 1 << 30;

/// The fewest copies that must move from `old`'s table to any that is as good as `new`'s.
pub(crate) fn fewest_moves(old: &Layout, new: &Layout) -> u32 {
    let owners: Vec<&Member> = new.members.values().filter(|m| m.capacity > 0).collect();
    let mut zones: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for owner in &owners {
        let next = zones.len();
        zones.entry(owner.failure_domain()).or_insert(next);
    }
    let copies = owners.len().min(usize::from(new.copies));
    let spread = copies.min(zones.len());
    let mut classes: BTreeMap<Vec<NodeId>, i64> = BTreeMap::new();
    for (_, nodes) in old.table.rows() {
        let mut kept: Vec<NodeId> =
            nodes.iter().copied().filter(|n| owners.iter().any(|m| m.id == *n)).collect();
        kept.sort_unstable();
        *classes.entry(kept).or_default() += 1;
    }

    let (source, sink, first_node) = (0, 1, 2);
    let mut flow = Flow::new(2 + owners.len() + classes.len() * (1 + zones.len()));
    let mut due = 0;
    let mut bounded = |flow: &mut Flow, from, to, least: i64, most: i64| {
        flow.arc(from, to, least, -DUE);
        flow.arc(from, to, most - least, 0);
        due += least;
    };
    let ideal = ideal_loads(&new.members, new.copies);
    for (i, owner) in owners.iter().enumerate() {
        let fair = ideal[&owner.id];
        let (least, most) = ((fair + 1e-6).floor() as i64, (fair - 1e-6).ceil() as i64);
        bounded(&mut flow, first_node + i, sink, least.min(most), most.max(least));
    }
    let mut next = first_node + owners.len();
    for (kept, count) in &classes {
        let class = next;
        next += 1 + zones.len();
        flow.arc(source, class, count * copies as i64, 0);
        for &zone in zones.values() {
            let least = if zones.len() <= copies { *count } else { 0 };
            bounded(
                &mut flow,
                class,
                class + 1 + zone,
                least,
                count * (copies - spread + 1) as i64,
            );
        }
        for (i, owner) in owners.iter().enumerate() {
            let zone = zones[&owner.failure_domain()];
            let cost = i64::from(!kept.contains(&owner.id));
            flow.arc(class + 1 + zone, first_node + i, *count, cost);
        }
    }
    let (sent, cost) = flow.cheapest(source, sink);
    assert_eq!(sent, i64::from(SLOTS) * copies as i64, "every copy has a place");
    u32::try_from(cost + due * DUE).expect("all lower bounds are met")
}

struct Flow {
    arcs: Vec<Vec<usize>>,
    to: Vec<usize>,
    left: Vec<i64>,
    cost: Vec<i64>,
}

impl Flow {
    fn new(points: usize) -> Self {
        Self { arcs: vec![Vec::new(); points], to: vec![], left: vec![], cost: vec![] }
    }

    /// An arc; the next number is its way back.
    fn arc(&mut self, from: usize, to: usize, most: i64, cost: i64) {
        if most == 0 {
            return;
        }
        for (a, b, left, cost) in [(from, to, most, cost), (to, from, 0, -cost)] {
            self.arcs[a].push(self.to.len());
            self.to.push(b);
            self.left.push(left);
            self.cost.push(cost);
        }
    }

    /// The greatest flow, and its least cost.
    fn cheapest(&mut self, source: usize, sink: usize) -> (i64, i64) {
        let (mut sent, mut cost) = (0, 0);
        while let Some(far) = self.distances(source, sink) {
            let mut tried = vec![0; self.arcs.len()];
            loop {
                let mut on_path = vec![false; self.arcs.len()];
                let pushed = self.push(source, sink, i64::MAX, &far, &mut tried, &mut on_path);
                if pushed == 0 {
                    break;
                }
                sent += pushed;
                cost += pushed * far[sink];
            }
        }
        (sent, cost)
    }

    fn distances(&self, source: usize, sink: usize) -> Option<Vec<i64>> {
        let mut far = vec![i64::MAX; self.arcs.len()];
        let mut waits = vec![false; self.arcs.len()];
        let mut queue = VecDeque::from([source]);
        far[source] = 0;
        while let Some(at) = queue.pop_front() {
            waits[at] = false;
            for &arc in &self.arcs[at] {
                let (to, new) = (self.to[arc], far[at] + self.cost[arc]);
                if self.left[arc] > 0 && new < far[to] {
                    far[to] = new;
                    if !std::mem::replace(&mut waits[to], true) {
                        queue.push_back(to);
                    }
                }
            }
        }
        (far[sink] < i64::MAX).then_some(far)
    }

    /// Pushes as much as there is along shortest arcs from `at`.
    fn push(
        &mut self,
        at: usize,
        sink: usize,
        most: i64,
        far: &[i64],
        tried: &mut [usize],
        on_path: &mut [bool],
    ) -> i64 {
        if at == sink {
            return most;
        }
        on_path[at] = true;
        let mut pushed = 0;
        while tried[at] < self.arcs[at].len() && pushed < most {
            let arc = self.arcs[at][tried[at]];
            let to = self.to[arc];
            if self.left[arc] > 0 && !on_path[to] && far[to] == far[at] + self.cost[arc] {
                let more = self.left[arc].min(most - pushed);
                let sent = self.push(to, sink, more, far, tried, on_path);
                self.left[arc] -= sent;
                self.left[arc ^ 1] += sent;
                pushed += sent;
                if pushed == most {
                    break;
                }
            }
            tried[at] += 1;
        }
        on_path[at] = false;
        pushed
    }
}
