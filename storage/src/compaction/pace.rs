//! How fast: a limit on the bytes of background work, and how long a writer should wait.
//!
//! Pure machines. They are told the time and say how long to wait; whoever asks does the waiting.

/// A limit in bytes a second.
///
/// Work is noted after it is done and paid for afterwards, so a piece of any size goes through and
/// the mean holds. Idle time is saved up for at most [`Pace::BURST_US`].
#[derive(Debug, Clone)]
pub struct Pace {
    bytes_per_second: u64,
    /// When all that was noted is paid for, in microseconds.
    paid_us: u64,
}

impl Pace {
    /// Idle time that counts as saved up, in microseconds.
    pub const BURST_US: u64 = 100_000;

    /// At most so many bytes a second; 0: no limit.
    #[must_use]
    pub const fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, paid_us: 0 }
    }

    /// From now on another limit.
    pub const fn set(&mut self, bytes_per_second: u64) {
        self.bytes_per_second = bytes_per_second;
    }

    /// `bytes` were worked on before `now_us`; how long to wait before the next piece, in
    /// microseconds.
    pub fn note(&mut self, now_us: u64, bytes: u64) -> u64 {
        if self.bytes_per_second == 0 {
            return 0;
        }
        let start = self.paid_us.max(now_us.saturating_sub(Self::BURST_US));
        let cost = u128::from(bytes) * 1_000_000 / u128::from(self.bytes_per_second);
        self.paid_us = start.saturating_add(u64::try_from(cost).unwrap_or(u64::MAX));
        self.paid_us.saturating_sub(now_us)
    }
}

/// How far background work is behind, each part from 0 (none) to 1 (as far as it may).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Debt {
    /// Memtables that wait for their flush.
    pub memtables: f64,
    /// Tables of level 0 that a reader has to look at.
    pub level0: f64,
    /// Bytes that compactions have to move.
    pub pending: f64,
}

impl Debt {
    /// The worst of them: what a writer goes by.
    #[must_use]
    pub fn worst(&self) -> f64 {
        self.memtables.max(self.level0).max(self.pending)
    }
}

/// Where `x` stands between `free` and `full`.
pub(crate) fn share(x: f64, free: f64, full: f64) -> f64 {
    ((x - free) / (full - free)).clamp(0.0, 1.0)
}

/// Turns debt into delay, so that a writer gives way evenly: the more debt, the fewer bytes a second
/// it is let through, and somewhere on the way down that is what background work can follow.
#[derive(Debug, Clone, Default)]
pub struct Brake {
    /// When all that was written is let through, in nanoseconds: a small write costs less than a
    /// microsecond, and that counts too.
    free_ns: u64,
}

impl Brake {
    /// No write is held for longer, in microseconds.
    pub const DELAY_MAX_US: u64 = 20_000;
    /// Bytes a second at a debt of a half; a quarter of the debt lets six times as many through.
    const HALFWAY: f64 = 16.0 * 1024.0 * 1024.0;

    /// The writer has written `bytes` at `now_us` while the debt is `debt`; how long to hold the
    /// acknowledgement (or the next write), in microseconds: 0 without debt, and never more than
    /// [`Brake::DELAY_MAX_US`].
    pub fn hold(&mut self, now_us: u64, debt: f64, bytes: u64) -> u64 {
        // However slow the work behind is: somewhere below all that is slower still.
        let debt = debt.clamp(0.0, 0.9999);
        // 0 without debt, 1 halfway, 20,000 when all is over.
        let weight = 2.0 * debt * debt / (1.0 - debt);
        let cost_ns = weight * bytes as f64 * 1e9 / Self::HALFWAY;
        let now_ns = now_us.saturating_mul(1000);
        let latest = now_ns.saturating_add(Self::DELAY_MAX_US * 1000);
        self.free_ns = self.free_ns.max(now_ns).saturating_add(cost_ns as u64).min(latest);
        (self.free_ns - now_ns) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_keeps_to_the_limit_and_idle_time_is_saved_up_for_a_moment_only() {
        let mut pace = Pace::new(1_000_000);
        let mut now = 5_000_000;
        let start = now;
        for _ in 0..1000 {
            now += 100 + pace.note(now, 10_000);
        }
        let spent = now - start;
        assert!((9_800_000..10_100_000).contains(&spent), "{spent} us for 10 MB");
        now += 3_600_000_000;
        assert_eq!(pace.note(now, 100_000), 0, "a tenth of a second is saved up");
        assert_eq!(pace.note(now, 100_000), 100_000, "not the whole hour");
        assert_eq!(Pace::new(0).note(now, u64::MAX), 0);
    }

    #[test]
    fn a_brake_holds_more_the_more_debt_there_is_and_never_long() {
        let held = |debt: f64| {
            let mut brake = Brake::default();
            let mut now = 0;
            for _ in 0..1000 {
                now += brake.hold(now, debt, 1000);
            }
            now
        };
        assert_eq!(held(0.0), 0);
        let all: Vec<u64> = (1..10).map(|i| held(f64::from(i) / 10.0)).collect();
        assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
        let halfway = held(0.5) as f64;
        let bytes_per_second = 1e12 / halfway;
        assert!((bytes_per_second / Brake::HALFWAY - 1.0).abs() < 0.1, "{bytes_per_second}");
        let mut brake = Brake::default();
        assert_eq!(brake.hold(7, 5.0, u64::MAX), Brake::DELAY_MAX_US);
    }

    #[test]
    fn a_writer_and_a_slower_worker_find_an_even_pace() {
        // Debt grows by what is written and shrinks by what is worked off: 4 MB a second.
        let (mut brake, mut now, mut behind, mut longest) = (Brake::default(), 0u64, 0.0f64, 0);
        let mut debts = Vec::new();
        for turn in 0..200_000 {
            let held = brake.hold(now, share(behind, 10e6, 100e6), 2000);
            longest = longest.max(held);
            let took = 20 + held;
            now += took;
            behind = (behind + 2000.0 - took as f64 * 4.0).max(0.0);
            if turn >= 100_000 {
                debts.push(share(behind, 10e6, 100e6));
            }
        }
        let (low, high) = debts.iter().fold((1.0f64, 0.0f64), |(l, h), d| (l.min(*d), h.max(*d)));
        assert!(high < 0.9 && high - low < 0.05, "debt between {low} and {high}");
        assert!(longest < 2_000, "held for {longest} us at most");
    }
}
