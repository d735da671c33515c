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

use crate::limits::{
    FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES, LZ4_RATIO_MAX, LZ4_THRESHOLD, RESERVE_BYTES_MAX,
    SCRATCH_KEPT_MAX,
};

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

/// A whole frame whose checksum was right.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// What it says about itself.
    pub header: Header,
    /// The version that it was written in.
    pub version: u8,
    /// Its body, decompressed.
    pub body: &'a [u8],
    /// Drop this many bytes from the front of the buffer before the next call.
    pub consumed: usize,
}

/// The state of one connection's stream of frames between reads.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    /// A body decompressed.
    scratch: Vec<u8>,
    /// The length of the frame that is arriving, 0 if its header is not there yet.
    expected: usize,
    failed: Option<FrameError>,
}

impl FrameDecoder {
    /// A decoder at the beginning of a connection.
    #[must_use]
    pub const fn new() -> Self {
        Self { scratch: Vec::new(), expected: 0, failed: None }
    }

    /// The next frame of `buf`, or `None` if it is not all there yet.
    ///
    /// `buf` holds every byte since the last one consumed. A header is judged as soon as it is
    /// there, the checksum once the whole frame is.
    ///
    /// # Errors
    /// [`FrameError`]: close the connection; every later call returns the same.
    pub fn decode<'a>(&'a mut self, buf: &'a [u8]) -> Result<Option<Frame<'a>>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        match read(buf, &mut self.expected, &mut self.scratch) {
            Err(error) => {
                self.failed = Some(error);
                Err(error)
            }
            Ok(None) => Ok(None),
            Ok(Some(Whole { header, version, plain, consumed })) => {
                let body = if plain { &buf[HEADER..consumed] } else { &self.scratch };
                Ok(Some(Frame { header, version, body, consumed }))
            }
        }
    }

    /// After `None`: how many bytes more than `buffered` to make room for before the next read.
    ///
    /// Zero means that it is not known, so that any read will do. It never exceeds the larger of
    /// 64 KiB and `buffered`.
    #[must_use]
    pub fn reserve_hint(&self, buffered: usize) -> usize {
        self.expected.saturating_sub(buffered).min(buffered.max(RESERVE_BYTES_MAX))
    }
}

/// A frame that is all there; its body stands in the buffer, or decompressed in the scratch.
struct Whole {
    header: Header,
    version: u8,
    plain: bool,
    consumed: usize,
}

fn read(
    buf: &[u8],
    expected: &mut usize,
    scratch: &mut Vec<u8>,
) -> Result<Option<Whole>, FrameError> {
    // The version stands first, so that a stranger is told apart by its first byte.
    if let Some(&theirs) = buf.first()
        && !(WIRE_VERSION_MIN..=WIRE_VERSION).contains(&theirs)
    {
        return Err(FrameError::Version { theirs, oldest: WIRE_VERSION_MIN, newest: WIRE_VERSION });
    }
    let Some(head) = buf.first_chunk::<HEADER>() else { return Ok(None) };
    let flags = u16::from_le_bytes(array(head, 2));
    let body_bytes = u32::from_le_bytes(array(head, 4));
    if flags & !FLAG_LZ4 != 0 {
        return Err(FrameError::UnknownFlags { flags: flags & !FLAG_LZ4 });
    }
    if body_bytes > FRAME_BODY_BYTES_MAX {
        return Err(FrameError::TooLarge { bytes: body_bytes.into() });
    }
    let consumed = HEADER + body_bytes as usize;
    if buf.len() < consumed {
        *expected = consumed;
        return Ok(None);
    }
    *expected = 0;
    let body = &buf[HEADER..consumed];
    let sent = u32::from_le_bytes(array(head, CHECKSUM_AT.start));
    let found = checksum(head, body);
    if sent != found {
        return Err(FrameError::Checksum { sent, found });
    }
    let plain = flags & FLAG_LZ4 == 0;
    if !plain {
        decompress(body, scratch)?;
    }
    let header = Header {
        kind: Kind(head[1]),
        epoch: u64::from_le_bytes(array(head, 8)),
        deadline_us: u32::from_le_bytes(array(head, 16)),
        hlc: Hlc(u64::from_le_bytes(array(head, 24))),
        request_id: u64::from_le_bytes(array(head, 32)),
    };
    Ok(Some(Whole { header, version: head[0], plain, consumed }))
}

fn decompress(body: &[u8], scratch: &mut Vec<u8>) -> Result<(), FrameError> {
    let (length, block) = body.split_first_chunk().ok_or(FrameError::Compression)?;
    let length = u32::from_le_bytes(*length);
    if length > FRAME_BODY_BYTES_MAX {
        return Err(FrameError::TooLarge { bytes: length.into() });
    }
    // A few bytes must not make us allocate millions: no block expands further than this.
    let length = length as usize;
    if length > block.len() * LZ4_RATIO_MAX {
        return Err(FrameError::Compression);
    }
    if scratch.capacity() > SCRATCH_KEPT_MAX && length <= SCRATCH_KEPT_MAX {
        *scratch = Vec::new();
    }
    scratch.resize(length, 0);
    match lz4_flex::block::decompress_into(block, scratch) {
        Ok(written) if written == length => Ok(()),
        Ok(_) | Err(_) => Err(FrameError::Compression),
    }
}

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

fn array<const N: usize>(head: &[u8; HEADER], at: usize) -> [u8; N] {
    *head[at..].first_chunk().expect("every field ends before the header does")
}

