//! What a client may ask of one key, and what it may hear.
//!
//! A [`Task`] is a few [`Op`]s on keys of one slot; the coordinator answers with one [`Outcome`] an
//! op, or with one [`TaskError`] for the whole. Redis commands are translated into these by the
//! `commands` crate; the same types travel between nodes when a task is forwarded.

use bytes::Bytes;
use ring::keyspace::{Durability, Level};
use ring::{NodeId, Slot, WallMillis};
use serde::{Deserialize, Serialize};

use crate::record::Digest;
use crate::row::{Keyspace, Row};

/// When a key is to vanish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetExpiry {
    /// The key gets no expiry (plain SET).
    Clear,
    /// The key keeps the expiry that it has (KEEPTTL).
    Keep,
    /// At this moment (EX, PX, EXAT, PXAT).
    At(WallMillis),
}

/// The condition of a SET.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetCondition {
    /// None.
    Always,
    /// Only if the key is absent (NX).
    IfAbsent,
    /// Only if the key is present (XX).
    IfPresent,
}

/// The condition of an EXPIRE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExpireCondition {
    /// None.
    Always,
    /// Only if there is no expiry yet (NX).
    IfNone,
    /// Only if there is one (XX).
    IfSome,
    /// Only if the new one is later (GT); no expiry counts as never.
    IfLater,
    /// Only if the new one is earlier (LT); no expiry counts as never.
    IfEarlier,
    /// XX and GT together.
    IfSomeAndLater,
    /// XX and LT together.
    IfSomeAndEarlier,
}

/// What GETEX does to the expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GetExpiry {
    /// Nothing.
    Keep,
    /// Removes it.
    Persist,
    /// Sets it.
    At(WallMillis),
}

/// One thing asked of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// The value and its expiry. Answer: [`Outcome::Read`].
    Read,
    /// Every sibling and the context that replaces them. Answer: [`Outcome::Siblings`].
    Siblings,
    /// Sets a value. Answer: [`Outcome::Set`].
    Set {
        /// The value.
        value: Bytes,
        /// Its expiry.
        expiry: SetExpiry,
        /// Whether to set it at all.
        condition: SetCondition,
        /// Whether to answer with the value before.
        get: bool,
    },
    /// Sets a value, or deletes if `None`, replacing exactly what the context has seen. Answer:
    /// [`Outcome::Siblings`] with the new context.
    SetWithContext {
        /// The value, or `None` to delete.
        value: Option<Bytes>,
        /// An encoded [`crate::DotSet`].
        context: Bytes,
    },
    /// Deletes. Answer: [`Outcome::Flag`], true if there was a value.
    Delete,
    /// Reads and deletes. Answer: [`Outcome::Read`].
    GetDelete,
    /// Reads and changes the expiry. Answer: [`Outcome::Read`].
    GetExpire(GetExpiry),
    /// Appends. Answer: [`Outcome::Integer`], the new length.
    Append(Bytes),
    /// Overwrites from an offset, padding with zeros. Answer: [`Outcome::Integer`], the new length.
    SetRange {
        /// Where to start.
        offset: u64,
        /// What to write there.
        bytes: Bytes,
    },
    /// Adds to the counter. Answer: [`Outcome::Integer`], the new value.
    Increment(i64),
    /// Adds a decimal number. Answer: [`Outcome::Float`], the new value as text.
    IncrementFloat(Bytes),
    /// Sets an expiry. Answer: [`Outcome::Flag`], true if it was set.
    Expire {
        /// When.
        at: WallMillis,
        /// Whether to set it at all.
        condition: ExpireCondition,
    },
    /// Removes the expiry. Answer: [`Outcome::Flag`], true if there was one.
    Persist,
}

impl Op {
    /// True if it changes nothing.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        matches!(self, Self::Read | Self::Siblings | Self::GetExpire(GetExpiry::Keep))
    }

    /// True if it may be minted at any replica from what that replica knows: a plain SET. Everything
    /// else that writes is serialised at the slot's preferred coordinator.
    #[must_use]
    pub const fn is_blind(&self) -> bool {
        matches!(self, Self::Set { condition: SetCondition::Always, get: false, expiry, .. }
            if !matches!(expiry, SetExpiry::Keep))
    }

    /// True if it needs no quorum read before it is minted, though it is serialised.
    #[must_use]
    pub const fn is_increment(&self) -> bool {
        matches!(self, Self::Increment(_) | Self::IncrementFloat(_))
    }
}

/// A value as a read finds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The value.
    pub value: Bytes,
    /// When it vanishes, if it does.
    pub deadline: Option<WallMillis>,
}

