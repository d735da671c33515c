//! The contract of the store, told as stories: one binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod blobs;
mod checkpoint;
mod crash;
mod damage;
mod export;
mod faults;
mod fixture;
mod foreign;
mod model;
mod repair;
mod stories;
mod storm;
