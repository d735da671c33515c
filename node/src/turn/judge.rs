//! Judging: whether what a client asks may begin, by how long it has waited.
//!
//! The decision is [`crate::admission`]'s; here are the clock and the counts that it is fed with.

use std::time::Duration;

use super::Core;
use crate::admission;
use crate::clock;
use crate::front::host::Fed;
use crate::limits::{REQUEST_TIMEOUT, TURN_MAX};

impl Core {
    /// Whether the turn has lasted so long that it should end before more is taken in.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.begun && clock::mono().since(self.begun_at) > TURN_MAX
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

    fn verdict(&mut self, waited: Duration, limit: Duration) -> Fed {
        let in_flight = self.asked.len() + self.submits.len();
        let verdict = self.admission.judge(waited, limit, in_flight);
        let overload = verdict.err().map(|_| admission::RETRY_AFTER_MS);
        Fed { waited: waited.min(limit), overload }
    }

    /// Requests of a native client came, which may take `limit` yet: whether this one may begin.
    ///
    /// # Errors
    /// When to come back, in milliseconds.
    pub fn judge_native(&mut self, client: u64, limit: Duration) -> Result<(), u32> {
        let at = clock::mono();
        let waited = if self.begun { at.since(self.begun_at) } else { Duration::ZERO };
        self.admission.came(at, client, waited);
        match self.verdict(waited, limit).overload {
            None => Ok(()),
            Some(retry_after_ms) => {
                self.report.refused += 1;
                Err(retry_after_ms)
            }
        }
    }
}
