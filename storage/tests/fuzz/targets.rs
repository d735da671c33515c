//! Targets: any bytes in place of a log segment, a table, or the manifest of a small store.
//!
//! Each panics if a promise is broken: to open, to read, to go on writing and to merge tables either
//! works or says what is wrong; nothing panics, and nothing takes more memory than the bytes justify.
//! Bytes go in as they are and once more with good checksums, so that what stands behind the
//! checksums is reached too. Works on bytes and on the public interface alone, so that the tests,
//! which feed it seeded mutations, and a fuzzer, which feeds it its corpus, share it.

#![allow(dead_code, reason = "the storms use all of it, each fuzzer's program a part")]

use ringdb_storage::{
    Batch, Crash, Direction, Disk, Durability, Engine, Error, MemoryDisk, NoMerge, Options,
};
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

/// A store with tables, range deletions, merges, and rows in the log alone.
struct Base {
    disk: MemoryDisk,
    log: String,
    table: String,
    manifest: String,
}

/// Which file of the store the bytes are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum File {
    Log,
    Table,
    Manifest,
}

fn options(tolerate_damage: bool) -> Options {
    // Files made ready for the log are no frames from their beginning to their end.
    let (log_retain_bytes, log_spares) = (0, 0);
    Options { level0_tables: 2, log_retain_bytes, log_spares, tolerate_damage, ..Options::small() }
}

fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let disk = MemoryDisk::new(1);
        let shared = Arc::new(disk.clone());
        let (engine, mut shards) =
            Engine::open(shared, options(false), Arc::new(NoMerge), &mut |_| {})
                .expect("an empty directory opens");
        let shard = &mut shards[0];
        let mut batch = Batch::new();
        for i in 0..30 {
            let key = format!("key-{:03}", i * 7 % 60).into_bytes();
            match i % 6 {
                0 => batch.merge(&key, b"operand"),
                1 => batch.delete(&key),
                2 => batch.put(&key, &b"compressible ".repeat(20)),
                _ => batch.put(&key, format!("value {i}").as_bytes()),
            }
        }
        batch.delete_range(b"key-010", b"key-020");
        shard.apply(&batch, Durability::Sync).expect("the disk works");
        shard.rotate();
        while let Some(job) = engine.next_job() {
            job.run().expect("the disk works");
        }
        for i in 0..4 {
            batch.clear();
            batch.put(format!("key-{i:03}").as_bytes(), b"late");
            batch.delete_range(b"key-030", b"key-031");
            shard.apply(&batch, Durability::Sync).expect("the disk works");
        }
        drop((engine, shards));
        disk.crash(Crash::ProcessKill);
        let names = disk.list().expect("the disk works");
        let last = |part: &str| {
            let found = names.iter().rfind(|name| name.contains(part));
            found.expect("the store has one").clone()
        };
        Base { log: last(".log"), table: last(".sst"), manifest: last("MANIFEST-"), disk }
    })
}

impl File {
    fn name(self) -> &'static str {
        let base = base();
        match self {
            Self::Log => &base.log,
            Self::Table => &base.table,
            Self::Manifest => &base.manifest,
        }
    }

    /// A good file.
    pub(crate) fn good(self) -> Vec<u8> {
        let file = base().disk.open(self.name()).expect("the store has it");
        let mut bytes = vec![0; usize::try_from(file.len().expect("memory works")).expect("small")];
        file.read_at(&mut bytes, 0).expect("memory works");
        bytes
    }

    /// `data` with checksums that hold, as far as it has the shape of such a file.
    pub(crate) fn seal(self, data: &[u8]) -> Vec<u8> {
        let mut bytes = data.to_vec();
        match self {
            Self::Table => seal_blocks(&mut bytes),
            Self::Manifest => {
                let good = self.good();
                seal_frames(&mut bytes, u64_at(&good, 8).expect("it begins with a frame"));
            }
            Self::Log => {
                let good = self.good();
                seal_slim_frames(&mut bytes, u32_at(&good, 8).expect("it begins with a frame"));
            }
        }
        bytes
    }

    /// The property: a store with `data` as this file errs or works.
    pub(crate) fn fuzz(self, data: &[u8]) {
        for bytes in [data.to_vec(), self.seal(data)] {
            for tolerate_damage in [false, true] {
                self.open_with(&bytes, tolerate_damage);
            }
        }
    }

    /// Rows of the store with `bytes` as this file, if it opens and can be read.
    pub(crate) fn rows(self, bytes: &[u8]) -> Option<usize> {
        let disk = self.disk_with(bytes);
        let (_, shards) =
            Engine::open(disk, options(false), Arc::new(NoMerge), &mut |_| {}).ok()?;
        let scan = shards[0].scan(b"", None, Direction::Forward, None).ok()?;
        scan.map(|row| row.ok()).collect::<Option<Vec<_>>>().map(|rows| rows.len())
    }

    fn disk_with(self, bytes: &[u8]) -> Arc<MemoryDisk> {
        let disk = base().disk.fork(1);
        let file = disk.create(self.name()).expect("memory works");
        file.write_at(bytes, 0).expect("memory works");
        Arc::new(disk)
    }

    fn open_with(self, bytes: &[u8], tolerate_damage: bool) {
        let disk = self.disk_with(bytes);
        for _ in 0..2 {
            // What opening refuses, it refuses with an error: that is all that is asked.
            let _ = open_and_use(&disk, tolerate_damage);
            disk.crash(Crash::ProcessKill);
        }
    }
}

