//! Records: what a replica keeps of one key, and how two of them become one.
//!
//! A record is a small join semilattice: concurrent values (siblings), a dotted expiry beside them,
//! and an exact counter. What a replica has *seen* of the key is its slot clock plus the record's
//! pending discards; a dot that is seen but not live was replaced, never forgotten. An empty record
//! is the same as none.
//!
//! The counter keeps, per actor, the running total of that actor's increments, and for resets the
//! totals that the reset had seen; the value is the sum of the differences, so a reset takes away
//! exactly what it saw and concurrent increments survive exactly. An actor whose part is reset to
//! the last increment, or was dropped, begins a new generation with its next one: what a reset saw
//! of an earlier generation says nothing about this one. Where a record says nothing of a part whose
//! latest increment its holder has seen, that part was dropped, and no older state brings it back.

use bytes::Bytes;
use ring::{Actor, Hlc, WallMillis};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::causality::{Dot, DotSet, decode_actor};
use crate::decimal;
use crate::encoding::{Reader, put_bytes, put_i128, put_varint};

/// The deadline of a key that shall not expire: greater than every other.
pub const NEVER: WallMillis = WallMillis(u64::MAX);

/// One of the concurrent values of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// The write that made it.
    pub dot: Dot,
    /// When, by the writer's hybrid clock.
    pub hlc: Hlc,
    /// The value itself.
    pub bytes: &'a [u8],
}

/// One of the concurrent expiries of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The mutation that made it.
    pub dot: Dot,
    /// When that was.
    pub hlc: Hlc,
    /// When the key vanishes; [`NEVER`] for PERSIST.
    pub deadline: WallMillis,
}

/// One actor's part of a counter, or what a reset has seen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Whose increments.
    pub actor: Actor,
    /// The dot of the first of them since the record was begun.
    pub generation: u64,
    /// The dot of the latest of them.
    pub n: u64,
    /// Their sum, in units of [`crate::decimal`].
    pub total: i128,
    /// When the latest was; of what a reset has seen, when the latest such reset was.
    pub hlc: Hlc,
}

impl Count {
    /// What decides which of two entries of one actor is the newer.
    const fn age(&self) -> (u64, u64) {
        (self.generation, self.n)
    }

    /// The latest increment that it tells of.
    #[must_use]
    pub const fn dot(&self) -> Dot {
        Dot::new(self.actor, self.n)
    }
}

/// Entries of a counter, one an actor, ascending.
pub type Counts = SmallVec<[Count; 0]>;

/// A fingerprint of a record's live dots: equal where, and only where, the state is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Digest(pub u64, pub u64);

/// What a replica keeps of one key. Lists are sorted by dot or actor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record<'a> {
    /// Concurrent values.
    pub values: SmallVec<[Value<'a>; 1]>,
    /// Concurrent expiries.
    pub expiries: SmallVec<[Expiry; 1]>,
    /// The counter.
    pub counts: Counts,
    /// What resets have seen of the counter.
    pub resets: Counts,
    /// Dots of values that are replaced though this replica has not received them.
    pub pending: DotSet,
    /// Dots of expiries that are replaced though this replica has not received them.
    pub pending_expiry: DotSet,
}

const HAS_VALUES: u8 = 1;
const HAS_EXPIRIES: u8 = 2;
const HAS_COUNTS: u8 = 4;
const HAS_RESETS: u8 = 8;
const HAS_PENDING: u8 = 16;
const HAS_PENDING_EXPIRY: u8 = 32;

