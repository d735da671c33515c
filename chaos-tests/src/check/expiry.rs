//! Expiry: a key vanishes at its deadline and not before, as far as clocks agree; and one that was
//! persisted stays. Each such key has one writer, who knows what must be true of it.

use crate::history::Step;
use crate::workload::{Fate, OwnKey};

/// What is promised.
pub const PROMISE: &str = "keys vanish at their deadline and not before";

/// A step that was done.
#[derive(Clone, Copy, Debug)]
pub struct Stepped {
    /// What was done.
    pub step: Step,
    /// Whether the key was there, as far as the answer says so.
    pub was_there: Option<bool>,
    /// When it was asked, in true wall time.
    pub began_ms: u64,
    /// When it was answered.
    pub now_ms: u64,
    /// How far clocks may disagree.
    pub margin_ms: u64,
    /// How many replicas it read from.
    pub read: u8,
    /// How many replicas acknowledged what it wrote.
    pub write: u8,
    /// How many copies there are.
    pub copies: u8,
    /// Who asked.
    pub client: usize,
}

/// Judges a step and notes what must be true from now on.
///
/// # Errors
/// What is wrong with it.
pub fn step(own: &mut OwnKey, s: &Stepped) -> Result<(), String> {
    let (began, now, margin) = (s.began_ms, s.now_ms, s.margin_ms);
    let sets = matches!(s.step, Step::Set | Step::SetUntil(_) | Step::SetFor(_));
    if let Fate::There(Some((low, high))) = own.fate
        && began < high + margin
        && now + margin > low
        && !sets
    {
        // About to vanish, or just gone: nobody can say which.
        own.give_up();
        return Ok(());
    }
    let must_be_there = match own.fate {
        Fate::Fresh => None,
        Fate::There(None) => Some(true),
        Fate::There(Some((low, _))) if now < low => Some(true),
        Fate::There(Some(_)) => (began > own.outlives.saturating_add(margin)).then_some(false),
    };
    if let (Some(must), Some(was)) = (must_be_there, s.was_there)
        && must != was
        // The level of the earlier write counts, whatever this step's own writes ask for.
        && s.read + own.written > s.copies
    {
        return Err(format!("{:?} by client {}: there={was}, {:?}", s.step, s.client, own.fate));
    }
    let until = |at: u64| Fate::There(Some((at, at)));
    // The node counts from its own clock, and from some moment while it was asked.
    let lasting = |ms: u64| Fate::There(Some((began + ms - margin.min(ms), now + ms + margin)));
    let is_there = must_be_there == Some(true);
    let before = own.fate;
    match s.step {
        Step::Set => own.fate = Fate::There(None),
        Step::SetUntil(at) => own.fate = until(at),
        Step::SetFor(ms) => own.fate = lasting(ms),
        Step::Expire(at) | Step::GetUntil(at) if is_there => own.fate = until(at),
        Step::ExpireFor(ms) if is_there => own.fate = lasting(ms),
        Step::Persist | Step::GetPersist if is_there => own.fate = Fate::There(None),
        Step::Expire(_)
        | Step::ExpireFor(_)
        | Step::GetUntil(_)
        | Step::Persist
        | Step::GetPersist
        | Step::Get => {}
    }
    if sets || own.fate != before {
        own.written = s.write;
        if s.write == 1 {
            own.outlives = own.outlives.max(match own.fate {
                Fate::There(Some((_, high))) => high,
                Fate::There(None) => u64::MAX,
                Fate::Fresh => 0,
            });
        }
    }
    Ok(())
}
