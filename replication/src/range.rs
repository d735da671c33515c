//! Range: a page of rows in their order, as R replicas together know them; and its deletion.
//!
//! Each replica that is asked walks the same span and says up to where it came. The page ends where
//! the first of them stopped, so that a row which one replica lacks is never taken for absent because
//! another had more room. Rows that all of them hold in the same state are answered from our own; the
//! others are read as any key is, with the same join and the same repair before the answer. A page is
//! bounded on every replica, in rows and in bytes, and so is what this job holds.
//!
//! Who says what it has seen is answered only when the replicas that answered have seen all of it, each
//! as it was before it read its rows; until then everybody is asked again.
//!
//! A deletion is an ordinary task of deletions of the rows that were found: each discards what a
//! quorum knew of its row, as one batch. A write that none of them had seen survives it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ring::keyspace::{Durability, Level, ReplicaSet};
use ring::{Instant, NodeId, Now};
use smallvec::SmallVec;

use crate::bugs::Bug;
use crate::causality::DotSet;
use crate::coordinator::{
    Body, Flow, Job, Origin, Replicas, Wanted, decode_after, missing, no_token,
};
use crate::decide::decide;
use crate::encoding::Reader;
use crate::event::{Effect, Outbox};
use crate::limits::{
    BEHIND_AGAIN_AFTER, HEDGE_AFTER, RESEND_AFTER, ROW_BYTES_MAX, SPAN_BYTES_MAX, SPAN_ROWS_MAX,
};
use crate::message::{Message, Refusal};
use crate::op::{Answer, Op, Outcome, PageRow, Request, Span, Task, TaskError};
use crate::peer::Peer;
use crate::record::{Digest, Record, Summary, live_dots_into};
use crate::replica::Served;
use crate::row::{self, Row};
use crate::slab::{Key, Token};

/// What is done with the rows of a page.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    /// They are the answer.
    Answer,
    /// They are deleted, and their number is the answer.
    Delete { write: Option<Level>, durability: Option<Durability> },
}

/// What a replica has of a page.
#[derive(Debug)]
struct Part {
    digests: BTreeMap<Row, Digest>,
    cut: Row,
    /// What it had seen of the slot before it read its rows; nothing if nobody wants to know.
    clock: DotSet,
}

/// A page under way.
#[derive(Debug)]
pub(crate) struct RangeJob {
    pub(crate) span: Span,
    level: Option<Level>,
    then: Then,
    replicas: Replicas,
    /// Our own place among them.
    mine: usize,
    read: Wanted,
    asked: ReplicaSet,
    /// By place.
    parts: SmallVec<[Option<Part>; 3]>,
    /// Our own records, and our clock before they were read; none if we are not reading.
    records: BTreeMap<Row, Bytes>,
    clock_before: Option<DotSet>,
    /// What whoever asks has seen, if it says so.
    after: Option<DotSet>,
    /// What the answer has seen, once that is known.
    seen: DotSet,
    /// The rows that a task of their own is about, if it has begun.
    apart: Option<Vec<Row>>,
    /// Rows of the page that are known already.
    rows: BTreeMap<Row, PageRow>,
    cut: Row,
}

impl RangeJob {
    /// True once a task of its own is under way, which will answer.
    pub(crate) const fn has_part(&self) -> bool {
        self.apart.is_some()
    }

    fn responders(&self) -> ReplicaSet {
        self.parts.iter().enumerate().filter(|(_, p)| p.is_some()).map(|(i, _)| i).collect()
    }

    /// Where the page ends: where the first replica stopped.
    fn first_cut(&self) -> Row {
        let cuts = self.parts.iter().flatten().map(|p| &p.cut).filter(|cut| !cut.is_empty());
        let cut = if self.span.reverse { cuts.max() } else { cuts.min() };
        cut.cloned().unwrap_or_default()
    }

    fn request(&self) -> Request {
        let (span, level) = (self.span.clone(), self.level);
        let after = self.after.as_ref().map(DotSet::to_bytes);
        match self.then {
            Then::Answer => Request::Range { span, level, after },
            Then::Delete { write, durability } => {
                Request::DeleteRange { span, read: level, write, durability, after }
            }
        }
    }

    /// Whether those who answered have seen, together, what they must.
    fn has_seen(&self) -> bool {
        let Some(after) = &self.after else { return true };
        let mut seen = DotSet::new();
        self.parts.iter().flatten().for_each(|part| seen.union(&part.clock));
        seen.covers(after)
    }

    /// What the answer has seen, for those who want to know.
    fn seen(&self) -> Bytes {
        self.after.as_ref().map(|_| self.seen.to_bytes()).unwrap_or_default()
    }
}

