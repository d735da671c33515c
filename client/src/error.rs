//! What can go wrong, and what to do next: one variant for each thing that a program must do.
//!
//! Promise: a variant tells whether the request may have taken effect. Shown, each error has three
//! lines: what, why, fix.

use core::fmt;
use core::time::Duration;

use wire::{ErrorCode, ErrorReply};

/// Why a request did not work.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientError {
    /// Too few replicas are up; nothing was written. Safe to retry, also elsewhere.
    Unavailable {
        /// How many replicas the level needs.
        needed: u8,
        /// How many are up.
        alive: u8,
        /// The node's own words.
        told: Told,
    },
    /// Too few replicas answered in time; a write may survive. Read, or write again.
    Unconfirmed {
        /// How many replicas hold it for certain.
        acked: u8,
        /// How many the level needs.
        needed: u8,
        /// The node's own words.
        told: Told,
    },
    /// Refused before anything was done. Retry after a pause.
    Overloaded {
        /// How long a pause.
        retry_after: Duration,
        /// The node's own words.
        told: Told,
    },
    /// Every node that could be reached starts, stops, or is no member yet; nothing was done.
    NotReady {
        /// The words of the last one.
        told: Told,
    },
    /// The replicas that are up lack what the request's session has seen; nothing was done. Retry, or
    /// ask outside of the session.
    Behind {
        /// The node's own words.
        told: Told,
    },
    /// A condition of the request does not hold; nothing was done.
    Conflict {
        /// The node's own words.
        told: Told,
    },
    /// The request makes no sense. Do not retry it.
    Invalid {
        /// The node's own words, or ours.
        told: Told,
    },
    /// The certificate does not allow it, or is not of this cluster. Nothing was done.
    Unauthorised {
        /// The node's own words, or ours.
        told: Told,
    },
    /// The node's own fault; a write may have taken effect. Its log says more.
    Internal {
        /// The node's own words.
        told: Told,
    },
    /// No address answers; nothing was sent.
    Unreachable {
        /// What was tried, in order.
        attempts: Vec<Attempt>,
    },
    /// No answer in the time given; a write may have taken effect. Repeated under its
    /// [`Name`](crate::Name), it is done once.
    TimedOut {
        /// The time given.
        after: Duration,
    },
    /// The connection ended before the answer came, and no other node could tell what became of the
    /// write: it may have taken effect. Repeated under its [`Name`](crate::Name), it is done once.
    Interrupted {
        /// The node that was asked.
        address: String,
        /// How the connection ended.
        reason: String,
    },
}

/// An error in three lines, without the word "error".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What did not work.
    pub what: String,
    /// Why.
    pub why: String,
    /// What to do about it.
    pub fix: String,
}

/// An address that was tried in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The address as it was given.
    pub address: String,
    /// Why there is no connection to it.
    pub reason: String,
}

impl Told {
    /// Three lines.
    #[must_use]
    pub fn new(what: impl Into<String>, why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.into(), fix: fix.into() }
    }

    /// These words where they are, and those of `other` where they are missing.
    fn or(self, other: Self) -> Self {
        let pick = |own: String, other| if own.is_empty() { other } else { own };
        Self {
            what: pick(self.what, other.what),
            why: pick(self.why, other.why),
            fix: pick(self.fix, other.fix),
        }
    }
}

impl ClientError {
    /// Whether the request certainly had no effect, so that it may be sent again as it is.
    #[must_use]
    pub const fn had_no_effect(&self) -> bool {
        match self {
            Self::Unavailable { .. }
            | Self::Overloaded { .. }
            | Self::NotReady { .. }
            | Self::Behind { .. }
            | Self::Conflict { .. }
            | Self::Invalid { .. }
            | Self::Unauthorised { .. }
            | Self::Unreachable { .. } => true,
            Self::Unconfirmed { .. }
            | Self::Internal { .. }
            | Self::TimedOut { .. }
            | Self::Interrupted { .. } => false,
        }
    }

