//! A blob file: written once from front to back, read block by block.

use super::stored::Pointer;
use super::{MAGIC, blob_name};
use crate::codec::u32_at;
use crate::disk::{Disk, DiskFile};
use crate::limits::{BLOCK_BYTES_MAX, too_large};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes before a block's data.
pub(crate) const HEADER_BYTES: usize = 13;
const LZ4: u8 = 1;
/// Bytes gathered before they are written.
const WRITE_BYTES: usize = 256 << 10;

/// A blob file, open for reading; none when there is no such file any more.
pub(crate) struct BlobFile {
    pub(crate) number: u64,
    file: Option<Arc<dyn DiskFile>>,
    /// Some of it is damaged, so nobody should try to copy all that is live.
    broken: AtomicBool,
}

/// What became of reading a block.
pub(crate) enum Read {
    Value(Vec<u8>),
    /// It does not prove itself.
    Broken,
}

impl BlobFile {
    pub(crate) fn new(number: u64, file: Option<Arc<dyn DiskFile>>) -> Self {
        let broken = AtomicBool::new(file.is_none());
        Self { number, file, broken }
    }

    pub(crate) fn is_missing(&self) -> bool {
        self.file.is_none()
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Some of it cannot be read.
    pub(crate) fn mark_broken(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// The value that `pointer` leads to. `unchecked`: a test planted that checksums are not looked
    /// at.
    pub(crate) fn read(&self, pointer: Pointer, unchecked: bool) -> io::Result<Read> {
        let value = match &self.file {
            None => None,
            Some(file) => {
                // The size comes from a verified table, but what it asks for stays bounded.
                let size = pointer.size as usize;
                let mut block = vec![0; HEADER_BYTES + size.min(BLOCK_BYTES_MAX)];
                match file.read_at(&mut block, pointer.offset) {
                    Ok(()) => open_block(self.number, pointer, &block, unchecked),
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => None,
                    Err(e) => return Err(e),
                }
            }
        };
        Ok(value.map_or_else(
            || {
                self.broken.store(true, Ordering::Relaxed);
                Read::Broken
            },
            Read::Value,
        ))
    }
}

/// The value in a block, if it proves itself.
fn open_block(number: u64, pointer: Pointer, block: &[u8], unchecked: bool) -> Option<Vec<u8>> {
    let (head, data) = block.split_at_checked(HEADER_BYTES)?;
    let sum = checksum(number, pointer.offset, &block[4..]);
    if (u32_at(head, 0)? != sum || u32_at(head, 4)? != pointer.size) && !unchecked {
        return None;
    }
    let len = u32_at(head, 9)? as usize;
    match head[8] {
        0 => (len == data.len() || unchecked).then(|| data.to_vec()),
        LZ4 if len <= BLOCK_BYTES_MAX && len / 256 <= data.len() => {
            let mut out = vec![0; len];
            let claimed = i32::try_from(len).ok()?;
            let n = lz4::block::decompress_to_buffer(data, Some(claimed), &mut out).ok()?;
            (n == len).then_some(out)
        }
        _ => None,
    }
}

/// Also over where the block stands, so that bytes of another place prove nothing here.
fn checksum(number: u64, offset: u64, rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(rest);
    hasher.finalize()
}

/// Writes one blob file.
pub(crate) struct BlobWriter {
    number: u64,
    file: Arc<dyn DiskFile>,
    pending: Vec<u8>,
    /// Room for the value at hand, compressed.
    packed: Vec<u8>,
    written: u64,
}

impl BlobWriter {
    pub(crate) fn create(disk: &dyn Disk, number: u64) -> io::Result<Self> {
        let file = disk.create(&blob_name(number))?;
        Ok(Self { number, file, pending: MAGIC.to_vec(), packed: Vec::new(), written: 0 })
    }

    /// Bytes so far.
    pub(crate) fn size(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    /// Appends `value`, compressed where that saves an eighth; where it is. Refuses what a reader
    /// would refuse.
    pub(crate) fn add(&mut self, value: &[u8]) -> io::Result<Pointer> {
        if value.len() > BLOCK_BYTES_MAX {
            return Err(too_large(value.len()));
        }
        let offset = self.size();
        // No more room than is worth it: what does not shrink is noticed early.
        self.packed.resize(value.len() / 8 * 7, 0);
        let packed = match &mut self.packed[..] {
            [] => 0,
            room => lz4::block::compress_to_buffer(value, None, false, room).unwrap_or(0),
        };
        let (flags, data) = if packed > 0 { (LZ4, &self.packed[..packed]) } else { (0, value) };
        let size = u32::try_from(data.len()).expect("at most BLOCK_BYTES_MAX");
        let len = u32::try_from(value.len()).expect("at most BLOCK_BYTES_MAX");
        let at = self.pending.len();
        self.pending.extend_from_slice(&[0; 4]);
        self.pending.extend_from_slice(&size.to_le_bytes());
        self.pending.push(flags);
        self.pending.extend_from_slice(&len.to_le_bytes());
        self.pending.extend_from_slice(data);
        let sum = checksum(self.number, offset, &self.pending[at + 4..]);
        self.pending[at..at + 4].copy_from_slice(&sum.to_le_bytes());
        if self.pending.len() >= WRITE_BYTES {
            self.flush()?;
        }
        Ok(Pointer { file: self.number, offset, size })
    }

    /// Writes what is left and makes the file durable (not its name); its number and bytes.
    pub(crate) fn finish(mut self) -> io::Result<(u64, u64)> {
        self.flush()?;
        self.file.sync()?;
        Ok((self.number, self.written))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(&self.pending, self.written)?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    #[test]
    fn a_value_that_no_reader_would_take_is_refused_when_it_is_written() {
        let mut blobs = BlobWriter::create(&MemoryDisk::new(1), 1).unwrap();
        let refused = blobs.add(&vec![7; BLOCK_BYTES_MAX + 1]);
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
