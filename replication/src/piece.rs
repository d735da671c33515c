//! Pieces: short byte strings that cost one allocation, however often they are shared.
//!
//! `Bytes` made from a vector allocates once for the bytes and once more when it is first cloned, and
//! rows, values and deltas are nearly always cloned. Here bytes and count share one allocation.

use bytes::Bytes;

/// So many bytes at most, kept beside the count of those who share them.
struct Short<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> AsRef<[u8]> for Short<N> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

fn short<const N: usize>(head: &[u8], tail: &[u8]) -> Bytes {
    let len = head.len() + tail.len();
    let mut bytes = [0; N];
    bytes[..head.len()].copy_from_slice(head);
    bytes[head.len()..len].copy_from_slice(tail);
    Bytes::from_owner(Short { bytes, len })
}

/// A copy of these bytes.
#[must_use]
pub fn copied(bytes: &[u8]) -> Bytes {
    joined(&[], bytes)
}

/// A copy of `head` and `tail`, one behind the other.
#[must_use]
pub fn joined(head: &[u8], tail: &[u8]) -> Bytes {
    match head.len() + tail.len() {
        0 => Bytes::new(),
        1..=32 => short::<32>(head, tail),
        33..=64 => short::<64>(head, tail),
        65..=128 => short::<128>(head, tail),
        129..=192 => short::<192>(head, tail),
        193..=256 => short::<256>(head, tail),
        // Two allocations are little beside the copy.
        _ => Bytes::from([head, tail].concat()),
    }
}

/// As a field of a message: [`copied`] when it is read.
pub(crate) mod field {
    use core::fmt;

    use bytes::Bytes;
    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(crate) fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        from.deserialize_bytes(Copied(&[]))
    }

    /// Takes bytes and puts these before them.
    pub(crate) struct Copied(pub(crate) &'static [u8]);

    impl Visitor<'_> for Copied {
        type Value = Bytes;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
            Ok(super::joined(self.0, bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_every_length_hold_what_was_put_in() {
        let all: Vec<u8> = (0..=255).chain(0..=255).collect();
        for length in [0, 1, 31, 32, 33, 64, 65, 128, 129, 192, 193, 256, 257, 512] {
            assert_eq!(copied(&all[..length]), all[..length]);
            let head = length / 3;
            assert_eq!(joined(&all[..head], &all[head..length]), all[..length]);
        }
    }
}
