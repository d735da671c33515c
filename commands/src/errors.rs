//! Errors: what a client hears when a command cannot be done, in Redis's own words where it has any.
//!
//! Clients match on these texts, so they are kept in one place. An error that Redis does not know
//! says what, why and what to do, in one line.

use core::fmt::{self, Write as _};

use replication::TaskError;
use replication::op::OpError;
use ring::NodeId;
use wire::resp::encode;

use crate::host::Host;

/// Why a command is refused. `Display` is the line that the client reads, code first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The options do not fit together.
    Syntax,
    /// The command takes another number of arguments.
    Arity {
        /// The command in lower case, `container|sub` for a subcommand.
        command: String,
    },
    /// No such command.
    UnknownCommand {
        /// As it was sent.
        name: Vec<u8>,
        /// The arguments, quoted.
        echoed: String,
    },
    /// No such subcommand.
    UnknownSubcommand {
        /// The container in upper case.
        container: &'static str,
        /// As it was sent.
        name: Vec<u8>,
    },
    /// A number is none.
    NotInteger,
    /// A number is no decimal number.
    NotFloat,
    /// DECRBY by the one number that has no negative.
    DecrementOverflow,
    /// An expiry is not positive, or beyond any clock.
    InvalidExpire {
        /// The command in lower case.
        command: &'static str,
    },
    /// A negative offset.
    OffsetRange,
    /// The value would be too long.
    TooLong,
    /// The key is longer than a record can hold.
    KeyTooLong,
    /// Options of EXPIRE that exclude each other: NX.
    ExpireNxWithOthers,
    /// Options of EXPIRE that exclude each other: GT and LT.
    ExpireGtWithLt,
    /// An option that does not exist.
    UnsupportedOption {
        /// As it was sent.
        option: Vec<u8>,
    },
    /// The client has not said who it is.
    NoAuth,
    /// Too much is asked of this node. Nothing was done.
    Overloaded {
        /// When to come back.
        retry_after_ms: u32,
    },
    /// A context that cannot be used.
    BadContext {
        /// Why.
        why: &'static str,
        /// What to do.
        fix: &'static str,
    },
    /// The keys lie in several slots and the command, or the configuration, wants one.
    CrossSlot {
        /// What was asked.
        what: &'static str,
        /// What to do.
        fix: &'static str,
    },
    /// Any other, the whole line.
    Line(String),
    /// Any other, the whole line.
    Fixed(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax => f.write_str("ERR syntax error"),
            Self::Arity { command } => {
                write!(f, "ERR wrong number of arguments for '{command}' command")
            }
            Self::UnknownCommand { name, echoed } => write!(
                f,
                "ERR unknown command '{}', with args beginning with: {echoed}",
                String::from_utf8_lossy(&name[..name.len().min(128)])
            ),
            Self::UnknownSubcommand { container, name } => write!(
                f,
                "ERR unknown subcommand '{}'. Try {container} HELP.",
                String::from_utf8_lossy(&name[..name.len().min(128)])
            ),
            Self::NotInteger => f.write_str("ERR value is not an integer or out of range"),
            Self::NotFloat => f.write_str("ERR value is not a valid float"),
            Self::DecrementOverflow => f.write_str("ERR decrement would overflow"),
            Self::InvalidExpire { command } => {
                write!(f, "ERR invalid expire time in '{command}' command")
            }
            Self::OffsetRange => f.write_str("ERR offset is out of range"),
            Self::TooLong => {
                f.write_str("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
            }
            Self::KeyTooLong => write!(
                f,
                "ERR key is too long: a key has at most {} bytes here. fix: use a shorter key, for \
                 instance a hash of it",
                wire::limits::KEY_BYTES_MAX
            ),
            Self::ExpireNxWithOthers => {
                f.write_str("ERR NX and XX, GT or LT options at the same time are not compatible")
            }
            Self::ExpireGtWithLt => {
                f.write_str("ERR GT and LT options at the same time are not compatible")
            }
            Self::UnsupportedOption { option } => {
                write!(f, "ERR Unsupported option {}", String::from_utf8_lossy(option))
            }
            Self::NoAuth => f.write_str("NOAUTH Authentication required."),
            Self::Overloaded { retry_after_ms } => write!(
                f,
                "OVERLOADED retry_after_ms={retry_after_ms} too much is in flight here. Nothing was \
                 done. fix: wait that long and retry, here or on another node"
            ),
            Self::BadContext { why, fix } => write!(f, "ERR context {why}. fix: {fix}"),
            Self::CrossSlot { what, fix } => {
                write!(f, "CROSSSLOT {what} has keys in several slots. fix: {fix}")
            }
            Self::Line(line) => f.write_str(line),
            Self::Fixed(line) => f.write_str(line),
        }
    }
}

impl std::error::Error for Fault {}

