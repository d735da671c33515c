//! Counters: what the mesh did since it started, for metrics and tests.

use core::cell::Cell;

/// What was counted since the start. All only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames taken from the layer above.
    pub frames_sent: u64,
    /// Frames refused to the layer above: full, too large, not connected.
    pub sends_refused: u64,
    /// Streams written by a flush.
    pub flushes: u64,
    /// Reads that yielded frames.
    pub reads: u64,
    /// Bytes read, hellos apart.
    pub bytes_read: u64,
    /// Bytes taken from the layer above and dropped with a broken connection.
    pub bytes_dropped: u64,
    /// Dials that failed.
    pub dials_failed: u64,
    /// Connections to peers made.
    pub connected: u64,
    /// Connections turned away: a certificate whose role does not allow what was tried.
    pub refused_role: u64,
    /// Connections turned away: another cluster.
    pub refused_cluster: u64,
    /// Connections turned away: not a member, or under another number.
    pub refused_unknown: u64,
    /// Connections turned away for any other reason.
    pub refused_other: u64,
    /// Second processes under the name of one that is connected and speaks.
    pub refused_second: u64,
    /// Handshakes that failed on our side, wrong authorities among them.
    pub handshakes_failed: u64,
}

macro_rules! tally {
    ($($name:ident),*) => {
        /// The cells behind [`Counters`].
        #[derive(Default)]
        pub(super) struct Tally { $(pub(super) $name: Cell<u64>),* }

        impl Tally {
            pub(super) fn read(&self) -> Counters {
                Counters { $($name: self.$name.get()),* }
            }
        }
    };
}

tally!(
    frames_sent,
    sends_refused,
    flushes,
    reads,
    bytes_read,
    bytes_dropped,
    dials_failed,
    connected,
    refused_role,
    refused_cluster,
    refused_unknown,
    refused_other,
    refused_second,
    handshakes_failed
);

impl Tally {
    pub(super) fn add(counter: &Cell<u64>, count: u64) {
        counter.set(counter.get() + count);
    }
}
