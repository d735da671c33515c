//! Accepting: who may come in, and what they may do.
//!
//! Promise: before a hello was checked against the certificate nothing is handed on. What a
//! connection may do is decided here once, by role: a node's frames go to `on_frames`, those of
//! clients and administrators to `on_client`, everything else is refused, counted and logged.

use core::future::poll_fn;
use std::rc::Rc;

use certs::{Identity, Role, identity_of};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::task::spawn_local;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::client::{ClientConn, Shared};
use super::counters::Tally;
use super::dial::Link;
use super::hello::{HELLO_BYTES, Hello, Purpose};
use super::lane::{Frames, Inbox, Lane, Outbox};
use super::limits::{CONNECTIONS_MAX, HELLO_TIMEOUT, REFUSALS_REMEMBERED_MAX};
use super::refusal::{Ending, Refusal};
use super::{Inner, Mesh};

/// A refusal of ours, with the words for the other side.
struct No {
    refusal: Refusal,
    text: String,
}

/// Why a stream is not read any longer.
enum Stop {
    /// We refuse.
    No(No),
    /// It ended by itself.
    Ended(Ending),
}

impl No {
    fn new(refusal: Refusal, text: impl Into<String>) -> Self {
        Self { refusal, text: text.into() }
    }
}

impl From<No> for Stop {
    fn from(no: No) -> Self {
        Self::No(no)
    }
}

impl From<quinn::ConnectionError> for Stop {
    fn from(error: quinn::ConnectionError) -> Self {
        Self::Ended(error.into())
    }
}

/// The task that waits for connections; ends with the endpoint.
pub(super) async fn accept_all(mesh: Mesh) {
    let inner = &mesh.inner;
    while let Some(incoming) = inner.ends.endpoint.accept().await {
        if inner.accepted.get() >= CONNECTIONS_MAX {
            Tally::add(&inner.tally.refused_other, 1);
            incoming.refuse();
            continue;
        }
        let from = incoming.remote_address();
        match inner.ends.accept(incoming) {
            Ok(connecting) => {
                inner.accepted.set(inner.accepted.get() + 1);
                let mesh = mesh.clone();
                spawn_local(async move {
                    admit(&mesh, connecting).await;
                    mesh.inner.accepted.set(mesh.inner.accepted.get() - 1);
                });
            }
            Err(error) => debug!(%from, %error, "not accepted"),
        }
    }
}

/// One connection, from the handshake to its end.
async fn admit(mesh: &Mesh, connecting: quinn::Connecting) {
    let from = connecting.remote_address();
    let connection = match connecting.await {
        Ok(connection) => connection,
        Err(error) => {
            Tally::add(&mesh.inner.tally.handshakes_failed, 1);
            let reason = Ending::from(error).to_string();
            let who = from.ip().to_string();
            if mesh.inner.first_refusal(&who, Refusal::UnknownNode) {
                warn!(%from, reason, "handshake failed");
            }
            return;
        }
    };
    let stop = match identify(&connection) {
        Ok(identity) => {
            let stop = admit_as(mesh, &connection, &identity).await;
            if let Stop::No(no) = &stop {
                mesh.inner.count_refusal(&identity, &connection, no);
            }
            stop
        }
        Err(no) => Stop::No(no),
    };
    if let Stop::No(no) = stop {
        no.refusal.close(&connection, &no.text);
    }
}

fn identify(connection: &Connection) -> Result<Identity, No> {
    let chain = connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let first = chain.as_ref().and_then(|chain| chain.first());
    let first = first.ok_or_else(|| No::new(Refusal::WrongRole, "no certificate"))?;
    identity_of(first).map_err(|e| No::new(Refusal::WrongRole, e.to_string()))
}

/// Hello, the decision, and then whatever was decided, until it ends.
async fn admit_as(mesh: &Mesh, connection: &Connection, identity: &Identity) -> Stop {
    let inner = &mesh.inner;
    let heard = timeout(HELLO_TIMEOUT, hear(connection)).await;
    let (mut send, recv, hello) = match heard {
        Ok(Ok(heard)) => heard,
        Ok(Err(stop)) => return stop,
        Err(_) => return No::new(Refusal::BadHello, "no hello in time").into(),
    };
    let admitted = match inner.judge(identity, &hello) {
        Ok(admitted) => admitted,
        Err(no) => return no.into(),
    };
    if let Admitted::Peer(link) = &admitted
        && link.has_rival(connection, hello.boot).await
    {
        let text = format!("{identity} is connected already, from another address, and speaks");
        return No::new(Refusal::Second, text).into();
    }
    if let Err(error) = send.write_all(&inner.hello(hello.purpose).encode()).await {
        return Stop::Ended(Ending::Broken(error.to_string()));
    }
    match admitted {
        Admitted::Peer(link) => serve_peer(mesh, connection, &link, recv, &hello).await,
        Admitted::Client { wire } => {
            serve_client(mesh, connection, (identity, hello.boot), wire, send, recv).await
        }
    }
}

