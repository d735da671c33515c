//! Write: mints a task's mutations, sends them to every replica, and counts who holds them.
//!
//! Distinct acknowledgers are counted, never acknowledgements. A task's mutations are one batch here
//! and at every replica. The keys are given free as soon as the batch is minted: whoever reads next
//! on this replica sees it.

use core::time::Duration;

use bytes::Bytes;
use ring::keyspace::{Conflict, Durability, ReplicaSet};
use ring::{Instant, NodeId, Now, WallMillis};
use smallvec::SmallVec;

use crate::bugs::Bug;
use crate::causality::DotSet;
use crate::coordinator::gather::Gather;
use crate::coordinator::{Body, Flow, Job, Origin, Stage, TaskJob, missing};
use crate::decide::{self, Mint, decide};
use crate::delta::Delta;
use crate::event::{Changes, Effect, Outbox};
use crate::fold::Patch;
use crate::limits::{DIRECT_TIME_MIN, RESEND_AFTER, SETTLED_MAX, SIBLINGS_MANY};
use crate::message::{Direct, Message};
use crate::op::{Answer, GetExpiry, Op, OpError, Outcome, Task, TaskError, WriteHandle};
use crate::peer::Peer;
use crate::raw::{RawDelta, RawDeltas};
use crate::record::{Expiry, NEVER, Record};
use crate::row::Row;
use crate::slab::{Key, Token};

/// A minted task that waits for acknowledgements.
#[derive(Debug)]
pub(crate) struct Writing {
    pub(crate) acked: ReplicaSet,
    /// Those whose disk has no room.
    refused: ReplicaSet,
    /// Only for the planted bug that counts acknowledgements.
    acks: u8,
    outcomes: Vec<Outcome>,
    deltas: RawDeltas,
    heard: DotSet,
    sync: bool,
    /// Replicas tell the client.
    direct: bool,
    /// Those that have, or will, and when the last of them did.
    told: ReplicaSet,
    told_at: Instant,
    /// When the replicas were asked first.
    asked_at: Instant,
    replied: bool,
    /// The answer that a forwarding node got, in case that it got lost.
    given: Option<(Answer, Bytes)>,
    awaiting: Vec<Awaiting>,
}

/// Somebody who waits for more acknowledgements than the write level.
#[derive(Debug)]
struct Awaiting {
    origin: Origin,
    acks: u8,
    deadline: Instant,
}

/// A key while a task's ops are evaluated one after the other.
struct Working {
    row: Row,
    record: Bytes,
    seen: DotSet,
}

/// The keys of a task: nearly always one.
type Workings = SmallVec<[Working; 1]>;

impl Peer {
    /// Mints a plain SET from what this replica has seen, without reading.
    pub(crate) fn mint_blind(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        out: &mut Outbox,
    ) -> Flow {
        let Body::Task(t) = &mut job.body else { return Flow::Over };
        let slot = t.task.slot;
        let clock = self.slots.clock(slot).clone();
        let rows = t.rows();
        let working =
            rows.into_iter().map(|row| Working { row, record: Bytes::new(), seen: clock.clone() });
        self.mint_task(now, key, job, working.collect(), out)
    }

    /// Mints what the ops make of the states that were read, or answers if they change nothing.
    pub(crate) fn mint_gathered(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        gathers: Vec<Gather>,
        out: &mut Outbox,
    ) -> Flow {
        let Body::Task(t) = &mut job.body else { return Flow::Over };
        let mut working = Workings::new();
        for g in gathers {
            let Some(joined) = g.joined else { continue };
            let expected = t.task.watches.iter().find(|(row, _)| *row == g.row);
            if expected.is_some_and(|(_, digest)| *digest != joined.digest) {
                self.answer(job.origin, Answer::Failed(TaskError::Aborted), out);
                return Flow::Over;
            }
            working.push(Working { row: g.row, record: joined.record, seen: joined.seen });
        }
        if t.confirm {
            return self.confirm(now, key, job, &working, out);
        }
        self.mint_task(now, key, job, working, out)
    }

