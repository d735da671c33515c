//! RocksDB's own tool reads our tables. Skipped, loudly, where it is not installed.

use crate::fixture::{Append, Chance};
use ringdb_storage::{Batch, Durability, Engine, FileDisk, Options};
use std::process::Command;
use std::sync::Arc;

fn sst_dump(arguments: &[String]) -> Option<(String, String)> {
    let output = Command::new("sst_dump").args(arguments).output().ok()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some((text(&output.stdout), text(&output.stderr)))
}

#[test]
fn rocksdb_verifies_and_scans_tables_with_every_kind_of_change() {
    if sst_dump(&["--help".to_owned()]).is_none() {
        eprintln!("SKIPPED: sst_dump (package rocksdb-tools) is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(FileDisk::new(directory.path()).unwrap());
    let options = Options::default();
    let (engine, mut shards) = Engine::open(disk, options, Arc::new(Append), &mut |_| {}).unwrap();
    let mut chance = Chance(7);
    for round in 0..3 {
        let mut batch = Batch::new();
        for i in 0..3000 {
            let key = format!("key-{:05}", chance.below(20_000)).into_bytes();
            match chance.below(10) {
                0 => batch.delete(&key),
                1..3 => batch.merge(&key, b"operand"),
                _ => batch.put(&key, format!("value {round} {i} {}", "x".repeat(80)).as_bytes()),
            }
        }
        batch.delete_range(b"key-05000", b"key-05500");
        batch.delete_range(b"key-05200", b"key-06500");
        shards[0].apply(&batch, Durability::Os).unwrap();
        shards[0].rotate();
        while let Some(job) = engine.next_job() {
            job.run().unwrap();
        }
    }
    let mut tables = 0;
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "sst") {
            continue;
        }
        tables += 1;
        let file = format!("--file={}", path.display());
        let verify = ["--command=verify", "--verify_checksum"].map(str::to_owned);
        let (stdout, stderr) =
            sst_dump(&[std::slice::from_ref(&file), &verify[..]].concat()).unwrap();
        assert!(stdout.contains("The file is ok"), "{stdout} {stderr}");
        assert!(!stderr.contains("orrupt"), "{stderr}");
        let scan = ["--command=scan", "--output_hex"].map(str::to_owned);
        let (stdout, stderr) =
            sst_dump(&[std::slice::from_ref(&file), &scan[..]].concat()).unwrap();
        let rows = stdout.lines().filter(|line| line.contains(" => ")).count();
        assert!(rows > 1000, "{rows} rows: {stderr}");
        // A seek goes through index and filter; without the right properties it finds nothing.
        let seek = ["--command=scan", "--from=key-15000", "--read_num=5"].map(str::to_owned);
        let (stdout, _) = sst_dump(&[&[file], &seek[..]].concat()).unwrap();
        assert!(stdout.contains("'key-15"), "{stdout}");
    }
    assert!(
        (2..=3).contains(&tables),
        "{tables} tables: range deletions ask for a compaction early"
    );
}
