//! Raw deltas: a delta encoded once, for the log, the memtable and every peer.
//!
//! What a peer gets is a delta's bytes; what the engine gets is the same bytes behind a tag and two
//! lists of dots that are nearly always empty (see [`crate::fold`]). Kept with the empty lists in
//! front, one piece of memory serves both.

use core::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

use crate::delta::Delta;
use crate::fold::PLAIN_DELTA;
use crate::piece;
use crate::piece::field::Copied;
use crate::row::Row;

/// The deltas of a batch: nearly always one.
pub type RawDeltas = SmallVec<[RawDelta; 1]>;

/// An encoded [`Delta`]; not looked into when it comes from a peer.
#[derive(Clone, PartialEq, Eq)]
pub struct RawDelta(Bytes);

impl RawDelta {
    /// Encodes a delta; `scratch` is used on the way.
    #[must_use]
    pub fn of(delta: &Delta<'_>, scratch: &mut Vec<u8>) -> Self {
        scratch.clear();
        scratch.extend_from_slice(PLAIN_DELTA);
        delta.encode(scratch);
        Self(piece::copied(scratch))
    }

    /// What somebody else has encoded.
    #[must_use]
    pub fn from_encoded(encoded: &[u8]) -> Self {
        Self(piece::joined(PLAIN_DELTA, encoded))
    }

    /// The encoded delta.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.0[PLAIN_DELTA.len()..]
    }

    /// The operand that says that nothing is pending.
    pub(crate) fn operand(&self) -> Bytes {
        self.0.clone()
    }

    /// The row of the delta that was decoded from here.
    pub(crate) fn row_of(&self, delta: &Delta<'_>) -> Row {
        self.0.slice_ref(delta.row)
    }
}

impl fmt::Debug for RawDelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Delta::decode(self.encoded()) {
            Some(delta) => delta.fmt(f),
            None => write!(f, "unreadable: {:?}", self.encoded()),
        }
    }
}

impl Serialize for RawDelta {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(self.encoded())
    }
}

impl<'de> Deserialize<'de> for RawDelta {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_bytes(Copied(PLAIN_DELTA)).map(Self)
    }
}
