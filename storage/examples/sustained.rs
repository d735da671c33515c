//! A writer that is faster than its disk: what it feels, and what piles up.
//!
//! `cargo run --release -p ringdb-storage --example sustained -- [seconds] [MB/s] [brake|none]` writes
//! keys of 16 bytes with values of 100 bytes at random as fast as it can, in turns of 16, while one
//! thread flushes and one compacts at no more than the given rate (which stands for a slow disk). With
//! the brake a turn is held as long as the debt asks for. A line a second, then the percentiles.

use ringdb_storage::{Batch, Brake, Durability, Engine, FileDisk, Job, NoMerge, Options, Pace};
use std::error::Error;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const TURN: u64 = 16;
const KEYS: u64 = 4_000_000;

fn scatter(mut z: u64) -> u64 {
    z = z.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Runs what `next` hands out, at the common pace, until told to stop.
fn work(next: &dyn Fn() -> Option<Job>, pace: &Mutex<Pace>, start: Instant, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Some(job) = next() else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        let done = job.run_paced(&mut |bytes| {
            let now_us = start.elapsed().as_micros() as u64;
            let wait = pace.lock().unwrap_or_else(PoisonError::into_inner).note(now_us, bytes);
            thread::sleep(Duration::from_micros(wait));
            if stop.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        if let Err(e) = done
            && !stop.load(Ordering::Relaxed)
        {
            println!("a job failed: {e}");
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let seconds: u64 = arguments.next().map_or(Ok(20), |n| n.parse())?;
    let rate: u64 = arguments.next().map_or(Ok(40), |n| n.parse())?;
    let braked = arguments.next().is_none_or(|word| word != "none");
    let directory = std::env::temp_dir().join(format!("sustained-{}", std::process::id()));
    let disk = Arc::new(FileDisk::new(&directory)?);
    let mib = 1 << 20;
    let options = Options {
        memtable_bytes: 8 * mib,
        table_bytes: 8 * mib as u64,
        level1_bytes: 32 * mib as u64,
        log_retain_bytes: 0,
        ..Options::default()
    };
    let (engine, mut shards) = Engine::open(disk, options, Arc::new(NoMerge), &mut |_| {})?;
    let shard = &mut shards[0];
    let (start, stop) = (Instant::now(), AtomicBool::new(false));
    let pace = Mutex::new(Pace::new(rate << 20));
    let (mut latencies_us, mut holds_us): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| work(&|| engine.next_flush(), &pace, start, &stop));
        scope.spawn(|| work(&|| engine.next_job(), &pace, start, &stop));
        let mut write = || {
            let (mut brake, mut batch, mut turn, mut told) = (Brake::default(), Batch::new(), 0, 1);
            let mut since = 0;
            while start.elapsed().as_secs() < seconds {
                let begun = Instant::now();
                batch.clear();
                for i in 0..TURN {
                    let key = scatter(turn * TURN + i) % KEYS;
                    let mut value = [0; 100];
                    for (j, piece) in value[..48].chunks_mut(8).enumerate() {
                        piece.copy_from_slice(&scatter(key + turn + j as u64).to_le_bytes());
                    }
                    batch.put(&[scatter(key).to_be_bytes(), key.to_be_bytes()].concat(), &value);
                }
                shard.apply(&batch, Durability::Os)?;
                if shard.wants_rotation() {
                    shard.rotate();
                }
                if braked {
                    let now_us = start.elapsed().as_micros() as u64;
                    let debt = shard.debt().worst();
                    let hold = brake.hold(now_us, debt, batch.encoded_len() as u64);
                    // Shorter ones are held with the next.
                    if hold >= 1000 {
                        holds_us.push(hold as u32);
                        thread::sleep(Duration::from_micros(hold));
                    }
                }
                latencies_us.push(begun.elapsed().as_micros() as u32);
                turn += 1;
                if start.elapsed().as_secs() >= told {
                    told += 1;
                    let (stats, debt) = (engine.stats(), shard.debt());
                    println!(
                        "{:>3} s {:>7} puts/s, debt {:.2} (memtables {:.2}, level 0 {:.2}, pending {:.2}), {} memtables wait, depth {}, tables {:?}",
                        told - 1,
                        (turn - since) * TURN,
                        debt.worst(),
                        debt.memtables,
                        debt.level0,
                        debt.pending,
                        stats.unflushed_memtables,
                        stats.level0_depth,
                        stats.tables
                    );
                    since = turn;
                }
            }
            Ok::<(), ringdb_storage::Error>(())
        };
        let written = write();
        stop.store(true, Ordering::Relaxed);
        written
    })?;
    for (what, times) in [("turns of 16 puts", &mut latencies_us), ("holds", &mut holds_us)] {
        times.sort_unstable();
        let at = |share: f64| {
            let place = (times.len().saturating_sub(1) as f64 * share) as usize;
            times.get(place).copied().unwrap_or(0)
        };
        println!(
            "{} {what}, in us: p50 {}, p99 {}, p99.9 {}, p99.99 {}, max {}",
            times.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            at(0.9999),
            at(1.0)
        );
    }
    drop(shards);
    drop(engine);
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}
