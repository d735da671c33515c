//! What nodes say to each other about copies.
//!
//! Messages travel as MessagePack with named fields inside frames that carry the sender's epoch, its
//! hybrid clock and a deadline. Every message is about one group of slots, so one core receives it.
//! Tokens are the asker's own numbers: an answer repeats them, and an answer that nobody waits for
//! any more is dropped.

use bytes::Bytes;
use ring::{Actor, Incarnation, NodeId, Slot};
use serde::{Deserialize, Serialize};

use crate::op::{Answer, Outcome, Request, Span};
use crate::raw::RawDeltas;
use crate::record::Digest;
use crate::row::{Keyspace, Row};

/// Names a request for ever: only the actor that it was first sent to may mint for it. A request that
/// is forwarded is named by the node that does so, unless its client named it: then `front` is no node
/// (its highest bit is set), and this and `incarnation` tell the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestKey {
    /// The node that a client asked.
    #[serde(rename = "f")]
    pub front: NodeId,
    /// Its life.
    #[serde(rename = "i")]
    pub incarnation: Incarnation,
    /// Its core.
    #[serde(rename = "c")]
    pub core: u8,
    /// Its number there; not given again in this life, also not after a clean restart.
    #[serde(rename = "n")]
    pub n: u64,
    /// When it was first sent: the front node's wall clock, in milliseconds. 0 in a client's name, but
    /// while it is forwarded: the node that the client asked has looked how old it is.
    #[serde(rename = "t")]
    pub first_sent: u64,
}

impl RequestKey {
    /// As it is remembered: of a client's name, the same whoever forwarded it and when.
    pub(crate) const fn kept(self) -> Self {
        let of_client = self.front.0 >> 31 == 1;
        Self { first_sent: if of_client { 0 } else { self.first_sent }, ..self }
    }
}

/// What a replica is to send of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadKind {
    /// Record and seen set.
    #[serde(rename = "s")]
    State,
    /// Only the digest of its record.
    #[serde(rename = "d")]
    Digest,
}

/// A key's state with what the sender has seen of it, from one snapshot (the clock read first).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The encoded record; empty if there is none.
    #[serde(rename = "r")]
    pub record: Bytes,
    /// The encoded slot clock of the sender.
    #[serde(rename = "c")]
    pub clock: Bytes,
}

/// A row of a slot listing: live dots without payloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The row.
    #[serde(rename = "k")]
    pub row: Row,
    /// The encoded record; without its payloads in a listing for a scan.
    #[serde(rename = "r")]
    pub record: Bytes,
}

/// Why a replica refused a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The sender's layout is older than the slot's last change.
    StaleEpoch,
    /// The receiver is no replica of the slot.
    NotMine,
    /// The receiver is still fetching what it missed.
    NotReady,
    /// The sender's clock is too far ahead.
    ClockSkew,
    /// The receiver's disk failed.
    Storage,
    /// Too much is in flight.
    Overloaded,
    /// The request was first sent to another actor and has left no trace here.
    NotHeld,
}

/// Serde asks whether a field may be left out.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(us: &u32) -> bool {
    *us == 0
}

