//! Slow log: commands that took longer than a threshold, the latest of them, for SLOWLOG; and a line in
//! the log for them, at most one a second.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use commands::{Slow, SlowLine};
use ring::{Instant, Now};
use tracing::warn;

/// Lines in the log are so far apart.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Entries that are kept unless configured otherwise; as many as Redis keeps.
const KEPT: usize = 128;

/// Entries that may be kept.
const KEPT_MAX: usize = 10_000;

/// The slow commands of a node.
#[derive(Debug)]
pub struct SlowLog {
    threshold_us: AtomicU64,
    keeps: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    lines: VecDeque<SlowLine>,
    next_id: u64,
    told: Option<Instant>,
    untold: u64,
}

impl SlowLog {
    /// An empty one. Commands that take `threshold_us` or longer are slow; `u64::MAX`: none.
    #[must_use]
    pub fn new(threshold_us: u64) -> Self {
        Self {
            threshold_us: AtomicU64::new(threshold_us),
            keeps: AtomicUsize::new(KEPT),
            inner: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From when on a command is slow, in microseconds.
    #[must_use]
    pub fn threshold_us(&self) -> u64 {
        self.threshold_us.load(Ordering::Relaxed)
    }

    /// Changes that.
    pub fn set_threshold_us(&self, us: u64) {
        self.threshold_us.store(us, Ordering::Relaxed);
    }

    /// How many are kept.
    #[must_use]
    pub fn keeps(&self) -> usize {
        self.keeps.load(Ordering::Relaxed)
    }

    /// Changes that.
    pub fn set_keeps(&self, keeps: usize) {
        let keeps = keeps.min(KEPT_MAX);
        self.keeps.store(keeps, Ordering::Relaxed);
        self.lock().lines.truncate(keeps);
    }

    /// A command was slow.
    pub fn add(&self, now: Now, slow: Slow, address: String) {
        let mut inner = self.lock();
        let due = inner.told.is_none_or(|at| now.mono.since(at) >= TOLD_EVERY);
        if due {
            inner.told = Some(now.mono);
            let others = std::mem::take(&mut inner.untold);
            let key = slow.key.as_ref().map(|key| String::from_utf8_lossy(key).into_owned());
            let Slow { command, micros, user, .. } = &slow;
            warn!(command, key, micros, user, address, others, "a slow command");
        } else {
            inner.untold += 1;
        }
        let id = inner.next_id;
        inner.next_id += 1;
        inner.lines.push_front(SlowLine { id, unix_s: now.wall.0 / 1_000, address, slow });
        inner.lines.truncate(self.keeps());
    }

    /// How many there have been.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.lock().next_id
    }

    /// The latest, the latest first.
    #[must_use]
    pub fn lines(&self) -> Vec<SlowLine> {
        self.lock().lines.iter().cloned().collect()
    }

    /// Forgets them.
    pub fn clear(&self) {
        self.lock().lines.clear();
    }
}
