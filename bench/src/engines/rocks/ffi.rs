//! The few functions of RocksDB's C interface that are used, from a shared library found at run time.
//!
//! The library's path comes from `RINGDB_ROCKSDB_SO`; `fetch-rocksdb.sh` prints one.

#![allow(unsafe_code, reason = "a C library is loaded and called; each call says why it is sound")]

use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_uchar, c_void};
use std::sync::OnceLock;

/// What the C interface hands out and takes back: never looked into.
pub type Handle = *mut c_void;

/// Bytes as RocksDB passes them by value.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Slice {
    pub data: *const c_char,
    pub bytes: usize,
}

macro_rules! functions {
    ($($field:ident = $symbol:literal : fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions, by what they do; the symbols say what they are called in C.
        pub struct Functions {
            $(pub $field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            _library: Library,
        }

        impl Functions {
            fn load(path: &str) -> Result<Self, libloading::Error> {
                // SAFETY: the library's initialisers are RocksDB's; each symbol is declared below
                // as `rocksdb/c.h` of the version that fetch-rocksdb.sh gets declares it.
                unsafe {
                    let library = Library::new(path)?;
                    Ok(Self {
                        $($field: *library.get($symbol)?,)*
                        _library: library,
                    })
                }
            }
        }
    };
}

functions! {
    open = b"rocksdb_open\0": fn(Handle, *const c_char, *mut *mut c_char) -> Handle;
    close = b"rocksdb_close\0": fn(Handle);
    put = b"rocksdb_put\0":
        fn(Handle, Handle, *const c_char, usize, *const c_char, usize, *mut *mut c_char);
    get_pinned = b"rocksdb_get_pinned\0":
        fn(Handle, Handle, *const c_char, usize, *mut *mut c_char) -> Handle;
    pinned_value = b"rocksdb_pinnableslice_value\0": fn(Handle, *mut usize) -> *const c_char;
    pinned_destroy = b"rocksdb_pinnableslice_destroy\0": fn(Handle);
    multi_get = b"rocksdb_batched_multi_get_cf\0": fn(
        Handle, Handle, Handle, usize, *const *const c_char, *const usize, *mut Handle,
        *mut *mut c_char, c_uchar);
    default_family = b"rocksdb_get_default_column_family_handle\0": fn(Handle) -> Handle;
    delete_range = b"rocksdb_delete_range_cf\0": fn(
        Handle, Handle, Handle, *const c_char, usize, *const c_char, usize, *mut *mut c_char);
    flush = b"rocksdb_flush\0": fn(Handle, Handle, *mut *mut c_char);
    flush_options = b"rocksdb_flushoptions_create\0": fn() -> Handle;
    wait_for_compact = b"rocksdb_wait_for_compact\0": fn(Handle, Handle, *mut *mut c_char);
    wait_options = b"rocksdb_wait_for_compact_options_create\0": fn() -> Handle;
    iterator = b"rocksdb_create_iterator\0": fn(Handle, Handle) -> Handle;
    iterator_destroy = b"rocksdb_iter_destroy\0": fn(Handle);
    iterator_valid = b"rocksdb_iter_valid\0": fn(Handle) -> c_uchar;
    iterator_seek = b"rocksdb_iter_seek\0": fn(Handle, *const c_char, usize);
    iterator_next = b"rocksdb_iter_next\0": fn(Handle);
    iterator_seek_back = b"rocksdb_iter_seek_for_prev\0": fn(Handle, *const c_char, usize);
    iterator_back = b"rocksdb_iter_prev\0": fn(Handle);
    iterator_key = b"rocksdb_iter_key_slice\0": fn(Handle) -> Slice;
    iterator_value = b"rocksdb_iter_value_slice\0": fn(Handle) -> Slice;
    read_options = b"rocksdb_readoptions_create\0": fn() -> Handle;
    write_options = b"rocksdb_writeoptions_create\0": fn() -> Handle;
    write_sync = b"rocksdb_writeoptions_set_sync\0": fn(Handle, c_uchar);
    options = b"rocksdb_options_create\0": fn() -> Handle;
    options_from_text = b"rocksdb_get_options_from_string\0":
        fn(Handle, *const c_char, Handle, *mut *mut c_char);
    create_if_missing = b"rocksdb_options_set_create_if_missing\0": fn(Handle, c_uchar);
    write_buffer = b"rocksdb_options_set_write_buffer_size\0": fn(Handle, usize);
    background_jobs = b"rocksdb_options_set_max_background_jobs\0": fn(Handle, c_int);
    recycle_logs = b"rocksdb_options_set_recycle_log_file_num\0": fn(Handle, usize);
    pipelined = b"rocksdb_options_set_enable_pipelined_write\0": fn(Handle, c_uchar);
    dynamic_levels = b"rocksdb_options_set_level_compaction_dynamic_level_bytes\0":
        fn(Handle, c_uchar);
    mmap_reads = b"rocksdb_options_set_allow_mmap_reads\0": fn(Handle, c_uchar);
    compression = b"rocksdb_options_set_compression\0": fn(Handle, c_int);
    table_factory = b"rocksdb_options_set_block_based_table_factory\0": fn(Handle, Handle);
    table_options = b"rocksdb_block_based_options_create\0": fn() -> Handle;
    format_version = b"rocksdb_block_based_options_set_format_version\0": fn(Handle, c_int);
    filter_policy = b"rocksdb_block_based_options_set_filter_policy\0": fn(Handle, Handle);
    block_cache = b"rocksdb_block_based_options_set_block_cache\0": fn(Handle, Handle);
    bloom = b"rocksdb_filterpolicy_create_bloom_full\0": fn(f64) -> Handle;
    hyper_clock_cache = b"rocksdb_cache_create_hyper_clock\0": fn(usize, usize) -> Handle;
}

/// The library, loaded once.
///
/// # Panics
/// When `RINGDB_ROCKSDB_SO` names no RocksDB: the row would be missing.
pub fn library() -> &'static Functions {
    static LIBRARY: OnceLock<Functions> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let path = std::env::var("RINGDB_ROCKSDB_SO").expect("RINGDB_ROCKSDB_SO names a library");
        Functions::load(&path).unwrap_or_else(|e| panic!("{path} is no RocksDB: {e}"))
    })
}

