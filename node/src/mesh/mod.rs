//! The mesh: frames between nodes over QUIC, and requests of clients that come in the same way.
//!
//! One connection for each ordered pair of nodes: every node dials every other, sends on what it
//! dialled, and receives on what it accepted. A connection has two lanes, each one long-lived
//! stream: [`Lane::Fast`] for small frames, [`Lane::Bulk`] for transfers that must not delay them.
//! What a frame holds is not the mesh's business.
//!
//! Promises:
//! * Frames of one lane to one peer arrive in order, at most once, whole, until
//!   [`MeshHandler::on_closed`]; what was not delivered by then is lost and never replayed.
//!   Repair and time-outs belong to the layer above.
//! * [`Mesh::send`] never waits and never grows without bound: above the limit it refuses.
//! * Nothing leaves before [`Mesh::flush`], and the reader flushes after every
//!   [`MeshHandler::on_frames`]: all replies to one read leave together.
//! * Peer frames come only from holders of a node's certificate, under the number that the layout
//!   gives to that name; a client's certificate opens nothing but a client's stream.
//!
//! Everything runs on one thread, in a `LocalRuntime` or `LocalSet`; handlers need not be `Send`.
//! Absent on purpose: request and reply matching, compression, liveness (heartbeats above decide).
//!
//! Reading order: [`Mesh`], [`MeshHandler`], [`lane`](Lane), then dial and accept.

mod accept;
mod client;
mod counters;
mod dial;
mod endpoint;
mod hello;
mod lane;
pub mod limits;
mod refusal;

use core::cell::{Cell, RefCell};
use core::fmt;
use core::task::{Context, Poll};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use certs::{CertError, Credentials};
use ring::NodeId;
use tokio::task::spawn_local;

pub use client::ClientConn;
pub use counters::Counters;
pub use dial::{LinkStatus, Path};
pub use endpoint::Tuning;
pub use hello::{ClusterId, HELLO_BYTES, Hello, Purpose, Versions};
pub use lane::{Frames, Lane, SendError};
pub use refusal::{Ending, Refusal};

use counters::Tally;
use dial::Link;
use endpoint::Ends;
use lane::Outbox;

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its number in the layout.
    pub id: NodeId,
    /// Its name, as its certificate says it.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
}

/// What a mesh needs to start.
#[derive(Clone, Debug)]
pub struct MeshConfig {
    /// This node's number.
    pub me: NodeId,
    /// Where to listen, and from where to dial.
    pub listen: SocketAddr,
    /// The cluster; nodes of another one are refused.
    pub cluster: ClusterId,
    /// The versions of the frames that this process reads and writes.
    pub wire: Versions,
    /// This node's certificate and the cluster's authority.
    pub credentials: Credentials,
    /// The other nodes; may change later.
    pub peers: Vec<Peer>,
    /// How QUIC is set.
    pub tuning: Tuning,
}