    fn mint_task(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        mut working: Workings,
        out: &mut Outbox,
    ) -> Flow {
        let wall = self.judged_now(now);
        let Body::Task(t) = &mut job.body else { return Flow::Over };
        let request = job.origin.name();
        let mut outcomes = Vec::with_capacity(t.task.ops.len());
        let mut deltas = RawDeltas::new();
        let mut changes = Changes::new();
        let mut heard = DotSet::new();
        let mut stamp = None;
        let in_series = t.task.ops.len() > working.len();
        let keeps = t.conflict == Conflict::Siblings && !self.has_bug(Bug::SetReplacesSiblings);
        // What its client has seen without saying so: here what it watched, below what it writes itself.
        let mut known = keeps.then(|| watched(&t.task, &working, wall));
        for (row, op) in &t.task.ops {
            let w = working.iter_mut().find(|w| w.row == *row).expect("every row was read");
            let bytes = w.record.clone();
            let Some(record) = Record::decode(&bytes) else {
                let text = "a record on this node cannot be read".to_owned();
                self.answer(job.origin, Answer::Failed(TaskError::Storage(text)), out);
                return Flow::Over;
            };
            let (mut outcome, mut mint) = match op {
                Op::Read => (decide::read(&bytes, &record, &record.view(wall)), None),
                _ => decide(op, &record, &w.seen, wall, known.as_ref()),
            };
            if let (Some(mint), Some(ttl_ms)) = (&mut mint, t.ttl_ms) {
                let exists = mint.by.is_some() && record.view(wall).exists();
                mint.lives_for(ttl_ms, wall, exists);
            }
            let has_room = |m: &Mint| {
                m.by.is_none_or(|by| {
                    record.counted(self.cfg.me, 0, by, m.discards_values).is_some()
                })
            };
            if mint.as_ref().is_some_and(|m| !has_room(m)) {
                (outcome, mint) = (Outcome::Failed(OpError::Overflow), None);
            }
            if let Some(mint) = mint {
                let hlc = match stamp {
                    Some(hlc) => hlc,
                    None => match self.hlc.tick(now.wall) {
                        Ok(hlc) => *stamp.insert(hlc),
                        Err(above) => {
                            tracing::warn!(?above, "writes wait for the disk: clock ceiling");
                            let error = TaskError::Overloaded { retry_after_ms: 100 };
                            self.answer(job.origin, Answer::Failed(error), out);
                            return Flow::Over;
                        }
                    },
                };
                let dot = self.slots.next_dot(t.task.slot, self.cfg.me);
                let mut delta = Delta::new(row, dot, hlc);
                delta.request = request;
                self.fill(&mut delta, &mint, &record, &w.seen);
                let raw = RawDelta::of(&delta, &mut self.scratch);
                let change = self.slots.apply(&delta, row.clone(), &raw, &self.cfg.bugs);
                changes.push(change.expect("a dot just minted is new"));
                heard.insert(dot);
                w.seen.insert(dot);
                if let Some(known) = &mut known {
                    known.insert(dot);
                    let beside = record.values.iter().filter(|v| mint.spares.contains(v.dot));
                    self.stats.many_siblings += u64::from(beside.count() + 1 >= SIBLINGS_MANY);
                }
                if let (Op::SetWithContext { .. }, Outcome::Siblings { context, .. }) =
                    (op, &mut outcome)
                {
                    *context = w.seen.to_bytes();
                }
                if in_series {
                    let base = Record::decode(&bytes).unwrap_or_default();
                    let none = DotSet::new;
                    let patch = Patch::of_delta(&delta, none(), none());
                    w.record = Patch::of_record(base).then(&patch).into_record().to_bytes();
                }
                deltas.push(raw);
            }
            outcomes.push(outcome);
        }
        outcomes.extend(seen_outcome(t.after.as_ref(), &working));
        if deltas.is_empty() {
            self.answer(job.origin, Answer::Done { outcomes, write: None }, out);
            return Flow::Over;
        }
        if let Some(request) = request {
            self.known.insert(request, now.wall);
        }
        let sync = t.durability == Durability::Sync;
        let direct = hears_replicas(now, job.origin, job.deadline, t);
        let left_us = job.deadline.since(now.mono).as_micros() as u64;
        let token = Token::Job(key).to_u64();
        out.push(Effect::Apply { token, changes, durability: t.durability });
        // As many as it takes tell the client at once, each time others, and the rest when it costs nothing.
        let needed = t.write.needs.total.saturating_sub(1);
        let mut prompt = needed;
        let turn = self.stats.writes as usize % t.replicas.len();
        for i in (0..t.replicas.len()).map(|i| (turn + i) % t.replicas.len()) {
            let node = t.replicas[i];
            if i != t.mine && self.worth_sending(node, &t.replicas) {
                let deltas = deltas.clone();
                let is_prompt = prompt > 0 && self.up.contains(&node);
                prompt -= u8::from(is_prompt);
                let outcomes = || outcomes.clone();
                let prompt = is_prompt;
                let tells = || Box::new(Direct { needed, prompt, left_us, outcomes: outcomes() });
                let message =
                    Message::Replicate { token, part: 0, deltas, sync, direct: direct.then(tells) };
                out.push(Effect::Send { to: node, message });
            }
        }
        self.stats.writes += 1;
        job.last_sent = now.mono;
        t.stage = Stage::Writing(Writing {
            acked: ReplicaSet::EMPTY,
            refused: ReplicaSet::EMPTY,
            acks: 0,
            outcomes,
            deltas,
            heard,
            sync,
            direct,
            told: ReplicaSet::EMPTY,
            told_at: now.mono,
            asked_at: now.mono,
            replied: false,
            given: None,
            awaiting: Vec::new(),
        });
        self.unlock_keys(key, t);
        Flow::Waits
    }

