//! Client: a cluster to talk to, through the node that holds the key or whichever answers.
//!
//! Promise: a request is sent again by itself only where that is safe: when it had not left, when
//! the node said that it had done nothing, or when it only reads; and never more often than a tenth
//! of the requests, so that a cluster in trouble is not asked many times over.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;

use ring::{Hlc, NodeId, Slot};
use tokio::sync::Mutex;
use tokio::time::{Instant, interval, timeout};
use wire::reply::Owner;
use wire::{ClientReply, ClientRequest, ClusterStatus};

use crate::budget::Budget;
use crate::dial::{Dialler, dial_any};
use crate::error::{ClientError, Told};
use crate::limits::{
    ADDRESSES_MAX, ANSWER_MARGIN_MAX, CLOSE_TIMEOUT, DIAL_TIMEOUT, HEDGE_RESERVE,
    HEDGES_PER_THOUSAND, REACH_PAUSE, REACH_TIMEOUT, REQUEST_TIMEOUT, RETRIES_PER_THOUSAND,
    RETRY_RESERVE, UNDECIDED_PER_THOUSAND, UNDECIDED_RESERVE,
};
use crate::link::{Link, NoAnswer};
use crate::name::{Name, Names};
use crate::routes::{Node, Routes};
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

/// How a client goes about its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long to wait for what.
    pub patience: Patience,
    /// The zone that the program runs in: reads go to replicas there before others. None if it does
    /// not matter.
    pub zone: Option<String>,
    /// Ask a second replica when the first takes longer to answer a read than it took for nineteen
    /// of twenty; for one read in twenty at most.
    pub hedging: bool,
    /// Read a quorum from its replicas at once, instead of asking one of them to do so; a coordinator is
    /// asked only if they differ.
    pub direct_reads: bool,
    /// Hear from the replicas of a write that they hold it, instead of waiting until their coordinator has heard them.
    /// A coordinator that has much to do answers itself nevertheless.
    pub direct_acks: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let patience = Patience::default();
        Self { patience, zone: None, hedging: true, direct_reads: true, direct_acks: true }
    }
}

impl From<Patience> for Settings {
    fn from(patience: Patience) -> Self {
        Self { patience, ..Self::default() }
    }
}

/// What a client has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests for keys.
    pub requests: u64,
    /// Of these, asked of a node that holds the key.
    pub routed: u64,
    /// Reads that the client gathered by itself, without a coordinator.
    pub direct: u64,
    /// Reads that it could not gather, since replicas differed or were not to be had: a coordinator was asked.
    pub undecided: u64,
    /// Writes of which the replicas said that they hold them, before their coordinators would have.
    pub confirmed: u64,
    /// Reads for which a second node was asked because the first was slow.
    pub hedged: u64,
    /// Requests that were asked again after a failure.
    pub retried: u64,
    /// Answers for which nobody waited any more: they came after the deadline, or
    /// after that of another node that was asked as well.
    pub unwanted: u64,
    /// The epoch of the map of the slots; none before there is one.
    pub epoch: Option<u64>,
}

/// A connection to a cluster. Clones share it.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    /// The database of its keys.
    keyspace: u16,
}

struct Inner {
    addresses: Vec<String>,
    dialler: Dialler,
    settings: Settings,
    /// The node that is asked what concerns no key, or whose key's holders are not known.
    link: Mutex<Arc<Link>>,
    /// The greatest clock heard on any link.
    hlc: AtomicU64,
    routes: Routes,
    hedges: Budget,
    retries: Budget,
    /// How many direct reads may come to nothing.
    undecided: Budget,
    counts: Counts,
    names: Arc<Names>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    routed: AtomicU64,
    direct: AtomicU64,
    undecided: AtomicU64,
    hedged: AtomicU64,
    retried: AtomicU64,
}

fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
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
    /// How much earlier than the caller gives up a node hears that it has to answer. The same however often it is
    /// asked: who is asked when little time is left needs as long for the way back as who is asked first.
    margin: Duration,
    /// Whether asking twice does no harm.
    repeatable: bool,
}

impl Asking {
    /// Something that must not happen twice.
    pub(crate) fn once(timeout: Duration) -> Self {
        Self { timeout, margin: ANSWER_MARGIN_MAX.min(timeout / 5), repeatable: false }
    }

