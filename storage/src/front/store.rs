//! Store: an embedder's handle to all shards: any thread reads, any thread writes.
//!
//! Cloneable; clones are the same store. It starts no thread: background work is done by threads
//! that the caller lends to [`Store::work`], or without any by the writers themselves, when a
//! memtable is full.
//!
//! Writers that are faster than the threads lent to it are held for a moment after a write, the longer
//! the more is behind (see `throttle`); they stand still only where that was not enough. With nobody
//! lent the writer that does the work waits for it, and there is nothing to be gained by holding it.

use super::crew::Crew;
use super::group::{Groups, Target};
use super::throttle::{SystemTime, Throttle, Time};
use crate::batch::{Batch, Op};
use crate::disk::Disk;
use crate::engine::Engine;
use crate::error::{Error, OpenError};
use crate::fold::Merge;
use crate::job::{Job, JobKind};
use crate::log::SyncHandle;
use crate::merge::Direction;
use crate::options::Options;
use crate::reader::{Reader, View};
use crate::shard::{Durability, Shard};
use crate::sync::{Mutex, MutexGuard, lock};
use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Memtables of a shard that may wait for their flush before its writers wait too.
pub(super) const UNFLUSHED_MAX: usize = 2;

/// A store for many threads. A batch is atomic within each shard; with no splits, altogether.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    engine: Arc<Engine>,
    options: Options,
    pub(super) lanes: Vec<Lane>,
    pub(super) crew: Crew,
    time: Arc<dyn Time>,
}

/// A shard and the queue before it.
pub(super) struct Lane {
    groups: Groups,
    pub(super) shard: Mutex<Shard>,
    reader: Reader,
    sync: SyncHandle,
    pub(super) throttle: Throttle,
    /// Held while a group of this lane is synced; shared with one other, if there is one.
    turn: Option<Arc<Mutex<()>>>,
}

/// A lane as the writers of a group see it.
struct Writing<'a> {
    inner: &'a Inner,
    lane: &'a Lane,
}

/// A thread that works; it leaves when this is dropped.
struct Joined<'a>(&'a Crew);

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        self.0.leave();
        hand_back(self.0);
    }
}

/// Somebody who runs a job, lent or on the way of a write.
struct Running<'a>(&'a Crew);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        hand_back(self.0);
    }
}

/// Where a panic ends a job, it is to be done again by those who sleep, and who waits for it asks them.
fn hand_back(crew: &Crew) {
    if std::thread::panicking() {
        crew.call();
        crew.step(Ok(()));
    }
}

thread_local! {
    /// The batch of a single change.
    static SINGLE: RefCell<Batch> = RefCell::new(Batch::new());
}

