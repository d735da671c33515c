//! Counters of one machine, for metrics and for tests that ask how something came about.

/// What a machine has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Tasks minted here.
    pub writes: u64,
    /// Requests forwarded to another node.
    pub forwards: u64,
    /// Retries answered by confirming what was minted before.
    pub confirms: u64,
    /// Writes that were not acknowledged in time.
    pub unconfirmed: u64,
    /// Reads whose replicas did not agree.
    pub reads_that_differed: u64,
    /// States pushed by read repair.
    pub repairs: u64,
    /// Deltas that were here already.
    pub duplicates: u64,
    /// Deltas and states pulled while catching up.
    pub pulled: u64,
    /// Slots sent as whole state, because the log no longer reached back.
    pub states_served: u64,
    /// Messages refused.
    pub refusals: u64,
    /// Messages whose sender's clock was too far ahead.
    pub skewed_messages: u64,
    /// Messages that could not be read.
    pub unreadable_messages: u64,
    /// Changes that this node's disk failed to keep.
    pub failed_applies: u64,
    /// Rows that this node's disk could not read.
    pub failed_loads: u64,
    /// Requests in flight now.
    pub in_flight: u64,
    /// Requests for which this replica had not seen what their askers had.
    pub reads_behind: u64,
    /// Writes that left their keys with [`crate::limits::SIBLINGS_MANY`] concurrent values or more.
    pub many_siblings: u64,
    /// Names of forwarded requests remembered now.
    pub known_requests: u64,
}
