//! The blob files that somebody needs, by number.
//!
//! Tables hold the files that they point into; here stands only how to find them. So a file stays
//! readable for as long as some reader's view has a table that points into it, removed or not.
//! Who reads takes no lock: the list of files is replaced, never changed.

use super::blob_name;
use super::file::{BlobFile, Read};
use super::stored::Pointer;
use crate::disk::Disk;
use crate::error::{Damage, Error, Place};
use arc_swap::ArcSwap;
use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// How to find blob files.
pub(crate) struct Blobs {
    disk: Arc<dyn Disk>,
    files: ArcSwap<HashMap<u64, Weak<BlobFile>>>,
    /// Held by whoever replaces the list.
    opening: Mutex<()>,
    /// What was repaired elsewhere: the file, and the block (none: all of them). Reads as absent.
    forgiven: Mutex<BTreeSet<(u64, Option<u64>)>>,
    /// A test planted that checksums are not looked at.
    unchecked: bool,
}

impl Blobs {
    pub(crate) fn new(disk: Arc<dyn Disk>, unchecked: bool) -> Self {
        let files = ArcSwap::default();
        Self { disk, files, opening: Mutex::default(), forgiven: Mutex::default(), unchecked }
    }

    /// The file with this number, if somebody holds it.
    fn held(&self, number: u64) -> Option<Arc<BlobFile>> {
        self.files.load().get(&number).and_then(Weak::upgrade)
    }

    fn forgiven(&self) -> MutexGuard<'_, BTreeSet<(u64, Option<u64>)>> {
        self.forgiven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file with this number; one that is not there is held as missing.
    pub(crate) fn hold(&self, number: u64) -> io::Result<Arc<BlobFile>> {
        if let Some(file) = self.held(number) {
            return Ok(file);
        }
        let _one = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = self.held(number) {
            return Ok(file);
        }
        let file = match self.disk.open(&blob_name(number)) {
            Ok(file) => Some(file),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let file = Arc::new(BlobFile::new(number, file));
        let mut files = HashMap::clone(&self.files.load());
        files.retain(|_, file| file.strong_count() > 0);
        files.insert(number, Arc::downgrade(&file));
        self.files.store(Arc::new(files));
        Ok(file)
    }

    /// True when somebody holds the file with this number, and there is none.
    pub(crate) fn is_missing(&self, number: u64) -> bool {
        self.held(number).is_some_and(|file| file.is_missing())
    }

    /// The files of which something was found damaged.
    pub(crate) fn broken(&self) -> BTreeSet<u64> {
        let files = self.files.load();
        let held = files.values().filter_map(Weak::upgrade);
        held.filter(|file| file.is_broken()).map(|file| file.number).collect()
    }

    /// What stood there was repaired elsewhere.
    pub(crate) fn forgive(&self, number: u64, offset: Option<u64>) {
        self.forgiven().insert((number, offset));
    }

    pub(crate) fn is_forgiven(&self, number: u64, offset: Option<u64>) -> bool {
        let forgiven = self.forgiven();
        forgiven.contains(&(number, None)) || forgiven.contains(&(number, offset))
    }

    /// The value of `key` that `pointer` leads to; none when its damage was repaired elsewhere.
    /// Whoever asks holds a table that points there.
    pub(crate) fn load(&self, pointer: Pointer, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let io = |e: io::Error| Error::io(&format!("reading {}", blob_name(pointer.file)), &e);
        match self.hold(pointer.file).and_then(|file| file.read(pointer, self.unchecked)) {
            Ok(Read::Value(value)) => Ok(Some(value)),
            Ok(Read::Broken) if self.is_forgiven(pointer.file, Some(pointer.offset)) => Ok(None),
            Ok(Read::Broken) => Err(damaged(pointer, key)),
            Err(e) => Err(io(e)),
        }
    }

    /// The error for the value of `key` that `pointer` leads to, and that the disk refuses to read.
    pub(crate) fn lost(&self, pointer: Pointer, key: &[u8]) -> Error {
        if let Some(file) = self.held(pointer.file) {
            file.mark_broken();
        }
        damaged(pointer, key)
    }
}

fn damaged(pointer: Pointer, key: &[u8]) -> Error {
    let place = Place::Blob { number: pointer.file, offset: Some(pointer.offset) };
    let upper = Some([key, &[0]].concat());
    Error::Damaged(Box::new(Damage { place, lower: key.to_vec(), upper }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::super::file::BlobWriter;
    use super::*;
    use crate::disk::{DiskFile, MemoryDisk};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    /// A disk on which opening file 2 says that it began, and waits until it may go on.
    struct SlowDisk {
        disk: MemoryDisk,
        begun: Mutex<Sender<()>>,
        go_on: Mutex<Receiver<()>>,
    }

    impl Disk for SlowDisk {
        fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
            self.disk.create(name)
        }
        fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
            if name == blob_name(2) {
                self.begun.lock().unwrap().send(()).unwrap();
                self.go_on.lock().unwrap().recv().unwrap();
            }
            self.disk.open(name)
        }
        fn list(&self) -> io::Result<Vec<String>> {
            self.disk.list()
        }
        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.disk.rename(from, to)
        }
        fn remove(&self, name: &str) -> io::Result<()> {
            self.disk.remove(name)
        }
        fn sync_dir(&self) -> io::Result<()> {
            self.disk.sync_dir()
        }
        fn random(&self) -> io::Result<u64> {
            self.disk.random()
        }
        fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
            self.disk.lock()
        }
    }

    #[test]
    fn a_large_value_is_read_while_another_file_is_being_opened() {
        let disk = MemoryDisk::new(1);
        let mut pointers = Vec::new();
        for number in [1, 2] {
            let mut writer = BlobWriter::create(&disk, number).unwrap();
            pointers.push(writer.add(&[number as u8; 5000]).unwrap());
            writer.finish().unwrap();
        }
        let (begun, await_begun) = channel();
        let (let_go_on, go_on) = channel();
        let disk = SlowDisk { disk, begun: Mutex::new(begun), go_on: Mutex::new(go_on) };
        let blobs = Arc::new(Blobs::new(Arc::new(disk), false));
        let first = blobs.hold(1).unwrap();
        let opener = std::thread::spawn({
            let blobs = blobs.clone();
            move || blobs.hold(2).unwrap()
        });
        await_begun.recv().unwrap();
        let (read, await_read) = channel();
        let reader = std::thread::spawn({
            let (blobs, pointer) = (blobs.clone(), pointers[0]);
            move || read.send(blobs.load(pointer, b"key").unwrap()).unwrap()
        });
        let value = await_read.recv_timeout(Duration::from_secs(10));
        let_go_on.send(()).unwrap();
        let second = opener.join().unwrap();
        reader.join().unwrap();
        assert_eq!(value.unwrap().unwrap(), [1; 5000], "read without waiting for the other");
        assert_eq!(blobs.load(pointers[1], b"key").unwrap().unwrap(), [2; 5000]);
        assert!(Arc::ptr_eq(&second, &blobs.hold(2).unwrap()), "one file, however often held");
        drop(first);
        assert!(blobs.held(1).is_none(), "nobody keeps a file that no table points into");
    }
}
