//! Workloads: what clients ask of which keys.

mod client;
mod compose;
mod speaker;
mod talk;

pub use client::{Client, Fate, OwnKey, Scanning, Seen};
pub(crate) use compose::needed;
pub use compose::{Composed, compose};
pub use speaker::{Form, Line, Speaker, Walk, Wanted};
pub use talk::{Draft, LARGE_SLOT_KEYS, TalkMix, Utterance, flushed_slots, own_number, talk};

use bytes::Bytes;
use replication::row::{self, Keyspace, Row};
use ring::Slot;

/// The keyspace of keys that are flushed now and then.
pub const FLUSHED: Keyspace = 1;

/// The keyspace that keeps siblings.
pub const KEPT: Keyspace = 2;

/// The row of a key: its kind, its tag, its number.
#[must_use]
pub fn row_of(keyspace: Keyspace, kind: char, tag: u64, number: u64) -> Row {
    row::of_key(keyspace, &key_of(kind, tag, number))
}

/// The key.
#[must_use]
pub fn key_of(kind: char, tag: u64, number: u64) -> Bytes {
    Bytes::from(format!("{{t{tag}}}{kind}{number}"))
}

/// The slot of a tag.
#[must_use]
pub fn slot_of(tag: u64) -> Slot {
    Slot::of_key(&key_of('k', tag, 0))
}
