//! The ending: everything is mended, everybody comes back, and what must be true then is checked.

use std::rc::Rc;

use std::collections::BTreeMap;

use bytes::Bytes;
use replication::row::{self, Row};
use replication::{Answer, DotSet, Op, Request, Task};
use ring::{Level, NodeId, Slot};

use super::{Happening, World};
use crate::check::convergence::{self, Copies};
use crate::check::{counters, durability, siblings};
use crate::history::{Ask, Asked, End};
use crate::sim::clock::{MS, SECOND};

/// How long everybody has to come back once everything is mended.
const BACK_WITHIN: u64 = 60 * SECOND;

impl World {
    /// Mends everything, waits, reads every key, and checks the ending. A promise that is broken is
    /// found in [`World::broken`].
    pub fn end(&mut self) {
        self.stormy = false;
        self.mend_everything();
        let deadline = self.now + BACK_WITHIN;
        while self.now < deadline && !self.everybody_serves() && self.broken().is_none() {
            self.run(self.now + 200 * MS);
        }
        if !self.everybody_serves() {
            let text = self.who_is_missing();
            self.truth.breaks("everybody serves again soon after all is mended", text);
        }
        // Clocks that were ahead have to be caught up with.
        let jumps = self.profile.faults.interval(crate::fault::Fault::Jump).is_some();
        let ahead = replication::limits::CEILING_AHEAD.as_nanos() as u64;
        let behind = if jumps { ahead + (self.profile.jump_ms + 5_000) * MS } else { 0 };
        let patience = self.profile.patience_ns * 2 + behind + 3 * SECOND;
        self.run(self.now + patience);
        if self.broken().is_some() {
            return;
        }
        self.hear_everybody_out();
        if self.broken().is_some() {
            return;
        }
        self.nothing_leaks();
        self.read_everything();
        if self.broken().is_some() {
            return;
        }
        let copies = self.copies();
        convergence::records(&mut self.truth, &copies, "after every key was read");
        // Whatever a chaotic network lost is pulled once connections are new.
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                self.break_connection(a, b);
            }
        }
        self.run(self.now + 10 * SECOND);
        let copies = self.copies();
        convergence::records(&mut self.truth, &copies, "after every connection was made anew");
        let clocks = self.clocks();
        let agreed = convergence::clocks(&mut self.truth, &clocks);
        durability::check(&mut self.truth, &copies, &agreed);
        siblings::check(&mut self.truth, &copies, &agreed);
        siblings::check_kept(&mut self.truth, &self.history);
        let moved = self.tally.moves > 0;
        counters::check_model(&mut self.truth, &copies, &agreed, moved);
        durability::check_refused(&mut self.truth, &self.history);
        if !self.speakers.is_empty() && self.broken().is_none() {
            self.audit(&copies);
        }
        self.nothing_leaks();
        for node in &self.nodes {
            for c in node.life.iter().flat_map(|l| &l.cores) {
                self.tally.states += c.peer.stats().states_served;
            }
        }
    }

    fn mend_everything(&mut self) {
        let n = self.nodes.len();
        self.network.manners.loss_ppm = 0;
        self.network.manners.twice_ppm = 0;
        self.network.manners.late_ppm = 0;
        for a in 0..n {
            self.nodes[a].platter.files.set_capacity(None);
            self.nodes[a].paused_until = 0;
            self.nodes[a].clock.jumped_ms = 0;
            for b in 0..n {
                self.network.set_cut(a, b, false);
            }
        }
        for node in 0..n {
            self.announce(node);
            if self.nodes[node].life.is_none() {
                self.queue.plan(self.now + 100 * MS, Happening::Start { node });
            }
        }
    }

    fn everybody_serves(&self) -> bool {
        self.nodes
            .iter()
            .all(|n| n.life.as_ref().is_some_and(|l| l.cores.iter().all(|c| c.peer.is_serving())))
    }

    fn who_is_missing(&self) -> String {
        let state = |n: &crate::sim::node::Node| match &n.life {
            None => format!("{} is down", n.id),
            Some(l) => {
                let serving = l.cores.iter().all(|c| c.peer.is_serving());
                format!("{} serves: {serving}", n.id)
            }
        };
        self.nodes.iter().map(state).collect::<Vec<_>>().join(", ")
    }

    fn nothing_leaks(&mut self) {
        for node in 0..self.nodes.len() {
            let Some(life) = &self.nodes[node].life else { continue };
            for c in &life.cores {
                let stats = c.peer.stats();
                if c.front.in_flight() > 0 {
                    let text = format!("n{}: {} requests", node + 1, c.front.in_flight());
                    self.truth.breaks("every request of a session is answered", text);
                    return;
                }
                if stats.in_flight > 0 {
                    let text = format!("n{} still works on {} requests", node + 1, stats.in_flight);
                    self.truth.breaks("no request is worked on for ever", text);
                    return;
                }
            }
        }
    }

    /// Every key is read at ALL, which repairs it everywhere.
    fn read_everything(&mut self) {
        let rows: Vec<Row> = self.truth.rows().cloned().collect();
        let mut open = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            let node = i % self.nodes.len();
            open.push(self.probe(node, row, Op::Siblings));
            // A few at a time.
            if open.len() == 16 {
                self.await_probes(&open);
                open.clear();
            }
        }
        self.await_probes(&open);
        self.run(self.now + 2 * SECOND);
    }

    fn probe(&mut self, node: usize, row: &Row, op: Op) -> u64 {
        let slot = row::slot_of(row).unwrap_or(Slot(0));
        let keyspace = row::keyspace_of(row).unwrap_or(0);
        let mut task = Task::one(slot, keyspace, row.clone(), op);
        task.read = Some(Level::All);
        task.write = Some(Level::All);
        let asked = Asked {
            client: 0,
            node,
            ask: Ask::Probe,
            rows: vec![row.clone()],
            at: self.now,
            after: Vec::new(),
            knows: Rc::default(),
            read: 3,
            write: 3,
            end: End::Open,
            ended: 0,
        };
        let op = self.history.begin(asked);
        let request = Box::new(Request::Task(task));
        self.queue.plan(self.now + MS, Happening::Ask { op, node, request });
        op
    }

    fn await_probes(&mut self, open: &[u64]) {
        let deadline = self.now + self.profile.patience_ns + 2 * SECOND;
        let is_open = |w: &Self| open.iter().any(|op| w.history.get(*op).end == End::Open);
        while self.now < deadline && is_open(self) && self.broken().is_none() {
            self.run(self.now + 10 * MS);
        }
        for op in open {
            let answered =
                self.probed.iter().any(|(o, a)| o == op && matches!(a, Answer::Done { .. }));
            if !answered {
                let asked = self.history.get(*op);
                let text = format!("n{}: {:?} was {:?}", asked.node + 1, asked.rows, asked.end);
                self.truth.breaks("everything answers once all is mended", text);
                return;
            }
        }
    }

    /// What each replica keeps of each key.
    fn copies(&self) -> Copies {
        let cores = usize::from(self.profile.cores);
        let mut copies = Copies::new();
        for row in self.truth.rows() {
            let slot = row::slot_of(row).unwrap_or(Slot(0));
            for id in self.newest.replicas(slot) {
                let node = &self.nodes[id.0 as usize - 1];
                let Some(life) = &node.life else { continue };
                let store = &life.cores[slot.core(cores)].store;
                let record = store.load(std::slice::from_ref(row)).map(|mut r| r.remove(0));
                let record = record.unwrap_or_else(|_| Bytes::from_static(b"\xff"));
                copies.entry(row.clone()).or_default().insert(*id, record);
            }
        }
        copies
    }

    /// The clocks of every slot in use at every replica of it.
    fn clocks(&self) -> BTreeMap<Slot, BTreeMap<NodeId, DotSet>> {
        let cores = usize::from(self.profile.cores);
        let mut clocks: BTreeMap<Slot, BTreeMap<NodeId, DotSet>> = BTreeMap::new();
        for row in self.truth.rows() {
            let slot = row::slot_of(row).unwrap_or(Slot(0));
            for id in self.newest.replicas(slot) {
                let node = &self.nodes[id.0 as usize - 1];
                let peer = node.life.as_ref().map(|l| &l.cores[slot.core(cores)].peer);
                if let Some(clock) = peer.and_then(|p| p.slot_clock(slot)) {
                    clocks.entry(slot).or_default().insert(*id, clock.clone());
                }
            }
        }
        clocks
    }
}
