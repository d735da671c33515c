//! Strings: GET, SET and the commands that read, replace or extend a value.

use bytes::Bytes;
use replication::op::{GetExpiry, SetCondition, SetExpiry};
use replication::piece;
use replication::row::Row;
use replication::{Answer, Op, Outcome, Request, Task, TaskError};
use smallvec::SmallVec;

use crate::args::{self, row_of};
use crate::errors::Fault;
use crate::expiry::Moment;
use crate::job::{Step, end_with_failure};
use crate::limits::OPTIMISTIC_ATTEMPTS_MAX;
use crate::ops::{Asked, Ops, slot_of_row};
use crate::shape::Shape;
use crate::turn::{Ask, Flow};

pub(crate) fn get(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    Ok(Asked::one(row_of(ask, args[1])?, Op::Read, Shape::Value))
}

fn plain_set(value: &[u8], expiry: SetExpiry) -> Op {
    Op::Set { value: piece::copied(value), expiry, condition: SetCondition::Always, get: false }
}

/// What the options of SET and GETEX say of the expiry.
#[derive(Clone, Copy, Debug)]
enum ExpiryOption<'a> {
    /// KEEPTTL.
    Keep,
    /// PERSIST.
    Persist,
    /// EX and its kin, with the amount.
    At(Moment, &'a [u8]),
}

impl<'a> ExpiryOption<'a> {
    /// Takes EX and its kin off `rest`. Only the same option may be repeated; the last one counts.
    fn moment(
        word: &[u8],
        before: Option<Self>,
        rest: &mut core::slice::Iter<'_, &'a [u8]>,
    ) -> Result<Option<Self>, Fault> {
        let form = Moment::option(word).ok_or(Fault::Syntax)?;
        match before {
            None => {}
            Some(Self::At(earlier, _)) if earlier == form => {}
            Some(_) => return Err(Fault::Syntax),
        }
        let amount = rest.next().ok_or(Fault::Syntax)?;
        Ok(Some(Self::At(form, amount)))
    }
}

pub(crate) fn set(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    let (mut expiry, mut condition, mut get) = (None, SetCondition::Always, false);
    let mut rest = args[3..].iter();
    while let Some(word) = rest.next() {
        if args::is(word, "nx") && condition != SetCondition::IfPresent {
            condition = SetCondition::IfAbsent;
        } else if args::is(word, "xx") && condition != SetCondition::IfAbsent {
            condition = SetCondition::IfPresent;
        } else if args::is(word, "get") {
            get = true;
        } else if args::is(word, "keepttl") && matches!(expiry, None | Some(ExpiryOption::Keep)) {
            expiry = Some(ExpiryOption::Keep);
        } else {
            expiry = ExpiryOption::moment(word, expiry, &mut rest)?;
        }
    }
    let expiry = match expiry {
        None | Some(ExpiryOption::Persist) => SetExpiry::Clear,
        Some(ExpiryOption::Keep) => SetExpiry::Keep,
        Some(ExpiryOption::At(form, amount)) => SetExpiry::At(form.read(ask, "set", amount)?),
    };
    let shape = if get { Shape::Previous } else { Shape::SetOk };
    let value = piece::copied(args[2]);
    Ok(Asked::one(row_of(ask, args[1])?, Op::Set { value, expiry, condition, get }, shape))
}

pub(crate) fn setex(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    let at = Moment::InSeconds.read(ask, "setex", args[2])?;
    Ok(Asked::one(row_of(ask, args[1])?, plain_set(args[3], SetExpiry::At(at)), Shape::Done))
}

pub(crate) fn psetex(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    let at = Moment::InMillis.read(ask, "psetex", args[2])?;
    Ok(Asked::one(row_of(ask, args[1])?, plain_set(args[3], SetExpiry::At(at)), Shape::Done))
}

pub(crate) fn setnx(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    let op = Op::Set {
        value: piece::copied(args[2]),
        expiry: SetExpiry::Clear,
        condition: SetCondition::IfAbsent,
        get: false,
    };
    Ok(Asked::one(row_of(ask, args[1])?, op, Shape::SetFlag))
}

pub(crate) fn getset(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    let op = Op::Set {
        value: piece::copied(args[2]),
        expiry: SetExpiry::Clear,
        condition: SetCondition::Always,
        get: true,
    };
    Ok(Asked::one(row_of(ask, args[1])?, op, Shape::Previous))
}

pub(crate) fn getdel(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    Ok(Asked::one(row_of(ask, args[1])?, Op::GetDelete, Shape::Value))
}

pub(crate) fn getex(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    let mut expiry = None;
    let mut rest = args[2..].iter();
    while let Some(word) = rest.next() {
        let before_fits = matches!(expiry, None | Some(ExpiryOption::Persist));
        if args::is(word, "persist") && before_fits {
            expiry = Some(ExpiryOption::Persist);
        } else {
            expiry = ExpiryOption::moment(word, expiry, &mut rest)?;
        }
    }
    let expiry = match expiry {
        None | Some(ExpiryOption::Keep) => GetExpiry::Keep,
        Some(ExpiryOption::Persist) => GetExpiry::Persist,
        Some(ExpiryOption::At(form, amount)) => GetExpiry::At(form.read(ask, "getex", amount)?),
    };
    Ok(Asked::one(row_of(ask, args[1])?, Op::GetExpire(expiry), Shape::Value))
}

