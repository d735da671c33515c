//! Faults: what the world does to a cluster, and how often.

use crate::sim::clock::{MS, SECOND};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process dies and starts again.
    Kill,
    /// A machine loses power.
    Power,
    /// All machines lose power at the same moment.
    PowerEverywhere,
    /// A process is stopped in good order and starts again.
    Stop,
    /// The nodes fall into two groups that do not reach each other.
    Split,
    /// One direction between two nodes goes dead.
    OneWay,
    /// A connection breaks.
    Reset,
    /// A process stands still.
    Pause,
    /// A wall clock jumps.
    Jump,
    /// The next fsync of a disk fails.
    SyncFails,
    /// A disk is full for a while.
    Full,
    /// A byte of a log rots while its node is down.
    Rot,
    /// A node hears of other terms of its keyspaces: those of the profile, or stricter ones.
    Terms,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::Kill,
        Self::Power,
        Self::PowerEverywhere,
        Self::Stop,
        Self::Split,
        Self::OneWay,
        Self::Reset,
        Self::Pause,
        Self::Jump,
        Self::SyncFails,
        Self::Full,
        Self::Rot,
        Self::Terms,
    ];
}

/// How often each fault happens: mean intervals in nanoseconds; a kind that is absent never does.
#[derive(Clone, Debug, Default)]
pub struct Rates(Vec<(Fault, u64)>);

impl Rates {
    /// Adds a fault with its mean interval in seconds.
    pub fn set(&mut self, fault: Fault, seconds: u64) {
        self.0.retain(|(f, _)| *f != fault);
        self.0.push((fault, seconds * SECOND));
    }

    /// Never again.
    pub fn never(&mut self, fault: Fault) {
        self.0.retain(|(f, _)| *f != fault);
    }

    /// The mean interval of a fault, in nanoseconds.
    #[must_use]
    pub fn interval(&self, fault: Fault) -> Option<u64> {
        self.0.iter().find(|(f, _)| *f == fault).map(|(_, ns)| *ns)
    }

    /// The kinds that happen.
    pub fn kinds(&self) -> impl Iterator<Item = Fault> + '_ {
        self.0.iter().map(|(f, _)| *f)
    }
}

/// The shortest time for which a fault lasts.
pub const SHORTEST: u64 = 5 * MS;