/// What the mesh tells the layer above. All calls come on the mesh's own thread, one at a time, and
/// may use the mesh.
pub trait MeshHandler {
    /// All complete frames of one read of `lane` from `from`, at least one. Frames are flushed
    /// after it returns.
    fn on_frames(&self, mesh: &Mesh, from: NodeId, lane: Lane, frames: Frames<'_>);

    /// Frames to `peer` can be sent now, in version `wire` or older.
    fn on_connected(&self, mesh: &Mesh, peer: NodeId, wire: u8) {
        let _ = (mesh, peer, wire);
    }

    /// `peer` is connected anew, a process that calls itself `boot`: its frames follow.
    fn on_accepted(&self, mesh: &Mesh, peer: NodeId, boot: u64) {
        let _ = (mesh, peer, boot);
    }

    /// The connection to `peer` is gone; it is dialled again. `dropped` bytes had been taken by
    /// [`Mesh::send`] and never left; of those that left the last may not have arrived.
    fn on_closed(&self, mesh: &Mesh, peer: NodeId, ending: &Ending, dropped: usize) {
        let _ = (mesh, peer, ending, dropped);
    }

    /// `peer` refuses this process, since another one with its name is connected to it and speaks.
    /// It is asked again.
    fn on_second(&self, mesh: &Mesh, peer: NodeId, why: &str) {
        let _ = (mesh, peer, why);
    }

    /// All complete frames of one read from a client or administrator, at least one.
    fn on_client(&self, mesh: &Mesh, client: &ClientConn, frames: Frames<'_>) {
        let _ = (mesh, frames);
        client.close(Refusal::WrongRole, "clients are not served here");
    }

    /// Ready when more may be read of clients; until then they wait. `turn` is the caller's own, for as
    /// long as it lives, and 0 at first.
    fn poll_room(&self, cx: &mut Context<'_>, turn: &mut u64) -> Poll<()> {
        let _ = (cx, turn);
        Poll::Ready(())
    }

    /// A client or administrator is connected; replies to it can be sent now.
    fn on_client_connected(&self, mesh: &Mesh, client: &ClientConn) {
        let _ = (mesh, client);
    }

    /// A client is gone; replies to it are refused from now on.
    fn on_client_closed(&self, mesh: &Mesh, client: &ClientConn, ending: &Ending) {
        let _ = (mesh, client, ending);
    }
}

/// Why a mesh could not start.
#[derive(Debug)]
pub enum MeshError {
    /// The address cannot be listened on: in use, or not of this machine.
    Bind {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The certificates do not do.
    Certificates(CertError),
    /// The settings contradict each other.
    Config {
        /// How.
        detail: String,
    },
}

/// A handle on the mesh; clones are the same mesh.
#[derive(Clone)]
pub struct Mesh {
    inner: Rc<Inner>,
}

struct Inner {
    me: NodeId,
    cluster: ClusterId,
    cluster_name: String,
    wire: Versions,
    /// Which start of this process.
    boot: u64,
    ends: Ends,
    links: RefCell<BTreeMap<NodeId, Rc<Link>>>,
    handler: Rc<dyn MeshHandler>,
    tally: Tally,
    unflushed: RefCell<Vec<Rc<Outbox>>>,
    refusals_logged: RefCell<BTreeSet<(String, Refusal)>>,
    accepted: Cell<usize>,
    clients_seen: Cell<u64>,
    closing: Cell<bool>,
}

impl Mesh {
    /// Binds the socket, begins to dial every peer and to accept. To be called inside a
    /// `LocalRuntime` or `LocalSet`.
    ///
    /// # Errors
    /// [`MeshError`]; nothing runs then.
    pub fn start(config: MeshConfig, handler: Rc<dyn MeshHandler>) -> Result<Self, MeshError> {
        let MeshConfig { me, listen, cluster, wire, credentials, peers, tuning } = config;
        let identity = credentials.identity();
        let others = peers.iter().map(|peer| (peer.id, peer.name.as_str()));
        if let Some(detail) = why_not_own(me, identity, others) {
            return Err(MeshError::Config { detail });
        }
        let ends = Ends::bind(listen, &credentials, &tuning)?;
        let mesh = Self {
            inner: Rc::new(Inner {
                me,
                cluster,
                cluster_name: identity.cluster.clone(),
                wire,
                boot: rand::random(),
                ends,
                links: RefCell::default(),
                handler,
                tally: Tally::default(),
                unflushed: RefCell::default(),
                refusals_logged: RefCell::default(),
                accepted: Cell::new(0),
                clients_seen: Cell::new(0),
                closing: Cell::new(false),
            }),
        };
        for peer in peers {
            mesh.set_peer(peer);
        }
        spawn_local(accept::accept_all(mesh.clone()));
        Ok(mesh)
    }

    /// This node's number.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.inner.me
    }

    /// Where the mesh listens; tells the port if it was left to the system.
    ///
    /// # Errors
    /// What the system says, which it does only for a broken socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.ends.endpoint.local_addr()
    }

    /// Adds a peer, or moves one to another address. One with another name takes the old one's
    /// place.
    pub fn set_peer(&self, peer: Peer) {
        if peer.id == self.inner.me || self.inner.closing.get() {
            return;
        }
        let known = self.inner.links.borrow().get(&peer.id).cloned();
        match known {
            Some(link) if link.name == peer.name => link.move_to(peer.address),
            _ => {
                self.remove_peer(peer.id);
                let link = Rc::new(Link::new(peer, self.inner.ends.tuning.queue_bytes_max));
                self.inner.links.borrow_mut().insert(link.id, link.clone());
                spawn_local(dial::dial_for_ever(self.clone(), link));
            }
        }
    }

    /// Forgets a peer and closes what leads to it and from it.
    pub fn remove_peer(&self, peer: NodeId) {
        let removed = self.inner.links.borrow_mut().remove(&peer);
        if let Some(link) = removed {
            link.remove();
        }
    }

