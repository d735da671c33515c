//! Everything that can happen to a [`crate::Peer`], and everything that it can ask of the world.
//!
//! The order of effects is the order in which they must take place where they touch the same thing:
//! an `Apply` is visible to every `Load` after it; sends to one node keep their order. The driver
//! commits the log once a turn, before any `Send` or `Answer` of that turn leaves the process, so that
//! nothing is told to anybody that a killed process could forget.

use std::sync::Arc;

use bytes::Bytes;
use ring::keyspace::Durability;
use ring::{Hlc, Incarnation, Instant, Layout, NodeId, Policies, Slot, WallMillis};
use smallvec::SmallVec;

use crate::causality::DotSet;
use crate::message::{Direct, Message, RequestKey};
use crate::op::{Answer, Request, Span};
use crate::row::{Keyspace, Row};

/// Rows to be loaded: nearly always one.
pub type Rows = SmallVec<[Row; 1]>;

/// The records of these rows.
pub type Records = SmallVec<[Bytes; 1]>;

/// The changes of a batch: nearly always one.
pub type Changes = SmallVec<[RowChange; 1]>;

/// Names a request of a client at this node; chosen by the driver.
pub type RequestId = u64;

/// The name that a client gave to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name; its `front` is no node, and its `first_sent` 0.
    pub request: RequestKey,
    /// It was first sent to this very process, lately: what this process does not remember of it, it has
    /// not done. If false, it can only be confirmed that it was done.
    pub may_mint: bool,
    /// Its client hears acknowledgements of the replicas it is connected to: see [`Effect::Acknowledge`].
    pub direct: bool,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A client of this node asks. `timeout_us` is how long it will wait.
    Submit {
        /// Repeated in the answer.
        id: RequestId,
        /// What it asks.
        request: Request,
        /// How long it will wait, in microseconds.
        timeout_us: u64,
    },
    /// A client of this node asks for something under a name: it is done at most once, however often
    /// it is asked for.
    SubmitNamed {
        /// Repeated in the answer.
        id: RequestId,
        /// What it asks.
        request: Request,
        /// How long it will wait, in microseconds.
        timeout_us: u64,
        /// Its name, and whether this process may do it.
        named: Named,
    },
    /// The client is gone: stop working for it. Writes that were minted go on.
    Cancel(RequestId),
    /// A client says which clock it has heard: nothing is minted below it from now on, so that what
    /// it writes next counts as later than what it has seen.
    Heard {
        /// The clock.
        hlc: Hlc,
    },
    /// A message came.
    Received {
        /// From this node.
        from: NodeId,
        /// With this epoch in its frame.
        epoch: u64,
        /// And this clock.
        hlc: Hlc,
        /// When it was made, by the receiver's clock, as far as that is known; never later than now.
        made: Instant,
        /// The message.
        message: Message,
    },
    /// The answer to [`Effect::Load`].
    Loaded {
        /// Its token.
        token: u64,
        /// The encoded records, in the order of the rows; empty where there is none.
        records: Records,
    },
    /// The answer to [`Effect::Load`], [`Effect::List`] or [`Effect::ReadSpan`] if the disk cannot
    /// give it. What cannot be read is not absent: nobody is told that it is.
    LoadFailed {
        /// Its token.
        token: u64,
    },
    /// The answer to [`Effect::Apply`]: what was applied is as durable as was asked, or failed.
    Applied {
        /// Its token.
        token: u64,
        /// The reason, if the disk failed.
        failed: Option<String>,
    },
    /// The answer to [`Effect::List`].
    Listed {
        /// Its token.
        token: u64,
        /// The rows with their records.
        rows: Vec<(Row, Bytes)>,
        /// Where it stopped: every row before this (slot, hash) is in it; the slot may be one past
        /// the last.
        next: (u32, u64),
    },
    /// The answer to [`Effect::ReadRows`] or [`Effect::ReadSpan`].
    RowsRead {
        /// Its token.
        token: u64,
        /// The rows with their records.
        rows: Vec<(Row, Bytes)>,
        /// Where to go on; empty if that was all. Of a reversed span: the last row read.
        next: Row,
    },
    /// Part of the answer to [`Effect::ScanLog`]: deltas wanted.
    LogFound {
        /// Its token.
        token: u64,
        /// Encoded deltas with their slots.
        deltas: Vec<(Slot, Bytes)>,
    },
    /// The end of the answer to [`Effect::ScanLog`].
    LogScanned {
        /// Its token.
        token: u64,
    },
    /// A connection to this node is up after it was not: it may have missed messages.
    LinkUp(NodeId),
    /// There is room on this node's disk for what would be written, or there is none: from then on it serves nobody and
    /// refuses what peers send, and when there is room again it catches up as after a start.
    RoomIs(bool),
    /// Liveness says that this node is up and ready, or is not.
    PeerIs {
        /// The node.
        node: NodeId,
        /// Whether it answers at all.
        up: bool,
        /// Whether it says that it is ready.
        ready: bool,
        /// The latest life of it that is known.
        incarnation: Incarnation,
    },
    /// A newer layout holds from now on.
    LayoutIs(Arc<Layout>),
    /// These terms of keyspaces are in force from now on, for what begins from now on.
    PoliciesAre(Arc<Policies>),
    /// The ceiling of [`Effect::RaiseCeiling`] is on disk.
    CeilingRaised(WallMillis),
    /// Time passed: see [`crate::Peer::next_deadline`].
    Tick,
}

