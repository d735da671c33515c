//! Forward: a request that another node has to coordinate.
//!
//! A forwarded write has a name that is the same in every retry, and one node that alone may mint
//! for it. If that node goes silent, another replica that has seen the write may confirm it; one that
//! has not says so, and then the answer is "unconfirmed", never a second write.

use bytes::Bytes;
use ring::keyspace::{Level, Needs, ReplicaSet};
use ring::{Actor, Incarnation, Instant, NodeId, Now, Slot};
use smallvec::SmallVec;

use crate::bugs::Bug;
use crate::causality::DotSet;
use crate::coordinator::{Body, Flow, Job, Origin, Replicas, Stage, Wanted, missing};
use crate::encoding::Reader;
use crate::event::{Effect, Outbox};
use crate::limits::{RESEND_AFTER, RETRY_FOR};
use crate::message::{Message, Refusal, RequestKey};
use crate::op::{Answer, Request, TaskError};
use crate::peer::Peer;
use crate::slab::{Key, Token};

/// Numbers of requests begin with the moment of the first, in milliseconds, times two to this power:
/// a core never forwards so many in a millisecond.
const REQUESTS_A_MILLI_BITS: u32 = 16;

/// A request that another node coordinates for us.
#[derive(Debug)]
pub(crate) struct ForwardJob {
    request: Request,
    name: RequestKey,
    replicas: Replicas,
    target: NodeId,
    minter: Actor,
    /// How often it was sent to the minter.
    sent: u32,
    writes: bool,
    /// Those that refused, or were asked in vain.
    refused: SmallVec<[NodeId; 3]>,
    why: Option<Refusal>,
}

impl Peer {
    /// Sends a request to the replica that should coordinate it.
    pub(crate) fn start_forward(
        &mut self,
        now: Now,
        origin: Origin,
        request: Request,
        candidates: &[NodeId],
        deadline: Instant,
        out: &mut Outbox,
    ) {
        // A request is forwarded once: who gets it does it or refuses it.
        if let Origin::Remote { from, token, slot, request: name, writes } = origin {
            let why = if self.ready { Refusal::NotMine } else { Refusal::NotReady };
            if writes {
                self.closed.insert(name, None, now.wall);
            }
            let epoch = self.epoch();
            let message = Message::Refused { token, slot, why, epoch };
            out.push(Effect::Send { to: from, message });
            return;
        }
        let target = candidates.iter().copied().find(|n| self.is_ready(*n) && *n != self.me());
        let Some(target) = target else {
            let error = self.nobody_to_ask(candidates);
            return self.answer(origin, Answer::Failed(error), out);
        };
        let name = match origin.name() {
            // A client's. It is forwarded by one job in our life: another asking is answered as that was.
            Some(name) => RequestKey { first_sent: now.wall.0, ..name },
            None => self.next_name(now),
        };
        let writes = request.writes();
        let forward = ForwardJob {
            request,
            name,
            replicas: Replicas::from_slice(candidates),
            target,
            minter: self.actor_of(target),
            sent: 0,
            writes,
            refused: SmallVec::new(),
            why: None,
        };
        let body = Body::Forward(Box::new(forward));
        let job = Job { origin, started: now.mono, deadline, last_sent: now.mono, body };
        let key = self.jobs.insert(job);
        if let Some(name) = origin.name() {
            self.in_flight.insert(name, key);
        }
        self.stats.forwards += 1;
        self.with_job(now, key, out, |peer, job, out| {
            peer.send_forward(now, key, job, out);
            Flow::Waits
        });
    }

    /// A name for a request that has none.
    fn next_name(&mut self, now: Now) -> RequestKey {
        if self.last_request == 0 {
            // A clean restart keeps the life, so its numbers must begin above all that were given.
            self.last_request = self.judged_now(now).0 << REQUESTS_A_MILLI_BITS;
        }
        self.last_request += 1;
        RequestKey {
            front: self.me(),
            incarnation: self.cfg.me.incarnation,
            core: self.cfg.core,
            n: self.last_request,
            first_sent: now.wall.0,
        }
    }

    fn send_forward(&mut self, now: Now, key: Key, job: &mut Job, out: &mut Outbox) {
        let Body::Forward(f) = &mut job.body else { return };
        job.last_sent = now.mono;
        if f.target == f.minter.node {
            f.sent += 1;
        }
        let remaining = job.deadline.since(now.mono).as_micros() as u64;
        let message = Message::Forward {
            token: Token::Job(key).to_u64(),
            request: f.name,
            minter: f.minter,
            remaining_us: remaining.saturating_sub(remaining / 16),
            body: f.request.clone(),
        };
        out.push(Effect::Send { to: f.target, message });
    }

