//! The contract of the store, told as stories: one binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod blobs;
mod checkpoint;
mod compaction;
mod crash;
mod damage;
mod each_call_fails;
mod export;
mod faults;
mod filtered;
mod fixture;
mod foreign;
mod front;
mod fuzz;
mod model;
mod recrash;
mod repair;
mod spares;
mod stories;
mod storm;
mod walks;
mod windows;
