//! Reply: everything that a Redis client may hear, whichever version of the protocol it speaks.
//!
//! A reply says what it means ([`Reply::Map`], [`Reply::Double`]); how that looks to a client of
//! RESP2 is decided once, in [`encode`](mod@crate::resp::encode).

use std::borrow::Cow;

use bytes::Bytes;

/// A reply, or a message pushed to a subscriber.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A status such as `OK`.
    Simple(Cow<'static, str>),
    /// An error: its code in capitals, a blank, its text. Line breaks are sent as blanks.
    Error(Cow<'static, str>),
    /// An integer.
    Integer(i64),
    /// A string of bytes.
    Bulk(Bytes),
    /// A number; RESP2 hears a bulk string.
    Double(f64),
    /// True or false; RESP2 hears 1 or 0.
    Boolean(bool),
    /// A decimal integer of any size; RESP2 hears a bulk string.
    BigNumber(Cow<'static, str>),
    /// No value; RESP2 hears a null bulk string.
    Null,
    /// No value where a list was asked for; RESP2 hears a null array.
    NullArray,
    /// A list.
    Array(Vec<Self>),
    /// Pairs; RESP2 hears a list twice as long.
    Map(Vec<(Self, Self)>),
    /// Distinct members; RESP2 hears a list.
    Set(Vec<Self>),
    /// A message that answers no request; RESP2 hears a list.
    Push(Vec<Self>),
    /// A text for people; RESP2 hears a bulk string.
    Verbatim {
        /// What kind of text: `txt` or `mkd`.
        format: [u8; 3],
        /// The text.
        text: Bytes,
    },
}

impl Reply {
    /// The usual status of success.
    pub const OK: Self = Self::Simple(Cow::Borrowed("OK"));

    /// The status of a command taken into a transaction.
    pub const QUEUED: Self = Self::Simple(Cow::Borrowed("QUEUED"));

    /// A status.
    #[must_use]
    pub const fn simple(text: &'static str) -> Self {
        Self::Simple(Cow::Borrowed(text))
    }

    /// An error, code first: `"ERR syntax error"`.
    pub fn error(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Error(text.into())
    }

    /// A string of bytes.
    pub fn bulk(bytes: impl Into<Bytes>) -> Self {
        Self::Bulk(bytes.into())
    }

    /// A list of strings.
    pub fn bulks<B: Into<Bytes>>(items: impl IntoIterator<Item = B>) -> Self {
        Self::Array(items.into_iter().map(Self::bulk).collect())
    }

    /// A text for people.
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self::Verbatim { format: *b"txt", text: text.into() }
    }

    /// Whether this is an error.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }
}
