//! Coordinator: requests in flight, from the moment a client or a peer asks to the last answer.
//!
//! A request is a job. A task is done by a replica of its slot: reads and plain SETs by any, all
//! else by the slot's preferred coordinator, which takes the keys in turn; a node that is not that
//! replica forwards. Scans, counts and flushes are in [`crate::sweep`].

pub(crate) mod forward;
pub(crate) mod gather;
pub(crate) mod local;
pub(crate) mod share;
pub(crate) mod write;

use ring::keyspace::{Conflict, Durability, Level, Needs, ReplicaSet};
use ring::{Instant, NodeId, Now, Slot};
use smallvec::SmallVec;

use crate::bugs::Bug;
use crate::causality::DotSet;
use crate::encoding::Reader;
use crate::event::{Effect, Named, Outbox, RequestId};
use crate::limits::{CLOSED_RETRY_MS, JOBS_MAX, LOOK_EVERY, ROW_BYTES_MAX, TASK_BYTES_MAX};
use crate::message::{Message, Refusal, RequestKey};
use crate::op::{Answer, Request, Task, TaskError};
use crate::peer::Peer;
use crate::range::{RangeJob, Then};
use crate::row::{self, Keyspace};
use crate::slab::{Key, Token};
use crate::sweep::{CountJob, FlushJob, ScanJob};

use forward::ForwardJob;
use gather::Gather;
use local::LocalRead;
use share::ShareJob;
use write::Writing;

/// The replicas of a slot that count for a keyspace, in order of preference.
pub(crate) type Replicas = SmallVec<[NodeId; 3]>;

/// Who waits for a job's answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    /// A client of this node.
    Local(RequestId),
    /// A client of this node, if it is still there, that named it; and whether it hears replicas itself.
    Named { id: Option<RequestId>, request: RequestKey, direct: bool },
    /// A node that forwarded it.
    Remote { from: NodeId, token: u64, request: RequestKey, slot: Slot, writes: bool },
    /// A job of ours, of which this is a part.
    Part(Key),
    /// Nobody any more.
    Nobody,
}

impl Origin {
    /// The name of the request, if it has one.
    pub(crate) const fn name(&self) -> Option<RequestKey> {
        match self {
            Self::Named { request, .. } | Self::Remote { request, .. } => Some(*request),
            Self::Local(_) | Self::Part(_) | Self::Nobody => None,
        }
    }

    /// Whether it is a client that hears the replicas' acknowledgements itself.
    pub(crate) const fn is_direct(&self) -> bool {
        matches!(self, Self::Named { id: Some(_), direct: true, .. })
    }
}

/// A request in flight.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) origin: Origin,
    pub(crate) started: Instant,
    pub(crate) deadline: Instant,
    pub(crate) last_sent: Instant,
    pub(crate) body: Body,
}

/// What kind of request.
#[derive(Debug)]
pub(crate) enum Body {
    Task(Box<TaskJob>),
    Read(LocalRead),
    Share(Box<ShareJob>),
    Forward(Box<ForwardJob>),
    Scan(Box<ScanJob>),
    Count(Box<CountJob>),
    Flush(Box<FlushJob>),
    Range(Box<RangeJob>),
}

/// A level resolved for one slot.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) level: Level,
    pub(crate) needs: Needs,
}

/// True if a task has to be serialised but not to read a quorum. An increment must read one where keys
/// do not live for ever: whether it gives the key a deadline depends on whether there is one.
pub(crate) fn adds_blindly(task: &Task, ttl_ms: Option<u64>) -> bool {
    ttl_ms.is_none() && task.is_increment()
}

/// A task that this replica coordinates.
#[derive(Debug)]
pub(crate) struct TaskJob {
    pub(crate) task: Task,
    pub(crate) replicas: Replicas,
    /// Our own place among them.
    pub(crate) mine: usize,
    pub(crate) read: Wanted,
    pub(crate) write: Wanted,
    pub(crate) durability: Durability,
    /// How long a key lives that comes into being by it and is not told, in milliseconds.
    pub(crate) ttl_ms: Option<u64>,
    /// Whether it replaces values that its client has not seen.
    pub(crate) conflict: Conflict,
    /// What its answer must have seen.
    pub(crate) after: Option<DotSet>,
    /// We have not seen all of that: the others' states are needed.
    pub(crate) behind: bool,
    /// Nothing is minted: a retry of something that was, confirmed by W replicas' holding it.
    pub(crate) confirm: bool,
    /// A plain SET that looks at our own records first: of a key that may have a counter, which would have
    /// to be read from a quorum and reset; or in a keyspace that keeps siblings, beside which it goes.
    pub(crate) peeks: bool,
    pub(crate) holds_keys: bool,
    pub(crate) stage: Stage,
}

