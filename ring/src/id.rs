//! Identities: a node, one of its lives, and the pair that names events.
//!
//! A node id is given once by the layout and never given again, not even to the same machine after
//! its data are lost. An incarnation is one life of a node: it grows by one with every start that
//! cannot prove that the previous life ended cleanly, so that no event is ever named twice.

use core::fmt;

use serde::{Deserialize, Serialize};

/// A member of the cluster, numbered by the layout; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u32);

/// One life of a node, counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub u32);

/// A node in one of its lives: the author of dots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Actor {
    /// The node.
    pub node: NodeId,
    /// Its life.
    pub incarnation: Incarnation,
}

impl Actor {
    /// The actor of `node` in life `incarnation`.
    #[must_use]
    pub const fn new(node: u32, incarnation: u32) -> Self {
        Self { node: NodeId(node), incarnation: Incarnation(incarnation) }
    }

    /// Node and incarnation in one integer whose order is the order of actors.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        ((self.node.0 as u64) << 32) | self.incarnation.0 as u64
    }

    /// The inverse of [`Actor::to_u64`].
    #[must_use]
    pub const fn from_u64(raw: u64) -> Self {
        Self::new((raw >> 32) as u32, raw as u32)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.incarnation.0)
    }
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