    /// Something that changes nothing.
    pub(crate) fn harmless(timeout: Duration) -> Self {
        Self { repeatable: true, ..Self::once(timeout) }
    }

    /// How long it may take.
    pub(crate) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// In which time a node would have to answer of what is asked now and given up then.
    pub(crate) fn told(&self, until: Instant) -> Duration {
        self.until(until).timeout.saturating_sub(self.margin)
    }

    /// The same in the time that is left until then.
    pub(crate) fn until(self, until: Instant) -> Self {
        Self { timeout: until.saturating_duration_since(Instant::now()), ..self }
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

    /// As [`Client::connect`], with settings of one's own, or only a [`Patience`].
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_with<A: Into<String>>(
        addresses: impl IntoIterator<Item = A>,
        tls: Tls,
        settings: impl Into<Settings>,
    ) -> Result<Self, ClientError> {
        let settings = settings.into();
        let addresses = addresses.into_iter().map(Into::into).take(ADDRESSES_MAX);
        let addresses: Vec<String> = addresses.collect();
        let names = Arc::new(Names::new());
        let dialler = Dialler {
            tls,
            number: names.client(),
            acks: Arc::default(),
            unwanted: Arc::default(),
            sockets: Arc::default(),
        };
        let dialled = dial_any(&addresses, &dialler, settings.patience.dial).await?;
        let inner = Inner {
            addresses,
            settings,
            link: Mutex::new(Arc::new(Link::open(dialled, &dialler))),
            dialler,
            hlc: AtomicU64::new(0),
            routes: Routes::default(),
            hedges: Budget::new(HEDGES_PER_THOUSAND, HEDGE_RESERVE),
            retries: Budget::new(RETRIES_PER_THOUSAND, RETRY_RESERVE),
            undecided: Budget::new(UNDECIDED_PER_THOUSAND, UNDECIDED_RESERVE),
            counts: Counts::default(),
            names,
        };
        Ok(Self { inner: Arc::new(inner), keyspace: 0 })
    }

    /// The same cluster, over the same connections, with the keys of another database: what `SELECT` chooses
    /// for a Redis client. A client begins with those of database 0.
    ///
    /// A database that does not exist is refused by the node, as [`ClientError::Invalid`].
    #[must_use]
    pub fn database(&self, number: u16) -> Self {
        Self { inner: self.inner.clone(), keyspace: number }
    }

    /// What this client and its clones have done so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let (counts, read) =
            (&self.inner.counts, |count: &AtomicU64| count.load(Ordering::Relaxed));
        Tally {
            requests: read(&counts.requests),
            routed: read(&counts.routed),
            direct: read(&counts.direct),
            undecided: read(&counts.undecided),
            confirmed: self.inner.dialler.acks.confirmed(),
            hedged: read(&counts.hedged),
            retried: read(&counts.retried),
            unwanted: read(&self.inner.dialler.unwanted),
            epoch: self.inner.routes.epoch(),
        }
    }

    pub(crate) fn patience(&self) -> Patience {
        self.inner.settings.patience
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
        let link = self.inner.link.lock().await;
        let (answer, address) = (link.answer(), link.address().to_owned());
        Contact { node: answer.node, address, wire: answer.wire }
    }

    /// The certificates of the node that the next request goes to, its own first, as DER.
    pub async fn certificates(&self) -> Vec<Vec<u8>> {
        self.inner.link.lock().await.certificates()
    }

    /// How many requests wait for their answers.
    pub async fn pending(&self) -> usize {
        let routed: usize = self.inner.routes.links().iter().map(|link| link.pending()).sum();
        routed + self.inner.link.lock().await.pending()
    }

    /// Says farewell to the nodes, and waits a moment until it was heard. Dropping the last clone
    /// does so without waiting.
    pub async fn close(self) {
        let mut links = self.inner.routes.links();
        links.push(self.inner.link.lock().await.clone());
        // Two of them may share a socket, which is idle once both are gone.
        links.iter().for_each(|link| link.hang_up());
        let idle = async {
            for link in &links {
                link.wait_idle().await;
            }
        };
        // A node that does not hear it notices by itself.
        drop(timeout(CLOSE_TIMEOUT, idle).await);
    }

