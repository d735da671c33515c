//! Clients: each speaks to one node at a time and asks one thing after the other.

use std::collections::BTreeMap;

use bytes::Bytes;
use replication::row::Row;
use ring::Slot;

/// A key of a client's own that expires: what must be true of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Never written.
    Fresh,
    /// There, until the deadline (true wall time, in milliseconds) if it has one.
    There(Option<u64>),
}

/// A scan under way.
#[derive(Clone, Debug)]
pub struct Scanning {
    /// When it began.
    pub since: u64,
    /// The group's last slot.
    pub last: Slot,
    /// Where to go on.
    pub from: (Slot, u64),
    /// Keys found so far.
    pub found: Vec<Bytes>,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    /// The node that it speaks to.
    pub node: usize,
    /// Which process of that node it has spoken to last.
    pub life: u64,
    /// The request under way.
    pub busy: Option<u64>,
    /// The last value that it set on each key: request and process.
    pub last_set: BTreeMap<Row, (u64, usize, u64)>,
    /// Contexts that it has read.
    pub contexts: BTreeMap<Row, Bytes>,
    /// How many keys of its own it has given up.
    pub generation: u64,
    /// What must be true of its own key.
    pub fate: Fate,
    /// Its scan.
    pub scanning: Option<Scanning>,
}

impl Client {
    /// A client of `node`.
    #[must_use]
    pub const fn new(node: usize) -> Self {
        Self {
            node,
            life: 0,
            busy: None,
            last_set: BTreeMap::new(),
            contexts: BTreeMap::new(),
            generation: 0,
            fate: Fate::Fresh,
            scanning: None,
        }
    }

    /// Goes to another node: what it knows only of its session is forgotten.
    pub fn moves_to(&mut self, node: usize) {
        self.node = node;
        self.gives_up_key();
        self.scanning = None;
    }

    /// Its own key's state is in doubt: takes a new one.
    pub const fn gives_up_key(&mut self) {
        self.generation += 1;
        self.fate = Fate::Fresh;
    }
}
