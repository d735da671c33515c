//! ring: who is in the cluster and who owns which key.
//!
//! The vocabulary of placement and time, shared by every other crate. Nothing here reads a clock,
//! draws ambient randomness, opens a file or a socket: time comes in as [`Now`], chance as a seed.
//!
//! Reading order: [`id`], [`time`], [`hlc`], [`slot`]; then [`layout`], the members and the table of
//! slots, and [`mod@assign`], which computes that table; [`keyspace`], how many of a slot's
//! nodes must answer, and [`agreement`], whether those hold the same, [`confirmation`], when
//! they hold what was written; [`register`], what administrators changed of that while the cluster runs, and
//! [`exchange`], how all nodes come to know it, and [`vacancy`], whether a keyspace may have other copies; and [`liveness`], which of them seem to be up. Every bound is in [`limits`].

pub mod id;
pub mod time;

pub mod hlc;
pub mod slot;

pub mod layout;

pub mod assign;

pub mod keyspace;

pub mod agreement;
pub mod confirmation;

pub mod register;

pub mod exchange;

pub mod vacancy;

pub mod liveness;

pub mod limits;

pub use agreement::{Agreement, Verdict};
pub use assign::{Diff, assign, diff};
pub use confirmation::{Confirmation, WriteId};
pub use hlc::{Hlc, HlcClock};
pub use id::{Actor, Incarnation, NodeId};
pub use keyspace::{Conflict, Durability, KeyspacePolicy, Level, LevelError, Needs, ReplicaSet};
pub use layout::{ClusterId, Epoch, Layout, LayoutError, Member, SlotRange, Table};
pub use liveness::{Liveness, NodeState};
pub use register::{Policies, Register, Scope, Setting};
pub use slot::{GROUPS, SLOTS, SLOTS_PER_GROUP, Slot};
pub use time::{Instant, Now, WallMillis};
