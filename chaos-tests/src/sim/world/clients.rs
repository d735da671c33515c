//! What clients do: think, ask, hear, give up; and what the checks make of it.

use replication::{Answer, Event, Outcome, TaskError, row};
use ring::Slot;

use super::{Happening, World, acks, shares};
use crate::check::truth::op_of;
use crate::check::{durability, expiry, ranges, reads, session};
use crate::history::{Ask, Asked, End, Step};
use crate::sim::clock::{MS, true_wall};
use crate::sim::node::Input;
use crate::workload::{FLUSHED, KEPT, compose};

impl World {
    pub(crate) fn think(&mut self, client: usize) {
        if !self.stormy || self.clients[client].busy.is_some() {
            return;
        }
        if self.of_clients.hits(10_000) {
            self.client_moves(client);
        }
        let op = self.history.next_op();
        let (profile, now) = (&self.profile, self.now);
        let settling = self.scans.next_to_settle(client, profile, op);
        let composed = match settling {
            Some(composed) => composed,
            None => {
                let me = &mut self.clients[client];
                compose(profile, me, (client, op, now), &mut self.of_clients)
            }
        };
        let node = self.clients[client].node;
        let mut request = composed.request;
        let knows = self.clients[client].carry(self.profile.tokens, &mut request);
        let asked = Asked {
            client,
            node,
            ask: composed.ask,
            rows: composed.rows,
            at: self.now,
            after: Vec::new(),
            knows,
            read: composed.read,
            write: composed.write,
            end: End::Open,
            ended: 0,
        };
        self.counters.begins(&asked, op);
        let op = self.history.begin(asked);
        self.clients[client].busy = Some(op);
        let reads_itself = self.gathers(op, &request);
        let request = Box::new(request);
        let at = self.now + self.of_network.between(20_000, 400_000);
        let patience = self.profile.patience_ns;
        let mut gives_up = self.now + patience + patience / 2;
        let mut number = op;
        if self.names(op, node, &request) {
            gives_up += 2 * patience;
            number = self.listens(op);
        }
        if !reads_itself {
            self.queue.plan(at, Happening::Ask { op: number, node, request });
        }
        self.queue.plan(gives_up, Happening::GiveUp { op });
    }

    pub(crate) fn ask_arrives(&mut self, id: u64, node: usize, request: replication::Request) {
        let (op, direct) = acks::of_direct(id);
        let of_share = shares::request_of_share(op);
        let asked = self.history.get(of_share.unwrap_or(op));
        let ask = asked.ask.clone();
        let Some(number) = self.nodes[node].life.as_ref().map(|life| life.number) else {
            return match of_share {
                Some(op) => self.share_failed(op),
                None => self.nobody_there(op),
            };
        };
        if ask != Ask::Probe && of_share.is_none() && asked.end == End::Open {
            let client = asked.client;
            self.clients[client].life = number;
        }
        let core = request.slot().core(usize::from(self.profile.cores));
        let timeout_us = self.profile.patience_ns / 1_000;
        let event = match self.named.get_mut(&op) {
            Some(naming) => {
                let Some(named) = naming.over(op, (node, number), direct) else { return };
                Event::SubmitNamed { id, request, timeout_us, named }
            }
            None => Event::Submit { id, request, timeout_us },
        };
        self.put(node, core, Input::Event(event));
    }

    /// The process `from` answers.
    pub(crate) fn heard(&mut self, id: u64, from: (usize, u64), answer: Answer) {
        // Nothing comes of it: its client has heard of it otherwise, or will.
        if answer == Answer::Confirmed {
            return;
        }
        let (op, _) = acks::of_direct(id);
        if let Some(op) = shares::request_of_share(op) {
            return self.share_heard(op, &answer);
        }
        if self.history.get(op).end != End::Open {
            return;
        }
        if self.named.contains_key(&op) && self.asks_again_after(op, from, &answer) {
            return;
        }
        let outcome = answer_kind(&answer);
        self.trace.mix(&[self.now, op, u64::from(outcome)]);
        self.trace.tell(self.now, format_args!("op {op} heard {answer:?}"));
        match answer {
            Answer::Failed(error) => {
                let end = if has_no_effect(&error) { End::Failed } else { End::Unknown };
                self.ends(op, end, None);
            }
            answer => self.ends(op, End::Done, Some(answer)),
        }
    }