/// One of several concurrent values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sibling {
    /// The value.
    pub value: Bytes,
    /// When it was written, by the hybrid clock of its writer.
    pub written: WallMillis,
    /// Who wrote it.
    pub node: NodeId,
}

/// The answer to one op.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The value, or that there is none.
    Read {
        /// The value.
        found: Option<Found>,
        /// What WATCH compares: changes whenever the key's state does.
        digest: Digest,
    },
    /// What SET did.
    Set {
        /// Whether the value was set.
        done: bool,
        /// The value before, if `get` asked for it.
        previous: Option<Bytes>,
    },
    /// All concurrent values, newest first, and an encoded context.
    Siblings {
        /// The values.
        values: Vec<Sibling>,
        /// What a write must carry to replace them.
        context: Bytes,
    },
    /// A number.
    Integer(i64),
    /// A decimal number as text.
    Float(Bytes),
    /// Yes or no.
    Flag(bool),
    /// What had been seen of the slot when the task was done, its own writes included: an encoded
    /// [`crate::DotSet`].
    Seen(Bytes),
    /// The op failed; other ops of the task are not affected.
    Failed(OpError),
}

/// Why one op could not be done. Nothing was changed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpError {
    /// The value is not a 64-bit integer.
    NotAnInteger,
    /// The value, or the increment, is not a decimal number.
    NotAFloat,
    /// The sum would leave the range of 64 bits.
    Overflow,
    /// The sum would be NaN or infinite, or has more digits than are kept.
    NotFinite,
    /// The value would be longer than a record may be.
    TooLarge,
    /// The context is not one of ours.
    BadContext,
    /// The key already has as many concurrent values as are kept; read them and write back one.
    TooManySiblings,
}

/// A few ops on keys of one slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The slot of every row in it.
    pub slot: Slot,
    /// Which keyspace's policy holds.
    pub keyspace: Keyspace,
    /// The ops, in order, each with its row.
    pub ops: Vec<(Row, Op)>,
    /// Rows that must still have these digests, or nothing is done ([`TaskError::Aborted`]).
    pub watches: Vec<(Row, Digest)>,
    /// True for a transaction: all ops are minted together, as one batch, whatever their kinds.
    pub atomic: bool,
    /// The read level, if not the keyspace's.
    pub read: Option<Level>,
    /// The write level, if not the keyspace's.
    pub write: Option<Level>,
    /// The durability, if not the keyspace's.
    pub durability: Option<Durability>,
    /// What the asker has seen of the slot: an encoded [`crate::DotSet`], empty if nothing. Whoever
    /// coordinates must have seen all of it, or finds it at other replicas before it answers, and the
    /// last outcome is [`Outcome::Seen`]. `None` if it does not matter.
    #[serde(default)]
    pub after: Option<Bytes>,
}

impl Task {
    /// A task of one op with the keyspace's own levels.
    #[must_use]
    pub fn one(slot: Slot, keyspace: Keyspace, row: Row, op: Op) -> Self {
        Self {
            slot,
            keyspace,
            ops: vec![(row, op)],
            watches: Vec::new(),
            atomic: false,
            read: None,
            write: None,
            durability: None,
            after: None,
        }
    }

    /// About how many bytes it writes: rows and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of_op = |op: &Op| match op {
            Op::Set { value, .. } | Op::Append(value) | Op::SetRange { bytes: value, .. } => {
                value.len()
            }
            Op::SetWithContext { value, context } => {
                value.as_ref().map_or(0, Bytes::len) + context.len()
            }
            Op::IncrementFloat(text) => text.len(),
            Op::Read
            | Op::Siblings
            | Op::Delete
            | Op::GetDelete
            | Op::GetExpire(_)
            | Op::Increment(_)
            | Op::Expire { .. }
            | Op::Persist => 0,
        };
        self.ops.iter().map(|(row, op)| row.len() + of_op(op)).sum()
    }

    /// True if nothing in it writes.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.ops.iter().all(|(_, op)| op.is_read())
    }

    /// True if it can be minted at any replica.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        !self.atomic && self.watches.is_empty() && self.ops.iter().all(|(_, op)| op.is_blind())
    }

    /// True if it has to be serialised but needs no quorum read.
    #[must_use]
    pub fn is_increment(&self) -> bool {
        self.watches.is_empty() && self.ops.iter().all(|(_, op)| op.is_increment())
    }
}

