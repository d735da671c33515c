//! The contract of the store, told as stories: one binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod crash;
mod damage;
mod faults;
mod fixture;
mod foreign;
mod fuzz;
mod front;
mod model;
mod stories;
