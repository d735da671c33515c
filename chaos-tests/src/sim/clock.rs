//! Clocks: what each node believes the time to be.

use ring::{Instant, Now, WallMillis};

/// One millisecond, in nanoseconds.
pub const MS: u64 = 1_000_000;

/// One second, in nanoseconds.
pub const SECOND: u64 = 1_000 * MS;

/// Wall time at the start of every run, in milliseconds since 1970.
const EPOCH_MS: i64 = 1_900_000_000_000;

/// A node's clocks: the monotonic one is true, the wall clock drifts and jumps.
#[derive(Clone, Debug)]
pub struct Clock {
    /// How far the wall clock is ahead of the truth, in milliseconds.
    pub offset_ms: i64,
    /// How far a jump has brought it beyond that, in milliseconds.
    pub jumped_ms: i64,
    /// How much faster it runs, in millionths.
    pub drift_ppm: i64,
}

impl Clock {
    /// What the node reads at true time `now`.
    #[must_use]
    pub fn read(&self, now: u64) -> Now {
        let elapsed_ms = (now / MS) as i64;
        let drifted = elapsed_ms + elapsed_ms * self.drift_ppm / 1_000_000;
        let wall = (EPOCH_MS + drifted + self.offset_ms + self.jumped_ms).max(0) as u64;
        Now { mono: Instant(now), wall: WallMillis(wall) }
    }
}

/// The wall time that a true clock would show, in milliseconds.
#[must_use]
pub const fn true_wall(now: u64) -> u64 {
    EPOCH_MS as u64 + now / MS
}