/// The first stream and the hello on it.
async fn hear(connection: &Connection) -> Result<(SendStream, RecvStream, Hello), Stop> {
    let (send, mut recv) = connection.accept_bi().await?;
    let hello = read_hello(&mut recv).await?;
    Ok((send, recv, hello))
}

async fn read_hello(recv: &mut RecvStream) -> Result<Hello, Stop> {
    let mut bytes = [0; HELLO_BYTES];
    recv.read_exact(&mut bytes).await.map_err(|e| match e {
        quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(e)) => e.into(),
        other => Stop::No(No::new(Refusal::BadHello, other.to_string())),
    })?;
    Hello::decode(&bytes).ok_or_else(|| No::new(Refusal::BadHello, "not a hello").into())
}

/// What a connection may do.
enum Admitted {
    Peer(Rc<Link>),
    Client { wire: u8 },
}

impl Inner {
    /// Whether this certificate may say this hello.
    fn judge(&self, identity: &Identity, hello: &Hello) -> Result<Admitted, No> {
        let is_client = hello.purpose == Purpose::Client;
        let may = match identity.role {
            Role::Node => !is_client,
            Role::Client | Role::Admin => is_client,
        };
        if !may {
            let text = format!("{identity} may not open a stream for {:?}", hello.purpose);
            return Err(No::new(Refusal::WrongRole, text));
        }
        let unknown_to_it = is_client && hello.cluster.0 == 0;
        if hello.cluster != self.cluster && !unknown_to_it {
            let text = format!("this is cluster {}, not {}", self.cluster, hello.cluster);
            return Err(No::new(Refusal::WrongCluster, text));
        }
        let Some(wire) = self.wire.agree(hello.wire) else {
            let text = format!("this node speaks {}, not {}", self.wire, hello.wire);
            return Err(No::new(Refusal::WireVersion, text));
        };
        match hello.purpose {
            Purpose::Client => Ok(Admitted::Client { wire }),
            Purpose::Fast => self.member(identity, hello).map(Admitted::Peer),
            Purpose::Bulk => Err(No::new(Refusal::BadHello, "the fast lane is opened first")),
        }
    }

    /// The peer of this name, if the certificate, the hello and the layout agree on its number.
    fn member(&self, identity: &Identity, hello: &Hello) -> Result<Rc<Link>, No> {
        let no = |text| Err(No::new(Refusal::UnknownNode, text));
        if identity.node.is_some_and(|node| node != hello.node) {
            return no(format!("{identity} is not {}", hello.node));
        }
        match self.links.borrow().get(&hello.node) {
            Some(link) if link.name == identity.name => Ok(link.clone()),
            Some(link) => no(format!("{} is {}, not {}", hello.node, link.name, identity.name)),
            None => no(format!("{} ({}) is not a member", identity.name, hello.node)),
        }
    }

    fn count_refusal(&self, identity: &Identity, connection: &Connection, no: &No) {
        let counter = match no.refusal {
            Refusal::WrongRole => &self.tally.refused_role,
            Refusal::WrongCluster => &self.tally.refused_cluster,
            Refusal::UnknownNode => &self.tally.refused_unknown,
            Refusal::Second => &self.tally.refused_second,
            _ => &self.tally.refused_other,
        };
        Tally::add(counter, 1);
        let (from, reason) = (connection.remote_address(), &no.text);
        if self.first_refusal(&identity.name, no.refusal) {
            warn!(%identity, %from, refusal = %no.refusal, reason, "refused");
        } else {
            debug!(%identity, %from, refusal = %no.refusal, reason, "refused");
        }
    }

    /// Whether this is news; a misconfigured node dials every second, and one line says it.
    fn first_refusal(&self, who: &str, refusal: Refusal) -> bool {
        let mut logged = self.refusals_logged.borrow_mut();
        if logged.len() >= REFUSALS_REMEMBERED_MAX {
            logged.clear();
        }
        logged.insert((who.to_owned(), refusal))
    }
}