impl Peer {
    /// Begins a page.
    pub(crate) fn start_range(
        &mut self,
        now: Now,
        origin: Origin,
        (mut span, level, then, after): (Span, Option<Level>, Then, Option<Bytes>),
        deadline: Instant,
        out: &mut Outbox,
    ) {
        let of_slot = |row: &Row| row::slot_of(row) == Some(span.slot);
        let long = span.start.len().max(span.end.len()) > ROW_BYTES_MAX;
        if !self.slots.owns(span.slot) || !of_slot(&span.start) || !of_slot(&span.end) || long {
            let text = "a range over several slots, or with bounds that no key has".to_owned();
            return self.answer(origin, Answer::Failed(TaskError::Invalid(text)), out);
        }
        let Some(mut after) = decode_after(after.as_ref()) else {
            return self.answer(origin, Answer::Failed(no_token()), out);
        };
        if self.has_bug(Bug::IgnoresTokens) {
            after = after.map(|_| DotSet::new());
        }
        span.rows = span.rows.clamp(1, SPAN_ROWS_MAX);
        span.bytes = span.bytes.clamp(1, SPAN_BYTES_MAX);
        let replicas = self.replicas(span.slot, span.keyspace);
        let read = level.unwrap_or(self.policy(span.keyspace).read);
        let read = match self.wanted(read, &replicas) {
            Ok(read) => read,
            Err(error) => return self.answer(origin, Answer::Failed(error), out),
        };
        let alive = self.alive(&replicas, true);
        if !read.needs.is_met_by(alive) {
            let error = self.unavailable(&read, &replicas, alive);
            return self.answer(origin, Answer::Failed(error), out);
        }
        let mine = replicas.iter().position(|n| *n == self.me()).filter(|_| self.ready);
        let mut range = RangeJob {
            span,
            level,
            then,
            mine: mine.unwrap_or_default(),
            read,
            asked: ReplicaSet::EMPTY,
            parts: (0..replicas.len()).map(|_| None).collect(),
            replicas,
            records: BTreeMap::new(),
            clock_before: None,
            after,
            seen: DotSet::new(),
            apart: None,
            rows: BTreeMap::new(),
            cut: Row::new(),
        };
        let Some(mine) = mine else {
            let (request, replicas) = (range.request(), range.replicas);
            return self.start_forward(now, origin, request, &replicas, deadline, out);
        };
        let (rotate, n) = (self.rotation(), range.replicas.len());
        range.asked.insert(mine);
        if !self.has_seen(range.span.slot, range.after.as_ref()) {
            // Whoever has seen the rest is not known: everybody is asked.
            self.stats.reads_behind += 1;
            range.asked = (0..n).filter(|i| *i == mine || alive.contains(*i)).collect();
        }
        for i in (0..n).map(|i| (i + rotate) % n) {
            if !range.read.needs.is_met_by(range.asked) && alive.contains(i) {
                range.asked.insert(i);
            }
        }
        let asked = range.asked;
        let body = Body::Range(Box::new(range));
        let job = Job { origin, started: now.mono, deadline, last_sent: now.mono, body };
        let key = self.jobs.insert(job);
        if let Some(name) = origin.name() {
            self.in_flight.insert(name, key);
        }
        self.with_job(now, key, out, |peer, job, out| {
            let Body::Range(range) = &mut job.body else { return Flow::Over };
            peer.ask_walks(key, range, asked, out);
            Flow::Waits
        });
    }

    /// Asks those of `places` that have not answered.
    fn ask_walks(&self, key: Key, range: &mut RangeJob, places: ReplicaSet, out: &mut Outbox) {
        let token = Token::Job(key).to_u64();
        for (place, node) in range.replicas.iter().enumerate() {
            if !places.contains(place) || range.parts[place].is_some() {
                continue;
            }
            range.asked.insert(place);
            let (span, clock) = (range.span.clone(), range.after.is_some());
            if place != range.mine {
                out.push(Effect::Send { to: *node, message: Message::Walk { token, span, clock } });
            } else if range.clock_before.is_none() {
                range.clock_before = Some(self.slots.clock(span.slot).clone());
                out.push(Effect::ReadSpan { token, span });
            }
        }
    }

    /// Our own rows came.
    pub(crate) fn range_read(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        (rows, cut): (Vec<(Row, Bytes)>, Row),
        out: &mut Outbox,
    ) -> Flow {
        let Body::Range(range) = &mut job.body else { return Flow::Waits };
        if range.has_part() {
            return Flow::Waits;
        }
        let Some(clock) = range.clock_before.clone() else { return Flow::Waits };
        let mut digests = BTreeMap::new();
        for (row, record) in rows {
            let Some(summary) = Summary::of(&record) else { return self.damaged(job, out) };
            if summary.has_pending {
                self.strip(&row, &record, out);
            }
            digests.insert(row.clone(), summary.digest);
            range.records.insert(row, record);
        }
        range.parts[range.mine].get_or_insert(Part { digests, cut, clock });
        self.range_on(now, key, job, out)
    }

