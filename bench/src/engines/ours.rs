//! The engine of this repository, as a program with many threads embeds it: the front that any
//! thread may use, one shard a core as a node has it, and threads lent for the background work.

use super::{Setup, Store};
use crate::workload::Key;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use storage::{Direction, Durability, FileDisk, NoMerge, Options};

/// One shard a core.
const SHARDS: usize = 2;
/// Looks at the background threads, 2 ms apart, that must all find them idle.
const QUIET_LOOKS: usize = 5;

/// An open store and the threads lent to it.
pub struct Ours {
    store: storage::Store,
    workers: Vec<JoinHandle<()>>,
    /// How the system calls them.
    ids: Arc<Mutex<Vec<u64>>>,
}

impl Ours {
    fn walk(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        rows_max: usize,
    ) -> (usize, usize) {
        let mut sum = (0, 0);
        let count = |key: &[u8], value: &[u8]| {
            sum = (sum.0 + 1, sum.1 + key.len() + value.len());
            if sum.0 < rows_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        self.store.scan(start, end, direction, count).expect("the disk works");
        sum
    }

    /// True when no background thread runs or waits for the disk.
    fn workers_sleep(&self) -> bool {
        let ids = self.ids.lock().expect("no worker panics");
        let sleeps = |id: &u64| {
            let stat = std::fs::read_to_string(format!("/proc/self/task/{id}/stat"));
            stat.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|s| s.starts_with('S')))
        };
        ids.len() == self.workers.len() && ids.iter().all(sleeps)
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
        let store =
            storage::Store::open(disk, options, Arc::new(NoMerge)).expect("the store opens");
        let ids = Arc::new(Mutex::new(Vec::new()));
        let workers = (0..setup.background).map(|_| {
            let (store, ids) = (store.clone(), ids.clone());
            std::thread::spawn(move || {
                ids.lock().expect("no worker panics").push(crate::measure::thread_id());
                store.work();
            })
        });
        Self { workers: workers.collect(), store, ids }
    }

    fn put(&self, key: &Key, value: &[u8], sync: bool) {
        let durability = if sync { Durability::Sync } else { Durability::Os };
        self.store.put(key, value, durability).expect("the disk works");
    }

    fn get(&self, key: &Key) -> Option<usize> {
        self.store.get_with(key, |value| value.map(<[u8]>::len)).expect("the disk works")
    }

    fn get_many(&self, keys: &[Key]) -> usize {
        let mut found = 0;
        let count = |_, value: Option<&[u8]>| found += usize::from(value.is_some());
        self.store.get_many(keys, count).expect("the disk works");
        found
    }

    fn scan(&self, start: &[u8], rows_max: usize) -> (usize, usize) {
        self.walk(start, None, Direction::Forward, rows_max)
    }

    fn scan_back(&self, from: &[u8], rows_max: usize) -> (usize, usize) {
        let end = [from, &[0]].concat();
        self.walk(&[], Some(&end), Direction::Backward, rows_max)
    }

    fn delete_range(&self, start: &[u8], end: &[u8]) {
        self.store.delete_range(start, end, Durability::Os).expect("the disk works");
    }

    fn settle(&self) {
        self.store.flush().expect("the disk works");
        let mut quiet = 0;
        while quiet < QUIET_LOOKS {
            // A job that is looked at is taken, and the workers may have looked just then and gone to
            // sleep: it is done here.
            let job = self.workers_sleep().then(|| self.store.engine().next_job());
            quiet = if matches!(job, Some(None)) { quiet + 1 } else { 0 };
            if let Some(Some(job)) = job {
                job.run().expect("the disk works");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn uncalled_bytes(&self) -> u64 {
        self.store.engine().stats().log_bytes_uncalled
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.store.close();
        for worker in self.workers.drain(..) {
            // A worker that panicked has said why.
            let _ = worker.join();
        }
    }
}
