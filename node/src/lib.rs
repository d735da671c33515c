//! node: how the world reaches the decisions.
//!
//! A thin driver around pure machines: threads, sockets, clocks and disks on one side, `on_event` on
//! the other. Nothing here decides what is true; it decides when a machine runs and what leaves.
//!
//! Reading order:
//! 1. [`turn`]: one core, and what happens in which order; [`admission`] (what it takes on),
//!    [`store`] (its engine), [`tally`] (its keys), [`peers`] and
//!    [`members`] (its peers), [`front`] (its clients);
//! 2. [`driver`]: the thread of a core; [`mailbox`] and [`background`]: the other threads;
//! 3. [`Server`]: a node from its start to its [`drain`]; [`state`]: what it remembers of itself;
//!    [`checkpoints`]: what it keeps of its store;
//! 4. [`config`], [`cli`], [`demo`]: what the operator says; [`status`], [`facts`], [`hot`], [`http`],
//!    [`metrics`], [`native`]: what he hears.

pub mod allocator;
pub mod clock;
pub mod limits;
pub mod logging;

pub mod error;

pub mod checkpoints;
pub mod config;
pub mod state;

pub mod mesh;

pub mod mailbox;
pub mod slab;

pub mod admission;
pub mod tally;

pub mod members;
pub mod peers;

pub mod front;
pub mod native;
pub mod turn;
pub mod users;

pub mod background;
pub mod certificates;
pub mod drain;
pub mod driver;
pub mod shared;
pub mod slowlog;

pub mod server;

pub mod facts;
pub mod hot;

pub mod http;
pub mod metrics;
pub mod status;

pub mod shutdown;

pub mod tool;

pub mod cli;
pub mod demo;

pub use config::Config;
pub use error::Fault;
pub use server::Server;
