//! Planted bugs: mistakes that the simulator must find, chosen at run time.
//!
//! One build holds them all, so that the code that is tested is the code that ships. Nothing but the
//! simulator sets one; a node refuses to start with any.

/// A mistake that can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// Acknowledgements are counted instead of distinct acknowledgers.
    CountsAcks,
    /// A state answer pairs a record with a clock that was read after it.
    ClockAfterKey,
    /// An unclean start goes on with the old incarnation and numbers dots from what it recovered.
    ReusesDots,
    /// A delta with a gap before it raises the clock as if nothing were missing.
    MaximumOnReceipt,
    /// A retried request is minted again wherever it arrives.
    MintsRetries,
    /// State is joined as if the sender had seen no more than what it sends.
    ForgetsSeen,
    /// A reset wipes the counter instead of remembering what it saw.
    ResetWipes,
    /// Requests of an older layout are accepted.
    AcceptsStaleEpoch,
    /// A returning replica serves before it has pulled what it missed.
    ServesBeforePull,
    /// A read answers without waiting for its repair.
    SkipsRepair,
    /// A deletion forgets what it discarded but had not received.
    DropsPending,
    /// The clock takes over a peer's clock before all of the slot's state has come.
    ClockBeforeState,
    /// A transaction that was done and is asked for again is stopped by what it wrote itself.
    WatchesRetries,
    /// What a session has seen is not looked at.
    IgnoresTokens,
    /// A named request is carried out by whoever is asked, not only by the process that was asked first.
    MintsForAnyone,
    /// Where siblings are kept, a plain SET replaces those that its coordinator has seen.
    SetReplacesSiblings,
    /// A client that gathers a read takes the first share that has a value for the answer.
    TrustsOneShare,
    /// A client that hears the replicas of a write itself takes the first one that tells it for all that it takes.
    TrustsOneAck,
    /// A memtable is flushed before what only its log told is in rows.
    FlushesUnsaved,
    /// A replica tells a client that it holds a write which it refused.
    TellsRefused,
    /// A replica tells a client of a write though it waits no more.
    TellsLate,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::CountsAcks,
        Self::ClockAfterKey,
        Self::ReusesDots,
        Self::MaximumOnReceipt,
        Self::MintsRetries,
        Self::ForgetsSeen,
        Self::ResetWipes,
        Self::AcceptsStaleEpoch,
        Self::ServesBeforePull,
        Self::SkipsRepair,
        Self::DropsPending,
        Self::ClockBeforeState,
        Self::WatchesRetries,
        Self::IgnoresTokens,
        Self::MintsForAnyone,
        Self::SetReplacesSiblings,
        Self::TrustsOneShare,
        Self::TrustsOneAck,
        Self::FlushesUnsaved,
        Self::TellsRefused,
        Self::TellsLate,
    ];
}
