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
//! Reading order: [`Batch`], [`Shard`], [`Engine`], then `log`, `memtable`, `table`, `recovery`.

mod batch;
mod blob;
mod checkpoint;
mod engine;
mod export;
mod fold;
mod ingest;
mod inspect;
mod job;
mod options;
mod scan;
mod scrub;
mod shard;
mod snapshot;
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
mod poison;

pub use batch::{Batch, LogBatch, Op, Ops};
pub use checkpoint::Checkpoint;
pub use disk::{Crash, Disk, DiskFile, FileDisk, MemoryDisk, Overlay, Survival};
pub use engine::{Engine, Stats};
pub use error::{Damage, Error, OpenError, Place};
pub use export::{Export, Exported};
pub use fold::{Folded, Merge, NoMerge};
pub use ingest::Ingested;
pub use inspect::{BlobInfo, TableChange, TableInfo, TableRow, read_table};
pub use job::{Job, JobKind};
pub use log::{LogPosition, SyncHandle};
pub use merge::Direction;
pub use options::{Options, PlantedBug};
pub use repair::{Repair, repair};
pub use scan::Scan;
pub use scrub::Scrub;
pub use shard::{Durability, Shard};
pub use snapshot::Snapshot;
pub use value::Value;
