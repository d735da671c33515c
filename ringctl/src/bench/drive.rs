//! Drive: threads of workers that send operations, and what they saw.
//!
//! In a closed loop a worker sends the next operation when the last is answered. In an open loop a
//! pacer says when operations are due, whether anybody is free to send them or not, and an
//! operation's latency counts from when it was due: a server that stalls is charged for everybody
//! who would have come meanwhile (no coordinated omission). What was due and not begun when time
//! was up is counted apart: it has no latency.
//!
//! What is answered while it is measured counts, whenever it was due: so a target that cannot keep up
//! shows how much it does, and how late.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;

use super::keys::Draw;
use super::mix::{KINDS, Mix};
use super::target::Target;

/// When what happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// Workers begin.
    pub(crate) start: Instant,
    /// What is answered from here on counts.
    pub(crate) from: Instant,
    /// Nothing begins from here on.
    pub(crate) until: Instant,
}

/// What workers saw of one kind of operation, or of all.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Latencies of what succeeded, in nanoseconds.
    pub(crate) latencies: Histogram<u64>,
    pub(crate) errors: u64,
}

/// What workers saw.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) kinds: Vec<Seen>,
    pub(crate) errors: BTreeMap<String, u64>,
    /// Due in time, and never begun.
    pub(crate) unsent: u64,
}

/// The longest latency that is told apart.
const LONGEST_NS: u64 = 120_000_000_000;

impl Default for Seen {
    fn default() -> Self {
        let latencies = Histogram::new_with_bounds(1_000, LONGEST_NS, 3);
        Self { latencies: latencies.expect("these bounds are in order"), errors: 0 }
    }
}

impl Seen {
    fn add(&mut self, other: &Self) {
        self.latencies.add(&other.latencies).expect("all have the same bounds");
        self.errors += other.errors;
    }

    /// Milliseconds within which this share of what succeeded was answered.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        self.latencies.value_at_quantile(share) as f64 / 1e6
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self { kinds: vec![Seen::default(); KINDS.len()], errors: BTreeMap::new(), unsent: 0 }
    }
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.kinds.iter_mut().zip(&other.kinds) {
            mine.add(theirs);
        }
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
        self.unsent += other.unsent;
    }

    pub(crate) fn all(&self) -> Seen {
        let mut all = Seen::default();
        self.kinds.iter().for_each(|kind| all.add(kind));
        all
    }

    fn record(&mut self, kind: usize, took: Duration, done: Result<(), String>) {
        let seen = &mut self.kinds[kind];
        match done {
            Ok(()) => {
                seen.latencies.saturating_record(took.as_nanos().min(LONGEST_NS.into()) as u64);
            }
            Err(what) => {
                seen.errors += 1;
                // Few kinds are expected; a target that says something new each time is no reason to
                // run out of memory.
                if self.errors.len() < 100 || self.errors.contains_key(&what) {
                    *self.errors.entry(what).or_default() += 1;
                }
            }
        }
    }
}

/// Operations that are due, so many a second; shared by a thread's workers.
struct Pace {
    /// As many as are due and not begun.
    due: Semaphore,
    begun: AtomicU64,
    every: Duration,
    over: AtomicBool,
}

/// A thread of workers that has its targets and waits for the schedule.
pub(crate) struct Crew {
    thread: JoinHandle<Tally>,
    ready: Option<oneshot::Receiver<Result<(), String>>>,
}

/// What a crew is to do.
pub(crate) struct Orders {
    pub(crate) mix: Arc<Mix>,
    pub(crate) workers: u32,
    /// Operations a second of this crew, in an open loop.
    pub(crate) rate: Option<f64>,
    pub(crate) seed: u64,
}

impl Crew {
    /// Starts a thread; `connect` is called on it for each worker.
    pub(crate) fn start<F, C>(
        orders: Orders,
        connect: C,
        schedule: watch::Receiver<Option<Schedule>>,
    ) -> std::io::Result<Self>
    where
        F: Future<Output = Result<Target, String>>,
        C: Fn(u32) -> F + Send + 'static,
    {
        let (say, ready) = oneshot::channel();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(work(&orders, connect, say, schedule)),
                Err(error) => {
                    drop(say.send(Err(error.to_string())));
                    Tally::default()
                }
            }
        };
        let thread = std::thread::Builder::new().name("bench".into()).spawn(run)?;
        Ok(Self { thread, ready: Some(ready) })
    }

    /// Waits until it has its targets.
    ///
    /// # Errors
    /// Why it has not.
    pub(crate) async fn ready(&mut self) -> Result<(), String> {
        let Some(ready) = self.ready.take() else { return Ok(()) };
        ready.await.unwrap_or_else(|_| Err("its thread ended".to_owned()))
    }

    /// Waits for its end.
    pub(crate) fn join(self) -> Tally {
        self.thread.join().expect("a thread of the bench does not panic")
    }
}

/// Waits for a moment of a schedule.
pub(crate) async fn wait_until(moment: Instant) {
    tokio::time::sleep_until(moment.into()).await;
}

