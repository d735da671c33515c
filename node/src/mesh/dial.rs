//! Dialling: keeps one connection to one peer, for as long as the peer is in the layout.
//!
//! Promise: a peer that is there again is connected again without delay: it dials us, which ends
//! our waiting, and its new boot number tells that our old connection is dead. One task for each
//! peer dials, writes what flushes could not, and reports the end.

use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use certs::node_dns_name;
use quinn::{Connection, SendStream};
use ring::NodeId;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::counters::Tally;
use super::hello::{HELLO_BYTES, Hello, Purpose};
use super::lane::{Lane, Outbox};
use super::limits::{DIAL_STALE_AFTER, GOOD_CONNECTION, LAST_WORDS, LIVES_WITHIN};
use super::refusal::{Ending, Refusal};
use super::{Mesh, Peer};

/// The priority of the fast lane's stream over the bulk lane's, which has 0.
const FAST_PRIORITY: i32 = 1;

/// How the connection to a peer stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkStatus {
    /// It is being dialled.
    Dialling {
        /// Dials that failed since there last was a connection.
        failed: u32,
        /// Why the last one did, or how the last connection ended.
        last: Option<Ending>,
    },
    /// Frames can be sent.
    Connected {
        /// The newest version of the frames that both ends know.
        wire: u8,
        /// The peer's start of its process.
        boot: u64,
    },
}

/// What the connection to a peer has learnt about its way there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The largest datagram that is known to arrive, in bytes.
    pub mtu: u16,
    /// The estimated round trip.
    pub rtt: Duration,
    /// Datagrams sent.
    pub sent: u64,
    /// Of those, how many were taken for lost.
    pub lost: u64,
}

/// What is kept for one peer.
pub(super) struct Link {
    pub(super) id: NodeId,
    pub(super) name: String,
    address: Cell<SocketAddr>,
    fast: Rc<Outbox>,
    bulk: Rc<Outbox>,
    status: RefCell<LinkStatus>,
    /// The connection that we dialled.
    outgoing: RefCell<Option<Connection>>,
    /// Why we ended it, if we did.
    our_ending: RefCell<Option<Ending>>,
    /// The newest connection that we accepted.
    incoming: RefCell<Option<Incoming>>,
    /// Dial now rather than later.
    hurry: Notify,
    removed: Cell<bool>,
}

/// A connection that the peer dialled.
struct Incoming {
    connection: Connection,
    /// Which start of the peer's process.
    boot: u64,
}

/// A connection on which both ends have said hello.
struct Session {
    connection: Connection,
    fast: SendStream,
    bulk: SendStream,
    answer: Hello,
    wire: u8,
}

impl Link {
    pub(super) fn new(peer: Peer, queue_bytes_max: usize) -> Self {
        Self {
            id: peer.id,
            name: peer.name,
            address: Cell::new(peer.address),
            fast: Rc::new(Outbox::new(queue_bytes_max)),
            bulk: Rc::new(Outbox::new(queue_bytes_max)),
            status: RefCell::new(LinkStatus::Dialling { failed: 0, last: None }),
            outgoing: RefCell::default(),
            our_ending: RefCell::default(),
            incoming: RefCell::default(),
            hurry: Notify::new(),
            removed: Cell::new(false),
        }
    }

    pub(super) fn outbox(&self, lane: Lane) -> &Rc<Outbox> {
        match lane {
            Lane::Fast => &self.fast,
            Lane::Bulk => &self.bulk,
        }
    }

    pub(super) fn status(&self) -> LinkStatus {
        self.status.borrow().clone()
    }

    pub(super) fn peer(&self) -> Peer {
        Peer { id: self.id, name: self.name.clone(), address: self.address.get() }
    }

    pub(super) fn move_to(&self, address: SocketAddr) {
        if self.address.replace(address) != address {
            self.end_outgoing(Ending::Ours(Refusal::Replaced), "the peer has moved");
            self.hurry.notify_one();
        }
    }

    pub(super) fn remove(&self) {
        self.removed.set(true);
        self.end_outgoing(Ending::Ours(Refusal::Closing), "no longer a peer");
        if let Some(incoming) = self.incoming.take() {
            Refusal::Closing.close(&incoming.connection, "no longer a peer");
        }
        self.hurry.notify_one();
    }

    /// The connection of another process than `boot`, at another address, if there is one. At the
    /// same address there can be only one process, so the other one has ended.
    fn rival(&self, connection: &Connection, boot: u64) -> Option<Connection> {
        let incoming = self.incoming.borrow();
        let known = incoming.as_ref().filter(|known| {
            known.boot != boot
                && known.connection.remote_address() != connection.remote_address()
                && known.connection.close_reason().is_none()
        })?;
        Some(known.connection.clone())
    }

