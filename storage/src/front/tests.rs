//! What a writer feels: one that is faster than the work behind it, in a time that the test makes pass;
//! and one that does not wait for the disk, while others do.

use super::Store;
use super::group::{Groups, Target};
use super::throttle::Time;
use crate::batch::Batch;
use crate::compaction::filter::{Filter, FilterRow, Verdict};
use crate::compaction::pace::Brake;
use crate::disk::MemoryDisk;
use crate::error::Error;
use crate::fold::NoMerge;
use crate::job::{Job, JobKind};
use crate::options::Options;
use crate::shard::Durability;
use crate::sync::lock;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};

mod waiting;

/// Passes while somebody waits, and when told to.
#[derive(Default)]
struct Virtual {
    now_us: AtomicU64,
    holds_us: Mutex<Vec<u64>>,
}

impl Time for Virtual {
    fn now_us(&self) -> u64 {
        self.now_us.load(Ordering::Relaxed)
    }
    fn wait_us(&self, us: u64) {
        self.now_us.fetch_add(us, Ordering::Relaxed);
        lock(&self.holds_us).push(us);
    }
}

const MEMTABLE: usize = 64 << 10;
/// What a put takes when nobody holds it, and what it writes.
const PUT_US: u64 = 2;
const PUT_BYTES: u64 = 120;

/// One writer, one who flushes `bytes_per_second`, and one who merges as many as that or in no time.
struct Race {
    store: Store,
    time: Arc<Virtual>,
    flush: Option<(Job, u64)>,
    bytes_per_second: u64,
    /// How many keys there are; then they are written again.
    keys: u64,
    /// None: in no time.
    merged_per_second: Option<u64>,
    /// Until when the one who merges is busy.
    merging_us: u64,
    deepest: usize,
    flushes: u64,
    most_waiting: usize,
    longest_us: u64,
}

impl Race {
    fn new(bytes_per_second: u64) -> Self {
        Self::split_at(Vec::new(), bytes_per_second)
    }

    /// With as many shards as that makes; the first is the one that is watched.
    fn split_at(splits: Vec<Vec<u8>>, bytes_per_second: u64) -> Self {
        let time = Arc::new(Virtual::default());
        let options = Options { memtable_bytes: MEMTABLE, splits, ..Options::small() };
        let disk = Arc::new(MemoryDisk::new(1));
        let store = Store::open_timed(disk, options, Arc::new(NoMerge), time.clone());
        let store = store.expect("a new store");
        // This test is the worker that the writer counts on.
        store.inner().crew.join();
        Self {
            store,
            time,
            flush: None,
            bytes_per_second,
            keys: u64::MAX,
            merged_per_second: None,
            merging_us: 0,
            deepest: 0,
            flushes: 0,
            most_waiting: 0,
            longest_us: 0,
        }
    }

    fn put(&mut self, i: u64) {
        {
            let shard = lock(&self.store.inner().lanes[0].shard);
            self.most_waiting = self.most_waiting.max(shard.unflushed());
            let stands = shard.wants_rotation() && shard.unflushed() >= super::store::UNFLUSHED_MAX;
            assert!(!stands, "the writer would stand still, at put {i}");
        }
        let key = crate::codec::scatter(i % self.keys).to_be_bytes();
        let before = self.time.now_us();
        self.store.put(&key, &[7; 100], Durability::Buffered).expect("there is room");
        self.time.now_us.fetch_add(PUT_US, Ordering::Relaxed);
        self.longest_us = self.longest_us.max(self.time.now_us() - before);
        self.work();
    }

    /// Ends what is due, and begins what comes next.
    fn work(&mut self) {
        let now = self.time.now_us();
        if let Some((job, _)) = self.flush.take_if(|(_, at)| *at <= now) {
            self.flushes += 1;
            self.store.inner().run(job).expect("memory");
        }
        while self.flush.is_none()
            && let Some(job) = self.store.engine().next_flush()
        {
            let takes = MEMTABLE as u64 * 1_000_000 / self.bytes_per_second;
            self.flush = Some((job, now + takes));
        }
        while self.merging_us <= now
            && let Some(job) = self.store.engine().next_job()
        {
            let merges = job.kind() == JobKind::Compact;
            let mut bytes = 0;
            let done = job.run_paced(&mut |more| {
                bytes += more;
                ControlFlow::Continue(())
            });
            done.expect("memory");
            lock(&self.store.inner().lanes[0].shard).refresh();
            // It is done at once and takes its time afterwards, when it is known how much it was.
            if let Some(rate) = self.merged_per_second.filter(|_| merges) {
                self.merging_us = now + bytes * 1_000_000 / rate;
            }
        }
        self.deepest = self.deepest.max(self.store.engine().stats().level0_depth);
    }
}