async fn work<F, C>(
    orders: &Orders,
    connect: C,
    say: oneshot::Sender<Result<(), String>>,
    mut schedule: watch::Receiver<Option<Schedule>>,
) -> Tally
where
    F: Future<Output = Result<Target, String>>,
    C: Fn(u32) -> F,
{
    let mut targets = Vec::new();
    for worker in 0..orders.workers {
        match connect(worker).await {
            Ok(target) => targets.push(target),
            Err(why) => {
                drop(say.send(Err(why)));
                return Tally::default();
            }
        }
    }
    drop(say.send(Ok(())));
    let schedule = match schedule.wait_for(Option::is_some).await {
        Ok(schedule) => schedule.expect("it was waited for"),
        // Another crew could not begin.
        Err(_) => return Tally::default(),
    };
    wait_until(schedule.start).await;
    let pace = orders.rate.map(|rate| {
        Arc::new(Pace {
            due: Semaphore::new(0),
            begun: AtomicU64::new(0),
            every: Duration::from_secs_f64(1.0 / rate),
            over: AtomicBool::new(false),
        })
    });
    let pacer = pace.clone().map(|pace| std::thread::spawn(move || set_pace(&pace, schedule)));
    let mut workers = JoinSet::new();
    for (worker, target) in (0_u64..).zip(targets) {
        let draw = Draw::new(orders.seed.wrapping_mul(0x1_0000_0001).wrapping_add(worker << 40));
        workers.spawn(one_worker(target, orders.mix.clone(), draw, schedule, pace.clone()));
    }
    let mut tally = Tally::default();
    while let Some(done) = workers.join_next().await {
        tally.add(&done.expect("a worker does not panic"));
    }
    if let (Some(pace), Some(pacer)) = (pace, pacer) {
        pace.over.store(true, Ordering::Relaxed);
        pacer.join().expect("the pacer does not panic");
        add_unsent(&mut tally, &pace, schedule);
    }
    tally
}

/// Says when operations are due. A thread of its own: the runtime's timers count milliseconds.
fn set_pace(pace: &Pace, schedule: Schedule) {
    let mut told = 0_u64;
    while !pace.over.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now >= schedule.until {
            break;
        }
        let due = (now.duration_since(schedule.start).as_nanos() / pace.every.as_nanos().max(1))
            as u64
            + 1;
        let more = due.saturating_sub(told);
        pace.due.add_permits(more as usize);
        told += more;
        let next = due_at(pace, schedule, told);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    // Whoever waits for something to be due may go home.
    pace.due.close();
}

fn due_at(pace: &Pace, schedule: Schedule, which: u64) -> Instant {
    let ns = pace.every.as_nanos().saturating_mul(u128::from(which));
    schedule.start + Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
}

/// What was due before the end and was not begun has lasted until the end at least.
fn add_unsent(tally: &mut Tally, pace: &Pace, schedule: Schedule) {
    for which in pace.begun.load(Ordering::Relaxed).. {
        let due = due_at(pace, schedule, which);
        if due >= schedule.until {
            return;
        }
        tally.unsent += u64::from(due >= schedule.from);
    }
}

async fn one_worker(
    mut target: Target,
    mix: Arc<Mix>,
    mut draw: Draw,
    schedule: Schedule,
    pace: Option<Arc<Pace>>,
) -> Tally {
    let mut tally = Tally::default();
    loop {
        let begun = match &pace {
            None => Instant::now(),
            Some(pace) => {
                let Ok(permit) = pace.due.acquire().await else { return tally };
                permit.forget();
                if Instant::now() >= schedule.until {
                    return tally;
                }
                due_at(pace, schedule, pace.begun.fetch_add(1, Ordering::Relaxed))
            }
        };
        if begun >= schedule.until {
            return tally;
        }
        let Some(operation) = mix.next(&mut draw) else { return tally };
        let kind = operation.kind();
        let done = target.carry_out(operation).await;
        let answered = Instant::now();
        if answered >= schedule.from {
            tally.record(kind, answered.duration_since(begun), done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_due_and_never_begun_is_told() {
        let start = Instant::now();
        let s = Duration::from_secs;
        let schedule = Schedule { start, from: start + s(1), until: start + s(3) };
        let pace = Pace {
            due: Semaphore::new(0),
            begun: AtomicU64::new(5),
            every: Duration::from_millis(100),
            over: AtomicBool::new(false),
        };
        let mut tally = Tally::default();
        add_unsent(&mut tally, &pace, schedule);
        assert_eq!(tally.unsent, 20, "those of the warm-up do not count");
    }

    #[test]
    fn errors_are_counted_by_kind_and_are_no_latencies() {
        let mut tally = Tally::default();
        tally.record(0, Duration::from_millis(2), Ok(()));
        tally.record(0, Duration::from_millis(9), Err("no".into()));
        let all = tally.all();
        assert_eq!((all.latencies.len(), all.errors, tally.errors["no"]), (1, 1, 1));
        let ms = all.quantile_ms(0.99);
        assert!((1.99..2.01).contains(&ms), "{ms}");
    }
}
