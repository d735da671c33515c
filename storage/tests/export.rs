//! Files from store to store, and to RocksDB.

use crate::fixture::{Append, Chance, Rows, Store, all_rows, external, options, put};
use ringdb_storage::{
    Batch, Direction, Disk, Durability, Engine, Error, Export, Exported, FileDisk, JobKind,
    MemoryDisk, Options, PlantedBug, Shard, limits::LEVELS, read_table,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::process::Command;
use std::sync::Arc;

const HOW: Export = Export { first_number: 1, file_bytes: 600, whole_prefix_bytes: 0 };

fn rows(shard: &Shard) -> Rows {
    shard.scan(b"", None, Direction::Forward, None).unwrap().map(Result::unwrap).collect()
}

fn names(files: &[Exported]) -> Vec<String> {
    files.iter().map(|file| file.name.clone()).collect()
}

/// A store with folded and unfolded operands, deletions, and large values, in tables and memtable.
fn source() -> Store {
    let options = Options { large_value_bytes: 40, ..options(1) };
    let mut store = Store::open(&MemoryDisk::new(1), options).unwrap();
    for round in 0..3 {
        let mut batch = Batch::new();
        for i in 0..60 {
            let key = format!("k{i:03}").into_bytes();
            match (i + round) % 4 {
                0 => batch.merge(&key, b"+operand"),
                1 => batch.delete(&key),
                _ => batch.put(&key, "v".repeat(i as usize).as_bytes()),
            }
        }
        batch.delete_range(b"k030", b"k033");
        store.shards[0].apply(&batch, Durability::Os).unwrap();
        if round < 2 {
            store.shards[0].rotate();
            store.run_jobs().unwrap();
        }
    }
    store.shards[0].refresh();
    store
}

#[test]
fn what_was_exported_and_ingested_reads_the_same() {
    let mut store = source();
    let snapshot = store.shards[0].snapshot();
    let want = rows(&store.shards[0]);
    let mut batch = Batch::new();
    batch.delete_range(b"k", b"l");
    store.shards[0].apply(&batch, Durability::Os).unwrap();
    let files = MemoryDisk::new(2);
    let exported = store.shards[0].export(b"", None, Some(&snapshot), &files, &HOW).unwrap();
    assert!(exported.len() > 1, "{exported:?}");
    assert_eq!(exported.iter().map(|f| f.rows).sum::<u64>(), want.len() as u64);

    let disk = MemoryDisk::new(3);
    let mut other = Store::open(&disk, options(3)).unwrap();
    let mut shards = std::mem::take(&mut other.shards);
    let ingested = other.engine.ingest(&mut shards, &files, &names(&exported)).unwrap();
    assert_eq!(ingested.rows, want.len() as u64);
    let found: Rows = shards.iter().flat_map(rows).collect();
    assert_eq!(found, want, "at once");
    drop((other, shards));
    disk.crash(ringdb_storage::Crash::PowerLoss(ringdb_storage::Survival::None));
    let other = Store::open(&disk, options(2)).unwrap();
    assert_eq!(other.shards.iter().flat_map(rows).collect::<Rows>(), want, "after a power loss");
}

#[test]
fn a_part_is_exported_and_rows_of_one_prefix_stay_together() {
    let store = source();
    let files = MemoryDisk::new(2);
    let how = Export { file_bytes: 1, whole_prefix_bytes: 3, ..HOW };
    let exported = store.shards[0].export(b"k010", Some(b"k042"), None, &files, &how).unwrap();
    let spans = exported.iter().map(|f| (&f.smallest[..3], &f.largest[..3]));
    assert_eq!(
        spans.collect::<Vec<_>>(),
        ["k01", "k02", "k03", "k04"].map(|p| { (p.as_bytes(), p.as_bytes()) })
    );
    assert!(exported[0].smallest >= b"k010".to_vec() && exported[3].largest < b"k042".to_vec());
    assert_eq!(files.list().unwrap(), names(&exported));
}

#[test]
fn ingested_rows_are_newer_than_all_before_and_older_than_all_after() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, options(1)).unwrap();
    let shard = &mut store.shards[0];
    for (key, value) in [(b"k001", b"table"), (b"k002", b"memtb")] {
        shard.apply(&put(key, value), Durability::Os).unwrap();
        if key == b"k001" {
            shard.rotate();
        }
    }
    let snapshot = shard.snapshot();
    let incoming: Rows = ["k000", "k001", "k002", "k003"]
        .map(|k| (k.as_bytes().to_vec(), b"ingested".to_vec()))
        .to_vec();
    let (files, names) = external(incoming.iter().map(|(k, v)| (k, v)));
    store.engine.ingest(&mut store.shards, &files, &names).unwrap();
    assert_eq!(rows(&store.shards[0]), incoming);
    let past = |key: &[u8]| store.shards[0].get(key, Some(&snapshot)).unwrap().map(|v| v.to_vec());
    assert_eq!(past(b"k000"), None);
    assert_eq!(past(b"k002").as_deref(), Some(&b"memtb"[..]));
    let mut batch = Batch::new();
    batch.merge(b"k001", b"+");
    batch.delete(b"k003");
    store.shards[0].apply(&batch, Durability::Os).unwrap();
    assert_eq!(store.get(b"k001").unwrap().as_deref(), Some(&b"ingested+"[..]));
    assert_eq!(store.get(b"k003").unwrap(), None);
}

