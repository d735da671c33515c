//! Sweeps: requests over many keys of a range of slots: scans, counts and flushes.
//!
//! A scan asks every node that keeps a slot of the group for its rows in cursor order, joins them key
//! by key with the clocks that came along, and returns what is live, up to where enough replicas of
//! every slot have spoken. A key that exists throughout is found; one that is deleted throughout is
//! not, though a lagging replica may still hold it.

use std::collections::BTreeMap;

use bytes::Bytes;
use ring::keyspace::{Durability, Level, ReplicaSet};
use ring::{Instant, NodeId, Now, SLOTS, SLOTS_PER_GROUP, Slot};

use crate::causality::DotSet;
use crate::coordinator::{Body, Flow, Job, Origin, Wanted};
use crate::decide::{Mint, decide};
use crate::delta::Delta;
use crate::encoding::Reader;
use crate::event::{Changes, Effect, Outbox};
use crate::limits::{FLUSH_BATCH, RESEND_AFTER};
use crate::message::{Listed, Message};
use crate::op::{Answer, Op, Request, TaskError};
use crate::peer::Peer;
use crate::raw::{RawDelta, RawDeltas};
use crate::record::Record;
use crate::replica::Served;
use crate::row::{self, Keyspace, Row};
use crate::slab::{Key, Token};

/// What a listing brings: rows, clocks of their slots, and where it stops.
type ListingParts = (Vec<Listed>, Vec<(Slot, Bytes)>, (u32, u64));

/// One node's listing.
#[derive(Debug)]
struct Part {
    rows: BTreeMap<(Slot, u64, Row), Bytes>,
    clocks: BTreeMap<Slot, DotSet>,
    next: (u32, u64),
}

/// A listing of a range of slots from enough replicas of each.
#[derive(Debug)]
pub(crate) struct Collect {
    keyspace: Keyspace,
    from: Slot,
    from_hash: u64,
    last: Slot,
    count: u32,
    level: Level,
    parts: BTreeMap<NodeId, Part>,
    /// Our own clocks, read before our rows.
    clocks_before: Vec<(Slot, Bytes)>,
}

/// A live key of a listing, with the joined record and what was seen of it.
struct Live {
    row: Row,
    record: Bytes,
    seen: DotSet,
}

/// What SCAN asks.
#[derive(Debug)]
pub(crate) struct ScanJob {
    collect: Collect,
}

/// What DBSIZE asks.
#[derive(Debug)]
pub(crate) struct CountJob {
    keyspace: Keyspace,
    waiting: BTreeMap<NodeId, Vec<Slot>>,
    total: u64,
}

/// What FLUSHDB asks of one slot.
#[derive(Debug)]
pub(crate) struct FlushJob {
    collect: Option<Collect>,
    slot: Slot,
    replicas: crate::coordinator::Replicas,
    mine: usize,
    write: Wanted,
    durability: Durability,
    deltas: Vec<RawDeltas>,
    acked: Vec<ReplicaSet>,
    deleted: u64,
}

impl Peer {
    /// Begins a scan.
    pub(crate) fn start_scan(
        &mut self,
        now: Now,
        origin: Origin,
        (keyspace, from, from_hash, count, level): (Keyspace, Slot, u64, u32, Option<Level>),
        deadline: Instant,
        out: &mut Outbox,
    ) {
        if from.0 >= SLOTS || !self.slots.owns(from) {
            let text = format!("{from:?} is not a slot of this core");
            return self.answer(origin, Answer::Failed(TaskError::Invalid(text)), out);
        }
        let last = Slot(from.0 / SLOTS_PER_GROUP * SLOTS_PER_GROUP + SLOTS_PER_GROUP - 1);
        let level = level.unwrap_or(self.policy(keyspace).read);
        let collect = Collect {
            keyspace,
            from,
            from_hash,
            last,
            count: count.max(1),
            level,
            parts: BTreeMap::new(),
            clocks_before: self.clocks(from, last),
        };
        if let Err(error) = self.can_collect(&collect) {
            return self.answer(origin, Answer::Failed(error), out);
        }
        let body = Body::Scan(Box::new(ScanJob { collect }));
        let key = self.jobs.insert(Job {
            origin,
            started: now.mono,
            deadline,
            last_sent: now.mono,
            body,
        });
        self.with_job(now, key, out, |peer, job, out| {
            if let Body::Scan(scan) = &job.body {
                peer.ask_listings(key, &scan.collect, out);
            }
            Flow::Waits
        });
    }