    /// Fills in what a delta replaces and adds.
    pub(crate) fn fill<'a>(
        &self,
        delta: &mut Delta<'a>,
        mint: &'a Mint,
        record: &Record<'_>,
        seen: &DotSet,
    ) {
        delta.discards_values = mint.discards_values;
        delta.discards_expiry = mint.discards_expiry;
        if mint.discards_values || mint.discards_expiry {
            delta.discard = match &mint.context {
                Some(context) => context.clone(),
                // What was read, and no more: what came since must survive as a sibling.
                None => {
                    let mut all = seen.clone();
                    record.live_dots_into(&mut all);
                    all.union(&record.pending);
                    all.union(&record.pending_expiry);
                    if mint.spares.is_empty() { all } else { all.minus(&mint.spares) }
                }
            };
        }
        if mint.discards_values {
            // Resets use what this replica knows, never a client's token (rule 5).
            delta.resets = record.reset_at(delta.hlc);
            if self.has_bug(Bug::ResetWipes) {
                for reset in &mut delta.resets {
                    reset.n = u64::MAX;
                }
            }
        }
        delta.value = mint.value.as_deref();
        delta.expiry = mint.expiry;
        let stays = |e: &Expiry| mint.spares.contains(e.dot);
        if mint.discards_expiry && record.expiries.iter().any(stays) {
            // It came with a value that stays, under the same dot. The longest counts.
            delta.expiry.get_or_insert(NEVER);
        }
        if let Some(by) = mint.by {
            let anew = mint.discards_values;
            delta.count = record.counted(self.cfg.me, delta.dot.seq, by, anew);
        }
    }

    /// A retry of something minted before: W replicas hold the keys' states now. It is answered as
    /// the write that it is: with a name under which its acknowledgements can be asked for, W.
    fn confirm(
        &mut self,
        now: Now,
        key: Key,
        job: &Job,
        working: &[Working],
        out: &mut Outbox,
    ) -> Flow {
        let Body::Task(t) = &job.body else { return Flow::Over };
        let wall = self.judged_now(now);
        let mut outcomes = Vec::with_capacity(t.task.ops.len());
        for (row, op) in &t.task.ops {
            let w = working.iter().find(|w| w.row == *row).expect("every row was read");
            let record = Record::decode(&w.record).unwrap_or_default();
            match confirmed(op, &record, &w.seen, wall) {
                Some(outcome) => outcomes.push(outcome),
                None => {
                    let error = TaskError::Unconfirmed {
                        level: t.write.level,
                        needed: t.write.needs.total,
                        copies: t.replicas.len() as u8,
                        acked: 0,
                        missing: Vec::new(),
                    };
                    self.answer(job.origin, Answer::Failed(error), out);
                    return Flow::Over;
                }
            }
        }
        // Whoever names a request wants to know what it has seen.
        let after = t.task.after.as_ref().map(|_| DotSet::new());
        outcomes.extend(seen_outcome(after.as_ref(), working));
        self.remember_settled(key, t.write.needs.total);
        let (slot, coordinator) = (t.task.slot, self.cfg.me.node);
        let write = Some(WriteHandle { slot, coordinator, id: token_id(key) });
        self.answer(job.origin, Answer::Done { outcomes, write }, out);
        Flow::Over
    }

    /// Our own copy is as durable as was asked, or is not.
    pub(crate) fn write_applied(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        failed: Option<String>,
        out: &mut Outbox,
    ) -> Flow {
        let Body::Task(t) = &mut job.body else { return Flow::Waits };
        if let Some(why) = failed {
            tracing::error!(%why, "this node's own copy of a write failed");
            self.stats.failed_applies += 1;
            return Flow::Waits;
        }
        let mine = t.mine;
        self.write_acked(now, key, job, mine, out)
    }

    /// A replica holds the task's mutations, and perhaps has told the client.
    pub(crate) fn write_replicated(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        (from, told_us): (NodeId, u32),
        out: &mut Outbox,
    ) -> Flow {
        let Body::Task(t) = &mut job.body else { return Flow::Waits };
        let Some(place) = t.replicas.iter().position(|n| *n == from) else { return Flow::Waits };
        if let Stage::Writing(w) = &mut t.stage
            && told_us > 0
        {
            w.told.insert(place);
            w.told_at = w.told_at.max(w.asked_at + Duration::from_micros(told_us.into()));
        }
        self.write_acked(now, key, job, place, out)
    }

    /// A replica has no room for the task's mutations, and has not taken them in. If those that are left are too few,
    /// nobody need wait for the deadline to hear it.
    pub(crate) fn write_refused(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        from: NodeId,
        out: &mut Outbox,
    ) -> Flow {
        if !self.has_no_room(from) {
            return Flow::Waits;
        }
        let Body::Task(t) = &mut job.body else { return Flow::Waits };
        let Stage::Writing(w) = &mut t.stage else { return Flow::Waits };
        let Some(place) = t.replicas.iter().position(|n| *n == from) else { return Flow::Waits };
        w.refused.insert(place);
        let may_hold = |(i, n): (usize, &NodeId)| {
            w.acked.contains(i) || i == t.mine || (self.up.contains(n) && !w.refused.contains(i))
        };
        let places = t.replicas.iter().enumerate().filter(|r| may_hold(*r)).map(|(i, _)| i);
        if !w.replied && !t.write.needs.is_met_by(places.collect()) {
            self.give_up_write(job, out);
        }
        self.settle(now, key, job, out)
    }

    /// Says that too few are known to hold a write.
    fn give_up_write(&mut self, job: &mut Job, out: &mut Outbox) {
        let Body::Task(t) = &mut job.body else { return };
        let Stage::Writing(w) = &mut t.stage else { return };
        w.replied = true;
        let error = TaskError::Unconfirmed {
            level: t.write.level,
            needed: t.write.needs.total,
            copies: t.replicas.len() as u8,
            acked: t.write.needs.counted(w.acked),
            missing: missing(&t.replicas, w.acked),
        };
        self.stats.unconfirmed += 1;
        self.answer(job.origin, Answer::Failed(error), out);
    }

    fn write_acked(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        place: usize,
        out: &mut Outbox,
    ) -> Flow {
        let Body::Task(t) = &mut job.body else { return Flow::Waits };
        let counts_acks = self.cfg.bugs.contains(&Bug::CountsAcks);
        let Stage::Writing(w) = &mut t.stage else { return Flow::Waits };
        w.acked.insert(place);
        w.acks += 1;
        let met =
            t.write.needs.is_met_by(w.acked) || (counts_acks && w.acks >= t.write.needs.total);
        let is_direct = w.direct && job.origin.is_direct();
        let write =
            WriteHandle { slot: t.task.slot, coordinator: self.cfg.me.node, id: token_id(key) };
        // How many have to hold it beside us.
        let needed = t.write.needs.total.saturating_sub(1);
        if met && !w.replied {
            w.replied = true;
            let outcomes = core::mem::take(&mut w.outcomes);
            let heard = match job.origin {
                Origin::Remote { .. } => w.heard.to_bytes(),
                _ => Bytes::new(),
            };
            let answer = Answer::Done { outcomes, write: Some(write) };
            if job.origin.name().is_some() {
                w.given = Some((answer.clone(), heard.clone()));
            }
            match job.origin {
                Origin::Named { id: Some(id), .. } if is_direct && w.told.len() >= needed => {
                    out.push(Effect::Told { id, at: w.told_at.min(now.mono) });
                    out.push(Effect::Answer { id, answer: Answer::Confirmed });
                }
                origin => self.answer_having(origin, answer, heard, out),
            }
        }
        self.settle(now, key, job, out)
    }

    /// Ends a write that nobody is missing from, and answers those who wait for acknowledgements.
    fn settle(&mut self, now: Now, key: Key, job: &mut Job, out: &mut Outbox) -> Flow {
        let Body::Task(t) = &mut job.body else { return Flow::Over };
        let Stage::Writing(w) = &mut t.stage else { return Flow::Waits };
        let acked = w.acked.len();
        let all = usize::from(acked) == t.replicas.len();
        let mut answers = Vec::new();
        w.awaiting.retain(|a| {
            let over = acked >= a.acks || all || now.mono >= a.deadline;
            if over {
                answers.push(a.origin);
            }
            !over
        });
        // Once answered, only replicas that are there are worth waiting for.
        let is_gone = |i, n| w.refused.contains(i) || !self.up.contains(n);
        let others_gone = w.replied
            && w.awaiting.is_empty()
            && t.replicas
                .iter()
                .enumerate()
                .all(|(i, n)| w.acked.contains(i) || (i != t.mine && is_gone(i, n)));
        for origin in answers {
            self.answer(origin, Answer::Acks(acked), out);
        }
        if all || others_gone {
            self.remember_settled(key, acked);
            return Flow::Over;
        }
        Flow::Waits
    }

    fn remember_settled(&mut self, key: Key, acked: u8) {
        if self.settled.len() >= SETTLED_MAX {
            self.settled.pop_front();
        }
        self.settled.push_back((token_id(key), acked));
    }

    /// Time passed: send again to those who did not acknowledge, or give up.
    pub(crate) fn look_over_write(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        out: &mut Outbox,
    ) -> Flow {
        let Body::Task(t) = &mut job.body else { return Flow::Over };
        let deadline = job.deadline;
        let Stage::Writing(w) = &mut t.stage else { return Flow::Waits };
        if now.mono >= deadline {
            if !w.replied {
                self.give_up_write(job, out);
            }
            let Body::Task(t) = &mut job.body else { return Flow::Over };
            let Stage::Writing(w) = &mut t.stage else { return Flow::Over };
            if w.awaiting.is_empty() {
                let acked = w.acked.len();
                self.remember_settled(key, acked);
                return Flow::Over;
            }
            return self.settle(now, key, job, out);
        }
        if now.mono.since(job.last_sent) >= RESEND_AFTER {
            job.last_sent = now.mono;
            let replicas = t.replicas.clone();
            for (i, node) in replicas.iter().enumerate() {
                let waits = i != t.mine && !w.acked.contains(i);
                if waits && self.worth_sending(*node, &replicas) {
                    let message = Message::Replicate {
                        token: Token::Job(key).to_u64(),
                        part: 0,
                        deltas: w.deltas.clone(),
                        sync: w.sync,
                        // Whoever did not tell may have been told to, and the client may hear from us.
                        direct: None,
                    };
                    out.push(Effect::Send { to: *node, message });
                }
            }
        }
        self.settle(now, key, job, out)
    }

    /// Waits until so many replicas hold a write.
    pub(crate) fn start_await(
        &mut self,
        now: Now,
        origin: Origin,
        (write, acks, timeout_ms): (WriteHandle, u8, u32),
        out: &mut Outbox,
    ) {
        let deadline = now.mono + Duration::from_millis(u64::from(timeout_ms));
        if write.coordinator != self.cfg.me.node {
            let request = crate::op::Request::AwaitAcks { write, acks, timeout_ms };
            let node = [write.coordinator];
            let slack = Duration::from_millis(500);
            return self.start_forward(now, origin, request, &node, deadline + slack, out);
        }
        let Token::Job(key) = Token::from_u64(write.id) else {
            return self.answer(origin, Answer::Acks(0), out);
        };
        // The newest first: who waits has mostly just written.
        if let Some((_, acked)) = self.settled.iter().rev().find(|(id, _)| *id == write.id) {
            let acked = *acked;
            return self.answer(origin, Answer::Acks(acked), out);
        }
        let mut waits = false;
        if let Some(job) = self.jobs.get_mut(key)
            && let Body::Task(t) = &mut job.body
            && let Stage::Writing(w) = &mut t.stage
        {
            waits = true;
            w.awaiting.push(Awaiting { origin, acks, deadline });
            job.deadline = job.deadline.max(deadline);
        }
        if waits {
            self.with_job(now, key, out, |peer, job, out| peer.settle(now, key, job, out));
        } else {
            self.answer(origin, Answer::Acks(0), out);
        }
    }
}