impl Store {
    /// Opens the store on `disk`, or makes one in an empty directory.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        merge: Arc<dyn Merge>,
    ) -> Result<Self, OpenError> {
        Self::open_timed(disk, options, merge, Arc::new(SystemTime::new()))
    }

    /// As [`Store::open`], with another idea of time: for tests and simulators.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_timed(
        disk: Arc<dyn Disk>,
        options: Options,
        merge: Arc<dyn Merge>,
        time: Arc<dyn Time>,
    ) -> Result<Self, OpenError> {
        let (engine, shards) = Engine::open(disk, options.clone(), merge, &mut |_| {})?;
        // Two lanes take turns: see `turn`.
        let pairs = (0..shards.len() / 2).map(|_| Arc::new(Mutex::new(())));
        let pairs: Vec<_> = pairs.collect();
        let lane = |mut shard: Shard| Lane {
            turn: pairs.get(shard.number() / 2).cloned(),
            groups: Groups::default(),
            throttle: Throttle::default(),
            reader: shard.reader(),
            sync: shard.sync_handle(),
            shard: Mutex::new(shard),
        };
        let lanes = shards.into_iter().map(lane).collect();
        let inner = Inner { engine, options, lanes, crew: Crew::default(), time };
        Ok(Self { inner: Arc::new(inner) })
    }

    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// What all shards share: damage, statistics, the retained log.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.inner.engine
    }

    /// Gives `key` the value `value`; returns when it is as durable as asked.
    ///
    /// # Errors
    /// [`Error::NoSpace`]: it may survive, so do not acknowledge it; the same call may be repeated.
    /// [`Error::Poisoned`]: reopen. [`Error::TooLarge`]: nothing was written.
    pub fn put(&self, key: &[u8], value: &[u8], durability: Durability) -> Result<(), Error> {
        self.single(key, durability, |batch| batch.put(key, value))
    }

    /// Removes `key`.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn delete(&self, key: &[u8], durability: Durability) -> Result<(), Error> {
        self.single(key, durability, |batch| batch.delete(key))
    }

    /// Folds `operand` onto the value of `key`, without reading it now.
    ///
    /// # Errors
    /// As [`Store::put`], but after [`Error::NoSpace`] do not just repeat the call: the operand may be
    /// visible already and is then written with what comes next, so a second one would count beside it.
    /// Wait for space with [`Store::sync`], and look at the value.
    pub fn merge(&self, key: &[u8], operand: &[u8], durability: Durability) -> Result<(), Error> {
        self.single(key, durability, |batch| batch.merge(key, operand))
    }

    /// Removes the keys from `start` (inclusive) to `end` (exclusive).
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn delete_range(
        &self,
        start: &[u8],
        end: &[u8],
        durability: Durability,
    ) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.delete_range(start, end);
        self.write(&batch, durability)
    }

    /// Applies all changes of `batch`, for each shard all or none.
    ///
    /// # Errors
    /// As [`Store::put`]; when the batch concerns several shards, some may have taken their part. With merges in
    /// it, after [`Error::NoSpace`], see [`Store::merge`].
    pub fn write(&self, batch: &Batch, durability: Durability) -> Result<(), Error> {
        batch.check()?;
        let inner = &*self.inner;
        if let [lane] = &inner.lanes[..] {
            return inner.write(lane, batch, durability);
        }
        let mut parts: Vec<Batch> = inner.lanes.iter().map(|_| Batch::new()).collect();
        for op in batch.ops() {
            match op {
                Op::Put { key, value } => parts[inner.options.shard_of(key)].put(key, value),
                Op::Delete { key } => parts[inner.options.shard_of(key)].delete(key),
                Op::Merge { key, operand } => {
                    parts[inner.options.shard_of(key)].merge(key, operand);
                }
                Op::DeleteRange { start, end } => {
                    // Not the shard that begins where it ends: nothing of it is concerned.
                    let last = inner.options.splits.partition_point(|split| split.as_slice() < end);
                    for part in &mut parts[inner.options.shard_of(start)..=last] {
                        part.delete_range(start, end);
                    }
                }
            }
        }
        let parts = inner.lanes.iter().zip(&parts).filter(|(_, part)| !part.is_empty());
        // Held once, for where most is behind, however many shards there are.
        let mut worst = None;
        for (lane, part) in parts {
            lane.groups.write(&Writing { inner, lane }, part, durability)?;
            let debt = lane.throttle.debt().unwrap_or(0.0);
            if worst.is_none_or(|(_, _, most)| most < debt) {
                worst = Some((lane, part.encoded_len(), debt));
            }
        }
        if let Some((lane, bytes, _)) = worst {
            inner.hold(lane, bytes);
        }
        Ok(())
    }

    /// Returns once everything written before the call survives a power loss.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn sync(&self) -> Result<(), Error> {
        for lane in &self.inner.lanes {
            lock(&lane.shard).commit()?;
            lane.sync.sync()?;
        }
        Ok(())
    }

    /// A copy of the value of `key`.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the value cannot be known because a table is damaged there;
    /// [`Error::Io`] when the disk refuses.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.get_with(key, |value| value.map(<[u8]>::to_vec))
    }

    /// Calls `f` with the value of `key`, without copying it.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn get_with<T>(&self, key: &[u8], f: impl FnOnce(Option<&[u8]>) -> T) -> Result<T, Error> {
        self.inner.lane(key).reader.get_with(key, f)
    }

    /// Calls `f` with the index and value of each of `keys`, in no particular order.
    ///
    /// # Errors
    /// As [`Store::get`]; `f` may have been called for some.
    pub fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        mut f: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Error> {
        let lanes = &self.inner.lanes;
        if let [lane] = &lanes[..] {
            return lane.reader.get_many(keys, f);
        }
        let mut parts: Vec<(Vec<usize>, Vec<&[u8]>)> = vec![Default::default(); lanes.len()];
        for (i, key) in keys.iter().enumerate() {
            let part = &mut parts[self.inner.options.shard_of(key.as_ref())];
            part.0.push(i);
            part.1.push(key.as_ref());
        }
        for (lane, (indexes, keys)) in lanes.iter().zip(parts).filter(|(_, p)| !p.0.is_empty()) {
            lane.reader.get_many(&keys, |i, value| f(indexes[i], value))?;
        }
        Ok(())
    }

    /// The moment, shard by shard: what is written from now on it does not see. It keeps in memory
    /// what it sees until it is dropped.
    #[must_use]
    pub fn views(&self) -> Vec<View> {
        self.inner.lanes.iter().map(|lane| lane.reader.view()).collect()
    }

    /// Calls `f` with the rows from `start` (inclusive) to `end` (exclusive; none = to the end) of
    /// one moment a shard, in the direction asked, until it breaks off.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        direction: Direction,
        mut f: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let inner = &*self.inner;
        let first = inner.options.shard_of(start);
        let last = end.map_or(inner.lanes.len() - 1, |end| inner.options.shard_of(end));
        let lanes = inner.lanes.get(first..=last.max(first)).unwrap_or_default();
        for i in 0..lanes.len() {
            let lane = match direction {
                Direction::Forward => &lanes[i],
                Direction::Backward => &lanes[lanes.len() - 1 - i],
            };
            let view = lane.reader.view();
            let mut scan = view.scan(start, end, direction)?;
            if scan.for_each_row(&mut f)?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Lends this thread to background work, until [`Store::close`].
    pub fn work(&self) {
        let inner = &*self.inner;
        inner.crew.join();
        // Also when a job panics: or writers would wait for one who does not come back.
        let _joined = Joined(&inner.crew);
        loop {
            let calls = inner.crew.calls();
            let idle = inner.crew.is_closed() || !inner.do_one_job();
            if idle && !inner.crew.await_call(calls) {
                break;
            }
        }
    }

    /// Sends those home who [`Store::work`]. Writers do background work themselves from now on.
    ///
    /// What was written is synced, and the log says so: behind a clean end a hole in it is damage and no
    /// torn tail. Where the disk refuses that, nothing is lost that was promised.
    pub fn close(&self) {
        self.inner.crew.close();
        for lane in &self.inner.lanes {
            if let Err(error) = lock(&lane.shard).settle() {
                tracing::warn!(%error, "the end of the log could not be marked");
            }
        }
    }

    /// Brings all that was written before the call to tables, and waits for it.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn flush(&self) -> Result<(), Error> {
        let inner = &*self.inner;
        let mut last = Vec::with_capacity(inner.lanes.len());
        for lane in &inner.lanes {
            let mut shard = lock(&lane.shard);
            shard.commit()?;
            shard.rotate();
            last.push(shard.last_rotated());
        }
        inner.crew.call();
        for (lane, last) in inner.lanes.iter().zip(last) {
            // Not for those that others fill meanwhile: there may always be one more.
            inner.await_shard(lane, |shard| shard.is_flushed(last))?;
        }
        Ok(())
    }

    fn single(
        &self,
        key: &[u8],
        durability: Durability,
        fill: impl FnOnce(&mut Batch),
    ) -> Result<(), Error> {
        SINGLE.with_borrow_mut(|batch| {
            batch.reset();
            fill(batch);
            batch.check()?;
            self.inner.write(self.inner.lane(key), batch, durability)
        })
    }
}