fn open_and_use(disk: &Arc<MemoryDisk>, tolerate_damage: bool) -> Result<(), Error> {
    let mut replayed = 0;
    let mut replay = |batch: ringdb_storage::LogBatch<'_>| replayed += batch.ops().len();
    let opened =
        Engine::open(disk.clone(), options(tolerate_damage), Arc::new(NoMerge), &mut replay);
    let Ok((engine, mut shards)) = opened else { return Ok(()) };
    let shard = &mut shards[0];
    for direction in [Direction::Forward, Direction::Backward] {
        // An error ends a scan, not what is tried after it.
        if let Ok(mut scan) = shard.scan(b"", None, direction, None) {
            while let Ok(Some(_)) = scan.next_row() {}
        }
    }
    for i in 0..60 {
        let _ =
            shard.get(format!("key-{i:03}").as_bytes(), None).map(|value| value.map(|v| v.len()));
    }
    let _ = shard.get_many(&[&b"key-001"[..], b"key-059", b""], |_, _| {});
    engine.read_log(None, &mut |_, _| ControlFlow::Continue(()))?;
    for damage in engine.damage() {
        assert!(!damage.to_string().is_empty());
    }
    let mut batch = Batch::new();
    for i in 0..10 {
        batch.put(format!("key-{:03}", i * 5).as_bytes(), b"new");
    }
    batch.delete_range(b"key-001", b"key-003");
    for _ in 0..3 {
        shard.apply(&batch, Durability::Sync)?;
        shard.rotate();
        while let Some(job) = engine.next_job() {
            job.run()?;
        }
        shard.commit()?;
    }
    Ok(())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let mut v = 0_u64;
    for shift in (0..63).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        v |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return usize::try_from(v).ok();
        }
    }
    None
}

/// docs/format/log.md: length and whether there is a mark, checksum of all else, tag. `tag`: that of a
/// frame at the beginning.
fn seal_slim_frames(bytes: &mut [u8], tag: u32) {
    let mut at = 0;
    while let Some((head, len, end)) = slim_shape(bytes, at) {
        let marked = u32_at(bytes, at).unwrap_or(0) & 1 << 31;
        let frame = &mut bytes[at..end];
        let len = u32::try_from(len.min(frame.len() - head)).expect("it was smaller");
        frame[..4].copy_from_slice(&(len | marked).to_le_bytes());
        frame[8..12].copy_from_slice(&(tag ^ u32::try_from(at).expect("small")).to_le_bytes());
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&frame[..4]);
        hasher.update(&frame[8..]);
        frame[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
        at = end;
    }
}

/// Bytes before the payload of the slim frame at `at`, those that it claims for it, and where it ends;
/// none where no frame fits.
fn slim_shape(bytes: &[u8], at: usize) -> Option<(usize, usize, usize)> {
    let claimed = u32_at(bytes, at)?;
    let head = if claimed & 1 << 31 == 0 { 20 } else { 36 };
    let len = usize::try_from(claimed & !(1 << 31)).expect("32 bits fit");
    let end = (at + head).saturating_add(len).next_multiple_of(4).min(bytes.len());
    (at + head <= bytes.len()).then_some((head, len, end))
}

