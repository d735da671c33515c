//! How fast tables are written and read, our engine alone, in processor time per operation.
//!
//! `cargo run --release -p ringdb-storage --example tables -- [directory [rows [part]]]`: makes a
//! store of a million rows (16-byte keys, 100-byte values that compress by half) in the directory
//! unless it holds one, then prints one line a workload (of which the name has the part). For a comparison run two builds of it by turns on
//! one directory: only ratios mean something on a machine that does other things too.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a measurement")]

use ringdb_storage::{Batch, Direction, Durability, Engine, FileDisk, NoMerge, Options, Shard};
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Nanoseconds that this thread has spent on a processor.
fn cpu_ns() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn scatter(v: u64) -> u64 {
    let mut z = v.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn key(i: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&scatter(i).to_be_bytes());
    key[8..].copy_from_slice(&scatter(i ^ 0xabcd).to_be_bytes());
    key
}

fn value(i: u64) -> [u8; 100] {
    let mut value = [b'x'; 100];
    for (j, part) in value[..48].chunks_mut(8).enumerate() {
        part.copy_from_slice(&scatter(i * 8 + j as u64).to_le_bytes());
    }
    value
}

fn open(directory: &Path, cache_bytes: usize) -> (Arc<Engine>, Shard) {
    let disk = Arc::new(FileDisk::new(directory).unwrap());
    let options = Options { block_cache_bytes: cache_bytes, ..Options::default() };
    let (engine, mut shards) = Engine::open(disk, options, Arc::new(NoMerge), &mut |_| {}).unwrap();
    (engine, shards.remove(0))
}

fn settle(engine: &Engine, shard: &mut Shard) {
    while let Some(job) = engine.next_job() {
        job.run().unwrap();
        shard.refresh();
    }
}

fn fill(directory: &Path, rows: u64) {
    let (engine, mut shard) = open(directory, 8 << 20);
    let mut batch = Batch::new();
    for i in 0..rows {
        batch.clear();
        batch.put(&key(i), &value(i));
        shard.apply(&batch, Durability::Buffered).unwrap();
        if i % 1024 == 0 {
            shard.commit().unwrap();
        }
        // Four tables of level 0, which a compaction then makes one run.
        if (i + 1) % (rows / 4) == 0 {
            shard.commit().unwrap();
            shard.rotate();
            settle(&engine, &mut shard);
        }
    }
    settle(&engine, &mut shard);
}

/// True when the workload is asked for.
fn wanted(what: &str) -> bool {
    std::env::args().nth(3).is_none_or(|part| what.contains(&part))
}

fn report(what: &str, n: u64, f: impl FnOnce()) {
    if wanted(what) {
        let before = cpu_ns();
        f();
        let ns = (cpu_ns() - before) as f64 / n as f64;
        println!("{what:<24} {ns:>10.1} ns/op");
    }
}

