//! Mutation: planted bugs, and where to look for each.

use commands::Bug as SessionBug;
use replication::Bug;
use storage::PlantedBug;

use crate::check::Violation;
use crate::profile::Profile;
use crate::run::run;
use crate::sim::trace::Telling;

/// A bug to plant.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// In replication.
    Replication(Bug),
    /// In storage.
    Storage(PlantedBug),
    /// In sessions.
    Session(SessionBug),
}

/// A bug and the profile under which it is sought.
#[derive(Clone, Copy, Debug)]
pub struct Planted {
    /// The bug.
    pub what: What,
    /// The profile.
    pub profile: &'static str,
}

const fn replication(bug: Bug, profile: &'static str) -> Planted {
    Planted { what: What::Replication(bug), profile }
}

const fn storage(bug: PlantedBug, profile: &'static str) -> Planted {
    Planted { what: What::Storage(bug), profile }
}

const fn session(bug: SessionBug, profile: &'static str) -> Planted {
    Planted { what: What::Session(bug), profile }
}

/// Every bug that can be planted.
pub const PLANTED: &[Planted] = &[
    replication(Bug::CountsAcks, "echoes"),
    replication(Bug::ClockAfterKey, "small-log"),
    replication(Bug::ReusesDots, "power"),
    replication(Bug::MaximumOnReceipt, "lossy"),
    replication(Bug::MintsRetries, "retries"),
    replication(Bug::ForgetsSeen, "lossy"),
    replication(Bug::ResetWipes, "resets"),
    replication(Bug::AcceptsStaleEpoch, "fence"),
    replication(Bug::ServesBeforePull, "power"),
    replication(Bug::SkipsRepair, "lossy"),
    replication(Bug::DropsPending, "lossy"),
    replication(Bug::ClockBeforeState, "small-log"),
    replication(Bug::WatchesRetries, "transactions"),
    replication(Bug::IgnoresTokens, "tokens"),
    replication(Bug::MintsForAnyone, "named"),
    replication(Bug::SetReplacesSiblings, "terms"),
    replication(Bug::TrustsOneShare, "shares"),
    replication(Bug::FlushesUnsaved, "small-log"),
    replication(Bug::TrustsOneAck, "acks"),
    replication(Bug::TellsRefused, "acks"),
    replication(Bug::TellsLate, "acks"),
    storage(PlantedBug::MissingFsync, "sync"),
    storage(PlantedBug::DamageReadAsTornTail, "rot"),
    session(SessionBug::AnswersOutOfTurn, "sessions"),
    session(SessionBug::WatchForgetsOtherSlots, "transactions"),
    session(SessionBug::ExecInParts, "transactions"),
    session(SessionBug::ScanSkipsCutSlot, "sweeps"),
    session(SessionBug::TellsFirstFailure, "sessions"),
];

impl Planted {
    /// The bug's name.
    #[must_use]
    pub fn name(&self) -> String {
        match self.what {
            What::Replication(bug) => format!("{bug:?}"),
            What::Storage(bug) => format!("{bug:?}"),
            What::Session(bug) => format!("{bug:?}"),
        }
    }

    /// A profile with the bug in it.
    ///
    /// # Panics
    /// If there is no profile of that name.
    #[must_use]
    pub fn profile(&self, seed: u64, seconds: u64) -> Profile {
        let mut profile =
            Profile::draw(self.profile, seed, seconds).expect("every profile named above exists");
        self.plant(&mut profile);
        profile
    }

    /// Puts the bug into a profile.
    pub fn plant(&self, profile: &mut Profile) {
        match self.what {
            What::Replication(bug) => profile.bugs.push(bug),
            What::Storage(bug) => profile.storage_bugs.push(bug),
            What::Session(bug) => profile.session_bugs.push(bug),
        }
    }
}

/// The first seed below `seeds_max` that breaks a promise with the bug planted.
#[must_use]
pub fn seek(planted: &Planted, seeds_max: u64, seconds: u64) -> Option<(u64, Violation)> {
    (0..seeds_max).find_map(|seed| {
        let outcome = run(&planted.profile(seed, seconds), Telling::Silent);
        Some((seed, outcome.broken?))
    })
}
