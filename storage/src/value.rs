//! Values handed out, and how a reader finds out what a key's value is.

use crate::blob::escape;
use crate::error::Error;
use crate::fold::{Folded, Merge};
use crate::key::{Kind, Tag};
use crate::shelf::{Resolved, Shelf};
use crate::table::Slice;
use std::borrow::Cow;
use std::fmt;
use std::io::ErrorKind;
use std::ops::Deref;

/// A value, borrowed from memory or a cached block where possible. Dereferences to its bytes.
#[derive(Clone)]
pub struct Value<'a>(pub(crate) Bytes<'a>);

#[derive(Clone)]
pub(crate) enum Bytes<'a> {
    Borrowed(&'a [u8]),
    /// As a table holds it.
    Block(Slice),
    /// The same, copied.
    Copied(Vec<u8>),
    Owned(Vec<u8>),
}

impl Value<'_> {
    /// The bytes, copied unless they were computed for this reader.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        match self.0 {
            Bytes::Owned(bytes) | Bytes::Copied(bytes) => bytes,
            other => other.bytes().to_vec(),
        }
    }
}

impl Bytes<'_> {
    /// The value of a change of this kind as a table holds it.
    pub(crate) fn held(&self, kind: Kind) -> Cow<'_, [u8]> {
        match self {
            Self::Borrowed(bytes) if kind == Kind::Put => escape(bytes),
            Self::Owned(bytes) if kind == Kind::Put => escape(bytes),
            other => Cow::Borrowed(other.bytes()),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Block(slice) => slice.bytes(),
            Self::Owned(bytes) | Self::Copied(bytes) => bytes,
        }
    }
}

impl Deref for Value<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl AsRef<[u8]> for Value<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.bytes())
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Value<'_> {
    fn eq(&self, other: &T) -> bool {
        self.0.bytes() == other.as_ref()
    }
}

/// Sees the changes of one key, newest first, until it knows the value.
pub(crate) struct Resolver<'a> {
    /// Newest sequence that this reader may see.
    bound: u64,
    /// Greatest sequence of a range deletion over the key, as far as sources were seen.
    cover: u64,
    /// Newest first.
    operands: Vec<Bytes<'a>>,
    base: Option<Bytes<'a>>,
    settled: bool,
    unknown_kind: bool,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(bound: u64) -> Self {
        Self {
            bound,
            cover: 0,
            operands: Vec::new(),
            base: None,
            settled: false,
            unknown_kind: false,
        }
    }

    pub(crate) fn bound(&self) -> u64 {
        self.bound
    }

    /// A range deletion up to the bound covers the key.
    pub(crate) fn cover(&mut self, sequence: u64) {
        self.cover = self.cover.max(sequence);
    }

    /// The source just seen was the last that can say anything above the cover.
    pub(crate) fn end_of_source(&mut self) {
        self.settled |= self.cover > 0;
    }

    pub(crate) fn settled(&self) -> bool {
        self.settled
    }

    /// Takes a change into account; false once nothing older matters.
    pub(crate) fn see(&mut self, tag: Tag, value: impl FnOnce() -> Bytes<'a>) -> bool {
        if self.settled {
            return false;
        }
        if tag.sequence() > self.bound {
            return true;
        }
        if tag.sequence() < self.cover {
            self.settled = true;
            return false;
        }
        match tag.kind() {
            Some(Kind::Merge) => self.operands.push(value()),
            Some(Kind::Put) => {
                self.base = Some(value());
                self.settled = true;
            }
            Some(Kind::Delete) => self.settled = true,
            None => {
                self.unknown_kind = true;
                self.settled = true;
            }
        }
        !self.settled
    }

    /// The value that `key` has.
    pub(crate) fn finish(
        self,
        key: &[u8],
        merge: &dyn Merge,
        shelf: &Shelf,
    ) -> Result<Option<Value<'a>>, Error> {
        let mut folded = Vec::new();
        Ok(match self.outcome(key, merge, shelf, &mut folded)? {
            Outcome::Nothing => None,
            Outcome::Stored(bytes) => Some(Value(bytes)),
            Outcome::Folded => Some(Value(Bytes::Owned(folded))),
        })
    }

    /// The value that `key` has; where it had to be computed it is put into `folded`.
    pub(crate) fn outcome(
        mut self,
        key: &[u8],
        merge: &dyn Merge,
        shelf: &Shelf,
        folded: &mut Vec<u8>,
    ) -> Result<Outcome<'a>, Error> {
        if self.unknown_kind {
            let what = "a table holds a kind of change that this version does not know".to_owned();
            return Err(Error::Io { what, kind: ErrorKind::InvalidData });
        }
        // Only what comes from a table may stand elsewhere.
        let held = match &self.base {
            Some(Bytes::Block(slice)) if !slice.block.is_plain() => Some(slice.bytes()),
            Some(Bytes::Copied(bytes)) => Some(&bytes[..]),
            _ => None,
        };
        if let Some(held) = held {
            match shelf.resolve(held, key)? {
                Resolved::AsItIs => {}
                Resolved::Value(value) => self.base = Some(Bytes::Owned(value)),
                Resolved::Absent => self.base = None,
            }
        }
        let stored = |base: Option<Bytes<'a>>| base.map_or(Outcome::Nothing, Outcome::Stored);
        if self.operands.is_empty() {
            return Ok(stored(self.base));
        }
        folded.clear();
        let base = self.base.as_ref().map(Bytes::bytes);
        let done = if let [only] = &self.operands[..] {
            merge.full(key, base, &[only.bytes()], folded)
        } else {
            let oldest_first: Vec<&[u8]> = self.operands.iter().rev().map(Bytes::bytes).collect();
            merge.full(key, base, &oldest_first, folded)
        };
        Ok(match done {
            Folded::Value => Outcome::Folded,
            Folded::Deleted => Outcome::Nothing,
            Folded::Carry => stored(self.base),
        })
    }
}

/// What the changes of a key amount to.
pub(crate) enum Outcome<'a> {
    /// It has no value.
    Nothing,
    /// Its value stands somewhere as it is.
    Stored(Bytes<'a>),
    /// Its value was computed.
    Folded,
}
