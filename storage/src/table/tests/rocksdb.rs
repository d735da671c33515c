//! Tables that RocksDB's own tools wrote: every format version, both checksums, each kind of
//! index. Skipped, loudly, where the tools are not installed.

use super::super::{TableBounds, TablesCursor};
use super::{get, open};
use crate::disk::{Disk, FileDisk};
use crate::inspect::read_table;
use crate::merge::Direction;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

fn ldb(directory: &Path, arguments: &[&str], input: &str) -> Option<String> {
    let mut command = Command::new("ldb");
    command.arg(format!("--db={}", directory.display())).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    child.stdin.take()?.write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// The newest file of the directory whose name has `part`.
fn newest(directory: &Path, part: &str) -> String {
    let names = fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name());
    let names = names.filter_map(|name| name.into_string().ok());
    names.filter(|name| name.contains(part)).max().unwrap()
}

/// Writes 2,000 rows with these table options; the directory and the name of the table.
fn table(options: &[(&str, &str)]) -> Option<(tempfile::TempDir, String)> {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().join("db");
    ldb(&at, &["--create_if_missing", "put", "key-1500", "overwritten below"], "")?;
    let file = at.join(newest(&at, "OPTIONS"));
    let mut text = fs::read_to_string(&file).unwrap();
    for (name, value) in options {
        let from = text.find(&format!("  {name}=")).expect("an option of this name") + 3;
        let from = from + name.len();
        let to = from + text[from..].find('\n').unwrap();
        text.replace_range(from..to, value);
    }
    fs::write(&file, text).unwrap();
    let mut rows = String::new();
    for i in 1000..3000 {
        writeln!(rows, "key-{i} ==> value {i} {}", "x".repeat(i % 90)).unwrap();
    }
    ldb(&at, &["--try_load_options", "load"], &rows)?;
    ldb(&at, &["--try_load_options", "compact"], "")?;
    let name = newest(&at, ".sst");
    Some((directory, name))
}

#[test]
fn tables_of_every_format_version_that_rocksdb_wrote_are_read() {
    let mut read = 0;
    for format_version in ["2", "3", "4", "5"] {
        for (checksum, restarts, compression, in_block) in [
            ("kCRC32c", "1", "kLZ4Compression", "kDataBlockBinarySearch"),
            ("kXXH3", "4", "kNoCompression", "kDataBlockBinaryAndHash"),
            ("kXXH3", "1", "kLZ4HCCompression", "kDataBlockBinarySearch"),
            ("kCRC32c", "16", "kLZ4Compression", "kDataBlockBinaryAndHash"),
        ] {
            let options = [
                ("format_version", format_version),
                ("checksum", checksum),
                ("index_block_restart_interval", restarts),
                ("compression", compression),
                ("data_block_index_type", in_block),
                ("filter_policy", "bloomfilter:10:false"),
                ("block_size", "500"),
            ];
            let Some((directory, name)) = table(&options) else {
                eprintln!("SKIPPED: ldb (package rocksdb-tools) is not installed");
                return;
            };
            let disk = FileDisk::new(directory.path().join("db")).unwrap();
            let bytes = fs::metadata(directory.path().join("db").join(&name)).unwrap().len();
            let bounds = TableBounds {
                bytes,
                smallest: b"key-1000".to_vec(),
                largest: b"key-2999".to_vec(),
                ..TableBounds::default()
            };
            let table = open(&disk, &name, bounds, 1 << 20).unwrap();
            assert!(table.blocks().unwrap() > 100);
            let value = |i: usize| format!("value {i} {}", "x".repeat(i % 90)).into_bytes();
            for i in 1000..3000 {
                let found = get(&table, format!("key-{i}").as_bytes()).unwrap();
                assert!(found.len() == 1 && found[0].1 == value(i), "{options:?} key-{i}");
                assert!(get(&table, format!("key-{i}a").as_bytes()).unwrap().is_empty());
            }
            // RocksDB keeps the filter that we know from version 5 on.
            let admitted = (0..1000).filter(|i| table.admits(crate::table::hash(&[*i as u8; 9])));
            let expected = if format_version == "5" { 0..100 } else { 1000..1001 };
            assert!(expected.contains(&admitted.count()), "{options:?}");
            let tables = [table];
            for direction in [Direction::Forward, Direction::Backward] {
                let mut cursor = TablesCursor::new(&tables, b"", None, direction).unwrap();
                let mut found = Vec::new();
                while cursor.key().is_some() {
                    cursor.take(&mut found).unwrap();
                }
                let mut values: Vec<_> = found.iter().map(|(_, v)| v.bytes().to_vec()).collect();
                if direction == Direction::Backward {
                    values.reverse();
                }
                assert!(values == (1000..3000).map(value).collect::<Vec<_>>(), "{options:?}");
            }
            read += 1;
        }
    }
    assert_eq!(read, 16);
}

#[test]
fn an_index_in_several_parts_is_refused_in_words() {
    let options = [("index_type", "kTwoLevelIndexSearch"), ("compression", "kLZ4Compression")];
    let Some((directory, name)) = table(&options) else {
        eprintln!("SKIPPED: ldb (package rocksdb-tools) is not installed");
        return;
    };
    let disk = FileDisk::new(directory.path().join("db")).unwrap();
    let bytes = fs::metadata(directory.path().join("db").join(&name)).unwrap().len();
    let bounds = TableBounds { bytes, ..TableBounds::default() };
    let refused = open(&disk, &name, bounds, 1 << 20).err().unwrap().to_string();
    assert!(refused.contains("an index of kind 2"), "{refused}");
}

#[test]
fn what_rocksdb_compressed_or_checked_as_we_do_not_is_refused_in_words() {
    let cases = [
        (("compression", "kSnappyCompression"), "compression 1 (Snappy) is not supported"),
        (("compression", "kZlibCompression"), "compression 2 (ZLIB) is not supported"),
        (("compression", "kZSTD"), "compression 7 (ZSTD) is not supported"),
        (("checksum", "kxxHash"), "checksum 2 (XXH32) is not supported"),
        (("checksum", "kxxHash64"), "checksum 3 (XXH64) is not supported"),
    ];
    for (option, words) in cases {
        let Some((directory, name)) = table(&[option]) else {
            eprintln!("SKIPPED: ldb (package rocksdb-tools) is not installed");
            return;
        };
        let disk: Arc<dyn Disk> = Arc::new(FileDisk::new(directory.path().join("db")).unwrap());
        let refused = read_table(&disk, &name, &mut |_| {}).unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }
}
