//! Pane: a window onto a file of a [`super::MemoryDisk`].
//!
//! Promise: each write through it is an un-synced write like any other, which a crash may undo or
//! tear; and what would cost a process its life, a write where the file has ended, panics.

use super::{OpenFile, Windows, lock};
use crate::disk::Window;
use std::io;
use std::ops::Range;

/// What is written through it cannot fail: it is in the machine's memory even when the power is off,
/// until the machine comes up again.
pub(super) struct Pane {
    file: OpenFile,
    ready: Range<u64>,
}

impl Pane {
    pub(super) fn new(file: OpenFile) -> Self {
        Self { file, ready: 0..0 }
    }
}

impl Window for Pane {
    fn ready(&mut self, range: Range<u64>) -> io::Result<()> {
        let refused = self.file.disk()?.windows == Windows::Refused;
        let beyond = range.end > lock(&self.file.inode).data.len() as u64;
        self.ready = if refused || beyond { 0..0 } else { range };
        if refused || beyond { Err(io::Error::other("no page for the window")) } else { Ok(()) }
    }

    fn write(&mut self, bytes: &[u8], offset: u64) {
        let end = offset + bytes.len() as u64;
        assert!(self.ready.start <= offset && end <= self.ready.end, "a write beside the window");
        let mut state = self.file.disk.state();
        if state.epoch != self.file.epoch {
            return;
        }
        state.window_writes += 1;
        let mut content = lock(&self.file.inode);
        assert!(end <= content.data.len() as u64, "a process writes where its file has ended");
        content.write(bytes, usize::try_from(offset).expect("inside of a file in memory"));
    }
}
