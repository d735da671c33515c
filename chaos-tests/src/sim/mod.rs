//! The made-up world: one thread, one seed, one queue of events.

pub mod chance;
pub mod clock;
pub mod disk;
pub mod front;
pub mod network;
pub mod node;
pub mod queue;
pub mod trace;
pub mod world;