/// True when a library was named.
#[must_use]
pub fn is_there() -> bool {
    std::env::var_os("RINGDB_ROCKSDB_SO").is_some_and(|path| std::path::Path::new(&path).exists())
}

/// Runs `f`, which may set the error.
///
/// # Panics
/// When it did.
pub fn checked<T>(what: &str, f: impl FnOnce(*mut *mut c_char) -> T) -> T {
    let mut error: *mut c_char = std::ptr::null_mut();
    let done = f(&raw mut error);
    if error.is_null() {
        return done;
    }
    // SAFETY: RocksDB set a NUL-terminated message that lives until it is freed; we end here.
    panic!("RocksDB {what}: {}", unsafe { CStr::from_ptr(error) }.to_string_lossy());
}

/// ns that the checksum of RocksDB's log takes for `bytes` bytes: in hardware some 20 for 140
/// bytes, in software several times that.
#[must_use]
pub fn crc32c_ns(bytes: usize) -> Option<f64> {
    type Extend = unsafe extern "C" fn(u32, *const c_char, usize) -> u32;
    let path = std::env::var("RINGDB_ROCKSDB_SO").ok()?;
    let data = vec![7_u8; bytes];
    let rounds = 1_000_000;
    // SAFETY: the symbol is rocksdb::crc32c::Extend(uint32_t, const char*, size_t), which reads
    // `bytes` bytes of `data`.
    unsafe {
        let library = Library::new(path).ok()?;
        let extend: Extend = *library.get(b"_ZN7rocksdb6crc32c6ExtendEjPKcm\0").ok()?;
        let began = crate::measure::thread_cpu();
        let mut crc = 0;
        for _ in 0..rounds {
            crc = extend(crc, data.as_ptr().cast(), bytes);
        }
        std::hint::black_box(crc);
        Some((crate::measure::thread_cpu() - began).as_nanos() as f64 / f64::from(rounds))
    }
}
