//! Block handles, block trailers and the footer.

use crate::checksum::Checksum;
use crate::codec::{put_varint, u32_at, u64_at, varint};
use crate::limits::{BLOCK_BYTES_MAX, KEY_BYTES_MAX};

pub(crate) const FOOTER_BYTES: usize = 53;
pub(crate) const TRAILER_BYTES: usize = 5;
const UNCOMPRESSED: u8 = 0;
const LZ4: u8 = 4;
/// LZ4 that took longer to find more: the same to a reader.
const LZ4_HIGH: u8 = 5;

const MAGIC: u64 = 0x88e2_41b7_85f4_cff7;
/// Of tables before there was a format_version.
const LEGACY_MAGIC: u64 = 0xdb47_7524_8b80_fb57;
/// What we write.
const FORMAT_VERSION: u32 = 5;
/// What we read: the same layout; what differs says so in the properties.
const FORMAT_VERSIONS: std::ops::RangeInclusive<u32> = 2..=FORMAT_VERSION;

/// Where a block stands, without its trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handle {
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

impl Handle {
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        put_varint(out, self.offset);
        put_varint(out, self.size);
    }

    pub(crate) fn decode(input: &mut &[u8]) -> Option<Self> {
        Some(Self { offset: varint(input)?, size: varint(input)? })
    }

    /// Bytes in the file, with the trailer.
    pub(crate) fn sealed_len(self) -> u64 {
        self.size.saturating_add(TRAILER_BYTES as u64)
    }
}

/// What a footer says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Footer {
    pub(crate) checksum: Checksum,
    pub(crate) metaindex: Handle,
    pub(crate) index: Handle,
}

impl Footer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut footer = vec![self.checksum.number()];
        self.metaindex.encode(&mut footer);
        self.index.encode(&mut footer);
        footer.resize(41, 0);
        footer.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        footer.extend_from_slice(&MAGIC.to_le_bytes());
        footer
    }

    /// None when it is none that we can read.
    pub(crate) fn decode(footer: &[u8]) -> Option<Self> {
        let readable = footer.len() == FOOTER_BYTES
            && u64_at(footer, 45)? == MAGIC
            && FORMAT_VERSIONS.contains(&u32_at(footer, 41)?);
        let mut handles = readable.then(|| &footer[1..41])?;
        Some(Self {
            checksum: Checksum::of_number(footer[0])?,
            metaindex: Handle::decode(&mut handles)?,
            index: Handle::decode(&mut handles)?,
        })
    }
}

/// Of the footer of a sound table that RocksDB may have written and we cannot read: what it has, and how to
/// write it so that we can.
pub(crate) fn foreign_footer(footer: &[u8]) -> Option<String> {
    let (magic, version) = (u64_at(footer, 45)?, u32_at(footer, 41)?);
    let (first, last) = (FORMAT_VERSIONS.start(), FORMAT_VERSIONS.end());
    let mend = format!("write it with format_version {first} to {last}");
    match magic {
        MAGIC if version > 100 => None,
        MAGIC if !FORMAT_VERSIONS.contains(&version) => {
            Some(format!("format_version {version} is not supported; {mend}"))
        }
        MAGIC if Checksum::of_number(*footer.first()?).is_none() => {
            let kind = footer[0];
            let name = match kind {
                0 => "none",
                2 => "XXH32",
                3 => "XXH64",
                _ => return None,
            };
            let mend = "write it with CRC32c or XXH3";
            Some(format!("checksum {kind} ({name}) is not supported; {mend}"))
        }
        LEGACY_MAGIC => Some(format!("format_version 0 is not supported; {mend}")),
        _ => None,
    }
}

/// The same of a block with its trailer, whose checksum holds.
pub(crate) fn foreign_block(sealed: &[u8], checksum: Checksum) -> Option<String> {
    let (payload, trailer) = sealed.split_last_chunk::<TRAILER_BYTES>()?;
    let kind = trailer[0];
    let name = match kind {
        1 => "Snappy",
        2 => "ZLIB",
        3 => "BZip2",
        6 => "XPRESS",
        7 => "ZSTD",
        _ => return None,
    };
    let holds = u32_at(trailer, 1)? == checksum.of(payload, kind);
    holds
        .then(|| format!("compression {kind} ({name}) is not supported; write it with LZ4 or none"))
}

