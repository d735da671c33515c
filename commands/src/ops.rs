//! Ops: the ordinary command, a few ops on keys, and how ops on several slots are scattered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use replication::row::{Row, hash48, slot_of};
use replication::{Answer, Op, Outcome, Request, Task};
use ring::Slot;
use smallvec::SmallVec;
use wire::resp::encode;

use crate::bugs::Bug;
use crate::errors;
use crate::job::{Step, end_with_failure, line_of_failure};
use crate::limits::{GATHERED_BYTES_MAX, IN_FLIGHT_MAX};
use crate::pending::Touch;
use crate::shape::Shape;
use crate::turn::{Ask, Flow};

/// Ops with their rows, in the order of the command.
pub(crate) type Ops = SmallVec<[(Row, Op); 1]>;

/// A command, understood: what it asks and how the outcomes become its reply.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) ops: Ops,
    pub(crate) shape: Shape,
}

impl Asked {
    pub(crate) fn one(row: Row, op: Op, shape: Shape) -> Self {
        let mut ops = Ops::new();
        ops.push((row, op));
        Self { ops, shape }
    }

    /// A command whose reply needs no op.
    pub(crate) fn fixed(reply: Vec<u8>) -> Self {
        Self { ops: Ops::new(), shape: Shape::Fixed(reply) }
    }

    /// What it may collide with.
    pub(crate) fn touches(&self) -> SmallVec<[Touch; 1]> {
        let touch = |(row, op): &(Row, Op)| Touch { key: hash48(row), writes: !op.is_read() };
        let mut touches: SmallVec<[Touch; 1]> = self.ops.iter().map(touch).collect();
        if touches.len() > 1 {
            // Writers first, so that of a key that is both read and written the writer stays.
            touches.sort_unstable();
            touches.reverse();
            touches.dedup_by_key(|t| t.key);
        }
        touches
    }

    /// About how many bytes it holds.
    pub(crate) fn bytes(&self) -> usize {
        let payload = |op: &Op| match op {
            Op::Set { value, .. } | Op::SetWithContext { value: Some(value), .. } => value.len(),
            Op::Append(bytes) | Op::SetRange { bytes, .. } => bytes.len(),
            _ => 0,
        };
        self.ops.iter().map(|(row, op)| row.len() + payload(op) + 64).sum()
    }
}

/// The slot of a row that this crate has built.
pub(crate) fn slot_of_row(row: &Row) -> Slot {
    slot_of(row).expect("a row begins with its slot")
}

/// A command that is ops on keys.
#[derive(Debug)]
pub(crate) enum OpsJob {
    /// Not started, or all keys in one slot.
    Whole(Asked),
    /// Keys in several slots.
    Scattered { shape: Shape, scatter: Scatter },
}

impl OpsJob {
    pub(crate) fn start(&mut self, flow: &mut Flow<'_>) -> Step {
        let Self::Whole(asked) = self else { unreachable!("a job is started once") };
        let Some((first, _)) = asked.ops.first() else {
            asked.shape.render(&[], &flow.ask, flow.turn.host, flow.turn.reply);
            return Step::Ended;
        };
        let slot = slot_of_row(first);
        if asked.ops.iter().all(|(row, _)| slot_of_row(row) == slot) {
            let ops = std::mem::take(&mut asked.ops).into_vec();
            flow.submit(Request::Task(Task { ops, ..flow.ask.task(slot) }));
            return Step::Waits;
        }
        let mut scatter = Scatter::default();
        let asked = std::mem::replace(asked, Asked::fixed(Vec::new()));
        for (row, op) in asked.ops {
            scatter.add(&flow.ask, row, op);
        }
        scatter.start(flow);
        *self = Self::Scattered { shape: asked.shape, scatter };
        Step::Waits
    }

    pub(crate) fn on_answer(&mut self, part: u32, answer: Answer, flow: &mut Flow<'_>) -> Step {
        let ask = Ask { now: flow.turn.now, ..flow.ask };
        match self {
            Self::Whole(asked) => match answer {
                Answer::Done { outcomes, write } => {
                    flow.wrote(write);
                    asked.shape.render(&outcomes, &ask, flow.turn.host, flow.turn.reply);
                    Step::Ended
                }
                failed => end_with_failure(&failed, flow),
            },
            Self::Scattered { shape, scatter } => {
                if scatter.on_answer(part, answer, flow) == Step::Waits {
                    return Step::Waits;
                }
                match scatter.take_outcomes(None) {
                    Ok(outcomes) => {
                        shape.render(&outcomes, &ask, flow.turn.host, flow.turn.reply);
                    }
                    Err(line) => encode::write_error(flow.turn.reply, &line),
                }
                Step::Ended
            }
        }
    }
}

fn bytes_of(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Read { found: Some(found), .. } => found.value.len(),
        Outcome::Set { previous: Some(value), .. } => value.len(),
        _ => 0,
    }
}

/// How an op that was scattered has fared.
#[derive(Clone, Debug)]
enum Fate {
    Unknown,
    Known(Outcome),
    /// The task that it belongs to failed with this line; it may have been done all the same.
    Failed(Arc<str>, InDoubt),
}

type InDoubt = bool;

