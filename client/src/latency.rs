//! Latency: how long a node has taken lately, to tell when a second one is worth asking.

use core::time::Duration;
use std::sync::{Mutex, PoisonError};

use crate::limits::HEDGE_DELAY_MIN;

/// How many answers are remembered.
const REMEMBERED: usize = 64;

/// The 95th percentile of the last answers of a node, brought up to date every few of them.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    inner: Mutex<Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    micros: Vec<u32>,
    next: usize,
    p95: Option<Duration>,
}

impl Latency {
    /// An answer took so long.
    pub(crate) fn record(&self, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let mut recent = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.micros.len() < REMEMBERED {
            recent.micros.push(micros);
        } else {
            let at = recent.next;
            recent.micros[at] = micros;
        }
        recent.next = (recent.next + 1) % REMEMBERED;
        if recent.next.is_multiple_of(16) {
            let mut sorted = recent.micros.clone();
            sorted.sort_unstable();
            let p95 = sorted[sorted.len() * 95 / 100];
            recent.p95 = Some(Duration::from_micros(p95.into()));
        }
    }

    /// After how long without an answer another node should be asked; none before enough is known.
    pub(crate) fn hedge_after(&self) -> Option<Duration> {
        let p95 = self.inner.lock().unwrap_or_else(PoisonError::into_inner).p95;
        p95.map(|p95| p95.max(HEDGE_DELAY_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slow_tail_of_the_recent_past_decides() {
        let latency = Latency::default();
        assert_eq!(latency.hedge_after(), None, "nothing is known yet");
        (0..64).for_each(|i| latency.record(Duration::from_millis(if i < 60 { 2 } else { 40 })));
        assert_eq!(latency.hedge_after(), Some(Duration::from_millis(40)));
        (0..64).for_each(|_| latency.record(Duration::from_micros(90)));
        assert_eq!(latency.hedge_after(), Some(HEDGE_DELAY_MIN), "the past is forgotten");
    }
}
