//! Dialling: from addresses to one connection over which hellos were exchanged.
//!
//! The addresses are tried in turn, each new one a little after the last, without giving the
//! earlier ones up: a dead node costs a fraction of a second, not its whole time-out.

use core::time::Duration;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use quinn::{
    AckFrequencyConfig, ClientConfig, Connection, ConnectionError, Endpoint, MtuDiscoveryConfig,
    RecvStream, SendStream, TransportConfig,
};
use ring::{ClusterId, NodeId};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::debug;
use wire::hello::{HELLO_BYTES, close};
use wire::{Hello, Purpose, Versions};

use crate::acks::Acks;
use crate::error::{Attempt, ClientError, Told};
use crate::limits::{
    DIAL_STAGGER, IDLE_TIMEOUT, INITIAL_RTT, KEEP_ALIVE, MTU_LOOPBACK, UNACKNOWLEDGED,
};
use crate::sockets::Sockets;
use crate::tls::{Refused, Tls};

/// Who dials.
#[derive(Clone)]
pub(crate) struct Dialler {
    pub(crate) tls: Tls,
    /// The client's number in the names of its requests: so replicas know whom to tell of its writes.
    pub(crate) number: u64,
    /// The writes of which it hears.
    pub(crate) acks: Arc<Acks>,
    /// Answers that came over any of its links when nobody waited for them any more.
    pub(crate) unwanted: Arc<AtomicU64>,
    /// Over which it does.
    pub(crate) sockets: Arc<Sockets>,
}

/// A connection, ready for requests.
pub(crate) struct Dialled {
    /// The address as it was given.
    pub(crate) address: String,
    pub(crate) endpoint: Endpoint,
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    /// What the node says of itself.
    pub(crate) answer: Hello,
}

/// Why one dial failed.
#[derive(Debug)]
enum Failed {
    /// Nobody there, or nobody who speaks our language.
    Unreached(String),
    /// Somebody is there, and one side does not accept the other.
    Refused(Told),
}

/// Dials `addresses` in turn until one answers, for at most `patience` each.
pub(crate) async fn dial_any(
    addresses: &[String],
    dialler: &Dialler,
    patience: Duration,
) -> Result<Dialled, ClientError> {
    let mut dials = JoinSet::new();
    let mut waiting = addresses.iter().cloned().enumerate();
    let mut failures: Vec<(usize, String, Failed)> = Vec::new();
    loop {
        if let Some((place, address)) = waiting.next() {
            let dialler = dialler.clone();
            dials.spawn(async move {
                let dialled = dial(&address, &dialler, Instant::now() + patience).await;
                dialled.map_err(|failed| (place, address, failed))
            });
        } else if dials.is_empty() {
            return Err(give_up(failures));
        }
        let next_at = match waiting.len() {
            0 => None,
            _ => Some(Instant::now() + DIAL_STAGGER),
        };
        let done = match next_at {
            Some(at) => timeout_at(at, dials.join_next()).await.ok().flatten(),
            None => dials.join_next().await,
        };
        match done {
            Some(Ok(Ok(dialled))) => return Ok(dialled),
            Some(Ok(Err(failure))) => {
                debug!(address = failure.1, reason = ?failure.2, "cannot connect");
                failures.push(failure);
            }
            // A dial is neither aborted nor panics; its address counts as silent.
            Some(Err(error)) => debug!(%error, "a dial was lost"),
            None => {}
        }
    }
}

/// A refusal explains more than a silence.
fn give_up(mut failures: Vec<(usize, String, Failed)>) -> ClientError {
    failures.sort_by_key(|(place, ..)| *place);
    let refused = failures.iter().find_map(|(_, address, failed)| match failed {
        Failed::Refused(told) => Some((address, told)),
        Failed::Unreached(_) => None,
    });
    if let Some((address, Told { what, why, fix })) = refused {
        let what = format!("no connection to {address}: {what}");
        return ClientError::Unauthorised { told: Told::new(what, why, fix) };
    }
    let attempt = |(_, address, failed)| match failed {
        Failed::Unreached(reason) => Some(Attempt { address, reason }),
        Failed::Refused(_) => None,
    };
    ClientError::Unreachable { attempts: failures.into_iter().filter_map(attempt).collect() }
}

async fn dial(address: &str, dialler: &Dialler, until: Instant) -> Result<Dialled, Failed> {
    let silent = || Failed::Unreached("nothing answers there".into());
    let resolved = timeout_at(until, tokio::net::lookup_host(address)).await;
    let resolved = resolved.map_err(|_| Failed::Unreached("its name is not resolved".into()))?;
    let resolved = resolved.map_err(|e| Failed::Unreached(format!("not an address: {e}")))?;
    let mut last = Failed::Unreached("its name has no address".into());
    for to in resolved {
        let (crypto, refused) =
            dialler.tls.dial_config().map_err(|e| Failed::Unreached(e.to_string()))?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport(to)));
        let greeted = timeout_at(until, greet(address, to, config, dialler)).await;
        dialler.sockets.dialled(to, matches!(greeted, Ok(Ok(_))));
        match greeted {
            Ok(Ok(dialled)) => return Ok(dialled),
            Ok(Err(error)) => last = why(&error, &refused),
            Err(_) => last = silent(),
        }
    }
    Err(last)
}

