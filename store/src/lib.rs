//! store: how records lie on the engine.
//!
//! The one place where replication and storage meet; neither knows the other. The node and the
//! simulator keep their data through the same code, so that what the simulator tries is what runs.
//!
//! Reading order: [`store`], which carries out a machine's effects on one shard; [`mod@open`], what a
//! machine is told of the life before; [`search`], deltas in the retained log.

pub mod open;
pub mod search;
pub mod store;

pub use open::{Opened, open, splits};
pub use search::each_delta;
pub use store::{Folding, Store};
