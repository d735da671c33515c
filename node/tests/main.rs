//! ringd over real sockets, files and processes.

#![allow(clippy::unwrap_used)]

mod support;

mod single;

mod clients;

mod refusals;

mod demo;

mod native;
mod operating;
mod storage;
