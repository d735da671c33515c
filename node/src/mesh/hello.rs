//! Hello: the first bytes of every stream, each way; the format is [`wire::hello`]'s.

pub use ring::ClusterId;
pub use wire::hello::{HELLO_BYTES, Hello, Purpose, Versions};
