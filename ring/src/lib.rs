//! ring: who is in the cluster and who owns which key.
//!
//! The vocabulary of placement and time, shared by every other crate. Nothing here reads a clock,
//! draws ambient randomness, opens a file or a socket: time comes in as [`Now`], chance as a seed.
//!
//! Reading order: [`id`], [`time`], [`hlc`], [`slot`], then the layout and what is computed from it.

pub mod hlc;
pub mod id;
pub mod slot;
pub mod time;

pub use hlc::{Hlc, HlcClock};
pub use id::{Actor, Incarnation, NodeId};
pub use slot::{GROUPS, SLOTS, SLOTS_PER_GROUP, Slot};
pub use time::{Instant, Now, WallMillis};
