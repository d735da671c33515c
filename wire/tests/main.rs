//! The public contract of wire, in one binary.

mod codec;
mod frame;
mod fuzz;
mod reply;
mod request;
