//! Hot: which keys are asked for most, from a sample of the requests.
//!
//! One request in sixteen is looked at; a core keeps at most 128 keys, and a key that is new takes the
//! place of the one that was seen least, with its count as the possible error (the scheme of Metwally,
//! Agrawal and Abbadi, "Efficient computation of frequent and top-k elements", 2005). So whatever has
//! more than a 128th of a core's requests is in the list, and no count is too small. What was seen
//! fades: windows of half a minute, of which the last two count. Nothing of this is in the metrics.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use replication::Request;
use replication::row::{self, Row};
use ring::Instant;
use wire::operate::{HotKey, HotKeys};

/// One request in so many is looked at.
pub const ONE_IN: u32 = 16;

/// Keys of a core that are counted at a time.
const KEYS_MAX: usize = 128;

/// How long a window is.
const WINDOW: Duration = Duration::from_secs(30);

/// The keys that an answer names at most.
const TOLD_MAX: usize = 100;

/// The busiest keys of one core.
#[derive(Debug, Default)]
pub struct Hot {
    asked: AtomicU32,
    windows: Mutex<Windows>,
}

#[derive(Debug, Default)]
struct Windows {
    since: Option<Instant>,
    now: Window,
    before: Window,
    /// How long the one before was.
    before_took: Duration,
}

#[derive(Clone, Debug, Default)]
struct Window {
    samples: u64,
    keys: Vec<Seen>,
}

#[derive(Clone, Debug)]
struct Seen {
    row: Row,
    samples: u64,
    writes: u64,
    error: u64,
}

impl Window {
    fn see(&mut self, row: &Row, is_write: bool) {
        self.samples += 1;
        let write = u64::from(is_write);
        if let Some(seen) = self.keys.iter_mut().find(|seen| seen.row == *row) {
            seen.samples += 1;
            seen.writes += write;
            return;
        }
        // A row may be a piece of something larger that would live as long as it.
        let row = Bytes::copy_from_slice(row);
        if self.keys.len() < KEYS_MAX {
            return self.keys.push(Seen { row, samples: 1, writes: write, error: 0 });
        }
        let least = self.keys.iter_mut().min_by_key(|seen| seen.samples);
        let least = least.expect("there are as many keys as may be");
        let error = least.samples;
        *least = Seen { row, samples: error + 1, writes: write, error };
    }
}

impl Hot {
    /// A request goes to a machine.
    pub fn see(&self, request: &Request, now: Instant) {
        // Only its own core counts here: the order does not matter.
        let asked = self.asked.load(Ordering::Relaxed).wrapping_add(1);
        self.asked.store(asked, Ordering::Relaxed);
        if !asked.is_multiple_of(ONE_IN) {
            return;
        }
        let task = match request {
            Request::Task(task) => task,
            // The client has asked others for theirs: it is one read.
            Request::Share(share) if share.whole => return self.sample(&share.row, false, now),
            _ => return,
        };
        // Of several keys one: which of them differs from sample to sample.
        let turn = (asked / ONE_IN) as usize % task.ops.len().max(1);
        let Some((row, op)) = task.ops.get(turn) else { return };
        self.sample(row, !op.is_read(), now);
    }

    fn sample(&self, row: &Row, writes: bool, now: Instant) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.turn(now);
        windows.now.see(row, writes);
    }

    fn read(&self, now: Instant) -> (Duration, Window) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.turn(now);
        let mut all = windows.before.clone();
        all.samples += windows.now.samples;
        all.keys.extend(windows.now.keys.iter().cloned());
        (windows.before_took + windows.since.map_or(Duration::ZERO, |at| now.since(at)), all)
    }
}

impl Windows {
    fn turn(&mut self, now: Instant) {
        let took = now.since(*self.since.get_or_insert(now));
        if took < WINDOW {
            return;
        }
        // After a silence of two windows nothing of before counts any more.
        let before = std::mem::take(&mut self.now);
        let recent = took < 2 * WINDOW;
        self.before_took = if recent { took } else { WINDOW };
        self.before = if recent { before } else { Window::default() };
        self.since = Some(now);
    }
}

/// The busiest keys of all cores.
#[must_use]
pub fn of_all(cores: &[Hot], now: Instant) -> HotKeys {
    let (window, samples) = (Cell::new(Duration::ZERO), Cell::new(0));
    let mut sums: BTreeMap<Row, HotKey> = BTreeMap::new();
    for hot in cores {
        let (took, seen) = hot.read(now);
        window.set(window.get().max(took));
        samples.set(samples.get() + seen.samples);
        for seen in seen.keys {
            let sum = sums.entry(seen.row).or_default();
            sum.samples += seen.samples;
            sum.writes += seen.writes;
            sum.error += seen.error;
        }
    }
    let named = sums.into_iter().filter_map(|(row, sum)| {
        let (keyspace, key) = (row::keyspace_of(&row)?, row::key_of(&row)?.into());
        Some(HotKey { keyspace, key, ..sum })
    });
    let mut keys: Vec<HotKey> = named.collect();
    keys.sort_by_key(|key| std::cmp::Reverse(key.samples - key.error.min(key.samples)));
    keys.truncate(TOLD_MAX);
    let window_ms = u64::try_from(window.get().as_millis()).unwrap_or(u64::MAX);
    HotKeys { window_ms, one_in: ONE_IN, samples: samples.get(), keys }
}

#[cfg(test)]
mod tests {
    use replication::{Op, Task};
    use ring::Slot;

    use super::*;

    fn read(key: &[u8]) -> Request {
        Request::Task(Task::one(Slot::of_key(key), 0, row::of_key(0, key), Op::Read))
    }

    fn at(s: u64) -> Instant {
        Instant(s * 1_000_000_000)
    }

    #[test]
    fn a_busy_key_is_found_among_many_that_are_not() {
        let hot = [Hot::default(), Hot::default()];
        for i in 0..64_000_u32 {
            let busy = (i / ONE_IN).is_multiple_of(4);
            let key = if busy { "busy".to_owned() } else { format!("k{i}") };
            hot[(i / ONE_IN % 2) as usize].see(&read(key.as_bytes()), at(1));
        }
        let told = of_all(&hot, at(2));
        assert_eq!((&told.keys[0].key[..], told.keys.len()), (&b"busy"[..], TOLD_MAX));
        let busy = &told.keys[0];
        assert!(told.samples > 3_900 && busy.samples >= 900 && busy.error == 0, "{told:?}");
        // Whatever is no hot key says by itself how little its count is worth.
        assert!(told.keys[1].samples - told.keys[1].error <= 2, "{:?}", told.keys[1]);
    }

    #[test]
    fn what_was_busy_a_while_ago_fades() {
        let hot = [Hot::default()];
        let ask = |key: &[u8], s| (0..160).for_each(|_| hot[0].see(&read(key), at(s)));
        ask(b"then", 0);
        assert_eq!(of_all(&hot, at(29)).keys[0].samples, 10);
        ask(b"now", 31);
        let told = of_all(&hot, at(40));
        assert_eq!((told.keys.len(), told.window_ms), (2, 40_000));
        let told = of_all(&hot, at(62));
        assert_eq!((told.keys.len(), &told.keys[0].key[..]), (1, &b"now"[..]));
        assert_eq!(of_all(&hot, at(200)).keys.len(), 0);
    }
}
