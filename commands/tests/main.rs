//! Stories told to a session: what goes in, and every byte that comes out.

extern crate ringdb_commands as commands;

mod acl;
mod differential;
mod model;
mod order;
mod overload;
mod redis_face;
mod ring_face;
mod story;
mod transactions;
