//! rocksdb_reads: a large store, and whether RocksDB's own tool reads in it what we read.
//!
//! Builds a store with overwrites, merges, deletions, range deletions and a snapshot that keeps old
//! versions. Every table must pass `sst_dump --command=verify --verify_checksum`; what `sst_dump
//! --command=scan` prints of all tables, folded by sequence, must be what our own scan of the store
//! says, row by row, and what was written. At least three levels hold tables.
//!
//! ```text
//! cargo run --release -p ringdb-storage --example rocksdb_reads -- 5000000
//! ```

mod build;
mod tool;

use build::{ABSENT, Built};
use ringdb_storage::{Direction, Error};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// So many levels must hold tables.
const LEVELS_MIN: usize = 3;

fn main() -> ExitCode {
    let keys = match std::env::args().nth(1).map(|word| word.parse()) {
        None => 5_000_000,
        Some(Ok(keys)) if keys >= 10_000 => keys,
        Some(_) => {
            eprintln!("error: how many keys? At least 10000");
            return ExitCode::FAILURE;
        }
    };
    if !tool::is_installed() {
        eprintln!("SKIPPED: sst_dump (package rocksdb-tools) is not installed");
        return ExitCode::from(3);
    }
    let directory = std::env::temp_dir().join(format!("ringdb-large-{}", std::process::id()));
    let done = check(&directory, keys);
    // What was found wrong can be looked at; what was right is of no use.
    match done {
        Ok(said) => {
            if let Err(e) = std::fs::remove_dir_all(&directory) {
                eprintln!("{} stays: {e}", directory.display());
            }
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("error: {e}\nThe store is in {}", directory.display());
            ExitCode::FAILURE
        }
    }
}

fn check(directory: &Path, keys: u32) -> Result<String, String> {
    let began = Instant::now();
    let built = build::build(directory, keys).map_err(|e| e.to_string())?;
    let built_after = began.elapsed().as_secs();
    let stats = built.engine.stats();
    let tables = tool::tables(directory)?;
    if tables.is_empty() || tables.len() != stats.tables.iter().sum::<usize>() {
        return Err(format!("{} files for the tables of {stats:?}", tables.len()));
    }
    let levels: Vec<String> = stats.tables.iter().map(ToString::to_string).collect();
    let levels = levels.join(" ");
    println!("tables by level: {levels}");
    // A store of fewer is not put together as a large one is.
    if stats.tables.iter().filter(|tables| **tables > 0).count() < LEVELS_MIN {
        return Err(format!("fewer than {LEVELS_MIN} levels hold tables: {levels}"));
    }
    let mut entries = Vec::new();
    for table in &tables {
        tool::verify(table)?;
        tool::scan(table, &mut entries)?;
    }
    let kinds = [1, 0, 2].map(|kind| entries.iter().filter(|e| e.kind() == kind).count());
    let all = entries.len();
    let ranges: u64 =
        tables.iter().map(|table| tool::range_deletions(table)).sum::<Result<_, _>>()?;
    if kinds.contains(&0) || ranges == 0 {
        return Err(format!(
            "puts, deletions, merges {kinds:?}, {ranges} range deletions: one is missing"
        ));
    }
    let rows = compare(&built, entries)?;
    Ok(format!(
        "{keys} keys, {} changes: all {} tables (by level {levels}) are ok for sst_dump; its {all} entries \
         ({} puts, {} deletions, {} merges) and {ranges} range deletions fold to our own scan of {rows} \
         rows; {built_after} s to build, {} s in all",
        built.changes,
        tables.len(),
        kinds[0],
        kinds[1],
        kinds[2],
        began.elapsed().as_secs(),
    ))
}

/// Folds what `sst_dump` printed and goes through our own scan beside it.
fn compare(built: &Built, mut entries: Vec<tool::Entry>) -> Result<u64, String> {
    // By key, newest first.
    entries.sort_unstable_by_key(|e| (e.key, std::cmp::Reverse(e.tag)));
    if let Some(pair) =
        entries.windows(2).find(|pair| (pair[0].key, pair[0].tag) == (pair[1].key, pair[1].tag))
    {
        return Err(format!("two tables hold the same change: {:?}", pair[0]));
    }
    let text = |e: Error| e.to_string();
    let mut scan = built.shard.scan(b"", None, Direction::Forward, None).map_err(text)?;
    let mut rows = 0;
    for versions in entries.chunk_by(|a, b| a.key == b.key) {
        let key = versions[0].key;
        let folded = fold(versions, built.covered(key));
        if folded != built.expected[key as usize] {
            let expected = built.expected[key as usize];
            return Err(format!(
                "key {key}: sst_dump says {folded}, written was {expected}: {versions:?}"
            ));
        }
        if folded == ABSENT {
            continue;
        }
        let Some((found, value)) = scan.next_row().map_err(text)? else {
            return Err(format!("our scan ends before key {key}"));
        };
        if build::parse_key(found) != Some(key) || build::number(&value) != Some(folded) {
            let found = found.escape_ascii();
            return Err(format!("sst_dump says {key} is {folded}; our scan goes on with {found}"));
        }
        rows += 1;
    }
    if let Some((found, _)) = scan.next_row().map_err(text)? {
        return Err(format!("our scan has {} where sst_dump has nothing", found.escape_ascii()));
    }
    let expected = built.expected.iter().filter(|number| **number != ABSENT).count() as u64;
    if rows != expected {
        return Err(format!("{rows} rows where {expected} were written"));
    }
    Ok(rows)
}

/// The value of a key whose versions are these, newest first, under a range deletion at `covered`.
fn fold(versions: &[tool::Entry], covered: u64) -> u64 {
    let mut sum = None;
    for version in versions {
        if version.sequence() < covered {
            break;
        }
        match version.kind() {
            0 => break,
            1 => return sum.unwrap_or(0) + version.number,
            _ => sum = Some(sum.unwrap_or(0) + version.number),
        }
    }
    sum.unwrap_or(ABSENT)
}