    /// Whether enough replicas of every slot are there.
    fn can_collect(&self, c: &Collect) -> Result<(), TaskError> {
        let mut checked: Option<&[NodeId]> = None;
        for raw in c.from.0..=c.last.0 {
            let replicas = self.replicas_of(Slot(raw), c.keyspace);
            if checked == Some(replicas) {
                continue;
            }
            checked = Some(replicas);
            let wanted = self.wanted(c.level, replicas)?;
            let alive = self.alive(replicas, true);
            if !wanted.needs.is_met_by(alive) {
                return Err(self.unavailable(&wanted, replicas, alive));
            }
        }
        Ok(())
    }

    /// Asks every replica of a slot in the range that has not answered.
    fn ask_listings(&mut self, key: Key, c: &Collect, out: &mut Outbox) {
        let mut nodes: Vec<NodeId> = Vec::new();
        for raw in c.from.0..=c.last.0 {
            for node in self.replicas_of(Slot(raw), c.keyspace) {
                if !nodes.contains(node) {
                    nodes.push(*node);
                }
            }
        }
        for node in nodes {
            if c.parts.contains_key(&node) {
                continue;
            }
            let token = Token::Job(key).to_u64();
            if node == self.me() {
                out.push(Effect::List {
                    token,
                    keyspace: c.keyspace,
                    from: c.from,
                    from_hash: c.from_hash,
                    last: c.last,
                    count: c.count,
                });
            } else if self.is_ready(node) {
                let message = Message::List {
                    token,
                    keyspace: c.keyspace,
                    from: c.from,
                    from_hash: c.from_hash,
                    last: c.last,
                    count: c.count,
                };
                out.push(Effect::Send { to: node, message });
            }
        }
    }

    /// A peer asks for a listing.
    pub(crate) fn on_list(
        &mut self,
        from: NodeId,
        token: u64,
        (keyspace, first, from_hash, last, count): (Keyspace, Slot, u64, Slot, u32),
        out: &mut Outbox,
    ) {
        if first > last || !self.slots.owns(last) {
            return;
        }
        let clocks = self.clocks(first, last);
        let served = Served::List { from, token, first, last, clocks };
        let token = Token::Served(self.served.insert(served)).to_u64();
        out.push(Effect::List { token, keyspace, from: first, from_hash, last, count });
    }

    fn clocks(&self, first: Slot, last: Slot) -> Vec<(Slot, Bytes)> {
        (first.0..=last.0).map(|raw| (Slot(raw), self.encoded_clock(Slot(raw)))).collect()
    }

    /// A peer asks for a count.
    pub(crate) fn on_count(
        &mut self,
        from: NodeId,
        token: u64,
        keyspace: Keyspace,
        slots: Vec<Slot>,
        out: &mut Outbox,
    ) {
        let (Some(first), Some(last)) = (slots.first().copied(), slots.last().copied()) else {
            return;
        };
        if first > last || !self.slots.owns(last) {
            return;
        }
        let served = Served::Count { from, token, slots };
        let token = Token::Served(self.served.insert(served)).to_u64();
        out.push(Effect::List {
            token,
            keyspace,
            from: first,
            from_hash: 0,
            last,
            count: u32::MAX,
        });
    }

    /// A listing that a peer asked for came from our disk.
    pub(crate) fn served_listed(
        &mut self,
        now: Now,
        key: Key,
        rows: Vec<(Row, Bytes)>,
        next: (u32, u64),
        out: &mut Outbox,
    ) {
        match self.served.remove(key) {
            Some(Served::List { from, token, first, last, clocks }) => {
                let rows = rows.into_iter().filter_map(|(row, record)| {
                    let bare = Record::decode(&record)?.without_payloads();
                    Some(Listed { row, record: bare.to_bytes() })
                });
                let through = next.0.min(u32::from(last.0));
                let clocks =
                    clocks.into_iter().filter(|(s, _)| u32::from(s.0) <= through).collect();
                let message =
                    Message::Listing { token, from: first, rows: rows.collect(), clocks, next };
                out.push(Effect::Send { to: from, message });
            }
            Some(Served::Count { from, token, slots }) => {
                let count = self.count_live(now, &rows, &slots);
                let slot = slots.first().copied().unwrap_or(Slot(0));
                let message = Message::Counted { token, slot, count };
                out.push(Effect::Send { to: from, message });
            }
            _ => {}
        }
    }

