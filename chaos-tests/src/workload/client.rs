//! Clients: each speaks to one node at a time and asks one thing after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use replication::DotSet;
use replication::row::Row;
use ring::Slot;

/// A key of a client's own that expires: what must be true of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Never written.
    Fresh,
    /// There, until the deadline (true wall time, in milliseconds, between these two) if it has one.
    There(Option<(u64, u64)>),
}

/// A key that only one client writes.
#[derive(Clone, Copy, Debug)]
pub struct OwnKey {
    /// How many such keys the client has given up.
    pub generation: u64,
    /// What must be true of this one.
    pub fate: Fate,
    /// How many replicas acknowledged the write that made it so: a read meets that write only if it
    /// asks more than the others.
    pub written: u8,
    /// The latest deadline that was written at ONE. The next writer need not have seen such a write,
    /// and of deadlines that did not know of each other the later one counts: until then the key may
    /// be there.
    pub outlives: u64,
}

impl OwnKey {
    /// The first key.
    #[must_use]
    pub const fn new() -> Self {
        Self { generation: 0, fate: Fate::Fresh, written: 0, outlives: 0 }
    }

    /// Its state is in doubt: takes a new one.
    pub const fn give_up(&mut self) {
        self.generation += 1;
        self.fate = Fate::Fresh;
        self.written = 0;
        self.outlives = 0;
    }
}

impl Default for OwnKey {
    fn default() -> Self {
        Self::new()
    }
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
    /// The requests whose values it was shown with them, where siblings are kept.
    pub shown: BTreeMap<Row, Rc<[u64]>>,
    /// Its own key.
    pub own: OwnKey,
    /// Its scan.
    pub scanning: Option<Scanning>,
    /// What it has seen, if it is a session with tokens.
    pub session: Seen,
}

/// What a session has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Tokens, by slot.
    pub tokens: BTreeMap<Slot, DotSet>,
    /// Requests that were done for it, or whose values it was shown; in order.
    pub requests: BTreeSet<u64>,
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
            shown: BTreeMap::new(),
            own: OwnKey::new(),
            scanning: None,
            session: Seen { tokens: BTreeMap::new(), requests: BTreeSet::new() },
        }
    }

    /// Goes to another node: what it knows only of its session is forgotten.
    pub fn moves_to(&mut self, node: usize) {
        self.node = node;
        self.own.give_up();
        self.scanning = None;
    }
}
