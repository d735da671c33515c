//! Deltas: one mutation of one key, as it stands in logs, frames and hints.
//!
//! A delta names itself (dot, hybrid time), says what it replaces (a discard context) and what it
//! adds. It is never the merged state, and applying it twice is harmless: its dot is in the clock.

use bytes::Bytes;
use ring::{Hlc, Incarnation, NodeId, Slot, WallMillis};

use crate::causality::{Dot, DotSet};
use crate::encoding::{Reader, put_bytes, put_i128, put_varint};
use crate::message::RequestKey;
use crate::record::{Counts, decode_counts, decode_hlc, encode_counts};
use crate::row;

/// One mutation of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta<'a> {
    /// The key.
    pub row: &'a [u8],
    /// The mutation's name.
    pub dot: Dot,
    /// When it was minted.
    pub hlc: Hlc,
    /// The forwarded request that it carries out, if it was forwarded.
    pub request: Option<RequestKey>,
    /// What had been seen of the key: the flags below say what of it is replaced.
    pub discard: DotSet,
    /// Seen values are replaced, and the counter reset by `resets`.
    pub discards_values: bool,
    /// Seen expiries are replaced.
    pub discards_expiry: bool,
    /// A new value.
    pub value: Option<&'a [u8]>,
    /// A new expiry.
    pub expiry: Option<WallMillis>,
    /// The minter's part of the counter after this: (generation, total).
    pub count: Option<(u64, i128)>,
    /// What a reset has seen of the counter.
    pub resets: Counts,
}

const HAS_REQUEST: u8 = 1;
const HAS_DISCARD: u8 = 2;
const DISCARDS_VALUES: u8 = 4;
const DISCARDS_EXPIRY: u8 = 8;
const HAS_VALUE: u8 = 16;
const HAS_EXPIRY: u8 = 32;
const HAS_COUNT: u8 = 64;
const HAS_RESETS: u8 = 128;

impl<'a> Delta<'a> {
    /// A delta that does nothing yet.
    #[must_use]
    pub fn new(row: &'a [u8], dot: Dot, hlc: Hlc) -> Self {
        Self {
            row,
            dot,
            hlc,
            request: None,
            discard: DotSet::new(),
            discards_values: false,
            discards_expiry: false,
            value: None,
            expiry: None,
            count: None,
            resets: Counts::new(),
        }
    }

    /// Appends the encoded form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let flag = |present: bool, bit: u8| if present { bit } else { 0 };
        put_bytes(out, self.row);
        self.dot.encode(out);
        out.extend_from_slice(&self.hlc.0.to_le_bytes());
        out.push(
            flag(self.request.is_some(), HAS_REQUEST)
                | flag(!self.discard.is_empty(), HAS_DISCARD)
                | flag(self.discards_values, DISCARDS_VALUES)
                | flag(self.discards_expiry, DISCARDS_EXPIRY)
                | flag(self.value.is_some(), HAS_VALUE)
                | flag(self.expiry.is_some(), HAS_EXPIRY)
                | flag(self.count.is_some(), HAS_COUNT)
                | flag(!self.resets.is_empty(), HAS_RESETS),
        );
        if let Some(request) = &self.request {
            put_varint(out, u64::from(request.front.0));
            put_varint(out, u64::from(request.incarnation.0));
            out.push(request.core);
            put_varint(out, request.n);
            put_varint(out, request.first_sent);
        }
        if !self.discard.is_empty() {
            self.discard.encode(out);
        }
        if let Some(value) = self.value {
            put_bytes(out, value);
        }
        if let Some(deadline) = self.expiry {
            put_varint(out, deadline.0);
        }
        if let Some((generation, total)) = self.count {
            put_varint(out, generation);
            put_i128(out, total);
        }
        if !self.resets.is_empty() {
            encode_counts(&self.resets, out);
        }
    }

    /// The encoded form.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(64 + self.row.len() + self.value.map_or(0, <[u8]>::len));
        self.encode(&mut out);
        Bytes::from(out)
    }

    /// Reads what [`Delta::encode`] wrote; `None` if it is malformed.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut r = Reader::new(bytes);
        let mut delta = Self::new(r.bytes()?, Dot::decode(&mut r)?, decode_hlc(&mut r)?);
        let flags = r.byte()?;
        if flags & HAS_REQUEST != 0 {
            delta.request = Some(RequestKey {
                front: NodeId(u32::try_from(r.varint()?).ok()?),
                incarnation: Incarnation(u32::try_from(r.varint()?).ok()?),
                core: r.byte()?,
                n: r.varint()?,
                first_sent: r.varint()?,
            });
        }
        if flags & HAS_DISCARD != 0 {
            delta.discard = DotSet::decode(&mut r)?;
        }
        delta.discards_values = flags & DISCARDS_VALUES != 0;
        delta.discards_expiry = flags & DISCARDS_EXPIRY != 0;
        if flags & HAS_VALUE != 0 {
            delta.value = Some(r.bytes()?);
        }
        if flags & HAS_EXPIRY != 0 {
            delta.expiry = Some(WallMillis(r.varint()?));
        }
        if flags & HAS_COUNT != 0 {
            delta.count = Some((r.varint()?, r.i128()?));
        }
        if flags & HAS_RESETS != 0 {
            delta.resets = decode_counts(&mut r)?;
        }
        let sane = delta.dot.seq > 0 && row::slot_of(delta.row).is_some();
        (r.is_empty() && sane).then_some(delta)
    }

    /// The slot of its row.
    #[must_use]
    pub fn slot(&self) -> Slot {
        row::slot_of(self.row).expect("a delta is made or decoded with a row that has a slot")
    }
}

/// The slot of an encoded delta, without decoding the rest.
#[must_use]
pub fn slot_of(bytes: &[u8]) -> Option<Slot> {
    row::slot_of(Reader::new(bytes).bytes()?)
}

/// The slot and the dot of an encoded delta, without decoding the rest.
#[must_use]
pub fn name_of(bytes: &[u8]) -> Option<(Slot, Dot)> {
    let mut r = Reader::new(bytes);
    let slot = row::slot_of(r.bytes()?)?;
    Some((slot, Dot::decode(&mut r)?))
}
