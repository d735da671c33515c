//! client: how a program talks to a cluster.
//!
//! ```no_run
//! # async fn hello() -> Result<(), Box<dyn std::error::Error>> {
//! use ringdb_client::{Client, Level, Tls, TlsFiles};
//!
//! let tls = Tls::load(&TlsFiles {
//!     ca: "ringdb-demo/certs/ca.pem".into(),
//!     cert: "ringdb-demo/certs/client.pem".into(),
//!     key: "ringdb-demo/certs/client.key".into(),
//! })?;
//! let ring = Client::connect(["127.0.0.1:7101", "127.0.0.1:7102"], tls).await?;
//! let read = ring.get("cart:42").consistency(Level::Quorum).await?;
//! ring.put("cart:42", "two apples").context(read.context()).await?;
//! ring.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! A client and its clones share one connection to each node. A request for a key goes to a node that
//! holds it, by a map of the slots that is fetched with the first request and again whenever an
//! answer speaks of a later one; whatever else is asked, and what finds no such node at hand, goes
//! to the node that answered first. A read whose node is slow is asked of another one too, within a
//! budget. Dropping a future cancels its request, here and at the node. The context of a read is opaque: hand it to the write that replaces what was read, and
//! concurrent writes show as several values instead of being lost.
//!
//! Reading order: [`Client`]; [`request`] (what may be said of one request); [`Tls`];
//! [`ClientError`]; [`context`](mod@context), the file in which `ringctl` finds its clusters.

mod client;
mod start;

pub mod request;

mod causal;
mod counter;
mod key;
mod many;
mod name;
mod named;
mod range;
mod session;
mod span;
mod terms;

mod budget;
mod latency;
mod routes;

mod tls;

mod error;

mod acks;
mod dial;
mod direct;
mod link;
mod sockets;

mod operate;

pub mod context;

pub mod limits;

pub use causal::{Context, Read};
pub use client::{Client, Contact, Owners, Patience, Settings, Tally};
pub use counter::{Add, Counter, CounterValue};
pub use error::{Attempt, ClientError, Told};
pub use futures_core::Stream;
pub use key::Key;
pub use many::GetMany;
pub use name::Name;
pub use range::{DeleteRange, Range, Row, Rows};
pub use session::{NotASession, Session};
pub use span::{HalfOpen, SortRange};
pub use tls::Tls;

pub use certs::{CertError, Identity, Role, TlsFiles};
pub use ring::slot::hash_tag;
pub use ring::{Layout, NodeId, Slot};
pub use wire::admin::{ClusterStatus, NodeState, NodeStatus};
pub use wire::frame::{WIRE_VERSION, WIRE_VERSION_MIN};
pub use wire::operate::{
    AdminReply, AdminRequest, BigKey, BigKeys, CheckpointFacts, CopyValue, Emptiness, HotKey,
    HotKeys, KeyCopy, KeyspaceChange, KeyspaceChanged, KeyspaceFacts, NodeFacts, StoreFacts,
};
pub use wire::reply::Owner;
pub use wire::{Durability, Level, Versions};
