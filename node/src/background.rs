//! Background threads: making the log durable, flushing and compacting, searching the log, reading
//! again what is at rest, and making checkpoints.
//!
//! Each thread sleeps until it is told that there is work, gathers all that waits, and posts what came
//! of it to the cores' mailboxes. One thread only flushes, so that writers never wait for a long
//! compaction; how many merge tables grows with the cores. Merging keeps to a rate where one is
//! configured, as long as it is not behind.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use replication::{DotSet, Event};
use ring::{Register, Slot, WallMillis};
use storage::{Engine, Job, JobKind, Pace, SyncHandle};
use tracing::{error, info, warn};

use crate::checkpoints::{Keeper, Wish};
use crate::clock;
use crate::limits::{BACKGROUND_SYNC, COMPACTION_THREADS_MAX, LOG_FOUND_BYTES};
use crate::mailbox::Mailbox;
use crate::slab::Key;
use crate::state::StateFile;
use crate::turn::Letter;

/// How long to wait after a job that failed.
const JOB_RETRY: Duration = Duration::from_millis(500);

/// How often jobs are looked for without being told.
const JOB_LOOK: Duration = Duration::from_secs(5);

/// How long the scrub rests between two steps.
const SCRUB_REST: Duration = Duration::from_secs(1);

/// A queue with a sleeper.
struct Queue<T> {
    inner: Mutex<Waiting<T>>,
    bell: Condvar,
}

struct Waiting<T> {
    items: Vec<T>,
    rung: bool,
    closed: bool,
}

