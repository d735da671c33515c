//! Who waits for a flush: comes to an end, whatever happens to the work, and hears only what concerns it.

use super::super::store::UNFLUSHED_MAX;
use super::{MEMTABLE, Virtual};
use crate::batch::Batch;
use crate::compaction::filter::{Filter, FilterRow, Verdict};
use crate::compaction::pace::Brake;
use crate::disk::MemoryDisk;
use crate::error::Error;
use crate::fold::{Folded, Merge, NoMerge};
use crate::front::Store;
use crate::job::JobKind;
use crate::options::Options;
use crate::shard::Durability;
use crate::sync::lock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Much longer than anything here takes, and over at once where something never ends.
const NEVER: Duration = Duration::from_secs(10);

fn options(splits: Vec<Vec<u8>>) -> Options {
    Options { memtable_bytes: MEMTABLE, splits, ..Options::small() }
}

fn store(disk: &MemoryDisk) -> Store {
    Store::open(Arc::new(disk.clone()), options(vec![]), Arc::new(NoMerge)).expect("a new store")
}

/// Writes past the groups, and past their wait for room.
fn apply(store: &Store, lane: usize, key: &[u8], value: &[u8]) {
    let mut batch = Batch::new();
    batch.put(key, value);
    let mut shard = lock(&store.inner().lanes[lane].shard);
    shard.apply(&batch, Durability::Buffered).expect("there is room");
}

fn rotate(store: &Store, lane: usize) {
    let mut shard = lock(&store.inner().lanes[lane].shard);
    shard.commit().expect("there is room");
    shard.rotate();
}

/// As many memtables of the first lane wait as may, and the next is full.
fn fill(store: &Store) {
    for number in 0..UNFLUSHED_MAX {
        apply(store, 0, &[7, number as u8], b"v");
        rotate(store, 0);
    }
    let mut i = 0u32;
    while !lock(&store.inner().lanes[0].shard).wants_rotation() {
        i += 1;
        apply(store, 0, &i.to_be_bytes(), &[7; 500]);
    }
}

/// Carries `act` out on a thread of its own, and gives what it comes to.
fn apart<T: Send + 'static>(
    store: &Store,
    act: impl FnOnce(&Store) -> T + Send + 'static,
) -> Receiver<T> {
    let (store, (told, hears)) = (store.clone(), channel());
    thread::spawn(move || told.send(act(&store)));
    hears
}

/// Until `more` have called for work: the last thing that one does before it waits.
fn await_calls(store: &Store, before: u64, more: u64) {
    while store.inner().crew.calls() < before + more {
        thread::yield_now();
    }
}

#[test]
fn a_writer_that_waits_for_room_hears_that_the_store_is_poisoned() {
    let disk = MemoryDisk::new(1);
    let store = store(&disk);
    fill(&store);
    disk.fail_next_sync();
    assert!(matches!(store.sync(), Err(Error::Poisoned { .. })));
    let gone = apart(&store, Store::work);
    while store.inner().crew.is_empty() {
        thread::yield_now();
    }
    let put = apart(&store, |store| store.put(b"x", b"y", Durability::Sync));
    assert!(matches!(put.recv_timeout(NEVER), Ok(Err(Error::Poisoned { .. }))), "it stands still");
    store.close();
    assert!(gone.recv_timeout(NEVER).is_ok());
}

#[test]
fn a_flush_does_not_wait_for_what_is_written_after_it() {
    let store = store(&MemoryDisk::new(1));
    store.inner().crew.join();
    apply(&store, 0, b"before", b"v");
    rotate(&store, 0);
    let flush = store.engine().next_flush().expect("one waits");
    let calls = store.inner().crew.calls();
    let flushed = apart(&store, Store::flush);
    await_calls(&store, calls, 2);
    // Whenever one is flushed, one more waits.
    apply(&store, 0, b"after", b"v");
    rotate(&store, 0);
    flush.run().expect("memory");
    let hold = store.engine().next_flush();
    assert!(hold.is_some());
    store.inner().crew.step(Ok(()));
    assert!(matches!(flushed.recv_timeout(NEVER), Ok(Ok(()))), "it waits for later ones");
    drop(hold);
}

