//! Window: a part of a file that is written through memory instead of by a call.
//!
//! Promise: what was written through a window is in the page cache, so it survives the death of the
//! process as what was given to a write call does, and a sync of the file makes it durable.
//!
//! A store to mapped memory cannot report an error: if the file system then refuses a page, the
//! process dies. So there are windows only on file systems that keep a block where it is, and
//! [`Window::ready`] asks for each page, and for its place on the disk, in a call that can fail.
#![allow(unsafe_code, reason = "memory that the file system also knows; each use says why")]

use super::Window;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr::NonNull;

/// Larger pages than this have no processor that we know; window bounds lie on such a boundary.
const PAGE: u64 = 64 << 10;
/// ext2 to ext4, XFS, tmpfs: a block that was written once is overwritten in its place, so a page of it
/// never needs space again.
const IN_PLACE: [u64; 3] = [0xef53, 0x5846_5342, 0x0102_1994];

/// A mapping of the first bytes of a file, of which only what is ready is ever touched.
pub(super) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
    ready: Range<u64>,
}

// SAFETY: the mapping belongs to this value alone, and is reached through `&mut self` only.
unsafe impl Send for Mapping {}

impl Mapping {
    /// A window over the first `bytes_max` of `file`; none where it could cost the process its life.
    pub(super) fn of(file: impl AsFd, bytes_max: u64) -> io::Result<Option<Self>> {
        #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast, reason = "differs by platform")]
        let kind = rustix::fs::fstatfs(&file)?.f_type as u64;
        if !IN_PLACE.contains(&kind) {
            return Ok(None);
        }
        let bytes = usize::try_from(bytes_max.next_multiple_of(PAGE));
        let bytes = bytes.map_err(|_| io::ErrorKind::FileTooLarge)?;
        // SAFETY: a new mapping where the system likes it. It may be longer than the file: nothing is
        // touched but what `ready` has found to be there.
        let base = unsafe {
            let rights = ProtFlags::READ | ProtFlags::WRITE;
            mmap(std::ptr::null_mut(), bytes, rights, MapFlags::SHARED, &file, 0)?
        };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Some(Self { base, bytes, ready: 0..0 }))
    }

    /// Tells the system about the pages of `range`, which lies in the mapping.
    fn advise(&self, range: &Range<u64>, advice: Advice) -> io::Result<()> {
        let start = usize::try_from(range.start).expect("inside the mapping");
        let len = usize::try_from(range.end - range.start).expect("inside the mapping");
        assert!(start + len <= self.bytes, "a window over more than was mapped");
        // SAFETY: the pages are this mapping's own, and neither advice given here changes what the
        // file holds: one asks for its pages to be there and writable, and fails if they cannot be;
        // the other takes pages out of this mapping, whose content is the file's and stays.
        unsafe { madvise(self.base.as_ptr().add(start).cast(), len, advice) }?;
        Ok(())
    }
}

impl Window for Mapping {
    fn ready(&mut self, range: Range<u64>) -> io::Result<()> {
        let whole = range.start / PAGE * PAGE..range.end.next_multiple_of(PAGE);
        let gone = self.ready.start..whole.start.min(self.ready.end);
        // Nothing is ready if this fails.
        self.ready = range.start..range.start;
        if !gone.is_empty() {
            self.advise(&gone, Advice::LinuxDontNeed)?;
        }
        // Not beyond the end: that is where the file may end.
        self.advise(&(whole.start..range.end), Advice::LinuxPopulateWrite)?;
        self.ready = whole.start..range.end;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], offset: u64) {
        let end = offset + bytes.len() as u64;
        assert!(self.ready.start <= offset && end <= self.ready.end, "a write beside the window");
        let at = usize::try_from(offset).expect("inside the mapping");
        // SAFETY: the range is ready, so it lies in the mapping and in the file. `bytes` is ordinary
        // memory and nobody has a reference into the mapping.
        unsafe {
            let target = self.base.as_ptr().add(at);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped with this size, and nobody is left who could reach it.
        let gone = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
        if let Err(e) = gone {
            tracing::warn!(error = %e, "a window onto a file could not be closed");
        }
    }
}