    pub(crate) async fn ask_default(
        &self,
        request: &ClientRequest<'_>,
    ) -> Result<ClientReply, ClientError> {
        self.ask(Asking::harmless(self.inner.settings.patience.request), request).await
    }

    /// A name for a request, so that it can be sent again without being done twice.
    #[must_use]
    pub fn name(&self) -> Name {
        Name::new(&self.inner.names)
    }

    pub(crate) fn count_request(&self) {
        one_more(&self.inner.counts.requests);
        self.inner.hedges.earn();
        self.inner.retries.earn();
    }

    /// The epoch of the map and how many replicas it gives a slot, if a read at `level` may be gathered from them.
    pub(crate) fn may_read_directly(
        &self,
        slot: Slot,
        level: Option<wire::Level>,
    ) -> Option<(u64, usize)> {
        let inner = &*self.inner;
        let fits = matches!(level, None | Some(wire::Level::Quorum)) && inner.settings.direct_reads;
        inner.undecided.earn();
        if !fits
            || !inner.undecided.has()
            || !inner.routes.gives_shares((self.keyspace, level.is_some()))
        {
            return None;
        }
        inner.routes.copies(slot)
    }

    /// A read was gathered without a coordinator.
    pub(crate) fn count_direct(&self) {
        self.count_request();
        one_more(&self.inner.counts.routed);
        one_more(&self.inner.counts.direct);
    }

    /// A read could not be gathered.
    pub(crate) fn count_undecided(&self) {
        self.inner.undecided.spend();
        one_more(&self.inner.counts.undecided);
    }

    /// The database is not one of which shares can be had for such reads.
    pub(crate) fn stop_reading_directly(&self, level: Option<wire::Level>) {
        self.inner.routes.gives_no_shares((self.keyspace, level.is_some()));
    }

    pub(crate) fn zone(&self) -> Option<&str> {
        self.inner.settings.zone.as_deref()
    }

    pub(crate) fn hedges(&self) -> bool {
        self.inner.settings.hedging
    }

    /// Whether the budget allows to ask one more replica; then it counts as done.
    pub(crate) fn may_hedge(&self) -> bool {
        let may = self.inner.hedges.spend();
        if may {
            one_more(&self.inner.counts.hedged);
        }
        may
    }

    /// Whether replicas are to tell of a write themselves, where there are connections to so many holders of it.
    pub(crate) fn hears_replicas(&self, at_hand: usize) -> bool {
        self.inner.settings.direct_acks && at_hand > 1
    }

    /// How many nodes keep a key, as far as is known.
    pub(crate) fn holders(&self, key: &[u8]) -> usize {
        self.inner.routes.holders(Slot::of_key(key), false, None).len()
    }

    pub(crate) fn count_routed(&self) {
        one_more(&self.inner.counts.routed);
    }

    /// Whether the budget allows to ask again; then it counts as done.
    pub(crate) fn may_retry(&self) -> bool {
        let may = self.inner.retries.spend();
        if may {
            one_more(&self.inner.counts.retried);
        }
        may
    }

    /// Asks a node that holds `key`, or another if none of them is at hand.
    pub(crate) async fn ask_for(
        &self,
        key: &[u8],
        asking: Asking,
        request: &ClientRequest<'_>,
    ) -> Result<ClientReply, ClientError> {
        let inner = &*self.inner;
        self.count_request();
        let until = Instant::now() + asking.timeout;
        let at_hand = self.at_hand(Slot::of_key(key), asking.repeatable);
        for (place, (node, link)) in at_hand.iter().enumerate() {
            if place > 0 && !self.may_retry() {
                break;
            }
            let other =
                at_hand.get(place + 1).filter(|_| asking.repeatable && inner.settings.hedging);
            let asked = self.ask_hedged((node, link), other, asking, request, until);
            match asked.await {
                Ok(reply) => {
                    one_more(&inner.counts.routed);
                    return Ok(reply);
                }
                Err(NoAnswer::NotSent) => node.shun(),
                Err(NoAnswer::Lost { reason }) => {
                    node.shun();
                    if !asking.repeatable {
                        let address = link.address().into();
                        return Err(ClientError::Interrupted { address, reason });
                    }
                }
                Err(NoAnswer::Error(ClientError::NotReady { .. })) => node.shun(),
                Err(NoAnswer::NoTime) => {
                    return Err(ClientError::TimedOut { after: asking.timeout });
                }
                Err(NoAnswer::Error(error)) => return Err(Self::timed(error, asking)),
            }
        }
        self.ask(asking.until(until), request).await.map_err(|error| Self::timed(error, asking))
    }