impl Job {
    /// Somebody asks who has not heard yet that too few hold the write: that is found out anew.
    pub(crate) fn ask_anew(&mut self) {
        if let Body::Task(t) = &mut self.body
            && let Stage::Writing(w) = &mut t.stage
        {
            w.replied &= w.given.is_some();
        }
    }

    /// The answer that was given already, if the job is still there after it.
    pub(crate) fn given_answer(&self) -> Option<(Answer, Bytes)> {
        match &self.body {
            Body::Task(t) => match &t.stage {
                Stage::Writing(w) => w.given.clone(),
                Stage::Queued | Stage::Gathering(_) => None,
            },
            Body::Read(_)
            | Body::Share(_)
            | Body::Forward(_)
            | Body::Scan(_)
            | Body::Count(_)
            | Body::Flush(_)
            | Body::Range(_) => None,
        }
    }
}

impl TaskJob {
    /// True if it has been minted.
    pub(crate) const fn is_minted(&self) -> bool {
        matches!(self.stage, Stage::Writing(_))
    }
}

/// What has been seen of a task's slot, for those who want to know.
fn seen_outcome(after: Option<&DotSet>, working: &[Working]) -> Option<Outcome> {
    let mut seen = after?.clone();
    for w in working {
        seen.union(&w.seen);
    }
    Some(Outcome::Seen(seen.to_bytes()))
}

