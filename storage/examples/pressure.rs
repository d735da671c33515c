//! An embedder that writes faster than its store can flush and merge: what its threads feel.
//!
//! `cargo run --release -p ringdb-storage --example pressure -- [seconds] [threads] [memtable MiB]
//! [value bytes] [brake|none] [milliseconds] [MB/s]` puts keys of 16 bytes at random into a [`Store`] of two shards
//! with two threads lent to it, as fast as it can. With `none` nobody is held before the store stands still. A line
//! every five seconds, then the percentiles of a put, and of the moments: how long somebody waits who comes at any
//! moment, in which the rare long waits count for as long as they are.
//!
//! With MB/s at the end all tables together are written no faster than that: on whatever machine, the writers are
//! then faster than the store.
//!
//! Beside the writers as many threads only sleep and look how much too late they wake: that is the machine's. A
//! put may meet it three times: before it runs at all, in whoever leads its group, and after its hold. With a
//! number of milliseconds the program fails when the moments' p99.99 of the puts is longer than that
//! and three times what it is for those threads.

use ringdb_storage::{Disk, DiskFile, Durability, FileDisk, NoMerge, Options, Store, Time};
use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const KEYS: u64 = 20_000_000;

fn scatter(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// In which nobody is held.
struct Hurry;

impl Time for Hurry {
    fn now_us(&self) -> u64 {
        0
    }
    fn wait_us(&self, _: u64) {}
}

thread_local! {
    /// How long this thread was held after its put.
    static HELD: std::cell::Cell<Duration> = const { std::cell::Cell::new(Duration::ZERO) };
}

/// The system's time, in which holds are noted.
struct Watched(Instant);

impl Time for Watched {
    fn now_us(&self) -> u64 {
        self.0.elapsed().as_micros() as u64
    }
    fn wait_us(&self, us: u64) {
        let begun = Instant::now();
        thread::sleep(Duration::from_micros(us));
        HELD.set(begun.elapsed());
    }
}

/// A disk that is slow with tables, and with nothing else.
struct Slow {
    disk: FileDisk,
    pace: Arc<Pace>,
}

/// Bytes a second, and when the next may be written.
struct Pace {
    bytes: u64,
    next: Mutex<Instant>,
}

impl Pace {
    /// Waits until `bytes` more were written at this pace.
    fn write(&self, bytes: usize) {
        let took = Duration::from_nanos(bytes as u64 * 1_000_000_000 / self.bytes);
        let until = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            *next = (*next).max(Instant::now()) + took;
            *next
        };
        thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

/// A table of a [`Slow`] disk.
struct Table(Arc<dyn DiskFile>, Arc<Pace>);

impl Disk for Slow {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.create(name)?;
        let table = Path::new(name).extension().is_some_and(|kind| kind == "sst");
        Ok(if table { Arc::new(Table(file, self.pace.clone())) } else { file })
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name)
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
    fn free(&self) -> io::Result<Option<u64>> {
        self.disk.free()
    }
    fn random(&self) -> io::Result<u64> {
        self.disk.random()
    }
    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock()
    }
}

