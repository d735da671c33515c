//! How a value stands in a table: as it is, escaped, or as a pointer to where it is.

use super::file::HEADER_BYTES;
use crate::codec::{put_varint, varint};
use std::borrow::Cow;

/// Begins every value in a table that is not simply itself. No UTF-8 text begins so.
const TAG: &[u8; 7] = b"\xf5ringdb";
/// A value in a table that does not begin with it is simply itself.
pub(crate) const TAG_FIRST: u8 = TAG[0];
const ESCAPED: u8 = 0;
const POINTER: u8 = 1;

/// Where a large value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pointer {
    pub(crate) file: u64,
    /// Where its block begins.
    pub(crate) offset: u64,
    /// Bytes of its data, as stored.
    pub(crate) size: u32,
}

/// A value as a table holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored<'a> {
    Inline(&'a [u8]),
    Elsewhere(Pointer),
}

impl Pointer {
    /// Bytes of its block.
    pub(crate) fn block_bytes(self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.size)
    }

    /// What stands in the table.
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = TAG.to_vec();
        out.push(POINTER);
        [self.file, self.offset, u64::from(self.size)]
            .iter()
            .for_each(|v| put_varint(&mut out, *v));
        out
    }

    fn decode(mut rest: &[u8]) -> Option<Self> {
        let (file, offset) = (varint(&mut rest)?, varint(&mut rest)?);
        let size = u32::try_from(varint(&mut rest)?).ok()?;
        rest.is_empty().then_some(Self { file, offset, size })
    }
}

/// What the bytes of a put in a table mean.
pub(crate) fn stored(bytes: &[u8]) -> Stored<'_> {
    // One comparison of a byte settles nearly all.
    if bytes.first() == Some(&TAG[0])
        && let Some(rest) = bytes.strip_prefix(TAG)
        && let Some((kind, rest)) = rest.split_first()
    {
        match *kind {
            ESCAPED => return Stored::Inline(rest),
            POINTER => {
                if let Some(pointer) = Pointer::decode(rest) {
                    return Stored::Elsewhere(pointer);
                }
            }
            _ => {}
        }
    }
    Stored::Inline(bytes)
}

/// `value` as a table holds it inline.
pub(crate) fn escape(value: &[u8]) -> Cow<'_, [u8]> {
    if value.starts_with(TAG) {
        Cow::Owned([TAG.as_slice(), &[ESCAPED], value].concat())
    } else {
        Cow::Borrowed(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_comes_back_also_one_that_looks_like_a_pointer() {
        let pointer = Pointer { file: 7, offset: 1 << 40, size: 70_000 };
        assert_eq!(stored(&pointer.encode()), Stored::Elsewhere(pointer));
        let lookalike = pointer.encode();
        let escaped = escape(&lookalike).into_owned();
        let again = escape(&escaped).into_owned();
        for (raw, held) in [(&lookalike, &escaped), (&escaped, &again)] {
            assert_eq!(stored(held), Stored::Inline(raw));
        }
        for plain in [&b""[..], b"v", b"\xf5", b"\xf5ring"] {
            assert_eq!(stored(&escape(plain)), Stored::Inline(plain));
        }
    }
}
