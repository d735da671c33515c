//! Admission: which requests a core takes, and which it refuses because it cannot answer them in time.
//!
//! A pure machine, one a core: time comes in, verdicts come out. It looks at two waits.
//!
//! How long commands that are there have waited, whether or not the core has come to them: if nearly every
//! one waited beyond a target for a whole [`INTERVAL`], the queue stands, and those that waited for a quarter
//! of it are refused until none was for an interval (CoDel's rule, with a refusal in place of a drop). A short
//! burst, however high, refuses nobody, nor does a single client that sends more than is done: he is slowed
//! down by his socket. A refusal costs a part of what it refuses, so that a core spends its time on requests
//! that somebody still waits for.
//!
//! And how long answers took: what was begun should be done within [`ANSWER_TARGET`]. So if answers are slow on
//! the average, no more may be in flight than is answered in that time beside what the fastest takes; the rest
//! waits where its wait is seen. What would be answered after its own time does not begin.
//! The numbers, and what else was tried: decisions 18, 21 and 25.

use core::time::Duration;

use replication::limits::JOBS_MAX;
use ring::Instant;

/// What is in flight should be answered in this time beside what the fastest answer takes. What is more only
/// fills memory and caches.
pub const ANSWER_TARGET: Duration = Duration::from_millis(100);

/// What the fastest answer may take at most: as long as light takes around the world and back, with a rest.
const ROUND_THE_WORLD: Duration = Duration::from_millis(300);

/// Answers that take less than this on the average say that the cluster is not busy.
const FAST: Duration = Duration::from_millis(50);

/// If one answer is so many times as fast as the average, the others wait for something else than for a
/// busy cluster.
const APART: u32 = 10;

/// How long answers are counted together.
const WINDOW: Duration = Duration::from_millis(100);

/// So many windows are remembered.
const WINDOWS: usize = 16;

/// For how long a wait must be too long to be more than a burst.
pub const INTERVAL: Duration = Duration::from_millis(200);

/// One in so many answers makes up what is known of how long they take.
const SMOOTH: u32 = 64;

/// Fewer waits than these say nothing.
const SAMPLES_MIN: u32 = 8;

/// One in so many waits may be short although the queue stands.
const FEW: u32 = 4;

/// So many requests may always be in flight on a core.
pub const IN_FLIGHT_MIN: usize = 256;

/// When a refused client should come back.
pub const RETRY_AFTER_MS: u32 = 100;

const _: () = assert!(IN_FLIGHT_MIN < JOBS_MAX);

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its time is over before it began.
    Late,
    /// It waited too long in a queue that stands.
    Queue,
    /// Too many are in flight.
    InFlight,
}

/// A mistake for the tests to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A single long wait counts as a queue that stands.
    BurstsCount,
    /// Once it refuses, it never stops.
    NeverRecovers,
    /// Once those that waited too long were refused, the queue does not stand any more, though they keep
    /// coming.
    RecoversAtOnce,
}

/// A time in which nearly all waits were too long.
#[derive(Clone, Copy, Debug)]
struct Run {
    since: Instant,
    /// Waits that were too long, and others between them.
    above: u32,
    below: u32,
    /// Whose was the first, and whether there was somebody else's.
    of: u64,
    of_others: bool,
    /// The latest was not too long.
    ended: bool,
}

/// Whether waits have been too long for a while.
#[derive(Clone, Copy, Debug)]
struct Standing {
    target: Duration,
    run: Option<Run>,
    latest_above: Instant,
    stands: bool,
}

impl Standing {
    const fn new(target: Duration) -> Self {
        Self { target, run: None, latest_above: Instant(0), stands: false }
    }