impl<'a> Record<'a> {
    /// True if it says nothing that the slot clock does not say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
            && self.expiries.is_empty()
            && self.counts.is_empty()
            && self.resets.is_empty()
            && self.pending.is_empty()
            && self.pending_expiry.is_empty()
    }

    /// Appends the encoded form; nothing at all if the record is empty.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if self.is_empty() {
            return;
        }
        let flag = |present: bool, bit: u8| if present { bit } else { 0 };
        out.push(
            flag(!self.values.is_empty(), HAS_VALUES)
                | flag(!self.expiries.is_empty(), HAS_EXPIRIES)
                | flag(!self.counts.is_empty(), HAS_COUNTS)
                | flag(!self.resets.is_empty(), HAS_RESETS)
                | flag(!self.pending.is_empty(), HAS_PENDING)
                | flag(!self.pending_expiry.is_empty(), HAS_PENDING_EXPIRY),
        );
        if !self.values.is_empty() {
            put_varint(out, self.values.len() as u64);
            for v in &self.values {
                v.dot.encode(out);
                out.extend_from_slice(&v.hlc.0.to_le_bytes());
                put_bytes(out, v.bytes);
            }
        }
        if !self.expiries.is_empty() {
            put_varint(out, self.expiries.len() as u64);
            for e in &self.expiries {
                e.dot.encode(out);
                out.extend_from_slice(&e.hlc.0.to_le_bytes());
                put_varint(out, e.deadline.0);
            }
        }
        for counts in [&self.counts, &self.resets] {
            if !counts.is_empty() {
                encode_counts(counts, out);
            }
        }
        for set in [&self.pending, &self.pending_expiry] {
            if !set.is_empty() {
                set.encode(out);
            }
        }
    }

    /// The encoded form.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        self.encode(&mut out);
        Bytes::from(out)
    }

    /// Reads what [`Record::encode`] wrote; `None` if it is malformed.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let mut r = Reader::new(bytes);
        let record = Self::decode_from(&mut r)?;
        r.is_empty().then_some(record)
    }

    /// Reads a record that is not empty from within other bytes.
    pub(crate) fn decode_from(r: &mut Reader<'a>) -> Option<Self> {
        let mut record = Self::default();
        let flags = r.byte()?;
        if flags & HAS_VALUES != 0 {
            for _ in 0..r.count(12)? {
                let (dot, hlc) = (Dot::decode(r)?, decode_hlc(r)?);
                record.values.push(Value { dot, hlc, bytes: r.bytes()? });
            }
        }
        if flags & HAS_EXPIRIES != 0 {
            for _ in 0..r.count(12)? {
                let (dot, hlc) = (Dot::decode(r)?, decode_hlc(r)?);
                record.expiries.push(Expiry { dot, hlc, deadline: WallMillis(r.varint()?) });
            }
        }
        if flags & HAS_COUNTS != 0 {
            record.counts = decode_counts(r)?;
        }
        if flags & HAS_RESETS != 0 {
            record.resets = decode_counts(r)?;
        }
        if flags & HAS_PENDING != 0 {
            record.pending = DotSet::decode(r)?;
        }
        if flags & HAS_PENDING_EXPIRY != 0 {
            record.pending_expiry = DotSet::decode(r)?;
        }
        (flags < 64).then_some(record)
    }

    /// The fingerprint of what is live. Pending discards do not count: they are about what is not
    /// here.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut input = DigestInput::default();
        for v in &self.values {
            input.put(DIGEST_VALUE, v.dot.actor, v.dot.seq, 0);
        }
        for e in &self.expiries {
            input.put(DIGEST_EXPIRY, e.dot.actor, e.dot.seq, 0);
        }
        for c in &self.counts {
            input.put(DIGEST_COUNT, c.actor, c.generation, c.n);
        }
        for c in &self.resets {
            input.put(DIGEST_RESET, c.actor, c.generation, c.n);
        }
        input.finish()
    }

    /// The live dots: those of values and expiries.
    #[must_use]
    pub fn live_dots(&self) -> DotSet {
        self.values.iter().map(|v| v.dot).chain(self.expiries.iter().map(|e| e.dot)).collect()
    }

    /// Adds the live dots to a set.
    pub(crate) fn live_dots_into(&self, set: &mut DotSet) {
        for dot in self.values.iter().map(|v| v.dot).chain(self.expiries.iter().map(|e| e.dot)) {
            if !set.contains(dot) {
                set.insert(dot);
            }
        }
    }

    /// The same record without the bytes of its values: for listings.
    #[must_use]
    pub fn without_payloads(&self) -> Self {
        let mut bare = self.clone();
        for v in &mut bare.values {
            v.bytes = &[];
        }
        bare
    }

    /// Adds a value unless a pending discard has replaced it already.
    pub(crate) fn add_value(&mut self, value: Value<'a>) {
        if self.pending.contains(value.dot) {
            return;
        }
        if let Err(at) = self.values.binary_search_by_key(&value.dot, |v| v.dot) {
            self.values.insert(at, value);
        }
    }

    /// Adds an expiry unless a pending discard has replaced it already.
    pub(crate) fn add_expiry(&mut self, expiry: Expiry) {
        if self.pending_expiry.contains(expiry.dot) {
            return;
        }
        if let Err(at) = self.expiries.binary_search_by_key(&expiry.dot, |e| e.dot) {
            self.expiries.insert(at, expiry);
        }
    }

    /// Learns of an actor's increments.
    pub(crate) fn add_count(&mut self, count: Count) {
        merge_count(&mut self.counts, count);
        self.forget_former_reset(count.actor);
    }

    /// Learns of a reset, which implies the increments that it saw.
    pub(crate) fn add_reset(&mut self, reset: Count) {
        merge_count(&mut self.counts, reset);
        merge_count(&mut self.resets, reset);
        self.forget_former_reset(reset.actor);
    }

    /// A reset of an earlier generation than the count has nothing left to take away: every count
    /// that it speaks of is older than the one that is here.
    fn forget_former_reset(&mut self, actor: Actor) {
        if self.resets.is_empty() {
            return;
        }
        if let Some(count) = count_of(&self.counts, actor).copied() {
            self.resets.retain(|r| r.actor != actor || r.generation >= count.generation);
        }
    }

    /// True if a reset has seen the last increment of `count`.
    fn is_reset(&self, count: &Count) -> bool {
        count_of(&self.resets, count.actor).is_some_and(|r| r.age() >= count.age())
    }

    /// The part of `me` after one more increment, which is the dot `seq`: (generation, total).
    /// `anew` if the same mutation resets the counter. `None` if the running total has no room
    /// left, which only a reset makes.
    #[must_use]
    pub fn counted(&self, me: Actor, seq: u64, by: i128, anew: bool) -> Option<(u64, i128)> {
        match count_of(&self.counts, me).filter(|c| !anew && !self.is_reset(c)) {
            Some(mine) => Some((mine.generation, mine.total.checked_add(by)?)),
            // Wholly reset, or dropped. Elsewhere the reset may be dropped already, so no total that
            // needs it may be minted any more.
            None => Some((seq, by)),
        }
    }

    /// What a reset at `hlc` takes away: all of the counter that is not reset yet.
    #[must_use]
    pub fn reset_at(&self, hlc: Hlc) -> Counts {
        self.counts.iter().filter(|c| !self.is_reset(c)).map(|c| Count { hlc, ..*c }).collect()
    }

    /// The joined state of two replicas. `seen` of each is its slot clock; what it has seen of this
    /// key is that and its pending discards. The result's pending discards are what only one of them
    /// has seen and neither holds.
    #[must_use]
    pub fn join(&self, seen: &DotSet, other: &Self, other_seen: &DotSet) -> Self {
        let mut out = Self {
            pending: self.pending.clone(),
            pending_expiry: self.pending_expiry.clone(),
            ..Self::default()
        };
        out.pending.union(&other.pending);
        out.pending_expiry.union(&other.pending_expiry);
        let holds = |r: &Self, dot: Dot| r.values.binary_search_by_key(&dot, |v| v.dot).is_ok();
        for (mine, theirs, their_seen) in [(self, other, other_seen), (other, self, seen)] {
            for v in &mine.values {
                let seen_there = their_seen.contains(v.dot) || theirs.pending.contains(v.dot);
                if (holds(theirs, v.dot) || !seen_there)
                    && let Err(at) = out.values.binary_search_by_key(&v.dot, |v| v.dot)
                {
                    out.values.insert(at, *v);
                }
            }
        }
        let holds = |r: &Self, dot: Dot| r.expiries.binary_search_by_key(&dot, |e| e.dot).is_ok();
        for (mine, theirs, their_seen) in [(self, other, other_seen), (other, self, seen)] {
            for e in &mine.expiries {
                let seen_there =
                    their_seen.contains(e.dot) || theirs.pending_expiry.contains(e.dot);
                if (holds(theirs, e.dot) || !seen_there)
                    && let Err(at) = out.expiries.binary_search_by_key(&e.dot, |e| e.dot)
                {
                    out.expiries.insert(at, *e);
                }
            }
        }
        for (mine, theirs, their_seen) in [(self, other, other_seen), (other, self, seen)] {
            for c in &mine.counts {
                let held = |t: &Count| t.age() >= c.age();
                if !their_seen.contains(c.dot())
                    || count_of(&theirs.counts, c.actor).is_some_and(held)
                {
                    out.add_count(*c);
                    if let Some(reset) = count_of(&mine.resets, c.actor) {
                        out.add_reset(*reset);
                    }
                }
            }
        }
        out
    }

    /// What a client sees at `now`.
    #[must_use]
    pub fn view(&self, now: WallMillis) -> View<'a> {
        View::of(self, now)
    }

    /// The deadline that governs what was written at `written`, or `None` if it does not expire.
    ///
    /// Among concurrent expiries the latest wins. One that the write has not seen and that was over
    /// before the write came does not apply: it cannot have been meant for it.
    fn deadline(&self, written: Hlc) -> Option<WallMillis> {
        let applies = |e: &&Expiry| e.hlc >= written || e.deadline > written.wall();
        let deadline = self.expiries.iter().filter(applies).map(|e| e.deadline).max()?;
        (deadline != NEVER).then_some(deadline)
    }
}

