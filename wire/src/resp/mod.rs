//! resp: the Redis serialisation protocol, versions 2 and 3.
//!
//! Reading order: [`decode`] (requests of a client, zero-copy; inline ones through `inline`),
//! [`reply`] (what it may hear), [`mod@encode`] (that as bytes, for either version), [`double`] (how
//! a number with a point is written), [`value`] (a reply read back, for clients).

pub mod decode;
mod inline;

pub mod reply;

pub mod double;
pub mod encode;

pub mod value;

pub use decode::{Command, Decoded, Decoder, Limits, ProtocolError};
pub use double::DoubleText;
pub use encode::{Protocol, encode};
pub use reply::Reply;
pub use value::{ReplyDecoder, ReplyError, ReplyRead};
