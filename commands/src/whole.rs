//! Whole: commands about every slot, DBSIZE and FLUSHDB, and WAIT, which is about every write.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use replication::row::Keyspace;
use replication::{Answer, Request};
use ring::{GROUPS, SLOTS_PER_GROUP, Slot};
use wire::resp::encode;

use crate::args;
use crate::errors::{self, Fault};
use crate::job::{Job, Step, end_with_failure, line_of_failure};
use crate::limits::{IN_FLIGHT_MAX, WAIT_MS_MAX};
use crate::table::KEYSPACES;
use crate::turn::{Ask, Flow, State};

/// How long the peer may take beyond the time that WAIT gives the replicas.
const WAIT_SLACK_US: u64 = 1_000_000;

/// The first slot of a group.
pub(crate) const fn first_slot(group: u8) -> Slot {
    Slot(group as u16 * SLOTS_PER_GROUP)
}

/// DBSIZE: every group counts its keys.
#[derive(Debug)]
pub(crate) struct CountJob {
    left: u16,
    sum: u64,
}

pub(crate) fn dbsize(_state: &mut State, _ask: &Ask, _args: &[&[u8]]) -> Result<Job, Fault> {
    Ok(Job::Count(Box::new(CountJob { left: GROUPS, sum: 0 })))
}

impl CountJob {
    pub(crate) fn start(&mut self, flow: &mut Flow<'_>) -> Step {
        for group in 0..GROUPS as u8 {
            flow.submit_step(Request::Count { keyspace: flow.ask.keyspace, group });
        }
        Step::Waits
    }

    pub(crate) fn on_answer(&mut self, _part: u32, answer: Answer, flow: &mut Flow<'_>) -> Step {
        let count = match answer {
            Answer::Count(count) => count,
            failed => return end_with_failure(&failed, flow),
        };
        self.sum += count;
        self.left -= 1;
        if self.left > 0 {
            return Step::Waits;
        }
        encode::write_integer(flow.turn.reply, self.sum as i64);
        Step::Ended
    }
}

/// FLUSHDB and FLUSHALL: look which slots hold keys, then flush those.
///
/// A key that is written while the flush runs may survive it, as any write that a deletion has not
/// seen.
#[derive(Debug)]
pub(crate) struct FlushJob {
    waiting: VecDeque<Errand>,
    running: BTreeMap<u32, Errand>,
    /// A slot was flushed, or may have been.
    may_have_written: bool,
}

#[derive(Clone, Copy, Debug)]
enum Errand {
    /// See which slots of a group hold keys.
    Look { keyspace: Keyspace, group: u8 },
    /// Flush one of them.
    Flush { keyspace: Keyspace, slot: Slot },
}

pub(crate) fn flushdb(state: &mut State, ask: &Ask, args: &[&[u8]]) -> Result<Job, Fault> {
    flush(state, args, &[ask.keyspace])
}

pub(crate) fn flushall(state: &mut State, _ask: &Ask, args: &[&[u8]]) -> Result<Job, Fault> {
    flush(state, args, &KEYSPACES.collect::<Vec<_>>())
}

fn flush(state: &State, args: &[&[u8]], keyspaces: &[Keyspace]) -> Result<Job, Fault> {
    match args {
        [_] => {}
        [_, mode] if args::is(mode, "async") || args::is(mode, "sync") => {}
        _ => return Err(Fault::Syntax),
    }
    if !state.defaults.allow_flush {
        return Err(Fault::Fixed(
            "ERR flushing is switched off on this node. fix: set allow-flush = true if losing every \
             key is intended",
        ));
    }
    let looks = |keyspace: &Keyspace| {
        let keyspace = *keyspace;
        (0..GROUPS as u8).map(move |group| Errand::Look { keyspace, group })
    };
    let waiting = keyspaces.iter().flat_map(looks).collect();
    let (running, may_have_written) = (BTreeMap::new(), false);
    Ok(Job::Flush(Box::new(FlushJob { waiting, running, may_have_written })))
}

