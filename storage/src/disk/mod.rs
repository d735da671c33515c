//! Disk: the few verbs through which the store reaches files.
//!
//! One flat directory of named files. [`FileDisk`] is the real one; [`MemoryDisk`] can crash, tear,
//! fill up and rot, all from one seed; [`Overlay`] shows another one and changes nothing of it.

mod file;
#[cfg(target_os = "linux")]
mod mapped;
mod memory;
mod overlay;
mod patient;
#[cfg(target_os = "linux")]
mod window;

pub use file::FileDisk;
pub use memory::{Crash, MemoryDisk, Survival};
pub use overlay::Overlay;
pub(crate) use patient::{Patience, Patient};

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A directory of files. Names hold no slash.
pub trait Disk: Send + Sync {
    /// A new empty file for reading and writing; an existing one of that name is emptied.
    /// It survives a power loss only after [`Disk::sync_dir`].
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// An existing file, for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// The names of all files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Gives a file another name, atomically replacing what had that name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; those who have it open go on reading it.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Returns once all creations, renames and removals before the call survive a power loss.
    fn sync_dir(&self) -> io::Result<()>;
    /// Bytes that may still be written; none where the disk cannot tell.
    fn free(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }
    /// Gives the file `name` the same name on `target`, too: as a second name for the same bytes
    /// where that can be, else by copying them. Its content is durable there when it returns, its
    /// name after `target`'s [`Disk::sync_dir`]. For files that do not change any more.
    fn link_to(&self, name: &str, target: &dyn Disk) -> io::Result<()> {
        copy_to(self.open(name)?.as_ref(), name, target)
    }
    /// The directory of the operating system that this is, if it is one.
    fn directory(&self) -> Option<&Path> {
        None
    }
    /// A number that nobody can guess: each of its bits is chance.
    fn random(&self) -> io::Result<u64>;
    /// Keeps others out until what it returns is dropped; `WouldBlock` when somebody is in.
    fn lock(&self) -> io::Result<Box<dyn Send + Sync>>;
}

/// An open file, read and written by position.
pub trait DiskFile: Send + Sync {
    /// Fills `buffer` from `offset`; `UnexpectedEof` when the file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// As [`DiskFile::read_at`], for a file that nobody changes any more: small reads may then go
    /// through memory that is the file's.
    fn read_settled(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_at(buffer, offset)
    }
    /// Writes all of `bytes` at `offset`, growing the file with zeros where needed. After an error
    /// any part of them may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns once everything written before the call survives a power loss. After an error it
    /// is unknown what does, and a second call proves nothing.
    fn sync(&self) -> io::Result<()>;
    /// Size in bytes.
    fn len(&self) -> io::Result<u64>;
    /// True when the file holds nothing.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts the file to `len` bytes.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// A window that may be moved over the first `bytes_max` bytes, also those that the file does not
    /// have yet. None where there are none: then everything is written by [`DiskFile::write_at`].
    fn window(&self, bytes_max: u64) -> io::Result<Option<Box<dyn Window>>> {
        let _ = bytes_max;
        Ok(None)
    }
}

/// A part of a file that is written without a call. What is written through it is seen by reads and
/// made durable by a sync as what [`DiskFile::write_at`] wrote, and survives the death of the process
/// as well; in which pieces it reaches the disk before a sync is as unknown.
pub trait Window: Send {
    /// Moves the window to `range`, all of it inside of the file. After an error nothing may be written through it. Also to be called
    /// again for the same range once the file was synced: what was synced may have to be asked for
    /// again, and only this can say that the disk refuses.
    fn ready(&mut self, range: Range<u64>) -> io::Result<()>;
    /// Writes `bytes` at `offset`.
    ///
    /// # Panics
    /// When that is not all inside of the window.
    fn write(&mut self, bytes: &[u8], offset: u64);
}

/// Copies a file to another disk, durable but for its name.
fn copy_to(file: &dyn DiskFile, name: &str, target: &dyn Disk) -> io::Result<()> {
    let copy = target.create(name)?;
    let len = file.len()?;
    let mut piece = vec![0; usize::try_from(len.min(1 << 20)).expect("at most a mebibyte")];
    let mut at = 0;
    while at < len {
        let n = piece.len().min(usize::try_from(len - at).unwrap_or(usize::MAX));
        file.read_at(&mut piece[..n], at)?;
        copy.write_at(&piece[..n], at)?;
        at += n as u64;
    }
    copy.sync()
}

/// The whole content of a file.
pub(crate) fn read_all(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; len];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Replaces the content of `name` so that after any crash either the old or the new one is there.
pub(crate) fn swap_file(disk: &dyn Disk, name: &str, content: &[u8]) -> io::Result<()> {
    let tmp = format!("{name}.tmp");
    let file = disk.create(&tmp)?;
    file.write_at(content, 0)?;
    file.sync()?;
    disk.rename(&tmp, name)?;
    disk.sync_dir()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    #[test]
    fn each_bit_of_a_random_number_is_chance_and_that_of_a_memory_disk_comes_again() {
        let directory = tempfile::tempdir().unwrap();
        let memory: Arc<dyn Disk> = Arc::new(MemoryDisk::new(1));
        let real: Arc<dyn Disk> = Arc::new(FileDisk::new(directory.path()).unwrap());
        let over: Arc<dyn Disk> = Arc::new(Overlay::new(real.clone()));
        let patient: Arc<dyn Disk> = Arc::new(Patience(over.clone()));
        for disk in [memory, real, over, patient] {
            let numbers: Vec<u64> = (0..100).map(|_| disk.random().unwrap()).collect();
            assert_eq!(numbers.iter().fold(0, |all, number| all | number), u64::MAX);
            assert_eq!(numbers.iter().fold(u64::MAX, |all, number| all & number), 0);
        }
        let [one, twin, other] = [1, 1, 2].map(MemoryDisk::new);
        let numbers = [&one, &twin, &other].map(|disk| disk.random().unwrap());
        assert!(numbers[0] == numbers[1] && numbers[0] != numbers[2]);
        let draw = |disk: &MemoryDisk| disk.random().unwrap();
        assert_ne!(draw(&one.fork(1)), numbers[0], "a fork draws on");
        // What is drawn changes no fate.
        for disk in [&one, &twin] {
            disk.create("a").unwrap().write_at(&[1; 8 << 10], 0).unwrap();
            disk.sync_dir().unwrap();
        }
        draw(&one);
        let [left, right] = [one, twin].map(|disk| {
            disk.crash(Crash::PowerLoss(Survival::Torn));
            read_all(disk.open("a").unwrap().as_ref()).unwrap()
        });
        assert_eq!(left, right);
    }
}
