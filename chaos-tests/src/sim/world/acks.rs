//! Acks: clients that hear the replicas of their writes themselves, as the native client does, and ask the
//! coordinator again if they hear nothing for a while.
//!
//! Each client is connected to some nodes; of others it has lost the connection, and those know it or do not yet. What
//! was said over a connection that ended is lost, though the coordinator is told that it was said. What
//! comes after the answer is passed over.

use replication::limits::{ACK_DELAY, TELL_DELAY};
use replication::message::Direct;
use replication::op::WriteHandle;
use replication::{Answer, Bug, Message};
use ring::{Confirmation, NodeId, WriteId};

use super::{Happening, World};
use crate::history::End;
use crate::sim::clock::MS;
use crate::sim::node::Ack;

/// A question whose client hears replicas itself has the number of its request, with this bit.
const DIRECT: u64 = 1 << 61;

/// What a turn has found in time leaves when the log is written: a node looks at the time again then.
const LOG_WRITTEN: u64 = 50 * MS;

/// A client listens to replicas for such a part of its patience.
const PATIENCE_PARTS: u64 = 4;

/// The request to which a question belongs, and whether its client hears replicas itself.
pub(super) const fn of_direct(id: u64) -> (u64, bool) {
    (id & !DIRECT, id & DIRECT != 0)
}

/// The numbers under which questions about a request are known to nodes.
pub(super) const fn numbers_of(op: u64) -> [u64; 2] {
    [op, op | DIRECT]
}

/// What a client has heard of a write from replicas.
#[derive(Debug, Default)]
pub(crate) struct Hearing {
    confirmation: Confirmation,
}

/// How a client is connected to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listens {
    /// As it should be.
    Yes,
    /// Not at all, and the node knows.
    No,
    /// Not any more, which the node does not know.
    InVain,
}

impl World {
    /// A write that has a name begins: the number under which it is asked for.
    pub(super) fn listens(&mut self, op: u64) -> u64 {
        if !self.profile.acks {
            return op;
        }
        let client = self.history.get(op).client;
        // Connections come and go.
        if self.of_clients.hits(50_000) {
            let node = self.of_clients.below(self.nodes.len() as u64) as usize;
            let how = [Listens::Yes, Listens::Yes, Listens::No, Listens::InVain];
            let how = self.of_clients.pick(&how);
            self.listening.insert((client, node), how);
        }
        if self.of_clients.hits(100_000) {
            return op;
        }
        self.hearing.insert(op, Hearing::default());
        let at = self.now + self.profile.patience_ns / PATIENCE_PARTS;
        self.queue.plan(at, Happening::Doubt { op });
        op | DIRECT
    }

    /// A process holds a write and tells its client, if that is there; what it has to say to the coordinator at
    /// once.
    pub(super) fn tell(
        &mut self,
        (node, life, core): (usize, u64, usize),
        ack: Ack,
    ) -> Option<(NodeId, Message)> {
        let (by, to, op) = (self.nodes[node].id, ack.to, ack.request.n);
        let (client, asked_at) =
            self.named.get(&op).map_or((0, 0), |naming| (naming.client, naming.asked_at));
        let listens = self.listening.get(&(client, node)).copied().unwrap_or(Listens::Yes);
        let told = listens != Listens::No;
        let told_us = (self.now.saturating_sub(ack.made.0) / 1_000).max(1) as u32;
        let told_us = if told { told_us } else { 0 };
        let message = Message::Replicated { token: ack.token, part: 0, slot: ack.slot, told_us };
        if !told {
            return Some((to, message));
        }
        let until = asked_at + self.profile.patience_ns;
        if self.now > until + LOG_WRITTEN {
            let late = (self.now - until) / 1_000;
            let text = format!("n{} tells the client of {op}, {late} µs too late", node + 1);
            self.truth.breaks("nobody is told of a write after its deadline", text);
        }
        let mut at = self.now + self.of_network.between(20_000, 400_000);
        if !ack.direct.prompt && self.of_network.coin() {
            at += self.of_network.below(TELL_DELAY.as_nanos() as u64);
        }
        if listens == Listens::InVain || self.of_network.hits(20_000) {
            // A connection ends with it, which the client notices or not.
            if self.of_network.coin() {
                self.queue.plan(at, Happening::Doubt { op });
            }
        } else {
            if self.of_network.hits(50_000) {
                let ack = Ack { direct: ack.direct.clone(), ..ack };
                let later = at + self.of_network.below(20 * MS);
                self.queue.plan(later, Happening::Told { by, ack });
            }
            self.queue.plan(at, Happening::Told { by, ack });
        }
        if self.of_network.hits(300_000) {
            return Some((to, message));
        }
        let at = self.now + self.of_network.below(ACK_DELAY.as_nanos() as u64);
        self.queue.plan(at, Happening::SendLater { node, life, core, to, message });
        None
    }

    /// What a process had to say to a coordinator does not wait any longer.
    pub(super) fn send_later(
        &mut self,
        (node, life, core): (usize, u64, usize),
        to: NodeId,
        message: Message,
    ) {
        if !self.lives(node, life) {
            return;
        }
        let paused_until = self.nodes[node].paused_until;
        if self.now < paused_until {
            let later = Happening::SendLater { node, life, core, to, message };
            return self.queue.plan(paused_until, later);
        }
        let now = self.nodes[node].clock.read(self.now);
        let Some(life) = &self.nodes[node].life else { return };
        let peer = &life.cores[core].peer;
        let head = (peer.epoch(), peer.hlc(now));
        self.send_messages(node, head, vec![(to, message)]);
    }

    /// A replica tells a client that it holds a write.
    pub(super) fn told(&mut self, by: NodeId, ack: Ack) {
        let Ack { to, request, token, slot, direct, .. } = ack;
        let op = request.n;
        self.trace.tell(self.now, format_args!("op {op} told by {by}: {to}'s {token}, {direct:?}"));
        let trusts = self.profile.bugs.contains(&Bug::TrustsOneAck);
        let Some(hearing) = self.hearing.get_mut(&op) else { return };
        let Direct { needed, outcomes, .. } = *direct;
        let write = WriteId { coordinator: to, number: token };
        let needed = if trusts { 1 } else { usize::from(needed) };
        if hearing.confirmation.held(by, write, needed) {
            self.tally.told += 1;
            self.trace.mix(&[self.now, op, 0x701d]);
            let write = Some(WriteHandle { slot, coordinator: to, id: token });
            self.ends(op, End::Done, Some(Answer::Done { outcomes, write }));
        }
    }

    /// A client has waited long enough for replicas, or has lost a connection: it asks whom it asked first, and
    /// listens no more, or still does.
    pub(super) fn doubt(&mut self, op: u64) {
        if self.history.get(op).end != End::Open || !self.hearing.contains_key(&op) {
            return;
        }
        self.trace.tell(self.now, format_args!("op {op} in doubt: no replica tells of it"));
        if self.of_clients.coin() {
            self.hearing.remove(&op);
        }
        // Now and then once more as one who hears replicas: a late copy of the first question.
        let direct = self.of_clients.hits(50_000);
        self.ask_first_again(op, if direct { op | DIRECT } else { op });
    }
}