/// Why a task was not done, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskError {
    /// Too few replicas are there, or answered a read. Nothing was written: safe to retry anywhere.
    Unavailable {
        /// The level asked for.
        level: Level,
        /// How many replicas it needs.
        needed: u8,
        /// How many copies the key has.
        copies: u8,
        /// How many replicas are up, or answered.
        alive: u8,
        /// Those that are not.
        missing: Vec<NodeId>,
    },
    /// Too few replicas acknowledged a write in time. It may survive, or not.
    Unconfirmed {
        /// The level asked for.
        level: Level,
        /// How many acknowledgements it needs.
        needed: u8,
        /// How many copies the key has.
        copies: u8,
        /// How many came.
        acked: u8,
        /// Those that did not acknowledge.
        missing: Vec<NodeId>,
    },
    /// Too much is in flight, or the disk is behind. Nothing was done.
    Overloaded {
        /// When to come back.
        retry_after_ms: u32,
    },
    /// This node is not ready: it is still fetching what it missed. Nothing was done.
    NotReady,
    /// The level does not exist here, or cannot be served: the text says what to use instead.
    BadLevel(String),
    /// The replicas that are there lack what the asker has seen. Nothing was done.
    Behind {
        /// The replicas that did not say what they have.
        missing: Vec<NodeId>,
    },
    /// A watched key has changed. Nothing was done.
    Aborted,
    /// The node's clock is too far from the cluster's for it to coordinate. Nothing was done.
    ClockSkew,
    /// The node's disk is full. Nothing was done.
    NoSpace,
    /// The node's disk failed. Nothing is confirmed.
    Storage(String),
    /// The task breaks a rule of this crate, such as a row of another slot.
    Invalid(String),
}

/// A stretch of rows of one slot, read a page at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The slot.
    pub slot: Slot,
    /// The keyspace.
    pub keyspace: Keyspace,
    /// The first row.
    pub start: Row,
    /// Where it ends (exclusive).
    pub end: Row,
    /// From the end to the start.
    pub reverse: bool,
    /// A page ends before a replica has read more rows than this, dead ones included.
    pub rows: u32,
    /// And with the row by which a replica has read so many bytes.
    pub bytes: u32,
}

impl Span {
    /// What is left of it after a page that ended at `cut`.
    #[must_use]
    pub fn after(self, cut: Row) -> Self {
        if self.reverse { Self { end: cut, ..self } } else { Self { start: cut, ..self } }
    }

    /// Whether a row of it is in the page that ends at `cut`; empty: all of it is.
    pub(crate) fn is_before(&self, row: &Row, cut: &Row) -> bool {
        cut.is_empty() || if self.reverse { row >= cut } else { row < cut }
    }
}

/// A row of a page: it has a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRow {
    /// The row.
    pub row: Row,
    /// Its concurrent values, newest first.
    pub values: Vec<Sibling>,
    /// What a write must carry to replace them.
    pub context: Bytes,
}

/// One replica's share of a read that its asker gathers itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The slot of the row.
    pub slot: Slot,
    /// The keyspace of the row.
    pub keyspace: Keyspace,
    /// The key.
    pub row: Row,
    /// What is read: [`Op::Read`] or [`Op::Siblings`].
    pub op: Op,
    /// The level that the shares make up, if not the keyspace's read level.
    pub level: Option<Level>,
    /// How many replicas are asked: exactly as many as the level needs.
    pub of: u8,
    /// The epoch of the layout by which they were chosen.
    pub epoch: u64,
    /// Whether the outcome is wanted and not only the digest.
    pub whole: bool,
    /// As in [`Task::after`].
    pub after: Option<Bytes>,
}

/// What may be asked of a [`crate::Peer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Ops on keys of one slot.
    Task(Task),
    /// This replica's share of a read. Answer: [`Answer::Share`].
    Share(Box<Share>),
    /// Live keys in cursor order, from a slot onward but not beyond its group of 256. Answer:
    /// [`Answer::Keys`].
    Scan {
        /// The keyspace.
        keyspace: Keyspace,
        /// Where to start.
        from: Slot,
        /// Within the first slot, keys whose [`crate::row::hash48`] is at least this.
        from_hash: u64,
        /// Stop after the slot in which so many keys are reached.
        count: u32,
        /// How many replicas to ask, if not the keyspace's read level.
        level: Option<Level>,
    },
    /// How many live keys the slots of a group hold. Answer: [`Answer::Count`].
    Count {
        /// The keyspace.
        keyspace: Keyspace,
        /// The group, 0 to 63.
        group: u8,
    },
    /// Deletes every key that R replicas know in a slot. Answer: [`Answer::Count`], how many.
    Flush {
        /// The keyspace.
        keyspace: Keyspace,
        /// The slot.
        slot: Slot,
        /// The levels, if not the keyspace's.
        level: Option<Level>,
    },
    /// A page of rows, each as R replicas together know it. Answer: [`Answer::Page`].
    Range {
        /// Which rows, and how many at most.
        span: Span,
        /// The read level, if not the keyspace's.
        level: Option<Level>,
        /// As in [`Task::after`]; the answer tells what has been seen.
        #[serde(default)]
        after: Option<Bytes>,
    },
    /// Deletes what R replicas know in a page of rows, and nothing that is written meanwhile. Answer:
    /// [`Answer::Deleted`].
    DeleteRange {
        /// Which rows, and how many at most.
        span: Span,
        /// The read level, if not the keyspace's.
        read: Option<Level>,
        /// The write level, if not the keyspace's.
        write: Option<Level>,
        /// The durability, if not the keyspace's.
        durability: Option<Durability>,
        /// As in [`Task::after`]; the answer tells what has been seen.
        #[serde(default)]
        after: Option<Bytes>,
    },
    /// Waits until `acks` replicas hold the write, or time passes. Answer: [`Answer::Acks`].
    AwaitAcks {
        /// The write, from an earlier [`Answer::Done`].
        write: WriteHandle,
        /// How many replicas.
        acks: u8,
        /// How long, in milliseconds.
        timeout_ms: u32,
    },
}

