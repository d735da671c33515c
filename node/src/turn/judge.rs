//! Judging: whether what a client asks may begin, by how long it has waited, and whether its answer still leaves,
//! by how long that took.
//!
//! The decision is [`crate::admission`]'s; here are the clock and the counts that it is fed with.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use replication::Answer;
use replication::op::TaskError;
use wire::moment::Moment;

use super::{Asked, Asker, Core};
use crate::admission::{self, Refused};
use crate::clock;
use crate::front::host::Fed;
use crate::limits::{
    AHEAD_BYTES_MAX, AHEAD_EVERY, GIVEN_UP_AFTER, GIVEN_UP_PART, KEPT_BACK, REQUEST_TIMEOUT,
    TURN_MAX,
};
use crate::metrics::Class;

/// Clients that wait for less to be in flight.
#[derive(Default)]
pub(super) struct Waiting {
    wakers: Vec<Waker>,
    /// How often they were woken, and when last.
    woken: u64,
    woken_at: ring::Instant,
}

/// Why a native client's request does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody waits for its answer any more.
    Late,
    /// There is too much to do.
    Overloaded {
        /// When to come back.
        retry_after_ms: u32,
    },
}

/// For how long after its deadline, which it was `given` so long before, a native client may still be told why
/// there is no answer.
fn given_up_after(given: Duration) -> Duration {
    GIVEN_UP_AFTER.min(given / GIVEN_UP_PART)
}

