//! Client: a cluster to talk to, through whichever node answers.
//!
//! Promise: a request is sent again by itself only where that is safe: when it had not left, when
//! the node said that it had done nothing, or when it only reads.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use ring::{Hlc, NodeId, Slot};
use tokio::sync::Mutex;
use tokio::time::Instant;
use wire::reply::Owner;
use wire::{ClientReply, ClientRequest, ClusterStatus};

use crate::causal::Context;
use crate::dial::dial_any;
use crate::error::{ClientError, Told};
use crate::limits::{ADDRESSES_MAX, ANSWER_MARGIN_MAX, DIAL_TIMEOUT, REQUEST_TIMEOUT};
use crate::link::{Link, NoAnswer};
use crate::request::{Delete, Get, Put};
use crate::tls::Tls;

/// How long to wait for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For one address to accept a connection.
    pub dial: Duration,
    /// For a request that does not say how long it may take.
    pub request: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { dial: DIAL_TIMEOUT, request: REQUEST_TIMEOUT }
    }
}

/// A connection to a cluster. Clones share it.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    addresses: Vec<String>,
    tls: Tls,
    patience: Patience,
    link: Mutex<Current>,
}

struct Current {
    link: Arc<Link>,
    /// The greatest clock heard on earlier links.
    hlc: Hlc,
}

/// Who holds a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owners {
    /// Its slot.
    pub slot: Slot,
    /// The nodes that hold it, the preferred coordinator first.
    pub nodes: Vec<Owner>,
}

/// The node that a client talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Its number in the layout.
    pub node: NodeId,
    /// The address that was dialled.
    pub address: String,
    /// The versions of the wire that it speaks.
    pub wire: wire::Versions,
}

/// How a request may be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    timeout: Duration,
    /// Whether asking twice does no harm.
    repeatable: bool,
}

impl Asking {
    /// Something that changes nothing.
    pub(crate) const fn harmless(timeout: Duration) -> Self {
        Self { timeout, repeatable: true }
    }
}

impl Client {
    /// Connects to the first of `addresses` (`host:port`, the nodes' QUIC ports) that answers.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] if none answers, [`ClientError::Unauthorised`] if one does and
    /// certificates forbid it.
    pub async fn connect<A: Into<String>>(
        addresses: impl IntoIterator<Item = A>,
        tls: Tls,
    ) -> Result<Self, ClientError> {
        Self::connect_with(addresses, tls, Patience::default()).await
    }

