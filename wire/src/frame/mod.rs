//! Frames: what nodes, `ringctl` and the native client send each other, over any byte stream.
//!
//! ```text
//! offset  0  version      u8     all integers little-endian
//!         1  kind         u8     what the body is: see Kind
//!         2  flags        u16    1 = the body is an LZ4 block behind its u32 length
//!         4  body length  u32    as sent
//!         8  epoch        u64    the sender's layout
//!        16  deadline     u32    microseconds left, 0 = none
//!        20  checksum     u32    CRC-32 (IEEE) of header, with this field 0, and body as sent
//!        24  hlc          u64    the sender's hybrid logical clock
//!        32  request id   u64    0 = answers nothing and expects no answer
//!        40  body
//! ```
//!
//! A frame is built in place behind others in one buffer ([`FrameWriter`]) and read in place
//! ([`FrameDecoder`]). What does not check out is never handed on: a frame is a body whose checksum
//! was right, or an error that ends the connection.

use core::fmt;
use core::time::Duration;

use ring::Hlc;

use crate::limits::{FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES};

mod read;
mod write;

pub use read::{Frame, FrameDecoder};
pub use write::FrameWriter;

/// The version of this format and of the messages in it that we write.
pub const WIRE_VERSION: u8 = 1;

/// The oldest version that we still read.
pub const WIRE_VERSION_MIN: u8 = 1;

const HEADER: usize = FRAME_HEADER_BYTES as usize;
const CHECKSUM_AT: core::ops::Range<usize> = 20..24;

/// The body is compressed: its length once decompressed (u32), then an LZ4 block.
const FLAG_LZ4: u16 = 1;

/// What a frame's body is. Open: a reader that does not know a kind says so to the sender, and the
/// framing goes on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u8);

impl Kind {
    /// The first frame of a connection, each way: who speaks, which versions.
    pub const HELLO: Self = Self(1);
    /// Proof of life.
    pub const HEARTBEAT: Self = Self(2);
    /// A sequence of messages between nodes about copies.
    pub const PEER_MESSAGES: Self = Self(3);
    /// Part of a large transfer between nodes.
    pub const BULK: Self = Self(4);
    /// A [`ClientRequest`](crate::ClientRequest).
    pub const CLIENT_REQUEST: Self = Self(5);
    /// A [`ClientReply`](crate::ClientReply).
    pub const CLIENT_REPLY: Self = Self(6);
    /// A request that needs an administrator's certificate.
    pub const ADMIN_REQUEST: Self = Self(7);
    /// Its answer.
    pub const ADMIN_REPLY: Self = Self(8);
    /// A [`Moment`](crate::moment::Moment): when the frames behind it were made.
    pub const MOMENT: Self = Self(9);
    /// A sequence of [`Ack`](crate::ack::Ack)s: writes of this client that this node holds.
    pub const ACKS: Self = Self(10);
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::HELLO => "hello",
            Self::HEARTBEAT => "heartbeat",
            Self::PEER_MESSAGES => "peer messages",
            Self::BULK => "bulk",
            Self::CLIENT_REQUEST => "client request",
            Self::CLIENT_REPLY => "client reply",
            Self::ADMIN_REQUEST => "admin request",
            Self::ADMIN_REPLY => "admin reply",
            Self::MOMENT => "moment",
            Self::ACKS => "acks",
            Self(other) => return write!(f, "kind {other}"),
        })
    }
}

/// What a frame says about itself beside its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the body is.
    pub kind: Kind,
    /// The epoch of the sender's layout.
    pub epoch: u64,
    /// Microseconds that the sender still waits, 0 for ever: an interval, since clocks differ.
    pub deadline_us: u32,
    /// The sender's clock, to be merged on receipt.
    pub hlc: Hlc,
    /// Joins an answer to its request; 0 if there is nothing to join.
    pub request_id: u64,
}

impl Header {
    /// A header with nothing but a kind.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self { kind, epoch: 0, deadline_us: 0, hlc: Hlc(0), request_id: 0 }
    }

    /// With so much time left, at least a microsecond and at most 71 minutes; `None` for ever.
    #[must_use]
    pub fn with_time_left(self, left: Option<Duration>) -> Self {
        let deadline_us =
            left.map_or(0, |left| u32::try_from(left.as_micros()).unwrap_or(u32::MAX).max(1));
        Self { deadline_us, ..self }
    }

    /// How much time was left when it was sent; `None` if the sender waits for ever.
    #[must_use]
    pub const fn time_left(&self) -> Option<Duration> {
        match self.deadline_us {
            0 => None,
            us => Some(Duration::from_micros(us as u64)),
        }
    }
}

/// Why a connection's frames cannot be read any longer, or a frame cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The sender speaks a version that we do not.
    Version {
        /// What it speaks.
        theirs: u8,
        /// The oldest that we read.
        oldest: u8,
        /// The newest that we read.
        newest: u8,
    },
    /// The frame means something by a flag that we do not know.
    UnknownFlags {
        /// Those flags.
        flags: u16,
    },
    /// The body is above [`FRAME_BODY_BYTES_MAX`], as sent or once decompressed.
    TooLarge {
        /// Its length.
        bytes: u64,
    },
    /// The frame was damaged on the way.
    Checksum {
        /// What the frame says.
        sent: u32,
        /// What its bytes give.
        found: u32,
    },
    /// The body does not decompress to what it announces.
    Compression,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { theirs, oldest, newest } => {
                write!(f, "the peer speaks wire version {theirs}, this node {oldest} to {newest}")
            }
            Self::UnknownFlags { flags } => write!(f, "a frame has unknown flags {flags:#06x}"),
            Self::TooLarge { bytes } => {
                write!(f, "a frame's body has {bytes} bytes, the limit is {FRAME_BODY_BYTES_MAX}")
            }
            Self::Checksum { sent, found } => {
                write!(f, "a frame's checksum is {found:08x}, it was sent as {sent:08x}")
            }
            Self::Compression => f.write_str("a frame's body cannot be decompressed"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Puts the length and the checksum into the header of a frame that is otherwise complete.
///
/// # Panics
/// If `frame` is shorter than a header.
pub(crate) fn seal(frame: &mut [u8]) {
    let (head, body) = frame.split_first_chunk_mut().expect("a frame begins with its header");
    head[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
    let sum = checksum(head, body);
    head[CHECKSUM_AT].copy_from_slice(&sum.to_le_bytes());
}

fn checksum(head: &[u8; HEADER], body: &[u8]) -> u32 {
    let mut head = *head;
    head[CHECKSUM_AT].fill(0);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head);
    hasher.update(body);
    hasher.finalize()
}
