//! Job: what a command does once it runs.
//!
//! A job is started once and hears the answer to every request that it submits; it has ended when it
//! says so, and has written exactly one reply by then.

use replication::Answer;

use crate::errors;
use crate::ops::OpsJob;
use crate::scan::{KeysJob, ScanJob};
use crate::strings::SetAllJob;
use crate::transactions::{ExecJob, WatchJob};
use crate::turn::Flow;
use crate::whole::{CountJob, FlushJob, WaitJob};
use wire::resp::encode;

/// Whether a job goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Step {
    /// It waits for answers.
    Waits,
    /// It has written its reply.
    Ended,
}

/// A command that needs the peer.
#[derive(Debug)]
pub(crate) enum Job {
    Ops(OpsJob),
    Exec(Box<ExecJob>),
    Watch(Box<WatchJob>),
    SetAll(Box<SetAllJob>),
    Scan(Box<ScanJob>),
    Keys(Box<KeysJob>),
    Count(Box<CountJob>),
    Flush(Box<FlushJob>),
    Wait(Box<WaitJob>),
}

impl Job {
    pub(crate) fn start(&mut self, flow: &mut Flow<'_>) -> Step {
        match self {
            Self::Ops(job) => job.start(flow),
            Self::Exec(job) => job.start(flow),
            Self::Watch(job) => job.start(flow),
            Self::SetAll(job) => job.start(flow),
            Self::Scan(job) => job.start(flow),
            Self::Keys(job) => job.start(flow),
            Self::Count(job) => job.start(flow),
            Self::Flush(job) => job.start(flow),
            Self::Wait(job) => job.start(flow),
        }
    }

    /// `part` is the number that submitting the request returned.
    pub(crate) fn on_answer(&mut self, part: u32, answer: Answer, flow: &mut Flow<'_>) -> Step {
        match self {
            Self::Ops(job) => job.on_answer(part, answer, flow),
            Self::Exec(job) => job.on_answer(part, answer, flow),
            Self::Watch(job) => job.on_answer(part, answer, flow),
            Self::SetAll(job) => job.on_answer(part, answer, flow),
            Self::Scan(job) => job.on_answer(part, answer, flow),
            Self::Keys(job) => job.on_answer(part, answer, flow),
            Self::Count(job) => job.on_answer(part, answer, flow),
            Self::Flush(job) => job.on_answer(part, answer, flow),
            Self::Wait(job) => job.on_answer(part, answer, flow),
        }
    }
}

/// What a failed answer, or one of the wrong kind, is to a client.
pub(crate) fn line_of_failure(answer: &Answer, flow: &Flow<'_>) -> String {
    match answer {
        Answer::Failed(error) => errors::of_task(error, &*flow.turn.host),
        Answer::Done { .. }
        | Answer::Keys { .. }
        | Answer::Count(_)
        | Answer::Page { .. }
        | Answer::Deleted { .. }
        | Answer::Acks(_)
        | Answer::Confirmed
        | Answer::Share { .. } => {
            "ERR the replica answered another question. fix: upgrade all nodes to one version"
                .to_owned()
        }
    }
}

/// Ends a job with the error of a failed answer.
pub(crate) fn end_with_failure(answer: &Answer, flow: &mut Flow<'_>) -> Step {
    let line = line_of_failure(answer, flow);
    encode::write_error(flow.turn.reply, &line);
    Step::Ended
}