impl DiskFile for Table {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buffer, offset)
    }
    fn read_settled(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_settled(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.1.write(bytes.len());
        self.0.write_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
}

/// Waits in steps of an eighth of their size, from 256 ns on.
struct Waits {
    counts: Vec<u64>,
    longest: Duration,
}

impl Waits {
    fn new() -> Self {
        Self { counts: vec![0; 600], longest: Duration::ZERO }
    }
    fn add(&mut self, wait: Duration) {
        let ns = wait.as_nanos().clamp(256, 1 << 60) as u64;
        let shift = ns.ilog2() - 3;
        self.counts[(shift * 8) as usize + ((ns >> shift) & 7) as usize] += 1;
        self.longest = self.longest.max(wait);
    }
    fn join(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        self.longest = self.longest.max(other.longest);
    }
    /// A wait of those at `place`.
    fn size(place: usize) -> Duration {
        Duration::from_nanos((9 + place as u64 % 8) << (place / 8))
    }
    /// The wait that is exceeded for no more than `1 - share` of `time`, by whoever comes at any moment.
    fn of_moments(&self, share: f64, time: Duration) -> Duration {
        let mut left = time.as_secs_f64() * (1.0 - share);
        let (mut longer, mut above) = (0.0, Duration::ZERO);
        for (place, count) in self.counts.iter().enumerate().rev().filter(|(_, count)| **count > 0)
        {
            let size = Self::size(place).min(self.longest);
            // Down to this size those that are longer still last.
            let more = longer * (above.saturating_sub(size)).as_secs_f64();
            if more > left {
                return above.saturating_sub(Duration::from_secs_f64(left / longer));
            }
            (left, longer, above) = (left - more, longer + *count as f64, size);
        }
        above
    }
    fn at(&self, share: f64) -> Duration {
        let all: u64 = self.counts.iter().sum();
        let mut left = (all as f64 * share) as u64;
        for (place, count) in self.counts.iter().enumerate() {
            if left < *count {
                return Self::size(place);
            }
            left -= count;
        }
        Duration::ZERO
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |or: u64| arguments.next().map_or(Ok(or), |n| n.parse::<u64>());
    let (seconds, threads, mib, value) = (number(60)?, number(4)?, number(4)?, number(400)?);
    let braked = arguments.next().is_none_or(|word| word != "none");
    let bound: Option<u64> = arguments.next().map(|n| n.parse()).transpose()?;
    let pace: Option<u64> = arguments.next().map(|n| n.parse()).transpose()?;
    let directory = std::env::temp_dir().join(format!("pressure-{}", std::process::id()));
    let options = Options {
        splits: vec![vec![128]],
        memtable_bytes: usize::try_from(mib << 20)?,
        log_segment_bytes: mib << 20,
        table_bytes: mib << 20,
        level1_bytes: mib << 22,
        log_retain_bytes: 0,
        ..Options::default()
    };
    let disk = FileDisk::new(&directory)?;
    let disk: Arc<dyn Disk> = match pace.map(|mb| mb * 1_000_000).filter(|bytes| *bytes > 0) {
        Some(bytes) => Arc::new(Slow {
            disk,
            pace: Arc::new(Pace { bytes, next: Mutex::new(Instant::now()) }),
        }),
        None => Arc::new(disk),
    };
    let store = if braked {
        let time = Watched(Instant::now());
        Store::open_timed(disk, options, Arc::new(NoMerge), Arc::new(time))?
    } else {
        Store::open_timed(disk, options, Arc::new(NoMerge), Arc::new(Hurry))?
    };
    let (start, puts) = (Instant::now(), AtomicU64::new(0));
    let (mut all, mut own, mut idle) = (Waits::new(), Waits::new(), Waits::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| store.work());
        }
        let write = |thread: u64| {
            let (store, puts) = (&store, &puts);
            move || {
                let (mut waits, mut own) = (Waits::new(), Waits::new());
                let mut bytes = vec![0; usize::try_from(value)?];
                let mut i = thread;
                while start.elapsed().as_secs() < seconds {
                    i += threads;
                    let key = scatter(i) % KEYS;
                    for (j, piece) in bytes.chunks_mut(16).enumerate() {
                        let half = piece.len() / 2;
                        piece[..half].copy_from_slice(&scatter(i + j as u64).to_le_bytes()[..half]);
                    }
                    let key = [scatter(key).to_be_bytes(), key.to_be_bytes()].concat();
                    let begun = Instant::now();
                    store.put(&key, &bytes, Durability::Os)?;
                    let took = begun.elapsed();
                    waits.add(took);
                    own.add(took.saturating_sub(HELD.take()));
                    puts.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, Box<dyn Error + Send + Sync>>((waits, own))
            }
        };
        let sleep = || {
            let mut late = Waits::new();
            while start.elapsed().as_secs() < seconds {
                let (begun, asked) = (Instant::now(), Duration::from_millis(1));
                thread::sleep(asked);
                late.add(begun.elapsed().saturating_sub(asked));
            }
            late
        };
        let sleepers: Vec<_> = (0..threads).map(|_| scope.spawn(sleep)).collect();
        let writers: Vec<_> = (0..threads).map(|t| scope.spawn(write(t))).collect();
        let mut before = 0;
        for told in (5..=seconds).step_by(5) {
            thread::sleep(Duration::from_secs(told).saturating_sub(start.elapsed()));
            let (stats, debt) = (store.engine().stats(), store.engine().debt());
            let now = puts.load(Ordering::Relaxed);
            println!(
                "{told:>3} s {:>7} puts/s, debt of level 0 {:.2}, pending {:.2}, {} memtables wait, depth {}, tables {:?}",
                (now - before) / 5,
                debt.level0,
                debt.pending,
                stats.unflushed_memtables,
                stats.level0_depth,
                stats.tables
            );
            before = now;
        }
        for writer in writers {
            match writer.join() {
                Ok(Ok((waits, without))) => {
                    all.join(&waits);
                    own.join(&without);
                }
                Ok(Err(e)) => println!("a writer failed: {e}"),
                Err(_) => println!("a writer panicked"),
            }
        }
        sleepers.into_iter().flat_map(|sleeper| sleeper.join()).for_each(|late| idle.join(&late));
        store.close();
    });
    let time = start.elapsed() * u32::try_from(threads)?;
    for (what, waits) in [
        ("puts", &all),
        ("without their holds", &own),
        ("threads that only slept, too late", &idle),
    ] {
        println!(
            "{what}: {}, p50 {:?}, p99 {:?}, p99.9 {:?}, p99.99 {:?}, longest {:?}; of the moments p99.9 {:?}, p99.99 {:?}",
            waits.counts.iter().sum::<u64>(),
            waits.at(0.5),
            waits.at(0.99),
            waits.at(0.999),
            waits.at(0.9999),
            waits.longest,
            waits.of_moments(0.999, time),
            waits.of_moments(0.9999, time)
        );
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for line in status.lines().filter(|line| line.starts_with("VmHWM")) {
        println!("{line}");
    }
    drop(store);
    std::fs::remove_dir_all(&directory)?;
    let [put, sleep] = [&all, &idle].map(|waits| waits.of_moments(0.9999, time));
    match bound.map(Duration::from_millis) {
        Some(bound) if put > bound + 3 * sleep => {
            Err(format!("a put waits for {put:?}, where a thread that sleeps wakes {sleep:?} late")
                .into())
        }
        _ => Ok(()),
    }
}
