//! ringd over real sockets, files and processes.

#![allow(clippy::unwrap_used)]

mod support;

mod single;

mod admin;
mod clients;

mod refusals;

mod demo;

mod native;
mod storage;