/// The same of a key that is longer than ours.
pub(crate) fn foreign_key(bytes: usize) -> Option<String> {
    let mend = "leave that row out, or shorten its key";
    (bytes > KEY_BYTES_MAX).then(|| {
        format!("a key of {bytes} bytes is not supported, at most {KEY_BYTES_MAX} are; {mend}")
    })
}

/// Appends `payload` with its trailer, compressed if `compress` and where that saves enough.
/// Returns the size without the trailer.
pub(crate) fn seal(out: &mut Vec<u8>, payload: &[u8], compress: bool) -> u64 {
    let from = out.len();
    let kind = if compress && compress_to(out, payload) {
        LZ4
    } else {
        out.extend_from_slice(payload);
        UNCOMPRESSED
    };
    let sealed = &out[from..];
    let (size, sum) = (sealed.len() as u64, Checksum::Xxh3.of(sealed, kind));
    out.push(kind);
    out.extend_from_slice(&sum.to_le_bytes());
    size
}

/// Appends `payload` compressed, if that saves at least an eighth.
fn compress_to(out: &mut Vec<u8>, payload: &[u8]) -> bool {
    let from = out.len();
    put_varint(out, payload.len() as u64);
    let head = out.len();
    // No more room than is worth it: what does not shrink is noticed early.
    out.resize(from + payload.len() / 8 * 7, 0);
    let packed = match out.get_mut(head..) {
        Some(room) if !room.is_empty() => {
            lz4::block::compress_to_buffer(payload, None, false, room)
        }
        _ => Ok(0),
    };
    let packed = packed.unwrap_or(0);
    out.truncate(if packed == 0 { from } else { head + packed });
    packed > 0
}

/// What stands in a block's place in the file, of which the checksum holds.
#[derive(Clone, Copy)]
pub(crate) struct Payload<'a> {
    bytes: &'a [u8],
    /// Compressed, and how long it is when it is not.
    packed: Option<usize>,
}

impl<'a> Payload<'a> {
    /// The payload of a block read with its trailer; none when that cannot be believed.
    pub(crate) fn of(sealed: &'a [u8], checksum: Checksum) -> Option<Self> {
        let (payload, trailer) = sealed.split_last_chunk::<TRAILER_BYTES>()?;
        let kind = trailer[0];
        if u32_at(trailer, 1)? != checksum.of(payload, kind) {
            return None;
        }
        match kind {
            UNCOMPRESSED => Some(Self { bytes: payload, packed: None }),
            LZ4 | LZ4_HIGH => {
                let mut rest = payload;
                let size = usize::try_from(varint(&mut rest)?).ok()?;
                // LZ4 packs at most 255 bytes into one: more is a lie that would cost memory.
                let bounded = size <= BLOCK_BYTES_MAX && size / 256 <= rest.len();
                bounded.then_some(Self { bytes: rest, packed: Some(size) })
            }
            _ => None,
        }
    }

    /// Bytes of the content.
    pub(crate) fn len(self) -> usize {
        self.packed.unwrap_or(self.bytes.len())
    }

    /// Writes the content to `room`, which has its length; none when it is no such content.
    pub(crate) fn unpack(self, room: &mut [u8]) -> Option<()> {
        let Some(size) = self.packed else {
            return (room.len() == self.bytes.len()).then(|| room.copy_from_slice(self.bytes));
        };
        let claimed = i32::try_from(size).ok()?;
        let n = lz4::block::decompress_to_buffer(self.bytes, Some(claimed), room).ok()?;
        (n == size && room.len() == size).then_some(())
    }
}

/// The content of a block read with its trailer, if its checksum holds: a part of `sealed`, or
/// decompressed into `buffer`.
pub(crate) fn unseal<'a>(
    sealed: &'a [u8],
    checksum: Checksum,
    buffer: &'a mut Vec<u8>,
) -> Option<&'a [u8]> {
    unpack(Payload::of(sealed, checksum)?, buffer)
}

/// The content of `payload`: a part of it, or decompressed into `buffer`.
pub(crate) fn unpack<'a>(payload: Payload<'a>, buffer: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    let Some(size) = payload.packed else { return Some(payload.bytes) };
    if buffer.len() < size {
        buffer.resize(size, 0);
    }
    let room = buffer.get_mut(..size)?;
    payload.unpack(room)?;
    Some(room)
}
