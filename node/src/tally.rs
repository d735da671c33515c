//! The tally: how many keys this core keeps, counted slot by slot in the background.
//!
//! A write does not read before it writes, so nobody can know as it is applied whether it made a key,
//! replaced one or removed one. A slot that was written to is therefore counted anew later, a little
//! at a time: DBSIZE's notion of a key (live by now, whatever was written how often), at the price of
//! a figure that is as old as the oldest write not yet counted. Promises: a request never waits for a
//! count; nothing is read while nothing changes; the age that is told is never too small.

mod minima;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use replication::Record;
use replication::row::{self, Keyspace, Row};
use ring::{Now, SLOTS, Slot, WallMillis};

use minima::Minima;

/// Live keys, and those of them with an expiry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Live keys.
    pub live: u64,
    /// Those of them that will expire.
    pub expiring: u64,
}

/// What a core keeps, by keyspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Keyspaces without keys are absent.
    pub keyspaces: BTreeMap<Keyspace, Keys>,
    /// How old that may be at most; `None` before everything was counted once.
    pub age: Option<Duration>,
}

impl Counted {
    /// Adds what another core keeps.
    pub fn add(&mut self, other: &Self) {
        for (keyspace, keys) in &other.keyspaces {
            let mine = self.keyspaces.entry(*keyspace).or_default();
            mine.live += keys.live;
            mine.expiring += keys.expiring;
        }
        self.age = self.age.zip(other.age).map(|(a, b)| a.max(b));
    }

    /// Live keys of all keyspaces; `None` before everything was counted once.
    #[must_use]
    pub fn live(&self) -> Option<u64> {
        self.age.map(|_| self.keyspaces.values().map(|keys| keys.live).sum())
    }
}

/// What was found in a slot.
#[derive(Debug, Default)]
struct Of {
    keyspaces: Vec<(Keyspace, Keys)>,
    /// When the first of its keys expires.
    next_expiry: Option<WallMillis>,
}

/// Slots in a row that are being counted.
struct Walk {
    /// The one that is.
    at: usize,
    last: usize,
    /// How old the count would be already.
    since: ring::Instant,
    from: Row,
    of: Of,
}

/// The tally of one core.
pub struct Tally {
    /// What each slot held when it was counted last, and all of them together.
    slots: Vec<Vec<(Keyspace, Keys)>>,
    all: BTreeMap<Keyspace, Keys>,
    /// When the first key of a slot expires.
    expiries: Minima<WallMillis>,
    /// Since when a slot has not been counted.
    stale: Minima<ring::Instant>,
    stale_count: usize,
    walk: Option<Walk>,
    /// Where to look for the next stale slot.
    next: usize,
    /// Slots that were never counted.
    unknown: usize,
}

/// What finding a slot costs, in bytes read: so empty slots are not free.
const SLOT_COST: u32 = 256;

/// So many slots that lie side by side are looked for at once: where they hold little, finding a slot is the work.
const SLOTS_AT_ONCE: usize = 64;

impl Tally {
    /// Knows nothing yet of `slots`, which are to be counted; the others hold nothing.
    #[must_use]
    pub fn new(now: ring::Instant, slots: impl Iterator<Item = Slot>) -> Self {
        let count = usize::from(SLOTS);
        let mut stale = Minima::new(count);
        let mut unknown = 0;
        for slot in slots {
            stale.set(usize::from(slot.0), Some(now));
            unknown += 1;
        }
        Self {
            slots: vec![Vec::new(); count],
            all: BTreeMap::new(),
            expiries: Minima::new(count),
            stale,
            stale_count: unknown,
            walk: None,
            next: 0,
            unknown,
        }
    }

    /// A row is written to.
    pub fn touched(&mut self, row: &[u8], now: ring::Instant) {
        if let Some(slot) = row::slot_of(row)
            && !row::is_clock(row)
        {
            self.mark(usize::from(slot.0), now);
        }
    }

    fn mark(&mut self, slot: usize, now: ring::Instant) {
        // Whoever could not be counted may be marked with a time before that of a later write.
        let known = self.stale.get(slot);
        if known.is_none_or(|since| now < since) {
            self.stale.set(slot, Some(now));
        }
        self.stale_count += usize::from(known.is_none());
    }

    /// Keys whose time is over count no more.
    pub fn expire(&mut self, now: Now) {
        while let Some(slot) = self.expiries.first_up_to(now.wall) {
            self.expiries.set(slot, None);
            self.mark(slot, now.mono);
        }
    }

