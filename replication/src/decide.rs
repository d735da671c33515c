//! Decide: what an op makes of the state it finds.
//!
//! A pure function from (op, what a client sees) to (answer, what to mint). The coordinator mints it
//! under a dot; nothing here knows of replicas.

use bytes::Bytes;
use ring::{NodeId, WallMillis};

use crate::causality::DotSet;
use crate::decimal;
use crate::encoding::Reader;
use crate::limits::{SIBLINGS_MAX, VALUE_BYTES_MAX};
use crate::op::{
    ExpireCondition, Found, GetExpiry, Op, OpError, Outcome, SetCondition, SetExpiry, Sibling,
};
use crate::record::{NEVER, Record, Value, View};

/// A mutation that has no dot yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mint {
    /// Replaces the values seen and resets the counter.
    pub(crate) discards_values: bool,
    /// Replaces the expiries seen.
    pub(crate) discards_expiry: bool,
    /// Replaces exactly this instead of all that is seen.
    pub(crate) context: Option<DotSet>,
    /// Living values that stay beside the new one, though they are seen.
    pub(crate) spares: DotSet,
    /// A new value.
    pub(crate) value: Option<Bytes>,
    /// A new expiry.
    pub(crate) expiry: Option<WallMillis>,
    /// An increment.
    pub(crate) by: Option<i128>,
}

impl Mint {
    fn set(value: Bytes, expiry: SetExpiry) -> Self {
        Self {
            discards_values: true,
            discards_expiry: expiry != SetExpiry::Keep,
            value: Some(value),
            expiry: match expiry {
                SetExpiry::At(at) => Some(at),
                SetExpiry::Clear | SetExpiry::Keep => None,
            },
            ..Self::default()
        }
    }

    fn delete() -> Self {
        Self { discards_values: true, discards_expiry: true, ..Self::default() }
    }

    /// Its keyspace lets keys live for so long: gives a key that comes into being by it, or loses its
    /// expiry to a SET, a deadline. `exists`: an increment finds the key.
    pub(crate) fn lives_for(&mut self, ttl_ms: u64, now: WallMillis, exists: bool) {
        let set = self.value.is_some() && self.discards_expiry;
        let begun = self.by.is_some() && !exists;
        if self.expiry.is_none() && (set || begun) {
            self.expiry = Some(WallMillis(now.0.saturating_add(ttl_ms)));
        }
    }

    fn expire(at: WallMillis) -> Self {
        Self { discards_expiry: true, expiry: Some(at), ..Self::default() }
    }
}

/// The answer to an op, and what it mints.
pub(crate) type Decision = (Outcome, Option<Mint>);

