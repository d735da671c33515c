//! Gather: reads a task's keys from R replicas, joins what differs, and repairs before it answers.
//!
//! One replica (ourselves) gives the record, the others a digest; only where a digest differs is the
//! state fetched. A read that found a difference answers once N−R+1 replicas hold the joined state,
//! so that a later quorum read cannot find less (monotonic reads). There is no shortcut: the push is
//! skipped only if so many replies already equal the joined state (rule 14).

use bytes::Bytes;
use ring::keyspace::{Durability, ReplicaSet};
use ring::{NodeId, Now};
use smallvec::{SmallVec, smallvec};

use crate::bugs::Bug;
use crate::causality::DotSet;
use crate::coordinator::{Body, Flow, Job, Stage, TaskJob, adds_blindly, distinct_rows, missing};
use crate::encoding::Reader;
use crate::event::{Effect, Outbox};
use crate::limits::{BEHIND_AGAIN_AFTER, HEDGE_AFTER, RESEND_AFTER};
use crate::message::{Message, ReadKind, State};
use crate::op::{Answer, TaskError};
use crate::peer::Peer;
use crate::record::{Digest, Record, Summary, live_dots_into};
use crate::row::Row;
use crate::slab::{Key, Token};

/// The state of a key on one replica.
#[derive(Clone, Debug)]
struct Stated {
    place: usize,
    record: Bytes,
    clock: DotSet,
    digest: Digest,
}

/// The state of a key as R replicas together know it.
#[derive(Clone, Debug)]
pub(crate) struct Joined {
    pub(crate) record: Bytes,
    /// The clocks of those that were joined.
    pub(crate) seen: DotSet,
    pub(crate) digest: Digest,
}

/// The reading of one key.
#[derive(Debug)]
pub(crate) struct Gather {
    pub(crate) row: Row,
    /// By place: the digest of what that replica has.
    said: SmallVec<[Option<Digest>; 3]>,
    /// The states that came, until they are joined.
    states: SmallVec<[Stated; 1]>,
    asked: ReplicaSet,
    asked_state: ReplicaSet,
    /// Our clock when our own record was asked for: read before the key.
    clock_before: DotSet,
    pub(crate) joined: Option<Joined>,
    /// Who holds the joined state.
    holders: ReplicaSet,
    pushed: ReplicaSet,
    /// Pushes went unanswered: everybody is tried now.
    widened: bool,
}

impl Gather {
    fn responders(&self) -> ReplicaSet {
        self.said.iter().enumerate().filter(|(_, s)| s.is_some()).map(|(i, _)| i).collect()
    }

    /// Whether the states that came have seen this, all together.
    fn have_seen(&self, after: Option<&DotSet>) -> bool {
        let mut seen = DotSet::new();
        self.states.iter().for_each(|s| seen.union(&s.clock));
        after.is_none_or(|after| seen.covers(after))
    }

    fn said_digest(&mut self, place: usize, digest: Digest) {
        // A digest does not replace a state that came before it.
        self.said[place].get_or_insert(digest);
    }

    fn said_state(&mut self, stated: Stated) {
        self.said[stated.place] = Some(stated.digest);
        match self.states.iter_mut().find(|s| s.place == stated.place) {
            Some(before) => *before = stated,
            None => self.states.push(stated),
        }
    }
}

