//! The client against real QUIC on this machine, and nodes that answer as the stories want it.

mod fake;

mod contexts;
mod faults;
mod requests;