fn gets(shard: &Shard, n: u64, seed: u64, of: impl Fn(u64) -> [u8; 16], hit: bool) {
    for i in 0..n {
        let found = shard.get_with(&of(scatter(seed + i)), |v| v.map_or(0, |v| v[0] as usize + 1));
        assert_eq!(found.unwrap() > 0, hit);
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let scratch = tempfile::tempdir().unwrap();
    let directory = arguments.next().map_or_else(|| scratch.path().join("store"), PathBuf::from);
    let rows: u64 = arguments.next().map_or(1_000_000, |n| n.parse().unwrap());
    if !directory.join("CURRENT").exists() {
        fill(&directory, rows);
    }
    let cached = ["scan, first", "scan, cached", "scan back, cached", "get, cached"];
    let more =
        ["get missing, cached", "get_many 64, cached", "get_many 64, near", "seek + 10, cached"];
    if cached.iter().chain(&more).any(|what| wanted(what)) {
        read_cached(&directory, rows);
    }
    if ["get, small cache", "get missing, small", "seek + 10, small"].iter().any(|w| wanted(w)) {
        read_through_a_small_cache(&directory, rows);
    }
    if ["flush to a table", "compact", "scan over a tenth gone"].iter().any(|w| wanted(w)) {
        write(&scratch.path().join("written"));
    }
}

fn known(rows: u64) -> impl Fn(u64) -> [u8; 16] {
    move |r| key(r % rows)
}

fn unknown(rows: u64) -> impl Fn(u64) -> [u8; 16] {
    move |r| key(rows + r % (1 << 40))
}

fn read_cached(directory: &Path, rows: u64) {
    let (engine, shard) = open(directory, 512 << 20);
    println!("tables a level: {:?}", engine.stats().tables);
    let walk = |direction| {
        let mut scan = shard.scan(b"", None, direction, None).unwrap();
        let mut seen = 0;
        while let Some((key, value)) = scan.next_row().unwrap() {
            black_box((key.len(), value.len()));
            seen += 1;
        }
        assert_eq!(seen, rows);
    };
    report("scan, first", rows, || walk(Direction::Forward));
    walk(Direction::Forward);
    report("scan, cached", rows, || walk(Direction::Forward));
    report("scan back, cached", rows, || walk(Direction::Backward));
    println!("cache {:.1} MB", engine.stats().cache_bytes as f64 / 1e6);
    gets(&shard, 50_000, 77, known(rows), true);
    report("get, cached", 500_000, || gets(&shard, 500_000, 1, known(rows), true));
    report("get missing, cached", 500_000, || gets(&shard, 500_000, 2, unknown(rows), false));
    for sorted in [false, true] {
        let name = if sorted { "get_many 64, near" } else { "get_many 64, cached" };
        let mut all: Vec<[u8; 16]> = (0..500_032).map(|i| known(rows)(scatter(i + 3))).collect();
        if sorted {
            all.sort_unstable();
        }
        report(name, all.len() as u64, || {
            let mut found = 0;
            for keys in all.chunks(64) {
                let count = |_: usize, v: Option<&[u8]>| found += usize::from(v.is_some());
                shard.get_many(keys, count).unwrap();
            }
            assert_eq!(found, all.len());
        });
    }
    report("seek + 10, cached", 200_000, || seeks(&shard, 200_000, known(rows)));
}

fn read_through_a_small_cache(directory: &Path, rows: u64) {
    let (_engine, shard) = open(directory, 24 << 20);
    gets(&shard, 50_000, 78, known(rows), true);
    report("get, small cache", 300_000, || gets(&shard, 300_000, 4, known(rows), true));
    report("get missing, small", 300_000, || gets(&shard, 300_000, 5, unknown(rows), false));
    report("seek + 10, small cache", 100_000, || seeks(&shard, 100_000, known(rows)));
}

fn write(directory: &Path) {
    let (engine, mut shard) = open(directory, 8 << 20);
    let n = 300_000;
    let mut batch = Batch::new();
    for round in 0..4 {
        for i in round * n..(round + 1) * n {
            batch.clear();
            batch.put(&key(i), &value(i));
            shard.apply(&batch, Durability::Buffered).unwrap();
            if i % 1024 == 0 {
                shard.commit().unwrap();
            }
        }
        shard.rotate();
        let job = engine.next_job().unwrap();
        if round < 3 {
            job.run().unwrap();
            settle(&engine, &mut shard);
        } else {
            report("flush to a table", n, || job.run().unwrap());
            report("compact", 4 * n, || settle(&engine, &mut shard));
        }
    }
    let mut batch = Batch::new();
    batch.delete_range(&[0x40], &[0x40 + 26]);
    shard.apply(&batch, Durability::Os).unwrap();
    report("scan over a tenth gone", 4 * n, || {
        let mut scan = shard.scan(b"", None, Direction::Forward, None).unwrap();
        while let Some(row) = scan.next_row().unwrap() {
            black_box(row.0.len());
        }
    });
}

fn seeks(shard: &Shard, n: u64, known: impl Fn(u64) -> [u8; 16]) {
    for i in 0..n {
        let start = known(scatter(9 + i));
        let mut scan = shard.scan(&start, None, Direction::Forward, None).unwrap();
        for _ in 0..10 {
            let Some(row) = scan.next_row().unwrap() else { break };
            black_box(row.1.len());
        }
    }
}