const DIGEST_VALUE: u8 = 1;
const DIGEST_EXPIRY: u8 = 2;
const DIGEST_COUNT: u8 = 3;
const DIGEST_RESET: u8 = 4;

/// What a digest is computed from: the names of everything live, in their order.
#[derive(Default)]
struct DigestInput {
    bytes: SmallVec<[u8; 128]>,
}

impl DigestInput {
    fn put(&mut self, tag: u8, actor: Actor, a: u64, b: u64) {
        let mut name = [0; 25];
        name[0] = tag;
        name[1..9].copy_from_slice(&actor.to_u64().to_le_bytes());
        name[9..17].copy_from_slice(&a.to_le_bytes());
        name[17..25].copy_from_slice(&b.to_le_bytes());
        self.bytes.extend_from_slice(&name);
    }

    fn finish(self) -> Digest {
        if self.bytes.is_empty() {
            return Digest::default();
        }
        let hash = xxhash_rust::xxh3::xxh3_128(&self.bytes);
        Digest((hash >> 64) as u64, hash as u64)
    }
}

/// What a coordinator has to know of a record that it does not look into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// As [`Record::digest`].
    pub digest: Digest,
    /// There are pending discards.
    pub has_pending: bool,
    /// There is a counter, be it reset.
    pub has_counts: bool,
}

