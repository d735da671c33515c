//! Scrub: it comes to its end whatever the disk refuses and whatever is written meanwhile.

use crate::fixture::{Store, options, put};
use ringdb_storage::{Disk, DiskFile, Durability, MemoryDisk, Options, Place};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// A disk on which one byte of one kind of file cannot be read, so many times.
#[derive(Clone)]
struct Sore {
    disk: MemoryDisk,
    spot: Arc<Mutex<(String, u64)>>,
    times: Arc<AtomicU64>,
}

struct SoreFile {
    name: String,
    file: Arc<dyn DiskFile>,
    disk: Sore,
}

impl Sore {
    fn new(disk: MemoryDisk) -> Self {
        Self { disk, spot: Arc::default(), times: Arc::default() }
    }

    fn refuse(&self, name: &str, offset: u64, times: u64) {
        *self.spot.lock().unwrap() = (name.to_owned(), offset);
        self.times.store(times, Ordering::Relaxed);
    }

    fn wrap(&self, name: &str, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(SoreFile { name: name.to_owned(), file, disk: self.clone() })
    }
}

impl Disk for Sore {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(name, self.disk.create(name)?))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(name, self.disk.open(name)?))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock()
    }
}

impl DiskFile for SoreFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let (name, at) = self.disk.spot.lock().unwrap().clone();
        let hit = name == self.name && (offset..offset + buffer.len() as u64).contains(&at);
        let left = |n: u64| n.checked_sub(1);
        let relaxed = Ordering::Relaxed;
        if hit && self.disk.times.fetch_update(relaxed, relaxed, left).is_ok() {
            return Err(io::Error::other("injected"));
        }
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
}

fn key(i: u32) -> Vec<u8> {
    format!("k{i:03}").into_bytes()
}

/// Sixty rows in one table of several blocks, every tenth of them large enough for a blob file.
fn filled(disk: Arc<dyn Disk>) -> Store {
    let options = Options { large_value_bytes: 200, ..options(1) };
    let mut store = Store::open_on(disk, options).unwrap();
    for i in 0..60 {
        let len = if i % 10 == 0 { 300 } else { 80 };
        let value: Vec<u8> = (0..len).map(|j: u32| (j * j * (i + 3) % 251) as u8).collect();
        store.shards[0].apply(&put(&key(i), &value), Durability::Os).unwrap();
    }
    store.shards[0].rotate();
    store.run_jobs().unwrap();
    store.shards[0].refresh();
    store
}

fn file(disk: &MemoryDisk, ending: &str) -> String {
    disk.list().unwrap().into_iter().rfind(|name| name.ends_with(ending)).unwrap()
}

/// Takes steps until a round is over; how many that were.
fn round(store: &Store) -> usize {
    let before = store.engine.scrub().rounds;
    for steps in 1..1_000 {
        store.engine.scrub_step(500).unwrap().run().unwrap();
        if store.engine.scrub().rounds > before {
            return steps;
        }
    }
    panic!("the round does not end: {:?}", store.engine.scrub());
}

#[test]
fn a_block_that_the_disk_refuses_twice_is_a_bad_one_and_what_follows_is_read() {
    let memory = MemoryDisk::new(1);
    let disk = Sore::new(memory.clone());
    let store = filled(Arc::new(disk.clone()));
    round(&store);
    assert_eq!(store.engine.scrub().bad_blocks, 0);

    // Once is no loss: the disk may have been busy.
    let table = file(&memory, ".sst");
    disk.refuse(&table, 700, 1);
    round(&store);
    assert_eq!((store.engine.scrub().bad_blocks, store.engine.damage().len()), (0, 0));

    // For good it is one bad block, with its keys; a bad one further on is found as well.
    disk.refuse(&table, 700, u64::MAX);
    assert!(memory.rot(&table, 1_500, 4));
    round(&store);
    let damage = store.engine.damage();
    let offsets: Vec<_> = damage.iter().map(|d| d.place.clone()).collect();
    assert_eq!((damage.len(), store.engine.scrub().bad_blocks), (2, 2), "{damage:?}");
    for (damage, at) in damage.iter().zip([700, 1_500]) {
        let Place::Table { offset: Some(offset), .. } = damage.place else { panic!("{offsets:?}") };
        assert!(offset <= at && at < offset + 1_000, "{offsets:?}");
        let named = (0..60).filter(|i| key(*i) >= damage.lower);
        let named = named.filter(|i| damage.upper.as_ref().is_none_or(|upper| key(*i) < *upper));
        assert!((1..20).contains(&named.count()), "{damage:?}");
        assert!(damage.keys().starts_with("from \"k0"), "{}", damage.keys());
    }
}

#[test]
fn a_large_value_or_the_end_of_a_table_that_the_disk_refuses_is_a_bad_one_too() {
    for (ending, from_end) in [(".blob", 250), (".sst", 20)] {
        let memory = MemoryDisk::new(1);
        let disk = Sore::new(memory.clone());
        let store = filled(Arc::new(disk.clone()));
        let name = file(&memory, ending);
        let len = memory.open(&name).unwrap().len().unwrap();
        disk.refuse(&name, len - from_end, u64::MAX);
        round(&store);
        let damage = store.engine.damage();
        assert_eq!((damage.len(), store.engine.scrub().bad_blocks), (1, 1), "{damage:?}");
        let large = matches!(damage[0].place, Place::Blob { .. });
        assert_eq!(large, ending == ".blob", "{damage:?}");
        assert!(!large || damage[0].keys() == "\"k050\"", "{damage:?}");
    }
}

#[test]
fn a_round_ends_however_much_is_written_meanwhile() {
    let memory = MemoryDisk::new(1);
    let mut store = filled(Arc::new(memory.clone()));
    for turn in 0.. {
        assert!(turn < 100, "the round does not end: {:?}", store.engine.scrub());
        // More than a step reads.
        for i in 0..30 {
            let row = put(&key(100 + i), format!("{turn} {i}").repeat(20).as_bytes());
            store.shards[0].apply(&row, Durability::Os).unwrap();
        }
        store.shards[0].rotate();
        while let Some(job) = store.engine.next_flush() {
            job.run().unwrap();
        }
        store.shards[0].refresh();
        store.engine.scrub_step(500).unwrap().run().unwrap();
        if store.engine.scrub().rounds > 0 {
            break;
        }
    }
    // What came meanwhile is of the next round.
    let of_first = store.engine.scrub().bytes_total;
    store.engine.scrub_step(500).unwrap().run().unwrap();
    assert!(store.engine.scrub().bytes_total > of_first);
}

#[test]
fn a_blob_file_that_is_not_there_is_said_once() {
    let memory = MemoryDisk::new(1);
    drop(filled(Arc::new(memory.clone())));
    memory.crash(ringdb_storage::Crash::ProcessKill);
    memory.remove(&file(&memory, ".blob")).unwrap();
    let tolerant = Options { tolerate_damage: true, ..options(1) };
    let store = Store::open(&memory, tolerant).unwrap();
    round(&store);
    let damage = store.engine.damage();
    assert!(matches!(damage[..], [ref d] if matches!(d.place, Place::Blob { offset: None, .. })));
    assert!(damage[0].lower <= key(0) && damage[0].upper.as_ref().unwrap() > &key(50));
}
