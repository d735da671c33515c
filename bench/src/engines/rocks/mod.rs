//! RocksDB at its best for these workloads: recycled logs, HyperClockCache, pipelined writes, LZ4,
//! dynamic level sizes, 10-bit full Bloom filters; index and filters held by the open tables.

#![allow(unsafe_code, reason = "calls of a C library, each with its reason")]

pub mod ffi;

use super::{Setup, Store};
use crate::workload::Key;
use ffi::{Functions, Handle, checked};
use std::ffi::{CStr, CString, c_char};
use std::ptr;

/// When it is set RocksDB reads tables through memory, which ends the process where the disk refuses
/// a page. Not RocksDB's default.
const MMAP: &str = "RINGDB_ROCKSDB_MMAP";
/// RocksDB's number for LZ4.
const LZ4: i32 = 4;

/// An open RocksDB.
pub struct Rocks {
    f: &'static Functions,
    db: Handle,
    family: Handle,
    read: Handle,
    write: Handle,
    write_synced: Handle,
    flush: Handle,
    wait: Handle,
}

// SAFETY: RocksDB's database and its options are made for use by many threads at a time; iterators
// and pinned values, which are not, never leave the function that made them.
unsafe impl Send for Rocks {}
// SAFETY: as above.
unsafe impl Sync for Rocks {}

/// What is in the log stays in memory when it opens, as ours does, instead of becoming a table
/// first. The C interface has no function for it.
const AFTER_A_KILL: &CStr = c"avoid_flush_during_recovery=true";

fn chars(bytes: &[u8]) -> *const c_char {
    bytes.as_ptr().cast()
}

impl Store for Rocks {
    fn open(setup: Setup<'_>) -> Self {
        let f = ffi::library();
        let path = CString::new(setup.directory.to_string_lossy().as_bytes());
        let path = path.expect("a path without NUL");
        let background = i32::try_from(setup.background).expect("few threads");
        // SAFETY: every handle is fresh from its constructor and of the kind that the setter takes.
        unsafe {
            let table = (f.table_options)();
            (f.format_version)(table, 5);
            (f.filter_policy)(table, (f.bloom)(10.0));
            // 0: the cache estimates the size of its entries by itself.
            (f.block_cache)(table, (f.hyper_clock_cache)(setup.cache_bytes, 0));
            let options = (f.options)();
            (f.create_if_missing)(options, 1);
            (f.write_buffer)(options, setup.memtable_bytes);
            (f.background_jobs)(options, background);
            (f.recycle_logs)(options, 4);
            (f.pipelined)(options, 1);
            (f.dynamic_levels)(options, 1);
            (f.mmap_reads)(options, u8::from(std::env::var_os(MMAP).is_some()));
            (f.compression)(options, LZ4);
            (f.table_factory)(options, table);
            let all = (f.options)();
            checked("options", |e| {
                (f.options_from_text)(options, AFTER_A_KILL.as_ptr(), all, e);
            });
            let db = checked("opens", |e| (f.open)(all, path.as_ptr(), e));
            let write_synced = (f.write_options)();
            (f.write_sync)(write_synced, 1);
            Self {
                f,
                db,
                family: (f.default_family)(db),
                read: (f.read_options)(),
                write: (f.write_options)(),
                write_synced,
                flush: (f.flush_options)(),
                wait: (f.wait_options)(),
            }
        }
    }

    fn put(&self, key: &Key, value: &[u8], sync: bool) {
        let options = if sync { self.write_synced } else { self.write };
        let (key, key_bytes, value, value_bytes) =
            (chars(key), key.len(), chars(value), value.len());
        // SAFETY: the database is open, and both slices outlive the call, which copies them.
        checked("puts", |e| unsafe {
            (self.f.put)(self.db, options, key, key_bytes, value, value_bytes, e);
        });
    }

    fn get(&self, key: &Key) -> Option<usize> {
        // SAFETY: the key outlives the call; the pinned value is destroyed once, after its use.
        unsafe {
            let pinned = checked("gets", |e| {
                (self.f.get_pinned)(self.db, self.read, chars(key), key.len(), e)
            });
            if pinned.is_null() {
                return None;
            }
            let mut bytes = 0;
            (self.f.pinned_value)(pinned, &raw mut bytes);
            (self.f.pinned_destroy)(pinned);
            Some(bytes)
        }
    }

    fn get_many(&self, keys: &[Key]) -> usize {
        let n = keys.len();
        let pointers: Vec<*const c_char> = keys.iter().map(|key| chars(key)).collect();
        let lengths: Vec<usize> = keys.iter().map(|key| key.len()).collect();
        let mut values: Vec<Handle> = vec![ptr::null_mut(); n];
        let mut errors: Vec<*mut c_char> = vec![ptr::null_mut(); n];
        // SAFETY: four arrays of n entries; each pinned value is destroyed once.
        unsafe {
            (self.f.multi_get)(
                self.db,
                self.read,
                self.family,
                n,
                pointers.as_ptr(),
                lengths.as_ptr(),
                values.as_mut_ptr(),
                errors.as_mut_ptr(),
                0,
            );
            assert!(errors.iter().all(|e| e.is_null()), "RocksDB gets many");
            let found = values.iter().filter(|value| !value.is_null());
            found.map(|value| (self.f.pinned_destroy)(*value)).count()
        }
    }

    fn scan(&self, start: &[u8], rows_max: usize) -> (usize, usize) {
        let mut sum = (0, 0);
        // SAFETY: the iterator lives in this function only; key and value are asked of it only
        // while it is valid.
        unsafe {
            let rows = (self.f.iterator)(self.db, self.read);
            (self.f.iterator_seek)(rows, chars(start), start.len());
            while sum.0 < rows_max && (self.f.iterator_valid)(rows) != 0 {
                let (key, value) = ((self.f.iterator_key)(rows), (self.f.iterator_value)(rows));
                sum = (sum.0 + 1, sum.1 + key.bytes + value.bytes);
                (self.f.iterator_next)(rows);
            }
            (self.f.iterator_destroy)(rows);
        }
        sum
    }

    fn scan_back(&self, from: &[u8], rows_max: usize) -> (usize, usize) {
        let mut sum = (0, 0);
        // SAFETY: as above.
        unsafe {
            let rows = (self.f.iterator)(self.db, self.read);
            (self.f.iterator_seek_back)(rows, chars(from), from.len());
            while sum.0 < rows_max && (self.f.iterator_valid)(rows) != 0 {
                let (key, value) = ((self.f.iterator_key)(rows), (self.f.iterator_value)(rows));
                sum = (sum.0 + 1, sum.1 + key.bytes + value.bytes);
                (self.f.iterator_back)(rows);
            }
            (self.f.iterator_destroy)(rows);
        }
        sum
    }

    fn delete_range(&self, start: &[u8], end: &[u8]) {
        let (start, start_bytes, end, end_bytes) =
            (chars(start), start.len(), chars(end), end.len());
        // SAFETY: both keys outlive the call, which copies them.
        checked("deletes", |e| unsafe {
            let f = self.f.delete_range;
            f(self.db, self.write, self.family, start, start_bytes, end, end_bytes, e);
        });
    }

    fn settle(&self) {
        // SAFETY: the database is open, the options are of the right kinds.
        checked("flushes", |e| unsafe { (self.f.flush)(self.db, self.flush, e) });
        // SAFETY: as above.
        checked("waits", |e| unsafe { (self.f.wait_for_compact)(self.db, self.wait, e) });
    }
}

impl Drop for Rocks {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once; nothing of it is used after. Options may leak: the
        // process ends.
        unsafe { (self.f.close)(self.db) }
    }
}
