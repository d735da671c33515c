//! Budget: how often something may be done beside the requests themselves, as a share of them.
//!
//! Promise: over any stretch of time no more is spent than the share of the requests in it plus the
//! reserve; so a cluster in trouble is not asked many times for each request.

use std::sync::atomic::{AtomicI64, Ordering};

/// Units of a budget, so that a share of a request is a whole number.
const UNIT: i64 = 1000;

/// A share of the requests, with a reserve.
#[derive(Debug)]
pub(crate) struct Budget {
    left: AtomicI64,
    per_request: i64,
    most: i64,
}

impl Budget {
    /// `share` in thousandths of the requests, and a reserve of whole ones, full at first.
    pub(crate) const fn new(share: i64, reserve: i64) -> Self {
        let most = reserve * UNIT;
        Self { left: AtomicI64::new(most), per_request: share, most }
    }

    /// A request was made.
    pub(crate) fn earn(&self) {
        let earned = |left: i64| Some((left + self.per_request).min(self.most));
        // It cannot fail: there is always a next value.
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earned);
    }

    /// Whether there is one.
    pub(crate) fn has(&self) -> bool {
        self.left.load(Ordering::Relaxed) >= UNIT
    }

    /// Takes one, if there is one.
    pub(crate) fn spend(&self) -> bool {
        let spent = |left: i64| (left >= UNIT).then_some(left - UNIT);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spent).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_spent_than_the_share_and_the_reserve() {
        let budget = Budget::new(50, 3);
        let spent = (0..1000)
            .filter(|_| {
                budget.earn();
                budget.spend()
            })
            .count();
        assert!((50..=53).contains(&spent), "{spent} of 1000 at five hundredths");
    }
}
