//! wire: what is said between a client and a node, and between nodes, as bytes.
//!
//! Bytes in, values out, and back; nothing here reads a clock, a socket or a file, and no decoder
//! trusts its input: whatever arrives, it yields a value, asks for more bytes, or names the error.
//!
//! Two languages are spoken. Redis clients speak RESP 2 or 3 ([`resp`]). Nodes, `ringctl` and the
//! native client speak *frames* ([`frame`]): a fixed binary header, then MessagePack with named
//! fields ([`codec`]). What nodes say to each other about copies lives beside the machines that
//! say it; this crate only carries it.
//!
//! Reading order:
//! 1. [`limits`]: how big anything may be, and why those bounds agree with each other;
//! 2. [`resp`]: [`resp::Decoder`] (requests, zero-copy), [`resp::Reply`] and its encoder, and
//!    [`resp::ReplyDecoder`] for the client's side;
//! 3. [`frame`]: [`FrameWriter`] builds frames in place, [`FrameDecoder`] reads them in place;
//! 4. [`hello`]: what both ends of a connection say first;
//! 5. [`codec`]: the only call to the MessagePack library;
//! 6. [`request`], [`reply`], [`admin`], [`operate`]: the native client's vocabulary, and `ringctl`'s;
//!    [`moment`]: when what follows was made; [`ack`]: what replicas tell a client;
//! 7. [`fuzz`]: the properties that must hold for any bytes whatever.
//!
//! Every incremental decoder keeps one contract: it is called with all bytes since the last one it
//! consumed, remembers how far it has looked, and so does work in proportion to the bytes that
//! arrived, however they were cut.

pub mod limits;

pub mod resp;

pub mod frame;

pub mod hello;

pub mod codec;

pub mod ack;
pub mod admin;
pub mod moment;
pub mod operate;
pub mod reply;
pub mod request;

pub mod fuzz;

pub use ack::Ack;
pub use admin::{ClusterStatus, NodeStatus};
pub use codec::CodecError;
pub use frame::{Frame, FrameDecoder, FrameError, FrameWriter, Header, Kind};
pub use hello::{Hello, Purpose, Versions};
pub use operate::{AdminReply, AdminRequest};
pub use reply::{ClientReply, ErrorCode, ErrorReply};
pub use request::{ClientRequest, Durability, Level, Name};