    /// A replica's rows came.
    pub(crate) fn range_walked(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        (from, rows, cut, clock): (NodeId, Vec<(Row, Digest)>, Row, &[u8]),
        out: &mut Outbox,
    ) -> Flow {
        let Body::Range(range) = &mut job.body else { return Flow::Waits };
        if range.has_part() {
            // It was asked for twice, or came twice.
            return Flow::Waits;
        }
        if let Some(place) = range.replicas.iter().position(|n| *n == from) {
            let digests = rows.into_iter().collect();
            let clock = DotSet::decode(&mut Reader::new(clock)).unwrap_or_default();
            range.parts[place].get_or_insert(Part { digests, cut, clock });
        }
        self.range_on(now, key, job, out)
    }

    /// A replica cannot answer: the others are asked.
    pub(crate) fn range_refused(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        out: &mut Outbox,
    ) -> Flow {
        let Body::Range(range) = &mut job.body else { return Flow::Waits };
        if range.has_part() {
            return Flow::Waits;
        }
        job.last_sent = now.mono;
        let unasked = (0..range.replicas.len()).filter(|i| !range.asked.contains(*i)).collect();
        self.ask_walks(key, range, unasked, out);
        Flow::Waits
    }

    /// Our own disk cannot read its rows: the others have to do.
    pub(crate) fn range_read_failed(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        out: &mut Outbox,
    ) -> Flow {
        self.stats.failed_loads += 1;
        if let Body::Range(range) = &mut job.body {
            range.clock_before = None;
        }
        self.range_refused(now, key, job, out)
    }

    /// Goes as far as the answers allow.
    fn range_on(&mut self, now: Now, key: Key, job: &mut Job, out: &mut Outbox) -> Flow {
        let wall = self.judged_now(now);
        let Body::Range(range) = &mut job.body else { return Flow::Waits };
        let responders = range.responders();
        if range.apart.is_some() || !range.read.needs.is_met_by(responders) || !range.has_seen() {
            return Flow::Waits;
        }
        let cut = range.first_cut();
        let parts = || range.parts.iter().flatten();
        let rows: BTreeSet<&Row> = parts().flat_map(|p| p.digests.keys()).collect();
        let total = range.read.needs.total;
        // So many must hold a row's state before it is told of, as for a single key.
        let holders = if total <= 1 { 0 } else { range.replicas.len() as u8 + 1 - total };
        let enough = responders.contains(range.mine)
            && (responders.len() >= holders || !range.read.needs.per_region.is_empty());
        let mut apart = Vec::new();
        let mut known = BTreeMap::new();
        for row in rows.into_iter().filter(|row| range.span.is_before(row, &cut)) {
            let record = range.records.get(row);
            let digest = record.and_then(|_| range.parts[range.mine].as_ref()?.digests.get(row));
            let agreed = digest.is_some() && parts().all(|p| p.digests.get(row) == digest);
            let answers = enough && agreed && matches!(range.then, Then::Answer);
            let bytes = record.filter(|_| answers);
            let Some((bytes, record)) = bytes.and_then(|b| Some((b, Record::decode(b)?))) else {
                apart.push(row.clone());
                continue;
            };
            let mut seen = range.clock_before.clone().unwrap_or_default();
            live_dots_into(bytes, &mut seen);
            let found = decide(&Op::Siblings, &record, &seen, wall, None).0;
            known.extend(page_row(row, found).map(|found| (row.clone(), found)));
        }
        if let Some(after) = &range.after {
            range.seen = after.clone();
            range.parts.iter().flatten().for_each(|part| range.seen.union(&part.clock));
        }
        range.rows = known;
        range.cut = cut;
        range.records.clear();
        range.parts.clear();
        if apart.is_empty() {
            return self.answer_page(job, 0, out);
        }
        let (slot, keyspace) = (range.span.slot, range.span.keyspace);
        let of = |op: Op| apart.iter().map(|row| (row.clone(), op.clone())).collect();
        let mut task = Task::one(slot, keyspace, Row::new(), Op::Siblings);
        task.read = range.level;
        task.after = range.after.as_ref().map(DotSet::to_bytes);
        match range.then {
            Then::Answer => task.ops = of(Op::Siblings),
            Then::Delete { write, durability } => {
                task.ops = of(Op::Delete);
                task.atomic = true;
                (task.write, task.durability) = (write, durability);
            }
        }
        range.apart = Some(apart);
        let deadline = job.deadline;
        self.start_task(now, Origin::Part(key), task, deadline, out);
        Flow::Waits
    }

