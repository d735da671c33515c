//! resp: the Redis serialisation protocol, versions 2 and 3.
//!
//! Reading order: [`decode`] (requests of a client, zero-copy), [`reply`] (what it may hear),
//! [`encode`] (that as bytes, for either version), [`value`] (a reply read back, for clients).

pub mod decode;
pub mod reply;

pub mod encode;
pub mod value;

pub use decode::{Command, Decoded, Decoder, Limits, ProtocolError};
pub use encode::{Protocol, encode};
pub use reply::Reply;
pub use value::{ReplyDecoder, ReplyError, ReplyRead};