    pub(crate) fn give_up(&mut self, op: u64) {
        if self.history.get(op).end == End::Open {
            if self.of_clients.coin() {
                let node = self.history.get(op).node;
                for id in acks::numbers_of(op) {
                    self.put_everywhere(node, &Event::Cancel(id));
                }
            }
            self.ends(op, End::Unknown, None);
        }
    }

    /// A process is gone: whoever asked it something is in doubt.
    pub(crate) fn node_left_its_clients(&mut self, node: usize) {
        let open: Vec<u64> = self
            .clients
            .iter()
            .filter_map(|c| c.busy)
            .filter(|op| self.history.get(*op).node == node)
            .collect();
        for op in open {
            if self.named.contains_key(&op) {
                self.ask_again(op);
            } else {
                self.ends(op, End::Unknown, None);
            }
        }
    }

    fn client_moves(&mut self, client: usize) {
        let node = self.of_clients.below(self.nodes.len() as u64) as usize;
        self.clients[client].moves_to(node);
    }

    pub(super) fn ends(&mut self, op: u64, end: End, answer: Option<Answer>) {
        if !self.history.end(op, self.now, end) {
            return;
        }
        self.gathering.remove(&op);
        self.hearing.remove(&op);
        let asked = self.history.get(op).clone();
        self.trace
            .tell(self.now, format_args!("op {op} {end:?}: {:?} {:?}", asked.ask, asked.rows));
        self.trace.mix(&[self.now, op, end as u64]);
        if asked.ask == Ask::Probe {
            if let Some(answer) = answer {
                self.probed.push((op, answer));
            }
            return;
        }
        self.counters.ends(&asked, op);
        match (end, answer) {
            (End::Done, Some(answer)) => self.done(op, &asked, answer),
            (End::Failed, _) => durability::failed(&mut self.truth, op, &asked),
            _ => {}
        }
        let client = &mut self.clients[asked.client];
        client.busy = None;
        if end != End::Done {
            client.scanning = None;
            if matches!(asked.ask, Ask::Expiring(step) if step != Step::Get) {
                client.own.give_up();
            }
            if let Some(row) = asked.rows.first() {
                client.contexts.remove(row);
            }
            if self.of_clients.coin() {
                self.client_moves(asked.client);
            }
        }
        let wait = self.of_clients.waiting(self.profile.think_ns) + MS / 10;
        self.queue.plan(self.now + wait, Happening::Think { client: asked.client });
    }

    fn done(&mut self, op: u64, asked: &Asked, answer: Answer) {
        match answer {
            Answer::Done { outcomes, .. } => {
                let outcomes = self.learn_of_task(op, asked, &outcomes);
                self.task_done(op, asked, outcomes);
            }
            Answer::Keys { keys, next } => self.scan_part(asked, keys, next),
            Answer::Count(_) => {
                if let Ask::Flush(slot) = asked.ask {
                    reads::flushed(&mut self.truth, slot, FLUSHED, asked, self.now);
                }
            }
            Answer::Page { rows, next, seen } => {
                self.learn(asked, &seen);
                if let Ask::Range(span) = &asked.ask {
                    ranges::page(&mut self.truth, asked, (span, &rows, &next), self.now);
                }
            }
            Answer::Deleted { next, seen, .. } => {
                self.learn(asked, &seen);
                if let Ask::DeleteRange(span) = &asked.ask {
                    ranges::deleted(&mut self.truth, asked, (span, &next), self.now);
                }
            }
            Answer::Share { .. } | Answer::Acks(_) | Answer::Confirmed | Answer::Failed(_) => {}
        }
    }

