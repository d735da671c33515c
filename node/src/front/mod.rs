//! The Redis face: listeners, connections, and what sessions ask of the node.
//!
//! Reading order: [`listen`] (who may come in), [`conn`] (bytes in, bytes out), [`host`] (facts for
//! sessions), [`registry`] (who is connected).

pub mod listen;

pub mod backlog;
pub mod conn;

pub mod host;
pub mod registry;
pub mod tls;
