//! Throttle: writers that are faster than the background work give way evenly, long before they would
//! have to stand still.
//!
//! Promise: nobody is held who writes while nothing is behind, and nobody for longer than
//! [`Brake::DELAY_MAX_US`] after one write. A hold comes after the write, when it has returned to its
//! own thread: no lock is held meanwhile, and nobody else waits for it.

use crate::compaction::pace::{Brake, Debt};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, lock};
use std::time::{Duration, Instant};

/// What a [`crate::Store`] knows of time.
pub trait Time: Send + Sync {
    /// Microseconds since some moment; never less than before.
    fn now_us(&self) -> u64;
    /// Returns when so many microseconds have passed.
    fn wait_us(&self, us: u64);
}

/// The system's.
pub(super) struct SystemTime(Instant);

impl SystemTime {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }
}

impl Time for SystemTime {
    fn now_us(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn wait_us(&self, us: u64) {
        std::thread::sleep(Duration::from_micros(us));
    }
}

/// A shorter hold is made up for with a later write: to be woken takes a good part of it.
const HOLD_MIN_US: u64 = 1000;

/// Holds the writers of a shard.
#[derive(Default)]
pub(super) struct Throttle {
    /// The bits of the debt; 0 without.
    debt: AtomicU64,
    brake: Mutex<Brake>,
}

impl Throttle {
    /// So far is the work behind now.
    pub(super) fn note(&self, debt: Debt) {
        // One memtable of room is all there is between the first hold and standing still. A burst may
        // fill a good part of it, but a disk that is slow must be given way to before it is full.
        let memtables = 1.0 - (1.0 - debt.memtables) * (1.0 - debt.memtables.powi(3));
        let debt = Debt { memtables, ..debt }.worst();
        self.debt.store(debt.max(0.0).to_bits(), Ordering::Relaxed);
    }

    /// The debt, if there is any.
    pub(super) fn debt(&self) -> Option<f64> {
        let debt = f64::from_bits(self.debt.load(Ordering::Relaxed));
        (debt > 0.0).then_some(debt)
    }

    /// The caller has written `bytes`: holds it for as long as `debt` asks for.
    #[cold]
    pub(super) fn hold(&self, debt: f64, time: &dyn Time, bytes: usize) {
        let us = lock(&self.brake).hold(time.now_us(), debt, bytes as u64);
        if us >= HOLD_MIN_US {
            time.wait_us(us);
        }
    }
}
