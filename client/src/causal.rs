//! Context: what a reader has seen, to be handed back with the write that replaces it.
//!
//! Opaque on purpose: only nodes know what is in it. It may be stored and sent around as bytes.

use bytes::Bytes;

/// What has been seen of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context(pub(crate) Bytes);

impl Context {
    /// A context from the bytes that an earlier one gave.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// As bytes, to be kept somewhere.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a key holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    pub(crate) values: Vec<Bytes>,
    pub(crate) context: Context,
}

impl Read {
    /// The values: none if the key is absent, several if they were written concurrently.
    #[must_use]
    pub fn values(&self) -> &[Bytes] {
        &self.values
    }

    /// The values, to be kept.
    #[must_use]
    pub fn into_values(self) -> Vec<Bytes> {
        self.values
    }

    /// What was seen: hand it to the write that replaces these values.
    #[must_use]
    pub fn context(&self) -> Context {
        self.context.clone()
    }
}
