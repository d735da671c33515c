//! Transactions: MULTI, EXEC, DISCARD, WATCH and UNWATCH.
//!
//! Queued commands are kept as they came and understood at EXEC, as on Redis. All keys in one slot:
//! one atomic task, isolated at the slot's preferred coordinator, watches checked in the same
//! breath. Keys in several slots: one atomic task a slot, side by side, without isolation between
//! them; watched keys are then looked at first, and each slot checks its own again.

use replication::record::Digest;
use replication::row::Row;
use replication::{Answer, Op, Outcome};
use wire::resp::encode;

use crate::args;
use crate::bugs::Bug;
use crate::errors::Fault;
use crate::host::Host;
use crate::job::Step;
use crate::limits::{QUEUED_BYTES_MAX, QUEUED_MAX, WATCHED_MAX};
use crate::ops::{Scatter, slot_of_row};
use crate::session::CrossSlot;
use crate::shape::Shape;
use crate::table::{Run, TABLE};
use crate::turn::{Ask, Flow, State, Turn, Watched};

/// A queued command: its place in the command table, and its arguments end to end.
#[derive(Debug)]
struct Queued {
    place: usize,
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Queued {
    fn args(&self) -> Vec<&[u8]> {
        let mut start = 0;
        let cut = |end: &usize| &self.text[std::mem::replace(&mut start, *end)..*end];
        self.ends.iter().map(cut).collect()
    }
}

/// What MULTI has queued so far.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    commands: Vec<Queued>,
    bytes: usize,
    spoilt: bool,
}

impl Queue {
    pub(crate) fn push(&mut self, place: usize, args: &[&[u8]]) -> Result<(), Fault> {
        let text = args.concat();
        let mut end = 0;
        let ends: Vec<usize> = args
            .iter()
            .map(|arg| {
                end += arg.len();
                end
            })
            .collect();
        self.bytes += text.len() + 8 * ends.len() + 64;
        if self.commands.len() >= QUEUED_MAX || self.bytes > QUEUED_BYTES_MAX {
            self.commands = Vec::new();
            return Err(Fault::Line(format!(
                "ERR the transaction is too long: it may have {QUEUED_MAX} commands and \
                 {QUEUED_BYTES_MAX} bytes. fix: split it"
            )));
        }
        self.commands.push(Queued { place, text, ends });
        Ok(())
    }

    /// A command was refused: EXEC must do nothing.
    pub(crate) const fn spoil(&mut self) {
        self.spoilt = true;
    }
}

/// MULTI.
pub(crate) fn multi(turn: &mut Turn<'_>, _args: &[&[u8]]) {
    if turn.state.queue.is_some() {
        return turn.fail(&Fault::Fixed("ERR MULTI calls can not be nested"));
    }
    turn.state.queue = Some(Queue::default());
    turn.ok();
}

/// DISCARD.
pub(crate) fn discard(turn: &mut Turn<'_>, _args: &[&[u8]]) {
    if turn.state.queue.take().is_none() {
        return turn.fail(&Fault::Fixed("ERR DISCARD without MULTI"));
    }
    turn.state.watch_generation += 1;
    turn.ok();
}

/// An EXEC that is refused ends the transaction all the same.
pub(crate) fn forget(state: &mut State) {
    state.queue = None;
    state.watch_generation += 1;
}

/// What a refused EXEC says.
pub(crate) fn abort_because(fault: &Fault) -> Fault {
    let why = fault.to_string();
    let why = why.strip_prefix("ERR ").unwrap_or(&why);
    Fault::Line(format!("EXECABORT Transaction discarded because of: {why}"))
}

/// UNWATCH. What was watched so far belongs to a generation that no later EXEC looks at.
pub(crate) fn unwatch(turn: &mut Turn<'_>, _args: &[&[u8]]) {
    turn.state.watch_generation += 1;
    turn.ok();
}

/// WATCH.
#[derive(Debug)]
pub(crate) struct WatchJob {
    generation: u64,
    rows: Vec<Row>,
    scatter: Scatter,
}

pub(crate) fn watch(state: &State, ask: &Ask, args: &[&[u8]]) -> Result<WatchJob, Fault> {
    if state.queue.is_some() {
        return Err(Fault::Fixed("ERR WATCH inside MULTI is not allowed"));
    }
    if state.watched.len() + args.len() > WATCHED_MAX {
        return Err(Fault::Line(format!(
            "ERR a connection may watch {WATCHED_MAX} keys. fix: UNWATCH, or watch fewer"
        )));
    }
    let rows = args[1..].iter().map(|key| args::row_of(ask, key)).collect::<Result<_, _>>()?;
    Ok(WatchJob { generation: state.watch_generation, rows, scatter: Scatter::default() })
}