/// docs/format/manifest.md: length, checksum of all else, id XOR offset.
fn seal_frames(bytes: &mut [u8], id: u64) {
    let mut at = 0;
    while let Some(len) = u32_at(bytes, at).filter(|_| at + 48 <= bytes.len()) {
        let len = usize::try_from(len).expect("32 bits fit").min(bytes.len() - at - 48);
        let frame = &mut bytes[at..at + 48 + len];
        frame[..4].copy_from_slice(&u32::try_from(len).expect("it was smaller").to_le_bytes());
        frame[8..16].copy_from_slice(&(id ^ at as u64).to_le_bytes());
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&frame[..4]);
        hasher.update(&frame[8..]);
        frame[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
        at += (48 + len).next_multiple_of(8);
    }
}

/// Puts `piece` in place of the byte at `at`, and stretches the frame in which it stands.
pub(crate) fn splice_into_frame(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let slim = bytes.get(36..44) == Some(b"RINGLOG1");
    let mut start = 0;
    while let Some(claimed) = u32_at(bytes, start) {
        let (head, len, unit) = match slim_shape(bytes, start) {
            Some((head, len, _)) if slim => (head, len, 4),
            _ => (48, usize::try_from(claimed).expect("32 bits fit"), 8),
        };
        let payload_end = (start + head).saturating_add(len);
        let end = payload_end.next_multiple_of(unit).min(bytes.len());
        if (start + head..payload_end).contains(&at) && payload_end <= end {
            let mut payload = bytes[start + head..payload_end].to_vec();
            payload.splice(at - start - head..=at - start - head, piece.iter().copied());
            let marked = if slim { claimed & 1 << 31 } else { 0 };
            let len = u32::try_from(payload.len()).expect("a few bytes more") | marked;
            payload.resize(payload.len().next_multiple_of(unit), 0);
            bytes.splice(start + head..end, payload);
            bytes[start..start + 4].copy_from_slice(&len.to_le_bytes());
            return;
        }
        if end <= start || end == bytes.len() {
            break;
        }
        start = end;
    }
    bytes.splice(at..=at, piece.iter().copied());
}

/// docs/format/table.md: every block that footer, index and metaindex name.
fn seal_blocks(bytes: &mut [u8]) {
    let Some(footer) = bytes.len().checked_sub(53) else { return };
    let mut at = footer + 1;
    let mut handles = Vec::new();
    for _ in 0..2 {
        let (Some(offset), Some(size)) = (varint(bytes, &mut at), varint(bytes, &mut at)) else {
            return;
        };
        handles.push((offset, size));
    }
    let (meta, index) = (handles[0], handles[1]);
    // The index has no value lengths, the metaindex has: both end in handles.
    for ((offset, size), has_len) in [(index, false), (meta, true)] {
        let Some(end) = offset.checked_add(size).filter(|end| *end <= footer) else { continue };
        let restarts = end.checked_sub(4).and_then(|at| u32_at(bytes, at)).unwrap_or(0) as usize;
        let entries_end = end.saturating_sub(4 + 4 * restarts.min(size));
        let mut at = offset;
        while at < entries_end {
            let entry = (|| {
                varint(bytes, &mut at)?;
                let key = varint(bytes, &mut at)?;
                if has_len {
                    varint(bytes, &mut at)?;
                }
                at = at.checked_add(key)?;
                Some((varint(bytes, &mut at)?, varint(bytes, &mut at)?))
            })();
            let Some(handle) = entry else { break };
            handles.push(handle);
        }
    }
    for (offset, size) in handles {
        let Some(end) = offset.checked_add(size) else { continue };
        if end.checked_add(5).is_none_or(|end| end > footer) {
            continue;
        }
        let kind = bytes[end];
        let hash = xxhash_rust::xxh3::xxh3_64(&bytes[offset..end]) & 0xffff_ffff;
        let hash = u32::try_from(hash).expect("32 bits were kept");
        let sum = hash ^ u32::from(kind).wrapping_mul(0x6b90_83d9);
        bytes[end + 1..end + 5].copy_from_slice(&sum.to_le_bytes());
    }
}