#[test]
fn a_put_that_waits_for_a_flush_does_not_hear_of_a_merging() {
    let disk = MemoryDisk::new(1);
    let store = store(&disk);
    store.inner().crew.join();
    for value in 0..6 {
        (0..20u8).for_each(|key| apply(&store, 0, &[key], &[value; 100]));
        rotate(&store, 0);
        store.engine().next_flush().expect("one waits").run().expect("memory");
    }
    let merging = store.engine().next_job().expect("level 0 is deep");
    assert_eq!(merging.kind(), JobKind::Compact);
    fill(&store);
    let flush = store.engine().next_flush().expect("two wait");
    let calls = store.inner().crew.calls();
    let put = apart(&store, |store| store.put(b"x", b"y", Durability::Sync));
    await_calls(&store, calls, 1);
    disk.fail_reads(Some(".sst"));
    assert!(store.inner().run(merging).is_err());
    disk.fail_reads(None);
    // It looks, and waits again.
    while store.inner().crew.calls() < calls + 2 {
        assert!(put.try_recv().is_err(), "it heard of it");
        thread::yield_now();
    }
    store.inner().run(flush).expect("memory");
    assert!(matches!(put.recv_timeout(NEVER), Ok(Ok(()))), "its flush was good");
}

/// Panics once, when told to.
struct Gate {
    entered: Mutex<Sender<()>>,
    leave: Mutex<Receiver<()>>,
    was_here: AtomicBool,
}

impl Filter for Gate {
    fn decide(&self, _: &FilterRow<'_>, _: &mut Vec<u8>) -> Verdict {
        if !self.was_here.swap(true, Ordering::Relaxed) {
            let _ = lock(&self.entered).send(());
            let _ = lock(&self.leave).recv();
            panic!("planned");
        }
        Verdict::Keep
    }
}

#[test]
fn who_waits_for_a_flush_that_panicked_on_the_way_of_another_does_it() {
    let store = store(&MemoryDisk::new(1));
    let ((entered, enters), (leave, leaves)) = (channel(), channel());
    let was_here = AtomicBool::new(false);
    let gate = Gate { entered: Mutex::new(entered), leave: Mutex::new(leaves), was_here };
    store.engine().set_filter(Some(Arc::new(gate)));
    apply(&store, 0, b"k", b"v");
    let first = apart(&store, Store::flush);
    enters.recv_timeout(NEVER).expect("nobody else flushes");
    // Somebody was lent, and sleeps.
    store.inner().crew.join();
    let calls = store.inner().crew.calls();
    let second = apart(&store, Store::flush);
    await_calls(&store, calls, 2);
    leave.send(()).expect("it is in there");
    assert!(first.recv_timeout(NEVER).is_err(), "it panicked");
    assert!(
        matches!(second.recv_timeout(NEVER), Ok(Ok(()))),
        "nobody does what is to be done again"
    );
}

#[test]
fn of_those_who_wait_for_room_only_the_first_rotates() {
    const WRITERS: u8 = 8;
    for seed in 0..20 {
        let store = store(&MemoryDisk::new(seed));
        store.inner().crew.join();
        fill(&store);
        let flush = store.engine().next_flush().expect("two wait");
        let calls = store.inner().crew.calls();
        let write = |i: u8| {
            let past = move |store: &Store| {
                let mut batch = Batch::new();
                batch.put(&[i], b"v");
                store.inner().write_past_groups(&batch)
            };
            apart(&store, past)
        };
        let written: Vec<_> = (0..WRITERS).map(write).collect();
        await_calls(&store, calls, u64::from(WRITERS));
        flush.run().expect("memory");
        // Nobody flushes what they make meanwhile.
        let hold = store.engine().next_flush();
        store.inner().crew.step(Ok(()));
        for written in written {
            assert!(matches!(written.recv_timeout(NEVER), Ok(Ok(()))));
        }
        let waiting = lock(&store.inner().lanes[0].shard).unflushed();
        assert!(waiting <= UNFLUSHED_MAX, "{waiting} memtables wait");
        drop(hold);
    }
}