/// How far a task is.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a task is boxed already, and most end up writing")]
pub(crate) enum Stage {
    /// Waits for its keys.
    Queued,
    /// Reads its keys, here and elsewhere, and repairs what differs.
    Gathering(Vec<Gather>),
    /// Minted, and waits for acknowledgements.
    Writing(Writing),
}

/// Whether a job goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// It waits for something.
    Waits,
    /// It is over.
    Over,
}

impl Peer {
    /// A client of this node asks.
    pub(crate) fn on_submit(
        &mut self,
        now: Now,
        id: RequestId,
        request: Request,
        timeout_us: u64,
        out: &mut Outbox,
    ) {
        let deadline = now.mono + core::time::Duration::from_micros(timeout_us);
        self.start(now, Origin::Local(id), request, deadline, out);
    }

    /// A client of this node asks for something under a name.
    pub(crate) fn on_submit_named(
        &mut self,
        now: Now,
        id: RequestId,
        request: Request,
        (timeout_us, named): (u64, Named),
        out: &mut Outbox,
    ) {
        let deadline = now.mono + core::time::Duration::from_micros(timeout_us);
        let name = named.request;
        let origin = Origin::Named { id: Some(id), request: name, direct: named.direct };
        let unasked = Origin::Local(id);
        if !self.ready {
            return self.answer(unasked, Answer::Failed(TaskError::NotReady), out);
        }
        let remembers = !self.has_bug(Bug::MintsRetries);
        // It is under way: its answer goes to the latest asking.
        if let Some(key) = self.in_flight.get(&name).copied().filter(|_| remembers)
            && let Some(job) = self.jobs.get_mut(key)
        {
            let before = core::mem::replace(&mut job.origin, origin);
            let given = job.given_answer();
            job.ask_anew();
            match (given, before) {
                (Some((answer, _)), _) => self.answer(unasked, answer, out),
                // That one is asked for anew.
                (None, Origin::Named { id: Some(old), .. }) if old != id => {
                    out.push(Effect::Answer { id: old, answer: Answer::Confirmed });
                }
                _ => {}
            }
            return;
        }
        if self.known.contains(&name) && remembers {
            return match request {
                Request::Task(task) => self.start_confirm(now, origin, task, deadline, out),
                _ => self.answer(unasked, Answer::Failed(self.not_held(&request)), out),
            };
        }
        match self.closed.get(&name).filter(|_| remembers) {
            Some(Some(answer)) => {
                let answer = answer.clone();
                return self.answer(unasked, answer, out);
            }
            Some(None) => {
                return self.answer(unasked, Answer::Failed(self.not_held(&request)), out);
            }
            None => {}
        }
        if !named.may_mint && remembers && !self.has_bug(Bug::MintsForAnyone) {
            return self.answer(unasked, Answer::Failed(self.not_held(&request)), out);
        }
        if self.known.is_full() {
            let error = TaskError::Overloaded { retry_after_ms: 100 };
            return self.answer(unasked, Answer::Failed(error), out);
        }
        self.start(now, origin, request, deadline, out);
    }

    /// Whether the keyspace of a request takes none now.
    pub(crate) fn is_closed_to(&self, request: &Request) -> bool {
        let keyspace = request.keyspace();
        keyspace.is_some_and(|keyspace| self.cfg.policies.is_closed(keyspace))
    }

    /// Whether something that may write to a keyspace is under way here.
    #[must_use]
    pub fn is_busy_in(&self, keyspace: Keyspace) -> bool {
        let writes = |job: &Job| match &job.body {
            Body::Task(t) => t.task.keyspace == keyspace,
            Body::Range(r) => r.span.keyspace == keyspace,
            // Of whichever keyspace: it does not last.
            Body::Flush(_) => true,
            // Whoever carries it out is busy, or has not begun and will refuse.
            Body::Forward(_) => false,
            Body::Read(_) | Body::Share(_) | Body::Scan(_) | Body::Count(_) => false,
        };
        self.jobs.values().any(writes)
    }