    /// Somebody's commands waited for `wait`, where `bearable` is what is not too long.
    ///
    /// Whoever is busy looks seldom: that there was no long wait for a while says something only if there
    /// was a short one.
    fn waited(
        &mut self,
        now: Instant,
        of: u64,
        wait: Duration,
        bearable: Duration,
        bug: Option<Bug>,
    ) {
        let passed = now.since(self.latest_above) >= INTERVAL;
        if wait > bearable {
            if passed && self.run.is_some_and(|run| run.ended) {
                self.run = None;
            }
            self.latest_above = now;
            let first = Run { since: now, above: 0, below: 0, of, of_others: false, ended: false };
            let run = self.run.get_or_insert(first);
            run.above = run.above.saturating_add(1);
            run.of_others |= run.of != of;
            run.ended = false;
            let long = now.since(run.since) >= INTERVAL && run.above >= SAMPLES_MIN;
            self.stands |= (long && run.of_others) || bug == Some(Bug::BurstsCount);
            return;
        }
        if passed && bug != Some(Bug::NeverRecovers) {
            self.stands = false;
        }
        if let Some(run) = &mut self.run {
            // Each client has a queue of its own, and one may be short: few of them prove nothing.
            run.ended = true;
            run.below = run.below.saturating_add(1);
            if run.below.saturating_mul(FEW) > run.above {
                self.run = None;
            }
        }
    }
}

/// How many requests may be in flight, by how fast they are answered.
#[derive(Clone, Debug)]
struct Flight {
    /// The latest windows.
    windows: [Window; WINDOWS],
    next: usize,
    since: Instant,
    window: Window,
    max: usize,
    /// From one answer to the next, where the core is busy.
    each: Duration,
}

/// Answers of a time.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// How long it was.
    lasted: Duration,
    answers: u64,
    /// What they took in all, and the fastest of them.
    took: Duration,
    fastest: Duration,
}

impl Window {
    const EMPTY: Self =
        Self { lasted: Duration::ZERO, answers: 0, took: Duration::ZERO, fastest: Duration::MAX };

    /// Whether what waits, waits because there is too much to do. If answers are fast it does not; nor if
    /// one is that much faster than the others: then these wait for something else than for a busy cluster.
    fn is_busy(&self) -> bool {
        let mean = self.took / u32::try_from(self.answers).unwrap_or(u32::MAX).max(1);
        self.answers >= u64::from(SAMPLES_MIN) && mean >= FAST && self.fastest * APART >= mean
    }
}

impl Flight {
    const fn new() -> Self {
        let (windows, window) = ([Window::EMPTY; WINDOWS], Window::EMPTY);
        Self { windows, next: 0, since: Instant(0), window, max: JOBS_MAX, each: Duration::ZERO }
    }

    fn answered(&mut self, now: Instant, took: Duration) {
        self.window.answers += 1;
        self.window.took += took;
        self.window.fastest = self.window.fastest.min(took);
        let lasted = now.since(self.since);
        if lasted < WINDOW {
            return;
        }
        // After a rest the window says nothing of how much can be done.
        self.window.lasted = if lasted > 4 * WINDOW { WINDOW } else { lasted };
        self.windows[self.next % WINDOWS] = self.window;
        self.next += 1;
        (self.max, self.each) = (JOBS_MAX, Duration::ZERO);
        if self.window.is_busy() {
            self.max = self.fits();
        }
        (self.since, self.window) = (now, Window::EMPTY);
    }

    /// As many as are answered in the time that they may take: that is beside what the fastest takes, for
    /// light takes its time.
    fn fits(&mut self) -> usize {
        let (mut time, mut answers, mut fastest) = (Duration::ZERO, 0_u64, ROUND_THE_WORLD);
        for window in &self.windows {
            time += window.lasted;
            answers = answers.saturating_add(window.answers);
            fastest = fastest.min(window.fastest);
        }
        self.each = time / u32::try_from(answers).unwrap_or(u32::MAX).max(1);
        let share = (ANSWER_TARGET + fastest).as_secs_f64() / time.as_secs_f64().max(0.001);
        ((answers as f64 * share) as usize).clamp(IN_FLIGHT_MIN, JOBS_MAX)
    }

    /// How long it will take until so many are answered, where the core is busy with them: before those that
    /// take long have told it.
    fn expected(&self, in_flight: usize) -> Duration {
        self.each.saturating_mul(u32::try_from(in_flight).unwrap_or(u32::MAX))
    }
}

