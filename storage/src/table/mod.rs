//! Tables: immutable sorted files in RocksDB's block-based format, format_version 5.
//!
//! ```text
//! data block* | filter | index | range_del? | properties | metaindex | footer (53 bytes)
//! each block  = payload | compression u8 | checksum u32 (XXH3 of the payload, type folded in)
//! ```
//! Every block is verified when it is read from the disk. RocksDB's own tools read these files.

mod ahead;
mod block;
mod build;
mod counts;
mod cursor;
mod filter;
mod footer;
mod index;
pub(crate) mod part;
mod properties;
mod raw;
mod reader;
mod spare;
mod walk;
mod writer;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests;

pub(crate) use block::{Block, SharedBlock};
#[cfg(test)]
pub(crate) use counts::TableCounts;
pub(crate) use cursor::{Run, TablesCursor};
pub(crate) use filter::hash;
pub(crate) use reader::{Salvaged, Slice, Table};
pub(crate) use writer::{TableBounds, TableWriter};

/// File name of a table.
pub(crate) fn table_name(number: u64) -> String {
    format!("{number:010}.sst")
}

/// Number of a file name, if it names a table.
pub(crate) fn parse_table_name(name: &str) -> Option<u64> {
    name.strip_suffix(".sst")?.parse().ok()
}
