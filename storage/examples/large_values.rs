//! What large values cost, in the tables and beside them: bytes written, CPU time, reads.
//!
//! ```text
//! cargo run --release -p ringdb-storage --example large_values
//! ```
//! Both ways run in turns over the same keys, for each size of values: random overwrites until every
//! key was written five times on average, then random reads. Sizes of memtable and levels are small,
//! so that rows move through several levels as they do in a large store. CPU times include the
//! kernel's; a ratio above 1 speaks for blob files.

use ringdb_storage::{Batch, Durability, Engine, FileDisk, NoMerge, Options, Shard};
use std::sync::Arc;

const LIVE_BYTES: usize = 48 << 20;
const OVERWRITES: usize = 5;

struct Cost {
    /// Bytes given to the system for each byte of a value.
    written: f64,
    /// Microseconds of CPU for each write, background included; for each read; for each row scanned.
    write_cpu_us: f64,
    read_cpu_us: f64,
    scan_cpu_us: f64,
    /// Bytes on disk, without the log, for each byte that is live.
    space: f64,
}

struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Half of it compresses.
fn fill(value: &mut [u8], chance: &mut Chance) {
    for chunk in value.chunks_mut(16) {
        let bytes = chance.next().to_le_bytes();
        let n = chunk.len().min(8);
        chunk[..n].copy_from_slice(&bytes[..n]);
        chunk[n..].fill(b'=');
    }
}

fn key(i: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key[8..].copy_from_slice(&i.to_be_bytes());
    key
}

fn cpu_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| fields[i].parse::<f64>().unwrap_or(0.0);
    (ticks(11) + ticks(12)) * 10_000.0
}

fn written() -> f64 {
    let io = std::fs::read_to_string("/proc/self/io").expect("Linux");
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|n| n.parse().ok()).unwrap_or(0.0)
}

fn settle(engine: &Engine, shard: &mut Shard) {
    while let Some(job) = engine.next_job() {
        job.run().expect("the disk works");
    }
    shard.refresh();
}

fn run(value_bytes: usize, large_value_bytes: usize) -> Cost {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let disk = Arc::new(FileDisk::new(directory.path()).expect("a directory"));
    let options = Options {
        memtable_bytes: 4 << 20,
        log_segment_bytes: 4 << 20,
        log_retain_bytes: 0,
        table_bytes: 4 << 20,
        level1_bytes: 8 << 20,
        block_cache_bytes: 16 << 20,
        blob_file_bytes: 16 << 20,
        large_value_bytes,
        ..Options::default()
    };
    let opened = Engine::open(disk, options, Arc::new(NoMerge), &mut |_| {});
    let (engine, mut shards) = opened.expect("an empty directory");
    let shard = &mut shards[0];
    let keys = (LIVE_BYTES / value_bytes) as u64;
    let writes = keys * OVERWRITES as u64;
    let mut chance = Chance(7);
    let mut value = vec![0; value_bytes];
    let (cpu, bytes) = (cpu_us(), written());
    let mut batch = Batch::new();
    for _ in 0..writes {
        fill(&mut value, &mut chance);
        batch.clear();
        batch.put(&key(chance.next() % keys), &value);
        shard.apply(&batch, Durability::Os).expect("the disk works");
        if shard.wants_rotation() {
            shard.rotate();
            settle(&engine, shard);
        }
    }
    shard.rotate();
    settle(&engine, shard);
    let (cpu, bytes) = (cpu_us() - cpu, written() - bytes);
    let stats = engine.stats();
    let on_disk = stats.table_bytes.iter().sum::<u64>() + stats.blob_bytes;
    let reads = 60_000;
    let cpu_before = cpu_us();
    for _ in 0..reads {
        let found = shard.get(&key(chance.next() % keys), None).expect("the disk works");
        assert!(found.is_none_or(|v| v.len() == value_bytes));
    }
    let read_cpu_us = (cpu_us() - cpu_before) / f64::from(reads);
    let cpu_before = cpu_us();
    let mut rows = 0;
    for _ in 0..5 {
        let scan = shard.scan(b"", None, ringdb_storage::Direction::Forward, None);
        rows = scan.expect("the disk works").filter(Result::is_ok).count();
    }
    let scan_cpu_us = (cpu_us() - cpu_before) / (5 * rows) as f64;
    Cost {
        written: bytes / (writes * value_bytes as u64) as f64,
        write_cpu_us: cpu / writes as f64,
        read_cpu_us,
        scan_cpu_us,
        space: on_disk as f64 / (rows * value_bytes) as f64,
    }
}

fn main() {
    println!(
        "values    where   written/byte  cpu us/write  cpu us/read  cpu us/row scanned  space/byte"
    );
    for value_bytes in [512, 1 << 10, 2 << 10, 4 << 10, 8 << 10, 32 << 10] {
        let mut both = Vec::new();
        for (name, large) in [("tables", usize::MAX), ("blobs", value_bytes)] {
            let cost = run(value_bytes, large);
            println!(
                "{value_bytes:>6}    {name:<6} {:>13.2} {:>13.1} {:>12.1} {:>19.2} {:>11.2}",
                cost.written, cost.write_cpu_us, cost.read_cpu_us, cost.scan_cpu_us, cost.space
            );
            both.push(cost);
        }
        let (tables, blobs) = (&both[0], &both[1]);
        println!(
            "{value_bytes:>6}    ratio  {:>13.2} {:>13.2} {:>12.2} {:>19.2} {:>11.2}",
            tables.written / blobs.written,
            tables.write_cpu_us / blobs.write_cpu_us,
            tables.read_cpu_us / blobs.read_cpu_us,
            tables.scan_cpu_us / blobs.scan_cpu_us,
            tables.space / blobs.space
        );
    }
}