/// What one core lets in.
#[derive(Clone, Debug)]
pub struct Admission {
    queue: Standing,
    flight: Flight,
    /// How long answers take lately, smoothed.
    answer_time: Duration,
    bug: Option<Bug>,
}

impl Admission {
    /// Nothing has been refused yet. Commands that wait for longer than `queue_max`, all of them, say
    /// that the core has more to do than it can.
    #[must_use]
    pub const fn new(queue_max: Duration) -> Self {
        Self::with_bug(queue_max, None)
    }

    /// The same with a mistake planted in it: for tests alone.
    #[must_use]
    pub const fn with_bug(queue_max: Duration, bug: Option<Bug>) -> Self {
        Self {
            queue: Standing::new(queue_max),
            flight: Flight::new(),
            answer_time: Duration::ZERO,
            bug,
        }
    }

    /// Commands of this client were there for at least `wait` before the core came to them.
    pub fn came(&mut self, now: Instant, client: u64, wait: Duration) {
        let flaps = self.bug == Some(Bug::RecoversAtOnce);
        let bearable = if flaps { self.queue.target } else { self.bearable() };
        self.queue.waited(now, client, wait, bearable, self.bug);
    }

    /// A wait that is not too long. While the queue stands that is less, and what an answer takes lately
    /// belongs to it: it stands until all that comes is served, not until what waits there has been refused
    /// once.
    fn bearable(&self) -> Duration {
        let target = self.queue.target;
        if !self.queue.stands {
            return target;
        }
        target.saturating_sub(self.answer_time).clamp(target / 8, target / 4)
    }

    /// Commands of this client wait for so long already, and wait still. True if they will be refused.
    pub fn waits_still(&mut self, now: Instant, client: u64, wait: Duration) -> bool {
        let is_long = wait > self.bearable();
        if is_long {
            self.came(now, client, wait);
        }
        is_long && self.queue.stands
    }

    /// Whether the queue of this core stands.
    #[must_use]
    pub const fn is_shedding(&self) -> bool {
        self.queue.stands
    }

    /// How many requests may be in flight; what comes while there are more waits.
    #[must_use]
    pub const fn in_flight_max(&self) -> usize {
        self.flight.max
    }

    /// A request was done, after `took`.
    pub fn answered(&mut self, now: Instant, took: Duration) {
        self.answer_time = self.answer_time / SMOOTH * (SMOOTH - 1) + took / SMOOTH;
        self.flight.answered(now, took);
    }