async fn serve_peer(
    mesh: &Mesh,
    connection: &Connection,
    link: &Link,
    mut fast: RecvStream,
    hello: &Hello,
) -> Stop {
    let inner = &mesh.inner;
    link.heard_of(connection, hello.boot);
    let window = VarInt::from_u64(inner.ends.tuning.connection_window_bytes);
    connection.set_receive_window(window.unwrap_or(VarInt::MAX));
    debug!(peer = %link.id, name = link.name, from = %connection.remote_address(), "accepted");
    inner.handler.on_accepted(mesh, link.id, hello.boot);
    let deliver =
        |lane| move |frames: Frames<'_>| inner.handler.on_frames(mesh, link.id, lane, frames);
    let bulk = async {
        let mut bulk = match connection.accept_uni().await {
            Ok(bulk) => bulk,
            Err(error) => return error.into(),
        };
        match read_hello(&mut bulk).await {
            Ok(hello) if hello.purpose == Purpose::Bulk => {}
            Ok(_) => {
                return No::new(Refusal::BadHello, "the second stream is the bulk lane").into();
            }
            Err(stop) => return stop,
        }
        read_all(mesh, &mut bulk, deliver(Lane::Bulk)).await
    };
    let stop = tokio::select! {
        biased;
        stop = read_all(mesh, &mut fast, deliver(Lane::Fast)) => stop,
        stop = bulk => stop,
    };
    link.incoming_ended(connection);
    stop
}

async fn serve_client(
    mesh: &Mesh,
    connection: &Connection,
    (identity, number): (&Identity, u64),
    wire: u8,
    send: SendStream,
    mut recv: RecvStream,
) -> Stop {
    let inner = &mesh.inner;
    let id = inner.clients_seen.get();
    inner.clients_seen.set(id + 1);
    let outbox = Rc::new(Outbox::new(inner.ends.tuning.queue_bytes_max));
    outbox.open(send);
    let client = ClientConn {
        shared: Rc::new(Shared {
            id,
            number,
            identity: identity.clone(),
            wire,
            connection: connection.clone(),
            outbox: outbox.clone(),
            mesh: mesh.clone(),
        }),
    };
    info!(client = id, %identity, from = %connection.remote_address(), "client connected");
    inner.handler.on_client_connected(mesh, &client);
    let deliver = |frames: Frames<'_>| inner.handler.on_client(mesh, &client, frames);
    let stop = tokio::select! {
        stop = read_client(mesh, &mut recv, deliver) => stop,
        error = poll_fn(|cx| outbox.poll_broken(cx)) => {
            Stop::Ended(Ending::Broken(error.to_string()))
        }
        stream = connection.accept_uni() => match stream {
            Ok(_) => {
                let text = format!("{identity} may not open a lane between nodes");
                No::new(Refusal::WrongRole, text).into()
            }
            Err(error) => error.into(),
        },
    };
    let ending = match &stop {
        Stop::No(no) => Ending::Ours(no.refusal),
        Stop::Ended(ending) => ending.clone(),
    };
    let dropped = outbox.close();
    Tally::add(&inner.tally.bytes_dropped, dropped as u64);
    debug!(client = id, reason = %ending, dropped, "client gone");
    inner.handler.on_client_closed(mesh, &client, &ending);
    mesh.flush();
    stop
}

/// Reads a client's stream for as long as it lasts, and less at a time than a peer's: between its reads
/// others have their turn, and while there is much to do, what was begun is ended first.
async fn read_client(mesh: &Mesh, recv: &mut RecvStream, deliver: impl Fn(Frames<'_>)) -> Stop {
    let (mut inbox, mut turn) = (Inbox::of_client(), 0);
    loop {
        poll_fn(|cx| mesh.inner.handler.poll_room(cx, &mut turn)).await;
        if let Some(stop) = read_once(mesh, recv, &mut inbox, &deliver).await {
            return stop;
        }
    }
}

/// Reads one stream for as long as it lasts: every complete frame of a read is handled before
/// anything that they caused is flushed.
async fn read_all(mesh: &Mesh, recv: &mut RecvStream, deliver: impl Fn(Frames<'_>)) -> Stop {
    let mut inbox = Inbox::new();
    loop {
        if let Some(stop) = read_once(mesh, recv, &mut inbox, &deliver).await {
            return stop;
        }
    }
}

/// One read and what came with it; why there is no other, if there is none.
async fn read_once(
    mesh: &Mesh,
    recv: &mut RecvStream,
    inbox: &mut Inbox,
    deliver: &impl Fn(Frames<'_>),
) -> Option<Stop> {
    let tally = &mesh.inner.tally;
    let count = match recv.read(inbox.room()).await {
        Ok(Some(count)) => count,
        Ok(None) => return Some(Stop::Ended(Ending::Broken("the stream was finished".into()))),
        Err(quinn::ReadError::ConnectionLost(error)) => return Some(error.into()),
        Err(error) => return Some(Stop::Ended(Ending::Broken(error.to_string()))),
    };
    Tally::add(&tally.bytes_read, count as u64);
    match inbox.read(count) {
        Ok(frames) if frames.is_empty() => {}
        Ok(frames) => {
            Tally::add(&tally.reads, 1);
            deliver(frames);
            mesh.flush();
        }
        Err(oversized) => {
            let text = format!("a frame of {} bytes was announced", oversized.announced);
            return Some(No::new(Refusal::Oversized, text).into());
        }
    }
    None
}