    /// The answer came.
    pub(crate) fn forward_answered(
        &mut self,
        job: &Job,
        (slot, answer, heard): (Slot, Answer, &Bytes),
        out: &mut Outbox,
    ) -> Flow {
        if let Some(dots) = DotSet::decode(&mut Reader::new(heard))
            && self.slots.owns(slot)
        {
            self.slots.get_mut(slot).hear(&dots);
        }
        self.answer(job.origin, answer, out);
        Flow::Over
    }

    /// The node that was asked refused.
    pub(crate) fn forward_refused(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        from: NodeId,
        why: Refusal,
        out: &mut Outbox,
    ) -> Flow {
        let origin = job.origin;
        let Body::Forward(f) = &mut job.body else { return Flow::Waits };
        if from != f.target {
            return Flow::Waits;
        }
        f.why = Some(why);
        if !f.refused.contains(&from) {
            f.refused.push(from);
        }
        // Before anything can have been minted, another replica may take it over.
        let untouched =
            !f.writes || (f.target == f.minter.node && f.sent == 1 && why != Refusal::NotHeld);
        let next = f
            .replicas
            .iter()
            .copied()
            .find(|n| self.up.contains(n) && *n != self.cfg.me.node && !f.refused.contains(n));
        match next {
            Some(next) => {
                f.target = next;
                if untouched {
                    f.minter = self.actor_of(next);
                    f.sent = 0;
                }
                self.send_forward(now, key, job, out);
                Flow::Waits
            }
            None if untouched => {
                let error = self.refused_error(f);
                self.answer(origin, Answer::Failed(error), out);
                Flow::Over
            }
            None => {
                let error = self.unconfirmed(f);
                self.answer(origin, Answer::Failed(error), out);
                Flow::Over
            }
        }
    }

    /// Time passed: ask again, ask another one, or give up.
    pub(crate) fn look_over_forward(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        out: &mut Outbox,
    ) -> Flow {
        let origin = job.origin;
        let Body::Forward(f) = &mut job.body else { return Flow::Over };
        if now.mono >= job.deadline {
            let error = if f.writes { self.unconfirmed(f) } else { self.refused_error(f) };
            self.answer(origin, Answer::Failed(error), out);
            return Flow::Over;
        }
        if now.mono.since(job.last_sent) < RESEND_AFTER {
            return Flow::Waits;
        }
        if !self.up.contains(&f.target) {
            // Whoever has seen the write can confirm it; a read can be done by anybody.
            let others = f.replicas.iter().copied().filter(|n| *n != f.target);
            let next = others.clone().find(|n| self.is_ready(*n) && *n != self.cfg.me.node);
            if let Some(next) = next {
                f.target = next;
                if !f.writes {
                    f.minter = self.actor_of(next);
                }
            }
        }
        self.send_forward(now, key, job, out);
        Flow::Waits
    }

    /// A node forwards a request to us.
    pub(crate) fn on_forward(
        &mut self,
        now: Now,
        from: NodeId,
        token: u64,
        (name, minter, remaining_us, request): (RequestKey, Actor, u64, Request),
        out: &mut Outbox,
    ) {
        let slot = request.slot();
        let deadline = now.mono + core::time::Duration::from_micros(remaining_us);
        let first_sent = name.first_sent;
        let name = name.kept();
        let writes = request.writes();
        let origin = Origin::Remote { from, token, request: name, slot, writes };
        let refuse = |peer: &mut Self, out: &mut Outbox, why| {
            let epoch = peer.epoch();
            if writes && why != Refusal::NotHeld {
                peer.closed.insert(name, None, now.wall);
            }
            let message = Message::Refused { token, slot, why, epoch };
            out.push(Effect::Send { to: from, message });
        };
        // The same request is here already: answer the latest asking, again if need be.
        if let Some(key) = self.in_flight.get(&name).copied()
            && let Some(job) = self.jobs.get_mut(key)
        {
            job.origin = origin;
            job.ask_anew();
            if let Some((answer, heard)) = job.given_answer() {
                self.answer_having(origin, answer, heard, out);
            }
            return;
        }
        match self.closed.get(&name).filter(|_| !self.has_bug(Bug::MintsRetries)) {
            Some(Some(answer)) => {
                let answer = answer.clone();
                return self.answer(origin, answer, out);
            }
            Some(None) => return refuse(self, out, Refusal::NotHeld),
            None => {}
        }
        if !self.ready {
            return refuse(self, out, Refusal::NotReady);
        }
        if self.is_closed_to(&request) {
            return refuse(self, out, Refusal::Overloaded);
        }
        if writes && !self.has_bug(Bug::MintsRetries) {
            if self.known.contains(&name) {
                return match request {
                    Request::Task(task) => self.start_confirm(now, origin, task, deadline, out),
                    _ => refuse(self, out, Refusal::NotHeld),
                };
            }
            let age = now.wall.0.saturating_sub(first_sent);
            // Whoever mints has heard the clock of the asker: no stamp of the process before was lower.
            let is_old = first_sent > 0
                && (age > RETRY_FOR.as_millis() as u64 || first_sent <= self.not_known_before.0);
            if minter != self.cfg.me || is_old {
                return refuse(self, out, Refusal::NotHeld);
            }
            if self.known.is_full() {
                return refuse(self, out, Refusal::Overloaded);
            }
        }
        self.start(now, origin, request, deadline, out);
    }