#[test]
fn a_writer_that_is_faster_than_the_flushes_is_slowed_and_never_stopped() {
    for bytes_per_second in [2_000_000, 5_000_000, 20_000_000] {
        let mut race = Race::new(bytes_per_second);
        let puts = (3 * bytes_per_second / PUT_BYTES).min(150_000);
        (0..puts).for_each(|i| race.put(i));
        let possible = race.time.now_us() * bytes_per_second / 1_000_000 / MEMTABLE as u64;
        let share = race.flushes as f64 / possible as f64;
        let holds = lock(&race.time.holds_us);
        let longest = holds.iter().max().copied().unwrap_or(0);
        assert!(longest <= Brake::DELAY_MAX_US, "held for {longest} us");
        assert!(share > 0.8, "{share} of the memtables that could be flushed were written");
        assert!(race.most_waiting <= 2, "{} memtables wait", race.most_waiting);
        assert!(!holds.is_empty());
    }
}

/// Nobody waits longer for a put, whatever the work behind can do.
const PUT_US_MAX: u64 = 50_000;

/// Flushes and mergings of so many bytes a second (0: in no time), one pair after the other.
fn race_in_phases(phases: &[(u64, u64)]) {
    let mut race = Race::new(1);
    let mut i = 0;
    for round in 0..phases.len().max(3) {
        let (flushed, merged) = phases[round % phases.len()];
        race.bytes_per_second = flushed;
        race.merged_per_second = (merged > 0).then_some(merged);
        let until = race.flushes + 25;
        while race.flushes < until {
            i += 1;
            race.put(i);
        }
    }
    let (longest, deepest) = (race.longest_us, race.deepest);
    assert!(longest <= PUT_US_MAX, "{phases:?}: a put took {longest} us");
    assert!(race.most_waiting <= 2, "{phases:?}: {} memtables wait", race.most_waiting);
    // As deep as it may be, and what is still written meanwhile, at a put each 20 ms.
    let bound = (9 + 2) * race.store.engine().shared.options.level0_tables;
    assert!(deepest <= bound, "{phases:?}: level 0 is {deepest} deep");
}

#[test]
fn no_put_waits_long_however_slow_the_work_behind_is() {
    let (fast, slow) = (20_000_000, 1_000_000);
    for phases in [
        // The writer's own speed is 60 MB/s.
        &[(fast, 0)][..],
        &[(fast, fast)],
        &[(fast, 2 * slow)],
        &[(slow, 0)],
        &[(slow, slow)],
        &[(slow, slow / 10)],
        &[(fast, fast), (slow, fast), (fast, slow), (slow, slow)],
        &[(fast, 0), (slow, 0), (fast, 0), (slow, 0)],
        &[(fast, fast), (fast, slow / 10)],
    ] {
        race_in_phases(phases);
    }
}

/// Of several shards the first memtables are smaller; and a memtable whose rows are written again and again ends by
/// the length of its log, with little in it. Three of those are three.
#[test]
fn memtables_that_end_early_count_like_large_ones() {
    for (splits, keys) in [(vec![vec![255]], u64::MAX), (vec![], 20)] {
        for bytes_per_second in [2_000_000, 5_000_000, 20_000_000] {
            let mut race = Race::split_at(splits.clone(), bytes_per_second);
            race.keys = keys;
            let mut i = 0;
            while race.flushes < 25 {
                i += 1;
                race.put(i);
            }
            assert!(race.most_waiting <= 2 && race.longest_us <= PUT_US_MAX);
        }
    }
}

#[test]
fn a_writer_that_the_flushes_can_follow_is_not_held() {
    let mut race = Race::new(2 * PUT_BYTES * 1_000_000 / PUT_US);
    (0..20_000).for_each(|i| race.put(i));
    assert!(lock(&race.time.holds_us).is_empty());
}

