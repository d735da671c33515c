//! Age: how long the requests of one native client were under way, or the messages of a peer.
//!
//! A request carries how long its client waits, counted from when it was made; since then it lay in
//! buffers of both ends. The client says its own clock's time besides, and which of ours it had heard
//! by then. So does a peer, before each write of which we are to tell a client, and with its heartbeats.
//! A pure machine that finds out how far the clocks are apart:
//!
//! * No frame comes before it is sent. So ours is ahead of theirs by no more than the quickest
//!   frame shows.
//! * Nobody hears of a moment before it comes. So ours is ahead by no less than what was heard shows.
//!
//! The first alone would take whoever stood still for a second for one whose requests are all a second
//! old; the second corrects that as soon as a word has gone there and back, and clocks that drift.
//! Promise: an age is never negative, never more than the time since the client last heard from us,
//! and of two requests the one that waited longer is the older one. What a client says wrongly only
//! ever concerns itself. The way of the quickest frame counts as none: between regions an age is that much too small.

use std::time::Duration;

use ring::Instant;
use wire::moment::Moment;

/// How often a client hears what our clock shows, at most.
const TOLD_EVERY: Duration = Duration::from_millis(250);

/// What is known of one client's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Age {
    /// How far ours is ahead of theirs, in microseconds, as far as is known.
    ahead_us: Option<i64>,
    /// When what is read now was made, on our clock.
    made: Option<Instant>,
    /// What it said last.
    latest_us: u64,
    /// When it last heard of our clock.
    told: Option<Instant>,
}

fn signed(us: u64) -> i64 {
    i64::try_from(us).unwrap_or(i64::MAX)
}

impl Age {
    /// The client says when what follows was made; what it should hear of us, if that is due.
    pub fn heard(&mut self, now: Instant, said: Moment) -> Option<Moment> {
        let (ours, theirs) = (signed(now.0 / 1_000), signed(said.at_us));
        let at_most = ours.saturating_sub(theirs);
        let mut ahead = self.ahead_us.map_or(at_most, |known| known.min(at_most));
        if said.heard_us != 0 {
            let at_least = signed(said.heard_us).saturating_sub(theirs);
            // A moment of ours that has not been yet is no word of ours.
            ahead = ahead.max(at_least.min(at_most));
        }
        self.ahead_us = Some(ahead);
        self.latest_us = said.at_us;
        let made_us = theirs.saturating_add(ahead).clamp(0, ours);
        self.made = Some(Instant(made_us.unsigned_abs() * 1_000));
        let due = self.told.is_none_or(|told| now.since(told) >= TOLD_EVERY);
        due.then(|| {
            self.told = Some(now);
            Moment { at_us: now.0 / 1_000, heard_us: said.at_us }
        })
    }

    /// When what is read now was made, on our clock; nothing if nothing was said of it.
    #[must_use]
    pub const fn made(&self) -> Option<Instant> {
        self.made
    }

    /// What the other side said last of its clock; 0 if it said nothing.
    #[must_use]
    pub const fn latest(&self) -> u64 {
        self.latest_us
    }

    /// How long a request that is read now was under way; nothing if its client says nothing of it.
    #[must_use]
    pub fn of_request(&self, now: Instant) -> Duration {
        self.made.map_or(Duration::ZERO, |made| now.since(made))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The age of what was made at `made` by a clock that began `began` later than ours, and comes at
    /// `comes`.
    fn comes(age: &mut Age, began: u64, made: u64, comes: u64, heard: u64) -> Duration {
        let said = Moment { at_us: (made - began) * 1_000, heard_us: heard * 1_000 };
        age.heard(at(comes), said);
        age.of_request(at(comes))
    }

    #[test]
    fn what_waited_is_older_than_the_quickest_by_its_wait() {
        let mut age = Age::default();
        assert_eq!(age.of_request(at(7)), ms(0), "nothing was said");
        assert_eq!(comes(&mut age, 1_000, 2_000, 2_010, 0), ms(0), "nothing to compare with");
        assert_eq!(comes(&mut age, 1_000, 2_100, 2_103, 0), ms(0));
        assert_eq!(comes(&mut age, 1_000, 2_200, 2_900, 0), ms(697));
        assert_eq!(age.of_request(at(3_000)), ms(797), "and grows while it is not served");
        assert_eq!(comes(&mut age, 1_000, 3_100, 3_104, 0), ms(1));
    }

    #[test]
    fn an_overload_that_lasts_changes_nothing_of_what_was_known_before() {
        let mut age = Age::default();
        comes(&mut age, 0, 1_000, 1_001, 0);
        for second in 2..4_000 {
            assert_eq!(comes(&mut age, 0, second * 1_000, second * 1_000 + 501, 0), ms(500));
        }
    }

    #[test]
    fn a_client_that_stood_still_is_believed_once_it_has_heard_of_us() {
        let mut age = Age::default();
        comes(&mut age, 0, 1_000, 1_001, 900);
        // Its clock stopped for 1.5 s; the first request may be that old for all we know.
        assert_eq!(comes(&mut age, 1_500, 3_000, 3_001, 1_002), ms(1_500));
        assert_eq!(comes(&mut age, 1_500, 3_010, 3_011, 3_005), ms(6), "the way there and back");
    }

    #[test]
    fn clocks_that_drift_are_followed_both_ways() {
        for began in [0, 400] {
            let mut age = Age::default();
            for step in 0..400 {
                let drift = if began == 0 { step } else { 400 - step };
                let now = 1_000 + step * 1_000;
                let waited = comes(&mut age, drift, now, now + 1, now - 2);
                assert!(waited <= ms(3), "{waited:?} at {step}");
            }
        }
    }

    #[test]
    fn nonsense_concerns_whoever_says_it_and_nobody_panics() {
        let values = [0, 1, 5_000, u64::MAX / 2, u64::MAX];
        for at_us in values {
            for heard_us in values {
                let mut age = Age::default();
                for _ in 0..3 {
                    age.heard(at(5), Moment { at_us, heard_us });
                    assert!(age.of_request(at(5)) <= ms(5));
                }
            }
        }
    }

    #[test]
    fn it_hears_of_our_clock_now_and_then() {
        let mut age = Age::default();
        let said = Moment { at_us: 77, heard_us: 0 };
        assert_eq!(age.heard(at(10), said), Some(Moment { at_us: 10_000, heard_us: 77 }));
        assert_eq!(age.heard(at(200), said), None);
        assert!(age.heard(at(260), said).is_some());
    }
}
