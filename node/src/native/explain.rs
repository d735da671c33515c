//! Explain: what a failed request is to a native client: what, why, fix.

use replication::op::{OpError, TaskError};
use ring::NodeId;
use wire::{ClientReply, ErrorCode, ErrorReply};

use crate::shared::Shared;

/// The request makes no sense.
pub(super) fn invalid(why: &str) -> ClientReply {
    ClientReply::Error(ErrorReply {
        code: ErrorCode::Invalid,
        what: "the request makes no sense to this node".to_owned(),
        why: why.to_owned(),
        fix: "check the versions of client and node".to_owned(),
    })
}

/// It is understood, and asks for what there is not.
pub(super) fn senseless(why: &str) -> ClientReply {
    ClientReply::Error(ErrorReply {
        code: ErrorCode::Invalid,
        what: "this cannot be asked for".to_owned(),
        why: why.to_owned(),
        fix: "ask for something else: the line above says what there is".to_owned(),
    })
}

/// One thing could not be done to the key as it is; nothing was changed.
pub(super) fn refused(error: OpError) -> ClientReply {
    let (why, fix) = match error {
        OpError::NotAnInteger => ("its value is not a 64-bit integer", "use another key"),
        OpError::NotAFloat => ("its value is not a decimal number", "use another key"),
        OpError::Overflow => ("the sum would leave the range of 64 bits", "add less, or reset it"),
        OpError::NotFinite => ("the sum has more digits than are kept", "add less, or reset it"),
        OpError::TooLarge => ("the value is longer than a record may be", "store smaller values"),
        OpError::BadContext => {
            ("the context is none that a read gave", "pass the context of a read unchanged")
        }
        OpError::TooManySiblings => (
            "the key has 128 concurrent values, as many as are kept; nothing was written",
            "read them, and write one back with the context of that read (ringctl key resolve)",
        ),
    };
    ClientReply::Error(ErrorReply {
        code: ErrorCode::Invalid,
        what: "this cannot be done to the key".to_owned(),
        why: why.to_owned(),
        fix: fix.to_owned(),
    })
}

/// Why a task failed.
pub(super) fn explain(shared: &Shared, error: TaskError) -> ErrorReply {
    let layout = shared.layout();
    let names = |nodes: &[NodeId]| {
        let name = |node: &NodeId| {
            layout.member(*node).map_or_else(|| node.to_string(), |m| m.name.clone())
        };
        nodes.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    let say = |code, what: &str, why: String, fix: &str| ErrorReply {
        code,
        what: what.to_owned(),
        why,
        fix: fix.to_owned(),
    };
    match error {
        TaskError::Unavailable { level, needed, copies, alive, missing } => say(
            ErrorCode::Unavailable { needed, alive },
            "too few replicas are up; nothing was written",
            format!("{level} needs {needed} of {copies}, {alive} up; down: {}", names(&missing)),
            "bring one back, or ask at a lower level",
        ),
        TaskError::Unconfirmed { level, needed, copies, acked, missing } => say(
            ErrorCode::Unconfirmed { acked, needed },
            "too few replicas confirmed the write in time; it may survive",
            format!(
                "{level} needs {needed} of {copies}, {acked} came; silent: {}",
                names(&missing)
            ),
            "read it back, or retry",
        ),
        TaskError::Overloaded { retry_after_ms } => say(
            ErrorCode::Overloaded { retry_after_ms },
            "too much is in flight; nothing was done",
            "this node sheds load".to_owned(),
            "retry later, or on another node",
        ),
        TaskError::NotReady => say(
            ErrorCode::NotReady,
            "this node does not serve",
            "it is starting, catching up or stopping".to_owned(),
            "ask another node",
        ),
        TaskError::Behind { missing } => say(
            ErrorCode::Behind,
            "the replicas that are up lack what this session has seen; nothing was done",
            format!(
                "they were waited for as long as the request may take; silent: {}",
                names(&missing)
            ),
            "retry, bring the others back, or ask outside of the session",
        ),
        TaskError::Aborted => say(
            ErrorCode::Conflict,
            "the key has changed; nothing was done",
            "a condition of the request does not hold".to_owned(),
            "read it again and retry",
        ),
        TaskError::ClockSkew => say(
            ErrorCode::NotReady,
            "this node's clock is too far from the cluster's",
            "it may not coordinate writes".to_owned(),
            "set its clock; ask another node",
        ),
        TaskError::NoSpace => say(
            ErrorCode::NotReady,
            "no space left on this node's disk; nothing was written",
            "it is full, or nearly".to_owned(),
            "make room there, then writes go on by themselves; or ask another node",
        ),
        TaskError::BadLevel(why) | TaskError::Invalid(why) => {
            say(ErrorCode::Invalid, "the request cannot be served", why, "change the request")
        }
        TaskError::Storage(why) => say(
            ErrorCode::Internal,
            "this node's disk failed",
            why,
            "look at the node's log; ask another node",
        ),
    }
}
