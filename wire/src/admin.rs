//! What `ringctl` shows of a cluster: one node's view of it, as plain numbers.
//!
//! Ids are numbers, sizes bytes, times milliseconds; `ringctl` renders. Every field has a default,
//! so that either side may be older than the other.

use serde::{Deserialize, Serialize};

/// The cluster as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterStatus {
    /// The cluster's identity, given when it was made.
    pub cluster: String,
    /// The cluster's name.
    pub name: String,
    /// The epoch of the layout.
    pub epoch: u64,
    /// How many copies each key has.
    pub n: u8,
    /// How many replicas a read asks by default.
    pub r: u8,
    /// How many replicas a write waits for by default.
    pub w: u8,
    /// The wire version that the reporter speaks.
    pub wire_version: u8,
    /// The members, in the order of their ids.
    pub nodes: Vec<NodeStatus>,
    /// The fraction of slots, 0 to 1, that can be read at QUORUM.
    pub slots_quorum_readable: f64,
    /// The fraction of slots, 0 to 1, that can be written at QUORUM.
    pub slots_quorum_writable: f64,
    /// The name of the node that says so.
    pub reporter: String,
}

/// A member as the reporter sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// Its number in the layout.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Where other nodes reach it: `host:port`.
    pub address: String,
    /// Where the layout has it.
    pub state: NodeState,
    /// Whether it answers the reporter.
    pub up: bool,
    /// Whether it says that it can serve: its log is replayed and it sees a quorum.
    pub ready: bool,
    /// The fraction of the ring, 0 to 1, for which it is the preferred coordinator.
    pub owns: f64,
    /// The bytes that it stores.
    pub load_bytes: u64,
    /// The keys that it keeps: live ones, as DBSIZE counts them, each once however often it was
    /// written. Without meaning if `keys_age_ms` is absent.
    pub keys: u64,
    /// How old that count may be at most, in milliseconds; absent if it has not been counted.
    pub keys_age_ms: Option<u64>,
    /// How long ago it was last heard of, in milliseconds.
    pub last_seen_ms: u64,
    /// Which of its lives this is.
    pub incarnation: u32,
    /// The version of its program.
    pub version: String,
}

/// Where the layout has a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It is a member like any other.
    #[default]
    Normal,
    /// It receives its share.
    Joining,
    /// It hands its share over.
    Leaving,
    /// It takes no client requests, and is about to stop.
    Draining,
}