/// A store in whose time nothing passes but holds.
fn held(splits: Vec<Vec<u8>>) -> (Store, Arc<Virtual>) {
    let time = Arc::new(Virtual::default());
    let disk = Arc::new(MemoryDisk::new(1));
    let store = Store::open_timed(disk, options(splits), Arc::new(NoMerge), time.clone());
    let store = store.expect("a new store");
    store.inner().crew.join();
    (store, time)
}

#[test]
fn a_batch_for_many_shards_is_held_once() {
    let (store, time) = held((1..8).map(|i| vec![i * 32]).collect());
    let mut batch = Batch::new();
    for lane in 0..8u8 {
        for number in 0..UNFLUSHED_MAX {
            apply(&store, lane.into(), &[lane * 32, number as u8], b"v");
            rotate(&store, lane.into());
        }
        let mut i = 0u32;
        while lock(&store.inner().lanes[usize::from(lane)].shard).memtable_bytes() < MEMTABLE - 1500
        {
            i += 1;
            apply(&store, lane.into(), &[&[lane * 32][..], &i.to_be_bytes()].concat(), &[7; 500]);
        }
        batch.put(&[lane * 32, 1], &[1; 1500]);
    }
    store.write(&batch, Durability::Buffered).expect("there is room");
    let holds = lock(&time.holds_us);
    assert!(holds.len() == 1 && holds[0] <= Brake::DELAY_MAX_US, "held for {holds:?} us");
}

#[test]
fn a_batch_of_many_memtables_is_not_held_where_nothing_waits() {
    let (store, time) = held(vec![]);
    store.put(b"k", &vec![7; 5 * MEMTABLE], Durability::Buffered).expect("there is room");
    assert!(lock(&time.holds_us).is_empty());
}

#[test]
fn a_deletion_up_to_a_shard_leaves_nothing_in_its_log() {
    let (store, time) = held(vec![b"m".to_vec()]);
    let start = vec![b'a'; 8000];
    for _ in 0..100 {
        store.delete_range(&start, b"m", Durability::Buffered).expect("there is room");
        while let Some(job) = store.engine().next_job() {
            store.inner().run(job).expect("memory");
        }
    }
    assert!(!lock(&store.inner().lanes[1].shard).wants_rotation());
    assert!(lock(&time.holds_us).is_empty());
}

/// Panics at the operand `bad`.
struct Touchy;

impl Merge for Touchy {
    fn full(&self, _: &[u8], _: Option<&[u8]>, operands: &[&[u8]], out: &mut Vec<u8>) -> Folded {
        assert!(!operands.contains(&&b"bad"[..]), "planned");
        out.extend_from_slice(operands[0]);
        Folded::Value
    }
    fn partial(&self, _: &[u8], _: &[&[u8]], _: &mut Vec<u8>) -> bool {
        false
    }
}

#[test]
fn readers_see_what_was_there_before_a_batch_that_a_panic_broke_off() {
    let disk = Arc::new(MemoryDisk::new(1));
    let store = Store::open(disk, options(vec![]), Arc::new(Touchy)).expect("a new store");
    apply(&store, 0, b"a", b"v");
    rotate(&store, 0);
    apply(&store, 0, b"k", b"before");
    apply(&store, 0, b"m", b"base");
    // There is a newer view of the tables, that the shard has not taken.
    store.engine().next_flush().expect("one waits").run().expect("memory");
    let broken = apart(&store, |store| {
        let mut batch = Batch::new();
        batch.put(b"k", b"half");
        batch.merge(b"m", b"bad");
        store.write(&batch, Durability::Buffered)
    });
    assert!(broken.recv_timeout(NEVER).is_err(), "it panicked");
    lock(&store.inner().lanes[0].shard).refresh();
    assert_eq!(store.get(b"k").expect("memory").as_deref(), Some(&b"before"[..]));
}