    /// True if a step would do something.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.walk.is_some() || self.stale_count > 0
    }

    /// Counts on, reading about `bytes`. `read` gives rows of all slots between two, from a row on, about so
    /// many bytes of them, and where to go on, empty if that was all.
    ///
    /// # Errors
    /// What `read` says; what it was to read is to be counted as before.
    pub fn step<E>(
        &mut self,
        now: Now,
        bytes: u32,
        mut read: impl FnMut(Slot, Slot, &[u8], u32) -> Result<(Vec<(Row, Bytes)>, Row), E>,
    ) -> Result<(), E> {
        let mut left = i64::from(bytes);
        while left > 0 {
            let Some(mut walk) = self.walk.take().or_else(|| self.begin()) else { return Ok(()) };
            let (at, last) = (Slot(walk.at as u16), Slot(walk.last as u16));
            let (rows, next) = match read(at, last, &walk.from, left as u32) {
                Ok(found) => found,
                Err(error) => {
                    (walk.at..=walk.last).for_each(|slot| self.mark(slot, walk.since));
                    return Err(error);
                }
            };
            let begun_at = walk.at;
            for (row, record) in &rows {
                left -= (row.len() + record.len()) as i64;
                self.go_to(&mut walk, row);
                walk.of.count(row, record, now.wall);
            }
            if next.is_empty() {
                while walk.at <= walk.last {
                    self.finish(&mut walk);
                }
            } else {
                self.go_to(&mut walk, &next);
            }
            left -= (walk.at - begun_at) as i64 * i64::from(SLOT_COST);
            if !next.is_empty() {
                self.walk = Some(Walk { from: next, ..walk });
            }
        }
        Ok(())
    }

    /// Slots before that of `row` are counted.
    fn go_to(&mut self, walk: &mut Walk, row: &[u8]) {
        let slot = row::slot_of(row).map_or(walk.at, |slot| usize::from(slot.0));
        while walk.at < slot.min(walk.last) {
            self.finish(walk);
        }
    }

    fn finish(&mut self, walk: &mut Walk) {
        let Of { keyspaces, next_expiry } = std::mem::take(&mut walk.of);
        for (keyspace, keys) in &keyspaces {
            let sum = self.all.entry(*keyspace).or_default();
            sum.live += keys.live;
            sum.expiring += keys.expiring;
        }
        for (keyspace, keys) in std::mem::replace(&mut self.slots[walk.at], keyspaces) {
            let sum = self.all.entry(keyspace).or_default();
            sum.live -= keys.live;
            sum.expiring -= keys.expiring;
            if *sum == Keys::default() {
                self.all.remove(&keyspace);
            }
        }
        self.expiries.set(walk.at, next_expiry);
        self.unknown = self.unknown.saturating_sub(1);
        walk.at += 1;
    }

    /// Begins with the next slots that have not been counted.
    fn begin(&mut self) -> Option<Walk> {
        if self.stale_count == 0 {
            return None;
        }
        let count = self.stale.len();
        let at = self.stale.next(self.next)?;
        let since = self.stale.get(at)?;
        let mut walk = Walk { at, last: at, since, from: Row::new(), of: Of::default() };
        let end = count.min(at + SLOTS_AT_ONCE);
        for slot in at..end {
            // Written to from here on, it is stale again.
            let Some(since) = self.stale.set(slot, None) else { break };
            walk.last = slot;
            walk.since = walk.since.min(since);
            self.stale_count -= 1;
        }
        self.next = (walk.last + 1) % count;
        Some(walk)
    }

    /// What was counted, and how old that is.
    #[must_use]
    pub fn counted(&self, now: ring::Instant) -> Counted {
        let oldest = self.stale.min().into_iter().chain(self.walk.iter().map(|w| w.since)).min();
        let age = oldest.map_or(Duration::ZERO, |since| now.since(since));
        Counted { keyspaces: self.all.clone(), age: (self.unknown == 0).then_some(age) }
    }
}