/// Decides one op. `seen` is the context that a client is given; `now` judges expiry. `known` is what the
/// client knows without having said so, where the keyspace keeps siblings; `None` where a write
/// replaces whatever is seen.
pub(crate) fn decide(
    op: &Op,
    record: &Record<'_>,
    seen: &DotSet,
    now: WallMillis,
    known: Option<&DotSet>,
) -> Decision {
    let view = record.view(now);
    let fail = |error| (Outcome::Failed(error), None);
    match op {
        Op::Read => (read(&Bytes::new(), record, &view), None),
        Op::Siblings => (siblings(&view, seen), None),
        Op::Set { value, expiry, condition, get } => {
            let previous = if *get { view.value() } else { None };
            let done = match condition {
                SetCondition::Always => true,
                SetCondition::IfAbsent => !view.exists(),
                SetCondition::IfPresent => view.exists(),
            };
            if value.len() > VALUE_BYTES_MAX {
                return fail(OpError::TooLarge);
            }
            let expiry = if *expiry == SetExpiry::Keep && !view.exists() {
                // The expiry of a key that is gone is not kept.
                SetExpiry::Clear
            } else {
                *expiry
            };
            let mint = done.then(|| Mint::set(value.clone(), expiry));
            beside((Outcome::Set { done, previous }, mint), &view, known, *get)
        }
        Op::SetWithContext { value, context } => {
            let mut r = Reader::new(context);
            let Some(context) = DotSet::decode(&mut r) else { return fail(OpError::BadContext) };
            let kept = record.values.iter().filter(|v| !context.contains(v.dot)).count();
            if value.is_some() && kept >= SIBLINGS_MAX {
                return fail(OpError::TooManySiblings);
            }
            if value.as_ref().is_some_and(|v| v.len() > VALUE_BYTES_MAX) {
                return fail(OpError::TooLarge);
            }
            let mint = Mint { context: Some(context), value: value.clone(), ..Mint::delete() };
            (siblings(&view, seen), Some(mint))
        }
        Op::Delete => {
            // What is expired is replaced as well: it is there until it is collected.
            let something = !record.values.is_empty() || !record.counts.is_empty();
            (Outcome::Flag(view.exists()), something.then(Mint::delete))
        }
        Op::GetDelete => (read(&Bytes::new(), record, &view), view.exists().then(Mint::delete)),
        Op::GetExpire(expiry) => {
            let mint = match expiry {
                GetExpiry::Keep => None,
                GetExpiry::Persist if view.deadline.is_none() => None,
                GetExpiry::Persist => Some(Mint::expire(NEVER)),
                GetExpiry::At(at) if *at <= now => Some(Mint::delete()),
                GetExpiry::At(at) => Some(Mint::expire(*at)),
            };
            (read(&Bytes::new(), record, &view), mint.filter(|_| view.exists()))
        }
        Op::Append(suffix) => {
            let mut value = view.value().map(Vec::from).unwrap_or_default();
            value.extend_from_slice(suffix);
            beside(overwrite(&view, value, suffix.is_empty()), &view, known, true)
        }
        Op::SetRange { offset, bytes } => {
            let mut value = view.value().map(Vec::from).unwrap_or_default();
            let end = usize::try_from(*offset).ok().and_then(|o| o.checked_add(bytes.len()));
            let Some(end) = end.filter(|end| *end <= VALUE_BYTES_MAX) else {
                return fail(OpError::TooLarge);
            };
            if !bytes.is_empty() {
                value.resize(value.len().max(end), 0);
                value[end - bytes.len()..end].copy_from_slice(bytes);
            }
            beside(overwrite(&view, value, bytes.is_empty()), &view, known, true)
        }
        Op::Increment(by) => {
            let current = match integer(&view) {
                Ok(current) => current,
                Err(error) => return fail(error),
            };
            let Some(sum) = current.checked_add(*by) else { return fail(OpError::Overflow) };
            (Outcome::Integer(sum), Some(increment(record, &view, decimal::of_integer(*by))))
        }
        Op::IncrementFloat(by) => {
            let Some(by) = decimal::parse(by) else { return fail(OpError::NotAFloat) };
            if view.exists() && view.number().is_none() {
                return fail(OpError::NotAFloat);
            }
            let current = view.number().unwrap_or(0);
            let Some(sum) = current.checked_add(by) else { return fail(OpError::NotFinite) };
            let text = Bytes::from(decimal::format(sum));
            (Outcome::Float(text), Some(increment(record, &view, by)))
        }
        Op::Expire { at, condition } => {
            if !view.exists() {
                return (Outcome::Flag(false), None);
            }
            let current = view.deadline;
            let holds = match condition {
                ExpireCondition::Always => true,
                ExpireCondition::IfNone => current.is_none(),
                ExpireCondition::IfSome => current.is_some(),
                ExpireCondition::IfLater | ExpireCondition::IfSomeAndLater => {
                    current.is_some_and(|c| *at > c)
                }
                ExpireCondition::IfEarlier => current.is_none_or(|c| *at < c),
                ExpireCondition::IfSomeAndEarlier => current.is_some_and(|c| *at < c),
            };
            let mint = if *at <= now { Mint::delete() } else { Mint::expire(*at) };
            (Outcome::Flag(holds), holds.then_some(mint))
        }
        Op::Persist => {
            let had = view.exists() && view.deadline.is_some();
            (Outcome::Flag(had), had.then(|| Mint::expire(NEVER)))
        }
    }
}

