//! The clock: the only place that asks what time it is.
//!
//! Instants count from the start of the process; the wall clock is read beside them.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ring::{Now, WallMillis};

static START: OnceLock<Instant> = OnceLock::new();

fn start() -> Instant {
    *START.get_or_init(Instant::now)
}

/// Both clocks, now.
#[must_use]
pub fn now() -> Now {
    Now { mono: mono(), wall: wall() }
}

/// Time since the start of the process.
#[must_use]
pub fn mono() -> ring::Instant {
    let since = start().elapsed();
    ring::Instant(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Milliseconds since 1970, as the machine's clock tells them.
#[must_use]
pub fn wall() -> WallMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    WallMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The point of the runtime's timers that is `at` on our clock.
#[must_use]
pub fn to_std(at: ring::Instant) -> Instant {
    start() + Duration::from_nanos(at.0)
}

/// A seed that differs from start to start.
#[must_use]
pub fn seed() -> u64 {
    rand::random()
}
