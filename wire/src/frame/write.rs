//! FrameWriter: frames built in place, one behind the other.

use core::fmt;

use super::{FLAG_LZ4, FrameError, HEADER, Header, WIRE_VERSION, seal};
use crate::limits::{FRAME_BODY_BYTES_MAX, LZ4_THRESHOLD, SCRATCH_KEPT_MAX};

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