impl Core {
    /// Whether the turn has lasted so long that it should end before more is taken in.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.begun && clock::mono().since(self.begun_at) > TURN_MAX
    }

    /// A native client's connection is gone.
    pub(super) fn forget_native(&mut self, connection: u64) {
        self.ways.remove(&connection);
        self.cancel_native(connection, None);
    }

    /// Ready when a client may be served: not while the turn is long already, nor while too much is in
    /// flight. `turn` is the caller's own: when it last began to wait.
    pub fn poll_room(&mut self, cx: &mut Context<'_>, turn: &mut u64) -> Poll<()> {
        if self.is_long() {
            // Behind the task that ends the turn, and behind all who wait already.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.is_full() {
            // Once, until all are woken.
            if std::mem::replace(turn, self.waiting.woken + 1) != self.waiting.woken + 1 {
                self.waiting.wakers.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Whether as much is in flight as may be.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.asked.len() + self.submits.len() >= self.admission.in_flight_max()
    }

    /// The turn has ended: whoever waits may look again, if there is room, or if what came for it
    /// meanwhile should be looked at.
    pub(super) fn wake_waiting(&mut self) {
        if self.waiting.wakers.is_empty() {
            return;
        }
        let now = clock::mono();
        if !self.is_full() || now.since(self.waiting.woken_at) >= AHEAD_EVERY {
            self.waiting.woken_at = now;
            self.waiting.woken += 1;
            self.waiting.wakers.drain(..).for_each(Waker::wake);
        }
    }

    /// Whether more may be read from clients than can be served now.
    #[must_use]
    pub const fn has_room_ahead(&self) -> bool {
        self.ahead < AHEAD_BYTES_MAX
    }

    /// A client whose `before` bytes were kept, read and not served, keeps `now`.
    pub const fn keeps_ahead(&mut self, before: usize, now: usize) {
        self.ahead = self.ahead + now - before;
    }

    /// Commands of a Redis client are about to be fed, which are there at least since `since`, if
    /// that is known; `flooded` if they stand behind others that were refused, `fresh` if they
    /// were read just now. True if they are refused because they waited too long.
    pub fn judge_client(
        &mut self,
        client: u64,
        since: Option<ring::Instant>,
        flooded: bool,
        fresh: bool,
    ) -> bool {
        let at = clock::mono();
        if flooded && self.admission.is_shedding() {
            self.host.fed.overload = Some(admission::RETRY_AFTER_MS);
            return true;
        }
        let began = if self.begun { self.begun_at } else { at };
        let waited = at.since(since.unwrap_or(at).min(began));
        if fresh {
            self.admission.came(at, client, waited);
        }
        self.host.fed = self.verdict(waited, REQUEST_TIMEOUT);
        self.host.fed.overload.is_some() && self.admission.is_shedding()
    }

    /// Commands of a Redis client are there since then and wait still. True if they will be refused.
    pub fn waits_still(&mut self, client: u64, since: ring::Instant) -> bool {
        let at = clock::mono();
        self.admission.waits_still(at, client, at.since(since))
    }

    /// When the answer leaves that is ready now, if that is near its deadline. A Redis client's leaves when the
    /// turn ends, and what has lasted for so long may last as long again; a native client's now.
    fn leaves_near(&self, asked: &Asked) -> Option<ring::Instant> {
        if self.begun && asked.deadline > self.begun_at + TURN_MAX * 50 {
            return None;
        }
        let at = clock::mono();
        let waits = self.begun && matches!(asked.asker, Asker::Conn { .. });
        Some(if waits { at + at.since(self.begun_at) } else { at })
    }

    /// Whether nobody waits any more for what a native client asked: it has said when it gives up, and by
    /// then it has. Not even why there is no answer is told.
    pub(super) fn is_given_up(&mut self, asked: &Asked) -> bool {
        let rest = given_up_after(asked.deadline.since(asked.since));
        let native = matches!(asked.asker, Asker::Native(_));
        let gone = native && self.leaves_near(asked).is_some_and(|at| at > asked.deadline + rest);
        self.report.late += u64::from(gone);
        gone
    }

    /// An answer that comes after its deadline is none: whoever asked has given up, and must not take
    /// it for that of a later request.
    pub(super) fn in_time(&mut self, asked: &Asked, answer: Answer) -> Answer {
        let Some(leaves) = self.leaves_near(asked) else { return answer };
        let late = leaves > asked.deadline && asked.class != Class::Whole;
        if !late || matches!(answer, Answer::Failed(_)) {
            return answer;
        }
        self.report.late += 1;
        Answer::Failed(match asked.class {
            Class::Read | Class::Share | Class::Whole => {
                TaskError::Overloaded { retry_after_ms: admission::RETRY_AFTER_MS }
            }
            Class::Write => {
                let (level, copies) = (asked.write, asked.copies);
                let needed = level.needed(copies).unwrap_or(copies);
                TaskError::Unconfirmed { level, needed, copies, acked: 0, missing: Vec::new() }
            }
        })
    }

    fn verdict(&mut self, waited: Duration, limit: Duration) -> Fed {
        let in_flight = self.asked.len() + self.submits.len();
        let verdict = self.admission.judge(waited, limit, in_flight);
        let overload = verdict.err().map(|_| admission::RETRY_AFTER_MS);
        Fed { waited: waited.min(limit), overload }
    }

    /// A native client says when what it sends next was made: what it should hear of our clock, and how
    /// much it may have under way from now on, if that changes.
    pub fn heard_moment(&mut self, client: u64, said: Moment) -> (Option<Moment>, Option<u32>) {
        let (at, is_full) = (clock::mono(), self.is_full());
        let (age, window) = self.ways.entry(client).or_default();
        let ours = age.heard(at, said);
        (ours, window.came(at, age.of_request(at), is_full))
    }

    fn under_way(&self, at: ring::Instant, client: u64) -> Duration {
        self.ways.get(&client).map_or(Duration::ZERO, |(age, _)| age.of_request(at))
    }

    /// Whether a native client waits no more for what it sent, for which it had `given` when that was
    /// made: then it need not even be understood.
    pub fn is_too_late(&mut self, client: u64, given: Duration) -> bool {
        let at = clock::mono();
        let under_way = self.under_way(at, client);
        if under_way < given {
            return false;
        }
        self.admission.came(at, client, under_way);
        self.report.late += 1;
        true
    }

    /// A request of a native client came, which had `given` to be answered when it was made: how much
    /// of that is left for it.
    ///
    /// # Errors
    /// Why it does not begin.
    pub fn judge_native(&mut self, client: u64, given: Duration) -> Result<Duration, Refusal> {
        let at = clock::mono();
        let here = if self.begun { at.since(self.begun_at) } else { Duration::ZERO };
        let under_way = self.under_way(at, client);
        let waited = here.max(under_way);
        self.admission.came(at, client, waited);
        let in_flight = self.asked.len() + self.submits.len();
        match self.admission.judge(waited, given, in_flight) {
            Ok(()) => Ok(given.saturating_sub(waited)),
            Err(Refused::Late) => {
                self.report.late += 1;
                Err(Refusal::Late)
            }
            // It would hear of that when it has given up.
            Err(Refused::Queue) if waited + KEPT_BACK >= given => {
                self.report.late += 1;
                Err(Refusal::Late)
            }
            Err(Refused::Queue | Refused::InFlight) => {
                self.report.refused += 1;
                Err(Refusal::Overloaded { retry_after_ms: admission::RETRY_AFTER_MS })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_anything_after_he_has_given_up() {
        for ms in 1..10_000 {
            // As the native client names its deadline.
            let gives_up = Duration::from_millis(ms);
            let given = gives_up - Duration::from_millis(200).min(gives_up / 5);
            let way_back = (gives_up - given) * 7 / 10;
            for under_way in 0..10 {
                let left = given - given * under_way / 10;
                let leaves = given + given_up_after(left);
                assert!(leaves + way_back < gives_up, "{gives_up:?}, {left:?} left");
            }
        }
    }
}
