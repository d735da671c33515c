//! Planted bugs: mistakes of sessions that the simulator must find, chosen at run time.
//!
//! As in `replication`: one build holds them all, and nothing but the simulator sets one.

/// A mistake that can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// A reply leaves as soon as it is known, before those of earlier commands.
    AnswersOutOfTurn,
    /// A transaction looks at watched keys only in the slots that it writes to.
    WatchForgetsOtherSlots,
    /// The commands of a transaction are carried out one after the other.
    ExecInParts,
    /// The cursor of a scan leaves a slot that was cut, and goes on with the next one.
    ScanSkipsCutSlot,
    /// A command over several slots tells what the first slot that failed told.
    TellsFirstFailure,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::AnswersOutOfTurn,
        Self::WatchForgetsOtherSlots,
        Self::ExecInParts,
        Self::ScanSkipsCutSlot,
        Self::TellsFirstFailure,
    ];
}