/// What a replica is to tell a client of a write that it holds. The coordinator's copy survives the death of its process
/// before this leaves, so that whoever is told so knows of both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direct {
    /// So many replicas have to hold it beside the coordinator.
    #[serde(rename = "n")]
    pub needed: u8,
    /// At once; or with whatever else goes to that client, soon: others are told at once.
    #[serde(rename = "p", default)]
    pub prompt: bool,
    /// How long the client waited still when this was made, in microseconds: whoever would tell it later tells it nothing.
    #[serde(rename = "l", default)]
    pub left_us: u64,
    /// The answer: one outcome an op.
    #[serde(rename = "o")]
    pub outcomes: Vec<Outcome>,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Apply these deltas as one batch.
    #[serde(rename = "w")]
    Replicate {
        /// The asker's number.
        #[serde(rename = "t")]
        token: u64,
        /// Which batch of the token's, where it has several.
        #[serde(rename = "p", default)]
        part: u32,
        /// Encoded [`crate::Delta`]s of one slot.
        #[serde(rename = "d")]
        deltas: RawDeltas,
        /// True if the ack must mean that it survives power loss.
        #[serde(rename = "s", default)]
        sync: bool,
        /// What to tell the client that named the deltas' request, if it is connected to the receiver: then the
        /// answer to this message may take its time.
        #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
        direct: Option<Box<Direct>>,
    },
    /// The deltas are in the sender's clock, as durable as was asked.
    #[serde(rename = "wa")]
    Replicated {
        /// The asker's number.
        #[serde(rename = "t")]
        token: u64,
        /// Which batch of the token's, where it has several.
        #[serde(rename = "p", default)]
        part: u32,
        /// The slot.
        #[serde(rename = "l")]
        slot: Slot,
        /// The client was told so as well, so many microseconds after the message was made to which this is the
        /// answer; 0 if it was not.
        #[serde(rename = "u", default, skip_serializing_if = "is_zero")]
        told_us: u32,
    },
    /// Say what you hold of a key.
    #[serde(rename = "r")]
    Read {
        /// The asker's number.
        #[serde(rename = "t")]
        token: u64,
        /// Which of the asker's rows.
        #[serde(rename = "i", default)]
        index: u16,
        /// The key.
        #[serde(rename = "k", with = "crate::piece::field")]
        row: Row,
        /// How much to say.
        #[serde(rename = "m")]
        kind: ReadKind,
    },
    /// The digest of a key's record.
    #[serde(rename = "rd")]
    DigestIs {
        /// The asker's number.
        #[serde(rename = "t")]
        token: u64,
        /// Which of the asker's rows.
        #[serde(rename = "i", default)]
        index: u16,
        /// The slot.
        #[serde(rename = "l")]
        slot: Slot,
        /// The digest.
        #[serde(rename = "d")]
        digest: Digest,
    },
    /// The state of a key.
    #[serde(rename = "rs")]
    StateIs {
        /// The asker's number.
        #[serde(rename = "t")]
        token: u64,
        /// Which of the asker's rows.
        #[serde(rename = "i", default)]
        index: u16,
        /// The slot.
        #[serde(rename = "l")]
        slot: Slot,
        /// The state.
        #[serde(rename = "s")]
        state: State,
    },
    /// Join this state into yours (read repair, and the last step of catching up).
    #[serde(rename = "i")]
    Install {
        /// The asker's number.
        #[serde(rename = "t")]
        token: u64,
        /// Which of the asker's rows.
        #[serde(rename = "i", default)]
        index: u16,
        /// The key.
        #[serde(rename = "k", with = "crate::piece::field")]
        row: Row,
        /// Record and seen set.
        #[serde(rename = "s")]
        state: State,
    },
    /// The state was joined.
    #[serde(rename = "ia")]
    Installed {
        /// The asker's number.
        #[serde(rename = "t")]
        token: u64,
        /// Which of the asker's rows.
        #[serde(rename = "i", default)]
        index: u16,
        /// The slot.
        #[serde(rename = "l")]
        slot: Slot,
    },
    /// Do this for a client of mine.
    #[serde(rename = "f")]
    Forward {
        /// The asker's number.
        #[serde(rename = "t")]
        token: u64,
        /// The request's name: the same in every retry.
        #[serde(rename = "q")]
        request: RequestKey,
        /// The node, in one of its lives, that alone may mint for it.
        #[serde(rename = "m")]
        minter: Actor,
        /// How long the asker will wait, in microseconds.
        #[serde(rename = "u")]
        remaining_us: u64,
        /// What to do.
        #[serde(rename = "b")]
        body: Request,
    },
    /// The answer to a forwarded request.
    #[serde(rename = "fa")]
    Forwarded {
        /// The asker's number.
        #[serde(rename = "t")]
        token: u64,
        /// The slot.
        #[serde(rename = "l")]
        slot: Slot,
        /// The answer.
        #[serde(rename = "a")]
        answer: Answer,
        /// The dots that it made, encoded: a later write of the asker must not be minted without
        /// having seen them.
        #[serde(rename = "h")]
        heard: Bytes,
    },
    /// List your live keys in a range of slots.
    #[serde(rename = "l")]
    List {
        /// The asker's number.
        #[serde(rename = "t")]
        token: u64,
        /// The keyspace.
        #[serde(rename = "k")]
        keyspace: Keyspace,
        /// First slot.
        #[serde(rename = "a")]
        from: Slot,
        /// Within it, from this hash on.
        #[serde(rename = "h")]
        from_hash: u64,
        /// Last slot, inclusive, of the same group.
        #[serde(rename = "z")]
        last: Slot,
        /// Stop after the slot in which so many rows are reached.
        #[serde(rename = "n")]
        count: u32,
    },
    /// A listing.
    #[serde(rename = "la")]
    Listing {
        /// The asker's number.
        #[serde(rename = "t")]
        token: u64,
        /// The first slot asked for.
        #[serde(rename = "a")]
        from: Slot,
        /// Rows with their records, payloads left out.
        #[serde(rename = "r")]
        rows: Vec<Listed>,
        /// Slots of the listing and the sender's clocks of them.
        #[serde(rename = "c")]
        clocks: Vec<(Slot, Bytes)>,
        /// Where the listing stops: every row before this is in it.
        #[serde(rename = "n")]
        next: (u32, u64),
    },
    /// Say which rows of a span you hold, and in which state.
    #[serde(rename = "k")]
    Walk {
        /// The asker's number.
        #[serde(rename = "t")]
        token: u64,
        /// Which rows, and how many at most.
        #[serde(rename = "s")]
        span: Span,
        /// Whether the answer is to tell what you have seen of the slot.
        #[serde(rename = "c", default)]
        clock: bool,
    },
    /// The rows of a span.
    #[serde(rename = "ka")]
    Walked {
        /// The asker's number.
        #[serde(rename = "t")]
        token: u64,
        /// The slot.
        #[serde(rename = "l")]
        slot: Slot,
        /// Rows with the digests of their records; a row of the page that is not here is not there.
        #[serde(rename = "r")]
        rows: Vec<(Row, Digest)>,
        /// Where the page ends (see [`Span::after`]); empty: there is no more.
        #[serde(rename = "n")]
        next: Row,
        /// What the sender had seen of the slot before it read the rows: an encoded
        /// [`crate::DotSet`]; empty if that was not asked for.
        #[serde(rename = "c", default)]
        clock: Bytes,
    },
    /// Count the live keys of these slots.
    #[serde(rename = "n")]
    Count {
        /// The asker's number.
        #[serde(rename = "t")]
        token: u64,
        /// The keyspace.
        #[serde(rename = "k")]
        keyspace: Keyspace,
        /// Slots of one group.
        #[serde(rename = "s")]
        slots: Vec<Slot>,
    },
    /// The count.
    #[serde(rename = "na")]
    Counted {
        /// The asker's number.
        #[serde(rename = "t")]
        token: u64,
        /// The first slot asked for.
        #[serde(rename = "l")]
        slot: Slot,
        /// How many.
        #[serde(rename = "n")]
        count: u64,
    },
    /// Send me what I lack of these slots (of one group).
    #[serde(rename = "p")]
    Pull {
        /// The asker's number.
        #[serde(rename = "t")]
        token: u64,
        /// Slots and the asker's encoded clocks of them.
        #[serde(rename = "c")]
        clocks: Vec<(Slot, Bytes)>,
    },
    /// Deltas that the asker lacked, from the retained log; no answer expected.
    #[serde(rename = "pd")]
    Pulled {
        /// The asker's number.
        #[serde(rename = "t")]
        token: u64,
        /// Which serving of the pull this is of: a pull that arrives twice is served twice.
        #[serde(rename = "v")]
        serving: u64,
        /// The how-manieth part of the pull, from 0.
        #[serde(rename = "p")]
        part: u32,
        /// The slot of the first.
        #[serde(rename = "l")]
        slot: Slot,
        /// Encoded [`crate::Delta`]s.
        #[serde(rename = "d")]
        deltas: Vec<Bytes>,
    },
    /// Part of the whole state of a slot, where the log no longer reaches back.
    #[serde(rename = "ps")]
    PulledState {
        /// The asker's number.
        #[serde(rename = "t")]
        token: u64,
        /// Which serving of the pull this is of: a pull that arrives twice is served twice.
        #[serde(rename = "v")]
        serving: u64,
        /// The how-manieth part of the pull, from 0.
        #[serde(rename = "p")]
        part: u32,
        /// The slot.
        #[serde(rename = "l")]
        slot: Slot,
        /// The sender's clock, read before the first row.
        #[serde(rename = "c")]
        clock: Bytes,
        /// Where the part begins; empty: at the slot's first row.
        #[serde(rename = "f")]
        from: Row,
        /// Rows, ascending; a row between `from` and `next` that is not here is not there.
        #[serde(rename = "r")]
        rows: Vec<Listed>,
        /// Where the part ends (exclusive); empty: behind the slot's last row.
        #[serde(rename = "n")]
        next: Row,
    },
    /// That was all of a pull.
    #[serde(rename = "pe")]
    PullDone {
        /// The asker's number.
        #[serde(rename = "t")]
        token: u64,
        /// Which serving of the pull this is of: a pull that arrives twice is served twice.
        #[serde(rename = "v")]
        serving: u64,
        /// Any slot of the group.
        #[serde(rename = "l")]
        slot: Slot,
        /// The highest incarnation of the asker that the sender knows of.
        #[serde(rename = "i")]
        incarnation: Incarnation,
        /// How many parts there were: if one is missing, the asker pulls again.
        #[serde(rename = "p")]
        parts: u32,
    },
    /// A message was refused; it had no effect.
    #[serde(rename = "x")]
    Refused {
        /// The asker's number.
        #[serde(rename = "t")]
        token: u64,
        /// The slot.
        #[serde(rename = "l")]
        slot: Slot,
        /// Why.
        #[serde(rename = "y")]
        why: Refusal,
        /// The epoch of the refuser.
        #[serde(rename = "e")]
        epoch: u64,
    },
}

