//! The engine of this repository, as a program with several writing threads embeds it today: a few
//! shards, each behind a lock, and background threads that run the jobs.

use super::{Setup, Store};
use crate::workload::Key;
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;
use storage::{Batch, Direction, Durability, Engine, FileDisk, Job, NoMerge, Options, Shard};

/// One shard a core, as a node has it.
const SHARDS: usize = 2;
/// Memtables of a shard that may wait for their flush before writers wait for it.
const UNFLUSHED_MAX: usize = 2;

/// An open store and its background threads.
pub struct Ours {
    shards: Vec<RwLock<Shard>>,
    background: Arc<Background>,
    threads: Vec<JoinHandle<()>>,
}

/// The shard that owns `key`.
fn shard_of(key: &[u8]) -> usize {
    usize::from(key.first().copied().unwrap_or(0)) * SHARDS / 256
}

struct Background {
    engine: Arc<Engine>,
    stop: AtomicBool,
    running: Mutex<usize>,
    /// Something was queued, or a job is done.
    news: Condvar,
}

impl Background {
    fn work(&self) {
        while !self.stop.load(Ordering::Acquire) {
            let mut running = self.running.lock().expect("no job panics");
            let Some(job) = self.engine.next_job() else {
                let wait = Duration::from_millis(20);
                drop(self.news.wait_timeout(running, wait).expect("no job panics"));
                continue;
            };
            *running += 1;
            drop(running);
            Job::run(job).expect("the disk works");
            *self.running.lock().expect("no job panics") -= 1;
            self.news.notify_all();
        }
    }

    /// Returns when there is nothing to do and nobody does anything.
    fn wait_until_idle(&self) {
        loop {
            let running = self.running.lock().expect("no job panics");
            if *running == 0 {
                match self.engine.next_job() {
                    None => return,
                    Some(job) => drop(job),
                }
            }
            self.news.notify_all();
            drop(self.news.wait_timeout(running, Duration::from_millis(2)));
        }
    }
}

impl Ours {
    fn shard(&self, key: &[u8]) -> &RwLock<Shard> {
        &self.shards[shard_of(key)]
    }

    /// Makes room: rotates a full memtable, waits when too many wait for their flush.
    fn make_room(&self, shard: &mut Shard) {
        if !shard.wants_rotation() {
            return;
        }
        while shard.unflushed() >= UNFLUSHED_MAX {
            let running = self.background.running.lock().expect("no job panics");
            self.background.news.notify_all();
            drop(self.background.news.wait_timeout(running, Duration::from_millis(1)));
            shard.refresh();
        }
        shard.rotate();
        self.background.news.notify_all();
    }
}

impl Store for Ours {
    fn open(setup: Setup<'_>) -> Self {
        let disk = Arc::new(FileDisk::new(setup.directory).expect("the directory is made"));
        let splits = (1..SHARDS).map(|i| vec![u8::try_from(i * 256 / SHARDS).expect("a byte")]);
        let options = Options {
            splits: splits.collect(),
            memtable_bytes: setup.memtable_bytes / SHARDS,
            block_cache_bytes: setup.cache_bytes,
            // No peers: no log is kept for them.
            log_retain_bytes: 0,
            ..Options::default()
        };
        let (engine, shards) =
            Engine::open(disk, options, Arc::new(NoMerge), &mut |_| {}).expect("the store opens");
        let background = Arc::new(Background {
            engine,
            stop: AtomicBool::new(false),
            running: Mutex::new(0),
            news: Condvar::new(),
        });
        let threads = (0..setup.background).map(|_| {
            let background = background.clone();
            std::thread::spawn(move || background.work())
        });
        let threads = threads.collect();
        Self { shards: shards.into_iter().map(RwLock::new).collect(), background, threads }
    }

    fn put(&self, key: &Key, value: &[u8], sync: bool) {
        thread_local!(static BATCH: RefCell<Batch> = RefCell::new(Batch::new()));
        BATCH.with_borrow_mut(|batch| {
            batch.clear();
            batch.put(key, value);
            let mut shard = self.shard(key).write().expect("no writer panics");
            shard.apply(batch, Durability::Os).expect("the disk works");
            self.make_room(&mut shard);
            if sync {
                let handle = shard.sync_handle();
                drop(shard);
                handle.sync().expect("the disk works");
            }
        });
    }

    fn get(&self, key: &Key) -> Option<usize> {
        let shard = self.shard(key).read().expect("no writer panics");
        shard.get_with(key, |value| value.map(<[u8]>::len)).expect("the disk works")
    }

    fn get_many(&self, keys: &[Key]) -> usize {
        let mut found = 0;
        for shard in &self.shards {
            let shard = shard.read().expect("no writer panics");
            let mine: Vec<&Key> = keys.iter().filter(|key| shard.owns(*key)).collect();
            let count = |_, value: Option<&[u8]>| found += usize::from(value.is_some());
            shard.get_many(&mine, count).expect("the disk works");
        }
        found
    }

    fn scan(&self, start: &[u8], rows_max: usize) -> (usize, usize) {
        let mut sum = (0, 0);
        for shard in &self.shards[shard_of(start)..] {
            let shard = shard.read().expect("no writer panics");
            let mut rows =
                shard.scan(start, None, Direction::Forward, None).expect("the disk works");
            while sum.0 < rows_max
                && let Some((key, value)) = rows.next_row().expect("the disk works")
            {
                sum = (sum.0 + 1, sum.1 + key.len() + value.len());
            }
            if sum.0 == rows_max {
                break;
            }
        }
        sum
    }

    fn delete_range(&self, start: &[u8], end: &[u8]) {
        let mut batch = Batch::new();
        batch.delete_range(start, end);
        for shard in &self.shards {
            let mut shard = shard.write().expect("no writer panics");
            shard.apply(&batch, Durability::Os).expect("the disk works");
        }
    }

    fn settle(&self) {
        for shard in &self.shards {
            shard.write().expect("no writer panics").rotate();
        }
        self.background.wait_until_idle();
        for shard in &self.shards {
            shard.write().expect("no writer panics").refresh();
        }
        self.background.wait_until_idle();
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.background.stop.store(true, Ordering::Release);
        self.background.news.notify_all();
        for thread in self.threads.drain(..) {
            // A background thread that panicked has said why.
            let _ = thread.join();
        }
    }
}