    /// Connects to the nodes that keep `key`, so that the first request for it need not go through another one; waits
    /// for half a second at most. To how many of them connections stand then. Nothing is asked of the key.
    pub async fn reach(&self, key: impl AsRef<[u8]>) -> usize {
        let key = key.as_ref();
        let until = Instant::now() + REACH_TIMEOUT;
        let mut looks = interval(REACH_PAUSE);
        loop {
            looks.tick().await;
            let at_hand = self.at_hand(Slot::of_key(key), true).len();
            let known = self.inner.routes.epoch().is_some();
            if (known && at_hand == self.holders(key)) || Instant::now() >= until {
                return at_hand;
            }
        }
    }

    /// The holders of `slot` to which a connection stands, in the order in which to ask them.
    pub(crate) fn at_hand(&self, slot: Slot, is_read: bool) -> Vec<(Arc<Node>, Arc<Link>)> {
        self.look_at_map();
        let Inner { dialler, settings, routes, .. } = &*self.inner;
        let holders = routes.holders(slot, is_read, settings.zone.as_deref());
        let link = |node: Arc<Node>| {
            let link = node.link(dialler, settings.patience.dial)?;
            Some((node, link))
        };
        holders.into_iter().filter_map(link).collect()
    }

    /// Fetches the map of the slots in the background if there is none, or a later one.
    fn look_at_map(&self) {
        if !self.inner.routes.wants_map() {
            return;
        }
        let client = self.clone();
        tokio::spawn(async move {
            let asked = client.ask_default(&ClientRequest::Layout).await;
            let map = match asked {
                Ok(ClientReply::Layout { layout, down }) => Ok((*layout, down)),
                // A node of an earlier version: all requests go through it.
                Ok(_) | Err(ClientError::Invalid { .. }) => Err(true),
                Err(_) => Err(false),
            };
            client.inner.routes.fetched(map);
        });
    }

    /// Asks one node, and if it is slow, and there is a budget, another one besides.
    async fn ask_hedged(
        &self,
        (node, link): (&Arc<Node>, &Arc<Link>),
        other: Option<&(Arc<Node>, Arc<Link>)>,
        asking: Asking,
        request: &ClientRequest<'_>,
        until: Instant,
    ) -> Result<ClientReply, NoAnswer> {
        let began = Instant::now();
        let first = self.ask_link(link, asking, request, until);
        tokio::pin!(first);
        let after = node.latency.hedge_after();
        let (Some(after), Some((other, other_link))) = (after, other) else {
            let reply = first.await;
            node.latency.record(began.elapsed());
            return reply;
        };
        if let Ok(reply) = timeout(after, &mut first).await {
            node.latency.record(began.elapsed());
            return reply;
        }
        if asking.told(until).is_zero() || !self.may_hedge() {
            let reply = first.await;
            node.latency.record(began.elapsed());
            return reply;
        }
        let again = Instant::now();
        let second = self.ask_link(other_link, asking, request, until);
        tokio::pin!(second);
        // The first good answer counts; a bad one only if the other is bad as well. Whoever loses is
        // dropped, which tells its node to stop.
        tokio::select! {
            reply = &mut first => {
                node.latency.record(began.elapsed());
                if reply.is_ok() { reply } else { second.await.or(reply) }
            }
            reply = &mut second => {
                other.latency.record(again.elapsed());
                // That slow at least: else the slow node would look fast by not being waited for.
                node.latency.record(began.elapsed());
                if reply.is_ok() { reply } else { first.await }
            }
        }
    }

    pub(crate) async fn ask_link(
        &self,
        link: &Link,
        asking: Asking,
        request: &ClientRequest<'_>,
        until: Instant,
    ) -> Result<ClientReply, NoAnswer> {
        self.ask_link_or_doubt(link, asking, request, until, &|_| false).await
    }

