//! The mesh over real QUIC on loopback: order, limits, restarts, and who is turned away.

#![allow(clippy::unwrap_used)]

mod admission;
mod flow;
mod restart;
mod story;
