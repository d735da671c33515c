//! The client against real QUIC on this machine, and nodes that answer as the stories want it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fake;

mod acks;
mod contexts;
mod direct;
mod faults;
mod requests;
mod routes;