    /// What was asked for before was not done here, which is not to say that it was not done.
    fn not_held(&self, request: &Request) -> TaskError {
        let (slot, keyspace, write) = match request {
            Request::Task(task) => (task.slot, task.keyspace, task.write),
            Request::DeleteRange { span, write, .. } => (span.slot, span.keyspace, *write),
            _ => (request.slot(), 0, None),
        };
        let copies = self.replicas_of(slot, keyspace).len() as u8;
        let level = write.unwrap_or(self.policy(keyspace).write);
        let needed = level.needed(copies).unwrap_or(copies);
        TaskError::Unconfirmed { level, needed, copies, acked: 0, missing: Vec::new() }
    }

    /// Begins a request, or forwards it.
    pub(crate) fn start(
        &mut self,
        now: Now,
        origin: Origin,
        request: Request,
        deadline: Instant,
        out: &mut Outbox,
    ) {
        if !self.ready && matches!(origin, Origin::Local(_) | Origin::Named { .. }) {
            return self.answer(origin, Answer::Failed(TaskError::NotReady), out);
        }
        if matches!(origin, Origin::Local(_) | Origin::Named { .. }) && self.is_closed_to(&request)
        {
            let error = TaskError::Overloaded { retry_after_ms: CLOSED_RETRY_MS };
            return self.answer(origin, Answer::Failed(error), out);
        }
        if self.jobs.len() >= JOBS_MAX {
            let error = TaskError::Overloaded { retry_after_ms: 20 };
            return self.answer(origin, Answer::Failed(error), out);
        }
        match request {
            Request::Task(task) => self.start_task(now, origin, task, deadline, out),
            Request::Share(share) => self.start_share(now, origin, share, deadline, out),
            Request::Scan { keyspace, from, from_hash, count, level } => {
                self.start_scan(
                    now,
                    origin,
                    (keyspace, from, from_hash, count, level),
                    deadline,
                    out,
                );
            }
            Request::Count { keyspace, group } => {
                self.start_count(now, origin, keyspace, group, deadline, out);
            }
            Request::Flush { keyspace, slot, level } => {
                self.start_flush(now, origin, (keyspace, slot, level), deadline, out);
            }
            Request::Range { span, level, after } => {
                self.start_range(now, origin, (span, level, Then::Answer, after), deadline, out);
            }
            Request::DeleteRange { span, read, write, durability, after } => {
                let then = Then::Delete { write, durability };
                self.start_range(now, origin, (span, read, then, after), deadline, out);
            }
            Request::AwaitAcks { write, acks, timeout_ms } => {
                self.start_await(now, origin, (write, acks, timeout_ms), out);
            }
        }
    }

