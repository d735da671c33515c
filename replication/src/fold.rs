//! Operands: what the engine's merge operator folds into a record.
//!
//! A write reaches the engine as a merge operand, so no replica reads before it writes. An operand is
//! a [`Patch`]: what it discards of anything older, and a record of what it adds. Patches compose
//! associatively; on the oldest version of a key the discards have done their work and only the
//! record stays. A discard is therefore stripped only in a merge that consumed every older version
//! of the key (rule 3 of the protocol's rules).
//!
//! Encoded: `D pending pending_expiry delta` for a delta as it was received (the tail is what a peer
//! gets that pulls it from our log), or `P clock-additions discards record` for anything else.

use bytes::Bytes;

use crate::causality::DotSet;
use crate::delta::Delta;
use crate::encoding::Reader;
use crate::record::{Count, Expiry, Record, Value, is_replaced_by};

const TAG_DELTA: u8 = b'D';
const TAG_PATCH: u8 = b'P';

/// How the operand of a delta begins that leaves nothing pending.
pub(crate) const PLAIN_DELTA: &[u8] = &[TAG_DELTA, 0, 0];

/// A change that can be composed with others before its base is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch<'a> {
    /// Dots that an install adds to the slot clock with this patch (a delta adds its own).
    pub learned: DotSet,
    /// Values older than this patch that it replaces.
    pub discard: DotSet,
    /// Expiries older than this patch that it replaces.
    pub discard_expiry: DotSet,
    /// What it adds, and its pending discards.
    pub record: Record<'a>,
}

impl<'a> Patch<'a> {
    /// A record as the oldest version of its key.
    #[must_use]
    pub fn of_record(record: Record<'a>) -> Self {
        Self { record, ..Self::default() }
    }

    /// A delta, with those of its discards that the slot clock did not cover when it came.
    #[must_use]
    pub fn of_delta(delta: &Delta<'a>, pending: DotSet, pending_expiry: DotSet) -> Self {
        let record = added(delta, Record { pending, pending_expiry, ..Record::default() });
        let discard_of = |on: bool| if on { delta.discard.clone() } else { DotSet::new() };
        Self {
            learned: DotSet::from_iter([delta.dot]),
            discard: discard_of(delta.discards_values),
            discard_expiry: discard_of(delta.discards_expiry),
            record,
        }
    }

    /// What another replica's state of a key brings to one that has seen `clock`: `theirs` is what
    /// that replica holds, `seen` its slot clock from the same moment. The patch learns the live dots
    /// that are new here, and nothing else.
    #[must_use]
    pub fn of_state(theirs: &Record<'a>, seen: &DotSet, clock: &DotSet) -> Self {
        let mut patch = Self::of_live(theirs, clock);
        let mut known = clock.clone();
        known.union(&patch.learned);
        let mut dead = seen.clone();
        dead.union(&theirs.pending);
        patch.discard = dead.minus(&theirs.values.iter().map(|v| v.dot).collect());
        patch.record.pending = patch.discard.minus(&known);
        let mut dead = seen.clone();
        dead.union(&theirs.pending_expiry);
        patch.discard_expiry = dead.minus(&theirs.expiries.iter().map(|e| e.dot).collect());
        patch.record.pending_expiry = patch.discard_expiry.minus(&known);
        patch
    }

    /// What of another replica's live state is new here, without what that replica discards.
    pub(crate) fn of_live(theirs: &Record<'a>, clock: &DotSet) -> Self {
        let mut patch = Self::default();
        for v in theirs.values.iter().filter(|v| !clock.contains(v.dot)) {
            patch.learned.insert(v.dot);
            patch.record.add_value(*v);
        }
        // A dot already in the clock may name a value whose expiry was replaced here.
        for e in theirs.expiries.iter().filter(|e| !clock.contains(e.dot)) {
            patch.learned.insert(e.dot);
            patch.record.add_expiry(*e);
        }
        // A count whose dot is in the clock is here, in a newer one, or was dropped here.
        for c in theirs.counts.iter().filter(|c| !clock.contains(c.dot())) {
            patch.record.add_count(*c);
        }
        for c in &theirs.resets {
            patch.record.add_reset(*c);
        }
        patch
    }

    /// This patch and then `newer`, as one.
    #[must_use]
    pub fn then(mut self, newer: &Self) -> Self {
        self.record.values.retain(|v| !newer.discard.contains(v.dot));
        self.record.expiries.retain(|e| !newer.discard_expiry.contains(e.dot));
        for v in &newer.record.values {
            self.record.add_value(*v);
        }
        for e in &newer.record.expiries {
            self.record.add_expiry(*e);
        }
        for c in &newer.record.counts {
            self.record.add_count(*c);
        }
        for c in &newer.record.resets {
            self.record.add_reset(*c);
        }
        self.record.pending.union(&newer.record.pending);
        self.record.pending_expiry.union(&newer.record.pending_expiry);
        self.discard.union(&newer.discard);
        self.discard_expiry.union(&newer.discard_expiry);
        self.learned.union(&newer.learned);
        self
    }

