//! Ledger: what every key was promised to be and what it is about to become.
//!
//! A file of fixed records, written in place by positional writes, which survive the death of the
//! process in the order in which they were made. Only one change of a key is open at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Keys of the store.
pub(crate) const KEYS: u64 = 6000;
/// Shards; key k belongs to shard k / (KEYS / SHARDS).
pub(crate) const SHARDS: u64 = 2;
/// No value.
pub(crate) const ABSENT: u64 = u64::MAX;

const RECORD_BYTES: u64 = 24;

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    /// What it was when the engine last said that it survives.
    pub(crate) promised: u64,
    /// What it is becoming; the same when nothing is open.
    pub(crate) pending: u64,
    /// Number of the batch that changes it.
    pub(crate) batch: u64,
}

pub(crate) struct Ledger {
    file: File,
}

impl Ledger {
    /// Opens the ledger in `directory`, or makes one in which all keys are absent.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join("ledger");
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        let ledger = Self { file };
        if ledger.file.metadata()?.len() < KEYS * RECORD_BYTES {
            let fresh = Record { promised: ABSENT, pending: ABSENT, batch: 0 };
            let bytes: Vec<u8> = (0..KEYS).flat_map(|_| fresh.bytes()).collect();
            ledger.file.write_all_at(&bytes, 0)?;
        }
        Ok(ledger)
    }

    pub(crate) fn get(&self, key: u64) -> io::Result<Record> {
        let mut bytes = [0; RECORD_BYTES as usize];
        self.file.read_exact_at(&mut bytes, key * RECORD_BYTES)?;
        let word = |i: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[8 * i..8 * i + 8]);
            u64::from_le_bytes(word)
        };
        Ok(Record { promised: word(0), pending: word(1), batch: word(2) })
    }

    pub(crate) fn set(&self, key: u64, record: Record) -> io::Result<()> {
        self.file.write_all_at(&record.bytes(), key * RECORD_BYTES)
    }
}

impl Record {
    fn bytes(self) -> [u8; RECORD_BYTES as usize] {
        let mut bytes = [0; RECORD_BYTES as usize];
        for (i, word) in [self.promised, self.pending, self.batch].into_iter().enumerate() {
            bytes[8 * i..8 * i + 8].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}