    fn count_live(&self, now: Now, rows: &[(Row, Bytes)], slots: &[Slot]) -> u64 {
        let wall = self.judged_now(now);
        rows.iter()
            .filter(|(row, record)| {
                row::slot_of(row).is_some_and(|s| slots.binary_search(&s).is_ok())
                    && Record::decode(record).is_some_and(|r| r.view(wall).exists())
            })
            .count() as u64
    }

    /// A listing that a job asked for came from our own disk.
    pub(crate) fn job_listed(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        rows: Vec<(Row, Bytes)>,
        next: (u32, u64),
        out: &mut Outbox,
    ) -> Flow {
        let me = self.me();
        if let Body::Count(count) = &mut job.body {
            let slots = count.waiting.remove(&me).unwrap_or_default();
            count.total += self.count_live(now, &rows, &slots);
            return self.count_on(job, out);
        }
        let clocks = match &job.body {
            Body::Scan(s) => s.collect.clocks_before.clone(),
            Body::Flush(f) => {
                f.collect.as_ref().map(|c| c.clocks_before.clone()).unwrap_or_default()
            }
            Body::Task(_)
            | Body::Read(_)
            | Body::Share(_)
            | Body::Forward(_)
            | Body::Count(_)
            | Body::Range(_) => {
                return Flow::Waits;
            }
        };
        let rows = rows.into_iter().map(|(row, record)| Listed { row, record }).collect();
        self.job_listing(now, key, job, me, (rows, clocks, next), out)
    }

    /// A listing came, from ourselves or a peer.
    pub(crate) fn job_listing(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        from: NodeId,
        (rows, clocks, next): ListingParts,
        out: &mut Outbox,
    ) -> Flow {
        let collect = match &mut job.body {
            Body::Scan(scan) => Some(&mut scan.collect),
            Body::Flush(flush) => flush.collect.as_mut(),
            Body::Task(_)
            | Body::Read(_)
            | Body::Share(_)
            | Body::Forward(_)
            | Body::Count(_)
            | Body::Range(_) => None,
        };
        let Some(collect) = collect else { return Flow::Waits };
        let placed = rows.into_iter().filter_map(|listed| {
            let key = row::key_of(&listed.row)?;
            let slot = row::slot_of(&listed.row)?;
            Some(((slot, row::hash48(&key), listed.row), listed.record))
        });
        let decoded = clocks
            .into_iter()
            .filter_map(|(slot, clock)| Some((slot, DotSet::decode(&mut Reader::new(&clock))?)));
        let part = Part { rows: placed.collect(), clocks: decoded.collect(), next };
        collect.parts.insert(from, part);
        self.collect_on(now, key, job, out)
    }

    fn collect_on(&mut self, now: Now, key: Key, job: &mut Job, out: &mut Outbox) -> Flow {
        match &mut job.body {
            Body::Scan(scan) => {
                let Some((live, next)) = self.collected(now, &scan.collect) else {
                    return Flow::Waits;
                };
                let keys =
                    live.iter().filter_map(|l| row::key_of(&l.row)).map(Bytes::from).collect();
                let next = (next.0 < u32::from(SLOTS)).then_some((Slot(next.0 as u16), next.1));
                self.answer(job.origin, Answer::Keys { keys, next }, out);
                Flow::Over
            }
            Body::Flush(flush) => {
                let Some(collect) = &flush.collect else { return Flow::Waits };
                let Some((live, _)) = self.collected(now, collect) else { return Flow::Waits };
                flush.collect = None;
                self.flush_mint(now, key, job, &live, out)
            }
            Body::Task(_)
            | Body::Read(_)
            | Body::Share(_)
            | Body::Forward(_)
            | Body::Count(_)
            | Body::Range(_) => Flow::Waits,
        }
    }

