//! Peer: the replication machine of one core of a node.
//!
//! It coordinates requests for slots of its core, answers its peers about them, and brings a
//! returning replica up to date.

use std::sync::Arc;

use ring::keyspace::KeyspacePolicy;
use ring::{Actor, Hlc, Instant, Layout, Now, WallMillis};

use crate::bugs::Bug;
use crate::event::{Event, Outbox, RowChange};
use crate::row::Keyspace;

/// What a machine is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who it mints for: this node in this life.
    pub me: Actor,
    /// Which core this is, and of how many.
    pub core: u8,
    /// How many cores the node uses.
    pub cores: u8,
    /// The layout in force.
    pub layout: Arc<Layout>,
    /// The policy of keyspaces that have none of their own.
    pub default_policy: KeyspacePolicy,
    /// Policies of single keyspaces.
    pub policies: Vec<(Keyspace, KeyspacePolicy)>,
    /// The ceiling of the hybrid clock that the previous life left on disk: no stamp below it.
    pub hlc_floor: WallMillis,
    /// The ceiling that is on disk now.
    pub hlc_ceiling: WallMillis,
    /// True if acknowledged writes may be lost: the machine lost power, or the log is damaged. The
    /// replica then answers nothing before it has pulled from every other replica.
    pub amnesia: bool,
    /// Chance for choosing peers and spreading retries.
    pub seed: u64,
    /// Planted bugs; empty but in the simulator.
    pub bugs: Vec<Bug>,
}

/// What is learned from the log and the clock rows before a machine starts: slot clocks and the
/// window of known requests.
#[derive(Clone, Debug, Default)]
pub struct Recovery {}

impl Recovery {
    /// Nothing recovered yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A change found in the log, or a clock row found in the tables; in any order.
    pub fn learn(&mut self, _change: &RowChange) {}
}

/// The machine.
#[derive(Debug)]
pub struct Peer {}

impl Peer {
    /// A machine that has recovered this.
    #[must_use]
    pub fn new(_config: Config, _recovery: Recovery) -> Self {
        Self {}
    }

    /// Something happened at `now`; what follows from it is appended to `out`.
    pub fn on_event(&mut self, _now: Now, _event: Event, _out: &mut Outbox) {}

    /// When [`Event::Tick`] is due, if nothing else happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// The stamp to put on a frame that leaves now.
    #[must_use]
    pub fn hlc(&self, _now: Now) -> Hlc {
        Hlc(0)
    }

    /// Clock rows of every slot that changed since the last call: to be applied just before the
    /// engine's memtable becomes immutable, so that the log behind it can go.
    pub fn checkpoint(&mut self) -> Vec<RowChange> {
        Vec::new()
    }
}