/// The values that plain reads of the watched keys show: they are still the ones that were read.
fn watched(task: &Task, working: &[Working], now: WallMillis) -> DotSet {
    let is_watched = |w: &&Working| task.watches.iter().any(|(row, _)| *row == w.row);
    let shown = |w: &Working| {
        let record = Record::decode(&w.record)?;
        record.view(now).values.first().map(|v| v.dot)
    };
    working.iter().filter(is_watched).filter_map(shown).collect()
}

/// Whether a write's client is to hear the replicas itself: not where it matters in which region they are, nor
/// where our own copy is enough; and not where that has to survive the loss of power, since whoever hears of our
/// write knows only that it survives the death of our process.
fn hears_replicas(now: Now, origin: Origin, deadline: Instant, t: &TaskJob) -> bool {
    origin.is_direct()
        && t.write.needs.total > 1
        && t.write.needs.per_region.is_empty()
        && t.durability == Durability::Os
        && deadline.since(now.mono) >= DIRECT_TIME_MIN
}

fn token_id(key: Key) -> u64 {
    Token::Job(key).to_u64()
}

/// What to answer to a retry whose first try was minted; `None` if that cannot be known any more.
fn confirmed(op: &Op, record: &Record<'_>, seen: &DotSet, now: WallMillis) -> Option<Outcome> {
    let current = |op: &Op| decide(op, record, seen, now, None).0;
    match op {
        Op::Read | Op::Siblings | Op::GetExpire(GetExpiry::Keep) => Some(current(op)),
        Op::Set { get: false, .. } => Some(Outcome::Set { done: true, previous: None }),
        Op::SetWithContext { .. } => Some(current(&Op::Siblings)),
        Op::Delete | Op::Expire { .. } | Op::Persist => Some(Outcome::Flag(true)),
        Op::Append(_) | Op::SetRange { .. } => Some(current(&Op::Append(Bytes::new()))),
        Op::Increment(_) => Some(current(&Op::Increment(0))),
        Op::IncrementFloat(_) => Some(current(&Op::IncrementFloat(Bytes::from_static(b"0")))),
        Op::Set { get: true, .. } | Op::GetDelete | Op::GetExpire(_) => None,
    }
}