/// Ops on keys of several slots: one task a slot and keyspace, a bounded number at a time.
#[derive(Debug, Default)]
pub(crate) struct Scatter {
    tasks: BTreeMap<(u16, Slot), (Task, Vec<usize>)>,
    waiting: VecDeque<(Task, Vec<usize>)>,
    running: BTreeMap<u32, Vec<usize>>,
    fates: Vec<Fate>,
    /// Bytes of the outcomes so far, about.
    bytes: usize,
    /// Whether a task found a watched key changed.
    pub(crate) aborted: bool,
    /// Whether a task did what it was asked.
    pub(crate) any_done: bool,
    /// Whether a task wrote, or may have written.
    pub(crate) may_have_written: bool,
    /// Only for the planted bug that tells what the first slot that failed told.
    tells_first: bool,
}

impl Scatter {
    /// Adds an op under this ask's keyspace and levels.
    pub(crate) fn add(&mut self, ask: &Ask, row: Row, op: Op) {
        let place = self.fates.len();
        self.fates.push(Fate::Unknown);
        let (task, places) = self.task_for(ask, slot_of_row(&row));
        task.ops.push((row, op));
        places.push(place);
    }

    /// How many ops were added.
    pub(crate) fn len(&self) -> usize {
        self.fates.len()
    }

    /// The task of a slot, for watches and flags.
    pub(crate) fn task_for(&mut self, ask: &Ask, slot: Slot) -> &mut (Task, Vec<usize>) {
        self.tasks.entry((ask.keyspace, slot)).or_insert_with(|| (ask.task(slot), Vec::new()))
    }

    /// The tasks, before they start.
    pub(crate) fn tasks_mut(&mut self) -> impl ExactSizeIterator<Item = &mut Task> {
        self.tasks.values_mut().map(|(task, _)| task)
    }

    /// Submits as many as may be in flight.
    pub(crate) fn start(&mut self, flow: &mut Flow<'_>) {
        self.tells_first = flow.turn.state.has_bug(Bug::TellsFirstFailure);
        let parts = flow.turn.state.has_bug(Bug::ExecInParts);
        for (task, places) in std::mem::take(&mut self.tasks).into_values() {
            if !(parts && task.atomic) {
                self.waiting.push_back((task, places));
                continue;
            }
            for (op, place) in task.ops.iter().zip(places) {
                let part = Task { ops: vec![op.clone()], atomic: false, ..task.clone() };
                self.waiting.push_back((part, vec![place]));
            }
        }
        self.refill(flow);
    }

    fn refill(&mut self, flow: &mut Flow<'_>) {
        while self.running.len() < IN_FLIGHT_MAX
            && let Some((task, places)) = self.waiting.pop_front()
        {
            let part = flow.submit(Request::Task(task));
            self.running.insert(part, places);
        }
    }

    /// Takes an answer; ended once all have come.
    pub(crate) fn on_answer(&mut self, part: u32, answer: Answer, flow: &mut Flow<'_>) -> Step {
        let Some(places) = self.running.remove(&part) else { return self.step() };
        match answer {
            Answer::Done { outcomes, write } if outcomes.len() == places.len() => {
                self.may_have_written |= write.is_some();
                flow.wrote(write);
                self.any_done = true;
                for (place, outcome) in places.into_iter().zip(outcomes) {
                    self.bytes += bytes_of(&outcome);
                    self.fates[place] = Fate::Known(outcome);
                }
                if self.bytes > GATHERED_BYTES_MAX {
                    self.give_up();
                }
            }
            failed => {
                self.aborted |= matches!(failed, Answer::Failed(replication::TaskError::Aborted));
                let in_doubt =
                    matches!(&failed, Answer::Failed(error) if errors::is_in_doubt(error));
                self.may_have_written |= in_doubt;
                let line: Arc<str> = line_of_failure(&failed, flow).into();
                for place in places {
                    self.fates[place] = Fate::Failed(Arc::clone(&line), in_doubt);
                }
            }
        }
        self.refill(flow);
        self.step()
    }

    /// Too much has come: what is not asked yet is not asked any more, and all of it fails.
    fn give_up(&mut self) {
        self.waiting.clear();
        let line: Arc<str> = format!(
            "ERR the reply would have more than {GATHERED_BYTES_MAX} bytes. fix: ask for fewer keys \
             at once"
        )
        .into();
        self.fates.fill(Fate::Failed(line, false));
        self.bytes = 0;
    }

    fn step(&self) -> Step {
        if self.running.is_empty() && self.waiting.is_empty() { Step::Ended } else { Step::Waits }
    }

    /// The outcomes of these ops, or of all; or why they are not all known. The error for a part is
    /// that of the first task that failed. The error for all does not say that nothing was written if
    /// another slot was.
    pub(crate) fn take_outcomes(
        &mut self,
        range: Option<std::ops::Range<usize>>,
    ) -> Result<Vec<Outcome>, String> {
        if range.is_none() && self.may_have_written && !self.tells_first {
            let mut failed = self.fates.iter().filter_map(|fate| match fate {
                Fate::Failed(line, in_doubt) => Some((line, *in_doubt)),
                Fate::Known(_) | Fate::Unknown => None,
            });
            if let Some(first) = failed.next() {
                let in_doubt = [first].into_iter().chain(failed).find(|(_, in_doubt)| *in_doubt);
                let told = in_doubt.map(|(line, _)| line.to_string());
                return Err(told.unwrap_or_else(|| errors::in_part(first.0)));
            }
        }
        let range = range.unwrap_or(0..self.fates.len());
        let mut outcomes = Vec::with_capacity(range.len());
        for fate in &mut self.fates[range] {
            match std::mem::replace(fate, Fate::Unknown) {
                Fate::Known(outcome) => outcomes.push(outcome),
                Fate::Failed(line, _) => return Err(line.to_string()),
                Fate::Unknown => unreachable!("outcomes are taken once all answers have come"),
            }
        }
        Ok(outcomes)
    }
}