/// The line for an op that failed by itself.
#[must_use]
pub(crate) const fn of_op(error: OpError) -> &'static str {
    match error {
        OpError::NotAnInteger => "ERR value is not an integer or out of range",
        OpError::NotAFloat => "ERR value is not a valid float",
        OpError::Overflow => "ERR increment or decrement would overflow",
        OpError::NotFinite => "ERR increment would produce NaN or Infinity",
        OpError::TooLarge => "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
        OpError::BadContext => {
            "ERR context is not one of this cluster's. fix: read the key again with RING.GET key \
             WITHCTX and use the context that comes with it"
        }
        OpError::TooManySiblings => {
            "ERR the key has 128 siblings, as many concurrent values as are kept; nothing was written. \
             fix: read them with RING.SIBLINGS and write one back with RING.RESOLVE key context value"
        }
    }
}

/// The line for a task that was not done, or may not have been.
#[must_use]
pub(crate) fn of_task(error: &TaskError, host: &dyn Host) -> String {
    match error {
        TaskError::Unavailable { level, needed, copies, alive, missing } => {
            let verb = if *alive == 1 { "is" } else { "are" };
            let down = named(missing, host, |names| format!(" ({names} down)"));
            format!(
                "UNAVAILABLE {level} needs {needed} of {copies} replicas, {alive} {verb} up{down}. \
                 Nothing was written. fix: bring one back, or ask with WITH ONE"
            )
        }
        TaskError::Unconfirmed { level, needed, copies, acked, missing } => {
            let silent = named(missing, host, |names| format!(" (no answer: {names})"));
            format!(
                "UNCONFIRMED {level} needs {needed} of {copies} acks, {acked} came in time{silent}. \
                 The write may survive. fix: read it back or retry"
            )
        }
        TaskError::Overloaded { retry_after_ms } => {
            Fault::Overloaded { retry_after_ms: *retry_after_ms }.to_string()
        }
        TaskError::NotReady => LOADING.to_owned(),
        TaskError::BadLevel(why) => format!("ERR {why}"),
        TaskError::Behind { missing } => {
            let silent = named(missing, host, |names| format!(" ({names} silent)"));
            format!(
                "UNAVAILABLE the replicas that are up lack what was seen{silent}. Nothing was done. \
                 fix: retry, or bring the others back"
            )
        }
        TaskError::Aborted => {
            "ERR a watched key has changed. Nothing was done. fix: read it again and retry".to_owned()
        }
        TaskError::ClockSkew => {
            "UNAVAILABLE this node's clock is too far from the cluster's to coordinate. Nothing was \
             done. fix: ask another node, and set this node's clock"
                .to_owned()
        }
        TaskError::NoSpace => "UNAVAILABLE no space left on this node's disk. Nothing was written. fix: make room \
             there, then writes go on by themselves; or ask another node"
            .to_owned(),
        TaskError::Storage(why) => format!(
            "UNCONFIRMED this node's disk failed: {why}. The write may survive elsewhere. fix: ask \
             another node, and look at this node's log"
        ),
        TaskError::Invalid(why) => format!("ERR invalid request: {why}"),
    }
}

/// Whether a task that failed with this may have been done.
pub(crate) const fn is_in_doubt(error: &TaskError) -> bool {
    matches!(error, TaskError::Unconfirmed { .. } | TaskError::Storage(_))
}

/// The line for a command over several slots of which some were written and this one was not.
#[must_use]
pub(crate) fn in_part(line: &str) -> String {
    let why = line.split_once(". ").map_or(line, |(why, _)| why);
    format!(
        "UNCONFIRMED some slots were written, others were not: {why}. What was written stays. fix: \
         read the keys back or retry"
    )
}

/// The line of an overloaded node, at its usual time to come back: most often no text has to be made.
macro_rules! overloaded {
    () => {
        "OVERLOADED retry_after_ms=100 too much is in flight here. Nothing was done. fix: wait that long \
         and retry, here or on another node"
    };
}

/// That line as a whole reply: while there is too much to do, nothing is made for a refusal.
const OVERLOADED: &[u8] = concat!("-", overloaded!(), "\r\n").as_bytes();

/// Adds the reply of an overloaded node.
pub(crate) fn write_overloaded(reply: &mut Vec<u8>, retry_after_ms: u32) {
    if retry_after_ms == 100 {
        reply.extend_from_slice(OVERLOADED);
    } else {
        encode::write_error(reply, &Fault::Overloaded { retry_after_ms }.to_string());
    }
}

/// What a node says that may not serve yet.
pub(crate) const LOADING: &str = "LOADING RingDB is fetching what it missed from its peers";

fn named(nodes: &[NodeId], host: &dyn Host, text: impl Fn(&str) -> String) -> String {
    let mut names = String::new();
    for node in nodes {
        let comma = if names.is_empty() { "" } else { ", " };
        write!(names, "{comma}{}", host.node_name(*node)).expect("a string takes any text");
    }
    if names.is_empty() { names } else { text(&names) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_is_ready_reads_as_one_that_is_made() {
        let (mut ready, mut made) = (Vec::new(), Vec::new());
        write_overloaded(&mut ready, 100);
        encode::write_error(&mut made, &Fault::Overloaded { retry_after_ms: 100 }.to_string());
        assert_eq!(ready, made);
        write_overloaded(&mut ready, 250);
        assert!(String::from_utf8_lossy(&ready).ends_with("on another node\r\n"));
    }
}
