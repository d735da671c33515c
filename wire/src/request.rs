//! What the native client and `ringctl` may ask.
//!
//! A request is a frame of kind [`CLIENT_REQUEST`](crate::Kind::CLIENT_REQUEST); its deadline and
//! its request id stand in the frame's header. It borrows from the bytes that it was read from.
//! Fields may be added with a default; a variant that a node does not know is answered with
//! [`ErrorCode::Invalid`](crate::ErrorCode::Invalid).

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::operate::AdminRequest;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientRequest<'a> {
    /// The values of a key: none, one, or concurrent ones. Answered with `Value`.
    Get {
        /// The key.
        #[serde(borrow, with = "serde_bytes")]
        key: &'a [u8],
        /// How many replicas must agree; the keyspace's default if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        level: Option<Level>,
        /// What must have been seen: contexts of earlier replies about keys of this slot. The answer's
        /// context has seen all of it. What is there is enough if absent.
        #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
        after: Vec<&'a serde_bytes::Bytes>,
    },
    /// One replica's share of a `Get` that the client gathers: as many replicas as the level needs are
    /// asked at once, and if all hold the same, that is the answer. Answered with `Share`; or with an error, which
    /// always means: ask with `Get`.
    Share {
        /// The key.
        #[serde(borrow, with = "serde_bytes")]
        key: &'a [u8],
        /// As in `Get`. Levels that say where replicas are have no shares.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        level: Option<Level>,
        /// How many replicas are asked: exactly as many as the level needs.
        of: u8,
        /// The epoch of the layout by which they were chosen.
        epoch: u64,
        /// Whether what the replica holds is wanted, and not only its digest.
        #[serde(default)]
        whole: bool,
        /// As in `Get`.
        #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
        after: Vec<&'a serde_bytes::Bytes>,
    },
    /// Replaces what the context has seen. Answered with `Done`.
    Put {
        /// The key.
        #[serde(borrow, with = "serde_bytes")]
        key: &'a [u8],
        /// The value.
        #[serde(borrow, with = "serde_bytes")]
        value: &'a [u8],
        /// What the writer has read, as an earlier reply gave it; what the coordinator holds if
        /// absent.
        #[serde(borrow, default, with = "serde_bytes", skip_serializing_if = "Option::is_none")]
        context: Option<&'a [u8]>,
        /// How many replicas must hold it; the keyspace's default if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        level: Option<Level>,
        /// What a replica's acknowledgement survives; the keyspace's default if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        durability: Option<Durability>,
        /// Expires so many milliseconds from now; never if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_ms: Option<u64>,
        /// What must have been seen: contexts of earlier replies about keys of this slot. The answer's
        /// context has seen all of it. What is there is enough if absent.
        #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
        after: Vec<&'a serde_bytes::Bytes>,
        /// Its name, so that it is done once however often it is sent; it has none if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<Name>,
    },
    /// Removes what the context has seen; a concurrent write survives. Answered with `Done`.
    Delete {
        /// The key.
        #[serde(borrow, with = "serde_bytes")]
        key: &'a [u8],
        /// As in `Put`.
        #[serde(borrow, default, with = "serde_bytes", skip_serializing_if = "Option::is_none")]
        context: Option<&'a [u8]>,
        /// As in `Put`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        level: Option<Level>,
        /// As in `Put`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        durability: Option<Durability>,
        /// What must have been seen: contexts of earlier replies about keys of this slot. The answer's
        /// context has seen all of it. What is there is enough if absent.
        #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
        after: Vec<&'a serde_bytes::Bytes>,
        /// Its name, so that it is done once however often it is sent; it has none if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<Name>,
    },
    /// The values of several keys, read in one go: each key as `Get` would. Answered with `Values`,
    /// in the order of the keys.
    GetMany {
        /// The keys; at most [`KEYS_MAX`](crate::limits::KEYS_MAX).
        #[serde(borrow)]
        keys: Vec<&'a serde_bytes::Bytes>,
        /// As in `Get`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        level: Option<Level>,
        /// What must have been seen: contexts of earlier replies, each with the slot of the keys that
        /// it was about. The contexts in the answer have seen all of it. What is there is enough if
        /// absent.
        #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
        after: Vec<(u16, &'a serde_bytes::Bytes)>,
    },
    /// A page of the sort keys of a partition key, in their order, each as `Get` would read it.
    /// Answered with `Page`.
    Range {
        /// The partition key: what stands between the braces of its keys.
        #[serde(borrow, with = "serde_bytes")]
        partition: &'a [u8],
        /// The least sort key; from the first one if absent.
        #[serde(borrow, default, with = "serde_bytes", skip_serializing_if = "Option::is_none")]
        from: Option<&'a [u8]>,
        /// The sort key before which it ends; behind the last one if absent.
        #[serde(borrow, default, with = "serde_bytes", skip_serializing_if = "Option::is_none")]
        to: Option<&'a [u8]>,
        /// From the end to the start.
        #[serde(default)]
        reverse: bool,
        /// A page ends before a replica has read more rows than this; the node has its own bound.
        rows: u32,
        /// As in `Get`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        level: Option<Level>,
        /// As in `Get`.
        #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
        after: Vec<&'a serde_bytes::Bytes>,
    },
    /// Removes what a quorum knows in a page of sort keys; what is written meanwhile survives.
    /// Answered with `Deleted`.
    DeleteRange {
        /// As in `Range`.
        #[serde(borrow, with = "serde_bytes")]
        partition: &'a [u8],
        /// As in `Range`.
        #[serde(borrow, default, with = "serde_bytes", skip_serializing_if = "Option::is_none")]
        from: Option<&'a [u8]>,
        /// As in `Range`.
        #[serde(borrow, default, with = "serde_bytes", skip_serializing_if = "Option::is_none")]
        to: Option<&'a [u8]>,
        /// As in `Range`.
        rows: u32,
        /// As in `Put`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        level: Option<Level>,
        /// As in `Put`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        durability: Option<Durability>,
        /// As in `Get`.
        #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
        after: Vec<&'a serde_bytes::Bytes>,
        /// Its name, so that it is done once however often it is sent; it has none if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<Name>,
    },
    /// Adds to a counter. Without a name it is not to be repeated: a second one counts twice.
    /// Answered with `Number`.
    Add {
        /// The key.
        #[serde(borrow, with = "serde_bytes")]
        key: &'a [u8],
        /// What to add.
        by: i64,
        /// As in `Put`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        level: Option<Level>,
        /// As in `Put`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        durability: Option<Durability>,
        /// What must have been seen: contexts of earlier replies about keys of this slot. The answer's
        /// context has seen all of it. What is there is enough if absent.
        #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
        after: Vec<&'a serde_bytes::Bytes>,
        /// Its name, so that it is done once however often it is sent; it has none if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<Name>,
    },
    /// A request about keys, in a database other than 0. Answered as that request is. A variant and not a
    /// field, so that a node which knows of no databases refuses it instead of serving database 0.
    In {
        /// The database.
        keyspace: u16,
        /// The request, which is none of this kind.
        #[serde(borrow)]
        request: Box<Self>,
    },
    /// Whoever asked for this request of the same connection does not want to know any more. A write
    /// that was minted goes on; all else stops. Not answered.
    Cancel {
        /// The request id of that request.
        request_id: u64,
    },
    /// Which node holds which slot. Answered with `Layout`.
    Layout,
    /// The cluster as the asked node sees it. Answered with `Status`.
    Status,
    /// Who holds a key. Answered with `Owners`.
    Owners {
        /// The key.
        #[serde(borrow, with = "serde_bytes")]
        key: &'a [u8],
    },
    /// Nothing. Answered with `Pong`.
    Ping,
    /// What only administrators may ask. Answered with `Admin`.
    Admin(AdminRequest),
}

