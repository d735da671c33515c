//! Block handles, block trailers and the footer.

use crate::checksum::block_checksum;
use crate::codec::{put_varint, u32_at, u64_at, varint};
use crate::limits::BLOCK_BYTES_MAX;

pub(crate) const FOOTER_BYTES: usize = 53;
pub(crate) const TRAILER_BYTES: usize = 5;
pub(crate) const UNCOMPRESSED: u8 = 0;
pub(crate) const LZ4: u8 = 4;

const MAGIC: u64 = 0x88e2_41b7_85f4_cff7;
const CHECKSUM_XXH3: u8 = 4;
const FORMAT_VERSION: u32 = 5;

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
}

/// The footer for these two blocks.
pub(crate) fn encode_footer(metaindex: Handle, index: Handle) -> Vec<u8> {
    let mut footer = vec![CHECKSUM_XXH3];
    metaindex.encode(&mut footer);
    index.encode(&mut footer);
    footer.resize(41, 0);
    footer.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    footer.extend_from_slice(&MAGIC.to_le_bytes());
    footer
}

/// Metaindex and index of a footer, if it is one of ours.
pub(crate) fn decode_footer(footer: &[u8]) -> Option<(Handle, Handle)> {
    let ours = footer.len() == FOOTER_BYTES
        && u64_at(footer, 45)? == MAGIC
        && u32_at(footer, 41)? == FORMAT_VERSION
        && footer[0] == CHECKSUM_XXH3;
    let mut handles = ours.then(|| &footer[1..41])?;
    Some((Handle::decode(&mut handles)?, Handle::decode(&mut handles)?))
}

/// Appends `payload` with its trailer.
pub(crate) fn seal(out: &mut Vec<u8>, payload: &[u8], kind: u8) {
    out.extend_from_slice(payload);
    out.push(kind);
    out.extend_from_slice(&block_checksum(payload, kind).to_le_bytes());
}

/// The content of a block read with its trailer, if its checksum holds.
pub(crate) fn unseal(mut sealed: Vec<u8>) -> Option<Vec<u8>> {
    let len = sealed.len().checked_sub(TRAILER_BYTES)?;
    let kind = sealed[len];
    if u32_at(&sealed, len + 1)? != block_checksum(&sealed[..len], kind) {
        return None;
    }
    sealed.truncate(len);
    match kind {
        UNCOMPRESSED => Some(sealed),
        LZ4 => {
            let mut rest = sealed.as_slice();
            let size = usize::try_from(varint(&mut rest)?).ok()?;
            let bounded = size <= BLOCK_BYTES_MAX && size / 256 <= rest.len();
            bounded.then_some(())?;
            let mut out = vec![0; size];
            let n = lz4_flex::block::decompress_into(rest, &mut out).ok()?;
            (n == size).then_some(out)
        }
        _ => None,
    }
}

/// `payload` compressed, if that saves at least an eighth.
pub(crate) fn compress(payload: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(payload.len() + payload.len() / 200 + 32);
    put_varint(&mut out, payload.len() as u64);
    let head = out.len();
    out.resize(head + lz4_flex::block::get_maximum_output_size(payload.len()), 0);
    let n = lz4_flex::block::compress_into(payload, &mut out[head..]).ok()?;
    out.truncate(head + n);
    (out.len() < payload.len() / 8 * 7).then_some(out)
}