    pub(crate) fn start_task(
        &mut self,
        now: Now,
        origin: Origin,
        mut task: Task,
        deadline: Instant,
        out: &mut Outbox,
    ) {
        let of_slot = |r: &row::Row| row::slot_of(r) == Some(task.slot);
        let rows = task.ops.iter().map(|(r, _)| r).chain(task.watches.iter().map(|(r, _)| r));
        if !rows.clone().all(of_slot) || rows.count() == 0 || !self.slots.owns(task.slot) {
            let text = "a task without keys, or with keys of another slot".to_owned();
            return self.answer(origin, Answer::Failed(TaskError::Invalid(text)), out);
        }
        // Before anything is minted: what a replica's disk or a frame cannot hold must not have a dot.
        let longest = task.ops.iter().map(|(row, _)| row.len()).max().unwrap_or(0);
        if longest > ROW_BYTES_MAX || task.bytes() > TASK_BYTES_MAX {
            let text = if longest > ROW_BYTES_MAX {
                format!("the key takes {longest} bytes, and a key may take {ROW_BYTES_MAX}")
            } else {
                format!(
                    "{} bytes are to be written at once, and {TASK_BYTES_MAX} may be: write fewer keys \
                     of one slot in one command",
                    task.bytes()
                )
            };
            return self.answer(origin, Answer::Failed(TaskError::Invalid(text)), out);
        }
        let replicas = self.replicas(task.slot, task.keyspace);
        let mine = replicas.iter().position(|n| *n == self.me());
        let policy = *self.policy(task.keyspace);
        let read = self.wanted(task.read.unwrap_or(policy.read), &replicas);
        let write = self.wanted(task.write.unwrap_or(policy.write), &replicas);
        let (read, write) = match (read, write) {
            (Ok(read), Ok(write)) => (read, write),
            (Err(error), _) | (_, Err(error)) => {
                return self.answer(origin, Answer::Failed(error), out);
            }
        };
        let Some(after) = decode_after(task.after.as_ref()) else {
            return self.answer(origin, Answer::Failed(no_token()), out);
        };
        let behind = !self.has_seen(task.slot, after.as_ref());
        let is_read = task.is_read() && task.watches.is_empty();
        // Refuse at once what cannot succeed, before anything is sent.
        let reads = is_read || !(task.is_blind() || adds_blindly(&task, policy.ttl_ms));
        for (wanted, applies, must_be_ready) in [(&read, reads, true), (&write, !is_read, false)] {
            let alive = self.alive(&replicas, must_be_ready);
            if applies && !wanted.needs.is_met_by(alive) {
                let error = self.unavailable(wanted, &replicas, alive);
                return self.answer(origin, Answer::Failed(error), out);
            }
        }
        let forwarded = matches!(origin, Origin::Remote { .. });
        let Some(mine) = mine.filter(|_| self.ready) else {
            return self.start_forward(now, origin, Request::Task(task), &replicas, deadline, out);
        };
        if is_read && local::is_enough(&task, &read, mine) {
            return self.start_local_read(now, origin, task, deadline, out);
        }
        let free_choice = is_read
            || (task.is_blind() && !behind && self.slots.get(task.slot).has_what_was_heard());
        // Our clients have heard of writes that are not here: whoever mints must read them first.
        task.atomic |= !is_read && !free_choice && task.is_blind();
        if !forwarded && !free_choice && self.preferred(&replicas) != Some(self.me()) {
            return self.start_forward(now, origin, Request::Task(task), &replicas, deadline, out);
        }
        let durability = task.durability.unwrap_or(policy.durability);
        let task_job = TaskJob {
            task,
            replicas,
            mine,
            read,
            write,
            durability,
            ttl_ms: policy.ttl_ms,
            conflict: policy.conflict,
            after,
            behind,
            confirm: false,
            peeks: false,
            holds_keys: false,
            stage: Stage::Queued,
        };
        let body = Body::Task(Box::new(task_job));
        let job = Job { origin, started: now.mono, deadline, last_sent: now.mono, body };
        let key = self.jobs.insert(job);
        if let Some(name) = origin.name() {
            self.in_flight.insert(name, key);
        }
        self.with_job(now, key, out, |peer, job, out| peer.begin_task(now, key, job, out));
    }

    /// Whether this replica has seen all of a slot that it must.
    pub(crate) fn has_seen(&self, slot: Slot, after: Option<&DotSet>) -> bool {
        after.is_none_or(|after| self.slots.clock(slot).covers(after))
            || self.has_bug(Bug::IgnoresTokens)
    }

    /// First steps of a task, once it is in the slab.
    fn begin_task(&mut self, now: Now, key: Key, job: &mut Job, out: &mut Outbox) -> Flow {
        let Body::Task(t) = &mut job.body else { return Flow::Over };
        if t.task.is_read() && t.task.watches.is_empty() {
            return self.gather(now, key, job, out);
        }
        let state = self.slots.get(t.task.slot);
        if t.task.is_blind() && state.has_what_was_heard() {
            let counters = state.counters;
            let keeps = t.conflict == Conflict::Siblings;
            if !keeps && !t.task.ops.iter().any(|(row, _)| counters.may_have(row)) {
                return self.mint_blind(now, key, job, out);
            }
            t.peeks = true;
            return self.gather(now, key, job, out);
        }
        if self.lock_keys(key, t) { self.gather(now, key, job, out) } else { Flow::Waits }
    }

    /// Queues a task for its keys; true if it has them all.
    pub(crate) fn lock_keys(&mut self, key: Key, t: &mut TaskJob) -> bool {
        t.holds_keys = true;
        let mut first = true;
        for row in distinct_rows(&t.task) {
            let queue = self.locks.entry(row).or_default();
            queue.push(key);
            first &= queue.len() == 1;
        }
        first
    }