    /// Whether the peer that is known lives, so that what dialled us now is a second process with
    /// its name. Takes a while to find out, but only if the known one neither ended its connection
    /// nor had the same address.
    pub(super) async fn has_rival(&self, connection: &Connection, boot: u64) -> bool {
        while let Some(known) = self.rival(connection, boot) {
            if timeout(LAST_WORDS, known.closed()).await.is_ok() {
                continue;
            }
            let heard = || known.stats().udp_rx.datagrams;
            let before = heard();
            if timeout(LIVES_WITHIN, known.closed()).await.is_err() {
                return heard() != before;
            }
        }
        false
    }

    /// The peer dialled us: it is there. `boot` says whether it is the process that we know.
    pub(super) fn heard_of(&self, connection: &Connection, boot: u64) {
        let newest = Incoming { connection: connection.clone(), boot };
        if let Some(older) = self.incoming.replace(Some(newest)) {
            Refusal::Replaced.close(&older.connection, "a newer connection of the same node");
        }
        match *self.status.borrow() {
            LinkStatus::Dialling { .. } => self.hurry.notify_one(),
            LinkStatus::Connected { boot: known, .. } if known != boot => {
                self.end_outgoing(Ending::Restarted, "the other process is a new one");
            }
            LinkStatus::Connected { .. } => {}
        }
    }

    /// The accepted connection is over; forgets it unless a newer one has its place.
    pub(super) fn incoming_ended(&self, connection: &Connection) {
        let mut incoming = self.incoming.borrow_mut();
        let is_newest = |now: &Incoming| now.connection.stable_id() == connection.stable_id();
        if incoming.as_ref().is_some_and(is_newest) {
            *incoming = None;
        }
    }

    fn end_outgoing(&self, ending: Ending, text: &str) {
        if let Some(connection) = &*self.outgoing.borrow() {
            let refusal = match ending {
                Ending::Ours(refusal) => refusal,
                _ => Refusal::Replaced,
            };
            refusal.close(connection, text);
            self.our_ending.replace(Some(ending));
        }
    }

    /// The path of the connection that we dialled.
    pub(super) fn path(&self) -> Option<Path> {
        let outgoing = self.outgoing.borrow();
        let stats = outgoing.as_ref()?.stats();
        Some(Path {
            mtu: stats.path.current_mtu,
            rtt: stats.path.rtt,
            sent: stats.path.sent_packets,
            lost: stats.path.lost_packets,
        })
    }

    fn connected(&self, session: Session) {
        let Session { connection, fast, bulk, answer, wire } = session;
        self.fast.open(fast);
        self.bulk.open(bulk);
        self.outgoing.replace(Some(connection));
        self.our_ending.take();
        self.status.replace(LinkStatus::Connected { wire, boot: answer.boot });
    }

    /// Back to dialling; returns the bytes that never left.
    fn disconnected(&self, ending: Ending) -> usize {
        self.outgoing.take();
        self.status.replace(LinkStatus::Dialling { failed: 0, last: Some(ending) });
        self.fast.close() + self.bulk.close()
    }

    /// Counts a failed dial; returns whether it failed in another way than the one before.
    fn dial_failed(&self, ending: Ending) -> bool {
        let mut status = self.status.borrow_mut();
        let (failed, before) = match &*status {
            LinkStatus::Dialling { failed, last } => (*failed, last.clone()),
            LinkStatus::Connected { .. } => (0, None),
        };
        let news = failed == 0 || before.as_ref() != Some(&ending);
        *status = LinkStatus::Dialling { failed: failed.saturating_add(1), last: Some(ending) };
        news
    }
}

/// The task of one peer.
pub(super) async fn dial_for_ever(mesh: Mesh, link: Rc<Link>) {
    let tuning = &mesh.inner.ends.tuning;
    let mut wait = tuning.backoff_min;
    while !link.removed.get() {
        match dial_once(&mesh, &link).await {
            Ok(session) => {
                let began = Instant::now();
                let ending = serve(&mesh, &link, session).await;
                let ours = matches!(ending, Ending::Restarted | Ending::Ours(_));
                if began.elapsed() >= GOOD_CONNECTION || ours {
                    wait = tuning.backoff_min;
                }
            }
            Err(ending) => report_failure(&mesh, &link, ending),
        }
        if link.removed.get() {
            return;
        }
        let drawn = wait.mul_f64(rand::random_range(0.5..1.0));
        wait = (2 * wait).min(tuning.backoff_max);
        tokio::select! {
            () = sleep(drawn) => {}
            () = link.hurry.notified() => {}
        }
    }
}

