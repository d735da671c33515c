//! Registry: who is connected to the Redis port, for CLIENT LIST, CLIENT KILL and the count.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use commands::{ClientFacts, ClientLine, KillFilter};
use ring::Instant;

use crate::slab::Key;

/// A connection as everybody may see it.
#[derive(Clone, Debug)]
struct Entry {
    facts: ClientFacts,
    address: SocketAddr,
    local: SocketAddr,
    since: Instant,
    heard: Instant,
    core: usize,
    key: Key,
}

/// All connections of the node.
#[derive(Debug, Default)]
pub struct Registry {
    entries: Mutex<BTreeMap<u64, Entry>>,
    count: AtomicU32,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed) as usize
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a place for one more, if there are fewer than `most`.
    pub fn enter(&self, most: u32) -> bool {
        let more = |count: u32| (count < most).then_some(count + 1);
        self.count.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).is_ok()
    }

    /// The connection that took a place did not come to be.
    pub fn give_back(&self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }

    /// A connection that took a place.
    pub fn add(
        &self,
        facts: ClientFacts,
        (address, local): (SocketAddr, SocketAddr),
        since: Instant,
        (core, key): (usize, Key),
    ) {
        let entry = Entry { address, local, since, heard: since, core, key, facts };
        self.lock().insert(entry.facts.id, entry);
    }

    /// A connection is gone.
    pub fn remove(&self, id: u64) {
        if self.lock().remove(&id).is_some() {
            self.give_back();
        }
    }

    /// A session says something new of itself.
    pub fn client_is(&self, facts: &ClientFacts) {
        if let Some(entry) = self.lock().get_mut(&facts.id) {
            entry.facts = facts.clone();
        }
    }

    /// When connections last sent something.
    pub fn heard(&self, of: impl Iterator<Item = (u64, Instant)>) {
        let mut entries = self.lock();
        for (id, heard) in of {
            if let Some(entry) = entries.get_mut(&id) {
                entry.heard = heard;
            }
        }
    }

    /// The address of a connection; empty if it is gone.
    #[must_use]
    pub fn address_of(&self, id: u64) -> String {
        self.lock().get(&id).map(|entry| entry.address.to_string()).unwrap_or_default()
    }

    /// Every connection.
    #[must_use]
    pub fn lines(&self, now: Instant) -> Vec<ClientLine> {
        self.lock().values().map(|e| e.line(now)).collect()
    }

    /// Those that the filter means: their cores and their places there.
    #[must_use]
    pub fn meant_by(&self, filter: &KillFilter, now: Instant) -> Vec<(usize, Key)> {
        let entries = self.lock();
        let meant = entries.values().filter(|e| filter.fits(&e.line(now)));
        meant.map(|e| (e.core, e.key)).collect()
    }
}

impl Entry {
    fn line(&self, now: Instant) -> ClientLine {
        ClientLine {
            facts: self.facts.clone(),
            address: self.address.to_string(),
            local_address: self.local.to_string(),
            age_s: now.since(self.since).as_secs(),
            idle_s: now.since(self.heard).as_secs(),
        }
    }
}
