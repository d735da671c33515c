//! The contract of the store, told as stories: one binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod around;
mod blobs;
mod checkpoint;
mod compaction;
mod crash;
mod damage;
mod deletions;
mod each_call_fails;
mod export;
mod faults;
mod faulty;
mod filtered;
mod fixture;
mod foreign;
mod forged;
mod front;
mod full_disk;
mod fuzz;
mod grown;
mod messages;
mod model;
mod model_readers;
mod narrowed;
mod obstacles;
mod recrash;
mod repair;
mod repair_cut;
mod scrub;
mod spares;
mod stories;
mod storm;
mod unreadable;
mod walks;
mod windows;
