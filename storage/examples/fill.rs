//! The whole write path: puts from several threads, and what a sync costs in a log that grows and in
//! files made ready before. Time per put as its thread sees it, and processor time of the process.
//!
//! ```text
//! cargo run --release -p ringdb-storage --example fill [-- directory puts name]
//! ```

#![allow(clippy::unwrap_used, reason = "an example that cannot go on has failed")]

use ringdb_storage::{Durability, FileDisk, NoMerge, Options, Store};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn scatter(v: u64) -> u64 {
    let mut z = v.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Nanoseconds that a thread (or, summed, all threads of this process) was on a processor.
fn cpu(all: bool) -> u64 {
    let of = |path: &Path| -> u64 {
        let text = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    if !all {
        return of(Path::new("/proc/thread-self"));
    }
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.map(|task| of(&task.unwrap().path())).sum()
}

struct Case {
    name: &'static str,
    threads: u64,
    puts: u64,
    durability: Durability,
    spares: usize,
    splits: usize,
}

fn run(directory: &Path, case: &Case) {
    let directory = directory.join("fill");
    let _ = std::fs::remove_dir_all(&directory);
    let split = |i: usize| vec![(i * 256 / (case.splits + 1)) as u8];
    let options = Options {
        log_spares: case.spares,
        log_retain_bytes: 0,
        splits: (1..=case.splits).map(split).collect(),
        ..Options::default()
    };
    let disk = Arc::new(FileDisk::new(&directory).unwrap());
    let store = Store::open(disk, options, Arc::new(NoMerge)).unwrap();
    while let Some(job) = store.engine().next_job() {
        job.run().unwrap();
    }
    let mut value = [0u8; 100];
    for (i, byte) in value.iter_mut().enumerate() {
        *byte = if i % 2 == 0 { scatter(i as u64) as u8 } else { 7 };
    }
    let each = case.puts / case.threads;
    let (mut times, mut spent, begin) = (Vec::new(), 0, Instant::now());
    let mut whole = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| store.work());
        let before = cpu(true);
        let writers: Vec<_> = (0..case.threads)
            .map(|thread| {
                let store = &store;
                scope.spawn(move || {
                    let (mut times, cpu_before) = (Vec::new(), cpu(false));
                    for i in 0..each {
                        let mut key = [0; 16];
                        key[..8].copy_from_slice(&scatter(thread << 40 | i).to_be_bytes());
                        key[8..].copy_from_slice(&scatter(!i).to_be_bytes());
                        // Looking at the clock costs something: not for every put.
                        let begin = (i % 16 == 0).then(Instant::now);
                        store.put(&key, &value, case.durability).unwrap();
                        times.extend(begin.map(|begin| begin.elapsed()));
                    }
                    (times, cpu(false) - cpu_before)
                })
            })
            .collect();
        for writer in writers {
            let (mine, cpu) = writer.join().unwrap();
            times.extend(mine);
            spent += cpu;
        }
        whole = cpu(true).saturating_sub(before) + spent;
        store.close();
    });
    let wall = begin.elapsed();
    times.sort_unstable();
    let at = |share: f64| -> Duration { times[((times.len() - 1) as f64 * share) as usize] };
    let micros = |d: Duration| d.as_nanos() as f64 / 1000.0;
    println!(
        "{:<34} {:8.0} k/s   p50 {:8.1} p90 {:8.1} p99 {:8.1} p99.99 {:9.1} us   fg {:6.2} tot {:6.2} us/put",
        case.name,
        case.puts as f64 / wall.as_secs_f64() / 1000.0,
        micros(at(0.5)),
        micros(at(0.9)),
        micros(at(0.99)),
        micros(at(0.9999)),
        spent as f64 / 1000.0 / case.puts as f64,
        whole as f64 / 1000.0 / case.puts as f64,
    );
    drop(store);
    let _ = std::fs::remove_dir_all(&directory);
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().map_or_else(std::env::temp_dir, Into::into);
    let puts: u64 = arguments.next().map_or(1_000_000, |n| n.parse().unwrap());
    let wanted = arguments.next().unwrap_or_default();
    let case = |name, threads, share, durability, spares, splits| Case {
        name,
        threads,
        puts: puts / share,
        durability,
        spares,
        splits,
    };
    use Durability::{Buffered, Os, Sync};
    let run = |directory: &Path, case: &Case| {
        if case.name.contains(&wanted) {
            run(directory, case);
        }
    };
    for _ in 0..2 {
        run(&directory, &case("1 thread, buffered", 1, 1, Buffered, 1, 0));
        run(&directory, &case("1 thread, os", 1, 1, Os, 1, 0));
        run(&directory, &case("2 threads, os", 2, 1, Os, 1, 0));
        run(&directory, &case("2 threads, os, 2 shards", 2, 1, Os, 1, 1));
        run(&directory, &case("1 thread, sync, growing log", 1, 200, Sync, 0, 0));
        run(&directory, &case("1 thread, sync, ready log", 1, 200, Sync, 1, 0));
        run(&directory, &case("16 threads, sync, growing log", 16, 50, Sync, 0, 0));
        run(&directory, &case("16 threads, sync, ready log", 16, 50, Sync, 1, 0));
    }
}