    /// What, why and fix: the node's words where it said any.
    #[must_use]
    pub fn told(&self) -> Told {
        match self {
            Self::Unavailable { needed, alive, told } => told.clone().or(Told::new(
                "too few replicas are up",
                format!("the level needs {needed}, {alive} are up; nothing was sent"),
                "retry, ask for a lower level, or bring a replica back",
            )),
            Self::Unconfirmed { acked, needed, told } => told.clone().or(Told::new(
                "too few replicas answered in time",
                format!("the level needs {needed}, {acked} answered; a write may still survive"),
                "read to see, or write again",
            )),
            Self::Overloaded { retry_after, told } => told.clone().or(Told::new(
                "the request was shed",
                "too much is under way",
                format!("retry in {} ms", retry_after.as_millis()),
            )),
            Self::NotReady { told } => told.clone().or(Told::new(
                "the node is not ready",
                "it starts, stops, or is no member yet",
                "retry, or ask another node",
            )),
            Self::Behind { told } => told.clone().or(Told::new(
                "the replicas that are up lack what this session has seen",
                "the one that has it is down or cut off; nothing was done",
                "retry, bring it back, or ask outside of the session",
            )),
            Self::Conflict { told } => told.clone().or(Told::new(
                "a condition of the request does not hold",
                "the key has changed",
                "read it again and decide anew",
            )),
            Self::Invalid { told } => told.clone().or(Told::new(
                "the request makes no sense to the node",
                "it asks for something that the node does not know",
                "compare the versions of client and node",
            )),
            Self::Unauthorised { told } => told.clone().or(Told::new(
                "the node refuses this client",
                "the role in its certificate does not allow what was asked",
                "use a certificate of another role",
            )),
            Self::Internal { told } => told.clone().or(Told::new(
                "the node failed",
                "a fault of its own",
                "look into the node's log",
            )),
            Self::Unreachable { attempts } => unreachable(attempts),
            Self::TimedOut { after } => Told::new(
                format!("no answer in {} ms", after.as_millis()),
                "the node, or the way to it, is slower than the time given; \
                 a write may have taken effect",
                "give more time; repeat a write under its name, or read to see",
            ),
            Self::Interrupted { address, reason } => Told::new(
                format!("the connection to {address} ended before the answer came"),
                format!("{reason}; a write may have taken effect"),
                "repeat it under its name within 20 s, or read to see",
            ),
        }
    }
}

fn unreachable(attempts: &[Attempt]) -> Told {
    let addresses: Vec<_> = attempts.iter().map(|a| a.address.as_str()).collect();
    // Addresses that fail alike are told of together.
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for attempt in attempts {
        match reasons.iter_mut().find(|(reason, _)| *reason == attempt.reason) {
            Some((_, whose)) => whose.push(&attempt.address),
            None => reasons.push((&attempt.reason, vec![&attempt.address])),
        }
    }
    let why = match &reasons[..] {
        [] => "no address was given".to_owned(),
        [(reason, _)] => (*reason).to_owned(),
        several => {
            let one =
                |(reason, whose): &(&str, Vec<&str>)| format!("{}: {reason}", whose.join(", "));
            several.iter().map(one).collect::<Vec<_>>().join("; ")
        }
    };
    let what = match attempts.len() {
        0 => "there is no node to ask".to_owned(),
        1 => format!("cannot reach a node at {}", addresses.join("")),
        _ => format!("cannot reach any node: tried {}", addresses.join(", ")),
    };
    Told::new(what, why, "start ringd there, or name a node that runs; QUIC needs UDP to pass")
}

impl From<ErrorReply> for ClientError {
    fn from(reply: ErrorReply) -> Self {
        let ErrorReply { code, what, why, fix } = reply;
        let told = Told { what, why, fix };
        match code {
            ErrorCode::Unavailable { needed, alive } => Self::Unavailable { needed, alive, told },
            ErrorCode::Unconfirmed { acked, needed } => Self::Unconfirmed { acked, needed, told },
            ErrorCode::Overloaded { retry_after_ms } => {
                let retry_after = Duration::from_millis(retry_after_ms.into());
                Self::Overloaded { retry_after, told }
            }
            ErrorCode::NotReady => Self::NotReady { told },
            ErrorCode::Behind => Self::Behind { told },
            ErrorCode::Conflict => Self::Conflict { told },
            ErrorCode::Invalid => Self::Invalid { told },
            ErrorCode::Unauthorised => Self::Unauthorised { told },
            ErrorCode::Internal => Self::Internal { told },
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, why, fix } = self;
        write!(f, "{what}\n  why: {why}\n  fix: {fix}")
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.told().fmt(f)
    }
}

impl std::error::Error for ClientError {}