impl<T> Queue<T> {
    fn new() -> Self {
        let waiting = Waiting { items: Vec::new(), rung: false, closed: false };
        Self { inner: Mutex::new(waiting), bell: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, item: T) {
        self.lock().items.push(item);
        self.bell.notify_one();
    }

    fn ring(&self) {
        self.lock().rung = true;
        self.bell.notify_one();
    }

    fn close(&self) {
        self.lock().closed = true;
        self.bell.notify_all();
    }

    /// Waits for `rest`, whatever is put in meanwhile; breaks off once the queue is closed.
    fn rest(&self, rest: Duration) -> ControlFlow<()> {
        let inner = self.lock();
        let open = |inner: &mut Waiting<T>| !inner.closed;
        let waited = self.bell.wait_timeout_while(inner, rest, open);
        let (inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if inner.closed { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// All that waits, after at most `patience`; `None` once it is closed and empty.
    fn take(&self, patience: Duration) -> Option<Vec<T>> {
        let mut inner = self.lock();
        if inner.items.is_empty() && !inner.rung && !inner.closed {
            let waited = self.bell.wait_timeout(inner, patience);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        inner.rung = false;
        if inner.items.is_empty() && inner.closed {
            return None;
        }
        Some(std::mem::take(&mut inner.items))
    }
}

enum SyncWork {
    /// Make durable what the core has committed, then tell it about these tokens.
    Log { core: usize, tokens: Vec<u64> },
    /// Put this ceiling on disk, then tell every core.
    Ceiling(WallMillis),
    /// Note that nothing is missing here any more.
    Recovered,
    /// Put what was set of keyspaces on disk, then tell core 0.
    Keyspaces(Register),
}

struct Search {
    core: usize,
    token: u64,
    wanted: Vec<(Slot, DotSet)>,
}

/// Something to be done with checkpoints, and who waits for it.
struct Checkpointing {
    core: usize,
    key: Key,
    wish: Wish,
}

/// What the cores use of the background threads.
pub struct Background {
    sync: Queue<SyncWork>,
    /// Rung when a memtable waits for its flush.
    flushes: Queue<()>,
    /// Rung when tables may have to be merged; one of each thread.
    merges: Vec<Queue<()>>,
    /// What all merging threads keep to together.
    pace: Mutex<Pace>,
    searches: Queue<Search>,
    checkpoints: Queue<Checkpointing>,
    /// Nothing but its end ever comes.
    scrub: Queue<()>,
    /// By core: something was committed since the last sync.
    unsynced: Vec<AtomicBool>,
}

/// The threads, to be ended in order.
pub struct Threads {
    background: Arc<Background>,
    sync: JoinHandle<Option<StateFile>>,
    others: Vec<JoinHandle<()>>,
}

impl Background {
    /// The core has committed; the log reaches the disk within a second.
    pub fn committed(&self, core: usize) {
        self.unsynced[core].store(true, Ordering::Release);
    }

    /// Makes durable what the core has committed; [`Letter::Applied`] follows.
    pub fn sync_log(&self, core: usize, tokens: Vec<u64>) {
        self.sync.push(SyncWork::Log { core, tokens });
    }

    /// Puts a ceiling of the hybrid clock on disk; [`Event::CeilingRaised`] follows on every core.
    pub fn raise_ceiling(&self, to: WallMillis) {
        self.sync.push(SyncWork::Ceiling(to));
    }

    /// Everything that may have been missing here was pulled from the other replicas.
    pub fn recovered(&self) {
        self.sync.push(SyncWork::Recovered);
    }

    /// Puts what was set of keyspaces on disk; [`Letter::KeyspacesKept`] follows, in the same order.
    pub fn keep_keyspaces(&self, register: Register) {
        self.sync.push(SyncWork::Keyspaces(register));
    }

    /// A memtable waits for its flush.
    pub fn look_for_jobs(&self) {
        self.flushes.ring();
    }

    /// Finds deltas in the retained log; [`Event::LogFound`] and [`Event::LogScanned`] follow.
    pub fn search_log(&self, core: usize, token: u64, wanted: Vec<(Slot, DotSet)>) {
        self.searches.push(Search { core, token, wanted });
    }

    /// Makes, lists or removes checkpoints; [`Letter::Looked`] follows.
    pub fn checkpoint(&self, core: usize, key: Key, wish: Wish) {
        self.checkpoints.push(Checkpointing { core, key, wish });
    }
}

impl Threads {
    /// Ends the threads. The log is durable when it returns the state file; `None` if it is not.
    #[must_use]
    pub fn end(self) -> Option<StateFile> {
        self.background.flushes.close();
        self.background.merges.iter().for_each(Queue::close);
        self.background.searches.close();
        self.background.checkpoints.close();
        self.background.scrub.close();
        self.background.sync.close();
        for thread in self.others {
            if thread.join().is_err() {
                error!("a background thread panicked");
            }
        }
        self.sync.join().ok().flatten()
    }
}

/// Bytes a second.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// That merging may read while it is not behind; 0: no limit.
    pub merge: u64,
    /// That the scrub reads; 0: there is none.
    pub scrub: u64,
}

/// Starts the threads over an engine.
///
/// # Errors
/// What the system says about new threads.
pub fn start(
    engine: &Arc<Engine>,
    handles: Vec<SyncHandle>,
    (state, keeper): (StateFile, Keeper),
    boxes: &Arc<Vec<Mailbox<Letter>>>,
    rates: Rates,
) -> std::io::Result<(Arc<Background>, Threads)> {
    let merging = (handles.len() / 2).clamp(1, COMPACTION_THREADS_MAX);
    let background = Arc::new(Background {
        sync: Queue::new(),
        flushes: Queue::new(),
        merges: (0..merging).map(|_| Queue::new()).collect(),
        pace: Mutex::new(Pace::new(rates.merge)),
        searches: Queue::new(),
        checkpoints: Queue::new(),
        scrub: Queue::new(),
        unsynced: handles.iter().map(|_| AtomicBool::new(true)).collect(),
    });
    let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
    let sync = {
        let (background, boxes) = (background.clone(), boxes.clone());
        spawn("log-sync").spawn(move || sync_all(&background, &handles, state, &boxes))?
    };
    let mut others = Vec::new();
    others.push({
        let (background, engine) = (background.clone(), engine.clone());
        spawn("flush").spawn(move || flush_all(&background, &engine))?
    });
    for i in 0..merging {
        let (background, engine) = (background.clone(), engine.clone());
        others.push(spawn("compaction").spawn(move || merge_all(&background, &engine, i))?);
    }
    others.push({
        let (background, engine, boxes) = (background.clone(), engine.clone(), boxes.clone());
        spawn("log-search").spawn(move || search_all(&background, &engine, &boxes))?
    });
    others.push({
        let (background, engine, boxes) = (background.clone(), engine.clone(), boxes.clone());
        let keep = move || keep_checkpoints(&background, &engine, &keeper, &boxes);
        spawn("checkpoints").spawn(keep)?
    });
    if rates.scrub > 0 {
        let (background, engine) = (background.clone(), engine.clone());
        let scrub = move || scrub(&background, &engine, rates.scrub);
        others.push(spawn("scrub").spawn(scrub)?);
    }
    let threads = Threads { background: background.clone(), sync, others };
    Ok((background, threads))
}

/// Syncs what is asked for, and twice a second what nobody asked for. While one fdatasync runs the
/// next requests gather. The state file comes back if everything is on disk at the end.
fn sync_all(
    background: &Background,
    handles: &[SyncHandle],
    mut state: StateFile,
    boxes: &[Mailbox<Letter>],
) -> Option<StateFile> {
    let mut sound = true;
    while let Some(work) = background.sync.take(BACKGROUND_SYNC) {
        let mut tokens: Vec<Vec<u64>> = handles.iter().map(|_| Vec::new()).collect();
        let mut ceiling = None;
        let mut keyspaces: Option<Register> = None;
        for work in work {
            match work {
                SyncWork::Log { core, tokens: more } => tokens[core].extend(more),
                SyncWork::Ceiling(to) => ceiling = ceiling.max(Some(to)),
                SyncWork::Keyspaces(register) => {
                    keyspaces.get_or_insert_default().merge(&register);
                }
                SyncWork::Recovered => {
                    if let Err(e) = state.recovered() {
                        warn!(error = %e, "cannot write node.state; the next start pulls again");
                    }
                }
            }
        }
        if let Some(to) = ceiling {
            match state.raise_ceiling(to) {
                Ok(now) => {
                    for mailbox in boxes {
                        mailbox.post_one(Letter::Event(Event::CeilingRaised(now)));
                    }
                }
                Err(e) => error!(error = %e, "cannot write node.state; no new writes are minted"),
            }
        }
        if let Some(register) = keyspaces {
            let kept = state.keep_keyspaces(&register).cloned();
            let kept = kept.inspect_err(|e| error!(error = %e, "cannot write node.state"));
            boxes[0].post_one(Letter::KeyspacesKept(kept.map_err(|e| e.to_string())));
        }
        for (core, tokens) in tokens.into_iter().enumerate() {
            let unsynced = background.unsynced[core].swap(false, Ordering::AcqRel);
            if !unsynced && tokens.is_empty() {
                continue;
            }
            let failed = handles[core].sync().err().map(|e| e.to_string());
            if let Some(why) = &failed {
                error!(core, why, "the log cannot be made durable");
                sound = false;
            }
            if !tokens.is_empty() {
                boxes[core].post_one(Letter::Applied { tokens, failed });
            }
        }
    }
    for handle in handles {
        sound &= handle.sync().is_ok();
    }
    sound.then_some(state)
}

/// Flushes whatever waits; then tables may have to be merged.
fn flush_all(background: &Background, engine: &Engine) {
    while background.flushes.take(JOB_LOOK).is_some() {
        while let Some(job) = engine.next_flush() {
            if !ended_well(&job.run()) && background.flushes.rest(JOB_RETRY).is_break() {
                return;
            }
            background.merges.iter().for_each(Queue::ring);
        }
    }
}

/// Merges tables, and removes files that nobody needs. At the end what is begun is broken off.
fn merge_all(background: &Background, engine: &Engine, thread: usize) {
    let queue = &background.merges[thread];
    let mut pace = |bytes| {
        // Falling behind is worse than a busy disk.
        let hurry = engine.debt().worst() > 0.0;
        let mut pace = background.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let now_us = clock::mono().0 / 1000;
        let rest_us = if hurry { 0 } else { pace.note(now_us, bytes) };
        drop(pace);
        queue.rest(Duration::from_micros(rest_us))
    };
    while queue.take(JOB_LOOK).is_some() {
        while let Some(job) = engine.next_job() {
            let merges = matches!(job.kind(), JobKind::Compact | JobKind::Relocate);
            let done = if merges { job.run_paced(&mut pace) } else { Job::run(job) };
            let closed = queue.rest(Duration::ZERO).is_break();
            if closed || (!ended_well(&done) && queue.rest(JOB_RETRY).is_break()) {
                return;
            }
        }
    }
}

fn ended_well(done: &Result<(), storage::Error>) -> bool {
    if let Err(e) = done {
        warn!(error = %e, "a flush or compaction failed; it will be tried again");
    }
    done.is_ok()
}

/// Reads what is at rest, so much a second, and begins anew when all was read. What it finds damaged
/// the engine says.
fn scrub(background: &Background, engine: &Engine, bytes_per_second: u64) {
    while background.scrub.take(SCRUB_REST).is_some() {
        if let Some(step) = engine.scrub_step(bytes_per_second)
            && let Err(e) = step.run()
        {
            warn!(error = %e, "a step of the scrub failed; it will be tried again");
        }
    }
}

/// One after the other; whoever asked is told.
fn keep_checkpoints(
    background: &Background,
    engine: &Engine,
    keeper: &Keeper,
    boxes: &[Mailbox<Letter>],
) {
    while let Some(wishes) = background.checkpoints.take(Duration::from_secs(3_600)) {
        for Checkpointing { core, key, wish } in wishes {
            let reply = Box::new(keeper.carry_out(engine, &wish));
            boxes[core].post_one(Letter::Looked { key, reply });
        }
    }
}

/// One pass over the log serves everybody who waits.
fn search_all(background: &Background, engine: &Engine, boxes: &[Mailbox<Letter>]) {
    while let Some(searches) = background.searches.take(Duration::from_secs(3_600)) {
        if searches.is_empty() {
            continue;
        }
        let mut found: Vec<Found> = searches.into_iter().map(Found::new).collect();
        let read = store::each_delta(engine, &mut |slot, dot, raw| {
            for found in &mut found {
                found.offer(slot, dot, raw, boxes);
            }
        });
        if let Err(e) = read {
            warn!(error = %e, "the log cannot be searched to its end");
        }
        for found in &mut found {
            found.end(boxes);
        }
        info!(searches = found.len(), "searched the log for peers");
    }
}

struct Found {
    search: Search,
    deltas: Vec<(Slot, Bytes)>,
    bytes: usize,
}

impl Found {
    const fn new(search: Search) -> Self {
        Self { search, deltas: Vec::new(), bytes: 0 }
    }

    fn offer(&mut self, slot: Slot, dot: replication::Dot, raw: &[u8], boxes: &[Mailbox<Letter>]) {
        let wanted = self.search.wanted.iter().find(|(s, _)| *s == slot);
        if !wanted.is_some_and(|(_, dots)| dots.contains(dot)) {
            return;
        }
        self.bytes += raw.len();
        self.deltas.push((slot, Bytes::copy_from_slice(raw)));
        if self.bytes >= LOG_FOUND_BYTES {
            self.hand_over(boxes);
        }
    }

    fn hand_over(&mut self, boxes: &[Mailbox<Letter>]) {
        let deltas = std::mem::take(&mut self.deltas);
        self.bytes = 0;
        if !deltas.is_empty() {
            let event = Event::LogFound { token: self.search.token, deltas };
            boxes[self.search.core].post_one(Letter::Event(event));
        }
    }

    fn end(&mut self, boxes: &[Mailbox<Letter>]) {
        self.hand_over(boxes);
        let event = Event::LogScanned { token: self.search.token };
        boxes[self.search.core].post_one(Letter::Event(event));
    }
}