/// Rows of these keys, so large that a few fill a table.
fn incoming(keys: impl Iterator<Item = usize>, seed: u64) -> Rows {
    let chance = &mut Chance(seed);
    let mut value = || (0..200).map(|_| chance.next() as u8).collect();
    keys.map(|i| (format!("k{i:03}").into_bytes(), value())).collect()
}

/// Runs all jobs; how many of them merged or moved tables, and the bytes that these worked on.
fn merging(store: &Store) -> (usize, u64) {
    let (mut jobs, mut bytes) = (0, 0);
    while let Some(job) = store.engine.next_job() {
        let merges = job.kind() == JobKind::Compact;
        jobs += usize::from(merges);
        job.run_paced(&mut |more| {
            bytes += if merges { more } else { 0 };
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    (jobs, bytes)
}

#[test]
fn what_meets_nothing_is_ingested_where_it_stays() {
    let disk = MemoryDisk::new(1);
    let mut store = Store::open(&disk, options(2)).unwrap();
    let mut want = Rows::new();
    // Into an empty store; behind what is there, before it, between.
    for keys in [300..400, 600..700, 0..100, 450..550] {
        let rows = incoming(keys, 1);
        let (files, names) = external(rows.iter().map(|(k, v)| (k, v)));
        assert!(names.len() > 10);
        let before = store.engine.stats().tables;
        store.engine.ingest(&mut store.shards, &files, &names).unwrap();
        let tables = store.engine.stats().tables;
        assert_eq!(tables[..6], [0; 6], "{tables:?}");
        assert!(tables[6] > before[6] + 5, "{tables:?}");
        assert_eq!(merging(&store), (0, 0));
        want.extend(rows);
        want.sort();
        assert_eq!(all_rows(&store), want);
    }
    drop(store);
    disk.crash(ringdb_storage::Crash::PowerLoss(ringdb_storage::Survival::None));
    assert_eq!(all_rows(&Store::open(&disk, options(3)).unwrap()), want, "after a power loss");
}

#[test]
fn what_is_ingested_stands_above_what_is_older_in_every_level() {
    let mut store = Store::open(&MemoryDisk::new(1), options(1)).unwrap();
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut depths = [0; LEVELS];
    for round in 0..60usize {
        // Older rows in level 0 and below, and a compaction that is begun and ends later.
        for i in 0..20 {
            let key = format!("k{:03}", (round * 37 + i * 7) % 400).into_bytes();
            store.shards[0].apply(&put(&key, &[b'a' + i as u8; 150]), Durability::Os).unwrap();
            model.insert(key, vec![b'a' + i as u8; 150]);
        }
        store.shards[0].rotate();
        store.engine.next_flush().unwrap().run().unwrap();
        let begun: Vec<_> =
            std::iter::from_fn(|| store.engine.next_job()).take(round % 4).collect();
        let from = round * 61 % 500;
        let rows = incoming(from..from + 10, round as u64);
        let (files, names) = external(rows.iter().map(|(k, v)| (k, v)));
        let before = store.engine.stats().tables;
        store.engine.ingest(&mut store.shards, &files, &names).unwrap();
        let after = store.engine.stats().tables;
        for (depth, (before, after)) in depths.iter_mut().zip(before.iter().zip(after)) {
            *depth += after - before;
        }
        model.extend(rows);
        let want: Rows = model.clone().into_iter().collect();
        assert_eq!(all_rows(&store), want, "round {round}");
        begun.into_iter().for_each(|job| job.run().unwrap());
        store.shards[0].refresh();
        assert_eq!(all_rows(&store), want, "round {round}, after what was under way");
        if round % 3 == 0 {
            store.run_jobs().unwrap();
            store.shards[0].refresh();
            assert_eq!(all_rows(&store), want, "round {round}, at rest");
        }
    }
    assert!(depths[0] > 0 && depths[1..].iter().filter(|n| **n > 0).count() > 1, "{depths:?}");
}

/// Whether rows read right that come between those that a compaction is just merging.
fn read_right_between(planted_bugs: Vec<PlantedBug>) -> bool {
    // So large that the tables below are small, and merged into one.
    let options = Options { table_bytes: 8 << 10, planted_bugs, ..options(1) };
    let mut store = Store::open(&MemoryDisk::new(1), options).unwrap();
    let mut want: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for place in 0..12 {
        for i in 0..2 {
            let (key, value) = (format!("k{:03}", 8 * place + i).into_bytes(), vec![b'v'; 9]);
            store.shards[0].apply(&put(&key, &value), Durability::Os).unwrap();
            want.insert(key, value);
        }
        store.shards[0].rotate();
        store.engine.next_flush().unwrap().run().unwrap();
    }
    let begun = store.engine.next_job().unwrap();
    assert_eq!(begun.kind(), JobKind::Compact);
    let rows = incoming(3..7, 1);
    let (files, names) = external(rows.iter().map(|(k, v)| (k, v)));
    store.engine.ingest(&mut store.shards, &files, &names).unwrap();
    begun.run().unwrap();
    store.shards[0].refresh();
    want.extend(rows);
    want.iter().all(|(key, value)| store.get(key).unwrap().as_ref() == Some(value))
}

#[test]
fn what_is_ingested_does_not_come_between_what_a_compaction_writes() {
    assert!(read_right_between(Vec::new()));
    assert!(!read_right_between(vec![PlantedBug::IngestPastJobs]), "the bug shows");
}

#[test]
fn what_is_wrong_with_a_file_is_said_and_nothing_of_it_is_taken() {
    let mut store = Store::open(&MemoryDisk::new(1), options(2)).unwrap();
    let incoming: Rows =
        (0..80).map(|i| (format!("k{i:03}").into_bytes(), vec![b'v'; 90])).collect();
    let (files, names) = external(incoming.iter().map(|(k, v)| (k, v)));
    let refusal = |shards: &mut [Shard], files: &MemoryDisk, names: &[String]| match store
        .engine
        .ingest(shards, files, names)
    {
        Err(Error::Refused { reason }) => reason,
        other => panic!("{other:?}"),
    };
    let beyond = refusal(&mut store.shards[..1], &files, &names);
    assert!(beyond.contains("belongs to another shard"), "{beyond}");
    let twice = [&names[..], &names[..1]].concat();
    let overlapping = refusal(&mut store.shards, &files, &twice);
    assert!(overlapping.contains("overlaps"), "{overlapping}");
    for offset in 0..files.open(&names[0]).unwrap().len().unwrap() {
        let rotten = files.fork(1);
        rotten.rot(&names[0], offset, 1 << (offset % 8));
        match store.engine.ingest(&mut store.shards, &rotten, &names) {
            Err(Error::Refused { reason }) => assert!(reason.contains(&names[0]), "{reason}"),
            Ok(_) => {
                let found: Rows = store.shards.iter().flat_map(rows).collect();
                assert_eq!(found, incoming, "the flip at {offset} was harmless");
                let mut batch = Batch::new();
                batch.delete_range(b"k", b"l");
                for shard in &mut store.shards {
                    shard.apply(&batch, Durability::Os).unwrap();
                }
            }
            Err(e) => panic!("{e}"),
        }
        assert!(store.shards.iter().flat_map(rows).next().is_none(), "nothing at {offset}");
    }
    assert!(store.engine.damage().is_empty(), "it is no damage of this store");
    let newer = files.fork(1);
    let version_at = newer.open(&names[0]).unwrap().len().unwrap() - 12;
    newer.open(&names[0]).unwrap().write_at(&[7], version_at).unwrap();
    let reason = refusal(&mut store.shards, &newer, &names);
    let words =
        "cannot be ingested: format_version 7 is not supported; write it with format_version";
    assert!(reason.contains(words), "{reason}");
    // Tables of a store have sequences of their own, and may point elsewhere.
    let disk = MemoryDisk::new(7);
    let mut other = Store::open(&disk, options(1)).unwrap();
    other.shards[0].apply(&put(b"k001", b"v"), Durability::Os).unwrap();
    other.shards[0].rotate();
    other.run_jobs().unwrap();
    let table = disk.list().unwrap().into_iter().find(|n| n.ends_with(".sst")).unwrap();
    let reason = match store.engine.ingest(&mut store.shards, &disk, &[table]) {
        Err(Error::Refused { reason }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason.contains("sequence of another store"), "{reason}");
}

#[test]
fn operands_that_cannot_be_folded_refuse_an_export() {
    let mut store = source();
    let mut batch = Batch::new();
    batch.merge(b"k002", b"!");
    store.shards[0].apply(&batch, Durability::Os).unwrap();
    let files = MemoryDisk::new(2);
    let refused = store.shards[0].export(b"", None, None, &files, &HOW);
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    assert!(files.list().unwrap().is_empty());
}

#[test]
fn a_flush_that_somebody_else_runs_is_waited_for_by_the_caller() {
    let mut store = Store::open(&MemoryDisk::new(1), options(1)).unwrap();
    store.shards[0].apply(&put(b"k001", b"v"), Durability::Os).unwrap();
    store.shards[0].rotate();
    let job = store.engine.next_job().unwrap();
    let incoming: Rows = vec![(b"k001".to_vec(), b"new".to_vec())];
    let (files, names) = external(incoming.iter().map(|(k, v)| (k, v)));
    assert_eq!(store.engine.ingest(&mut store.shards, &files, &names), Err(Error::Busy));
    job.run().unwrap();
    store.engine.ingest(&mut store.shards, &files, &names).unwrap();
    assert_eq!(rows(&store.shards[0]), incoming);
}

fn tool(name: &str, arguments: &[&str]) -> Option<(String, String)> {
    let output = Command::new(name).args(arguments).output().ok()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some((text(&output.stdout), text(&output.stderr)))
}

#[test]
fn rocksdb_ingests_what_was_exported_and_gets_the_same() {
    if tool("ldb", &["--help"]).is_none() {
        eprintln!("SKIPPED: ldb (package rocksdb-tools) is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(FileDisk::new(directory.path().join("store")).unwrap());
    let options = Options { large_value_bytes: 1_000, ..Options::default() };
    let (engine, mut shards) = Engine::open(disk, options, Arc::new(Append), &mut |_| {}).unwrap();
    for round in 0..2 {
        let mut batch = Batch::new();
        for i in 0..500 {
            let key = format!("key-{i:03}").into_bytes();
            match (i + round) % 3 {
                0 => batch.merge(&key, format!("+{round}").as_bytes()),
                1 => batch.put(&key, format!("{i}{}", "x".repeat(10 * i)).as_bytes()),
                _ => batch.delete(&key),
            }
        }
        shards[0].apply(&batch, Durability::Os).unwrap();
        shards[0].rotate();
        engine.next_job().unwrap().run().unwrap();
    }
    shards[0].refresh();
    let out = directory.path().join("out");
    let target = FileDisk::new(&out).unwrap();
    let how = Export { file_bytes: 4 << 10, ..HOW };
    let files = shards[0].export(b"", None, None, &target, &how).unwrap();
    assert!(files.len() > 2, "{files:?}");
    let rocks = format!("--db={}", directory.path().join("rocks").display());
    for file in &files {
        let path = out.join(&file.name).display().to_string();
        let verify = [&*format!("--file={path}"), "--command=verify", "--verify_checksum"];
        let (stdout, stderr) = tool("sst_dump", &verify).unwrap();
        assert!(stdout.contains("The file is ok"), "{stdout} {stderr}");
        let ingest = [&*rocks, "--create_if_missing", "ingest_extern_sst", &path];
        let (stdout, stderr) = tool("ldb", &ingest).unwrap();
        assert!(!stderr.contains("Fail") && !stderr.contains("rror"), "{stdout} {stderr}");
    }
    for i in (0..500).step_by(7) {
        let key = format!("key-{i:03}");
        let ours = shards[0].get(key.as_bytes(), None).unwrap();
        let (stdout, stderr) = tool("ldb", &[&rocks, "get", &key]).unwrap();
        match ours {
            Some(value) => assert_eq!(stdout.trim_end().as_bytes(), &value[..], "{key}"),
            None => assert!(stderr.contains("NotFound"), "{key}: {stdout} {stderr}"),
        }
    }
    let (stdout, _) = tool("ldb", &[&rocks, "scan"]).unwrap();
    assert_eq!(stdout.lines().count(), rows(&shards[0]).len());

    // And back again, out of RocksDB's hands.
    let other = Arc::new(FileDisk::new(directory.path().join("other")).unwrap());
    let options = Options::default();
    let (engine, mut others) = Engine::open(other, options, Arc::new(Append), &mut |_| {}).unwrap();
    engine.ingest(&mut others, &target, &names(&files)).unwrap();
    assert_eq!(rows(&others[0]), rows(&shards[0]));
}

#[test]
fn rocksdb_reads_tables_that_point_to_large_values() {
    if tool("sst_dump", &["--help"]).is_none() {
        eprintln!("SKIPPED: sst_dump (package rocksdb-tools) is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(FileDisk::new(directory.path()).unwrap());
    let options = Options { large_value_bytes: 100, ..Options::default() };
    let (engine, mut shards) = Engine::open(disk, options, Arc::new(Append), &mut |_| {}).unwrap();
    let mut batch = Batch::new();
    for i in 0..1_000 {
        batch.put(format!("key-{i:04}").as_bytes(), "x".repeat(i).as_bytes());
    }
    shards[0].apply(&batch, Durability::Os).unwrap();
    shards[0].rotate();
    engine.next_job().unwrap().run().unwrap();
    assert_eq!(engine.stats().blob_files, 1);
    let table = std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().path());
    let table = table.into_iter().find(|p| p.extension().is_some_and(|e| e == "sst")).unwrap();
    let file = format!("--file={}", table.display());
    let (stdout, stderr) =
        tool("sst_dump", &[&file, "--command=verify", "--verify_checksum"]).unwrap();
    assert!(stdout.contains("The file is ok"), "{stdout} {stderr}");
    let (stdout, _) = tool("sst_dump", &[&file, "--command=scan", "--output_hex"]).unwrap();
    assert_eq!(stdout.lines().filter(|line| line.contains(" => ")).count(), 1_000);
}

#[test]
fn an_export_that_fails_removes_the_files_that_it_made_and_no_other() {
    for (rows, made) in [(0, 0), (30, 2)] {
        let mut store = Store::open(&MemoryDisk::new(1), options(1)).unwrap();
        let mut batch = Batch::new();
        for i in 0..rows {
            batch.put(format!("k{i:03}").as_bytes(), &[b'v'; 90]);
        }
        batch.merge(b"k9", b"!");
        store.shards[0].apply(&batch, Durability::Os).unwrap();
        let files = MemoryDisk::new(2);
        for number in 1..=9 {
            let file = files.create(&format!("{number:010}.sst")).unwrap();
            file.write_at(b"older", 0).unwrap();
        }
        let refused = store.shards[0].export(b"", None, None, &files, &HOW);
        assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
        let left = files.list().unwrap();
        assert_eq!(left.len(), 9 - made, "{left:?}");
        for name in left {
            let mut content = [0; 5];
            files.open(&name).unwrap().read_at(&mut content, 0).unwrap();
            assert_eq!(&content, b"older", "{name}");
        }
    }
}

#[test]
fn tables_that_may_not_be_written_are_read_and_ingested() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let set_mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let files = FileDisk::new(directory.path()).unwrap();
    let exported = source().shards[0].export(b"", None, None, &files, &HOW).unwrap();
    let names = names(&exported);
    names.iter().for_each(|name| set_mode(&directory.path().join(name), 0o444));
    set_mode(directory.path(), 0o555);
    let mut store = Store::open(&MemoryDisk::new(1), options(1)).unwrap();
    let ingested = store.engine.ingest(&mut store.shards, &files, &names).unwrap();
    let files: Arc<dyn Disk> = Arc::new(files);
    let mut read = 0;
    for name in &names {
        read_table(&files, name, &mut |_| read += 1).unwrap();
    }
    assert_eq!(ingested.rows, read);
    assert!(read > 0);
    set_mode(directory.path(), 0o755);
}

/// Who is root may open all that is above for writing; not so what the system itself refuses.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_nobody_may_write_is_read_and_a_write_to_it_refused() {
    let system = FileDisk::new("/sys/kernel").unwrap();
    let file = system.open("uevent_seqnum").unwrap();
    let mut digit = [0];
    file.read_at(&mut digit, 0).unwrap();
    assert!(digit[0].is_ascii_digit(), "{digit:?}");
    let refused = file.write_at(&digit, 0).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
}
