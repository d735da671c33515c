//! The contract of the store, told as stories: one binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod compaction;
mod crash;
mod damage;
mod faults;
mod filtered;
mod fixture;
mod foreign;
mod model;
mod stories;
