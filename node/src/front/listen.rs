//! Listening: a socket a core, and who may come in.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use commands::{CrossSlot, Levels, Session, SessionDefaults};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tracing::{debug, warn};

use crate::config::Config;
use crate::error::Fault;
use crate::front::conn::{Conn, Task};
use crate::front::tls::{Offered, Tls};
use crate::limits::{CORE_CONNECTIONS_MAX, REQUEST_TIMEOUT};
use crate::turn::Core;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1_024;

/// A client that says nothing for so long is asked by the system whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(300);

/// How long to wait before accepting again when the system has no more files to give.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Sockets that share the address, one a core.
///
/// # Errors
/// A [`Fault`] if the address is in use or not of this machine.
pub fn bind(
    address: SocketAddr,
    key: &str,
    cores: usize,
) -> Result<Vec<std::net::TcpListener>, Fault> {
    let fault = |e: io::Error| {
        let in_use = e.kind() == io::ErrorKind::AddrInUse;
        let fix = if in_use {
            format!("stop what uses the port (perhaps another ringd), or set another {key}")
        } else {
            format!("set {key} to an address of this machine")
        };
        Fault::new(format!("cannot listen for Redis clients on {address}"), e.to_string(), fix)
    };
    let probe = listener(address, false).map_err(fault)?;
    if cores == 1 {
        return Ok(vec![probe]);
    }
    // With several sockets the system would also let a stranger of this user share the port, so
    // whether somebody has it is found out before.
    let address = probe.local_addr().map_err(fault)?;
    drop(probe);
    (0..cores).map(|_| listener(address, true).map_err(fault)).collect()
}

fn listener(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What every connection starts with.
#[must_use]
pub fn defaults(config: &Config, auth_required: bool) -> Arc<SessionDefaults> {
    Arc::new(SessionDefaults {
        auth_required,
        timeout_us: u64::try_from(REQUEST_TIMEOUT.as_micros()).unwrap_or(u64::MAX),
        bulk_bytes_max: u64::from(wire::limits::RESP_BULK_BYTES_DEFAULT),
        levels: Levels::default(),
        cross_slot: if config.redis.cross_slot { CrossSlot::Allow } else { CrossSlot::Error },
        allow_flush: config.redis.allow_flush,
    })
}

/// Accepts for ever, or until the core drains; with TLS if it is told how.
pub async fn accept_all(core: Rc<RefCell<Core>>, listener: TcpListener, tls: Option<Arc<Offered>>) {
    let both = [false, true].map(|auth| defaults(&core.borrow().shared.config, auth));
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                if core.borrow().draining {
                    return;
                }
                let auth = core.borrow().shared.users.accounts().auth_required();
                let defaults = &both[usize::from(auth)];
                if let Err(e) = admit(&core, stream, address, defaults, tls.as_ref()) {
                    debug!(%address, error = %e, "a client was gone before it was admitted");
                }
            }
            Err(e) => {
                warn!(error = %e, "cannot accept a client");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

fn admit(
    core: &Rc<RefCell<Core>>,
    stream: TcpStream,
    address: SocketAddr,
    defaults: &Arc<SessionDefaults>,
    tls: Option<&Arc<Offered>>,
) -> io::Result<()> {
    let mut guard = core.borrow_mut();
    let shared = guard.shared.clone();
    let most = shared.maxclients.load(Ordering::Relaxed);
    if guard.conns.len() >= CORE_CONNECTIONS_MAX || !shared.clients.enter(most) {
        shared.rejected.fetch_add(1, Ordering::Relaxed);
        if tls.is_none() {
            // A new socket takes one line; if not, the client learns it from the end of the stream.
            drop(stream.try_write(b"-ERR max number of clients reached\r\n"));
        }
        return Ok(());
    }
    let tls = tls.map(|offered| Tls::new(offered.config()).map(Box::new)).transpose();
    let tls = tls.map_err(io::Error::other);
    let set = set_options(&stream).and_then(|()| stream.local_addr()).and_then(|l| Ok((l, tls?)));
    let (local, tls) = match set {
        Ok(set) => set,
        Err(e) => {
            shared.clients.give_back();
            return Err(e);
        }
    };
    let id = shared.next_client.fetch_add(1, Ordering::Relaxed);
    let session = Session::new(id, defaults.clone(), rand::random());
    let facts = session.facts();
    let (reader, writer) = stream.into_split();
    let key = guard.conns.insert(Conn::new(id, session, address, writer, tls));
    guard.report.connections += 1;
    let place = (guard.index, key);
    shared.clients.add(facts, (address, local), crate::clock::mono(), place);
    spawn_local(Task::new(core.clone(), key, reader));
    Ok(())
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
}
