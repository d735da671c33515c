//! Compose: the next request of a client, by the profile's mix.

use bytes::Bytes;
use replication::op::{ExpireCondition, Op, SetCondition, SetExpiry, Span};
use replication::row::{Row, range_of_sort_keys};
use replication::{Request, Task};
use ring::{Level, Slot, WallMillis};

use super::client::{Client, Fate, Scanning};
use super::{FLUSHED, KEPT, row_of, slot_of};
use crate::history::{Ask, Step, value_of};
use crate::profile::Profile;
use crate::sim::chance::Chance;
use crate::sim::clock::true_wall;

/// A request ready to be sent.
#[derive(Debug)]
pub struct Composed {
    /// What it is to the checks.
    pub ask: Ask,
    /// Its keys.
    pub rows: Vec<Row>,
    /// Copies that its reads ask.
    pub read: u8,
    /// Copies that its writes wait for.
    pub write: u8,
    /// What is sent.
    pub request: Request,
}

struct Draft {
    ask: Ask,
    keyspace: u16,
    slot: Slot,
    ops: Vec<(Row, Op)>,
    atomic: bool,
}

impl Draft {
    fn one(ask: Ask, tag: u64, row: Row, op: Op) -> Self {
        Self { ask, keyspace: 0, slot: slot_of(tag), ops: vec![(row, op)], atomic: false }
    }
}

/// Composes request number `op` at true time `now`.
pub fn compose(
    profile: &Profile,
    client: &mut Client,
    (me, op, now): (usize, u64, u64),
    c: &mut Chance,
) -> Composed {
    if let Some(scanning) = &client.scanning {
        return scan_on(profile, scanning, c);
    }
    let m = &profile.mix;
    let weights = [
        m.set,
        m.get,
        m.del,
        m.conditional,
        m.siblings,
        m.counter,
        m.reset,
        m.multi,
        m.expiry,
        m.scan,
        m.flush,
        m.range,
        m.range_delete,
        m.kept,
    ];
    let mut at = c.below(weights.iter().sum());
    let kind = weights.iter().position(|w| {
        let hit = at < *w;
        at = at.saturating_sub(*w);
        hit
    });
    let tag = c.below(profile.tags);
    let number = c.below(profile.keys);
    let row = row_of(0, 'k', tag, number);
    let value = value_of(op);
    let always = |value| Op::Set {
        value,
        expiry: SetExpiry::Clear,
        condition: SetCondition::Always,
        get: false,
    };
    let draft = match kind {
        None | Some(0) => Draft::one(Ask::Set, tag, row, always(value)),
        Some(1) => Draft::one(Ask::Get, tag, row, Op::Read),
        Some(2) if c.coin() => Draft::one(Ask::Delete, tag, row, Op::Delete),
        Some(2) => Draft::one(Ask::GetDelete, tag, row, Op::GetDelete),
        Some(3) => {
            let (condition, get) = c.pick(&[
                (SetCondition::IfAbsent, false),
                (SetCondition::IfPresent, false),
                (SetCondition::Always, true),
            ]);
            let asks = if c.coin() {
                Op::Append(Bytes::from(format!("+{op}")))
            } else {
                Op::Set { value, expiry: SetExpiry::Clear, condition, get }
            };
            Draft::one(Ask::Write, tag, row, asks)
        }
        Some(4) => match client.contexts.remove(&row) {
            Some(context) => {
                let value = (!c.hits(200_000)).then_some(value);
                let asks = Op::SetWithContext { value, context };
                Draft::one(Ask::WithContext, tag, row, asks)
            }
            None => Draft::one(Ask::Siblings, tag, row, Op::Siblings),
        },
        Some(5) => {
            let row = row_of(0, 'c', tag, number);
            if c.hits(300_000) {
                Draft::one(Ask::Sum, tag, row, Op::Read)
            } else {
                let by = c.between(1, 9) as i64 - 3;
                Draft::one(Ask::Add(by), tag, row, Op::Increment(by))
            }
        }
        Some(6) => {
            let row = row_of(0, 'r', tag, number);
            let asks = match c.below(8) {
                0 => Op::Delete,
                1 => always(Bytes::from_static(b"100")),
                2 => Op::Read,
                n => Op::Increment(n as i64),
            };
            Draft::one(Ask::Resettable, tag, row, asks)
        }
        Some(7) => {
            let other = row_of(0, 'k', tag, (number + 1) % profile.keys.max(2));
            let counter = row_of(0, 'c', tag, number);
            let ops = vec![
                (row, always(value.clone())),
                (other, always(value)),
                (counter, Op::Increment(2)),
            ];
            Draft { ask: Ask::Multi(2), keyspace: 0, slot: slot_of(tag), ops, atomic: true }
        }
        Some(8) => {
            // A key of its own lives under one tag.
            let tag = (me as u64 + client.own.generation) % profile.tags;
            expiring(client, (me, tag, now), value, c)
        }
        Some(9) => {
            let first = Slot(slot_of(tag).0 / ring::SLOTS_PER_GROUP * ring::SLOTS_PER_GROUP);
            let last = Slot(first.0 + ring::SLOTS_PER_GROUP - 1);
            let scanning = Scanning { since: now, last, from: (first, 0), found: Vec::new() };
            let composed = scan_on(profile, &scanning, c);
            client.scanning = Some(scanning);
            return composed;
        }
        Some(11) => return range(profile, tag, c, Ask::Range),
        Some(12) => return range(profile, tag, c, Ask::DeleteRange),
        Some(13) => kept(client, (tag, number), op, c),
        Some(_) if c.hits(100_000) => {
            let request = Request::Flush { keyspace: FLUSHED, slot: slot_of(tag), level: None };
            let (read, write) = (needed(profile.read), needed(profile.write));
            let ask = Ask::Flush(slot_of(tag));
            return Composed { ask, rows: Vec::new(), read, write, request };
        }
        Some(_) => {
            let row = row_of(FLUSHED, 'f', tag, number);
            let mut draft = if c.coin() {
                Draft::one(Ask::Get, tag, row, Op::Read)
            } else {
                Draft::one(Ask::Set, tag, row, always(value))
            };
            draft.keyspace = FLUSHED;
            draft
        }
    };
    finish(profile, draft, c)
}