impl Summary {
    /// Reads an encoded record without taking it apart; `None` if it is malformed.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let mut input = DigestInput::default();
        let mut r = Reader::new(bytes);
        let Some(flags) = r.byte() else {
            return Some(Self { digest: input.finish(), has_pending: false, has_counts: false });
        };
        if flags & HAS_VALUES != 0 {
            for _ in 0..r.count(12)? {
                let dot = Dot::decode(&mut r)?;
                r.take(8)?;
                r.bytes()?;
                input.put(DIGEST_VALUE, dot.actor, dot.seq, 0);
            }
        }
        if flags & HAS_EXPIRIES != 0 {
            for _ in 0..r.count(12)? {
                let dot = Dot::decode(&mut r)?;
                r.take(8)?;
                r.varint()?;
                input.put(DIGEST_EXPIRY, dot.actor, dot.seq, 0);
            }
        }
        for (bit, tag) in [(HAS_COUNTS, DIGEST_COUNT), (HAS_RESETS, DIGEST_RESET)] {
            if flags & bit != 0 {
                for c in decode_counts(&mut r)? {
                    input.put(tag, c.actor, c.generation, c.n);
                }
            }
        }
        let has_pending = flags & (HAS_PENDING | HAS_PENDING_EXPIRY) != 0;
        for bit in [HAS_PENDING, HAS_PENDING_EXPIRY] {
            if flags & bit != 0 {
                DotSet::decode(&mut r)?;
            }
        }
        let has_counts = flags & (HAS_COUNTS | HAS_RESETS) != 0;
        (r.is_empty() && flags < 64).then(|| Self {
            digest: input.finish(),
            has_pending,
            has_counts,
        })
    }
}