    /// Gives a task's keys to those who wait for them.
    pub(crate) fn unlock_keys(&mut self, key: Key, t: &mut TaskJob) {
        if !t.holds_keys {
            return;
        }
        t.holds_keys = false;
        for row in distinct_rows(&t.task) {
            let Some(queue) = self.locks.get_mut(&row) else { continue };
            queue.retain(|k| *k != key);
            match queue.first() {
                Some(next) => self.woken.push(*next),
                None => {
                    self.locks.remove(&row);
                }
            }
        }
    }

    /// Runs those tasks that got their keys.
    pub(crate) fn run_woken(&mut self, now: Now, out: &mut Outbox) {
        while let Some(key) = self.woken.pop() {
            self.with_job(now, key, out, |peer, job, out| {
                let Body::Task(t) = &job.body else { return Flow::Waits };
                let has_all = distinct_rows(&t.task)
                    .iter()
                    .all(|row| peer.locks.get(row).and_then(|q| q.first()) == Some(&key));
                if !matches!(t.stage, Stage::Queued) || !has_all {
                    return Flow::Waits;
                }
                peer.gather(now, key, job, out)
            });
        }
    }

    /// Works on a job, if it is still there, and ends it if it is over.
    pub(crate) fn with_job(
        &mut self,
        now: Now,
        key: Key,
        out: &mut Outbox,
        f: impl FnOnce(&mut Self, &mut Job, &mut Outbox) -> Flow,
    ) {
        let Some(mut job) = self.jobs.take(key) else { return };
        match f(self, &mut job, out) {
            Flow::Waits => self.jobs.put_back(key, job),
            Flow::Over => {
                if let Body::Task(t) = &mut job.body {
                    self.unlock_keys(key, t);
                }
                if let Some(name) = job.origin.name() {
                    self.in_flight.remove(&name);
                }
                self.jobs.forget(key);
            }
        }
        if !self.woken.is_empty() && !self.waking {
            self.waking = true;
            self.run_woken(now, out);
            self.waking = false;
        }
    }

    /// Answers whoever waits.
    pub(crate) fn answer(&mut self, origin: Origin, answer: Answer, out: &mut Outbox) {
        self.answer_having(origin, answer, bytes::Bytes::new(), out);
    }

    /// Answers whoever waits, and tells a forwarding node which dots were made.
    pub(crate) fn answer_having(
        &mut self,
        origin: Origin,
        answer: Answer,
        heard: bytes::Bytes,
        out: &mut Outbox,
    ) {
        match origin {
            Origin::Local(id) => out.push(Effect::Answer { id, answer }),
            Origin::Named { id, request, .. } => {
                if !self.known.contains(&request) {
                    let at = self.hlc.last().wall();
                    self.closed.insert(request, Some(answer.clone()), at);
                }
                out.extend(id.map(|id| Effect::Answer { id, answer }));
            }
            Origin::Remote { from, token, request, slot, writes } => {
                if writes && !self.known.contains(&request) {
                    let at = self.hlc.last().wall();
                    self.closed.insert(request, Some(answer.clone()), at);
                }
                let message = Message::Forwarded { token, slot, answer, heard };
                out.push(Effect::Send { to: from, message });
            }
            Origin::Part(key) => self.parts_answered.push((key, answer)),
            Origin::Nobody => {}
        }
    }

    /// Hands the answers of parts to the jobs that they are parts of.
    pub(crate) fn gather_parts(&mut self, now: Now, out: &mut Outbox) {
        while let Some((key, answer)) = self.parts_answered.pop() {
            self.with_job(now, key, out, |peer, job, out| {
                peer.range_part_answered(job, answer, out)
            });
        }
    }

    /// The error for a level that cannot be reached.
    pub(crate) fn unavailable(
        &self,
        wanted: &Wanted,
        replicas: &[NodeId],
        alive: ReplicaSet,
    ) -> TaskError {
        TaskError::Unavailable {
            level: wanted.level,
            needed: wanted.needs.total,
            copies: replicas.len() as u8,
            alive: alive.len(),
            missing: missing(replicas, alive),
        }
    }

