//! Sockets: one for each address that is dialled, kept for when it is dialled again.
//!
//! A new one costs the memory of its largest possible reads at once: megabytes, and milliseconds in which a thread that
//! has other connections does nothing for them. A node that is down is dialled again and again.
//! Promise: an address has one socket for as long as that leads anywhere, and another one when it broke, or after
//! several dials in vain.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Mutex, MutexGuard, PoisonError};

use quinn::{ClientConfig, ConnectError, Connecting, Endpoint, EndpointConfig};

use crate::limits::{MTU_LOOPBACK, SOCKET_FAILURES_MAX, SOCKETS_MAX};

/// The sockets of one client.
#[derive(Default)]
pub(crate) struct Sockets {
    kept: Mutex<BTreeMap<SocketAddr, Kept>>,
}

struct Kept {
    endpoint: Endpoint,
    /// Dials over it in a row that came to nothing.
    failed: u32,
}

impl Sockets {
    fn kept(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to dial `to`, whose certificate says `name`; and the socket over which it does.
    ///
    /// # Errors
    /// There is no socket to be had, or no way to `to`.
    pub(crate) fn dial(
        &self,
        config: ClientConfig,
        to: SocketAddr,
        name: &str,
    ) -> io::Result<(Endpoint, Connecting)> {
        let known = self.kept().get(&to).map(|kept| kept.endpoint.clone());
        if let Some(endpoint) = known {
            match endpoint.connect_with(config.clone(), to, name) {
                Ok(connecting) => return Ok((endpoint, connecting)),
                // Whoever drove it is gone: the runtime in which it was opened, or the socket broke.
                Err(ConnectError::EndpointStopping) => drop(self.kept().remove(&to)),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        let endpoint = open(to)?;
        let connecting = endpoint.connect_with(config, to, name).map_err(io::Error::other)?;
        let mut kept = self.kept();
        if kept.len() >= SOCKETS_MAX {
            // Nodes that have gone, or moved to other addresses.
            kept.retain(|_, kept| kept.endpoint.open_connections() > 0);
        }
        kept.insert(to, Kept { endpoint: endpoint.clone(), failed: 0 });
        Ok((endpoint, connecting))
    }

    /// A dial to `to` led to a node, or did not. Something on the way may have taken against this socket, so
    /// now and then there is another one.
    pub(crate) fn dialled(&self, to: SocketAddr, reached: bool) {
        let mut kept = self.kept();
        let Some(known) = kept.get_mut(&to) else { return };
        known.failed = if reached { 0 } else { known.failed + 1 };
        if known.failed >= SOCKET_FAILURES_MAX {
            kept.remove(&to);
        }
    }
}

/// It takes datagrams as large as nodes send on one machine.
fn open(to: SocketAddr) -> io::Result<Endpoint> {
    let runtime = quinn::default_runtime()
        .ok_or_else(|| io::Error::other("there is no runtime to work in"))?;
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(MTU_LOOPBACK).map_err(io::Error::other)?;
    Endpoint::new(config, None, UdpSocket::bind(local(to))?, runtime)
}

/// Any port, on the machine itself if that is where it leads.
fn local(to: SocketAddr) -> SocketAddr {
    let ip = match to.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(ip) if ip.is_loopback() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, 0)
}
