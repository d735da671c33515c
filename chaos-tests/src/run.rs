//! Run: one seed from beginning to end.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::check::Violation;
use crate::profile::Profile;
use crate::sim::clock::SECOND;
use crate::sim::trace::Telling;
use crate::sim::world::{Tally, World};

/// What came of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// The promise that was broken, if one was.
    pub broken: Option<Violation>,
    /// Equal for equal runs.
    pub hash: u64,
    /// Simulated nanoseconds.
    pub simulated: u64,
    /// Requests done, refused, and in doubt.
    pub requests: (u64, u64, u64),
    /// Mutations minted.
    pub minted: u64,
    /// What happened how often.
    pub tally: Tally,
    /// The last lines of the trace, if they were kept.
    pub tail: Vec<String>,
}

/// Plays a profile to its end.
#[must_use]
pub fn run(profile: &Profile, telling: Telling) -> Outcome {
    let length = profile.length_ns;
    let mut world = World::new(profile.clone(), telling);
    // A panic of a machine or an engine is a broken promise like any other.
    let played = catch_unwind(AssertUnwindSafe(|| {
        world.run(3 * SECOND + length);
        if world.broken().is_none() {
            world.end();
        }
    }));
    if let Err(panic) = played {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        world.truth.breaks("nothing panics", text.unwrap_or_default());
    }
    let history = &world.history;
    Outcome {
        broken: world.broken().cloned(),
        hash: world.trace.hash(),
        simulated: world.now(),
        requests: (history.done, history.failed, history.unknown),
        minted: world.truth.all().len() as u64,
        tally: world.tally,
        tail: world.trace.tail().map(str::to_owned).collect(),
    }
}