    /// Answers a retry of something that was minted: makes sure that W replicas hold it.
    pub(crate) fn start_confirm(
        &mut self,
        now: Now,
        origin: Origin,
        task: crate::op::Task,
        deadline: Instant,
        out: &mut Outbox,
    ) {
        let replicas = self.replicas(task.slot, task.keyspace);
        let Some(mine) = replicas.iter().position(|n| *n == self.me()) else { return };
        let policy = *self.policy(task.keyspace);
        let Ok(write) = self.wanted(task.write.unwrap_or(policy.write), &replicas) else { return };
        self.stats.confirms += 1;
        // They held when it was minted, and its own writes have changed them since.
        let mut task = task;
        if !self.has_bug(Bug::WatchesRetries) {
            task.watches.clear();
        }
        // One replica's state is enough to start from: it is ours, and it holds the write.
        let read = Wanted { level: Level::One, needs: Needs::anywhere(1) };
        let job = super::TaskJob {
            durability: task.durability.unwrap_or(policy.durability),
            ttl_ms: policy.ttl_ms,
            conflict: policy.conflict,
            task,
            replicas,
            mine,
            read,
            write,
            after: None,
            behind: false,
            confirm: true,
            peeks: false,
            holds_keys: false,
            stage: Stage::Queued,
        };
        let body = Body::Task(Box::new(job));
        let key = self.jobs.insert(Job {
            origin,
            started: now.mono,
            deadline,
            last_sent: now.mono,
            body,
        });
        if let Some(name) = origin.name() {
            self.in_flight.insert(name, key);
        }
        self.with_job(now, key, out, |peer, job, out| peer.gather(now, key, job, out));
    }

    /// A node in the latest life that we know of.
    fn actor_of(&self, node: NodeId) -> Actor {
        let incarnation = self.lives.get(&node).copied().unwrap_or(Incarnation(0));
        Actor { node, incarnation }
    }

    fn nobody_to_ask(&self, replicas: &[NodeId]) -> TaskError {
        let alive = self.alive(replicas, true);
        TaskError::Unavailable {
            level: Level::One,
            needed: 1,
            copies: replicas.len() as u8,
            alive: alive.len(),
            missing: missing(replicas, alive),
        }
    }

    fn refused_error(&self, f: &ForwardJob) -> TaskError {
        match f.why {
            Some(Refusal::Overloaded) => TaskError::Overloaded { retry_after_ms: 20 },
            Some(Refusal::ClockSkew) => TaskError::ClockSkew,
            Some(Refusal::NotReady) => TaskError::NotReady,
            _ => self.nobody_to_ask(&f.replicas),
        }
    }

    fn unconfirmed(&self, f: &ForwardJob) -> TaskError {
        let level = match &f.request {
            Request::Task(task) => task.write.unwrap_or(self.policy(task.keyspace).write),
            _ => Level::Quorum,
        };
        let copies = f.replicas.len() as u8;
        TaskError::Unconfirmed {
            level,
            needed: level.needed(copies).unwrap_or(copies),
            copies,
            acked: 0,
            missing: missing(&f.replicas, ReplicaSet::EMPTY)
                .into_iter()
                .filter(|n| *n == f.minter.node || !self.up.contains(n))
                .collect(),
        }
    }
}
