//! The endpoint: one UDP socket, and how QUIC is set on it.
//!
//! Every number was measured. Promise: no [`Tuning`], however it was written, leads into one of the
//! known traps: [`Tuning::clamped`] is the only way to a configuration, and it keeps datagrams
//! small enough for segmentation offload and windows within the socket's buffer.

use core::time::Duration;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use certs::{Credentials, OnRefused};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    AckFrequencyConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, MtuDiscoveryConfig,
    TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::warn;

use super::MeshError;
use super::limits::{
    CLIENT_WINDOW_BYTES, INITIAL_MTU_MAX, LENGTH_BYTES, MTU_MAX, MTU_MIN, QUEUE_BYTES_MAX,
    REFUSALS_REMEMBERED_MAX, WINDOW_BYTES_MIN,
};

/// What may be set. The defaults are the best that was measured on two cores of one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// The largest datagram that discovery may find, to other machines.
    pub mtu_max: u16,
    /// The same to this machine itself, where large datagrams cost nothing.
    pub mtu_max_loopback: u16,
    /// The datagram to begin with.
    pub initial_mtu: u16,
    /// Send and receive buffer to ask the system for, each.
    pub socket_buffer_bytes: usize,
    /// How much one stream may be ahead of its reader.
    pub stream_window_bytes: u64,
    /// How much all streams of a connection may be ahead of their readers.
    pub connection_window_bytes: u64,
    /// How much may be sent and unacknowledged.
    pub send_window_bytes: u64,
    /// Datagrams received before an acknowledgement is sent.
    pub ack_eliciting_threshold: u32,
    /// How often a quiet connection proves that it lives.
    pub keep_alive: Duration,
    /// How long nothing may be heard. The smaller one of both sides counts.
    pub idle_timeout: Duration,
    /// The round trip to assume before one was measured; a third of the wait for a lost handshake.
    pub initial_rtt: Duration,
    /// How long one dial may take.
    pub connect_timeout: Duration,
    /// The wait after the first failed dial; doubled each time, and drawn at random below that.
    pub backoff_min: Duration,
    /// The longest wait between dials.
    pub backoff_max: Duration,
    /// How much may wait unsent in one lane to one peer, and for one client.
    pub queue_bytes_max: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            mtu_max: 1_452,
            mtu_max_loopback: MTU_MAX,
            initial_mtu: MTU_MIN,
            socket_buffer_bytes: 4 << 20,
            stream_window_bytes: 1_500_000,
            connection_window_bytes: 3_000_000,
            send_window_bytes: 3_000_000,
            ack_eliciting_threshold: 10,
            keep_alive: Duration::from_millis(500),
            idle_timeout: Duration::from_secs(2),
            initial_rtt: Duration::from_millis(100),
            connect_timeout: Duration::from_secs(3),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            queue_bytes_max: QUEUE_BYTES_MAX,
        }
    }
}

/// A tuning without traps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clamped(Tuning);

impl Tuning {
    /// Moves every value that leads into a trap to the nearest one that does not.
    /// `socket_buffer_bytes` is what the system really granted; peers are assumed to have the same.
    pub(super) fn clamped(mut self, socket_buffer_bytes: usize) -> Clamped {
        let granted = (socket_buffer_bytes as u64).max(WINDOW_BYTES_MIN);
        self.mtu_max = self.mtu_max.clamp(MTU_MIN, MTU_MAX);
        self.mtu_max_loopback = self.mtu_max_loopback.clamp(MTU_MIN, MTU_MAX);
        let largest = self.mtu_max.min(INITIAL_MTU_MAX);
        self.initial_mtu = self.initial_mtu.clamp(MTU_MIN, largest);
        for window in [
            &mut self.send_window_bytes,
            &mut self.connection_window_bytes,
            &mut self.stream_window_bytes,
        ] {
            *window = (*window).clamp(WINDOW_BYTES_MIN, granted);
        }
        self.idle_timeout = self.idle_timeout.max(2 * self.keep_alive);
        self.backoff_max = self.backoff_max.max(self.backoff_min);
        self.queue_bytes_max = self.queue_bytes_max.max(LENGTH_BYTES);
        Clamped(self)
    }
}

impl core::ops::Deref for Clamped {
    type Target = Tuning;

    fn deref(&self) -> &Tuning {
        &self.0
    }
}

