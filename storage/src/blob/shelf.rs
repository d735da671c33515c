//! The blob files that somebody needs, by number.
//!
//! Tables hold the files that they point into; here stands only how to find them. So a file stays
//! readable for as long as some reader's view has a table that points into it, removed or not.

use super::blob_name;
use super::file::{BlobFile, Read};
use super::stored::Pointer;
use crate::disk::Disk;
use crate::error::{Damage, Error, Place};
use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// How to find blob files.
pub(crate) struct Blobs {
    disk: Arc<dyn Disk>,
    files: Mutex<HashMap<u64, Weak<BlobFile>>>,
    /// What was repaired elsewhere: the file, and the block (none: all of them). Reads as absent.
    forgiven: Mutex<BTreeSet<(u64, Option<u64>)>>,
    /// A test planted that checksums are not looked at.
    unchecked: bool,
}

impl Blobs {
    pub(crate) fn new(disk: Arc<dyn Disk>, unchecked: bool) -> Self {
        Self { disk, files: Mutex::default(), forgiven: Mutex::default(), unchecked }
    }

    fn files(&self) -> MutexGuard<'_, HashMap<u64, Weak<BlobFile>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forgiven(&self) -> MutexGuard<'_, BTreeSet<(u64, Option<u64>)>> {
        self.forgiven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file with this number; one that is not there is held as missing.
    pub(crate) fn hold(&self, number: u64) -> io::Result<Arc<BlobFile>> {
        let mut files = self.files();
        if let Some(file) = files.get(&number).and_then(Weak::upgrade) {
            return Ok(file);
        }
        let file = match self.disk.open(&blob_name(number)) {
            Ok(file) => Some(file),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let file = Arc::new(BlobFile::new(number, file));
        files.retain(|_, file| file.strong_count() > 0);
        files.insert(number, Arc::downgrade(&file));
        Ok(file)
    }

    /// The files of which something was found damaged.
    pub(crate) fn broken(&self) -> BTreeSet<u64> {
        let files = self.files();
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
        let io = |e: io::Error| Error::io(&format!("reading blob file {}", pointer.file), &e);
        match self.hold(pointer.file).and_then(|file| file.read(pointer, self.unchecked)) {
            Ok(Read::Value(value)) => Ok(Some(value)),
            Ok(Read::Broken) if self.is_forgiven(pointer.file, Some(pointer.offset)) => Ok(None),
            Ok(Read::Broken) => {
                let place = Place::Blob { number: pointer.file, offset: Some(pointer.offset) };
                let upper = Some([key, &[0]].concat());
                Err(Error::Damaged(Box::new(Damage { place, lower: key.to_vec(), upper })))
            }
            Err(e) => Err(io(e)),
        }
    }
}