impl Inner {
    fn lane(&self, key: &[u8]) -> &Lane {
        &self.lanes[self.options.shard_of(key)]
    }

    fn write(&self, lane: &Lane, batch: &Batch, durability: Durability) -> Result<(), Error> {
        lane.groups.write(&Writing { inner: self, lane }, batch, durability)?;
        self.hold(lane, batch.encoded_len());
        Ok(())
    }

    /// Holds who wrote so many bytes to `lane`, if work is behind there and others do it.
    fn hold(&self, lane: &Lane, bytes: usize) {
        if let Some(debt) = lane.throttle.debt()
            && !self.crew.is_empty()
        {
            lane.throttle.hold(debt, self.time.as_ref(), bytes);
        }
    }

    /// The log may want a file to be made ready: that is no job of a flush, which would call by itself.
    fn call_for_spares(&self) {
        if self.engine.shared.spares.fell_due() {
            self.crew.call();
        }
    }

    /// Does one background job; false when there was none, or it failed and should wait.
    fn do_one_job(&self) -> bool {
        match self.engine.next_job() {
            Some(job) => self.run(job).is_ok(),
            None => {
                if self.engine.shared.poison.is_set() {
                    // There will be none any more: who waits for one has to look.
                    self.crew.step(Ok(()));
                }
                false
            }
        }
    }

