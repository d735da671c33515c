//! Transactions: MULTI, EXEC, DISCARD, WATCH and UNWATCH.
//!
//! Queued commands are kept as they came and understood at EXEC, as on Redis. All keys in one slot:
//! one atomic task, isolated at the slot's preferred coordinator, watches checked in the same
//! breath. Keys in several slots: one atomic task a slot, side by side, without isolation between
//! them; watched keys are then looked at first, and each slot checks its own again. Commands that
//! take several steps of their own (SCAN, DBSIZE, FLUSHDB, MSETNX) cut the transaction: what stands
//! before them is done first, what stands after them last.

use std::collections::VecDeque;

use replication::record::Digest;
use replication::row::Row;
use replication::{Answer, Op, Outcome};
use wire::resp::encode;

use crate::args;
use crate::bugs::Bug;
use crate::errors::Fault;
use crate::host::Host;
use crate::job::{Job, Step};
use crate::limits::{
    GATHERED_BYTES_MAX, QUEUED_BYTES_MAX, QUEUED_MAX, QUEUED_WHOLE_MAX, WATCHED_MAX,
};
use crate::ops::{Scatter, slot_of_row};
use crate::session::CrossSlot;
use crate::shape::Shape;
use crate::strings::SetAllJob;
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
    /// How many of them take several steps of their own.
    wholes: usize,
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
        if matches!(TABLE[place].run, Run::Whole(_) | Run::SetAll(_)) {
            self.wholes += 1;
            if self.wholes > QUEUED_WHOLE_MAX {
                return Err(Fault::Line(format!(
                    "ERR the transaction is too long: it may have {QUEUED_WHOLE_MAX} commands like \
                     SCAN, DBSIZE or MSETNX, which take several steps. fix: split it"
                )));
            }
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
    /// Its reply is made of these outcomes of the scatter that it stands in.
    Ops { shape: Shape, range: core::ops::Range<usize>, ask: Ask },
    /// Its reply is written by its own act.
    Job,
}

/// What is done before what follows it begins.
#[derive(Debug)]
enum Act {
    /// Ops on keys, and up to which part they go.
    Ops { scatter: Scatter, to: usize },
    /// A command of several steps, and which part it is.
    Job { job: Job, ask: Ask, at: usize },
}

const TOO_MUCH: &str = "ERR the replies of the transaction have too many bytes already, so this command \
     was not carried out. fix: ask for less in one transaction";

/// EXEC.
#[derive(Debug)]
pub(crate) struct ExecJob {
    generation: u64,
    parts: Vec<Part>,
    /// What is not done yet; the first of them is being done.
    acts: VecDeque<Act>,
    /// Answers to requests below this number belong to something that has ended.
    first_request: u32,
    bytes: usize,
    reply_bytes: usize,
    /// Whether an act is over.
    any_act_done: bool,
    looks: Option<(Scatter, Vec<Digest>)>,
}

/// Understands what was queued.
pub(crate) fn exec(state: &mut State, ask: &Ask, host: &mut dyn Host) -> Result<ExecJob, Fault> {
    let queue = state.queue.take().ok_or(Fault::Fixed("ERR EXEC without MULTI"))?;
    let generation = state.watch_generation;
    state.watch_generation += 1;
    if queue.spoilt {
        return Err(Fault::Fixed("EXECABORT Transaction discarded because of previous errors."));
    }
    let mut acts = VecDeque::new();
    let mut scatter = Scatter::default();
    let mut parts = Vec::with_capacity(queue.commands.len());
    for queued in &queue.commands {
        let (part, job) = understand(queued, state, ask, host, &mut scatter);
        let failed = matches!(&part, Part::Reply(reply) if reply.first() == Some(&b'-'));
        host.stats_mut().called(queued.place, 0, failed);
        if let Some((job, ask)) = job {
            if scatter.len() > 0 {
                let scatter = std::mem::take(&mut scatter);
                acts.push_back(Act::Ops { scatter, to: parts.len() });
            }
            acts.push_back(Act::Job { job, ask, at: parts.len() });
        }
        parts.push(part);
    }
    if scatter.len() > 0 {
        acts.push_back(Act::Ops { scatter, to: parts.len() });
    }
    let slots_of = |act: &mut Act| match act {
        Act::Ops { scatter, .. } => scatter.tasks_mut().len(),
        Act::Job { .. } => 1,
    };
    if acts.iter_mut().map(slots_of).sum::<usize>() > 1 {
        host.stats_mut().cross_slot_tx += 1;
        if state.defaults.cross_slot == CrossSlot::Error {
            return Err(Fault::CrossSlot {
                what: "EXEC",
                fix: "give the keys one {hash tag}, or set cross-slot = \"allow\" if the \
                      transaction need not be isolated",
            });
        }
    }
    Ok(ExecJob {
        generation,
        parts,
        acts,
        first_request: 0,
        bytes: queue.bytes,
        reply_bytes: 0,
        any_act_done: false,
        looks: None,
    })
}

