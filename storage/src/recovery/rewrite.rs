//! Rewriting: what was replayed is made durable before anything builds on it.
//!
//! What survived the death of a process may still be in the page cache alone, and no sync of this
//! run's streams would cover it. To sync the old file is not enough: after a sync that failed, its
//! pages pass for clean, and the next sync says yes without writing them. So the bytes that were
//! replayed are written once more, where they are; but for those of which the log itself says that
//! they were durable, since it says so after a sync that did not fail. Where nobody ever synced, that is
//! done while they are read: the same bytes in the same place, before it is known whether the store may
//! be opened, change nothing.

use crate::disk::{Disk, DiskFile, Patient};
use crate::error::Error;
use crate::log::{PIECE_BYTES, segment_name};
use std::io;

/// A segment that was replayed, not merely kept.
pub(super) struct Replayed {
    pub(super) stream: u64,
    pub(super) number: u64,
    /// So much of it counts.
    pub(super) bytes: u64,
    /// So much of it was durable before.
    pub(super) durable: u64,
    /// So much was written again while it was read, and waits for its sync.
    pub(super) written: u64,
    /// What is to stand at its front, where that did not prove itself; else empty.
    pub(super) header: Vec<u8>,
}

/// Makes what counts of `segments` durable, and cuts off the rest.
pub(super) fn write_again(disk: &dyn Disk, segments: &[Replayed]) -> Result<(), Error> {
    let mut piece = Vec::new();
    for segment in segments {
        let name = segment_name(segment.stream, segment.number);
        let done =
            Patient::open(disk, &name).and_then(|file| segment.write_again(&file, &mut piece));
        done.map_err(|e| Error::io(&format!("rewriting {name}, which was replayed"), &e))?;
    }
    Ok(())
}

impl Replayed {
    fn write_again(&self, file: &Patient, piece: &mut Vec<u8>) -> io::Result<()> {
        let longer = file.len()? > self.bytes;
        if self.durable >= self.bytes && self.header.is_empty() && !longer {
            return Ok(());
        }
        // A piece stays in the processor's cache meanwhile.
        piece.resize(PIECE_BYTES, 0);
        let mut at = self.durable.max(self.written).min(self.bytes);
        while at < self.bytes {
            let left = usize::try_from(self.bytes - at).unwrap_or(usize::MAX);
            let piece = &mut piece[..left.min(PIECE_BYTES)];
            file.read_at(piece, at)?;
            // What cannot be read stays as it is: the hole that it makes is known.
            for part in file.readable(at..at + piece.len() as u64) {
                let inside = |place: u64| usize::try_from(place - at).expect("inside the piece");
                file.write_at(&piece[inside(part.start)..inside(part.end)], part.start)?;
            }
            at += piece.len() as u64;
        }
        if self.header.len() as u64 <= self.bytes {
            file.write_at(&self.header, 0)?;
        }
        if longer {
            file.truncate(self.bytes)?;
        }
        file.sync()
    }
}
