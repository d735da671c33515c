//! Model: a peer in one map, which answers every request at once and never fails.

use std::collections::BTreeMap;

use bytes::Bytes;
use replication::op::{
    ExpireCondition, Found, GetExpiry, OpError, SetCondition, SetExpiry, Sibling, WriteHandle,
};
use replication::record::Digest;
use replication::row::{self, Row};
use replication::{Answer, Op, Outcome, Request, Task, TaskError, decimal};
use ring::{Hlc, NodeId, SLOTS_PER_GROUP, Slot, WallMillis};

/// A key's concurrent values, newest last, each with the number of its write.
#[derive(Clone, Debug, Default)]
struct Record {
    values: Vec<(u64, Bytes)>,
    deadline: Option<WallMillis>,
    changed: u64,
}

/// All keys of all keyspaces.
#[derive(Debug, Default)]
pub(crate) struct Model {
    rows: BTreeMap<Row, Record>,
    writes: u64,
    /// Tasks that were asked for, in order.
    pub(crate) tasks: Vec<Task>,
}

impl Model {
    /// Does what is asked, at this moment.
    pub(crate) fn answer(&mut self, now: WallMillis, request: Request) -> Answer {
        match request {
            Request::Task(task) => self.task(now, task),
            Request::Scan { keyspace, from, from_hash, count, .. } => {
                self.scan(now, keyspace, from, from_hash, count)
            }
            Request::Count { keyspace, group } => {
                let of_group = |(row, _): &(&Row, &Record)| slot(row).group() == group;
                Answer::Count(self.live(now, keyspace).filter(of_group).count() as u64)
            }
            Request::Flush { keyspace, slot: wanted, .. } => {
                let before = self.rows.len();
                self.rows.retain(|row, _| {
                    slot(row) != wanted || row::keyspace_of(row) != Some(keyspace)
                });
                Answer::Count((before - self.rows.len()) as u64)
            }
            Request::Share(_) | Request::Range { .. } | Request::DeleteRange { .. } => {
                panic!("no command asks for it")
            }
            Request::AwaitAcks { acks, .. } => Answer::Acks(acks.clamp(2, 3)),
        }
    }

    fn live(&self, now: WallMillis, keyspace: u16) -> impl Iterator<Item = (&Row, &Record)> {
        self.rows.iter().filter(move |(row, record)| {
            row::keyspace_of(row) == Some(keyspace) && is_live(record, now)
        })
    }

    fn scan(&self, now: WallMillis, keyspace: u16, from: Slot, hash: u64, count: u32) -> Answer {
        let mut places: Vec<(Slot, u64, Bytes)> = self
            .live(now, keyspace)
            .map(|(row, _)| {
                let key = Bytes::from(row::key_of(row).expect("the model holds keys alone"));
                (slot(row), row::hash48(&key), key)
            })
            .filter(|(s, h, _)| s.group() == from.group() && (*s, *h) >= (from, hash))
            .collect();
        places.sort();
        let mut keys = Vec::new();
        let mut last = None;
        for (slot, _, key) in places {
            if keys.len() >= count as usize && last != Some(slot) {
                return Answer::Keys { keys, next: Some((slot, 0)) };
            }
            last = Some(slot);
            keys.push(key);
        }
        let next = (u16::from(from.group()) + 1) * SLOTS_PER_GROUP;
        Answer::Keys { keys, next: (next < ring::SLOTS).then_some((Slot(next), 0)) }
    }

    fn task(&mut self, now: WallMillis, task: Task) -> Answer {
        assert!(task.ops.iter().all(|(row, _)| slot(row) == task.slot), "foreign rows: {task:?}");
        self.tasks.push(task.clone());
        if task.watches.iter().any(|(row, digest)| self.digest(now, row) != *digest) {
            return Answer::Failed(TaskError::Aborted);
        }
        let before = self.writes;
        let outcomes = task.ops.into_iter().map(|(row, op)| self.op(now, row, op)).collect();
        let id = self.writes;
        let handle = WriteHandle { slot: task.slot, coordinator: NodeId(1), id };
        Answer::Done { outcomes, write: (id > before).then_some(handle) }
    }

    fn digest(&self, now: WallMillis, row: &Row) -> Digest {
        match self.rows.get(row) {
            Some(record) if is_live(record, now) => Digest(record.changed, 1),
            _ => Digest::default(),
        }
    }

    fn found(&self, now: WallMillis, row: &Row) -> Option<Found> {
        let record = self.rows.get(row).filter(|r| is_live(r, now))?;
        let (_, value) = record.values.last()?;
        Some(Found { value: value.clone(), deadline: record.deadline })
    }

    fn put(&mut self, row: Row, value: Bytes, deadline: Option<WallMillis>) {
        self.writes += 1;
        let record = Record { values: vec![(self.writes, value)], deadline, changed: self.writes };
        self.rows.insert(row, record);
    }

    fn set_deadline(&mut self, row: &Row, deadline: Option<WallMillis>) {
        self.writes += 1;
        let record = self.rows.get_mut(row).expect("the caller has found it");
        record.deadline = deadline;
        record.changed = self.writes;
    }

    fn remove(&mut self, row: &Row) {
        self.writes += 1;
        self.rows.remove(row);
    }