    /// What the listings that came say together, if they suffice: live keys, and where to go on.
    fn collected(&self, now: Now, c: &Collect) -> Option<(Vec<Live>, (u32, u64))> {
        let end = (u32::from(c.last.0) + 1, 0);
        // Those who were asked and are there are worth a moment; but R of each slot suffice.
        let mut next = end;
        for raw in c.from.0..=c.last.0 {
            let slot = Slot(raw);
            let replicas = self.replicas_of(slot, c.keyspace);
            let wanted = self.wanted(c.level, replicas).ok()?;
            let answered: ReplicaSet =
                (0..replicas.len()).filter(|i| c.parts.contains_key(&replicas[*i])).collect();
            if !wanted.needs.is_met_by(answered) {
                return None;
            }
        }
        for part in c.parts.values() {
            next = next.min(part.next);
        }
        let wall = self.judged_now(now);
        let start = (c.from, c.from_hash);
        let before =
            |slot: Slot, hash: u64| (u32::from(slot.0), hash) < next && (slot, hash) >= start;
        let mut rows: BTreeMap<&(Slot, u64, Row), ()> = BTreeMap::new();
        for part in c.parts.values() {
            rows.extend(part.rows.keys().filter(|k| before(k.0, k.1)).map(|k| (k, ())));
        }
        let nothing = Bytes::new();
        let mut live = Vec::new();
        for (place, ()) in rows {
            let mut joined: Option<(Record<'_>, DotSet)> = None;
            for node in self.replicas_of(place.0, c.keyspace) {
                let Some(part) = c.parts.get(node) else { continue };
                let Some(clock) = part.clocks.get(&place.0) else { continue };
                let record = Record::decode(part.rows.get(place).unwrap_or(&nothing))?;
                joined = Some(match joined {
                    None => (record, clock.clone()),
                    Some((other, seen)) => {
                        let both = other.join(&seen, &record, clock);
                        let mut all = seen;
                        all.union(clock);
                        (both, all)
                    }
                });
            }
            let Some((record, seen)) = joined else { continue };
            if record.view(wall).exists() {
                live.push(Live { row: place.2.clone(), record: record.to_bytes(), seen });
            }
        }
        // The caller's count bounds what is cut in the middle of a slot only by whole slots.
        if next != end && next.0 as u16 >= SLOTS {
            next = (u32::from(SLOTS), 0);
        }
        Some((live, next))
    }

    /// Time passed.
    pub(crate) fn look_over_scan(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        out: &mut Outbox,
    ) -> Flow {
        let Body::Scan(scan) = &job.body else { return Flow::Over };
        if now.mono >= job.deadline {
            let error = self.collect_failed(&scan.collect);
            self.answer(job.origin, Answer::Failed(error), out);
            return Flow::Over;
        }
        if now.mono.since(job.last_sent) >= RESEND_AFTER {
            job.last_sent = now.mono;
            self.ask_listings(key, &scan.collect, out);
        }
        Flow::Waits
    }

    fn collect_failed(&self, c: &Collect) -> TaskError {
        let replicas = self.replicas_of(c.from, c.keyspace);
        let answered: ReplicaSet =
            (0..replicas.len()).filter(|i| c.parts.contains_key(&replicas[*i])).collect();
        match self.wanted(c.level, replicas) {
            Ok(wanted) => self.unavailable(&wanted, replicas, answered),
            Err(error) => error,
        }
    }

    /// Begins a count of a group: every slot is counted by one replica.
    pub(crate) fn start_count(
        &mut self,
        now: Now,
        origin: Origin,
        keyspace: Keyspace,
        group: u8,
        deadline: Instant,
        out: &mut Outbox,
    ) {
        let first = u16::from(group) * SLOTS_PER_GROUP;
        if first >= SLOTS || !self.slots.owns(Slot(first)) {
            let text = format!("group {group} is not of this core");
            return self.answer(origin, Answer::Failed(TaskError::Invalid(text)), out);
        }
        let mut waiting: BTreeMap<NodeId, Vec<Slot>> = BTreeMap::new();
        for raw in first..first + SLOTS_PER_GROUP {
            let slot = Slot(raw);
            let replicas = self.replicas_of(slot, keyspace);
            let mine = replicas.contains(&self.me()) && self.ready;
            let counter = if mine { Some(self.me()) } else { self.preferred(replicas) };
            let Some(counter) = counter else {
                let wanted = self.wanted(Level::One, replicas);
                let error = match wanted {
                    Ok(w) => self.unavailable(&w, replicas, self.alive(replicas, true)),
                    Err(error) => error,
                };
                return self.answer(origin, Answer::Failed(error), out);
            };
            waiting.entry(counter).or_default().push(slot);
        }
        let job = CountJob { keyspace, waiting, total: 0 };
        let body = Body::Count(Box::new(job));
        let key = self.jobs.insert(Job {
            origin,
            started: now.mono,
            deadline,
            last_sent: now.mono,
            body,
        });
        self.with_job(now, key, out, |peer, job, out| {
            let Body::Count(count) = &job.body else { return Flow::Over };
            let token = Token::Job(key).to_u64();
            for (node, slots) in &count.waiting {
                let (Some(from), Some(last)) = (slots.first(), slots.last()) else { continue };
                if *node == peer.me() {
                    out.push(Effect::List {
                        token,
                        keyspace: count.keyspace,
                        from: *from,
                        from_hash: 0,
                        last: *last,
                        count: u32::MAX,
                    });
                } else {
                    let (keyspace, slots) = (count.keyspace, slots.clone());
                    let message = Message::Count { token, keyspace, slots };
                    out.push(Effect::Send { to: *node, message });
                }
            }
            Flow::Waits
        });
    }

    /// A node counted its share.
    pub(crate) fn count_answered(
        &mut self,
        _now: Now,
        job: &mut Job,
        from: NodeId,
        count: u64,
        out: &mut Outbox,
    ) -> Flow {
        let Body::Count(c) = &mut job.body else { return Flow::Waits };
        if c.waiting.remove(&from).is_some() {
            c.total += count;
        }
        self.count_on(job, out)
    }

    fn count_on(&mut self, job: &Job, out: &mut Outbox) -> Flow {
        let Body::Count(c) = &job.body else { return Flow::Waits };
        if !c.waiting.is_empty() {
            return Flow::Waits;
        }
        self.answer(job.origin, Answer::Count(c.total), out);
        Flow::Over
    }

    /// Time passed.
    pub(crate) fn look_over_count(&mut self, now: Now, job: &Job, out: &mut Outbox) -> Flow {
        let Body::Count(c) = &job.body else { return Flow::Over };
        if now.mono < job.deadline {
            return Flow::Waits;
        }
        let error = TaskError::Unavailable {
            level: Level::One,
            needed: 1,
            copies: 1,
            alive: 0,
            missing: c.waiting.keys().copied().collect(),
        };
        self.answer(job.origin, Answer::Failed(error), out);
        Flow::Over
    }

    /// Begins to delete every key of a slot.
    pub(crate) fn start_flush(
        &mut self,
        now: Now,
        origin: Origin,
        (keyspace, slot, level): (Keyspace, Slot, Option<Level>),
        deadline: Instant,
        out: &mut Outbox,
    ) {
        if !self.slots.owns(slot) {
            let text = format!("{slot:?} is not a slot of this core");
            return self.answer(origin, Answer::Failed(TaskError::Invalid(text)), out);
        }
        let replicas = self.replicas(slot, keyspace);
        let policy = *self.policy(keyspace);
        let read = level.unwrap_or(policy.read);
        let write = match self.wanted(level.unwrap_or(policy.write), &replicas) {
            Ok(write) => write,
            Err(error) => return self.answer(origin, Answer::Failed(error), out),
        };
        let alive = self.alive(&replicas, false);
        if !write.needs.is_met_by(alive) {
            let error = self.unavailable(&write, &replicas, alive);
            return self.answer(origin, Answer::Failed(error), out);
        }
        let Some(mine) = replicas.iter().position(|n| *n == self.me()).filter(|_| self.ready)
        else {
            let request = Request::Flush { keyspace, slot, level };
            return self.start_forward(now, origin, request, &replicas, deadline, out);
        };
        let collect = Collect {
            keyspace,
            from: slot,
            from_hash: 0,
            last: slot,
            count: u32::MAX,
            level: read,
            parts: BTreeMap::new(),
            clocks_before: self.clocks(slot, slot),
        };
        if let Err(error) = self.can_collect(&collect) {
            return self.answer(origin, Answer::Failed(error), out);
        }
        let flush = FlushJob {
            collect: Some(collect),
            slot,
            replicas,
            mine,
            write,
            durability: policy.durability,
            deltas: Vec::new(),
            acked: Vec::new(),
            deleted: 0,
        };
        let body = Body::Flush(Box::new(flush));
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
        self.with_job(now, key, out, |peer, job, out| {
            if let Body::Flush(flush) = &job.body
                && let Some(collect) = &flush.collect
            {
                peer.ask_listings(key, collect, out);
            }
            Flow::Waits
        });
    }

    fn flush_mint(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        live: &[Live],
        out: &mut Outbox,
    ) -> Flow {
        let wall = self.judged_now(now);
        let request = job.origin.name();
        let Body::Flush(f) = &mut job.body else { return Flow::Over };
        f.deleted = live.len() as u64;
        if live.is_empty() {
            self.answer(job.origin, Answer::Count(0), out);
            return Flow::Over;
        }
        let Ok(hlc) = self.hlc.tick(now.wall) else {
            let error = TaskError::Overloaded { retry_after_ms: 100 };
            self.answer(job.origin, Answer::Failed(error), out);
            return Flow::Over;
        };
        for batch in live.chunks(FLUSH_BATCH) {
            let mut deltas = RawDeltas::with_capacity(batch.len());
            let mut changes = Changes::with_capacity(batch.len());
            for l in batch {
                let record = Record::decode(&l.record).unwrap_or_default();
                let (_, mint) = decide(&Op::Delete, &record, &l.seen, wall, None);
                let mint = mint.unwrap_or(Mint {
                    discards_values: true,
                    discards_expiry: true,
                    ..Mint::default()
                });
                let dot = self.slots.next_dot(f.slot, self.cfg.me);
                let mut delta = Delta::new(&l.row, dot, hlc);
                delta.request = request;
                self.fill(&mut delta, &mint, &record, &l.seen);
                let raw = RawDelta::of(&delta, &mut self.scratch);
                let change = self.slots.apply(&delta, l.row.clone(), &raw, &self.cfg.bugs);
                changes.push(change.expect("a dot just minted is new"));
                deltas.push(raw);
            }
            out.push(Effect::Apply {
                token: Token::Nobody.to_u64(),
                changes,
                durability: f.durability,
            });
            f.deltas.push(deltas);
            f.acked.push(ReplicaSet::EMPTY);
        }
        if let Some(request) = request {
            self.known.insert(request, now.wall);
        }
        // One empty apply behind them all: when it is durable, they are.
        let token = Token::Job(key).to_u64();
        out.push(Effect::Apply { token, changes: Changes::new(), durability: f.durability });
        job.last_sent = now.mono;
        self.flush_send(key, f, out);
        Flow::Waits
    }

    /// Sends each replica the first batch that it has not acknowledged.
    fn flush_send(&self, key: Key, f: &FlushJob, out: &mut Outbox) {
        for (i, node) in f.replicas.iter().enumerate() {
            if i == f.mine || !self.worth_sending(*node, &f.replicas) {
                continue;
            }
            let next = f.acked.iter().position(|a| !a.contains(i));
            if let Some(next) = next {
                out.push(Effect::Send {
                    to: *node,
                    message: Message::Replicate {
                        token: Token::Job(key).to_u64(),
                        part: next as u32,
                        deltas: f.deltas[next].clone(),
                        sync: f.durability == Durability::Sync,
                        direct: None,
                    },
                });
            }
        }
    }

    /// A replica, or our own disk, has taken a batch of a flush.
    pub(crate) fn flush_acked(
        &mut self,
        key: Key,
        job: &mut Job,
        (from, part): (NodeId, u32),
        out: &mut Outbox,
    ) -> Flow {
        let me = self.me();
        let Body::Flush(f) = &mut job.body else { return Flow::Waits };
        let Some(place) = f.replicas.iter().position(|n| *n == from) else { return Flow::Waits };
        if from == me {
            for acked in &mut f.acked {
                acked.insert(place);
            }
        } else if let Some(acked) = f.acked.get_mut(part as usize) {
            acked.insert(place);
        }
        if f.acked.iter().all(|a| f.write.needs.is_met_by(*a)) {
            let deleted = f.deleted;
            self.answer(job.origin, Answer::Count(deleted), out);
            return Flow::Over;
        }
        if from != me {
            let Body::Flush(f) = &job.body else { return Flow::Waits };
            self.flush_send(key, f, out);
        }
        Flow::Waits
    }

    /// Time passed.
    pub(crate) fn look_over_flush(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        out: &mut Outbox,
    ) -> Flow {
        let Body::Flush(f) = &job.body else { return Flow::Over };
        if now.mono >= job.deadline {
            let error = match &f.collect {
                Some(collect) => self.collect_failed(collect),
                None => TaskError::Unconfirmed {
                    level: f.write.level,
                    needed: f.write.needs.total,
                    copies: f.replicas.len() as u8,
                    acked: f.acked.iter().map(|a| a.len()).min().unwrap_or(0),
                    missing: Vec::new(),
                },
            };
            self.answer(job.origin, Answer::Failed(error), out);
            return Flow::Over;
        }
        if now.mono.since(job.last_sent) >= RESEND_AFTER {
            job.last_sent = now.mono;
            match &f.collect {
                Some(collect) => self.ask_listings(key, collect, out),
                None => self.flush_send(key, f, out),
            }
        }
        Flow::Waits
    }
}