    /// Appends the frame that `write` appends to the buffer for `to`. Does not wait; leaves with
    /// the next [`Mesh::flush`]. `write` must leave alone what the buffer holds already, and must
    /// not use the mesh.
    ///
    /// # Errors
    /// [`SendError`]; nothing of the frame was or will be sent.
    pub fn send(
        &self,
        to: NodeId,
        lane: Lane,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), SendError> {
        let inner = &*self.inner;
        let links = inner.links.borrow();
        let link = links.get(&to).ok_or(SendError::UnknownPeer { to })?;
        let outbox = link.outbox(lane);
        match outbox.append(write) {
            Ok(()) => {
                Tally::add(&inner.tally.frames_sent, 1);
                inner.list_for_flush(outbox);
                Ok(())
            }
            Err(error) => {
                Tally::add(&inner.tally.sends_refused, 1);
                Err(error)
            }
        }
    }

    /// Writes what was sent since the last flush, to peers and clients: one write for each lane
    /// that has something.
    pub fn flush(&self) {
        self.inner.flush();
    }

    /// Bytes that wait for `to` in `lane`; 0 if there is no such peer.
    #[must_use]
    pub fn queued(&self, to: NodeId, lane: Lane) -> usize {
        self.inner.links.borrow().get(&to).map_or(0, |link| link.outbox(lane).queued())
    }

    /// How the connection to `peer` stands; `None` if there is no such peer.
    #[must_use]
    pub fn status(&self, peer: NodeId) -> Option<LinkStatus> {
        self.inner.links.borrow().get(&peer).map(|link| link.status())
    }

    /// What is known about the way to `peer`; `None` if it is not connected.
    #[must_use]
    pub fn path(&self, peer: NodeId) -> Option<Path> {
        self.inner.links.borrow().get(&peer).and_then(|link| link.path())
    }

    /// All peers and how the connections to them stand, by number.
    #[must_use]
    pub fn peers(&self) -> Vec<(Peer, LinkStatus)> {
        let links = self.inner.links.borrow();
        links.values().map(|link| (link.peer(), link.status())).collect()
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.inner.tally.read()
    }

    /// Closes all connections, tells the other ends so, and waits until they were told. What was
    /// not flushed is dropped; a last flush reaches peers that are not behind.
    pub async fn shutdown(&self) {
        self.inner.flush();
        self.inner.closing.set(true);
        let links = core::mem::take(&mut *self.inner.links.borrow_mut());
        for link in links.values() {
            link.remove();
        }
        let endpoint = &self.inner.ends.endpoint;
        endpoint.close(Refusal::Closing.code(), b"the process ends");
        endpoint.wait_idle().await;
    }
}

impl Inner {
    fn flush(&self) {
        // Writing calls nobody back, so the list cannot change meanwhile.
        for outbox in self.unflushed.borrow_mut().drain(..) {
            outbox.listed.set(false);
            outbox.flush();
            Tally::add(&self.tally.flushes, 1);
        }
    }

    fn list_for_flush(&self, outbox: &Rc<Outbox>) {
        if !outbox.listed.replace(true) {
            self.unflushed.borrow_mut().push(outbox.clone());
        }
    }

    fn hello(&self, purpose: Purpose) -> Hello {
        Hello { purpose, wire: self.wire, node: self.me, boot: self.boot, cluster: self.cluster }
    }
}

/// Why a node with this number cannot have this certificate as its own, beside others with these names; `None`
/// if it can.
#[must_use]
pub fn why_not_own<'a>(
    me: NodeId,
    identity: &certs::Identity,
    mut others: impl Iterator<Item = (NodeId, &'a str)>,
) -> Option<String> {
    if identity.role != certs::Role::Node {
        return Some(format!("{identity} has a certificate, but not one of a node"));
    }
    if let Some(node) = identity.node.filter(|node| *node != me) {
        return Some(format!("the certificate of {identity} is for {node}, and is not for {me}"));
    }
    let (id, name) = others.find(|(id, name)| *id != me && *name == identity.name)?;
    Some(format!("{id} has this node's own name, {name}"))
}

impl MeshError {
    fn crypto(error: impl fmt::Display) -> Self {
        Self::Config { detail: format!("QUIC refused its settings: {error}") }
    }
}

impl fmt::Display for MeshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { listen, source } => write!(
                f,
                "cannot listen on {listen} (QUIC, UDP)\n  why: {source}\n  \
                 fix: choose a free address of this machine, or stop what uses it"
            ),
            Self::Certificates(error) => error.fmt(f),
            Self::Config { detail } => write!(
                f,
                "the mesh cannot start with these settings\n  why: {detail}\n  \
                 fix: ringd config check"
            ),
        }
    }
}

impl std::error::Error for MeshError {}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mesh({}, {} peers)", self.inner.me, self.inner.links.borrow().len())
    }
}