    /// The record that remains where nothing is older.
    #[must_use]
    pub fn into_record(mut self) -> Record<'a> {
        // What has come is in the slot clock now and need not be remembered as pending.
        if !self.record.pending.is_empty() {
            self.record.pending = self.record.pending.minus(&self.learned);
        }
        if !self.record.pending_expiry.is_empty() {
            self.record.pending_expiry = self.record.pending_expiry.minus(&self.learned);
        }
        self.record
    }

    /// Appends the encoded form (tag `P`).
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(TAG_PATCH);
        self.learned.encode(out);
        self.discard.encode(out);
        self.discard_expiry.encode(out);
        self.record.encode(out);
    }

    /// The encoded form.
    #[must_use]
    pub fn to_operand(&self) -> Bytes {
        let mut out = Vec::new();
        self.encode(&mut out);
        Bytes::from(out)
    }

    /// Reads an operand of either kind; `None` if it is malformed.
    #[must_use]
    pub fn decode(operand: &'a [u8]) -> Option<Self> {
        let mut r = Reader::new(operand);
        match r.byte()? {
            TAG_DELTA => {
                let (pending, pending_expiry) = (DotSet::decode(&mut r)?, DotSet::decode(&mut r)?);
                Some(Self::of_delta(&Delta::decode(r.rest())?, pending, pending_expiry))
            }
            TAG_PATCH => Some(Self {
                learned: DotSet::decode(&mut r)?,
                discard: DotSet::decode(&mut r)?,
                discard_expiry: DotSet::decode(&mut r)?,
                record: Record::decode(r.rest())?,
            }),
            _ => None,
        }
    }
}

/// The operand of a delta, with those of its discards that the slot clock does not cover.
#[must_use]
pub fn delta_operand(delta: &[u8], pending: &DotSet, pending_expiry: &DotSet) -> Bytes {
    let mut out = Vec::with_capacity(delta.len() + 3);
    out.push(TAG_DELTA);
    pending.encode(&mut out);
    pending_expiry.encode(&mut out);
    out.extend_from_slice(delta);
    Bytes::from(out)
}

/// The encoded delta in an operand, if it is of that kind.
#[must_use]
pub fn delta_of(operand: &[u8]) -> Option<&[u8]> {
    let mut r = Reader::new(operand);
    if r.byte()? != TAG_DELTA {
        return None;
    }
    DotSet::decode(&mut r)?;
    DotSet::decode(&mut r)?;
    Some(r.rest())
}

/// What folding gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folded {
    /// A record is in the output.
    Record,
    /// The record is empty, so the key has none.
    Nothing,
    /// Something is malformed (or of a newer version): keep base and operands as they are.
    Unreadable,
}

/// Folds operands, oldest first, onto a base where nothing is older. Appends the record to `out`.
pub fn fold<'a>(
    base: Option<&'a [u8]>,
    operands: impl IntoIterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) -> Folded {
    let mut operands = operands.into_iter().peekable();
    let base = base.unwrap_or(&[]);
    // The usual case: a plain SET over what it has seen.
    if let Some(record) = operands.peek().and_then(|o| replacement(base, o)) {
        operands.next();
        if operands.peek().is_none() {
            record.encode(out);
            return if record.is_empty() { Folded::Nothing } else { Folded::Record };
        }
        return fold_onto(Patch::of_record(record), operands, out);
    }
    let Some(record) = Record::decode(base) else { return Folded::Unreadable };
    fold_onto(Patch::of_record(record), operands, out)
}

fn fold_onto<'a>(
    mut patch: Patch<'a>,
    operands: impl IntoIterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) -> Folded {
    for operand in operands {
        let Some(newer) = Patch::decode(operand) else { return Folded::Unreadable };
        patch = patch.then(&newer);
    }
    let record = patch.into_record();
    record.encode(out);
    if record.is_empty() { Folded::Nothing } else { Folded::Record }
}

/// What a delta leaves, if it replaces all that the base holds and leaves nothing pending.
fn replacement<'a>(base: &[u8], operand: &'a [u8]) -> Option<Record<'a>> {
    let delta = Delta::decode(operand.strip_prefix(PLAIN_DELTA)?)?;
    let all = delta.discards_values && delta.discards_expiry;
    (all && is_replaced_by(base, &delta.discard)).then(|| added(&delta, Record::default()))
}

/// What a delta adds to a record.
fn added<'a>(delta: &Delta<'a>, mut record: Record<'a>) -> Record<'a> {
    if let Some(bytes) = delta.value {
        record.add_value(Value { dot: delta.dot, hlc: delta.hlc, bytes });
    }
    if let Some(deadline) = delta.expiry {
        record.add_expiry(Expiry { dot: delta.dot, hlc: delta.hlc, deadline });
    }
    if let Some((generation, total)) = delta.count {
        let (actor, n) = (delta.dot.actor, delta.dot.seq);
        record.add_count(Count { actor, generation, n, total, hlc: delta.hlc });
    }
    for reset in &delta.resets {
        record.add_reset(*reset);
    }
    record
}

/// Folds operands, oldest first, into one operand that is equal to all; false if one is malformed.
pub fn fold_partial<'a>(operands: impl IntoIterator<Item = &'a [u8]>, out: &mut Vec<u8>) -> bool {
    let mut patch: Option<Patch<'_>> = None;
    for operand in operands {
        let Some(newer) = Patch::decode(operand) else { return false };
        patch = Some(match patch {
            Some(older) => older.then(&newer),
            None => newer,
        });
    }
    patch.unwrap_or_default().encode(out);
    true
}