/// A request for a key whose siblings are kept.
fn kept(client: &mut Client, (tag, number): (u64, u64), op: u64, c: &mut Chance) -> Draft {
    let row = row_of(KEPT, 'w', tag, number);
    let value = value_of(op);
    let set = |value, get| Op::Set {
        value,
        expiry: SetExpiry::Clear,
        condition: SetCondition::Always,
        get,
    };
    let context = client.contexts.remove(&row).zip(client.shown.remove(&row));
    let (ask, op) = match (context, c.below(16)) {
        (Some((context, shown)), _) => {
            (Ask::Resolve(shown), Op::SetWithContext { value: Some(value), context })
        }
        (None, 0..8) => (Ask::Beside, set(value, false)),
        (None, 8..12) => (Ask::Siblings, Op::Siblings),
        (None, 12) => (Ask::Write, set(value, true)),
        (None, 13) => (Ask::Write, Op::Append(Bytes::from(format!("+{op}")))),
        (None, 14) => (Ask::Get, Op::Read),
        (None, _) => (Ask::Delete, Op::Delete),
    };
    Draft { keyspace: KEPT, ..Draft::one(ask, tag, row, op) }
}

fn finish(profile: &Profile, draft: Draft, c: &mut Chance) -> Composed {
    let rows = draft.ops.iter().map(|(row, _)| row.clone()).collect();
    let own = profile.mixed_levels && !matches!(draft.ask, Ask::Expiring(_));
    let (read, write) = levels(profile, own, c);
    let task = Task {
        slot: draft.slot,
        keyspace: draft.keyspace,
        ops: draft.ops,
        watches: Vec::new(),
        atomic: draft.atomic,
        read: own.then_some(read),
        write: own.then_some(write),
        durability: None,
        after: None,
    };
    let (read, write) = (needed(read), needed(write));
    Composed { ask: draft.ask, rows, read, write, request: Request::Task(task) }
}

/// The levels of a request that draws its own, or the usual ones.
fn levels(profile: &Profile, own: bool, c: &mut Chance) -> (Level, Level) {
    let mut level =
        |usual| if own { c.pick(&[Level::One, Level::Quorum, Level::All]) } else { usual };
    (level(profile.read), level(profile.write))
}

/// A page of the ordinary keys of a tag, or its deletion: all of them, or those from one on.
fn range(profile: &Profile, tag: u64, c: &mut Chance, ask: fn(Span) -> Ask) -> Composed {
    let from = format!("k{}", c.below(profile.keys));
    let from = if c.coin() { b"k" } else { from.as_bytes() };
    let partition = format!("t{tag}");
    let (start, end) = range_of_sort_keys(0, partition.as_bytes(), Some(from), Some(b"l"))
        .expect("a tag is a partition key");
    let (reverse, rows) = (c.coin(), c.between(1, 12) as u32);
    let span = Span { slot: slot_of(tag), keyspace: 0, start, end, reverse, rows, bytes: 1 << 20 };
    let (read, write) = levels(profile, profile.mixed_levels, c);
    let ask = ask(span.clone());
    let request = match ask {
        Ask::DeleteRange(_) => Request::DeleteRange {
            span,
            read: Some(read),
            write: Some(write),
            durability: None,
            after: None,
        },
        _ => Request::Range { span, level: Some(read), after: None },
    };
    Composed { ask, rows: Vec::new(), read: needed(read), write: needed(write), request }
}

/// The next part of a scan.
fn scan_on(profile: &Profile, scanning: &Scanning, c: &mut Chance) -> Composed {
    let (from, from_hash) = scanning.from;
    let count = c.between(1, 20) as u32;
    let request = Request::Scan { keyspace: 0, from, from_hash, count, level: None };
    let (read, write) = (needed(profile.read), needed(profile.write));
    Composed { ask: Ask::Scan, rows: Vec::new(), read, write, request }
}

/// The next step with a client's own key.
fn expiring(
    client: &Client,
    (me, tag, now): (usize, u64, u64),
    value: Bytes,
    c: &mut Chance,
) -> Draft {
    let row = row_of(0, 'e', tag, me as u64 * 1_000_000 + client.own.generation);
    let until = true_wall(now) + c.pick(&[1_500, 5_000, 3_600_000]);
    let set =
        |value, expiry| Op::Set { value, expiry, condition: SetCondition::Always, get: false };
    let (step, op) = match c.below(if client.own.fate == Fate::Fresh { 2 } else { 8 }) {
        0 => (Step::Set, set(value, SetExpiry::Clear)),
        1 => (Step::SetUntil(until), set(value, SetExpiry::At(WallMillis(until)))),
        2 => {
            let condition = ExpireCondition::Always;
            (Step::Expire(until), Op::Expire { at: WallMillis(until), condition })
        }
        3 => (Step::Persist, Op::Persist),
        _ => (Step::Get, Op::Read),
    };
    Draft::one(Ask::Expiring(step), tag, row, op)
}

/// How many of three copies a level takes.
#[must_use]
pub(crate) fn needed(level: Level) -> u8 {
    level.needed(3).unwrap_or(3)
}