impl WatchJob {
    pub(crate) fn start(&mut self, flow: &mut Flow<'_>) -> Step {
        for row in &self.rows {
            self.scatter.add(&flow.ask, row.clone(), Op::Read);
        }
        self.scatter.start(flow);
        Step::Waits
    }

    pub(crate) fn on_answer(&mut self, part: u32, answer: Answer, flow: &mut Flow<'_>) -> Step {
        if self.scatter.on_answer(part, answer, flow) == Step::Waits {
            return Step::Waits;
        }
        let outcomes = match self.scatter.take_outcomes(None) {
            Ok(outcomes) => outcomes,
            Err(line) => {
                encode::write_error(flow.turn.reply, &line);
                return Step::Ended;
            }
        };
        let (generation, keyspace) = (self.generation, flow.ask.keyspace);
        let watched = &mut flow.turn.state.watched;
        for (row, outcome) in self.rows.drain(..).zip(outcomes) {
            let Some(digest) = digest_of(&outcome) else { continue };
            let known =
                |w: &Watched| w.generation == generation && w.keyspace == keyspace && w.row == row;
            // The first look counts: what changed since must make EXEC fail.
            if !watched.iter().any(known) {
                watched.push(Watched { generation, keyspace, row, digest });
            }
        }
        flow.turn.ok();
        Step::Ended
    }
}

const fn digest_of(outcome: &Outcome) -> Option<Digest> {
    match outcome {
        Outcome::Read { digest, .. } => Some(*digest),
        _ => None,
    }
}

/// What one queued command has become.
#[derive(Debug)]
enum Part {
    /// Its reply is known.
    Reply(Vec<u8>),
    /// Its reply is made of these outcomes.
    Ops { shape: Shape, range: core::ops::Range<usize>, ask: Ask },
}

/// EXEC.
#[derive(Debug)]
pub(crate) struct ExecJob {
    generation: u64,
    parts: Vec<Part>,
    scatter: Scatter,
    bytes: usize,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Watched keys are looked at again, before anything is done.
    Verifying {
        looks: Scatter,
        wanted: Vec<Digest>,
    },
    Working,
}

/// Understands what was queued.
pub(crate) fn exec(state: &mut State, ask: &Ask, host: &mut dyn Host) -> Result<ExecJob, Fault> {
    let queue = state.queue.take().ok_or(Fault::Fixed("ERR EXEC without MULTI"))?;
    let generation = state.watch_generation;
    state.watch_generation += 1;
    if queue.spoilt {
        return Err(Fault::Fixed("EXECABORT Transaction discarded because of previous errors."));
    }
    let mut scatter = Scatter::default();
    let mut parts = Vec::with_capacity(queue.commands.len());
    for queued in &queue.commands {
        let part = understand(queued, state, ask, host, &mut scatter);
        let failed = matches!(&part, Part::Reply(reply) if reply.first() == Some(&b'-'));
        host.stats_mut().called(queued.place, 0, failed);
        parts.push(part);
    }
    if scatter.tasks_mut().len() > 1 {
        host.stats_mut().cross_slot_tx += 1;
        if state.defaults.cross_slot == CrossSlot::Error {
            return Err(Fault::CrossSlot {
                what: "EXEC",
                fix: "give the keys one {hash tag}, or set cross-slot = \"allow\" if the \
                      transaction need not be isolated",
            });
        }
    }
    Ok(ExecJob { generation, parts, scatter, bytes: queue.bytes, stage: Stage::Working })
}

fn understand(
    queued: &Queued,
    state: &mut State,
    ask: &Ask,
    host: &mut dyn Host,
    scatter: &mut Scatter,
) -> Part {
    let mut reply = Vec::new();
    let args = queued.args();
    let ask = Ask { keyspace: state.keyspace, protocol: state.protocol, ..*ask };
    let mut turn = Turn { now: ask.now, state, host, reply: &mut reply };
    match TABLE[queued.place].run {
        Run::Keys(understand) => match understand(&ask, &args) {
            Ok(asked) => {
                let start = scatter.len();
                for (row, op) in asked.ops {
                    scatter.add(&ask, row, op);
                }
                return Part::Ops { shape: asked.shape, range: start..scatter.len(), ask };
            }
            Err(fault) => turn.fail(&fault),
        },
        Run::Local(act) => act(&mut turn, &args),
        Run::Never(line) => turn.fail(&Fault::Fixed(line)),
        Run::Whole(_) | Run::SetAll(_) | Run::Control(_) => {
            unreachable!("{} is never queued", TABLE[queued.place].name)
        }
    }
    Part::Reply(reply)
}

