//! Key: what names a value; of one part, or of a partition key and a sort key.
//!
//! The partition key decides which nodes hold it, the sort key its place among its neighbours there.
//! To a Redis client the pair (`inbox:42`, `2026-01`) is the key `{inbox:42}2026-01`: the partition
//! key is its hash tag.

use bytes::Bytes;
use ring::slot::hash_tag;

use crate::error::{ClientError, Told};

/// A key. Made from text or bytes, or from a pair of them: `ring.get(("inbox:42", "2026-01"))`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    bytes: Bytes,
    /// The partition key can be told from the rest.
    fits: bool,
}

impl Key {
    /// The key of a partition key and a sort key. A partition key that is empty or has a `}` in it
    /// cannot be one: requests for such a key end with [`ClientError::Invalid`].
    #[must_use]
    pub fn sorted(partition: impl AsRef<[u8]>, sort: impl AsRef<[u8]>) -> Self {
        let partition = partition.as_ref();
        let bytes = [b"{", partition, b"}", sort.as_ref()].concat();
        let fits = !partition.is_empty() && hash_tag(&bytes) == partition;
        Self { bytes: bytes.into(), fits }
    }

    /// As a Redis client names it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn checked(self) -> Result<Bytes, ClientError> {
        if self.fits {
            return Ok(self.bytes);
        }
        let why = "it is empty, or has a } in it";
        let fix = "choose one that has neither; the sort key may be anything";
        Err(ClientError::Invalid { told: Told::new("this cannot be a partition key", why, fix) })
    }
}

impl From<Bytes> for Key {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, fits: true }
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Bytes::copy_from_slice(text.as_bytes()).into()
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&String> for Key {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<&[u8]> for Key {
    fn from(bytes: &[u8]) -> Self {
        Bytes::copy_from_slice(bytes).into()
    }
}

impl<const N: usize> From<&[u8; N]> for Key {
    fn from(bytes: &[u8; N]) -> Self {
        bytes[..].into()
    }
}

impl From<Vec<u8>> for Key {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl<P: AsRef<[u8]>, S: AsRef<[u8]>> From<(P, S)> for Key {
    fn from((partition, sort): (P, S)) -> Self {
        Self::sorted(partition, sort)
    }
}