#[test]
fn a_writer_on_whom_alone_the_work_depends_is_not_held() {
    let mut race = Race::new(500_000);
    race.store.inner().crew.leave();
    let mut i = 0;
    while race.store.inner().lanes[0].throttle.debt().is_none_or(|debt| debt < 0.3) {
        i += 1;
        race.put(i);
    }
    assert!(lock(&race.time.holds_us).is_empty());
}

/// A worker that merges looks after flushes too.
#[test]
fn a_memtable_does_not_wait_for_a_long_merging() {
    let race = Race::new(u64::MAX);
    let mut i = 0;
    let merging = loop {
        i += 1;
        race.store
            .put(&crate::codec::scatter(i).to_be_bytes(), &[7; 100], Durability::Buffered)
            .expect("there is room");
        match race.store.engine().next_job() {
            Some(job) if job.kind() == JobKind::Compact => break job,
            Some(job) => race.store.inner().run(job).expect("memory"),
            None => {}
        }
    };
    while lock(&race.store.inner().lanes[0].shard).unflushed() == 0 {
        i += 1;
        let key = crate::codec::scatter(i).to_be_bytes();
        race.store.put(&key, &[7; 100], Durability::Buffered).expect("there is room");
    }
    race.store.inner().run(merging).expect("memory");
    assert_eq!(lock(&race.store.inner().lanes[0].shard).unflushed(), 0, "flushed on the way");
    assert!(race.flush.is_none());
}

/// Says when somebody waits for a turn that is taken.
struct Taken {
    turn: Mutex<()>,
    waits: Mutex<Sender<()>>,
}

impl Target for Taken {
    fn write(&self, _: &mut dyn Iterator<Item = &Batch>, _: Durability) -> Result<(), Error> {
        Ok(())
    }

    fn sync(&self) -> Result<(), Error> {
        Ok(())
    }

    fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        lock(&self.waits).send(()).expect("the test listens");
        Some(lock(&self.turn))
    }

    fn broke_off(&self) -> Error {
        Error::NoSpace
    }
}

#[test]
fn who_does_not_wait_for_the_disk_does_not_wait_for_a_turn_on_it() {
    let (waits, waiting): (Sender<()>, Receiver<()>) = channel();
    let lane = (Groups::default(), Taken { turn: Mutex::new(()), waits: Mutex::new(waits) });
    let mut batch = Batch::new();
    batch.put(b"k", b"v");
    std::thread::scope(|scope| {
        let write = |durability: Durability| {
            let (lane, batch, (done, is_done)) = (&lane, &batch, channel());
            scope.spawn(move || done.send(lane.0.write(&lane.1, batch, durability)));
            is_done
        };
        let turn = lock(&lane.1.turn);
        let synced = write(Durability::Sync);
        waiting.recv().expect("it leads and asks for its turn");
        let unsynced = write(Durability::Os);
        let in_time = unsynced.recv_timeout(std::time::Duration::from_secs(20));
        assert!(matches!(in_time, Ok(Ok(()))), "held up by a turn");
        assert!(synced.try_recv().is_err(), "synced without its turn");
        drop(turn);
        assert!(matches!(synced.recv(), Ok(Ok(()))));
    });
}

/// Decides nothing.
struct Panics;

impl Filter for Panics {
    fn decide(&self, _: &FilterRow<'_>, _: &mut Vec<u8>) -> Verdict {
        panic!("planned");
    }
}

#[test]
fn nobody_counts_on_a_worker_that_panicked_and_others_are_called_to_its_work() {
    let store = Store::open(Arc::new(MemoryDisk::new(1)), Options::small(), Arc::new(NoMerge));
    let store = store.expect("a new store");
    store.engine().set_filter(Some(Arc::new(Panics)));
    store.put(b"k", b"v", Durability::Buffered).expect("there is room");
    lock(&store.inner().lanes[0].shard).rotate();
    let crew = &store.inner().crew;
    let (calls, steps) = (crew.calls(), crew.steps());
    let ended = std::thread::scope(|scope| scope.spawn(|| store.work()).join());
    assert!(ended.is_err(), "it panicked");
    assert!(crew.is_empty(), "it is gone");
    assert!(crew.calls() > calls, "those who sleep are woken");
    assert!(crew.steps() > steps, "those who wait look again");
}
