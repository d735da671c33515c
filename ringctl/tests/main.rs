//! ringctl as a person sees it: the program itself, against nodes that answer as the stories want.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../client/tests/fake/mod.rs"]
mod fake;

mod bench;
mod certificates;
mod checkpoints;
mod cluster;
mod completions;
mod contexts;
mod faults;
mod keys;
mod keyspaces;
mod look;
mod nodes;
mod stage;
mod told;
