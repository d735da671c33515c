//! ringd over real sockets, files and processes.

#![allow(clippy::unwrap_used)]

// The name under which the examples of the client know it.
extern crate client as ringdb_client;

mod support;

mod single;

mod admin;
mod clients;

mod refusals;

mod demo;

mod native;
mod operating;
mod storage;