/// What a plain read finds. `encoded` is what the record was decoded from, so that its value need
/// not be copied, or empty.
pub(crate) fn read(encoded: &Bytes, record: &Record<'_>, view: &View<'_>) -> Outcome {
    let value = view.value_of(encoded);
    let found = value.map(|value| Found { value, deadline: view.deadline });
    Outcome::Read { found, digest: record.digest() }
}

fn siblings(view: &View<'_>, seen: &DotSet) -> Outcome {
    // A counter counts on from each number that was set concurrently: whoever replaces them sees all.
    let counted = |bytes: &[u8]| decimal::parse(bytes)?.checked_add(view.sum?).map(decimal::format);
    let sibling = |v: &Value<'_>| Sibling {
        value: counted(v.bytes).map_or_else(|| Bytes::copy_from_slice(v.bytes), Bytes::from),
        written: v.hlc.wall(),
        node: v.dot.actor.node,
    };
    let mut values: Vec<Sibling> = view.values.iter().map(sibling).collect();
    if values.is_empty()
        && let Some(value) = view.value()
    {
        values.push(Sibling { value, written: WallMillis(0), node: NodeId(0) });
    }
    Outcome::Siblings { values, context: seen.to_bytes() }
}

/// Where siblings are kept, what replaces values replaces those that its client knows: the one that it
/// is shown by this very op, or of which the new one is made (`shown`), those in `known`, and those
/// that are the same as the new one. All others stay beside it.
fn beside(
    (outcome, mut mint): Decision,
    view: &View<'_>,
    known: Option<&DotSet>,
    shown: bool,
) -> Decision {
    if let (Some(mint), Some(known)) = (&mut mint, known) {
        let is_known = |place: usize, v: &Value<'_>| {
            (shown && place == 0)
                || known.contains(v.dot)
                || mint.value.as_deref().is_some_and(|new| new == v.bytes)
        };
        let others = view.values.iter().enumerate().filter(|(place, v)| !is_known(*place, v));
        mint.spares = others.map(|(_, v)| v.dot).collect();
        if view.values.iter().filter(|v| mint.spares.contains(v.dot)).count() >= SIBLINGS_MAX {
            return (Outcome::Failed(OpError::TooManySiblings), None);
        }
    }
    (outcome, mint)
}

/// Replaces the value and keeps the expiry, as APPEND and SETRANGE do.
fn overwrite(view: &View<'_>, value: Vec<u8>, unchanged: bool) -> Decision {
    if value.len() > VALUE_BYTES_MAX {
        return (Outcome::Failed(OpError::TooLarge), None);
    }
    let length = Outcome::Integer(value.len() as i64);
    if unchanged && (view.exists() || value.is_empty()) {
        return (length, None);
    }
    let expiry = if view.exists() { SetExpiry::Keep } else { SetExpiry::Clear };
    (length, Some(Mint::set(Bytes::from(value), expiry)))
}

/// The integer that a client sees; 0 if there is nothing.
fn integer(view: &View<'_>) -> Result<i64, OpError> {
    if !view.exists() {
        return Ok(0);
    }
    if view.sum.is_none() {
        let first = view.values.first().ok_or(OpError::NotAnInteger)?;
        return decimal::parse_integer(first.bytes).ok_or(OpError::NotAnInteger);
    }
    view.number().and_then(decimal::to_integer).ok_or(OpError::NotAnInteger)
}

/// An increment; on a key whose value has expired it first replaces what is left of it.
fn increment(record: &Record<'_>, view: &View<'_>, by: i128) -> Mint {
    let leftovers = !view.exists()
        && (!record.values.is_empty() || !record.expiries.is_empty() || !record.counts.is_empty());
    Mint { discards_values: leftovers, discards_expiry: leftovers, by: Some(by), ..Mint::default() }
}
