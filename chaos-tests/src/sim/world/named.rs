//! Named requests: a client that asks again, here and elsewhere, until it knows what became of a write.
//!
//! As the native client does it: only the process that was asked first may carry the request out, and
//! only its word that nothing was done counts, of which it remembers all but that it was not ready or
//! had too much to do; whoever else is asked can but confirm the request. Answers get
//! lost, copies of the question arrive late and twice, also when the client knows its fate long since.

use replication::message::RequestKey;
use replication::op::TaskError;
use replication::{Answer, Named, Request};
use ring::{Incarnation, NodeId};

use super::clients::has_no_effect;
use super::{Happening, World};
use crate::history::End;
use crate::sim::clock::MS;

/// So many questions about one request, at most.
const QUESTIONS_MAX: u64 = 12;

/// What a client knows of a request that has a name.
#[derive(Clone, Debug)]
pub(crate) struct Naming {
    pub(super) client: usize,
    request: Request,
    /// The process that was asked first.
    first: Option<(usize, u64)>,
    /// It was not sent: copies that are on their way do not count.
    void: bool,
    questions: u64,
    /// A process took it in last then, as from one that hears replicas.
    pub(super) asked_at: u64,
}

impl Naming {
    /// The name as it goes to a process; none if the request was never sent. `direct`: its client hears
    /// replicas itself.
    pub(super) fn over(&mut self, op: u64, to: (usize, u64), direct: bool) -> Option<Named> {
        if self.void {
            return None;
        }
        let first = *self.first.get_or_insert(to);
        let front = NodeId(1 << 31 | self.client as u32);
        let incarnation = Incarnation(1);
        let request = RequestKey { front, incarnation, core: u8::MAX, n: op, first_sent: 0 };
        Some(Named { request, may_mint: first == to, direct })
    }
}

impl World {
    /// A request begins: true if it gets a name.
    pub(super) fn names(&mut self, op: u64, node: usize, request: &Request) -> bool {
        let may = matches!(request, Request::Task(_) | Request::DeleteRange { .. });
        if !self.profile.named || !may || !request.writes() {
            return false;
        }
        let client = self.history.get(op).client;
        let request = request.clone();
        let naming =
            Naming { client, request, first: None, void: false, questions: 1, asked_at: 0 };
        self.named.insert(op, naming);
        // Now and then the client does not wait for an answer.
        if self.of_clients.hits(200_000) {
            let at = self.now + self.of_network.between(MS, self.profile.patience_ns);
            self.asks_at(op, node, at);
        }
        true
    }

    fn asks_at(&mut self, op: u64, node: usize, at: u64) {
        let Some(naming) = self.named.get_mut(&op) else { return };
        naming.questions += 1;
        let request = Box::new(naming.request.clone());
        self.queue.plan(at, Happening::Ask { op, node, request });
    }

    /// Its client does not know what became of it, and asks at some node.
    pub(super) fn ask_again(&mut self, op: u64) {
        let Some(naming) = self.named.get(&op).filter(|n| n.questions < QUESTIONS_MAX) else {
            return;
        };
        let first = naming.first.map(|(node, _)| node).filter(|_| self.of_clients.coin());
        let any = self.of_clients.below(self.nodes.len() as u64) as usize;
        let at = self.now + self.of_network.between(MS, 100 * MS);
        self.asks_at(op, first.unwrap_or(any), at);
    }

    /// Its client asks whom it asked first, under this number.
    pub(super) fn ask_first_again(&mut self, op: u64, number: u64) {
        let Some(naming) = self.named.get_mut(&op).filter(|n| n.questions < QUESTIONS_MAX) else {
            return;
        };
        let Some((node, _)) = naming.first else { return };
        naming.questions += 1;
        let request = Box::new(naming.request.clone());
        let at = self.now + self.of_network.between(20_000, 400_000);
        self.queue.plan(at, Happening::Ask { op: number, node, request });
    }

    /// The node that was asked is down.
    pub(super) fn nobody_there(&mut self, op: u64) {
        match self.named.get_mut(&op) {
            // It was not sent.
            Some(naming) if naming.first.is_none() => naming.void = true,
            Some(_) => return self.ask_again(op),
            None => {}
        }
        self.ends(op, End::Failed, None);
    }

    /// Whether this answer leaves its client in doubt, so that it asks again.
    pub(super) fn asks_again_after(
        &mut self,
        op: u64,
        from: (usize, u64),
        answer: &Answer,
    ) -> bool {
        let lost = self.of_network.hits(250_000);
        let Some(naming) = self.named.get(&op) else { return false };
        let in_doubt = match answer {
            Answer::Failed(TaskError::NotReady | TaskError::Overloaded { .. }) => {
                naming.first != Some(from) || naming.questions > 1
            }
            Answer::Failed(error) => !has_no_effect(error) || naming.first != Some(from),
            _ => false,
        };
        if lost || in_doubt {
            self.trace.tell(self.now, format_args!("op {op} lost: {lost}, in doubt: {answer:?}"));
            self.ask_again(op);
        }
        lost || in_doubt
    }
}
