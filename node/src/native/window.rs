//! Window: how much one native client may have sent that is not read yet.
//!
//! What lies in buffers waits in the order in which it came, and to refuse it costs a quarter of what it
//! costs to do it. So while requests come old, their client may have less under way: it then hears from its
//! own transport that it must wait, gives up by itself what it cannot send, and what does come is fresh. A
//! pure machine: ages come in, sizes come out. Promise: it never closes, and opens again when ages are small.

use std::time::Duration;

use ring::Instant;

use crate::mesh::limits::{CLIENT_WINDOW_BYTES, CLIENT_WINDOW_BYTES_MIN};

/// Requests that were under way for longer come too old.
const TARGET: Duration = Duration::from_millis(100);

/// What a change does shows after this.
const EVERY: Duration = Duration::from_millis(100);

/// One client's.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    bytes: u32,
    changed: Instant,
}

impl Default for Window {
    fn default() -> Self {
        Self { bytes: CLIENT_WINDOW_BYTES, changed: Instant(0) }
    }
}

impl Window {
    /// Requests came that were under way for `age`: how much may be under way from now on, if that
    /// changes. They begin when they are read: so while as much is in flight here as may be, `is_full`,
    /// they come too early, however young they are.
    pub fn came(&mut self, now: Instant, age: Duration, is_full: bool) -> Option<u32> {
        if now.since(self.changed) < EVERY {
            return None;
        }
        let bytes = if age > TARGET || is_full {
            (self.bytes / 2).max(CLIENT_WINDOW_BYTES_MIN)
        } else if age < TARGET / 2 {
            (self.bytes + self.bytes / 4).min(CLIENT_WINDOW_BYTES)
        } else {
            self.bytes
        };
        let changes = bytes != self.bytes;
        (self.bytes, self.changed) = (bytes, now);
        changes.then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    #[test]
    fn it_settles_where_requests_come_fresh_and_opens_again_afterwards() {
        let mut window = Window::default();
        let mut bytes = CLIENT_WINDOW_BYTES;
        // So much is read in a millisecond: what is under way decides how old it comes.
        for (per_ms, from, to) in [(500, 0, 10_000), (1_000_000, 10_000, 15_000)] {
            for ms in from..to {
                let age = Duration::from_millis(u64::from(bytes / per_ms));
                bytes = window.came(at(ms), age, false).unwrap_or(bytes);
                assert!(ms < 2_000 || age <= 2 * TARGET, "{age:?} at {ms}");
            }
        }
        assert_eq!(bytes, CLIENT_WINDOW_BYTES);
    }

    #[test]
    fn it_shrinks_while_too_much_is_in_flight_however_young_requests_come() {
        let mut window = Window::default();
        assert_eq!(window.came(at(100), Duration::ZERO, true), Some(CLIENT_WINDOW_BYTES / 2));
        assert!(window.came(at(200), Duration::ZERO, false) > Some(CLIENT_WINDOW_BYTES / 2));
    }

    #[test]
    fn it_never_closes() {
        let mut window = Window::default();
        let mut bytes = CLIENT_WINDOW_BYTES;
        for ms in 0..5_000 {
            bytes = window.came(at(ms), Duration::from_secs(9), true).unwrap_or(bytes);
        }
        assert_eq!(bytes, CLIENT_WINDOW_BYTES_MIN);
    }
}