/// Builds frames one behind the other in one buffer that is reused.
///
/// ```
/// # use ringdb_wire::{FrameWriter, Header, Kind, codec};
/// let mut writer = FrameWriter::new();
/// writer.begin(Header::new(Kind::PEER_MESSAGES));
/// for message in ["one", "two"] {
///     codec::encode_into(&message, writer.body());
/// }
/// writer.finish().expect("two words fit a frame");
/// assert_eq!(writer.bytes().len(), 40 + 2 * 4);
/// ```
#[derive(Default)]
pub struct FrameWriter {
    out: Vec<u8>,
    open: Option<Open>,
    compressor: Option<Box<Compressor>>,
}

/// The frame that is being built.
struct Open {
    start: usize,
    header: Header,
}

/// What compression needs and we keep: a table of 16 KiB and the compressed bytes.
struct Compressor {
    table: lz4_flex::block::CompressTable,
    block: Vec<u8>,
}

impl FrameWriter {
    /// A writer without frames.
    #[must_use]
    pub const fn new() -> Self {
        Self { out: Vec::new(), open: None, compressor: None }
    }

    /// Begins a frame; its body is empty.
    ///
    /// # Panics
    /// If a frame is open.
    pub fn begin(&mut self, header: Header) {
        assert!(self.open.is_none(), "a frame is begun inside another: {header:?}");
        self.open = Some(Open { start: self.out.len(), header });
        self.out.extend_from_slice(&[0; HEADER]);
    }

    /// Where the open frame's body is to be appended; what stands in it already must stay.
    ///
    /// # Panics
    /// If no frame is open.
    pub fn body(&mut self) -> &mut Vec<u8> {
        assert!(self.open.is_some(), "no frame is open");
        &mut self.out
    }

    /// How long the open frame's body is so far; 0 if none is open.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.open.as_ref().map_or(0, |open| self.out.len() - open.start - HEADER)
    }

    /// Closes the open frame: compresses its body if that pays, and seals it.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`]; the frame is gone, those before it stay.
    ///
    /// # Panics
    /// If no frame is open, or bytes before its body were taken away.
    pub fn finish(&mut self) -> Result<(), FrameError> {
        let Open { start, header } = self.open.take().expect("finish follows begin");
        let body_at = start + HEADER;
        assert!(self.out.len() >= body_at, "the body took {} bytes too many away", body_at);
        let plain_bytes = self.out.len() - body_at;
        if plain_bytes > FRAME_BODY_BYTES_MAX as usize {
            self.out.truncate(start);
            return Err(FrameError::TooLarge { bytes: plain_bytes as u64 });
        }
        let flags = if self.compress(body_at) { FLAG_LZ4 } else { 0 };
        let head = &mut self.out[start..body_at];
        head[0] = WIRE_VERSION;
        head[1] = header.kind.0;
        head[2..4].copy_from_slice(&flags.to_le_bytes());
        head[8..16].copy_from_slice(&header.epoch.to_le_bytes());
        head[16..20].copy_from_slice(&header.deadline_us.to_le_bytes());
        head[24..32].copy_from_slice(&header.hlc.0.to_le_bytes());
        head[32..40].copy_from_slice(&header.request_id.to_le_bytes());
        seal(&mut self.out[start..]);
        Ok(())
    }

    /// Throws the open frame away, if there is one; those before it stay.
    pub fn abandon(&mut self) {
        if let Some(open) = self.open.take() {
            self.out.truncate(open.start);
        }
    }

    /// A whole frame with this body.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`]; nothing is appended.
    pub fn frame(&mut self, header: Header, body: &[u8]) -> Result<(), FrameError> {
        self.begin(header);
        self.body().extend_from_slice(body);
        self.finish()
    }

    /// Every finished frame, to be sent.
    ///
    /// # Panics
    /// If a frame is open.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        assert!(self.open.is_none(), "a frame is still open");
        &self.out
    }

    /// Forgets the finished frames and keeps their memory.
    pub fn clear(&mut self) {
        self.open = None;
        self.out.clear();
    }

    /// Exchanges the finished frames for `other`, which is emptied and written to next: the sender
    /// takes a full buffer and leaves the one that it has sent.
    ///
    /// # Panics
    /// If a frame is open.
    pub fn swap(&mut self, other: &mut Vec<u8>) {
        assert!(self.open.is_none(), "a frame is still open");
        other.clear();
        core::mem::swap(&mut self.out, other);
    }

    /// Replaces the body at `body_at` by its compressed form if that is shorter.
    fn compress(&mut self, body_at: usize) -> bool {
        let body = &self.out[body_at..];
        if body.len() <= LZ4_THRESHOLD {
            return false;
        }
        let compressor = self.compressor.get_or_insert_with(|| {
            Box::new(Compressor {
                table: lz4_flex::block::CompressTable::large(),
                block: Vec::new(),
            })
        });
        let room = lz4_flex::block::get_maximum_output_size(body.len());
        if compressor.block.len() < room {
            compressor.block.resize(room, 0);
        }
        let written = lz4_flex::block::compress_into_with_table(
            body,
            &mut compressor.block,
            &mut compressor.table,
        )
        .expect("the block has the room that the library asks for");
        let shrinks = written + 4 < body.len();
        if shrinks {
            let length = (body.len() as u32).to_le_bytes();
            self.out.truncate(body_at);
            self.out.extend_from_slice(&length);
            self.out.extend_from_slice(&compressor.block[..written]);
        }
        if compressor.block.len() > SCRATCH_KEPT_MAX {
            compressor.block = Vec::new();
        }
        shrinks
    }
}

impl fmt::Debug for FrameWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameWriter")
            .field("bytes", &self.out.len())
            .field("open", &self.open.as_ref().map(|open| open.header))
            .finish()
    }
}