impl ClientRequest<'_> {
    /// Its name, if it is a write and has one.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        match self {
            Self::Put { name, .. }
            | Self::Delete { name, .. }
            | Self::DeleteRange { name, .. }
            | Self::Add { name, .. } => name.as_ref(),
            Self::In { request, .. } => request.name(),
            _ => None,
        }
    }

    /// Whether it is about keys of a database, which [`ClientRequest::In`] may name.
    #[must_use]
    pub const fn is_about_keys(&self) -> bool {
        match self {
            Self::Get { .. }
            | Self::Share { .. }
            | Self::Put { .. }
            | Self::Delete { .. }
            | Self::GetMany { .. }
            | Self::Range { .. }
            | Self::DeleteRange { .. }
            | Self::Add { .. } => true,
            Self::In { .. }
            | Self::Cancel { .. }
            | Self::Layout
            | Self::Status
            | Self::Owners { .. }
            | Self::Ping
            | Self::Admin(_) => false,
        }
    }
}

/// The name of a request: the same whenever it is sent again.
///
/// Only the process that it was first sent to may carry it out; any other, that process's successor
/// too, can only say that it was done. The time is an interval, since clocks differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// Who asks: a number that a client chooses by chance when it starts.
    pub client: u64,
    /// Its number there; never given twice.
    pub n: u64,
    /// How long ago it was first sent, in milliseconds.
    #[serde(default)]
    pub age_ms: u64,
    /// The process that it was first sent to: the boot number in that one's hello.
    pub first_asked: u64,
    /// Whether the client hears the replicas' acknowledgements itself ([`Ack`](crate::Ack)), and need not hear the
    /// coordinator if they come.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub direct: bool,
}

/// How many replicas must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// One replica.
    One,
    /// Two replicas.
    Two,
    /// Three replicas.
    Three,
    /// More than half of the replicas.
    Quorum,
    /// Every replica.
    All,
    /// One replica in the asked node's region.
    LocalOne,
    /// More than half of the replicas in the asked node's region.
    LocalQuorum,
    /// More than half of the replicas in each region.
    EachQuorum,
    /// Any node at all, for writes.
    Any,
    /// Agreed upon by a ballot.
    Serial,
    /// Agreed upon by a ballot in the asked node's region.
    LocalSerial,
    /// So many replicas.
    Count(u8),
}

impl Level {
    /// Every level with a name, beside its name in upper case.
    const NAMED: [(&'static str, Self); 11] = [
        ("ONE", Self::One),
        ("TWO", Self::Two),
        ("THREE", Self::Three),
        ("QUORUM", Self::Quorum),
        ("ALL", Self::All),
        ("LOCAL_ONE", Self::LocalOne),
        ("LOCAL_QUORUM", Self::LocalQuorum),
        ("EACH_QUORUM", Self::EachQuorum),
        ("ANY", Self::Any),
        ("SERIAL", Self::Serial),
        ("LOCAL_SERIAL", Self::LocalSerial),
    ];

    /// The level of this name, in any case, or of this number (at least 1).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(count) = text.parse::<u8>() {
            return (count > 0).then_some(Self::Count(count));
        }
        Self::NAMED
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text))
            .map(|(_, level)| *level)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Count(count) = self {
            return write!(f, "{count}");
        }
        let named = Self::NAMED.iter().find(|(_, level)| level == self);
        f.write_str(named.expect("every level but a count has a name").0)
    }
}

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The death of the process: the operating system holds it.
    #[default]
    Os,
    /// The loss of power: the disk holds it.
    Sync,
}
