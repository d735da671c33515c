//! Ack: what a replica says to a client about a write that another node coordinates.
//!
//! A client that asks for it (see [`Name::direct`](crate::Name)) hears each replica to which it is connected, and
//! need not wait until its coordinator has heard them. Promise: whoever says so holds the write as durably as was asked,
//! and so does the coordinator.
//! Acks that a client does not know what to do with are to be passed over.

use serde::{Deserialize, Serialize};

use crate::reply::ClientReply;

/// One write, in the body of a frame of kind [`ACKS`](crate::Kind::ACKS): one behind the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// The client's number of the request: [`Name::n`](crate::Name).
    #[serde(rename = "n")]
    pub n: u64,
    /// The node that coordinates it.
    #[serde(rename = "c")]
    pub coordinator: u32,
    /// That node's number of the write.
    #[serde(rename = "w")]
    pub write: u64,
    /// So many replicas have to say so, none of them the coordinator.
    #[serde(rename = "r")]
    pub needed: u8,
    /// What the coordinator would reply.
    #[serde(rename = "a")]
    pub reply: ClientReply,
}