impl FlushJob {
    pub(crate) fn start(&mut self, flow: &mut Flow<'_>) -> Step {
        let levels = flow.ask.levels;
        while self.running.len() < IN_FLIGHT_MAX
            && let Some(errand) = self.waiting.pop_front()
        {
            let request = match errand {
                Errand::Look { keyspace, group } => Request::Scan {
                    keyspace,
                    from: first_slot(group),
                    from_hash: 0,
                    count: u32::from(SLOTS_PER_GROUP),
                    level: levels.read,
                },
                Errand::Flush { keyspace, slot } => {
                    Request::Flush { keyspace, slot, level: levels.write.or(levels.read) }
                }
            };
            let part = flow.submit_step(request);
            self.running.insert(part, errand);
        }
        if self.running.is_empty() {
            flow.turn.ok();
            return Step::Ended;
        }
        Step::Waits
    }

    pub(crate) fn on_answer(&mut self, part: u32, answer: Answer, flow: &mut Flow<'_>) -> Step {
        let Some(errand) = self.running.remove(&part) else { return Step::Waits };
        match (errand, answer) {
            (Errand::Look { keyspace, group }, Answer::Keys { keys, next }) => {
                let flush = |slot| Errand::Flush { keyspace, slot };
                self.waiting.extend(slots_with_keys(&keys, group, next).into_iter().map(flush));
            }
            (Errand::Flush { .. }, Answer::Count(_)) => self.may_have_written = true,
            (_, failed) => {
                let others = self.running.values().any(|e| matches!(e, Errand::Flush { .. }));
                let in_doubt = matches!(&failed, Answer::Failed(e) if errors::is_in_doubt(e));
                if in_doubt || !(others || self.may_have_written) {
                    return end_with_failure(&failed, flow);
                }
                let line = errors::in_part(&line_of_failure(&failed, flow));
                encode::write_error(flow.turn.reply, &line);
                return Step::Ended;
            }
        }
        self.start(flow)
    }
}

/// WAIT.
#[derive(Debug)]
pub(crate) struct WaitJob {
    replicas: u8,
    timeout_ms: u32,
    left: usize,
    least: u8,
}

pub(crate) fn wait(_state: &mut State, _ask: &Ask, args: &[&[u8]]) -> Result<Job, Fault> {
    let replicas = args::integer(args[1])?;
    let timeout = args::canonical(args[2])
        .ok_or(Fault::Fixed("ERR timeout is not an integer or out of range"))?;
    if timeout < 0 {
        return Err(Fault::Fixed("ERR timeout is negative"));
    }
    let timeout_ms = match u32::try_from(timeout) {
        Ok(0) | Err(_) => WAIT_MS_MAX,
        Ok(ms) => ms.min(WAIT_MS_MAX),
    };
    let replicas = replicas.clamp(0, 254) as u8;
    Ok(Job::Wait(Box::new(WaitJob { replicas, timeout_ms, left: 0, least: u8::MAX })))
}

impl WaitJob {
    pub(crate) fn start(&mut self, flow: &mut Flow<'_>) -> Step {
        let writes = flow.turn.state.last_writes.clone();
        if writes.is_empty() {
            // Nothing was written, so every other copy holds all of it.
            let copies = flow.turn.host.node().copies;
            encode::write_integer(flow.turn.reply, i64::from(copies.saturating_sub(1)));
            return Step::Ended;
        }
        self.left = writes.len();
        for write in writes {
            let request =
                Request::AwaitAcks { write, acks: self.replicas + 1, timeout_ms: self.timeout_ms };
            flow.submit_within(request, u64::from(self.timeout_ms) * 1_000 + WAIT_SLACK_US);
        }
        Step::Waits
    }

    pub(crate) fn on_answer(&mut self, _part: u32, answer: Answer, flow: &mut Flow<'_>) -> Step {
        let acks = match answer {
            Answer::Acks(acks) => acks,
            failed => return end_with_failure(&failed, flow),
        };
        self.least = self.least.min(acks);
        self.left -= 1;
        if self.left > 0 {
            return Step::Waits;
        }
        // Redis counts replicas beside the node that took the write.
        encode::write_integer(flow.turn.reply, i64::from(self.least.saturating_sub(1)));
        Step::Ended
    }
}

/// The slots of a look at a group: those that hold a key it saw, and all that it did not reach.
fn slots_with_keys(keys: &[bytes::Bytes], group: u8, next: Option<(Slot, u64)>) -> BTreeSet<Slot> {
    let mut slots: BTreeSet<Slot> = keys.iter().map(|key| Slot::of_key(key)).collect();
    if let Some((next, _)) = next
        && next.group() == group
    {
        slots.extend((next.0..(u16::from(group) + 1) * SLOTS_PER_GROUP).map(Slot));
    }
    slots
}