fn report_failure(mesh: &Mesh, link: &Link, ending: Ending) {
    Tally::add(&mesh.inner.tally.dials_failed, 1);
    let (peer, name, address) = (link.id, &link.name, link.address.get());
    let text = ending.to_string();
    if matches!(ending, Ending::Refused { refusal: Some(Refusal::Second), .. }) {
        mesh.inner.handler.on_second(mesh, peer, &text);
    }
    if link.dial_failed(ending) {
        warn!(%peer, name, %address, reason = text, "cannot connect; trying on");
    } else {
        debug!(%peer, name, %address, reason = text, "cannot connect");
    }
}

/// One dial, until both ends have said hello.
async fn dial_once(mesh: &Mesh, link: &Link) -> Result<Session, Ending> {
    let began = Instant::now();
    let mut attempt = pin!(timeout(mesh.inner.ends.tuning.connect_timeout, greet(mesh, link)));
    loop {
        tokio::select! {
            done = &mut attempt => return done.unwrap_or(Err(Ending::Silent)),
            // The peer lives, but our first datagrams may have gone before it did; they would be
            // repeated only after a while. A young dial has just begun and may be left alone.
            () = link.hurry.notified() => {
                if link.removed.get() || began.elapsed() > DIAL_STALE_AFTER {
                    link.hurry.notify_one();
                    return Err(Ending::Silent);
                }
            }
        }
    }
}

async fn greet(mesh: &Mesh, link: &Link) -> Result<Session, Ending> {
    let inner = &mesh.inner;
    let name = node_dns_name(&inner.cluster_name, &link.name);
    let broken = |e: &dyn core::fmt::Display| Ending::Broken(e.to_string());
    let connecting = inner.ends.dial(link.address.get(), &name).map_err(|e| broken(&e))?;
    let connection = connecting.await?;
    let greeted = greet_on(mesh, link, &connection).await;
    if let Err(Ending::Ours(refusal)) = &greeted {
        refusal.close(&connection, "the answer to the hello was not acceptable");
    }
    // What the connection itself says explains more than what a stream says about it.
    greeted.map_err(|ending| match (ending, connection.close_reason()) {
        (Ending::Broken(_), Some(reason)) => reason.into(),
        (ending, _) => ending,
    })
}

async fn greet_on(mesh: &Mesh, link: &Link, connection: &Connection) -> Result<Session, Ending> {
    let inner = &mesh.inner;
    let broken = |e: &dyn core::fmt::Display| Ending::Broken(e.to_string());
    let (mut fast, mut answers) = connection.open_bi().await?;
    let hello = inner.hello(Purpose::Fast).encode();
    fast.write_all(&hello).await.map_err(|e| broken(&e))?;
    let mut answer = [0; HELLO_BYTES];
    answers.read_exact(&mut answer).await.map_err(|e| broken(&e))?;
    let answer = Hello::decode(&answer).ok_or(Ending::Ours(Refusal::BadHello))?;
    if answer.cluster != inner.cluster {
        return Err(Ending::Ours(Refusal::WrongCluster));
    }
    if answer.node != link.id {
        return Err(Ending::Ours(Refusal::UnknownNode));
    }
    let wire = inner.wire.agree(answer.wire).ok_or(Ending::Ours(Refusal::WireVersion))?;
    let mut bulk = connection.open_uni().await?;
    let hello = inner.hello(Purpose::Bulk).encode();
    bulk.write_all(&hello).await.map_err(|e| broken(&e))?;
    fast.set_priority(FAST_PRIORITY).map_err(|e| broken(&e))?;
    Ok(Session { connection: connection.clone(), fast, bulk, answer, wire })
}

/// A connection's life: until it ends, writes what flushes could not.
async fn serve(mesh: &Mesh, link: &Link, session: Session) -> Ending {
    let inner = &mesh.inner;
    let (connection, wire) = (session.connection.clone(), session.wire);
    link.connected(session);
    Tally::add(&inner.tally.connected, 1);
    info!(peer = %link.id, name = link.name, address = %link.address.get(), wire, "connected");
    inner.handler.on_connected(mesh, link.id, wire);
    let broken = poll_fn(|cx| match (link.fast.poll_broken(cx), link.bulk.poll_broken(cx)) {
        (Poll::Pending, Poll::Pending) => Poll::Pending,
        (Poll::Ready(error), _) | (_, Poll::Ready(error)) => Poll::Ready(error),
    });
    let ending = tokio::select! {
        reason = connection.closed() => Ending::from(reason),
        error = broken => {
            let text = error.to_string();
            let reason = connection.close_reason().map(Ending::from);
            Refusal::Closing.close(&connection, "a lane broke");
            reason.unwrap_or(Ending::Broken(text))
        }
    };
    let ending = link.our_ending.take().unwrap_or(ending);
    let dropped = link.disconnected(ending.clone());
    Tally::add(&inner.tally.bytes_dropped, dropped as u64);
    warn!(peer = %link.id, name = link.name, reason = %ending, dropped, "disconnected");
    inner.handler.on_closed(mesh, link.id, &ending, dropped);
    mesh.flush();
    ending
}
