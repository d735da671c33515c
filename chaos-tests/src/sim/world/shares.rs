//! Shares: clients that read a quorum by themselves, as the native client does, and ask a coordinator only
//! if replicas differ, refuse or are not there.
//!
//! A client knows the slots by some node's layout, or still by the first one. Now and then it asks one
//! replica more than it needs. What comes after the answer is passed over.

use bytes::Bytes;
use replication::{Answer, Bug, Digest, Outcome, Request, Share, Task};
use ring::{Agreement, Verdict};

use super::{Happening, World};
use crate::history::End;

/// The number of a share is that of its request, with this bit.
const SHARE: u64 = 1 << 62;

/// The request to which a share belongs; none if the number is that of a request itself.
pub(super) const fn request_of_share(id: u64) -> Option<u64> {
    if id & SHARE == 0 { None } else { Some(id & !SHARE) }
}

/// What a client has heard of a key that it reads by itself.
#[derive(Debug)]
pub(crate) struct Gathering {
    agreement: Agreement<Digest, Outcome>,
    /// What it asks if that comes to nothing.
    request: Request,
}

impl World {
    /// A request begins: true if its client reads by itself.
    pub(super) fn gathers(&mut self, op: u64, request: &Request) -> bool {
        let Request::Task(task) = request else { return false };
        let of = self.history.get(op).read;
        let [(row, asks)] = task.ops.as_slice() else { return false };
        let fits = asks.is_read() && (task.after.is_none() || *asks == replication::Op::Siblings);
        if !self.profile.shares || !fits || of < 2 || self.of_clients.hits(200_000) {
            return false;
        }
        let any = self.of_clients.below(self.nodes.len() as u64) as usize;
        let map =
            if self.of_clients.hits(200_000) { &self.oldest } else { &self.nodes[any].layout };
        let map = map.clone();
        let mut replicas = map.replicas(task.slot).to_vec();
        let turn = self.of_clients.below(replicas.len() as u64) as usize;
        replicas.rotate_left(turn);
        let more = usize::from(self.of_clients.hits(200_000));
        let needed = usize::from(of);
        replicas.truncate(needed + more);
        let whole = self.of_clients.below(needed as u64) as usize;
        let share = |place: usize| Share {
            slot: task.slot,
            keyspace: task.keyspace,
            row: row.clone(),
            op: asks.clone(),
            level: task.read,
            of,
            epoch: map.epoch.0,
            whole: place == whole || place >= needed,
            after: task.after.clone(),
        };
        for (place, replica) in replicas.iter().enumerate() {
            let Some(node) = self.nodes.iter().position(|n| n.id == *replica) else { continue };
            let request = Box::new(Request::Share(Box::new(share(place))));
            let at = self.now + self.of_network.between(20_000, 400_000);
            self.queue.plan(at, Happening::Ask { op: op | SHARE, node, request });
        }
        let trusts = self.profile.bugs.contains(&Bug::TrustsOneShare);
        let agreement = Agreement::of(if trusts { 1 } else { needed });
        self.gathering.insert(op, Gathering { agreement, request: request.clone() });
        true
    }

    /// A replica answers with its share.
    pub(super) fn share_heard(&mut self, op: u64, answer: &Answer) {
        self.trace.tell(self.now, format_args!("op {op} heard a share: {answer:?}"));
        let Some(gathering) = self.gathering.get_mut(&op) else { return };
        let Answer::Share { digest, outcome } = answer else { return self.share_failed(op) };
        match gathering.agreement.said(*digest, outcome.clone()) {
            Verdict::Open => {}
            Verdict::Differs => self.share_failed(op),
            Verdict::Agreed(outcome) => {
                let gathered = self.gathering.remove(&op);
                let after = match gathered.map(|g| g.request) {
                    Some(Request::Task(Task { after, .. })) => after,
                    _ => None,
                };
                let seen = after.map(|_| Outcome::Seen(context_of(&outcome)));
                let outcomes = [Some(outcome), seen].into_iter().flatten().collect();
                self.tally.gathered += 1;
                self.ends(op, End::Done, Some(Answer::Done { outcomes, write: None }));
            }
        }
    }

    /// A share is not to be had, or differs: a coordinator is asked.
    pub(super) fn share_failed(&mut self, op: u64) {
        let Some(gathering) = self.gathering.remove(&op) else { return };
        if self.history.get(op).end == End::Open {
            let node = self.history.get(op).node;
            let at = self.now + self.of_network.between(20_000, 400_000);
            let request = Box::new(gathering.request);
            self.queue.plan(at, Happening::Ask { op, node, request });
        }
    }
}

fn context_of(outcome: &Outcome) -> Bytes {
    match outcome {
        Outcome::Siblings { context, .. } => context.clone(),
        _ => Bytes::new(),
    }
}
