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
use crate::sync::Watch;
use crate::sync::atomic::{AtomicU32, Ordering};

/// What an entry begins with; its key follows.
#[repr(C)]
struct Entry {
    newest: AtomicU32,
    key_len: u32,
    watch: Watch,
}

/// What a version begins with; its value follows.
#[repr(C)]
struct Version {
    tag: u64,
    older: AtomicU32,
    value_len: u32,
    watch: Watch,
}

const ENTRY_BYTES: usize = size_of::<Entry>();
const VERSION_BYTES: usize = size_of::<Version>();
#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(ENTRY_BYTES == 8 && VERSION_BYTES == 16);
const _: () = assert!(align_of::<Entry>() <= WORD && align_of::<Version>() <= WORD);

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

fn entry(arena: &Arena, place: u32) -> &Entry {
    // SAFETY: written before its place was published, and changed through its atomic alone since.
    let entry = unsafe { &*arena.at(place).cast::<Entry>() };
    entry.watch.read();
    entry
}

fn version(arena: &Arena, place: u32) -> &Version {
    // SAFETY: as above; and its place is not used again while anybody can reach it (see `memtable`).
    let version = unsafe { &*arena.at(place).cast::<Version>() };
    version.watch.read();
    version
}

fn bytes(arena: &Arena, place: u32, byte: usize, len: usize) -> &[u8] {
    // SAFETY: as above: `len` bytes stand there and do not change while the arena is borrowed, since
    // a place is reused only when nobody can hold what was read from it (see `memtable`).
    unsafe { std::slice::from_raw_parts(arena.at(place).add(byte), len) }
}

/// The key of an entry.
pub(super) fn key(arena: &Arena, place: u32) -> &[u8] {
    bytes(arena, place, ENTRY_BYTES, entry(arena, place).key_len as usize)
}

/// The newest version of an entry.
pub(super) fn newest(arena: &Arena, place: u32) -> u32 {
    entry(arena, place).newest.load(Ordering::Acquire)
}

pub(super) fn tag(arena: &Arena, place: u32) -> Tag {
    Tag(version(arena, place).tag)
}

/// The version that is older than this one; 0 when there is none.
pub(super) fn older(arena: &Arena, place: u32) -> u32 {
    version(arena, place).older.load(Ordering::Acquire)
}

pub(super) fn value(arena: &Arena, place: u32) -> &[u8] {
    let len = (version(arena, place).value_len & !WITH_KEY) as usize;
    bytes(arena, place, VERSION_BYTES, len)
}

/// Words of an entry without its first version.
#[cfg(test)]
pub(super) fn key_words(arena: &Arena, place: u32) -> u32 {
    words(ENTRY_BYTES + key(arena, place).len())
}

/// Words that a version takes where it stands; and how many more it may have taken over from the one
/// before it there, without a use for them.
#[cfg(test)]
pub(super) fn words_taken(arena: &Arena, place: u32) -> (u32, u32) {
    let field = version(arena, place).value_len;
    let len = (field & !WITH_KEY) as usize;
    let words = if field & WITH_KEY == 0 { version_words(len) } else { exact_words(len) };
    (words, if field & WITH_KEY == 0 { step(words) - 1 } else { 0 })
}

/// Nobody can hold this version any more. Returns how many of its words can be used again.
pub(super) fn end(arena: &Arena, place: u32) -> u32 {
    let version = version(arena, place);
    version.watch.end();
    let len = (version.value_len & !WITH_KEY) as usize;
    if version.value_len & WITH_KEY == 0 {
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
    let entry = Entry { newest: AtomicU32::new(version), key_len, watch: Watch::new() };
    // SAFETY: as many words as this takes were allocated at the place, and nobody else knows it.
    unsafe {
        let at = arena.at(place);
        at.cast::<Entry>().write(entry);
        std::ptr::copy_nonoverlapping(key.as_ptr(), at.add(ENTRY_BYTES), key.len());
    }
}

/// Writes a version at `place`, which nobody knows yet and which has [`version_words`].
pub(super) fn write_version(arena: &Arena, place: u32, tag: Tag, older: u32, value: &[u8]) {
    write(arena, place, tag, older, value, 0);
}

fn write(arena: &Arena, place: u32, tag: Tag, older: u32, value: &[u8], flag: u32) {
    let len = u32::try_from(value.len()).expect("values are at most BATCH_BYTES_MAX long");
    let (older, watch) = (AtomicU32::new(older), Watch::new());
    let version = Version { tag: tag.0, older, value_len: len | flag, watch };
    // SAFETY: as many words as this takes were allocated at the place, and nobody else knows it.
    unsafe {
        let at = arena.at(place);
        at.cast::<Version>().write(version);
        std::ptr::copy_nonoverlapping(value.as_ptr(), at.add(VERSION_BYTES), value.len());
    }
}

/// Makes `version` the newest of the entry at `place`: from now on readers see it.
pub(super) fn push(arena: &Arena, place: u32, version: u32) {
    entry(arena, place).newest.store(version, Ordering::Release);
}

/// Makes `next` follow the version at `place`.
pub(super) fn relink(arena: &Arena, place: u32, next: u32) {
    version(arena, place).older.store(next, Ordering::Release);
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
