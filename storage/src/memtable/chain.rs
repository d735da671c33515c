//! Chains: the entry of a key in the arena, and its changes, newest first.
//!
//! ```text
//! entry   = newest version u32 | key length u32 | key, to a multiple of 8 | its first version
//! version = tag u64 | next older version u32 | value length u32 | value, to a multiple of 8
//! ```
//!
//! Key, version and value never change once they are published; which version is the newest, and
//! which follows, does, by one store.
#![allow(unsafe_code, reason = "entries stand in the arena; each use says why")]

use super::arena::{Arena, WORD};
use crate::key::Tag;
use std::sync::atomic::{AtomicU32, Ordering};

const ENTRY_BYTES: usize = 8;
const VERSION_BYTES: usize = 16;
/// In the length of a value: the version stands behind its key and takes no more than it needs.
const WITH_KEY: u32 = 1 << 31;

fn words(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(WORD)).expect("keys and values are bounded")
}

/// Words of an entry together with its first version.
pub(super) fn entry_words(key: &[u8], value_len: usize) -> u32 {
    words(ENTRY_BYTES + key.len()) + exact_words(value_len)
}

fn exact_words(value_len: usize) -> u32 {
    words(VERSION_BYTES + value_len)
}

/// Words of a version that stands alone, rounded so that versions of about the same size can take
/// each other's place: to an eighth of its size.
pub(super) fn version_words(value_len: usize) -> u32 {
    let exact = exact_words(value_len);
    let step = step(exact);
    exact.next_multiple_of(step)
}

fn step(words: u32) -> u32 {
    1 << words.ilog2().saturating_sub(3)
}

/// Which list of free places `words` belong to, when all of it is to be used.
pub(super) fn class(words: u32) -> usize {
    let shift = words.ilog2().saturating_sub(3);
    (shift * 8 + (words >> shift)) as usize
}

/// The first words of an entry or version.
fn atomic(arena: &Arena, place: u32, byte: usize) -> &AtomicU32 {
    // SAFETY: inside an entry or version that was written before its place was published; this
    // field is only ever reached as an atomic once it is.
    unsafe { &*arena.at(place).add(byte).cast::<AtomicU32>() }
}

/// A field that does not change while it is reachable.
fn fixed<T: Copy>(arena: &Arena, place: u32, byte: usize) -> T {
    // SAFETY: as above; written before the place was published, and aligned as the formats say.
    unsafe { arena.at(place).add(byte).cast::<T>().read() }
}

fn bytes(arena: &Arena, place: u32, byte: usize, len: usize) -> &[u8] {
    // SAFETY: as above: `len` bytes stand there and do not change while the arena is borrowed, since
    // a place is reused only when nobody can hold what was read from it (see `memtable`).
    unsafe { std::slice::from_raw_parts(arena.at(place).add(byte), len) }
}

/// The key of an entry.
pub(super) fn key(arena: &Arena, entry: u32) -> &[u8] {
    bytes(arena, entry, ENTRY_BYTES, fixed::<u32>(arena, entry, 4) as usize)
}

/// The newest version of an entry.
pub(super) fn newest(arena: &Arena, entry: u32) -> u32 {
    atomic(arena, entry, 0).load(Ordering::Acquire)
}

pub(super) fn tag(arena: &Arena, version: u32) -> Tag {
    Tag(fixed(arena, version, 0))
}

/// The version that is older than this one; 0 when there is none.
pub(super) fn older(arena: &Arena, version: u32) -> u32 {
    atomic(arena, version, 8).load(Ordering::Acquire)
}

fn len_field(arena: &Arena, version: u32) -> u32 {
    fixed(arena, version, 12)
}

pub(super) fn value(arena: &Arena, version: u32) -> &[u8] {
    let len = (len_field(arena, version) & !WITH_KEY) as usize;
    bytes(arena, version, VERSION_BYTES, len)
}

/// The words that can be used again when a version is gone.
pub(super) fn reusable_words(arena: &Arena, version: u32) -> u32 {
    let field = len_field(arena, version);
    let len = (field & !WITH_KEY) as usize;
    if field & WITH_KEY == 0 {
        return version_words(len);
    }
    let exact = exact_words(len);
    exact / step(exact) * step(exact)
}

/// Writes an entry and its first version at `place`, which nobody knows yet and which has
/// [`entry_words`].
pub(super) fn write_entry(arena: &Arena, place: u32, key: &[u8], tag: Tag, value: &[u8]) {
    let version = place + words(ENTRY_BYTES + key.len());
    let key_len = u32::try_from(key.len()).expect("keys are at most KEY_BYTES_MAX long");
    write(arena, version, tag, 0, value, WITH_KEY);
    // SAFETY: as many words as this takes were allocated at the place, and nobody else knows it.
    unsafe {
        let at = arena.at(place);
        at.cast::<u32>().write(version);
        at.add(4).cast::<u32>().write(key_len);
        std::ptr::copy_nonoverlapping(key.as_ptr(), at.add(ENTRY_BYTES), key.len());
    }
}

/// Writes a version at `place`, which nobody knows yet and which has [`version_words`].
pub(super) fn write_version(arena: &Arena, place: u32, tag: Tag, older: u32, value: &[u8]) {
    write(arena, place, tag, older, value, 0);
}

fn write(arena: &Arena, place: u32, tag: Tag, older: u32, value: &[u8], flag: u32) {
    let len = u32::try_from(value.len()).expect("values are at most BATCH_BYTES_MAX long");
    // SAFETY: as many words as this takes were allocated at the place, and nobody else knows it.
    unsafe {
        let at = arena.at(place);
        at.cast::<u64>().write(tag.0);
        at.add(8).cast::<u32>().write(older);
        at.add(12).cast::<u32>().write(len | flag);
        std::ptr::copy_nonoverlapping(value.as_ptr(), at.add(VERSION_BYTES), value.len());
    }
}

/// Makes `version` the newest of `entry`: from now on readers see it.
pub(super) fn push(arena: &Arena, entry: u32, version: u32) {
    atomic(arena, entry, 0).store(version, Ordering::Release);
}

/// Makes `next` follow `version`.
pub(super) fn relink(arena: &Arena, version: u32, next: u32) {
    atomic(arena, version, 8).store(next, Ordering::Release);
}

/// The versions from `version` on, each with its place.
pub(super) fn versions(arena: &Arena, version: u32) -> impl Iterator<Item = (u32, Tag, &[u8])> {
    let mut at = version;
    std::iter::from_fn(move || {
        let version = (at != 0).then_some(at)?;
        at = older(arena, version);
        Some((version, tag(arena, version), value(arena, version)))
    })
}