    fn task_done(&mut self, op: u64, asked: &Asked, outcomes: &[Outcome]) {
        let now = self.now;
        let row = asked.rows.first();
        if let Some(first) = outcomes.first()
            && matches!(first, Outcome::Failed(_))
        {
            return;
        }
        durability::acknowledged(&mut self.truth, op, asked, now);
        match (&asked.ask, outcomes) {
            (Ask::Get, [Outcome::Read { found, .. }]) => {
                let shown = found.as_ref().map(|f| f.value.clone());
                reads::winner(&mut self.truth, asked, now, shown.as_ref());
            }
            (Ask::Siblings, [Outcome::Siblings { values, context }]) => {
                let shown: Vec<_> = values.iter().map(|s| s.value.clone()).collect();
                reads::siblings(&mut self.truth, asked, now, &shown);
                if let Some(row) = row {
                    let client = &mut self.clients[asked.client];
                    client.contexts.insert(row.clone(), context.clone());
                    if row::keyspace_of(row) == Some(KEPT) {
                        let of = shown.iter().filter_map(|value| op_of(value)).collect();
                        client.shown.insert(row.clone(), of);
                    }
                }
            }
            (Ask::Delete, [Outcome::Flag(was)]) => {
                reads::deleted(&mut self.truth, asked, now, *was);
            }
            (Ask::GetDelete, [Outcome::Read { found, .. }]) => {
                let shown = found.as_ref().map(|f| f.value.clone());
                reads::winner(&mut self.truth, asked, now, shown.as_ref());
                reads::deleted(&mut self.truth, asked, now, shown.is_some());
            }
            (Ask::Sum, [Outcome::Read { found, .. }]) => {
                let shown = found.as_ref().map(|f| f.value.clone());
                if let Err(text) = self.counters.check(asked, shown.as_ref()) {
                    self.truth.breaks("a counter lies between what is sure and what may be", text);
                }
            }
            (Ask::Set, _) => self.session_overwrites(op, asked),
            (Ask::Expiring(step), [outcome]) => self.own_key(*step, asked, outcome),
            (Ask::Settle, _) => self.scans.settled(&asked.rows, now),
            _ => {}
        }
    }

    /// A client that writes twice through one process replaces what it wrote first.
    fn session_overwrites(&mut self, op: u64, asked: &Asked) {
        let Some(row) = asked.rows.first() else { return };
        let client = &mut self.clients[asked.client];
        let here = (op, asked.node, client.life);
        let before = client.last_set.insert(row.clone(), here);
        let Some((first, node, life)) = before else { return };
        if (node, life) != (asked.node, client.life) {
            return;
        }
        session::replaces(&mut self.truth, row, first, op);
    }

    fn scan_part(&mut self, asked: &Asked, keys: Vec<bytes::Bytes>, next: Option<(Slot, u64)>) {
        let client = &mut self.clients[asked.client];
        let Some(mut scanning) = client.scanning.take() else { return };
        scanning.found.extend(keys);
        match next.filter(|(slot, _)| *slot <= scanning.last) {
            Some(next) => {
                scanning.from = next;
                client.scanning = Some(scanning);
            }
            None => {
                let strong = asked.read + asked.write > 3;
                if let Err(text) = self.scans.check(&scanning, strong) {
                    self.truth.breaks("a scan finds what was there throughout", text);
                }
            }
        }
    }

    /// A step with a key that only this client writes.
    fn own_key(&mut self, step: Step, asked: &Asked, outcome: &Outcome) {
        let was_there = match (step, outcome) {
            (Step::Get, Outcome::Read { found, .. }) => Some(found.is_some()),
            (Step::Expire(_), Outcome::Flag(was)) => Some(*was),
            _ => None,
        };
        let stepped = self.stepped(step, asked, was_there);
        let own = &mut self.clients[asked.client].own;
        if let Err(text) = expiry::step(own, &stepped) {
            self.truth.breaks(expiry::PROMISE, text);
        }
    }

    /// What a step with a client's own key is to the check.
    pub(crate) fn stepped(
        &self,
        step: Step,
        asked: &Asked,
        was_there: Option<bool>,
    ) -> expiry::Stepped {
        let jumps = self.profile.faults.interval(crate::fault::Fault::Jump).is_some();
        // A life that begins after its wall clock was set back keeps to the ceiling of the one before.
        let ceiling = replication::limits::CEILING_AHEAD.as_millis() as u64;
        let ahead = if jumps { self.profile.jump_ms + ceiling } else { 0 };
        expiry::Stepped {
            step,
            was_there,
            began_ms: true_wall(asked.at),
            now_ms: true_wall(self.now),
            margin_ms: self.profile.skew_ms + ahead + 600 + 100,
            read: asked.read,
            write: asked.write,
            copies: 3,
            client: asked.client,
        }
    }
}

const fn answer_kind(answer: &Answer) -> u8 {
    match answer {
        Answer::Done { .. } => 1,
        Answer::Keys { .. } => 2,
        Answer::Count(_) => 3,
        Answer::Acks(_) => 4,
        Answer::Failed(_) => 5,
        Answer::Page { .. } => 6,
        Answer::Deleted { .. } => 7,
        Answer::Share { .. } => 8,
        Answer::Confirmed => 9,
    }
}

/// True for the errors that promise that nothing was done.
pub(super) const fn has_no_effect(error: &TaskError) -> bool {
    !matches!(error, TaskError::Unconfirmed { .. } | TaskError::Storage(_))
}
