//! The codec: values as MessagePack with named fields. The only call to the MessagePack library.
//!
//! Fields carry their names, so that an old reader skips a new field and a new reader fills an old
//! message's missing one with `#[serde(default)]`. Bytes must be declared with `serde_bytes`, else
//! they become lists of integers, ten times slower.
//!
//! Promise: decoding allocates no more than the input justifies. Before the library sees a value,
//! [`decode_next`] walks over its outline: every announced element must be backed by at least one
//! byte that is there, and every string by all of its bytes.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::CODEC_DEPTH_MAX;

/// Why bytes are not the value that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodecError {
    /// The bytes end before the value does, or announce more elements than they hold.
    Truncated,
    /// The bytes go on after the value.
    Trailing {
        /// How many follow.
        bytes: usize,
    },
    /// They are a value, but not one of this type: an unknown variant, a missing field, a number
    /// out of range, nested too deeply.
    Mismatch {
        /// What did not fit, for people.
        what: String,
    },
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the message is cut short"),
            Self::Trailing { bytes } => write!(f, "{bytes} bytes follow the message"),
            Self::Mismatch { what } => write!(f, "the message is not understood: {what}"),
        }
    }
}

impl std::error::Error for CodecError {}

/// Appends `value`.
///
/// # Panics
/// If `value` refuses to be serialised; none of our types does.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    let mut serializer = rmp_serde::Serializer::new(out).with_struct_map();
    value.serialize(&mut serializer).expect("memory takes every byte, and our types serialise");
}

/// The value that `bytes` are, borrowing strings and bytes from them.
///
/// # Errors
/// [`CodecError`]: `bytes` are not exactly one such value.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    let (value, rest) = decode_next(bytes)?;
    if rest.is_empty() { Ok(value) } else { Err(CodecError::Trailing { bytes: rest.len() }) }
}

/// The first value of a sequence, and the bytes after it.
///
/// # Errors
/// [`CodecError`]: `bytes` do not begin with such a value.
pub fn decode_next<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), CodecError> {
    let (value, rest) = bytes.split_at(outline(bytes).ok_or(CodecError::Truncated)?);
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(value);
    deserializer.set_max_depth(CODEC_DEPTH_MAX);
    match T::deserialize(&mut deserializer) {
        Ok(value) => Ok((value, rest)),
        Err(error) => Err(CodecError::Mismatch { what: error.to_string() }),
    }
}

/// The length of the first value of `bytes`; `None` if it is not all there, is no MessagePack, or
/// announces more elements than there are bytes.
fn outline(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut values_left = 1_usize;
    while values_left > 0 {
        let marker = *bytes.get(at)?;
        at += 1;
        values_left -= 1;
        // How many bytes follow the marker as content, and how many values as elements.
        let (content, elements) = match marker {
            // Small integers, nil, booleans.
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => (0, 0),
            // Short maps, lists and strings.
            0x80..=0x8f => (0, 2 * usize::from(marker & 0x0f)),
            0x90..=0x9f => (0, usize::from(marker & 0x0f)),
            0xa0..=0xbf => (usize::from(marker & 0x1f), 0),
            // Bytes and strings.
            0xc4 | 0xd9 => (length(bytes, &mut at, 1)?, 0),
            0xc5 | 0xda => (length(bytes, &mut at, 2)?, 0),
            0xc6 | 0xdb => (length(bytes, &mut at, 4)?, 0),
            // Extensions: a byte of type, then content.
            0xc7 => (length(bytes, &mut at, 1)? + 1, 0),
            0xc8 => (length(bytes, &mut at, 2)? + 1, 0),
            0xc9 => (length(bytes, &mut at, 4)? + 1, 0),
            0xd4..=0xd8 => ((1 << (marker - 0xd4)) + 1, 0),
            // Numbers.
            0xcc | 0xd0 => (1, 0),
            0xcd | 0xd1 => (2, 0),
            0xca | 0xce | 0xd2 => (4, 0),
            0xcb | 0xcf | 0xd3 => (8, 0),
            // Lists and maps.
            0xdc => (0, length(bytes, &mut at, 2)?),
            0xdd => (0, length(bytes, &mut at, 4)?),
            0xde => (0, 2 * length(bytes, &mut at, 2)?),
            0xdf => (0, length(bytes, &mut at, 4)?.checked_mul(2)?),
            // Never used.
            0xc1 => return None,
        };
        at = at.checked_add(content)?;
        values_left = values_left.checked_add(elements)?;
        if values_left > bytes.len().checked_sub(at)? {
            return None;
        }
    }
    Some(at)
}

/// A big-endian length of `width` bytes, and steps over it.
fn length(bytes: &[u8], at: &mut usize, width: usize) -> Option<usize> {
    let field = bytes.get(*at..*at + width)?;
    *at += width;
    Some(field.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
}
