//! Hybrid logical clocks: timestamps close to the wall clock that never run backwards.
//!
//! Kulkarni et al., "Logical Physical Clocks" (2014): 48 bits of milliseconds, 16 bits of counter.
//! Invariants: [`HlcClock::tick`] is strictly increasing; a remote stamp further ahead of the wall
//! clock than [`MAX_OFFSET`] is refused before it is merged, so that one bad clock cannot drag the
//! cluster; and no stamp above the persisted ceiling is ever minted, so that a restart with a clock
//! set back cannot mint below its own past.

use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::WallMillis;

/// How far a remote stamp may lie ahead of our wall clock before it is refused.
pub const MAX_OFFSET: Duration = Duration::from_millis(500);

/// A hybrid logical timestamp: 48 bits of milliseconds since 1970, then 16 bits of counter.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The stamp with this wall-clock part and counter.
    #[must_use]
    pub const fn new(wall: WallMillis, counter: u16) -> Self {
        Self((wall.0 << 16) | counter as u64)
    }

    /// The wall-clock part.
    #[must_use]
    pub const fn wall(self) -> WallMillis {
        WallMillis(self.0 >> 16)
    }

    /// The counter part: order among events of one millisecond.
    #[must_use]
    pub const fn counter(self) -> u16 {
        self.0 as u16
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.wall().0, self.counter())
    }
}

/// A remote stamp lies too far ahead of our wall clock; it was not merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFarAhead {
    /// By how much it leads our wall clock.
    pub ahead: Duration,
}

/// Minting would pass the ceiling that is on disk; raise and persist the ceiling first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AboveCeiling {
    /// The ceiling in force.
    pub ceiling: WallMillis,
}

/// The clock of one core of a node.
#[derive(Clone, Debug)]
pub struct HlcClock {
    last: Hlc,
    ceiling: WallMillis,
}

impl HlcClock {
    /// A clock that starts no lower than `floor` (the ceiling that the previous life persisted) and
    /// may mint up to `ceiling` (which must be on disk already).
    #[must_use]
    pub const fn new(floor: WallMillis, ceiling: WallMillis) -> Self {
        Self { last: Hlc::new(floor, 0), ceiling }
    }

    /// The latest stamp minted or merged.
    #[must_use]
    pub const fn last(&self) -> Hlc {
        self.last
    }

    /// The highest wall part that may be minted without another write to disk.
    #[must_use]
    pub const fn ceiling(&self) -> WallMillis {
        self.ceiling
    }

    /// The ceiling `to` is on disk now.
    pub fn raise_ceiling(&mut self, to: WallMillis) {
        self.ceiling = self.ceiling.max(to);
    }

    /// A stamp above every stamp minted or merged so far, and no lower than the wall clock.
    ///
    /// # Errors
    /// [`AboveCeiling`] if that stamp would pass the persisted ceiling; the clock is unchanged.
    pub fn tick(&mut self, wall: WallMillis) -> Result<Hlc, AboveCeiling> {
        // The counter carries into the milliseconds when it overflows.
        let next = Hlc(self.last.0 + 1).max(Hlc::new(wall, 0));
        if next.wall() > self.ceiling {
            return Err(AboveCeiling { ceiling: self.ceiling });
        }
        self.last = next;
        Ok(next)
    }

    /// The stamp to put on a message: merges the wall clock but names no event.
    #[must_use]
    pub fn peek(&self, wall: WallMillis) -> Hlc {
        self.last.max(Hlc::new(wall.min(self.ceiling), 0))
    }

    /// Takes note of a stamp from elsewhere.
    ///
    /// # Errors
    /// [`TooFarAhead`] if it leads our wall clock by more than [`MAX_OFFSET`]; it is not merged.
    pub fn merge(&mut self, remote: Hlc, wall: WallMillis) -> Result<(), TooFarAhead> {
        let limit = wall.0 + MAX_OFFSET.as_millis() as u64;
        if remote.wall().0 > limit {
            let ahead = Duration::from_millis(remote.wall().0 - wall.0);
            return Err(TooFarAhead { ahead });
        }
        self.last = self.last.max(remote);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_never_runs_backwards_when_the_wall_clock_does() {
        let mut clock = HlcClock::new(WallMillis(0), WallMillis(10_000));
        let a = clock.tick(WallMillis(5_000)).expect("below the ceiling");
        let b = clock.tick(WallMillis(1_000)).expect("below the ceiling");
        assert!(b > a && b.wall() == WallMillis(5_000), "{a:?} then {b:?}");
    }

    #[test]
    fn a_stamp_from_a_broken_clock_is_refused_and_not_merged() {
        let mut clock = HlcClock::new(WallMillis(0), WallMillis(100_000));
        let broken = Hlc::new(WallMillis(10_501), 0);
        assert!(clock.merge(broken, WallMillis(10_000)).is_err());
        assert!(clock.last() < broken);
        clock.merge(Hlc::new(WallMillis(10_500), 7), WallMillis(10_000)).expect("within 500 ms");
        let next = clock.tick(WallMillis(10_000)).expect("below the ceiling");
        assert_eq!(next, Hlc::new(WallMillis(10_500), 8));
    }

    #[test]
    fn nothing_is_minted_above_the_ceiling_on_disk() {
        let mut clock = HlcClock::new(WallMillis(900), WallMillis(1_000));
        assert!(clock.tick(WallMillis(1_001)).is_err());
        clock.raise_ceiling(WallMillis(2_000));
        assert_eq!(clock.tick(WallMillis(1_001)), Ok(Hlc::new(WallMillis(1_001), 0)));
    }
}