    /// The same, of a write of which replicas are to tell: `doubts` says whether one of them may have told in vain since
    /// then.
    pub(crate) async fn ask_link_or_doubt(
        &self,
        link: &Link,
        asking: Asking,
        request: &ClientRequest<'_>,
        until: Instant,
        doubts: &(dyn Fn(Instant) -> bool + Sync),
    ) -> Result<ClientReply, NoAnswer> {
        let told = asking.told(until);
        if told.is_zero() {
            return Err(NoAnswer::NoTime);
        }
        let hlc = Hlc(self.inner.hlc.fetch_max(link.hlc().0, Ordering::Relaxed)).max(link.hlc());
        let inside;
        let request = if self.keyspace == 0 || !request.is_about_keys() {
            request
        } else {
            let request = Box::new(request.clone());
            inside = ClientRequest::In { keyspace: self.keyspace, request };
            &inside
        };
        let reply =
            link.ask(request, hlc, told, until, &|since| doubts(since) && self.may_retry()).await;
        self.inner.hlc.fetch_max(link.hlc().0, Ordering::Relaxed);
        self.inner.routes.hear_epoch(link.epoch());
        reply
    }

    /// A link does not know how long the request was given.
    pub(crate) fn timed(error: ClientError, asking: Asking) -> ClientError {
        match error {
            ClientError::TimedOut { .. } => ClientError::TimedOut { after: asking.timeout },
            error => error,
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
            let error = match self.ask_link(&link, asking, request, until).await {
                Ok(reply) => return Ok(reply),
                Err(NoAnswer::NotSent) => {
                    let (address, reason) = (link.address().into(), "it was gone".into());
                    ClientError::Interrupted { address, reason }
                }
                Err(NoAnswer::Lost { reason }) => {
                    let error = ClientError::Interrupted { address: link.address().into(), reason };
                    if !asking.repeatable {
                        return Err(error);
                    }
                    error
                }
                Err(NoAnswer::Error(error @ ClientError::NotReady { .. })) => error,
                Err(NoAnswer::NoTime) => {
                    return Err(ClientError::TimedOut { after: asking.timeout });
                }
                Err(NoAnswer::Error(error)) => return Err(Self::timed(error, asking)),
            };
            if turns_left == 0 {
                return Err(error);
            }
            turns_left -= 1;
            gone = Some(link);
        }
    }

    /// The link of this client, or a new one if that is `gone` or broken.
    pub(crate) async fn link_other_than(
        &self,
        gone: Option<Arc<Link>>,
        until: Instant,
        given: Duration,
    ) -> Result<Arc<Link>, ClientError> {
        let inner = &*self.inner;
        let late = |_| ClientError::TimedOut { after: given };
        let mut current = tokio::time::timeout_at(until, inner.link.lock()).await.map_err(late)?;
        let unwanted = gone.is_some_and(|gone| Arc::ptr_eq(&gone, &current));
        if unwanted || !current.is_alive() {
            // The address that failed comes last.
            let failed = current.address();
            let place = inner.addresses.iter().position(|a| a == failed).map_or(0, |at| at + 1);
            let mut addresses = inner.addresses.clone();
            let count = addresses.len().max(1);
            addresses.rotate_left(place % count);
            let left = until.saturating_duration_since(Instant::now());
            let patience = inner.settings.patience.dial.min(left);
            let dialled = dial_any(&addresses, &inner.dialler, patience).await?;
            inner.hlc.fetch_max(current.hlc().0, Ordering::Relaxed);
            *current = Arc::new(Link::open(dialled, &inner.dialler));
        }
        Ok(current.clone())
    }

    /// An answer to another question than the one that was asked.
    pub(crate) fn misfit(reply: &ClientReply) -> ClientError {
        let why = match reply {
            ClientReply::Value { .. } => "a value",
            ClientReply::Share { .. } => "a share of a read",
            ClientReply::Done { .. } => "an acknowledgement",
            ClientReply::Values { .. } => "several values",
            ClientReply::Number { .. } => "a number",
            ClientReply::Page { .. } => "a page of a range",
            ClientReply::Deleted { .. } => "the end of a removal",
            ClientReply::Layout { .. } => "a map of the slots",
            ClientReply::Status(_) => "a status",
            ClientReply::Owners { .. } => "owners",
            ClientReply::Pong => "a pong",
            ClientReply::Admin(_) => "an answer for administrators",
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
        write!(f, "Client({}, {:?})", self.inner.dialler.tls.identity(), self.inner.addresses)
    }
}
