//! Blobs: large values, kept beside the tables so that compaction does not copy them again and again.
//!
//! A table then holds a *pointer* in the value's place. Promises: a pointer in a table of the
//! version in force always leads to a file that is there; what is read through one proves itself; a
//! blob file is removed only after the edit that makes it unneeded is durable.
//!
//! ```text
//! blob file = "RINGBLB1" block*                          name: <number>.blob, 10 digits
//! block     = checksum u32 | size u32 | flags u8 (1: LZ4) | decompressed size u32 | data
//! checksum  = crc32 of: file number u64, offset of the block u64, everything behind the checksum
//!
//! value in a table = as it is                            if it does not begin with TAG
//!                  | TAG 0 value                         if it does
//!                  | TAG 1 file, offset, size (varints)  a pointer; size: of the data
//! ```
//! A table counts for each blob file how many of its bytes it points to, and the manifest keeps
//! these counts with the table. So what is live in a blob file is a sum over the tables in force: it
//! cannot drift, and a table that is dropped unread takes its share along.

mod file;
mod relocate;
mod separate;
mod shelf;
mod stored;

pub(crate) use file::BlobFile;
pub(crate) use relocate::{choose, live_bytes, relocate, small};
pub(crate) use separate::{LoadingMerge, Separator};
pub(crate) use shelf::Blobs;
pub(crate) use stored::{Pointer, Stored, TAG_FIRST, escape, stored};

/// First bytes of a blob file.
pub(crate) const MAGIC: &[u8; 8] = b"RINGBLB1";

/// File name of a blob file.
pub(crate) fn blob_name(number: u64) -> String {
    format!("{number:010}.blob")
}

/// Number of a file name, if it names a blob file.
pub(crate) fn parse_blob_name(name: &str) -> Option<u64> {
    name.strip_suffix(".blob")?.parse().ok()
}