/// How a dial ended before there was anything to talk about.
enum Broken {
    /// The socket, or the stream.
    Local(String),
    /// The connection.
    Connection(ConnectionError),
    /// What answers says no hello of ours.
    NoHello,
    /// No version in common.
    Versions(Versions),
}

impl From<ConnectionError> for Broken {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(error)
    }
}

async fn greet(
    address: &str,
    to: SocketAddr,
    config: ClientConfig,
    dialler: &Dialler,
) -> Result<Dialled, Broken> {
    let local = |e: &dyn core::fmt::Display| Broken::Local(e.to_string());
    let (endpoint, connecting) =
        dialler.sockets.dial(config, to, &dialler.tls.name()).map_err(|e| local(&e))?;
    let connection = connecting.await?;
    // What the connection itself says explains more than what a stream says about it.
    let explained = |e: &dyn core::fmt::Display| match connection.close_reason() {
        Some(reason) => Broken::Connection(reason),
        None => Broken::Local(e.to_string()),
    };
    let (mut send, mut recv) = connection.open_bi().await?;
    let hello = Hello {
        purpose: Purpose::Client,
        wire: Versions::OURS,
        node: NodeId(0),
        boot: dialler.number,
        cluster: ClusterId(0),
    };
    send.write_all(&hello.encode()).await.map_err(|e| explained(&e))?;
    let mut bytes = [0; HELLO_BYTES];
    if let Err(error) = recv.read_exact(&mut bytes).await {
        // The reason of a close may arrive just behind the end of the stream.
        if !matches!(error, quinn::ReadExactError::FinishedEarly(_)) {
            return Err(connection.closed().await.into());
        }
        return Err(explained(&error));
    }
    let answer = Hello::decode(&bytes).ok_or(Broken::NoHello)?;
    if Versions::OURS.agree(answer.wire).is_none() {
        return Err(Broken::Versions(answer.wire));
    }
    Ok(Dialled { address: address.to_owned(), endpoint, connection, send, recv, answer })
}

fn why(broken: &Broken, refused: &Refused) -> Failed {
    // Ours comes first: of a certificate that we refused the alert says less than we know.
    if let Some(told) = refused.take() {
        return Failed::Refused(told);
    }
    match broken {
        Broken::Local(text) => Failed::Unreached(text.clone()),
        Broken::NoHello => Failed::Unreached("what answers there is no node".into()),
        Broken::Versions(theirs) => {
            Failed::Unreached(format!("it speaks wire {theirs}, this client {}", Versions::OURS))
        }
        Broken::Connection(error) => ended(error),
    }
}

fn ended(error: &ConnectionError) -> Failed {
    let refused = |why: String, fix: &str| {
        Failed::Refused(Told::new("the node refuses this client", why, fix))
    };
    match error {
        ConnectionError::ApplicationClosed(closed) => {
            let text = String::from_utf8_lossy(&closed.reason).into_owned();
            match u32::try_from(closed.error_code.into_inner()) {
                Ok(close::WRONG_ROLE) => refused(text, "use a certificate of role client or admin"),
                Ok(close::WRONG_CLUSTER) => refused(text, "use the certificates of that cluster"),
                _ => Failed::Unreached(format!("the node closed the connection: {text}")),
            }
        }
        other => match certificate_alert(other) {
            Some(alert) => refused(
                format!("it says of our certificate: {alert}"),
                "use a certificate that this cluster's CA has signed: ringctl cert issue NAME",
            ),
            None if matches!(other, ConnectionError::TimedOut) => {
                Failed::Unreached("nothing answers there".into())
            }
            None => Failed::Unreached(how_it_ended(other)),
        },
    }
}

/// What the other side's TLS says, if it is about certificates.
fn certificate_alert(error: &ConnectionError) -> Option<&'static str> {
    let code = match error {
        ConnectionError::ConnectionClosed(closed) => u64::from(closed.error_code),
        ConnectionError::TransportError(fault) => u64::from(fault.code),
        _ => return None,
    };
    // Codes 0x100 to 0x1ff carry a TLS alert in their last byte.
    (code >> 8 == 1).then(|| certs::explain_alert(code as u8)).flatten()
}

/// The end of a connection in words.
pub(crate) fn how_it_ended(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TimedOut => "nothing was heard of it any longer".into(),
        ConnectionError::Reset => "the node was restarted".into(),
        ConnectionError::LocallyClosed => "this client closed it".into(),
        ConnectionError::ApplicationClosed(closed) => {
            format!("the node closed it: {}", String::from_utf8_lossy(&closed.reason))
        }
        other => other.to_string(),
    }
}

fn transport(to: SocketAddr) -> TransportConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    if to.ip().is_loopback() {
        discovery.upper_bound(MTU_LOOPBACK);
    }
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(UNACKNOWLEDGED.into());
    let mut transport = TransportConfig::default();
    transport
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IDLE_TIMEOUT.try_into().ok())
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(discovery))
        .ack_frequency_config(Some(acks))
        .max_concurrent_bidi_streams(0_u8.into())
        .max_concurrent_uni_streams(0_u8.into())
        .datagram_receive_buffer_size(None);
    transport
}