/// One socket, and how to dial and accept on it, near and far.
pub(super) struct Ends {
    pub(super) endpoint: quinn::Endpoint,
    pub(super) tuning: Clamped,
    dial: Near<quinn::ClientConfig>,
    accept: Near<Arc<quinn::ServerConfig>>,
}

/// A thing for paths within this machine, and its like for all others.
struct Near<T> {
    loopback: T,
    network: T,
}

impl<T> Near<T> {
    fn of(&self, address: SocketAddr) -> &T {
        if address.ip().to_canonical().is_loopback() { &self.loopback } else { &self.network }
    }
}

impl Ends {
    /// Binds the socket. To be called inside a runtime.
    pub(super) fn bind(
        listen: SocketAddr,
        credentials: &Credentials,
        tuning: &Tuning,
    ) -> Result<Self, MeshError> {
        let bind = |source| MeshError::Bind { listen, source };
        let (socket, granted) = socket(listen, tuning.socket_buffer_bytes).map_err(bind)?;
        let tuning = tuning.clone().clamped(granted);
        // Whoever comes may be a client, and a peer gets more as soon as it is known as one.
        let first = tuning.connection_window_bytes.min(u64::from(CLIENT_WINDOW_BYTES));
        let near = |connection_window_bytes: u64| {
            let of = |mtu_max| Arc::new(transport(&tuning, mtu_max, connection_window_bytes));
            Near { loopback: of(tuning.mtu_max_loopback), network: of(tuning.mtu_max) }
        };
        let (dialled, accepted) = (near(tuning.connection_window_bytes), near(first));
        let tls = certs::client_config(credentials).map_err(MeshError::Certificates)?;
        let tls = Arc::new(QuicClientConfig::try_from(tls).map_err(MeshError::crypto)?);
        let dial = |transport: &Arc<TransportConfig>| {
            let mut config = quinn::ClientConfig::new(tls.clone());
            config.transport_config(transport.clone());
            config
        };
        let dial = Near { loopback: dial(&dialled.loopback), network: dial(&dialled.network) };
        let tls = certs::server_config_reporting(credentials, log_each_once())
            .map_err(MeshError::Certificates)?;
        let tls = Arc::new(QuicServerConfig::try_from(tls).map_err(MeshError::crypto)?);
        let accept = |transport: &Arc<TransportConfig>| {
            let mut config = quinn::ServerConfig::with_crypto(tls.clone());
            config.transport_config(transport.clone());
            Arc::new(config)
        };
        let accept =
            Near { loopback: accept(&accepted.loopback), network: accept(&accepted.network) };
        let endpoint = quinn::Endpoint::new(
            endpoint_config(credentials)?,
            Some((*accept.network).clone()),
            socket,
            Arc::new(quinn::TokioRuntime),
        )
        .map_err(bind)?;
        Ok(Self { endpoint, tuning, dial, accept })
    }

    pub(super) fn dial(
        &self,
        address: SocketAddr,
        name: &str,
    ) -> Result<quinn::Connecting, quinn::ConnectError> {
        self.endpoint.connect_with(self.dial.of(address).clone(), address, name)
    }

    pub(super) fn accept(
        &self,
        incoming: quinn::Incoming,
    ) -> Result<quinn::Connecting, quinn::ConnectionError> {
        let config = self.accept.of(incoming.remote_address()).clone();
        incoming.accept_with(config)
    }
}

/// Logs a refused certificate with both fingerprints, once each: its holder comes back every second.
fn log_each_once() -> OnRefused {
    let logged = Mutex::new(BTreeSet::new());
    Arc::new(move |refused| {
        let mut logged = logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() >= REFUSALS_REMEMBERED_MAX {
            logged.clear();
        }
        if logged.insert(refused.presented.0) {
            let claims = refused.claims.as_ref().map(ToString::to_string);
            let (authority, presented) = (refused.authority, refused.presented);
            warn!(claims, %authority, %presented, reason = refused.detail, "certificate refused");
        }
    })
}

/// A socket with buffers of `wanted` bytes, and the bytes that the system really granted.
fn socket(listen: SocketAddr, wanted: usize) -> io::Result<(std::net::UdpSocket, usize)> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    if listen.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A refusal is not an error: the size that came out is read back and judged.
    let _ = socket.set_recv_buffer_size(wanted);
    let _ = socket.set_send_buffer_size(wanted);
    let doubled = if cfg!(target_os = "linux") { 2 } else { 1 };
    let granted = socket.recv_buffer_size()?.min(socket.send_buffer_size()?) / doubled;
    if granted < wanted {
        warn!(
            granted,
            wanted,
            "small socket buffers cost throughput; raise net.core.rmem_max and net.core.wmem_max"
        );
    }
    socket.bind(&listen.into())?;
    Ok((socket.into(), granted))
}

