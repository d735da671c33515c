//! An embedder that writes faster than its store can flush and merge: what its threads feel.
//!
//! `cargo run --release -p ringdb-storage --example pressure -- [seconds] [threads] [memtable MiB]
//! [value bytes] [brake|none]` puts keys of 16 bytes at random into a [`Store`] of two shards with two
//! threads lent to it, as fast as it can. With `none` nobody is held before the store stands still. A line every
//! five seconds, then the percentiles of a put.

use ringdb_storage::{Durability, FileDisk, NoMerge, Options, Store, Time};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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

/// Waits in steps of an eighth of their size, from 256 ns on.
struct Waits(Vec<u64>);

impl Waits {
    fn add(&mut self, ns: u64) {
        let shift = ns.max(256).ilog2() - 3;
        let place = (shift * 8) as usize + ((ns.max(256) >> shift) & 7) as usize;
        self.0[place] += 1;
    }
    fn at(&self, share: f64) -> Duration {
        let all: u64 = self.0.iter().sum();
        let mut left = (all as f64 * share) as u64;
        for (place, count) in self.0.iter().enumerate() {
            if left < *count {
                return Duration::from_nanos((9 + place as u64 % 8) << (place / 8));
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
    let disk = Arc::new(FileDisk::new(&directory)?);
    let store = if braked {
        Store::open(disk, options, Arc::new(NoMerge))?
    } else {
        Store::open_timed(disk, options, Arc::new(NoMerge), Arc::new(Hurry))?
    };
    let (start, puts) = (Instant::now(), AtomicU64::new(0));
    let mut all = Waits(vec![0; 600]);
    let mut longest = Duration::ZERO;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| store.work());
        }
        let write = |thread: u64| {
            let (store, puts) = (&store, &puts);
            move || {
                let (mut waits, mut longest) = (Waits(vec![0; 600]), Duration::ZERO);
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
                    longest = longest.max(took);
                    waits.add(u64::try_from(took.as_nanos())?);
                    puts.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, Box<dyn Error + Send + Sync>>((waits, longest))
            }
        };
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
                Ok(Ok((waits, most))) => {
                    all.0.iter_mut().zip(waits.0).for_each(|(a, b)| *a += b);
                    longest = longest.max(most);
                }
                Ok(Err(e)) => println!("a writer failed: {e}"),
                Err(_) => println!("a writer panicked"),
            }
        }
        store.close();
    });
    println!(
        "{} puts: p50 {:?}, p99 {:?}, p99.9 {:?}, p99.99 {:?}, p99.999 {:?}, longest {longest:?}",
        puts.load(Ordering::Relaxed),
        all.at(0.5),
        all.at(0.99),
        all.at(0.999),
        all.at(0.9999),
        all.at(0.99999)
    );
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for line in status.lines().filter(|line| line.starts_with("VmHWM")) {
        println!("{line}");
    }
    drop(store);
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}