    /// Looks over the jobs that wait: hedges, sends again, gives up.
    pub(crate) fn look_over_jobs(&mut self, now: Now, out: &mut Outbox) {
        if self.jobs.len() == 0 {
            self.next_look = None;
            return;
        }
        // None: the first job has just begun, and nothing of it can be due.
        if self.next_look.is_none_or(|at| now.mono < at) {
            return;
        }
        self.next_look = Some(now.mono + LOOK_EVERY);
        for place in 0..self.jobs.places() {
            let Some(key) = self.jobs.key_at(place) else { continue };
            self.with_job(now, key, out, |peer, job, out| match &mut job.body {
                Body::Task(_) => peer.look_over_task(now, key, job, out),
                Body::Read(_) => peer.look_over_read(now, key, job, out),
                Body::Share(_) => peer.look_over_share(now, job, out),
                Body::Forward(_) => peer.look_over_forward(now, key, job, out),
                Body::Scan(_) => peer.look_over_scan(now, key, job, out),
                Body::Count(_) => peer.look_over_count(now, job, out),
                Body::Flush(_) => peer.look_over_flush(now, key, job, out),
                Body::Range(_) => peer.look_over_range(now, key, job, out),
            });
        }
    }

    fn look_over_task(&mut self, now: Now, key: Key, job: &mut Job, out: &mut Outbox) -> Flow {
        let Body::Task(t) = &job.body else { return Flow::Over };
        match &t.stage {
            Stage::Queued if now.mono >= job.deadline => {
                let error = TaskError::Overloaded { retry_after_ms: 50 };
                self.answer(job.origin, Answer::Failed(error), out);
                Flow::Over
            }
            Stage::Queued => Flow::Waits,
            Stage::Gathering(_) => self.look_over_gather(now, key, job, out),
            Stage::Writing(_) => self.look_over_write(now, key, job, out),
        }
    }

    /// A refusal came for something that a job sent.
    pub(crate) fn on_refused(
        &mut self,
        now: Now,
        from: NodeId,
        token: u64,
        why: Refusal,
        epoch: u64,
        out: &mut Outbox,
    ) {
        if epoch > self.epoch() {
            out.push(Effect::FetchLayout { from });
        }
        let Token::Job(key) = Token::from_u64(token) else { return };
        self.with_job(now, key, out, |peer, job, out| match &mut job.body {
            Body::Forward(_) => peer.forward_refused(now, key, job, from, why, out),
            Body::Task(t) if t.is_minted() => match why {
                Refusal::Storage => peer.write_refused(now, key, job, from, out),
                _ => Flow::Waits,
            },
            Body::Task(_) => peer.gather_refused(now, key, job, from, out),
            Body::Range(_) => peer.range_refused(now, key, job, out),
            Body::Read(_) | Body::Share(_) | Body::Scan(_) | Body::Count(_) | Body::Flush(_) => {
                Flow::Waits
            }
        });
    }
}

/// What an asker has seen is nothing that a node said.
pub(crate) fn no_token() -> TaskError {
    TaskError::Invalid("what it should have seen is not a token that a node gave".to_owned())
}

/// What an answer must have seen; `None` if that is malformed.
#[expect(clippy::option_option, reason = "the outer one is for what is malformed")]
pub(crate) fn decode_after(after: Option<&bytes::Bytes>) -> Option<Option<DotSet>> {
    match after {
        None => Some(None),
        Some(bytes) if bytes.is_empty() => Some(Some(DotSet::new())),
        Some(bytes) => DotSet::decode(&mut Reader::new(bytes)).map(Some),
    }
}

/// The nodes of `replicas` that are not in `set`.
pub(crate) fn missing(replicas: &[NodeId], set: ReplicaSet) -> Vec<NodeId> {
    replicas.iter().enumerate().filter(|(i, _)| !set.contains(*i)).map(|(_, n)| *n).collect()
}

/// The rows of a task, each once, in order of first mention.
pub(crate) fn distinct_rows(task: &Task) -> SmallVec<[row::Row; 1]> {
    let mut rows: SmallVec<[row::Row; 1]> = SmallVec::new();
    for r in task.ops.iter().map(|(r, _)| r).chain(task.watches.iter().map(|(r, _)| r)) {
        if !rows.contains(r) {
            rows.push(r.clone());
        }
    }
    rows
}