    fn op(&mut self, now: WallMillis, row: Row, op: Op) -> Outcome {
        let digest = self.digest(now, &row);
        let found = self.found(now, &row);
        let deadline = found.as_ref().and_then(|f| f.deadline);
        match op {
            Op::Read => Outcome::Read { found, digest },
            Op::Siblings => self.siblings(now, &row),
            Op::Set { value, expiry, condition, get } => {
                let done = match condition {
                    SetCondition::Always => true,
                    SetCondition::IfAbsent => found.is_none(),
                    SetCondition::IfPresent => found.is_some(),
                };
                if done {
                    let deadline = match expiry {
                        SetExpiry::Clear => None,
                        SetExpiry::Keep => deadline,
                        SetExpiry::At(at) => Some(at),
                    };
                    self.put(row, value, deadline);
                }
                Outcome::Set { done, previous: found.filter(|_| get).map(|f| f.value) }
            }
            Op::SetWithContext { value, context } => {
                self.writes += 1;
                let write = self.writes;
                let record = self.rows.entry(row.clone()).or_default();
                let seen: Vec<u64> = context
                    .chunks_exact(8)
                    .map(|c| u64::from_be_bytes(*c.first_chunk().expect("eight")))
                    .collect();
                record.values.retain(|(n, _)| !seen.contains(n));
                record.values.extend(value.map(|v| (write, v)));
                record.changed = write;
                self.siblings(now, &row)
            }
            Op::Delete => {
                if found.is_some() {
                    self.remove(&row);
                }
                Outcome::Flag(found.is_some())
            }
            Op::GetDelete => {
                if found.is_some() {
                    self.remove(&row);
                }
                Outcome::Read { found, digest }
            }
            Op::GetExpire(change) => {
                if found.is_some() {
                    match change {
                        GetExpiry::Keep => {}
                        GetExpiry::Persist => self.set_deadline(&row, None),
                        GetExpiry::At(at) => self.set_deadline(&row, Some(at)),
                    }
                }
                Outcome::Read { found, digest }
            }
            Op::Append(more) => {
                let mut value = found.map_or_else(Vec::new, |f| f.value.to_vec());
                value.extend_from_slice(&more);
                self.extended(row, value, deadline)
            }
            Op::SetRange { offset, bytes } => {
                let mut value = found.map_or_else(Vec::new, |f| f.value.to_vec());
                let end = offset as usize + bytes.len();
                value.resize(value.len().max(end), 0);
                value[offset as usize..end].copy_from_slice(&bytes);
                self.extended(row, value, deadline)
            }
            Op::Increment(by) => {
                let text = found.map_or_else(|| b"0".to_vec(), |f| f.value.to_vec());
                let number = String::from_utf8(text).ok().and_then(|t| t.parse::<i64>().ok());
                let Some(number) = number else { return Outcome::Failed(OpError::NotAnInteger) };
                let Some(sum) = number.checked_add(by) else {
                    return Outcome::Failed(OpError::Overflow);
                };
                self.put(row, Bytes::from(sum.to_string()), deadline);
                Outcome::Integer(sum)
            }
            Op::IncrementFloat(by) => {
                let text = found.map_or_else(|| b"0".to_vec(), |f| f.value.to_vec());
                let (Some(number), Some(by)) = (decimal::parse(&text), decimal::parse(&by)) else {
                    return Outcome::Failed(OpError::NotAFloat);
                };
                let sum = Bytes::from(decimal::format(number + by));
                self.put(row, sum.clone(), deadline);
                Outcome::Float(sum)
            }
            Op::Expire { at, condition } => {
                if found.is_none() || !holds(condition, deadline, at) {
                    return Outcome::Flag(false);
                }
                self.set_deadline(&row, Some(at));
                Outcome::Flag(true)
            }
            Op::Persist => {
                if deadline.is_some() {
                    self.set_deadline(&row, None);
                }
                Outcome::Flag(deadline.is_some())
            }
        }
    }

    fn extended(&mut self, row: Row, value: Vec<u8>, deadline: Option<WallMillis>) -> Outcome {
        let length = value.len() as i64;
        self.put(row, Bytes::from(value), deadline);
        Outcome::Integer(length)
    }

    fn siblings(&self, now: WallMillis, row: &Row) -> Outcome {
        let empty = Record::default();
        let record = self.rows.get(row).filter(|r| is_live(r, now)).unwrap_or(&empty);
        let sibling = |(n, value): &(u64, Bytes)| Sibling {
            value: value.clone(),
            written: Hlc::new(WallMillis(1_000 + n), 0).wall(),
            node: NodeId(*n as u32 % 3 + 1),
        };
        let context: Vec<u8> = record.values.iter().flat_map(|(n, _)| n.to_be_bytes()).collect();
        Outcome::Siblings {
            values: record.values.iter().rev().map(sibling).collect(),
            context: Bytes::from(context),
        }
    }
}

fn slot(row: &Row) -> Slot {
    row::slot_of(row).expect("a row begins with its slot")
}

fn is_live(record: &Record, now: WallMillis) -> bool {
    !record.values.is_empty() && record.deadline.is_none_or(|d| d > now)
}

fn holds(condition: ExpireCondition, old: Option<WallMillis>, new: WallMillis) -> bool {
    let later = old.is_some_and(|old| new > old);
    let earlier = old.is_none_or(|old| new < old);
    match condition {
        ExpireCondition::Always => true,
        ExpireCondition::IfNone => old.is_none(),
        ExpireCondition::IfSome => old.is_some(),
        ExpireCondition::IfLater | ExpireCondition::IfSomeAndLater => later,
        ExpireCondition::IfEarlier => earlier,
        ExpireCondition::IfSomeAndEarlier => old.is_some() && earlier,
    }
}