pub(crate) fn mget(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    let reads = args[1..].iter().map(|key| Ok((row_of(ask, key)?, Op::Read)));
    let ops = reads.collect::<Result<SmallVec<_>, Fault>>()?;
    Ok(Asked { ops, shape: Shape::Values })
}

/// Keys and values; of a key that is named twice the last value counts.
fn pairs(ask: &Ask, args: &[&[u8]], command: &str) -> Result<Ops, Fault> {
    if args.len().is_multiple_of(2) {
        return Err(Fault::Arity { command: command.to_owned() });
    }
    let mut ops = Ops::new();
    for pair in args[1..].chunks_exact(2) {
        ops.push((row_of(ask, pair[0])?, plain_set(pair[1], SetExpiry::Clear)));
    }
    if ops.len() > 1 {
        ops.reverse();
        ops.sort_by(|(a, _), (b, _)| a.cmp(b));
        ops.dedup_by(|(a, _), (b, _)| a == b);
    }
    Ok(ops)
}

pub(crate) fn mset(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    Ok(Asked { ops: pairs(ask, args, "mset")?, shape: Shape::Done })
}

pub(crate) fn append(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    let op = Op::Append(Bytes::copy_from_slice(args[2]));
    Ok(Asked::one(row_of(ask, args[1])?, op, Shape::Integer))
}

pub(crate) fn strlen(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    Ok(Asked::one(row_of(ask, args[1])?, Op::Read, Shape::Length))
}

/// GETRANGE and SUBSTR.
pub(crate) fn getrange(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    let (start, end) = (args::integer(args[2])?, args::integer(args[3])?);
    Ok(Asked::one(row_of(ask, args[1])?, Op::Read, Shape::Range { start, end }))
}

pub(crate) fn setrange(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    let offset = args::integer(args[2])?;
    let Ok(offset) = u64::try_from(offset) else { return Err(Fault::OffsetRange) };
    let row = row_of(ask, args[1])?;
    let bytes = Bytes::copy_from_slice(args[3]);
    if bytes.is_empty() {
        // Writes nothing, not even an empty value.
        return Ok(Asked::one(row, Op::Read, Shape::Length));
    }
    if offset.saturating_add(bytes.len() as u64) > ask.bulk_bytes_max {
        return Err(Fault::TooLong);
    }
    Ok(Asked::one(row, Op::SetRange { offset, bytes }, Shape::Integer))
}

/// MSETNX: looks at its keys, and writes if none is there and none has changed since.
pub(crate) fn msetnx(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    let ops = pairs(ask, args, "msetnx")?;
    let slot = ops.first().map(|(row, _)| slot_of_row(row));
    if ops.iter().any(|(row, _)| Some(slot_of_row(row)) != slot) {
        return Err(Fault::CrossSlot {
            what: "MSETNX",
            fix: "give the keys one {hash tag}, or use MSET or several SETNX if they need not be \
                  set together",
        });
    }
    Ok(Asked { ops, shape: Shape::Flag })
}

/// MSETNX at work.
#[derive(Debug)]
pub(crate) struct SetAllJob {
    ops: Vec<(Row, Op)>,
    attempts: u32,
    stage: SetAllStage,
}

#[derive(Clone, Copy, Debug)]
enum SetAllStage {
    Looking,
    Writing,
}

impl SetAllJob {
    pub(crate) fn new(asked: Asked) -> Self {
        Self { ops: asked.ops.into_vec(), attempts: 0, stage: SetAllStage::Looking }
    }

    fn task(&self, flow: &Flow<'_>) -> Task {
        flow.ask.task(slot_of_row(&self.ops[0].0))
    }

    pub(crate) fn start(&mut self, flow: &mut Flow<'_>) -> Step {
        self.stage = SetAllStage::Looking;
        self.attempts += 1;
        let ops = self.ops.iter().map(|(row, _)| (row.clone(), Op::Read)).collect();
        flow.submit(Request::Task(Task { ops, ..self.task(flow) }));
        Step::Waits
    }

    pub(crate) fn on_answer(&mut self, _part: u32, answer: Answer, flow: &mut Flow<'_>) -> Step {
        match (self.stage, answer) {
            (SetAllStage::Looking, Answer::Done { outcomes, .. }) => self.on_look(&outcomes, flow),
            (SetAllStage::Writing, Answer::Done { write, .. }) => {
                flow.wrote(write);
                flow.turn.integer(1);
                Step::Ended
            }
            (SetAllStage::Writing, Answer::Failed(TaskError::Aborted))
                if self.attempts < OPTIMISTIC_ATTEMPTS_MAX =>
            {
                self.start(flow)
            }
            (_, failed) => end_with_failure(&failed, flow),
        }
    }

    fn on_look(&mut self, outcomes: &[Outcome], flow: &mut Flow<'_>) -> Step {
        let mut watches = Vec::with_capacity(outcomes.len());
        for ((row, _), outcome) in self.ops.iter().zip(outcomes) {
            match outcome {
                Outcome::Read { found: None, digest } => watches.push((row.clone(), *digest)),
                _ => {
                    flow.turn.integer(0);
                    return Step::Ended;
                }
            }
        }
        self.stage = SetAllStage::Writing;
        let ops = self.ops.clone();
        flow.submit(Request::Task(Task { ops, watches, atomic: true, ..self.task(flow) }));
        Step::Waits
    }
}
