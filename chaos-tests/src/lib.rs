//! chaos-tests: does it all hold when the world misbehaves?
//!
//! The simulator runs a whole cluster on one thread from one seed: the real replication machines and
//! the real sessions on the real storage engine, over a made-up network, clock and disk ([`sim`]).
//! Each seed draws its own mix of faults ([`profile`], [`fault`]); clients hand requests to the
//! machines, or speak RESP to sessions ([`workload`]), what they asked and heard is written down
//! ([`history`]), and every promise is checked against what was really minted ([`check`]). [`run`] plays one seed; `bin/soak` plays many.

pub mod sim;

pub mod fault;
pub mod profile;

pub mod history;
pub mod workload;

pub mod check;

pub mod run;

pub mod mutation;