    /// Whether a request may begin that has waited for `wait`, of the `limit` that it may take in all,
    /// while so many are in flight.
    ///
    /// # Errors
    /// Why it may not.
    pub fn judge(&self, wait: Duration, limit: Duration, in_flight: usize) -> Result<(), Refused> {
        if wait >= limit {
            return Err(Refused::Late);
        }
        // What its answer will take belongs to the time that its client has; but unless there is too much to
        // do, slow answers alone are no reason to give none.
        let much = self.queue.stands || in_flight >= self.flight.max;
        let takes = if much {
            self.answer_time.max(self.flight.expected(in_flight))
        } else {
            self.answer_time.min(limit / 2)
        };
        let late = wait + takes >= limit;
        if late || (self.queue.stands && wait > self.bearable()) {
            return Err(Refused::Queue);
        }
        if in_flight >= JOBS_MAX {
            return Err(Refused::InFlight);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Waits of `wait` once a millisecond.
    fn waits(admission: &mut Admission, from: u64, to: u64, wait: Duration) {
        for now in from..to {
            admission.came(at(now), now % 5, wait);
        }
    }

    const QUEUE_MAX: Duration = Duration::from_millis(100);

    #[test]
    fn a_burst_refuses_nobody() {
        let story = |bug| {
            let mut admission = Admission::with_bug(QUEUE_MAX, bug);
            for burst in 0..20 {
                waits(&mut admission, burst * 1_000, burst * 1_000 + 190, ms(800));
                admission.came(at(burst * 1_000 + 190), 1, ms(1));
            }
            // One long pause of the whole machine is no queue either.
            admission.came(at(60_000), 1, ms(1_500));
            admission.came(at(61_000), 2, ms(1_500));
            admission.judge(ms(1_500), LIMIT, 0)
        };
        assert_eq!(story(None), Ok(()));
        assert_eq!(story(Some(Bug::BurstsCount)), Err(Refused::Queue), "the mistake is found");
    }

    #[test]
    fn a_single_client_is_slowed_down_and_not_refused() {
        let mut admission = Admission::new(QUEUE_MAX);
        for now in 0..5_000 {
            admission.came(at(now), 7, ms(1_500));
        }
        assert_eq!(admission.judge(ms(1_500), LIMIT, 0), Ok(()));
    }

    #[test]
    fn a_queue_that_stands_refuses_what_waited_too_long_and_takes_what_is_fresh() {
        let mut admission = Admission::new(QUEUE_MAX);
        waits(&mut admission, 0, 201, ms(150));
        assert!(admission.is_shedding());
        assert_eq!(admission.judge(ms(150), LIMIT, 0), Err(Refused::Queue));
        assert_eq!(admission.judge(ms(20), LIMIT, 0), Ok(()));
    }

    #[test]
    fn it_refuses_until_no_wait_was_too_long_for_an_interval() {
        let story = |bug| {
            let mut admission = Admission::with_bug(QUEUE_MAX, bug);
            waits(&mut admission, 0, 1_000, ms(150));
            waits(&mut admission, 1_000, 1_150, ms(1));
            assert!(admission.is_shedding(), "not yet");
            waits(&mut admission, 1_150, 1_250, ms(1));
            admission.is_shedding()
        };
        assert!(!story(None));
        assert!(story(Some(Bug::NeverRecovers)), "the mistake is found");
    }

    #[test]
    fn a_client_whose_queue_is_short_does_not_hide_those_of_many() {
        let mut admission = Admission::new(QUEUE_MAX);
        for now in 0..400 {
            let wait = if now % 8 == 0 { ms(2) } else { ms(500) };
            admission.came(at(now), now % 8, wait);
        }
        assert!(admission.is_shedding());
    }

    #[test]
    fn many_clients_whose_queues_are_short_are_not_refused_for_a_few_that_send_much() {
        let mut admission = Admission::new(QUEUE_MAX);
        for now in 0..4_000 {
            let wait = if now % 3 == 0 { ms(500) } else { ms(2) };
            admission.came(at(now), now % 8, wait);
        }
        assert!(!admission.is_shedding());
    }

    /// Twice as much comes as is done, from eight clients with a queue each; how long those waited that
    /// were taken on, once it was seen that it is too much.
    fn waits_of_the_accepted(bug: Option<Bug>) -> Vec<u64> {
        let mut admission = Admission::with_bug(QUEUE_MAX, bug);
        let mut queues: [std::collections::VecDeque<u64>; 8] = Default::default();
        let (mut next, mut waits) = (0, Vec::new());
        for now in 0..10_000_u64 {
            for _ in 0..2 {
                queues[(next % 8) as usize].push_back(now);
                next += 1;
            }
            // One is done a millisecond, whosever turn it is; refusals take no time.
            let turn = (now % 8) as usize;
            while let Some(since) = queues[turn].pop_front() {
                let wait = ms(now - since);
                admission.came(at(now), turn as u64, wait);
                if admission.judge(wait, LIMIT, 0).is_ok() {
                    waits.push((now, now - since));
                    admission.answered(at(now), ms(1));
                    break;
                }
            }
        }
        waits.retain(|(now, _)| *now > 1_000);
        waits.into_iter().map(|(_, wait)| wait).collect()
    }

    #[test]
    fn while_too_much_comes_nobody_is_taken_on_who_waited_long() {
        let waits = waits_of_the_accepted(None);
        assert!(waits.len() > 8_900, "and no time is lost: {}", waits.len());
        let longest = waits.iter().max().expect("some");
        assert!(*longest <= 101, "{longest}");
        let longest = |bug| waits_of_the_accepted(Some(bug)).into_iter().max().expect("some");
        assert!(longest(Bug::RecoversAtOnce) > 200, "the mistake is found");
    }

    #[test]
    fn what_is_late_is_refused_whether_or_not_a_queue_stands() {
        let admission = Admission::new(QUEUE_MAX);
        assert_eq!(admission.judge(LIMIT, LIMIT, 0), Err(Refused::Late));
        assert_eq!(admission.judge(ms(1_999), LIMIT, 0), Ok(()));
    }

    #[test]
    fn no_more_is_in_flight_than_is_answered_in_time_while_even_the_fastest_answer_is_slow() {
        let mut admission = Admission::new(QUEUE_MAX);
        let mut in_flight = 0;
        for now in 0..20_000 {
            // Forty want to begin in a millisecond, and twenty are done: what is in flight decides how
            // long it takes.
            in_flight += 40.min(admission.in_flight_max().saturating_sub(in_flight));
            for _ in 0..20.min(in_flight) {
                admission.answered(at(now), ms(in_flight as u64 / 20));
            }
            in_flight = in_flight.saturating_sub(20);
            assert!(in_flight <= 8_000, "{in_flight} at {now}");
            assert!(now < 1_000 || in_flight >= 800, "{in_flight} at {now}");
        }
        for now in 20_000..20_200 {
            admission.answered(at(now), ms(2));
        }
        assert_eq!(admission.in_flight_max(), JOBS_MAX, "and as many as there are afterwards");
    }

    #[test]
    fn a_slow_replica_among_fast_ones_changes_nothing() {
        let mut admission = Admission::new(QUEUE_MAX);
        for now in 0..10_000 {
            admission.answered(at(now), if now % 50 == 0 { ms(3) } else { ms(1_900) });
        }
        assert_eq!(admission.in_flight_max(), JOBS_MAX);
    }

    #[test]
    fn while_much_is_in_flight_nothing_begins_that_would_be_answered_too_late() {
        let mut admission = Admission::new(QUEUE_MAX);
        for now in 0..2_000 {
            admission.answered(at(now), ms(900));
        }
        let much = admission.in_flight_max();
        assert!(much < JOBS_MAX);
        assert_eq!(admission.judge(ms(0), ms(800), much), Err(Refused::Queue));
        assert_eq!(admission.judge(ms(0), ms(800), much - 1), Ok(()), "else it is tried");
    }

    #[test]
    fn what_stands_behind_more_than_is_done_in_its_time_does_not_begin() {
        let mut admission = Admission::new(QUEUE_MAX);
        // Ten are done in a millisecond, each in 60: nothing has told yet that more takes longer.
        for now in 0..500 {
            (0..10).for_each(|_| admission.answered(at(now), ms(60)));
        }
        assert_eq!(admission.judge(ms(0), ms(800), 7_000), Ok(()));
        assert_eq!(admission.judge(ms(0), ms(800), 9_000), Err(Refused::Queue));
    }

    #[test]
    fn replicas_on_the_other_side_of_the_world_are_no_overload() {
        let mut admission = Admission::new(QUEUE_MAX);
        // Ten thousand a second, each under way for 250 ms: 2,500 in flight.
        for now in 0..10_000 {
            for _ in 0..10 {
                admission.answered(at(now), ms(250));
            }
            assert!(now < 1_000 || admission.in_flight_max() > 2_600);
        }
    }

    #[test]
    fn while_the_queue_stands_the_time_of_the_answer_counts() {
        let mut admission = Admission::new(QUEUE_MAX);
        waits(&mut admission, 0, 1_000, ms(150));
        assert!(admission.is_shedding());
        assert_eq!(admission.judge(ms(20), LIMIT, 0), Ok(()));
        for now in 1_000..1_600 {
            admission.answered(at(now), ms(85));
        }
        assert_eq!(admission.judge(ms(20), LIMIT, 0), Err(Refused::Queue));
        assert_eq!(admission.judge(ms(10), LIMIT, 0), Ok(()));
        assert_eq!(
            admission.judge(ms(10), ms(50), 0),
            Err(Refused::Queue),
            "it would come too late"
        );
    }
}
