//! Routes: which node to ask for a key, and the connections to those nodes.
//!
//! A map of the slots is fetched with the first request for a key, and again when an answer speaks of
//! a later epoch. Connections to its nodes are made in the background: a request never waits for
//! one, it goes over a connection that stands. A node that cannot be reached is left alone a while.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::{Layout, NodeId, Slot};
use tokio::time::Instant;
use tracing::debug;

use crate::dial::{Dialler, dial_any};
use crate::latency::Latency;
use crate::limits::{NO_SHARES_FOR, SHUN_FOR};
use crate::link::Link;

/// The nodes of the cluster as a client knows them.
#[derive(Default)]
pub(crate) struct Routes {
    map: Mutex<Option<Arc<Layout>>>,
    nodes: Mutex<BTreeMap<NodeId, Arc<Node>>>,
    /// Somebody is fetching the map.
    fetching: AtomicBool,
    /// The node that was asked first does not know of maps.
    unsupported: AtomicBool,
    /// The latest epoch that an answer spoke of.
    epoch_heard: AtomicU64,
    /// Reads of which no shares are to be had, until then.
    no_shares: Mutex<BTreeMap<Kind, Instant>>,
}

/// A database, and whether its reads say their level.
pub(crate) type Kind = (u16, bool);

/// A node that requests are sent to.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) latency: Latency,
    address: String,
    link: Mutex<Standing>,
}

#[derive(Default)]
struct Standing {
    link: Option<Arc<Link>>,
    dialling: bool,
    shunned_until: Option<Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Routes {
    /// Whether the map should be fetched: there is none, or a later one exists. Who is told so has
    /// to call [`Routes::fetched`].
    pub(crate) fn wants_map(&self) -> bool {
        let known = lock(&self.map).as_ref().map(|map| map.epoch.0);
        let stale = known.is_none_or(|epoch| epoch < self.epoch_heard.load(Ordering::Relaxed));
        stale
            && !self.unsupported.load(Ordering::Relaxed)
            && !self.fetching.swap(true, Ordering::AcqRel)
    }

    /// The map came, or it did not: `Err(true)` if the node does not know what a map is.
    pub(crate) fn fetched(&self, map: Result<(Layout, Vec<u32>), bool>) {
        match map {
            Ok((map, down)) => self.install(map, &down),
            Err(unsupported) => self.unsupported.store(unsupported, Ordering::Relaxed),
        }
        self.fetching.store(false, Ordering::Release);
    }

    /// An answer spoke of this epoch.
    pub(crate) fn hear_epoch(&self, epoch: u64) {
        self.epoch_heard.fetch_max(epoch, Ordering::Relaxed);
    }

    /// The epoch of the map; none before there is one.
    pub(crate) fn epoch(&self) -> Option<u64> {
        lock(&self.map).as_ref().map(|map| map.epoch.0)
    }

    fn install(&self, map: Layout, down: &[u32]) {
        debug!(epoch = %map.epoch, "a map of the slots");
        let mut nodes = lock(&self.nodes);
        nodes.retain(|id, node| map.member(*id).is_some_and(|m| m.peer == node.address));
        for (id, member) in &map.members {
            let node = nodes.entry(*id).or_insert_with(|| {
                Arc::new(Node {
                    id: *id,
                    latency: Latency::default(),
                    address: member.peer.clone(),
                    link: Mutex::default(),
                })
            });
            if down.contains(&id.0) {
                node.shun();
            }
        }
        *lock(&self.map) = Some(Arc::new(map));
    }

    /// The nodes that hold `slot`, the one to be asked first before the others: for a write in the
    /// order of preference, for a read those in `zone` before the others.
    pub(crate) fn holders(&self, slot: Slot, is_read: bool, zone: Option<&str>) -> Vec<Arc<Node>> {
        let Some(map) = lock(&self.map).clone() else { return Vec::new() };
        let nodes = lock(&self.nodes);
        let mut holders: Vec<_> =
            map.replicas(slot).iter().filter_map(|id| nodes.get(id).cloned()).collect();
        if let (true, Some(zone)) = (is_read, zone) {
            // Stable: within a zone the order of preference stays.
            holders.sort_by_key(|node| map.member(node.id).is_none_or(|m| m.zone != zone));
        }
        holders
    }

    /// The epoch of the map, and how many replicas it gives a slot.
    pub(crate) fn copies(&self, slot: Slot) -> Option<(u64, usize)> {
        lock(&self.map).as_ref().map(|map| (map.epoch.0, map.replicas(slot).len()))
    }

    /// Whether shares of such reads may be had.
    pub(crate) fn gives_shares(&self, kind: Kind) -> bool {
        let mut all = lock(&self.no_shares);
        match all.get(&kind) {
            None => true,
            Some(until) if Instant::now() < *until => false,
            Some(_) => all.remove(&kind).is_some(),
        }
    }

    /// They may not.
    pub(crate) fn gives_no_shares(&self, kind: Kind) {
        lock(&self.no_shares).insert(kind, Instant::now() + NO_SHARES_FOR);
    }

    /// Every node that there is a connection to.
    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        lock(&self.nodes).values().filter_map(|node| node.standing()).collect()
    }
}

impl Node {
    /// The connection, if it stands. If it does not, one is made in the background.
    pub(crate) fn link(
        self: &Arc<Self>,
        dialler: &Dialler,
        patience: Duration,
    ) -> Option<Arc<Link>> {
        let mut standing = lock(&self.link);
        if let Some(link) = &standing.link {
            if link.is_alive() {
                return Some(link.clone());
            }
            standing.link = None;
        }
        let shunned = standing.shunned_until.is_some_and(|until| Instant::now() < until);
        if !standing.dialling && !shunned {
            standing.dialling = true;
            let (node, dialler) = (self.clone(), dialler.clone());
            tokio::spawn(async move { node.dial(&dialler, patience).await });
        }
        None
    }

    fn standing(&self) -> Option<Arc<Link>> {
        lock(&self.link).link.clone().filter(|link| link.is_alive())
    }

    /// Nothing good came of this node lately.
    pub(crate) fn shun(&self) {
        lock(&self.link).shunned_until = Some(Instant::now() + SHUN_FOR);
    }

    async fn dial(&self, dialler: &Dialler, patience: Duration) {
        let dialled = dial_any(std::slice::from_ref(&self.address), dialler, patience).await;
        let mut standing = lock(&self.link);
        standing.dialling = false;
        match dialled {
            Ok(dialled) => {
                standing.shunned_until = None;
                standing.link = Some(Arc::new(Link::open(dialled, dialler)));
            }
            Err(error) => {
                debug!(node = %self.id, %error, "a holder of keys cannot be reached");
                standing.shunned_until = Some(Instant::now() + SHUN_FOR);
            }
        }
    }
}
