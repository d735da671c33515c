//! What the native client and `ringctl` may hear.
//!
//! An error says whether the request may have taken effect, and what to do next: the three that a
//! program must tell apart are [`ErrorCode::Unavailable`], [`ErrorCode::Unconfirmed`] and
//! [`ErrorCode::Overloaded`]; the text is for people, in `ringctl`'s three lines.

use core::fmt;

use bytes::Bytes;
use ring::Layout;
use serde::{Deserialize, Serialize};

use crate::admin::ClusterStatus;
use crate::operate::AdminReply;

/// A reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientReply {
    /// What a key holds.
    Value {
        /// The values: none if the key is absent, several if they were written concurrently.
        values: Vec<Bytes>,
        /// What was seen, to be given with the write that replaces it. Opaque.
        context: Bytes,
    },
    /// What one replica holds of a key: its share of a read that the client gathers.
    Share {
        /// The digest of its record: equal if and only if another replica holds the same.
        digest: (u64, u64),
        /// What that is, if it was asked for.
        #[serde(default)]
        held: Option<Held>,
    },
    /// The write is held at the level asked for.
    Done {
        /// What is seen now, the write included. Opaque.
        #[serde(default)]
        context: Bytes,
    },
    /// What several keys hold, in the order in which they were asked for.
    Values {
        /// One for each key.
        keys: Vec<Held>,
    },
    /// A page of a range, in the order that was asked for.
    Page {
        /// Sort keys that have a value.
        rows: Vec<PageRow>,
        /// Where the next page begins, or before which it ends if the range is read backward; none
        /// if there is no more.
        #[serde(default)]
        next: Option<Bytes>,
        /// What is seen now; empty if the request did not say what must have been. Opaque.
        #[serde(default)]
        context: Bytes,
    },
    /// A page of a range is removed.
    Deleted {
        /// How many of its sort keys had a value.
        count: u64,
        /// As in `Page`.
        #[serde(default)]
        next: Option<Bytes>,
        /// As in `Page`, the removal included.
        #[serde(default)]
        context: Bytes,
    },
    /// A counter's value, what was added included.
    Number {
        /// The value.
        value: i64,
        /// What is seen now, the addition included. Opaque.
        #[serde(default)]
        context: Bytes,
    },
    /// Which node holds which slot.
    Layout {
        /// The layout that the asked node has in force.
        layout: Box<Layout>,
        /// The members that it takes to be down.
        #[serde(default)]
        down: Vec<u32>,
    },
    /// The cluster.
    Status(ClusterStatus),
    /// Who holds a key.
    Owners {
        /// Its slot.
        slot: u16,
        /// The nodes that hold it, the preferred coordinator first.
        nodes: Vec<Owner>,
    },
    /// Nothing was asked.
    Pong,
    /// To an administrator.
    Admin(AdminReply),
    /// It did not work.
    Error(ErrorReply),
}

/// What one of several keys holds, or why that is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// As in [`ClientReply::Value`].
    Value {
        /// The values.
        values: Vec<Bytes>,
        /// What was seen.
        context: Bytes,
    },
    /// This key could not be read; others may have been.
    Error(ErrorReply),
}

/// A row of a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRow {
    /// The sort key.
    pub sort: Bytes,
    /// Its values: several if they were written concurrently.
    pub values: Vec<Bytes>,
    /// What was seen, to be given with the write that replaces it. Opaque.
    pub context: Bytes,
}

/// A node that holds a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its number in the layout.
    pub id: u32,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Where other nodes and native clients reach it: `host:port`.
    #[serde(default)]
    pub address: String,
    /// Its zone.
    #[serde(default)]
    pub zone: String,
    /// Whether the asked node takes it to be up.
    #[serde(default)]
    pub up: bool,
}

/// Why it did not work, for a program and for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// For the program.
    pub code: ErrorCode,
    /// What did not work.
    #[serde(default)]
    pub what: String,
    /// Why.
    #[serde(default)]
    pub why: String,
    /// What to do about it.
    #[serde(default)]
    pub fix: String,
}

/// What the program must do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Nothing was sent. Safe to retry anywhere.
    Unavailable {
        /// How many replicas the level needs.
        needed: u8,
        /// How many are up.
        alive: u8,
    },
    /// It may survive. Retry under the same request id, or read.
    Unconfirmed {
        /// How many replicas hold it for certain.
        acked: u8,
        /// How many the level needs.
        needed: u8,
    },
    /// Refused before anything was sent. Retry, later.
    Overloaded {
        /// How much later, in milliseconds.
        retry_after_ms: u32,
    },
    /// The node is starting, stopping, or not yet a member. Retry elsewhere.
    NotReady,
    /// The replicas that are up lack what the client has seen. Nothing was done. Retry, or give up
    /// what was seen.
    Behind,
    /// A condition of the request does not hold.
    Conflict,
    /// The request makes no sense to this node. Do not retry it.
    Invalid,
    /// The client may not do this.
    Unauthorised,
    /// The node's own fault; see its log.
    Internal,
}

impl ErrorCode {
    /// The word that a Redis client reads first.
    #[must_use]
    pub const fn resp_code(self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "UNAVAILABLE",
            Self::Unconfirmed { .. } => "UNCONFIRMED",
            Self::Overloaded { .. } => "OVERLOADED",
            Self::NotReady | Self::Behind => "LOADING",
            Self::Unauthorised => "NOPERM",
            Self::Conflict | Self::Invalid | Self::Internal => "ERR",
        }
    }
}

impl fmt::Display for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if !self.why.is_empty() {
            write!(f, "\n  why: {}", self.why)?;
        }
        if !self.fix.is_empty() {
            write!(f, "\n  fix: {}", self.fix)?;
        }
        Ok(())
    }
}

impl std::error::Error for ErrorReply {}