/// Adds the live dots of an encoded record to a set, without taking the record apart; what is
/// malformed adds nothing more.
pub(crate) fn live_dots_into(bytes: &[u8], set: &mut DotSet) {
    let mut read = || {
        let mut r = Reader::new(bytes);
        let flags = r.byte()?;
        for bit in [HAS_VALUES, HAS_EXPIRIES] {
            if flags & bit == 0 {
                continue;
            }
            for _ in 0..r.count(12)? {
                let dot = Dot::decode(&mut r)?;
                r.take(8)?;
                if bit == HAS_VALUES {
                    r.bytes()?;
                } else {
                    r.varint()?;
                }
                if !set.contains(dot) {
                    set.insert(dot);
                }
            }
        }
        Some(())
    };
    // Whoever shows the record decodes it, and tells.
    let _ = read();
}

/// True if an encoded record holds nothing but values and expiries, all of them in `seen`: then
/// whatever replaces what was seen replaces all of it.
pub(crate) fn is_replaced_by(bytes: &[u8], seen: &DotSet) -> bool {
    let replaced = || {
        let mut r = Reader::new(bytes);
        let flags = r.byte()?;
        if flags & !(HAS_VALUES | HAS_EXPIRIES) != 0 {
            return None;
        }
        if flags & HAS_VALUES != 0 {
            for _ in 0..r.count(12)? {
                let dot = Dot::decode(&mut r)?;
                r.take(8)?;
                r.bytes()?;
                if !seen.contains(dot) {
                    return None;
                }
            }
        }
        if flags & HAS_EXPIRIES != 0 {
            for _ in 0..r.count(12)? {
                let dot = Dot::decode(&mut r)?;
                r.take(8)?;
                r.varint()?;
                if !seen.contains(dot) {
                    return None;
                }
            }
        }
        r.is_empty().then_some(())
    };
    bytes.is_empty() || replaced().is_some()
}

/// What a client sees of a record at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View<'a> {
    /// The values that are not expired, newest first. The first is the one that plain reads show.
    pub values: SmallVec<[Value<'a>; 1]>,
    /// The sum of the counter's live part, if there is one.
    pub sum: Option<i128>,
    /// When what is shown vanishes, if it does.
    pub deadline: Option<WallMillis>,
}

