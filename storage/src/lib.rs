//! storage: how bytes survive.
//!
//! An ordered store of opaque keys and values for one process: a log, memtables and tables, split
//! into shards with one writer each. It knows nothing of clusters, owns no thread, reads no clock,
//! and reaches files only through [`Disk`]. Background work is handed out as [`Job`]s.
//!
//! ```text
//! write path (one core)                          other threads
//!
//!  Batch ── Shard::apply ──► log buffer           SyncHandle::sync ── fdatasync, shared by all
//!                │                │                                    that were committed
//!                ▼                ▼
//!            memtable      Shard::commit            Engine::next_job
//!                │          one write a turn          │ flush: memtable ─► table ─► manifest
//!     rotate     ▼                                    │ compact: tables ─► tables ─► manifest
//!          immutable ───────────────────────────────► │ remove: files nobody needs
//!
//! read path (same core; newest first, stops at the first answer)
//!
//!  get ─► memtable ─► immutable memtables ─► level 0 tables, newest first ─► one table a level
//!                                             (Bloom filter, index, cached block)
//!  scan ─► all of these merged key by key, forward or backward
//!
//! files of a directory
//!
//!  FORMAT  LOCK  CURRENT ─► MANIFEST-n ─► tables *.sst, how far each key range is in tables
//!                                         logs <stream>-<segment>.log, a stream a shard and run
//! ```
//!
//! An owner with one thread a shard uses [`Engine`] and [`Shard`]. A program with many threads uses
//! [`Store`], which puts a queue before each shard: whoever comes first writes for all who wait, in
//! one write and one sync.
//!
//! ```
//! use ringdb_storage::{Durability, FileDisk, NoMerge, Options, Store};
//! use std::sync::Arc;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! let disk = Arc::new(FileDisk::new(directory.path())?);
//! let store = Store::open(disk, Options::default(), Arc::new(NoMerge))?;
//! let worker = std::thread::spawn({ let store = store.clone(); move || store.work() });
//! store.put(b"key", b"value", Durability::Sync)?;
//! assert_eq!(store.get(b"key")?.as_deref(), Some(&b"value"[..]));
//! store.close();
//! worker.join().expect("the worker does not panic");
//! # Ok(())
//! # }
//! ```
//!
//! Reading order: [`Batch`], [`Shard`], [`Engine`], then `log`, `memtable`, `table`, `recovery`.

mod batch;
mod blob;
mod checkpoint;
mod engine;
mod export;
mod fold;
mod front;
mod ingest;
mod inspect;
mod job;
mod lookup;
mod options;
mod reader;
mod scan;
mod scrub;
mod shard;
mod snapshot;
mod sources;
mod value;

mod log;
mod memtable;
mod tombstones;

mod cache;
mod checksum;
mod shelf;
mod table;

mod compaction;
mod flushed;
mod manifest;
mod merge;
mod recovery;
mod repair;
mod version;

mod codec;
pub mod disk;
mod error;
mod key;
pub mod limits;
#[doc(hidden)]
pub mod measure;
mod poison;
mod prefetch;
mod sync;

pub use batch::{Batch, LogBatch, Op, Ops};
pub use checkpoint::Checkpoint;
pub use compaction::filter::{Filter, FilterRow, Verdict};
pub use compaction::pace::{Brake, Debt, Pace};
pub use disk::{Crash, Disk, DiskFile, FileDisk, MemoryDisk, Overlay, Survival, Window};
pub use engine::{Engine, Stats};
pub use error::{Damage, Error, OpenError, Place};
pub use export::{Export, Exported};
pub use fold::{Folded, Merge, NoMerge};
pub use front::{Store, Time};
pub use ingest::Ingested;
pub use inspect::{BlobInfo, TableChange, TableInfo, TableRow, read_table};
pub use job::{Job, JobKind};
pub use log::{LogPosition, SyncHandle};
pub use merge::Direction;
pub use options::{Options, PlantedBug};
pub use reader::{Reader, View};
pub use recovery::LogCut;
pub use repair::{Repair, repair};
pub use scan::Scan;
pub use scrub::Scrub;
pub use shard::{Durability, Shard};
pub use snapshot::Snapshot;
pub use value::Value;