    /// As [`Client::connect`], with a patience of one's own.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_with<A: Into<String>>(
        addresses: impl IntoIterator<Item = A>,
        tls: Tls,
        patience: Patience,
    ) -> Result<Self, ClientError> {
        let addresses = addresses.into_iter().map(Into::into).take(ADDRESSES_MAX);
        let addresses: Vec<String> = addresses.collect();
        let link = Arc::new(Link::open(dial_any(&addresses, &tls, patience.dial).await?));
        let link = Mutex::new(Current { link, hlc: Hlc(0) });
        Ok(Self { inner: Arc::new(Inner { addresses, tls, patience, link }) })
    }

    /// Reads a key.
    pub fn get(&self, key: impl Into<Bytes>) -> Get {
        let timeout = self.inner.patience.request;
        Get { client: self.clone(), key: key.into(), level: None, timeout }
    }

    /// Writes a key.
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Put {
        Put {
            client: self.clone(),
            key: key.into(),
            value: value.into(),
            context: None,
            level: None,
            durability: None,
            ttl: None,
            timeout: self.inner.patience.request,
        }
    }

    /// Removes a key.
    pub fn delete(&self, key: impl Into<Bytes>) -> Delete {
        let timeout = self.inner.patience.request;
        Delete { client: self.clone(), key: key.into(), context: None, level: None, timeout }
    }

    /// The cluster as the node that is asked sees it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn status(&self) -> Result<ClusterStatus, ClientError> {
        match self.ask_default(&ClientRequest::Status).await? {
            ClientReply::Status(status) => Ok(status),
            other => Err(Self::misfit(&other)),
        }
    }

    /// Who holds a key.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn owners(&self, key: impl AsRef<[u8]>) -> Result<Owners, ClientError> {
        match self.ask_default(&ClientRequest::Owners { key: key.as_ref() }).await? {
            ClientReply::Owners { slot, nodes } => Ok(Owners { slot: Slot(slot), nodes }),
            other => Err(Self::misfit(&other)),
        }
    }

    /// Asks nothing; how long the answer took.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ping(&self) -> Result<Duration, ClientError> {
        let asked = Instant::now();
        match self.ask_default(&ClientRequest::Ping).await? {
            ClientReply::Pong => Ok(asked.elapsed()),
            other => Err(Self::misfit(&other)),
        }
    }

    /// The node that the next request goes to, unless it is gone by then.
    pub async fn contact(&self) -> Contact {
        let current = self.inner.link.lock().await;
        let (answer, address) = (current.link.answer(), current.link.address().to_owned());
        Contact { node: answer.node, address, wire: answer.wire }
    }

    /// How many requests wait for their answers.
    pub async fn pending(&self) -> usize {
        self.inner.link.lock().await.link.pending()
    }

    /// Says farewell to the node, and waits a moment until it was heard. Dropping the last clone
    /// does so without waiting.
    pub async fn close(self) {
        let link = self.inner.link.lock().await.link.clone();
        link.close().await;
    }

    async fn ask_default(&self, request: &ClientRequest<'_>) -> Result<ClientReply, ClientError> {
        self.ask(Asking::harmless(self.inner.patience.request), request).await
    }

    pub(crate) async fn write(
        &self,
        timeout: Duration,
        request: &ClientRequest<'_>,
    ) -> Result<Context, ClientError> {
        match self.ask(Asking { timeout, repeatable: false }, request).await? {
            ClientReply::Done { context } => Ok(Context(context)),
            other => Err(Self::misfit(&other)),
        }
    }

    /// Asks until there is an answer, every address is used up, or time is.
    pub(crate) async fn ask(
        &self,
        asking: Asking,
        request: &ClientRequest<'_>,
    ) -> Result<ClientReply, ClientError> {
        let until = Instant::now() + asking.timeout;
        let mut turns_left = self.inner.addresses.len();
        let mut gone: Option<Arc<Link>> = None;
        loop {
            let link = self.link_other_than(gone.take(), until, asking.timeout).await?;
            let left = until.saturating_duration_since(Instant::now());
            let told = left - ANSWER_MARGIN_MAX.min(left / 10);
            let error = match link.0.ask(request, link.1, told, until).await {
                Ok(reply) => return Ok(reply),
                Err(NoAnswer::NotSent) => {
                    let (address, reason) = (link.0.address().into(), "it was gone".into());
                    ClientError::Interrupted { address, reason }
                }
                Err(NoAnswer::Lost { reason }) => {
                    let error =
                        ClientError::Interrupted { address: link.0.address().into(), reason };
                    if !asking.repeatable {
                        return Err(error);
                    }
                    error
                }
                Err(NoAnswer::Error(error @ ClientError::NotReady { .. })) => error,
                Err(NoAnswer::Error(ClientError::TimedOut { .. })) => {
                    return Err(ClientError::TimedOut { after: asking.timeout });
                }
                Err(NoAnswer::Error(error)) => return Err(error),
            };
            if turns_left == 0 {
                return Err(error);
            }
            turns_left -= 1;
            gone = Some(link.0);
        }
    }

    /// The link of this client, or a new one if that is `gone` or broken. With it comes the clock
    /// to say.
    async fn link_other_than(
        &self,
        gone: Option<Arc<Link>>,
        until: Instant,
        given: Duration,
    ) -> Result<(Arc<Link>, Hlc), ClientError> {
        let inner = &*self.inner;
        let late = |_| ClientError::TimedOut { after: given };
        let mut current = tokio::time::timeout_at(until, inner.link.lock()).await.map_err(late)?;
        let unwanted = gone.is_some_and(|gone| Arc::ptr_eq(&gone, &current.link));
        if unwanted || !current.link.is_alive() {
            // The address that failed comes last.
            let failed = current.link.address();
            let place = inner.addresses.iter().position(|a| a == failed).map_or(0, |at| at + 1);
            let mut addresses = inner.addresses.clone();
            let count = addresses.len().max(1);
            addresses.rotate_left(place % count);
            let patience = inner.patience.dial.min(until.saturating_duration_since(Instant::now()));
            let dialled = dial_any(&addresses, &inner.tls, patience).await?;
            current.hlc = current.hlc.max(current.link.hlc());
            current.link = Arc::new(Link::open(dialled));
        }
        let hlc = current.hlc.max(current.link.hlc());
        Ok((current.link.clone(), hlc))
    }

    /// An answer to another question than the one that was asked.
    pub(crate) fn misfit(reply: &ClientReply) -> ClientError {
        let why = match reply {
            ClientReply::Value { .. } => "a value",
            ClientReply::Done { .. } => "an acknowledgement",
            ClientReply::Status(_) => "a status",
            ClientReply::Owners { .. } => "owners",
            ClientReply::Pong => "a pong",
            ClientReply::Error(_) => "an error",
        };
        ClientError::Internal {
            told: Told::new(
                "the node answered another question",
                format!("it sent {why}"),
                "compare the versions of client and node",
            ),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({}, {:?})", self.inner.tls.identity(), self.inner.addresses)
    }
}