impl ExecJob {
    /// About how many bytes it holds.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn start(&mut self, flow: &mut Flow<'_>) -> Step {
        let mut watched = std::mem::take(&mut flow.turn.state.watched);
        let generation = self.generation;
        flow.turn.state.watched = watched.extract_if(.., |w| w.generation > generation).collect();
        watched.retain(|w| w.generation == generation);
        let single = self.scatter.tasks_mut().len() == 1;
        for task in self.scatter.tasks_mut() {
            task.atomic = true;
            for w in &watched {
                if w.keyspace == task.keyspace && slot_of_row(&w.row) == task.slot {
                    task.watches.push((w.row.clone(), w.digest));
                }
            }
        }
        let checked: usize = self.scatter.tasks_mut().map(|t| t.watches.len()).sum();
        let forgets = flow.turn.state.has_bug(Bug::WatchForgetsOtherSlots);
        // One slot that checks every watch itself needs no look before.
        if watched.is_empty() || (single && checked == watched.len()) || forgets {
            return self.work(flow);
        }
        let mut looks = Scatter::default();
        let mut wanted = Vec::with_capacity(watched.len());
        for w in watched {
            let ask = Ask { keyspace: w.keyspace, ..flow.ask };
            looks.add(&ask, w.row, Op::Read);
            wanted.push(w.digest);
        }
        looks.start(flow);
        self.stage = Stage::Verifying { looks, wanted };
        Step::Waits
    }

    fn work(&mut self, flow: &mut Flow<'_>) -> Step {
        self.stage = Stage::Working;
        if self.scatter.len() == 0 {
            return self.reply(flow);
        }
        self.scatter.start(flow);
        Step::Waits
    }

    pub(crate) fn on_answer(&mut self, part: u32, answer: Answer, flow: &mut Flow<'_>) -> Step {
        if let Stage::Verifying { looks, wanted } = &mut self.stage {
            if looks.on_answer(part, answer, flow) == Step::Waits {
                return Step::Waits;
            }
            return match looks.take_outcomes(None) {
                Err(line) => {
                    encode::write_error(flow.turn.reply, &line);
                    Step::Ended
                }
                Ok(found) if found.iter().map(digest_of).eq(wanted.iter().map(|d| Some(*d))) => {
                    self.work(flow)
                }
                Ok(_) => Self::aborted(flow),
            };
        }
        if self.scatter.on_answer(part, answer, flow) == Step::Waits {
            return Step::Waits;
        }
        self.reply(flow)
    }

    fn aborted(flow: &mut Flow<'_>) -> Step {
        encode::write_null_array(flow.turn.reply, flow.ask.protocol);
        Step::Ended
    }

    fn reply(&mut self, flow: &mut Flow<'_>) -> Step {
        if self.scatter.aborted && !self.scatter.any_done && !self.scatter.may_have_written {
            return Self::aborted(flow);
        }
        if self.scatter.len() > 0 && !self.scatter.any_done {
            // Nothing was done anywhere: one error says it better than a list of the same.
            if let Err(line) = self.scatter.take_outcomes(None) {
                encode::write_error(flow.turn.reply, &line);
                return Step::Ended;
            }
        }
        let now = flow.turn.now;
        encode::write_array(flow.turn.reply, self.parts.len());
        for part in std::mem::take(&mut self.parts) {
            match part {
                Part::Reply(reply) if reply.is_empty() => {
                    // CLIENT REPLY OFF says nothing, and a list has no room for nothing.
                    encode::write_null(flow.turn.reply, flow.ask.protocol);
                }
                Part::Reply(reply) => flow.turn.reply.extend_from_slice(&reply),
                Part::Ops { shape, range, ask } => match self.scatter.take_outcomes(Some(range)) {
                    Ok(outcomes) => {
                        let ask = Ask { now, ..ask };
                        shape.render(&outcomes, &ask, flow.turn.host, flow.turn.reply);
                    }
                    Err(line) => {
                        encode::write_error(flow.turn.reply, &line);
                    }
                },
            }
        }
        Step::Ended
    }
}
