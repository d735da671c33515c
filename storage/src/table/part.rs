//! Part: beside a narrowed table, which part of its file counts.
//!
//! The manifest knows that. Where it is lost a repair takes the tables that it finds, and rows that were
//! merged out of a narrowed one and deleted since would be back. So it is said a second time: after the
//! edit, and again by a start that does not find it said. Only a repair without a manifest reads it.
//!
//! ```text
//! <number>.part = CRC-32 of the rest u32 | number varint | smallest, largest strings | largest excluded u8
//! ```

use super::writer::TableBounds;
use crate::codec::{bytes, put_bytes, put_varint, take, u32_at, varint};
use crate::disk::{Disk, read_all, swap_file};
use std::io::{self, ErrorKind};

/// What is said beside a table.
pub(crate) enum Part {
    /// Nothing: all of its file counts.
    Whole,
    /// What is within these bounds.
    Within(TableBounds),
    /// A part of it counts, and which one cannot be read any more.
    Unknown,
}

/// Name of the file that says which part of a table counts.
pub(crate) fn part_name(number: u64) -> String {
    format!("{number:010}.part")
}

/// Number of a file name, if it names such a file.
pub(crate) fn parse_part_name(name: &str) -> Option<u64> {
    name.strip_suffix(".part")?.parse().ok()
}

/// Sees to it that the bounds of table `number`, which is narrowed, are said beside it. Where that fails
/// nothing is lost for as long as there is a manifest, and the next start tries again.
pub(crate) fn say(disk: &dyn Disk, number: u64, bounds: &TableBounds) {
    let name = part_name(number);
    let said = disk.open(&name).and_then(|file| read_all(file.as_ref()));
    if said.is_ok_and(|said| said == encode(number, bounds)) {
        return;
    }
    if let Err(e) = write(disk, number, bounds) {
        tracing::warn!(
            %name, error = %e,
            "not written; the next start tries again, and until then a repair without a manifest may \
             bring back what was deleted"
        );
    }
}

/// Says beside table `number` that of its file what is within `bounds` counts.
pub(crate) fn write(disk: &dyn Disk, number: u64, bounds: &TableBounds) -> io::Result<()> {
    swap_file(disk, &part_name(number), &encode(number, bounds))
}

/// What is said beside table `number`.
pub(crate) fn said(disk: &dyn Disk, number: u64) -> io::Result<Part> {
    let content = match disk.open(&part_name(number)) {
        Ok(file) => read_all(file.as_ref())?,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Part::Whole),
        Err(e) => return Err(e),
    };
    Ok(decode(&content, number).map_or(Part::Unknown, Part::Within))
}

fn encode(number: u64, bounds: &TableBounds) -> Vec<u8> {
    let mut rest = Vec::new();
    put_varint(&mut rest, number);
    put_bytes(&mut rest, &bounds.smallest);
    put_bytes(&mut rest, &bounds.largest);
    rest.push(u8::from(bounds.largest_excluded));
    [&crc32fast::hash(&rest).to_le_bytes()[..], &rest].concat()
}

fn decode(content: &[u8], number: u64) -> Option<TableBounds> {
    let mut rest = content.get(4..)?;
    (u32_at(content, 0)? == crc32fast::hash(rest)).then_some(())?;
    (varint(&mut rest)? == number).then_some(())?;
    let (smallest, largest) = (bytes(&mut rest)?.to_vec(), bytes(&mut rest)?.to_vec());
    let largest_excluded = take(&mut rest, 1)? == [1];
    Some(TableBounds { smallest, largest, largest_excluded, ..TableBounds::default() })
}