fn understand(
    queued: &Queued,
    state: &mut State,
    ask: &Ask,
    host: &mut dyn Host,
    scatter: &mut Scatter,
) -> (Part, Option<(Job, Ask)>) {
    let mut reply = Vec::new();
    let args = queued.args();
    let ask = Ask { keyspace: state.keyspace, protocol: state.protocol, ..*ask };
    let run = TABLE[queued.place].run;
    let job = match run {
        Run::Whole(plan) => Some(plan(state, &ask, &args)),
        Run::SetAll(understand) => {
            Some(understand(&ask, &args).map(|asked| Job::SetAll(Box::new(SetAllJob::new(asked)))))
        }
        _ => None,
    };
    let mut turn = Turn { now: ask.now, state, host, reply: &mut reply };
    match (job, run) {
        (Some(Ok(job)), _) => return (Part::Job, Some((job, ask))),
        (Some(Err(fault)), _) => turn.fail(&fault),
        (None, Run::Keys(understand)) => match understand(&ask, &args) {
            Ok(asked) => {
                let start = scatter.len();
                for (row, op) in asked.ops {
                    scatter.add(&ask, row, op);
                }
                let range = start..scatter.len();
                return (Part::Ops { shape: asked.shape, range, ask }, None);
            }
            Err(fault) => turn.fail(&fault),
        },
        (None, Run::Local(act)) => act(&mut turn, &args),
        (None, Run::Never(line)) => turn.fail(&Fault::Fixed(line)),
        (None, Run::Whole(_) | Run::SetAll(_) | Run::Control(_)) => {
            unreachable!("{} is never queued, or has a job", TABLE[queued.place].name)
        }
    }
    (Part::Reply(reply), None)
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
        let mut checked = 0;
        for (n, act) in self.acts.iter_mut().enumerate() {
            let Act::Ops { scatter, .. } = act else { continue };
            for task in scatter.tasks_mut() {
                task.atomic = true;
                // Later acts find what the earlier ones have written.
                for w in watched.iter().filter(|_| n == 0) {
                    if w.keyspace == task.keyspace && slot_of_row(&w.row) == task.slot {
                        task.watches.push((w.row.clone(), w.digest));
                        checked += 1;
                    }
                }
            }
        }
        let single = match self.acts.front_mut() {
            Some(Act::Ops { scatter, .. }) => scatter.tasks_mut().len() == 1,
            _ => false,
        };
        let forgets = flow.turn.state.has_bug(Bug::WatchForgetsOtherSlots);
        // One slot that checks every watch itself needs no look before.
        if watched.is_empty() || (single && checked == watched.len()) || forgets {
            return self.go_on(flow);
        }
        let mut looks = Scatter::default();
        let mut wanted = Vec::with_capacity(watched.len());
        for w in watched {
            let ask = Ask { keyspace: w.keyspace, ..flow.ask };
            looks.add(&ask, w.row, Op::Read);
            wanted.push(w.digest);
        }
        looks.start(flow);
        self.looks = Some((looks, wanted));
        Step::Waits
    }

    /// Begins the first act that is not done, or replies after the last.
    fn go_on(&mut self, flow: &mut Flow<'_>) -> Step {
        loop {
            self.first_request = *flow.next_part;
            match self.acts.front_mut() {
                None => return self.reply(flow),
                Some(Act::Ops { scatter, .. }) => {
                    scatter.start(flow);
                    return Step::Waits;
                }
                Some(Act::Job { at, .. }) if self.reply_bytes > GATHERED_BYTES_MAX => {
                    let mut reply = Vec::new();
                    encode::write_error(&mut reply, TOO_MUCH);
                    self.parts[*at] = Part::Reply(reply);
                }
                Some(Act::Job { .. }) => {
                    if self.let_job(flow, Job::start) == Step::Waits {
                        return Step::Waits;
                    }
                }
            }
            self.acts.pop_front();
        }
    }

    /// Lets the job that is being done go on, with a reply of its own.
    fn let_job(
        &mut self,
        flow: &mut Flow<'_>,
        go: impl FnOnce(&mut Job, &mut Flow<'_>) -> Step,
    ) -> Step {
        let Some(Act::Job { job, ask, at }) = self.acts.front_mut() else { return Step::Ended };
        let mut reply = Vec::new();
        let turn = Turn {
            now: flow.turn.now,
            state: &mut *flow.turn.state,
            host: &mut *flow.turn.host,
            reply: &mut reply,
        };
        let (seq, next_part) = (flow.seq, &mut *flow.next_part);
        let mut own = Flow { turn, ask: *ask, seq, next_part, submits: &mut *flow.submits };
        let step = go(job, &mut own);
        if step == Step::Ended {
            self.any_act_done = true;
            self.reply_bytes += reply.len();
            self.parts[*at] = Part::Reply(reply);
        }
        step
    }

    pub(crate) fn on_answer(&mut self, part: u32, answer: Answer, flow: &mut Flow<'_>) -> Step {
        if part < self.first_request {
            return Step::Waits;
        }
        if let Some((looks, wanted)) = &mut self.looks {
            if looks.on_answer(part, answer, flow) == Step::Waits {
                return Step::Waits;
            }
            let found = match looks.take_outcomes(None) {
                Ok(found) => found,
                Err(line) => {
                    encode::write_error(flow.turn.reply, &line);
                    return Step::Ended;
                }
            };
            if !found.iter().map(digest_of).eq(wanted.iter().map(|d| Some(*d))) {
                return Self::aborted(flow);
            }
            self.looks = None;
            return self.go_on(flow);
        }
        let step = match self.acts.front_mut() {
            Some(Act::Ops { scatter, .. }) => scatter.on_answer(part, answer, flow),
            Some(Act::Job { .. }) => {
                self.let_job(flow, |job, own| job.on_answer(part, answer, own))
            }
            None => return Step::Waits,
        };
        if step == Step::Waits {
            return Step::Waits;
        }
        if let Some(Act::Ops { scatter, to }) = self.acts.pop_front()
            && let Some(step) = self.render(scatter, to, flow)
        {
            return step;
        }
        self.go_on(flow)
    }

    fn aborted(flow: &mut Flow<'_>) -> Step {
        encode::write_null_array(flow.turn.reply, flow.ask.protocol);
        Step::Ended
    }

    /// Makes replies of ops that are done. Ended if nothing of the whole transaction was done.
    fn render(&mut self, mut scatter: Scatter, to: usize, flow: &mut Flow<'_>) -> Option<Step> {
        let is_first = !core::mem::replace(&mut self.any_act_done, true);
        if is_first && !scatter.any_done {
            if scatter.aborted && !scatter.may_have_written {
                return Some(Self::aborted(flow));
            }
            // Nothing was done anywhere: one error says it better than a list of the same.
            if self.acts.is_empty()
                && let Err(line) = scatter.take_outcomes(None)
            {
                encode::write_error(flow.turn.reply, &line);
                return Some(Step::Ended);
            }
        }
        let now = flow.turn.now;
        for part in &mut self.parts[..to] {
            let Part::Ops { shape, range, ask } = part else { continue };
            let mut reply = Vec::new();
            match scatter.take_outcomes(Some(range.clone())) {
                Ok(outcomes) => {
                    let ask = Ask { now, ..*ask };
                    shape.render(&outcomes, &ask, flow.turn.host, &mut reply);
                }
                Err(line) => encode::write_error(&mut reply, &line),
            }
            self.reply_bytes += reply.len();
            *part = Part::Reply(reply);
        }
        None
    }

    fn reply(&mut self, flow: &mut Flow<'_>) -> Step {
        encode::write_array(flow.turn.reply, self.parts.len());
        for part in std::mem::take(&mut self.parts) {
            match part {
                Part::Reply(reply) if !reply.is_empty() => {
                    flow.turn.reply.extend_from_slice(&reply);
                }
                // CLIENT REPLY OFF says nothing, and a list has no room for nothing.
                Part::Reply(_) => encode::write_null(flow.turn.reply, flow.ask.protocol),
                Part::Ops { .. } | Part::Job => {
                    unreachable!("every act has made replies of its parts")
                }
            }
        }
        Step::Ended
    }
}
