//! Backlog: how long the commands of one client have waited before they are read.
//!
//! TCP tells nobody when a byte came. But whoever looks how many bytes a socket holds knows that these
//! have come by now; when they are read later, they have waited at least since then. A pure machine:
//! counts of bytes and times come in. Promise: what it tells of bytes that were seen is never more than the
//! truth; a client that the core passed over is taken to have sent all of it at that time.

use std::collections::VecDeque;
use std::time::Duration;

use ring::Instant;

/// Looks that are closer together count as one.
const APART: Duration = Duration::from_millis(10);

/// Looks that are kept; what is older than they tell is refused anyhow.
const LOOKS_MAX: usize = 512;

/// What is known of one client's bytes.
#[derive(Debug, Default)]
pub struct Backlog {
    /// Bytes that were fed.
    taken: u64,
    /// All bytes up to here had come at this time, in the order of both.
    looks: VecDeque<(u64, Instant)>,
    /// The core had no time for the client when it first wanted to read.
    passed_over: Option<Instant>,
}

impl Backlog {
    /// So many bytes, beside those that were fed, are there now.
    pub fn holds(&mut self, now: Instant, bytes: u64) {
        let upto = self.taken + bytes;
        let is_new = self.looks.back().is_none_or(|(known, at)| {
            upto > *known && now.since(*at) >= APART && self.looks.len() < LOOKS_MAX
        });
        if is_new {
            self.looks.push_back((upto, now));
        }
    }

    /// So many bytes were fed.
    pub fn taken(&mut self, bytes: usize) {
        self.taken += bytes as u64;
        while self.looks.front().is_some_and(|(upto, _)| *upto <= self.taken) {
            self.looks.pop_front();
        }
        self.passed_over = None;
    }

    /// What was read just now is all that was in the socket.
    pub fn drained(&mut self) {
        self.looks.clear();
    }

    /// Nothing was in the socket.
    pub fn is_empty(&mut self) {
        self.looks.clear();
        self.passed_over = None;
    }

    /// The core has no time for the client now.
    pub fn passed_over(&mut self, now: Instant) {
        self.passed_over.get_or_insert(now);
    }

    /// Since when the byte behind `skipped` others is there at least, if it is known, and how many
    /// bytes, those `skipped` included, are followed by one of which something else is known.
    #[must_use]
    pub fn next(&self, skipped: u64) -> (Option<Instant>, u64) {
        let at = self.taken + skipped;
        let look = self.looks.iter().find(|(upto, _)| *upto > at);
        let upto = look.map_or(u64::MAX, |(upto, _)| upto - self.taken);
        (look.map(|(_, seen)| *seen).into_iter().chain(self.passed_over).min(), upto)
    }

    /// Since when the next byte is there at least, if it is known.
    #[cfg(test)]
    fn since(&self) -> Option<Instant> {
        self.next(0).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    #[test]
    fn bytes_that_were_seen_in_the_socket_have_waited_since_then() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.since(), None);
        backlog.holds(at(10), 1_000);
        backlog.taken(400);
        backlog.holds(at(50), 1_600);
        assert_eq!(backlog.since(), Some(at(10)), "600 of the first look are left");
        backlog.taken(600);
        assert_eq!(backlog.since(), Some(at(50)));
        backlog.taken(1_000);
        assert_eq!(backlog.since(), None);
    }

    #[test]
    fn an_empty_socket_begins_anew_and_looks_are_few() {
        let mut backlog = Backlog::default();
        for ms in 0..100_000 {
            backlog.holds(at(ms), 1_000 + ms);
        }
        assert!(backlog.looks.len() <= LOOKS_MAX);
        assert_eq!(backlog.since(), Some(at(0)));
        backlog.drained();
        assert_eq!(backlog.since(), None);
    }

    #[test]
    fn bytes_that_came_later_are_judged_by_themselves() {
        let mut backlog = Backlog::default();
        backlog.holds(at(10), 100);
        backlog.holds(at(50), 300);
        backlog.taken(40);
        assert_eq!(backlog.next(0), (Some(at(10)), 60));
        assert_eq!(backlog.next(59), (Some(at(10)), 60));
        assert_eq!(backlog.next(60), (Some(at(50)), 260));
        assert_eq!(backlog.next(260), (None, u64::MAX));
        backlog.passed_over(at(30));
        assert_eq!(backlog.next(60), (Some(at(30)), 260));
    }

    #[test]
    fn a_client_that_is_passed_over_waits_until_it_is_read() {
        let mut backlog = Backlog::default();
        backlog.passed_over(at(5));
        backlog.passed_over(at(9));
        assert_eq!(backlog.since(), Some(at(5)));
        backlog.taken(1);
        assert_eq!(backlog.since(), None);
    }
}
