//! commands: what a Redis client may ask of a node, as a machine without clock, socket or disk.
//!
//! One [`Session`] is one connection. Decoded commands and the answers of [`replication::Peer`] go
//! in; bytes for the client, in the order of its commands, and requests for the peer come out. The
//! node and the simulator drive the same machine; what it needs to know of its surroundings it asks
//! of a [`Host`].
//!
//! Reading order:
//! 1. [`session`]: the machine; `pending` (who waits for whom, and in which order replies leave);
//! 2. `table`: every command there is, with the function that understands it;
//! 3. `job`: what a command does once it runs; `ops`, the ordinary case (ops on keys), and
//!    `shape`, how their outcomes become a reply;
//! 4. one file a family of commands: `strings`, `counters`, `expiry`, `keys`, `ring_face`,
//!    `scan`, `whole`, `transactions`, `connection`, `client`, `server`, `info`,
//!    `introspection`;
//! 5. [`acl`]: who may do which of it;
//! 6. [`host`], [`config`], [`stats`]: the surroundings; [`errors`], `token`, [`glob`],
//!    `args`, [`limits`]; [`bugs`], what the simulator plants.

pub mod acl;

mod args;
mod client;
mod connection;
mod counters;
mod expiry;
mod info;
mod introspection;
mod job;
mod keys;
mod levels;
mod ops;
mod pending;
mod ring_face;
mod scan;
mod server;
mod shape;
mod strings;
mod table;
mod token;
mod transactions;
mod turn;
mod whole;
mod window;

pub mod bugs;
pub mod config;
pub mod errors;
pub mod glob;
pub mod host;
pub mod limits;
pub mod session;
pub mod stats;

pub use bugs::Bug;
pub use config::ConfigTable;
pub use errors::Fault;
pub use host::{
    ClientFacts, ClientLine, DenialLine, Host, KillFilter, NodeFacts, PlainHost, Slow, SlowLine,
    User,
};
pub use levels::Levels;
pub use session::{CrossSlot, Output, Session, SessionDefaults, Submit};
pub use stats::{CommandCount, Stats};
