//! FrameDecoder: frames read in place from a stream of bytes.

use ring::Hlc;

use super::{CHECKSUM_AT, FLAG_LZ4, FrameError, HEADER, Header, Kind, checksum};
use super::{WIRE_VERSION, WIRE_VERSION_MIN};
use crate::limits::{FRAME_BODY_BYTES_MAX, LZ4_RATIO_MAX, RESERVE_BYTES_MAX, SCRATCH_KEPT_MAX};

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

fn array<const N: usize>(head: &[u8; HEADER], at: usize) -> [u8; N] {
    *head[at..].first_chunk().expect("every field ends before the header does")
}