    /// The task about the rows of a page is done, or failed.
    pub(crate) fn range_part_answered(
        &mut self,
        job: &mut Job,
        answer: Answer,
        out: &mut Outbox,
    ) -> Flow {
        let Body::Range(range) = &mut job.body else { return Flow::Waits };
        let outcomes = match answer {
            Answer::Done { outcomes, .. } => outcomes,
            failed => {
                self.answer(job.origin, failed, out);
                return Flow::Over;
            }
        };
        if let Some(Outcome::Seen(seen)) = outcomes.last()
            && let Some(seen) = DotSet::decode(&mut Reader::new(seen))
        {
            range.seen.union(&seen);
        }
        let mut deleted = 0;
        for (row, outcome) in range.apart.take().unwrap_or_default().into_iter().zip(outcomes) {
            deleted += u64::from(outcome == Outcome::Flag(true));
            if let Some(found) = page_row(&row, outcome) {
                range.rows.insert(row, found);
            }
        }
        self.answer_page(job, deleted, out)
    }

    fn answer_page(&mut self, job: &mut Job, deleted: u64, out: &mut Outbox) -> Flow {
        let Body::Range(range) = &mut job.body else { return Flow::Waits };
        let (next, seen) = (range.cut.clone(), range.seen());
        let answer = match range.then {
            Then::Delete { .. } => Answer::Deleted { count: deleted, next, seen },
            Then::Answer => {
                let rows = core::mem::take(&mut range.rows).into_values();
                let rows = if range.span.reverse { rows.rev().collect() } else { rows.collect() };
                Answer::Page { rows, next, seen }
            }
        };
        self.answer(job.origin, answer, out);
        Flow::Over
    }

    /// Time passed: ask others too, ask again, or give up.
    pub(crate) fn look_over_range(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        out: &mut Outbox,
    ) -> Flow {
        let Body::Range(range) = &mut job.body else { return Flow::Over };
        if range.apart.is_some() {
            // The task has the same deadline, and knows better what became of it.
            return Flow::Waits;
        }
        if now.mono >= job.deadline {
            let responders = range.responders();
            let error = if range.read.needs.is_met_by(responders) {
                TaskError::Behind { missing: missing(&range.replicas, responders) }
            } else {
                self.unavailable(&range.read, &range.replicas, responders)
            };
            self.answer(job.origin, Answer::Failed(error), out);
            return Flow::Over;
        }
        if !range.has_seen() && now.mono.since(job.last_sent) >= BEHIND_AGAIN_AFTER {
            // What was missing may have come by now, here or elsewhere.
            job.last_sent = now.mono;
            if range.parts[range.mine].is_some() {
                range.clock_before = None;
                range.records.clear();
            }
            range.parts.iter_mut().for_each(|part| *part = None);
            let asked = range.asked;
            self.ask_walks(key, range, asked, out);
        }
        if now.mono.since(job.started) >= HEDGE_AFTER {
            let unasked = (0..range.replicas.len()).filter(|i| !range.asked.contains(*i)).collect();
            self.ask_walks(key, range, unasked, out);
        }
        if now.mono.since(job.last_sent) >= RESEND_AFTER {
            job.last_sent = now.mono;
            let asked = range.asked;
            self.ask_walks(key, range, asked, out);
        }
        Flow::Waits
    }

    /// Rows that a peer asked for came from our disk.
    pub(crate) fn served_walked(
        &mut self,
        key: Key,
        rows: &[(Row, Bytes)],
        next: Row,
        out: &mut Outbox,
    ) {
        let Some(Served::Walk { from, token, slot, clock }) = self.served.remove(key) else {
            return;
        };
        let digest =
            |(row, record): &(Row, Bytes)| Some((row.clone(), Summary::of(record)?.digest));
        let message = match rows.iter().map(digest).collect() {
            Some(rows) => Message::Walked { token, slot, rows, next, clock },
            None => {
                let (why, epoch) = (Refusal::Storage, self.epoch());
                Message::Refused { token, slot, why, epoch }
            }
        };
        out.push(Effect::Send { to: from, message });
    }
}

/// A row of the page, if it has a value.
fn page_row(row: &Row, found: Outcome) -> Option<PageRow> {
    match found {
        Outcome::Siblings { values, context } if !values.is_empty() => {
            Some(PageRow { row: row.clone(), values, context })
        }
        _ => None,
    }
}
