//! Local: a read for which this replica alone is enough, as GET at ONE is on a node with a copy.
//!
//! Nothing is asked of anybody, so nothing is kept but the question. If our own disk cannot answer,
//! the question becomes an ordinary gathering, which asks the others.

use bytes::Bytes;
use ring::keyspace::{Level, ReplicaSet};
use ring::{Instant, Now, Slot};

use crate::coordinator::{Body, Flow, Job, Origin, Replicas, Stage, TaskJob, Wanted};
use crate::decide;
use crate::event::{Effect, Outbox};
use crate::limits::HEDGE_AFTER;
use crate::op::{Answer, Op, Task};
use crate::peer::Peer;
use crate::record::Record;
use crate::row::{Keyspace, Row};
use crate::slab::{Key, Token};

/// A read that our own records answer.
#[derive(Debug)]
pub(crate) struct LocalRead {
    ops: Vec<(Row, Op)>,
    slot: Slot,
    keyspace: Keyspace,
    level: Option<Level>,
}

/// Whether a replica's own records are enough for a task that only reads.
pub(crate) fn is_enough(task: &Task, read: &Wanted, mine: usize) -> bool {
    read.needs.is_met_by(ReplicaSet::from_iter([mine]))
        && task.watches.is_empty()
        && task.after.is_none()
        && task.ops.iter().all(|(_, op)| matches!(op, Op::Read))
}

impl Peer {
    /// Begins a read for which [`is_enough`] holds.
    pub(crate) fn start_local_read(
        &mut self,
        now: Now,
        origin: Origin,
        task: Task,
        deadline: Instant,
        out: &mut Outbox,
    ) {
        let rows = task.ops.iter().map(|(row, _)| row.clone()).collect();
        let Task { ops, slot, keyspace, read: level, .. } = task;
        let body = Body::Read(LocalRead { ops, slot, keyspace, level });
        let job = Job { origin, started: now.mono, deadline, last_sent: now.mono, body };
        let key = self.jobs.insert(job);
        if let Some(name) = origin.name() {
            self.in_flight.insert(name, key);
        }
        out.push(Effect::Load { token: Token::Job(key).to_u64(), rows });
    }

    /// Our own records came.
    pub(crate) fn read_loaded(
        &mut self,
        now: Now,
        job: &Job,
        records: &[Bytes],
        out: &mut Outbox,
    ) -> Flow {
        let Body::Read(read) = &job.body else { return Flow::Waits };
        let wall = self.judged_now(now);
        let mut outcomes = Vec::with_capacity(read.ops.len());
        for ((row, _), bytes) in read.ops.iter().zip(records) {
            let Some(record) = Record::decode(bytes) else { return self.damaged(job, out) };
            if !record.pending.is_empty() || !record.pending_expiry.is_empty() {
                self.strip(row, bytes, out);
            }
            outcomes.push(decide::read(bytes, &record, &record.view(wall)));
        }
        self.answer(job.origin, Answer::Done { outcomes, write: None }, out);
        Flow::Over
    }

    /// Our own disk cannot read a record: the others are asked.
    pub(crate) fn read_load_failed(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        out: &mut Outbox,
    ) -> Flow {
        let Body::Read(read) = &mut job.body else { return Flow::Waits };
        let task = Task {
            ops: core::mem::take(&mut read.ops),
            slot: read.slot,
            keyspace: read.keyspace,
            watches: Vec::new(),
            atomic: false,
            read: read.level,
            write: None,
            durability: None,
            after: None,
        };
        match self.gathering(task) {
            Some(task) => job.body = Body::Task(Box::new(task)),
            // It was possible when it began; the layout has changed since.
            None => return self.damaged(job, out),
        }
        if self.gather(now, key, job, out) == Flow::Over {
            return Flow::Over;
        }
        self.job_load_failed(now, key, job, out)
    }

    /// The task as one that is gathered.
    fn gathering(&self, task: Task) -> Option<TaskJob> {
        let replicas: Replicas = self.replicas(task.slot, task.keyspace);
        let mine = replicas.iter().position(|n| *n == self.me())?;
        let policy = *self.policy(task.keyspace);
        let read = self.wanted(task.read.unwrap_or(policy.read), &replicas).ok()?;
        let write = self.wanted(policy.write, &replicas).ok()?;
        Some(TaskJob {
            task,
            replicas,
            mine,
            read,
            write,
            durability: policy.durability,
            ttl_ms: policy.ttl_ms,
            conflict: policy.conflict,
            after: None,
            behind: false,
            confirm: false,
            peeks: false,
            holds_keys: false,
            stage: Stage::Queued,
        })
    }

    /// Time passed without a word of our own disk.
    pub(crate) fn look_over_read(
        &mut self,
        now: Now,
        key: Key,
        job: &mut Job,
        out: &mut Outbox,
    ) -> Flow {
        if now.mono.since(job.started) >= HEDGE_AFTER || now.mono >= job.deadline {
            return self.read_load_failed(now, key, job, out);
        }
        Flow::Waits
    }
}