impl Request {
    /// True if carrying it out may change something.
    #[must_use]
    pub fn writes(&self) -> bool {
        match self {
            Self::Task(task) => !task.is_read(),
            Self::Flush { .. } | Self::DeleteRange { .. } => true,
            Self::Share(_)
            | Self::Scan { .. }
            | Self::Count { .. }
            | Self::Range { .. }
            | Self::AwaitAcks { .. } => false,
        }
    }

    /// Whose terms hold for it; `None` if it is about a write that was answered already.
    #[must_use]
    pub const fn keyspace(&self) -> Option<Keyspace> {
        match self {
            Self::Task(task) => Some(task.keyspace),
            Self::Share(share) => Some(share.keyspace),
            Self::Scan { keyspace, .. }
            | Self::Count { keyspace, .. }
            | Self::Flush { keyspace, .. } => Some(*keyspace),
            Self::Range { span, .. } | Self::DeleteRange { span, .. } => Some(span.keyspace),
            Self::AwaitAcks { .. } => None,
        }
    }

    /// The slot that decides which core handles it.
    #[must_use]
    pub fn slot(&self) -> Slot {
        match self {
            Self::Task(task) => task.slot,
            Self::Share(share) => share.slot,
            Self::Scan { from, .. } => *from,
            Self::Count { group, .. } => Slot(u16::from(*group) * ring::SLOTS_PER_GROUP),
            Self::Flush { slot, .. } => *slot,
            Self::Range { span, .. } | Self::DeleteRange { span, .. } => span.slot,
            Self::AwaitAcks { write, .. } => write.slot,
        }
    }
}

/// Names a finished write for [`Request::AwaitAcks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteHandle {
    /// The slot written to.
    pub slot: Slot,
    /// The node that coordinated it.
    pub coordinator: NodeId,
    /// Its number there.
    pub id: u64,
}

/// What comes back from a [`crate::Peer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// A task was done: one outcome an op.
    Done {
        /// In the order of the ops.
        outcomes: Vec<Outcome>,
        /// The write that it made, if it made one.
        write: Option<WriteHandle>,
    },
    /// The client need not hear of it: as many replicas as it takes have told it that its write is done; or it has
    /// asked for the same anew, and the answer goes to that.
    Confirmed,
    /// What this replica holds of a key.
    Share {
        /// The digest of its record.
        digest: Digest,
        /// What a client sees of it, if that was asked for.
        outcome: Option<Outcome>,
    },
    /// Keys of whole slots (or of a part of one slot), in cursor order.
    Keys {
        /// Redis keys.
        keys: Vec<Bytes>,
        /// Where to go on: a slot and a hash within it; `None` after the last slot of all.
        next: Option<(Slot, u64)>,
    },
    /// A number of keys.
    Count(u64),
    /// A page of a range, in the order that was asked for.
    Page {
        /// Rows that have a value.
        rows: Vec<PageRow>,
        /// Where the page ends (see [`Span::after`]); empty: there is no more.
        next: Row,
        /// What had been seen of the slot: an encoded [`crate::DotSet`]; empty if nobody asked.
        seen: Bytes,
    },
    /// A page of a range is deleted.
    Deleted {
        /// How many of its rows had a value.
        count: u64,
        /// As in `Page`.
        next: Row,
        /// As in `Page`, its own writes included.
        seen: Bytes,
    },
    /// How many replicas hold a write.
    Acks(u8),
    /// It was not done, or may not have been.
    Failed(TaskError),
}
