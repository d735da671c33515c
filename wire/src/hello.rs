//! Hello: the first bytes of every stream, each way. Who speaks, of which cluster, which versions.
//!
//! ```text
//! offset  0  magic      4 bytes  "RDB1"           integers are little-endian
//!         4  purpose    u8       0 fast lane, 1 bulk lane, 2 client
//!         5  wire min   u8       oldest version of the frames that the speaker reads
//!         6  wire max   u8       newest version that it writes
//!         7  zero       u8
//!         8  node       u32      the speaker's number; 0 if it is a client
//!        12  zero       u32
//!        16  boot       u64      chosen anew by every start of a process; of a client: the number in its
//!                                requests' names, 0 if it gives them none
//!        24  cluster    u128     the cluster's id; 0 if a client does not know it yet
//! ```
//!
//! The acceptor answers the first stream of a connection with its own hello; then each side sends
//! pieces, each a length ([`LENGTH_BYTES`]) and that many bytes of one or more whole
//! [frames](crate::frame). Promise: both ends then agree on the version, or the connection was
//! closed with a reason that names both ranges, under one of the codes in [`close`].

use core::fmt;

use ring::{ClusterId, NodeId};

use crate::frame::{WIRE_VERSION, WIRE_VERSION_MIN};

/// Length of a hello.
pub const HELLO_BYTES: usize = 40;

/// What stands before each piece after the hello: its length, a little-endian `u32`.
pub const LENGTH_BYTES: usize = 4;

const MAGIC: [u8; 4] = *b"RDB1";

/// Why one side closed a connection: the code of QUIC's close frame.
pub mod close {
    /// The process ends, or this peer is no longer wanted.
    pub const CLOSING: u32 = 1;
    /// A newer connection of the same peer took its place.
    pub const REPLACED: u32 = 2;
    /// Not a hello, or not in time.
    pub const BAD_HELLO: u32 = 3;
    /// A member of another cluster.
    pub const WRONG_CLUSTER: u32 = 4;
    /// The certificate's role does not allow what was tried.
    pub const WRONG_ROLE: u32 = 5;
    /// A node that is no member, or that gives another number than the layout.
    pub const UNKNOWN_NODE: u32 = 6;
    /// No version of the frames that both sides know.
    pub const WIRE_VERSION: u32 = 7;
    /// A length beyond the largest frame.
    pub const OVERSIZED: u32 = 8;
    /// The layer above found the content wrong.
    pub const CONTENT: u32 = 9;
    /// Too many connections.
    pub const BUSY: u32 = 10;
    /// Another process runs under the same name.
    pub const SECOND: u32 = 11;
}

/// The versions of the frames that somebody can read and write, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub min: u8,
    /// The newest.
    pub max: u8,
}

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Small frames between nodes.
    Fast,
    /// Large transfers between nodes.
    Bulk,
    /// Requests of a client and their replies.
    Client,
}

/// The first bytes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What the stream is for.
    pub purpose: Purpose,
    /// What the speaker can read and write.
    pub wire: Versions,
    /// Who speaks; 0 for a client.
    pub node: NodeId,
    /// Which start of its process.
    pub boot: u64,
    /// Of which cluster.
    pub cluster: ClusterId,
}

impl Versions {
    /// What this build reads and writes.
    pub const OURS: Self = Self { min: WIRE_VERSION_MIN, max: WIRE_VERSION };

    /// The newest version that both know.
    #[must_use]
    pub fn agree(self, other: Self) -> Option<u8> {
        let newest = self.max.min(other.max);
        (newest >= self.min && newest >= other.min).then_some(newest)
    }
}

impl Hello {
    /// As it stands on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut out = [0; HELLO_BYTES];
        out[..4].copy_from_slice(&MAGIC);
        out[4] = match self.purpose {
            Purpose::Fast => 0,
            Purpose::Bulk => 1,
            Purpose::Client => 2,
        };
        out[5] = self.wire.min;
        out[6] = self.wire.max;
        out[8..12].copy_from_slice(&self.node.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.boot.to_le_bytes());
        out[24..40].copy_from_slice(&self.cluster.0.to_le_bytes());
        out
    }

    /// The inverse; `None` for anything that is no hello.
    #[must_use]
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Option<Self> {
        let purpose = match bytes[4] {
            0 => Purpose::Fast,
            1 => Purpose::Bulk,
            2 => Purpose::Client,
            _ => return None,
        };
        let wire = Versions { min: bytes[5], max: bytes[6] };
        if bytes[..4] != MAGIC || wire.min > wire.max {
            return None;
        }
        let at = |from: usize| {
            let word = bytes[from..from + 8].try_into().expect("a slice of eight is eight bytes");
            u64::from_le_bytes(word)
        };
        Some(Self {
            purpose,
            wire,
            node: NodeId(at(8) as u32),
            boot: at(16),
            cluster: ClusterId(u128::from(at(24)) | (u128::from(at(32)) << 64)),
        })
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{} to v{}", self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_arrives_as_it_was_said() {
        for purpose in [Purpose::Fast, Purpose::Bulk, Purpose::Client] {
            let hello = Hello {
                purpose,
                wire: Versions { min: 1, max: 3 },
                node: NodeId(u32::MAX),
                boot: 0x0102_0304_0506_0708,
                cluster: ClusterId(u128::MAX - 7),
            };
            assert_eq!(Hello::decode(&hello.encode()), Some(hello));
        }
        assert_eq!(Hello::decode(&[0; HELLO_BYTES]), None);
    }

    #[test]
    fn versions_agree_on_the_newest_that_both_know() {
        let range = |min, max| Versions { min, max };
        assert_eq!(range(1, 2).agree(range(1, 1)), Some(1));
        assert_eq!(range(1, 3).agree(range(2, 4)), Some(3));
        assert_eq!(range(1, 1).agree(range(2, 3)), None);
        assert_eq!(range(2, 3).agree(range(1, 1)), None);
    }
}