impl Of {
    fn count(&mut self, row: &[u8], record: &[u8], now: WallMillis) {
        let Some(keyspace) = row::keyspace_of(row).filter(|k| *k != row::META) else { return };
        // What cannot be read is no key that DBSIZE counts either.
        let Some(record) = Record::decode(record) else { return };
        let view = record.view(now);
        if !view.exists() {
            return;
        }
        if self.keyspaces.last().is_none_or(|(k, _)| *k != keyspace) {
            self.keyspaces.push((keyspace, Keys::default()));
        }
        let (_, keys) = self.keyspaces.last_mut().expect("it was just put there");
        keys.live += 1;
        if let Some(deadline) = view.deadline {
            keys.expiring += 1;
            self.next_expiry = Some(self.next_expiry.map_or(deadline, |at| at.min(deadline)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use replication::fold::Patch;
    use replication::record::{Expiry, Value};
    use replication::{Dot, fold};
    use ring::{Actor, Hlc, Instant};
    use std::collections::BTreeSet;

    fn now(ms: u64) -> Now {
        Now { mono: Instant(ms * 1_000_000), wall: WallMillis(ms) }
    }

    /// Rows as an engine keeps them, and a tally beside them.
    struct Story {
        rows: BTreeMap<Row, Bytes>,
        tally: Tally,
        reads: usize,
        seq: u64,
    }

    impl Story {
        fn new() -> Self {
            let tally = Tally::new(Instant(0), Slot::all());
            Self { rows: BTreeMap::new(), tally, reads: 0, seq: 0 }
        }

        fn set(&mut self, at: u64, keyspace: Keyspace, key: &[u8], expiry: Option<u64>) {
            self.seq += 1;
            let (dot, hlc) = (Dot::new(Actor::new(1, 1), self.seq), Hlc::new(WallMillis(at), 0));
            let mut record = Record::default();
            record.values.push(Value { dot, hlc, bytes: b"v" });
            if let Some(deadline) = expiry {
                record.expiries.push(Expiry { dot, hlc, deadline: WallMillis(deadline) });
            }
            let row = row::of_key(keyspace, key);
            self.tally.touched(&row, now(at).mono);
            self.rows.insert(row, record.to_bytes());
        }

        fn delete(&mut self, at: u64, key: &[u8]) {
            let row = row::of_key(0, key);
            self.tally.touched(&row, now(at).mono);
            self.rows.remove(&row);
        }

        fn step(&mut self, at: u64, bytes: u32) {
            let (rows, reads) = (&self.rows, &mut self.reads);
            let read = |first: Slot, last: Slot, from: &[u8], bytes: u32| -> Result<_, ()> {
                *reads += 1;
                let (first, end) = (row::range_of_slot(first).0, row::range_of_slot(last).1);
                let start = if from.is_empty() { &first[..] } else { from };
                let (mut found, mut sum) = (Vec::new(), 0);
                for (row, record) in rows.range(Row::copy_from_slice(start)..Row::from(end)) {
                    if sum >= bytes as usize {
                        return Ok((found, row.clone()));
                    }
                    sum += row.len() + record.len();
                    found.push((row.clone(), record.clone()));
                }
                Ok((found, Row::new()))
            };
            self.tally.step(now(at), bytes, read).expect("it reads");
        }

        fn count_all(&mut self, at: u64) -> Counted {
            self.tally.expire(now(at));
            while self.tally.has_work() {
                self.step(at, 1 << 20);
            }
            self.tally.counted(now(at).mono)
        }
    }

    #[test]
    fn keys_are_counted_not_writes() {
        let mut story = Story::new();
        for _ in 0..5 {
            story.set(1, 0, b"a", None);
            story.set(1, 0, b"b", None);
            story.set(1, 3, b"a", None);
        }
        assert_eq!(story.tally.counted(now(2).mono).live(), None, "not known before it is counted");
        let counted = story.count_all(2);
        assert_eq!((counted.live(), counted.age), (Some(3), Some(Duration::ZERO)));
        assert_eq!(counted.keyspaces[&3], Keys { live: 1, expiring: 0 });
        story.delete(3, b"a");
        story.set(3, 0, b"b", None);
        assert_eq!(story.count_all(4).live(), Some(2));
    }

    #[test]
    fn what_has_expired_counts_no_more_though_nobody_wrote() {
        let mut story = Story::new();
        story.set(1, 0, b"a", Some(100));
        story.set(1, 0, b"b", None);
        assert_eq!(story.count_all(2).keyspaces[&0], Keys { live: 2, expiring: 1 });
        assert_eq!(story.count_all(99).live(), Some(2));
        assert_eq!(story.count_all(100).keyspaces[&0], Keys { live: 1, expiring: 0 });
    }

    #[test]
    fn nothing_is_read_while_nothing_changes_and_only_what_changed_then() {
        let mut story = Story::new();
        story.set(1, 0, b"a", None);
        story.count_all(1);
        let before = story.reads;
        story.count_all(50);
        assert_eq!(story.reads, before);
        story.set(60, 0, b"a", None);
        story.count_all(61);
        assert_eq!(story.reads, before + 1);
    }

    #[test]
    fn slots_that_lie_side_by_side_are_read_together_and_counted_each_for_itself() {
        let mut story = Story::new();
        story.count_all(0);
        let before = story.reads;
        for i in 0..3_000 {
            story.set(1, 0, format!("k{i}").as_bytes(), None);
        }
        let touched: BTreeSet<_> = story.rows.keys().filter_map(|row| row::slot_of(row)).collect();
        // Between two slots, and no key though it were read as one.
        let like_a_key = story.rows.values().next().cloned().expect("there are rows");
        for slot in &touched {
            story.rows.insert(row::of_clock(*slot), like_a_key.clone());
        }
        // In steps that end within a slot as well as between two.
        while story.tally.has_work() {
            story.step(2, 777);
        }
        assert_eq!(story.tally.counted(now(2).mono).live(), Some(3_000));
        story.count_all(2);
        assert!(story.reads - before < touched.len(), "{} reads", story.reads - before);
        for slot in touched {
            let (first, end) = row::range_of_slot(slot);
            let rows = story.rows.range(Row::from(first)..Row::from(end)).count() as u64;
            let live = story.tally.slots[usize::from(slot.0)][0].1.live;
            assert_eq!(live, rows, "{slot:?}");
        }
    }

    #[test]
    fn the_sum_is_what_counting_anew_gives_whatever_comes_and_goes() {
        let mut story = Story::new();
        for at in 1..60_u64 {
            for i in 0..7 {
                let key = format!("k{}", (at * 31 + i * 17) % 40);
                match (at + i) % 4 {
                    0 => story.delete(at, key.as_bytes()),
                    1 => story.set(at, 3, key.as_bytes(), Some(at + 20)),
                    _ => story.set(at, 0, key.as_bytes(), None),
                }
            }
            if at % 9 == 0 {
                // A walk that fails half-way.
                story.step(at, 300);
                let bad = |_, _, _: &[u8], _| Err::<(Vec<_>, Row), _>("bad");
                let _ = story.tally.step(now(at), 300, bad);
            }
            let counted = story.count_all(at);
            story.tally = Tally::new(Instant(0), Slot::all());
            assert_eq!(story.count_all(at).keyspaces, counted.keyspaces, "at {at}");
        }
    }

    #[test]
    fn slots_that_could_not_be_read_are_read_again() {
        let mut story = Story::new();
        story.set(1, 0, b"a", None);
        let failed =
            story.tally.step(now(2), 1 << 20, |_, _, _: &[u8], _| Err::<(Vec<_>, Row), _>("bad"));
        assert_eq!(failed, Err("bad"));
        assert_eq!(story.tally.stale_count, usize::from(SLOTS));
        assert_eq!(story.count_all(3).live(), Some(1));
        // Half counted, written to once more, and then not to be read.
        (0..100).for_each(|i| story.set(10, 0, format!("{{t}}{i}").as_bytes(), None));
        story.step(20, 500);
        story.set(30, 0, b"{t}0", None);
        let failed =
            story.tally.step(now(35), 500, |_, _, _: &[u8], _| Err::<(Vec<_>, Row), _>("bad"));
        assert_eq!(failed, Err("bad"));
        let age = story.tally.counted(now(40).mono).age;
        assert_eq!(age, Some(Duration::from_millis(30)), "since the first write, not the last");
    }

    #[test]
    fn a_step_reads_no_more_than_it_may_and_the_age_is_that_of_the_oldest_write_not_counted() {
        let mut story = Story::new();
        story.count_all(0);
        for i in 0..1_000 {
            story.set(10, 0, format!("{{t}}{i}").as_bytes(), None);
        }
        let reads = story.reads;
        story.step(20, 1_000);
        assert!(story.tally.has_work() && story.reads == reads + 1);
        // Written to while it is counted: it is stale once more, since then.
        story.set(30, 0, b"{t}0", None);
        let counted = story.tally.counted(now(35).mono);
        assert_eq!((counted.live(), counted.age), (Some(0), Some(Duration::from_millis(25))));
        while story.tally.has_work() {
            story.step(36, 1_000);
        }
        let counted = story.tally.counted(now(40).mono);
        assert_eq!((counted.live(), counted.age), (Some(1_000), Some(Duration::ZERO)));
    }

    #[test]
    fn a_record_without_anything_live_is_no_key() {
        let mut story = Story::new();
        let row = row::of_key(0, b"gone");
        let mut out = Vec::new();
        fold::fold(
            Some(&Record::default().to_bytes()),
            [&Patch::default().to_operand()[..]],
            &mut out,
        );
        story.rows.insert(row, out.into());
        assert_eq!(story.count_all(1).live(), Some(0));
    }
}