    /// Runs a job, and tells those who wait for what it does.
    pub(super) fn run(&self, job: Job) -> Result<(), Error> {
        let flushes = job.kind() == JobKind::Flush;
        let running = Running(&self.crew);
        let done = job.run_paced(&mut |_| {
            // All who were lent may be busy with long mergings while a memtable waits. (A flush that
            // fails is told to those who wait for it, and tried again.)
            while let Some(flush) = (!flushes).then(|| self.engine.next_flush()).flatten() {
                if self.run(flush).is_err() {
                    break;
                }
            }
            ControlFlow::Continue(())
        });
        // What became a table is no longer needed as a memtable.
        self.lanes.iter().for_each(|lane| lock(&lane.shard).refresh());
        let done = match done {
            // A table of it was repaired meanwhile: nothing that anybody waits for failed, and the next choice knows.
            Err(Error::Busy) if !flushes => Ok(()),
            done => done,
        };
        if let Err(error) = &done {
            tracing::warn!(%error, "a background job failed and will be tried again");
        }
        drop(running);
        // Who waits, waits for a flush: how something else failed is not theirs to hear.
        self.crew.step(if flushes { done.clone() } else { Ok(()) });
        done
    }

    /// Waits until `lane` is as `there` wants it, by flushes.
    fn await_shard(&self, lane: &Lane, there: impl Fn(&Shard) -> bool) -> Result<(), Error> {
        loop {
            let steps = self.crew.steps();
            {
                let mut shard = lock(&lane.shard);
                shard.refresh();
                if there(&shard) {
                    return Ok(());
                }
            }
            // A worker may be busy with a long merging while this shard waits for a flush.
            let alone = self.crew.is_empty();
            let job = self.engine.next_job();
            match job.filter(|job| alone || job.kind() == JobKind::Flush) {
                Some(job) if job.kind() == JobKind::Flush => self.run(job)?,
                Some(job) => {
                    // How it failed was told, and it will be tried again.
                    if self.run(job).is_err() {
                        std::thread::yield_now();
                    }
                }
                // Another writer does it.
                None if alone => std::thread::yield_now(),
                None => {
                    self.crew.call();
                    self.crew.await_step(steps)?;
                }
            }
            self.engine.shared.poison.check()?;
        }
    }
}

impl<'a> Writing<'a> {
    /// The shard, with room in its memtable.
    fn make_room(&self) -> Result<MutexGuard<'a, Shard>, Error> {
        let (inner, lane) = (self.inner, self.lane);
        let mut shard = lock(&lane.shard);
        let stands = |shard: &Shard| shard.wants_rotation() && shard.unflushed() >= UNFLUSHED_MAX;
        // Others wait as well, and the first of them rotates.
        while stands(&shard) {
            drop(shard);
            inner.await_shard(lane, |shard| !stands(shard))?;
            shard = lock(&lane.shard);
        }
        if shard.wants_rotation() {
            shard.commit()?;
            shard.rotate();
            inner.crew.call();
        }
        Ok(shard)
    }
}

impl Target for Writing<'_> {
    fn write(
        &self,
        batches: &mut dyn Iterator<Item = &Batch>,
        durability: Durability,
    ) -> Result<(), Error> {
        let lane = self.lane;
        let mut shard = self.make_room()?;
        for batch in batches {
            shard.apply(batch, Durability::Buffered)?;
        }
        lane.throttle.note(shard.debt_before(UNFLUSHED_MAX));
        match durability {
            Durability::Buffered => Ok(()),
            Durability::Os | Durability::Sync => {
                let done = shard.commit().map(|_| ());
                self.inner.call_for_spares();
                done
            }
        }
    }

    fn sync(&self) -> Result<(), Error> {
        let done = self.lane.sync.sync().map(|_| ());
        self.inner.call_for_spares();
        done
    }

    /// While one lane of a pair is synced, the other one gathers: so each sync is for three writers where it
    /// would be for two, and a disk that does one sync at a time anyway is not asked for two.
    fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        let turn = self.lane.turn.as_ref()?;
        // Nobody who has the turn should wait for a flush. If this fails, so will the write, and says why.
        drop(self.make_room());
        Some(lock(turn))
    }

    fn broke_off(&self) -> Error {
        self.inner.engine.shared.poison.set("a panic broke off a write")
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
impl Inner {
    /// As those do who pass by a group that is synced.
    pub(super) fn write_past_groups(&self, batch: &Batch) -> Result<(), Error> {
        let lane = &self.lanes[0];
        Writing { inner: self, lane }.write(&mut std::iter::once(batch), Durability::Buffered)
    }
}
