//! What flush and compaction cost: bytes written for a byte of the user, bytes kept for a byte that
//! is alive, and CPU time for a key.
//!
//! `cargo run --release -p ringdb-storage --example amplification -- [keys] [rounds] [MiB]` fills a store
//! with keys of 16 bytes and half-compressible values of 100 bytes in random order, then overwrites
//! as many keys at random as often as asked (three times), and runs every job when it is due, on the
//! same thread. A last line tells the same once the store has been idle. Memtables and tables have
//! 64 MiB unless said otherwise, the first level four times as much: with 2 MiB a million keys make
//! as many levels as thirty million do with the usual size.

use ringdb_storage::{
    Batch, Disk, DiskFile, Durability, Engine, FileDisk, JobKind, NoMerge, Options,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const KEY_BYTES: u64 = 16;
const VALUE_BYTES: u64 = 100;

/// A real disk that counts what is written, by kind of file.
struct Counting {
    disk: FileDisk,
    written: Mutex<BTreeMap<&'static str, Arc<AtomicU64>>>,
}

struct CountingFile {
    file: Arc<dyn DiskFile>,
    written: Arc<AtomicU64>,
}

impl Counting {
    fn counter(&self, name: &str) -> Arc<AtomicU64> {
        let kind = match name.rsplit_once('.') {
            Some((_, "sst")) => "tables",
            Some((_, "log")) => "log",
            _ => "rest",
        };
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.entry(kind).or_default().clone()
    }

    fn wrap(&self, name: &str, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(CountingFile { file, written: self.counter(name) })
    }

    fn bytes(&self, kind: &str) -> u64 {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.get(kind).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

impl Disk for Counting {
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
    fn random(&self) -> io::Result<u64> {
        self.disk.random()
    }
    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock()
    }
}

impl DiskFile for CountingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
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

/// CPU time of this thread so far, in nanoseconds, as Linux counts it.
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

fn scatter(mut z: u64) -> u64 {
    z = z.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// CPU time by kind of job, and how many ran.
#[derive(Default)]
struct Spent {
    flush: (u64, u64),
    compact: (u64, u64),
}

fn run_jobs(engine: &Engine, spent: &mut Spent) -> Result<(), ringdb_storage::Error> {
    while let Some(job) = engine.next_job() {
        let kind = job.kind();
        let before = cpu_ns();
        job.run()?;
        let place = match kind {
            JobKind::Flush => &mut spent.flush,
            JobKind::Compact | JobKind::Relocate => &mut spent.compact,
            JobKind::Remove | JobKind::Fill | JobKind::Scrub => continue,
        };
        place.0 += cpu_ns() - before;
        place.1 += 1;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let keys: u64 = arguments.next().map_or(Ok(1_000_000), |n| n.parse())?;
    let rounds: u64 = arguments.next().map_or(Ok(3), |n| n.parse())?;
    let mib: usize = arguments.next().map_or(Ok(64), |n| n.parse())?;
    let directory = std::env::temp_dir().join(format!("amplification-{}", std::process::id()));
    let disk = Arc::new(Counting { disk: FileDisk::new(&directory)?, written: Mutex::default() });
    let options = Options {
        log_retain_bytes: 0,
        memtable_bytes: mib << 20,
        table_bytes: (mib as u64) << 20,
        level1_bytes: (mib as u64) << 22,
        ..Options::default()
    };
    let (engine, mut shards) = Engine::open(disk.clone(), options, Arc::new(NoMerge), &mut |_| {})?;
    let shard = &mut shards[0];
    let mut batch = Batch::new();
    let live = keys * (KEY_BYTES + VALUE_BYTES);
    let (mut puts, mut puts_ns) = (0, 0);
    println!(
        "round   puts  write amp (tables, log)  space amp  flush ns/key  compact ns/key  jobs"
    );
    for round in 0..=rounds + 1 {
        let idle = round == rounds + 1;
        let tables_before = disk.bytes("tables");
        let log_before = disk.bytes("log");
        let mut spent = Spent::default();
        let count = if idle { 0 } else { keys };
        for i in 0..count {
            // A permutation fills; later rounds choose at random.
            let chosen = if round == 0 { i } else { scatter(round << 40 | i) % keys };
            let key = [scatter(chosen).to_be_bytes(), chosen.to_be_bytes()].concat();
            let mut value = [0; VALUE_BYTES as usize];
            for (j, piece) in value[..VALUE_BYTES as usize / 2].chunks_mut(8).enumerate() {
                let random = scatter(round << 50 | i << 8 | j as u64).to_le_bytes();
                piece.copy_from_slice(&random[..piece.len()]);
            }
            batch.clear();
            batch.put(&key, &value);
            let before = if i % 1024 == 0 { cpu_ns() } else { 0 };
            shard.apply(&batch, Durability::Buffered)?;
            if before > 0 {
                puts_ns += cpu_ns() - before;
                puts += 1;
            }
            if i % 64 == 0 {
                shard.commit()?;
            }
            if shard.wants_rotation() {
                shard.rotate();
                run_jobs(&engine, &mut spent)?;
                shard.refresh();
            }
        }
        shard.commit()?;
        if idle {
            shard.rotate();
            run_jobs(&engine, &mut spent)?;
        }
        let user = count.max(1) * (KEY_BYTES + VALUE_BYTES);
        let tables = (disk.bytes("tables") - tables_before) as f64;
        let log = (disk.bytes("log") - log_before) as f64;
        let stats = engine.stats();
        let stored: u64 = stats.table_bytes.iter().sum();
        let per_key = |ns: u64| ns / count.max(1);
        let name = if idle { "idle".to_owned() } else { format!("{round}") };
        println!(
            "{name:>5} {count:>7} {:>11.2} ({:.2}, {:.2}) {:>15.2} {:>13} {:>15}  {} flushes, {} compactions, tables {:?}",
            if idle { 0.0 } else { (tables + log) / user as f64 },
            if idle { 0.0 } else { tables / user as f64 },
            if idle { 0.0 } else { log / user as f64 },
            stored as f64 / live as f64,
            if idle { 0 } else { per_key(spent.flush.0) },
            if idle { 0 } else { per_key(spent.compact.0) },
            spent.flush.1,
            spent.compact.1,
            stats.tables,
        );
    }
    println!("put {} ns of CPU, every 1024th measured", puts_ns / u64::max(puts, 1));
    let tables = disk.bytes("tables") as f64;
    let log = disk.bytes("log") as f64;
    let user = (keys * (rounds + 1) * (KEY_BYTES + VALUE_BYTES)) as f64;
    println!(
        "whole run: write amplification {:.2}, of it tables {:.2}",
        (tables + log) / user,
        tables / user
    );
    drop(shards);
    drop(engine);
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}