fn transport(tuning: &Clamped, mtu_max: u16, connection_window_bytes: u64) -> TransportConfig {
    let window = |bytes: u64| VarInt::from_u64(bytes).unwrap_or(VarInt::MAX);
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(mtu_max);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(tuning.ack_eliciting_threshold.into());
    let mut transport = TransportConfig::default();
    transport
        .initial_mtu(tuning.initial_mtu)
        .mtu_discovery_config(Some(discovery))
        .max_concurrent_bidi_streams(1_u8.into())
        .max_concurrent_uni_streams(1_u8.into())
        .stream_receive_window(window(tuning.stream_window_bytes))
        .receive_window(window(connection_window_bytes))
        .send_window(tuning.send_window_bytes)
        .ack_frequency_config(Some(acks))
        .keep_alive_interval(Some(tuning.keep_alive))
        .max_idle_timeout(tuning.idle_timeout.try_into().ok())
        .initial_rtt(tuning.initial_rtt)
        .datagram_receive_buffer_size(None)
        .enable_segmentation_offload(true);
    transport
}

fn endpoint_config(credentials: &Credentials) -> Result<EndpointConfig, MeshError> {
    let mut config = EndpointConfig::new(Arc::new(ResetKey(credentials.clone())));
    config.cid_generator(|| Box::new(RandomIds));
    config.max_udp_payload_size(MTU_MAX).map_err(MeshError::crypto)?;
    Ok(config)
}

/// The key of stateless resets, the same after every restart with the same certificate: a process
/// that was killed and started again can tell its peers at once that it knows their connections no
/// more, instead of leaving them to their idle time-outs.
struct ResetKey(Credentials);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(&self.0.derive_secret("quic stateless reset", data));
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let expected = self.0.derive_secret("quic stateless reset", data);
        let same = signature.len() == expected.len();
        let differing = signature.iter().zip(expected).fold(0, |sum, (a, b)| sum | (a ^ b));
        if same && differing == 0 { Ok(()) } else { Err(CryptoError) }
    }
}

/// Connection ids that say nothing and that every process takes for possible ones: an id that is
/// refused at sight, as those of another start would be by default, is never answered by a reset.
struct RandomIds;

const CONNECTION_ID_BYTES: usize = 8;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; CONNECTION_ID_BYTES]>())
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_never_outgrow_segmentation_offload_nor_the_handshake() {
        for asked in [0, 1_452, 6_500, 6_501, 12_001, u16::MAX] {
            let tuning = Tuning {
                mtu_max: asked,
                mtu_max_loopback: asked,
                initial_mtu: asked,
                ..Tuning::default()
            };
            let clamped = tuning.clamped(4 << 20);
            for mtu in [clamped.mtu_max, clamped.mtu_max_loopback, clamped.initial_mtu] {
                assert!((MTU_MIN..=MTU_MAX).contains(&mtu), "{asked} became {mtu}");
            }
            assert!(clamped.initial_mtu <= clamped.mtu_max);
            assert!(clamped.initial_mtu <= INITIAL_MTU_MAX);
        }
    }

    #[test]
    fn windows_never_outgrow_the_socket_buffer_that_was_granted() {
        for granted in [0_usize, 212_992, 1 << 20, 4 << 20, 64 << 20] {
            let clamped =
                Tuning { send_window_bytes: u64::MAX, ..Tuning::default() }.clamped(granted);
            let most = (granted as u64).max(WINDOW_BYTES_MIN);
            assert!(clamped.send_window_bytes <= most);
            assert!(clamped.connection_window_bytes <= most);
            assert!(clamped.stream_window_bytes <= most);
        }
        let clamped = Tuning::default().clamped(4 << 20);
        assert_eq!(*clamped, Tuning::default(), "the defaults are within all limits");
    }

    #[test]
    fn large_buffers_are_asked_for_and_read_back() {
        let (_, granted) = socket(([127, 0, 0, 1], 0).into(), 64 << 10).expect("loopback");
        assert!(granted >= 64 << 10, "{granted}");
    }
}