/// A change of one row, for one atomic batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowChange {
    /// Append a merge operand (see [`crate::fold`]).
    Merge {
        /// The row.
        row: Row,
        /// The operand.
        operand: Bytes,
    },
    /// Set the row.
    Put {
        /// The row.
        row: Row,
        /// The value.
        value: Bytes,
    },
}

/// What a machine asks of the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Answer a client.
    Answer {
        /// The request.
        id: RequestId,
        /// The answer.
        answer: Answer,
    },
    /// Send a message to a node; best effort.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// As many replicas as it takes have told the client of this request that its write is done;
    /// [`Answer::Confirmed`] follows.
    Told {
        /// The request.
        id: RequestId,
        /// The last of them did so then.
        at: Instant,
    },
    /// A write of this client is held here. If the client is connected to this node, tell it so, as the
    /// acknowledgement of `token` of the coordinator `to`; [`Message::Replicated`] with `told_us` may then wait for other
    /// messages to `to`, for [`ACK_DELAY`](crate::limits::ACK_DELAY) at most. If not, or if it is too late for that,
    /// send it at once, as one that has told nobody.
    Acknowledge {
        /// The coordinator.
        to: NodeId,
        /// The client's name for the write.
        request: RequestKey,
        /// The coordinator's number of it.
        token: u64,
        /// Its slot.
        slot: Slot,
        /// What the client is told.
        direct: Box<Direct>,
        /// When the coordinator's message was made, by our clock.
        made: Instant,
    },
    /// Read these rows' records: [`Event::Loaded`].
    Load {
        /// Repeated in the answer.
        token: u64,
        /// The rows.
        rows: Rows,
    },
    /// Apply these changes as one batch, visible at once: [`Event::Applied`] when durable.
    Apply {
        /// Repeated in the answer.
        token: u64,
        /// The changes; may be empty: then only the durability of what came before is asked.
        changes: Changes,
        /// How durable.
        durability: Durability,
    },
    /// List rows in cursor order: [`Event::Listed`]. See [`crate::listing`]. The answer is the state
    /// at the moment in which the event is handed in: no other event may come in between.
    List {
        /// Repeated in the answer.
        token: u64,
        /// The keyspace.
        keyspace: Keyspace,
        /// First slot.
        from: Slot,
        /// Within it, from this hash on.
        from_hash: u64,
        /// Last slot, inclusive.
        last: Slot,
        /// Stop after the slot in which so many rows are reached.
        count: u32,
    },
    /// Read rows of every keyspace of a slot in row order: [`Event::RowsRead`]. The answer is the
    /// state at the moment in which the event is handed in: no other event may come in between.
    ReadRows {
        /// Repeated in the answer.
        token: u64,
        /// The slot.
        slot: Slot,
        /// From this row on; empty: from the first.
        from: Row,
        /// Stop after about so many bytes.
        bytes: u32,
    },
    /// Read rows of a span in its order, up to its bounds but at least one: [`Event::RowsRead`]. The
    /// answer is the state at the moment in which the event is handed in.
    ReadSpan {
        /// Repeated in the answer.
        token: u64,
        /// Which rows, and how many.
        span: Span,
    },
    /// Find these dots' deltas in the retained log: [`Event::LogFound`], [`Event::LogScanned`].
    ScanLog {
        /// Repeated in the answer.
        token: u64,
        /// What is wanted.
        wanted: Vec<(Slot, DotSet)>,
    },
    /// Persist this ceiling of the hybrid clock, then [`Event::CeilingRaised`].
    RaiseCeiling(WallMillis),
    /// This node says of itself, from now on, that it is ready, or is not.
    Ready(bool),
    /// The peer has a newer layout, or we have: exchange them.
    FetchLayout {
        /// From whom.
        from: NodeId,
    },
    /// This node must not go on: the text says why and what to do.
    Fatal(String),
}

/// The caller's buffer for effects.
pub type Outbox = Vec<Effect>;