impl<'a> View<'a> {
    fn of(record: &Record<'a>, now: WallMillis) -> Self {
        let mut latest: Option<Option<WallMillis>> = None;
        let mut live = |written: Hlc| {
            let deadline = record.deadline(written);
            let is_live = deadline.is_none_or(|d| d > now);
            if is_live {
                let longer = match (latest, deadline) {
                    (None, d) => d,
                    (Some(None), _) | (_, None) => None,
                    (Some(Some(a)), Some(b)) => Some(a.max(b)),
                };
                latest = Some(longer);
            }
            is_live
        };
        let mut values: SmallVec<[Value<'a>; 1]> =
            record.values.iter().filter(|v| live(v.hlc)).copied().collect();
        values.sort_by_key(|v| core::cmp::Reverse((v.hlc, v.dot)));
        let mut sum = None;
        for c in &record.counts {
            let reset = count_of(&record.resets, c.actor);
            if record.is_reset(c) || !live(c.hlc) {
                continue;
            }
            // A reset of an earlier generation saw increments that are not in this total.
            let seen = reset.filter(|r| r.generation == c.generation).map_or(0, |r| r.total);
            sum = Some(sum.unwrap_or(0i128).saturating_add(c.total.saturating_sub(seen)));
        }
        Self { values, sum, deadline: latest.flatten() }
    }

    /// True if a client finds a value here.
    #[must_use]
    pub fn exists(&self) -> bool {
        !self.values.is_empty() || self.sum.is_some()
    }

    /// The number that this is, if it is one: the winning value plus the counter's sum.
    #[must_use]
    pub fn number(&self) -> Option<i128> {
        let base = match self.values.first() {
            Some(v) => decimal::parse(v.bytes)?,
            None => 0,
        };
        base.checked_add(self.sum.unwrap_or(0))
    }

    /// The value that a plain read shows. A counter over a value that is no number (a concurrent SET
    /// of text) does not show: the text wins.
    #[must_use]
    pub fn value(&self) -> Option<Bytes> {
        self.value_of(&Bytes::new())
    }

    /// The same as a part of what the record was decoded from, if that is given and not empty.
    #[must_use]
    pub fn value_of(&self, encoded: &Bytes) -> Option<Bytes> {
        if self.sum.is_some()
            && let Some(number) = self.number()
        {
            return Some(Bytes::from(decimal::format(number)));
        }
        let first = self.values.first()?;
        if encoded.is_empty() {
            return Some(Bytes::copy_from_slice(first.bytes));
        }
        Some(encoded.slice_ref(first.bytes))
    }
}

/// What an actor's entry is, if there is one.
fn count_of(counts: &Counts, actor: Actor) -> Option<&Count> {
    counts.binary_search_by_key(&actor, |c| c.actor).ok().map(|at| &counts[at])
}

fn merge_count(counts: &mut Counts, count: Count) {
    match counts.binary_search_by_key(&count.actor, |c| c.actor) {
        Ok(at) if (count.age(), count.hlc) > (counts[at].age(), counts[at].hlc) => {
            counts[at] = count;
        }
        Ok(_) => {}
        Err(at) => counts.insert(at, count),
    }
}

pub(crate) fn encode_counts(counts: &Counts, out: &mut Vec<u8>) {
    put_varint(out, counts.len() as u64);
    for c in counts {
        put_varint(out, u64::from(c.actor.node.0));
        put_varint(out, u64::from(c.actor.incarnation.0));
        put_varint(out, c.generation);
        put_varint(out, c.n);
        put_i128(out, c.total);
        out.extend_from_slice(&c.hlc.0.to_le_bytes());
    }
}

pub(crate) fn decode_counts(r: &mut Reader<'_>) -> Option<Counts> {
    let mut counts = Counts::new();
    for _ in 0..r.count(28)? {
        counts.push(Count {
            actor: decode_actor(r)?,
            generation: r.varint()?,
            n: r.varint()?,
            total: r.i128()?,
            hlc: decode_hlc(r)?,
        });
    }
    Some(counts)
}

pub(crate) fn decode_hlc(r: &mut Reader<'_>) -> Option<Hlc> {
    Some(Hlc(u64::from_le_bytes(*r.take(8)?.first_chunk::<8>()?)))
}