impl Peer {
    /// Starts reading the task's keys.
    pub(crate) fn gather(&mut self, now: Now, key: Key, job: &mut Job, out: &mut Outbox) -> Flow {
        let Body::Task(t) = &mut job.body else { return Flow::Over };
        t.behind = !self.has_seen(t.task.slot, t.after.as_ref());
        let local_only = t.reads_locally();
        let rows = distinct_rows(&t.task);
        let alive = self.alive(&t.replicas, true);
        let mut ask = ReplicaSet::from_iter([t.mine]);
        let kind = if t.behind { ReadKind::State } else { ReadKind::Digest };
        if t.behind {
            // Whoever has seen the rest is not known: everybody is asked, and for all that it knows.
            self.stats.reads_behind += 1;
            ask = (0..t.replicas.len()).filter(|i| *i == t.mine || alive.contains(*i)).collect();
        }
        if !local_only {
            let rotate = self.rotation();
            let n = t.replicas.len();
            for i in (0..n).map(|i| (i + rotate) % n) {
                if !t.read.needs.is_met_by(ask) && alive.contains(i) {
                    ask.insert(i);
                }
            }
        }
        let clock = self.slots.clock(t.task.slot).clone();
        let mut gathers = Vec::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            for (i, node) in t.replicas.iter().enumerate() {
                if i != t.mine && ask.contains(i) {
                    let token = Token::Job(key).to_u64();
                    let message =
                        Message::Read { token, index: index as u16, row: row.clone(), kind };
                    out.push(Effect::Send { to: *node, message });
                }
            }
            gathers.push(Gather {
                row: row.clone(),
                said: SmallVec::from_elem(None, t.replicas.len()),
                states: SmallVec::new(),
                asked: ask,
                asked_state: if t.behind { ask } else { ReplicaSet::EMPTY },
                clock_before: clock.clone(),
                joined: None,
                holders: ReplicaSet::EMPTY,
                pushed: ReplicaSet::EMPTY,
                widened: false,
            });
        }
        t.stage = Stage::Gathering(gathers);
        job.last_sent = now.mono;
        out.push(Effect::Load { token: Token::Job(key).to_u64(), rows });
        Flow::Waits
    }

    /// Our own records of the task's keys came.
    pub(crate) fn gather_loaded(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        records: &[Bytes],
        out: &mut Outbox,
    ) -> Flow {
        let Body::Task(t) = &mut job.body else { return Flow::Waits };
        let Stage::Gathering(gathers) = &mut t.stage else { return Flow::Waits };
        let mut has_counter = false;
        for (g, bytes) in gathers.iter_mut().zip(records) {
            let Some(summary) = Summary::of(bytes) else {
                return self.damaged(job, out);
            };
            if summary.has_pending {
                self.strip(&g.row, bytes, out);
            }
            let mut clock = core::mem::take(&mut g.clock_before);
            if self.has_bug(Bug::ClockAfterKey) {
                clock = self.slots.clock(t.task.slot).clone();
            }
            let digest = summary.digest;
            has_counter |= summary.has_counts;
            g.said_state(Stated { place: t.mine, record: bytes.clone(), clock, digest });
        }
        if t.peeks && has_counter {
            // Now as everything else that reads before it writes.
            t.peeks = false;
            t.stage = Stage::Queued;
            return if self.lock_keys(key, t) {
                self.gather(now, key, job, out)
            } else {
                Flow::Waits
            };
        }
        self.gather_on(now, key, job, out)
    }

    /// Our own disk cannot read what a job needs: the others' states have to do.
    pub(crate) fn job_load_failed(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        out: &mut Outbox,
    ) -> Flow {
        self.stats.failed_loads += 1;
        let Body::Task(t) = &mut job.body else { return Flow::Waits };
        let local_only = t.reads_locally();
        let Stage::Gathering(gathers) = &mut t.stage else { return Flow::Waits };
        if local_only {
            return self.damaged(job, out);
        }
        job.last_sent = now.mono;
        for (index, g) in gathers.iter_mut().enumerate() {
            for (i, node) in t.replicas.iter().enumerate() {
                if i != t.mine && g.asked_state.insert(i) {
                    g.asked.insert(i);
                    let (token, row) = (Token::Job(key).to_u64(), g.row.clone());
                    let (index, kind) = (index as u16, ReadKind::State);
                    let message = Message::Read { token, index, row, kind };
                    out.push(Effect::Send { to: *node, message });
                }
            }
        }
        Flow::Waits
    }

    /// A replica said something of one of the task's keys.
    pub(crate) fn gather_said(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        (from, index): (NodeId, u16),
        said: Result<Digest, State>,
        out: &mut Outbox,
    ) -> Flow {
        let Body::Task(t) = &mut job.body else { return Flow::Waits };
        let Stage::Gathering(gathers) = &mut t.stage else { return Flow::Waits };
        let Some(place) = t.replicas.iter().position(|n| *n == from) else { return Flow::Waits };
        let Some(g) = gathers.get_mut(usize::from(index)) else { return Flow::Waits };
        match said {
            Ok(digest) => g.said_digest(place, digest),
            Err(state) => {
                let clock = DotSet::decode(&mut Reader::new(&state.clock));
                let digest = Summary::of(&state.record).map(|s| s.digest);
                let (Some(clock), Some(digest)) = (clock, digest) else {
                    self.stats.unreadable_messages += 1;
                    return Flow::Waits;
                };
                g.said_state(Stated { place, record: state.record, clock, digest });
            }
        }
        self.gather_on(now, key, job, out)
    }

    /// A replica joined the state that we pushed.
    pub(crate) fn gather_installed(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        (from, index): (NodeId, u16),
        out: &mut Outbox,
    ) -> Flow {
        let Body::Task(t) = &mut job.body else { return Flow::Waits };
        let Stage::Gathering(gathers) = &mut t.stage else { return Flow::Waits };
        let place = t.replicas.iter().position(|n| *n == from);
        if let (Some(place), Some(g)) = (place, gathers.get_mut(usize::from(index))) {
            g.holders.insert(place);
        }
        self.gather_on(now, key, job, out)
    }

    /// A replica cannot answer: ask another one.
    pub(crate) fn gather_refused(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        from: NodeId,
        out: &mut Outbox,
    ) -> Flow {
        let Body::Task(t) = &mut job.body else { return Flow::Waits };
        if let Stage::Gathering(gathers) = &mut t.stage {
            let place = t.replicas.iter().position(|n| *n == from);
            self.ask_more(key, t.mine, &t.replicas.clone(), gathers, place, out);
            job.last_sent = now.mono;
        }
        Flow::Waits
    }

    /// Goes as far as the answers allow.
    fn gather_on(&mut self, now: Now, key: Key, job: &mut Job, out: &mut Outbox) -> Flow {
        let Body::Task(t) = &mut job.body else { return Flow::Waits };
        let local_only = t.reads_locally();
        let Stage::Gathering(gathers) = &mut t.stage else { return Flow::Waits };
        let copies = t.replicas.len() as u8;
        let mut done = true;
        for (index, g) in gathers.iter_mut().enumerate() {
            if g.joined.is_none() {
                let responders = g.responders();
                let enough = if local_only {
                    responders.contains(t.mine)
                } else {
                    t.read.needs.is_met_by(responders)
                };
                let covered = !t.behind || g.have_seen(t.after.as_ref());
                if !enough
                    || !covered
                    || !self.join_said(key, index as u16, g, &t.replicas, t.mine, out)
                {
                    done = false;
                    continue;
                }
            }
            let Some(joined) = &g.joined else { continue };
            let needed = if t.confirm {
                t.write.needs.total
            } else if local_only || t.read.needs.total <= 1 {
                0
            } else if t.read.needs.per_region.is_empty() {
                copies + 1 - t.read.needs.total
            } else {
                g.responders().len().min(copies + 1 - t.read.needs.total)
            };
            let responders = g.responders();
            let differing =
                (0..t.replicas.len()).any(|i| responders.contains(i) && !g.holders.contains(i));
            if (g.holders.len() >= needed && !differing) || self.has_bug(Bug::SkipsRepair) {
                continue;
            }
            let state = encode_state(&joined.record, &joined.seen);
            // Those who answered and differ are all repaired, though only so many are waited for; the
            // others only if that is not enough.
            let order = (0..t.replicas.len())
                .filter(|i| responders.contains(*i))
                .chain((0..t.replicas.len()).filter(|i| !responders.contains(*i)));
            let mut expected = g.holders.len() + pending_pushes(g.pushed, g.holders);
            for i in order {
                let differs = !g.holders.contains(i) && !g.pushed.contains(i);
                let enough = expected >= needed && !(g.widened && g.holders.len() < needed);
                if !differs || (enough && !responders.contains(i)) {
                    continue;
                }
                g.pushed.insert(i);
                expected += 1;
                self.stats.repairs += 1;
                if i == t.mine {
                    let record = Record::decode(&joined.record).unwrap_or_default();
                    self.note_touched(t.task.slot, &g.row);
                    let change = self.slots.install(
                        t.task.slot,
                        g.row.clone(),
                        &record,
                        &joined.seen,
                        &self.cfg.bugs,
                    );
                    out.push(Effect::Apply {
                        token: Token::Nobody.to_u64(),
                        changes: smallvec![change],
                        durability: Durability::Os,
                    });
                    g.holders.insert(i);
                } else {
                    let message = Message::Install {
                        token: Token::Job(key).to_u64(),
                        index: index as u16,
                        row: g.row.clone(),
                        state: state.clone(),
                    };
                    out.push(Effect::Send { to: t.replicas[i], message });
                }
            }
            done &= g.holders.len() >= needed;
        }
        if done { self.conclude(now, key, job, out) } else { Flow::Waits }
    }

    /// Joins what the replicas said of one key; false if a state has to be fetched first.
    fn join_said(
        &mut self,
        key: Key,
        index: u16,
        g: &mut Gather,
        replicas: &[NodeId],
        mine: usize,
        out: &mut Outbox,
    ) -> bool {
        if g.states.is_empty() {
            return false;
        }
        let state_digests: SmallVec<[Digest; 3]> = g.states.iter().map(|s| s.digest).collect();
        let mut complete = true;
        for (i, digest) in g.said.iter().enumerate() {
            let Some(digest) = digest else { continue };
            if !state_digests.contains(digest) {
                complete = false;
                if g.asked_state.insert(i) && i != mine {
                    out.push(Effect::Send {
                        to: replicas[i],
                        message: Message::Read {
                            token: Token::Job(key).to_u64(),
                            index,
                            row: g.row.clone(),
                            kind: ReadKind::State,
                        },
                    });
                }
            }
        }
        if !complete {
            return false;
        }
        let mut joined: Option<Joined> = None;
        for Stated { record, clock, digest, .. } in core::mem::take(&mut g.states) {
            joined = Some(match joined {
                None => Joined { record, seen: clock, digest },
                Some(mut j) if j.digest == digest => {
                    j.seen.union(&clock);
                    j
                }
                Some(j) => {
                    let a = Record::decode(&j.record).unwrap_or_default();
                    let b = Record::decode(&record).unwrap_or_default();
                    let both = a.join(&j.seen, &b, &clock);
                    let mut seen = j.seen.clone();
                    seen.union(&clock);
                    Joined { record: both.to_bytes(), seen, digest: both.digest() }
                }
            });
        }
        let Some(mut joined) = joined else { return false };
        // A clock is read before its record, so the record may show values that the clock lacks: what
        // is shown is seen, or a deletion would spare what it returned.
        live_dots_into(&joined.record, &mut joined.seen);
        if state_digests.len() > 1 && state_digests.iter().any(|d| *d != joined.digest) {
            self.stats.reads_that_differed += 1;
        }
        g.holders = g
            .said
            .iter()
            .enumerate()
            .filter(|(_, said)| **said == Some(joined.digest))
            .map(|(i, _)| i)
            .collect();
        g.joined = Some(joined);
        true
    }

    /// Asks replicas that were not asked yet, in place of one that does not answer.
    fn ask_more(
        &mut self,
        key: Key,
        mine: usize,
        replicas: &[NodeId],
        gathers: &mut [Gather],
        not: Option<usize>,
        out: &mut Outbox,
    ) {
        for (index, g) in gathers.iter_mut().enumerate() {
            if g.joined.is_some() {
                continue;
            }
            for (i, node) in replicas.iter().enumerate() {
                if i != mine && Some(i) != not && g.said[i].is_none() && g.asked.insert(i) {
                    let message = Message::Read {
                        token: Token::Job(key).to_u64(),
                        index: index as u16,
                        row: g.row.clone(),
                        kind: ReadKind::Digest,
                    };
                    out.push(Effect::Send { to: *node, message });
                }
            }
        }
    }

    /// Time passed: hedge, send again, or give up.
    pub(crate) fn look_over_gather(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        out: &mut Outbox,
    ) -> Flow {
        let Body::Task(t) = &mut job.body else { return Flow::Over };
        let Stage::Gathering(gathers) = &mut t.stage else { return Flow::Waits };
        if now.mono >= job.deadline {
            let answered = gathers.first().map_or(ReplicaSet::EMPTY, Gather::responders);
            let wanted = if t.confirm { &t.write } else { &t.read };
            let error = if t.confirm {
                TaskError::Unconfirmed {
                    level: wanted.level,
                    needed: wanted.needs.total,
                    copies: t.replicas.len() as u8,
                    acked: gathers.iter().map(|g| g.holders.len()).min().unwrap_or(0),
                    missing: missing(&t.replicas, answered),
                }
            } else if t.behind && wanted.needs.is_met_by(answered) {
                TaskError::Behind { missing: missing(&t.replicas, answered) }
            } else {
                self.unavailable(wanted, &t.replicas, answered)
            };
            self.answer(job.origin, Answer::Failed(error), out);
            return Flow::Over;
        }
        if t.behind
            && gathers.iter().any(|g| g.joined.is_none())
            && now.mono.since(job.last_sent) >= BEHIND_AGAIN_AFTER
        {
            // What was missing may have come by now, here or elsewhere.
            return self.gather(now, key, job, out);
        }
        if now.mono.since(job.started) >= HEDGE_AFTER {
            let replicas = t.replicas.clone();
            self.ask_more(key, t.mine, &replicas, gathers, None, out);
        }
        if now.mono.since(job.last_sent) >= RESEND_AFTER {
            job.last_sent = now.mono;
            for (index, g) in gathers.iter_mut().enumerate() {
                for (i, node) in t.replicas.iter().enumerate() {
                    let token = Token::Job(key).to_u64();
                    let (index, row) = (index as u16, g.row.clone());
                    let message = match &g.joined {
                        _ if i == t.mine => continue,
                        Some(j) if g.pushed.contains(i) && !g.holders.contains(i) => {
                            let state = encode_state(&j.record, &j.seen);
                            Message::Install { token, index, row, state }
                        }
                        Some(_) => continue,
                        None if g.asked_state.contains(i) => {
                            Message::Read { token, index, row, kind: ReadKind::State }
                        }
                        None if g.said[i].is_none() => {
                            Message::Read { token, index, row, kind: ReadKind::Digest }
                        }
                        None => continue,
                    };
                    out.push(Effect::Send { to: *node, message });
                }
                // Who was pushed to may have died since: let the others take its part.
                g.widened = g.joined.is_some();
            }
            return self.gather_on(now, key, job, out);
        }
        Flow::Waits
    }

    pub(crate) fn damaged(&mut self, job: &Job, out: &mut Outbox) -> Flow {
        let text = "a record on this node cannot be read".to_owned();
        self.answer(job.origin, Answer::Failed(TaskError::Storage(text)), out);
        Flow::Over
    }

    /// Every key is read and repaired: answer, or mint.
    fn conclude(&mut self, now: Now, key: Key, job: &mut Job, out: &mut Outbox) -> Flow {
        let Body::Task(t) = &mut job.body else { return Flow::Over };
        let Stage::Gathering(gathers) = core::mem::replace(&mut t.stage, Stage::Queued) else {
            return Flow::Over;
        };
        self.mint_gathered(now, key, job, gathers, out)
    }
}

const fn pending_pushes(pushed: ReplicaSet, holders: ReplicaSet) -> u8 {
    pushed.len().saturating_sub(holders.len())
}

/// A state as it travels.
pub(crate) fn encode_state(record: &Bytes, seen: &DotSet) -> State {
    State { record: record.clone(), clock: seen.to_bytes() }
}

impl TaskJob {
    /// True if what this replica knows is enough to mint: increments, and SETs that look whether
    /// there is a counter.
    pub(crate) fn reads_locally(&self) -> bool {
        !self.confirm && !self.behind && (self.peeks || adds_blindly(&self.task, self.ttl_ms))
    }

    /// The rows of the task, each once.
    pub(crate) fn rows(&self) -> SmallVec<[Row; 1]> {
        distinct_rows(&self.task)
    }
}