impl Message {
    /// The slot that decides which core receives it; `None` if the message is malformed.
    #[must_use]
    pub fn slot(&self) -> Option<Slot> {
        match self {
            Self::Replicate { deltas, .. } => crate::delta::slot_of(deltas.first()?.encoded()),
            Self::Read { row, .. } | Self::Install { row, .. } => crate::row::slot_of(row),
            Self::Forward { body, .. } => Some(body.slot()),
            Self::List { from, .. } | Self::Listing { from, .. } => Some(*from),
            Self::Walk { span, .. } => Some(span.slot),
            Self::Count { slots, .. } => slots.first().copied(),
            Self::Pull { clocks, .. } => Some(clocks.first()?.0),
            Self::Replicated { slot, .. }
            | Self::DigestIs { slot, .. }
            | Self::StateIs { slot, .. }
            | Self::Installed { slot, .. }
            | Self::Forwarded { slot, .. }
            | Self::Walked { slot, .. }
            | Self::Counted { slot, .. }
            | Self::Pulled { slot, .. }
            | Self::PulledState { slot, .. }
            | Self::PullDone { slot, .. }
            | Self::Refused { slot, .. } => Some(*slot),
        }
        .filter(|slot| slot.0 < ring::SLOTS)
    }

    /// True if it belongs on the lane for bulk, so that small messages do not wait behind it.
    #[must_use]
    pub const fn is_bulk(&self) -> bool {
        matches!(
            self,
            Self::Pull { .. }
                | Self::Pulled { .. }
                | Self::PulledState { .. }
                | Self::PullDone { .. }
                | Self::Listing { .. }
                | Self::Walked { .. }
        )
    }
}
