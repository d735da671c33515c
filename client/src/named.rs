//! Named: a write is asked for until it is known what became of it, always under one name.
//!
//! Promise: it is done once or not at all, whatever gets lost. While its time lasts and the budget for
//! asking again allows it, a lost answer is asked for at the process that was asked first, and at the other holders,
//! which confirm the write if it has reached them.

use std::sync::Arc;

use core::time::Duration;
use tokio::time::{Instant, sleep_until};
use wire::{ClientReply, ClientRequest};

use crate::client::{Asking, Client};
use crate::error::ClientError;
use crate::limits::{NAMED_PATIENCE, NAMED_PAUSE, TRIES_MAX};
use crate::link::{Link, NoAnswer};
use crate::name::Name;
use crate::routes::Node;
use crate::terms::Terms;

/// What came of one try.
enum Tried {
    Done(ClientReply),
    /// Certainly not done: another node may be asked, as for something new.
    Untouched(ClientError),
    /// Not known, by this node.
    Unknown(ClientError),
    /// It was not sent this time: no time was left for an answer.
    NoTime,
    /// Nothing better can be had.
    Failed(ClientError),
}

/// A node that keeps a key, or any if it is not known who does; and the connection to it.
type Holder = (Option<Arc<Node>>, Arc<Link>);

impl Client {
    /// Asks for a write under the name that its terms say, or one of its own.
    pub(crate) async fn ask_write<'r>(
        &self,
        key: &[u8],
        terms: &Terms,
        request: impl Fn(wire::Name) -> ClientRequest<'r>,
    ) -> Result<ClientReply, ClientError> {
        let name = terms.name.clone().unwrap_or_else(|| self.name());
        self.ask_named(key, (terms.timeout, &name, terms.may_be_told()), request).await
    }

    /// Asks for a write under a name until its fate is known, or its time is up.
    async fn ask_named<'r>(
        &self,
        key: &[u8],
        (timeout, name, told): (Duration, &Name, bool),
        request: impl Fn(wire::Name) -> ClientRequest<'r>,
    ) -> Result<ClientReply, ClientError> {
        self.count_request();
        let asking = Asking::once(timeout);
        let until = Instant::now() + timeout;
        let mut pause = NAMED_PAUSE;
        let mut give_up_at = until;
        let mut tries = 0;
        let mut gone: Option<Arc<Link>> = None;
        let mut last: Option<ClientError> = None;
        loop {
            let links = match self.links_for(key, name, gone.take(), until, timeout).await {
                Ok(links) => links,
                Err(error) => return Err(last.unwrap_or(error)),
            };
            let mut is_over = false;
            let at_hand = links.len();
            for (node, link) in &links {
                if tries > 0 && !self.may_retry() {
                    return Err(last.unwrap_or(ClientError::TimedOut { after: timeout }));
                }
                tries += 1;
                // Asked for the first time: whoever is asked again has to answer for itself.
                let direct = told && !name.is_sent() && self.hears_replicas(at_hand);
                let told = (key, name, direct, &links[..]);
                let tried = self.try_named(link, asking, told, until, &request).await;
                match tried {
                    Tried::Done(reply) => {
                        if node.is_some() {
                            self.count_routed();
                        }
                        return Ok(reply);
                    }
                    Tried::NoTime => {
                        return Err(last.unwrap_or(ClientError::TimedOut { after: timeout }));
                    }
                    // What was said before of a write that was not done is not true of this one.
                    Tried::Failed(error @ ClientError::TimedOut { .. }) => {
                        let last = last.filter(|last| !last.had_no_effect());
                        return Err(last.unwrap_or_else(|| Self::timed(error, asking)));
                    }
                    Tried::Failed(error) => return Err(Self::timed(error, asking)),
                    Tried::Untouched(error) => {
                        node.iter().for_each(|node| node.shun());
                        gone = Some(link.clone());
                        last = Some(error);
                    }
                    Tried::Unknown(error) => {
                        if !link.is_alive() {
                            node.iter().for_each(|node| node.shun());
                            gone = Some(link.clone());
                        } else if name.is_of_successor(link) {
                            is_over = true;
                        }
                        give_up_at = give_up_at.min(Instant::now() + NAMED_PATIENCE);
                        last = Some(error);
                    }
                }
            }
            // Over: the process that was asked first is no more, and nobody who is there has the write.
            let next = Instant::now() + pause;
            let is_late = is_over || next >= give_up_at || tries > TRIES_MAX;
            if let Some(error) = last.take_if(|_| is_late) {
                return Err(error);
            }
            if name.is_sent() {
                sleep_until(next).await;
                pause = pause.saturating_mul(2);
            }
        }
    }

    /// Whom to ask: the holders that there is a connection to, whoever was asked first before the others; or
    /// else any node.
    async fn links_for(
        &self,
        key: &[u8],
        name: &Name,
        gone: Option<Arc<Link>>,
        until: Instant,
        timeout: Duration,
    ) -> Result<Vec<Holder>, ClientError> {
        let mut holders = self.at_hand(ring::Slot::of_key(key), false);
        holders.sort_by_key(|(_, link)| !name.is_first_asked(link));
        if holders.is_empty() {
            return Ok(vec![(None, self.link_other_than(gone, until, timeout).await?)]);
        }
        Ok(holders.into_iter().map(|(node, link)| (Some(node), link)).collect())
    }

    async fn try_named<'r>(
        &self,
        link: &Link,
        asking: Asking,
        (key, name, direct, tellers): (&[u8], &Name, bool, &[Holder]),
        until: Instant,
        request: &impl Fn(wire::Name) -> ClientRequest<'r>,
    ) -> Tried {
        let (named, mut is_first) = name.over(link, direct);
        let asked_first = name.is_first_asked(link);
        // Whoever keeps the key and is not at hand may speak where nobody listens any more.
        let doubts = |since| {
            let mut others =
                tellers.iter().filter(|(_, teller)| teller.address() != link.address());
            others.any(|(_, teller)| teller.is_silent_since(since))
                || tellers.len() < self.holders(key)
        };
        let mut answer =
            self.ask_link_or_doubt(link, asking, &request(named), until, &doubts).await;
        if direct && link.is_alive() && matches!(answer, Err(NoAnswer::Lost { .. })) {
            // The coordinator has heard the replicas, or will, and knows by its name that the write is the same.
            is_first = false;
            let (named, _) = name.over(link, false);
            answer = self.ask_link(link, asking, &request(named), until).await;
            if matches!(answer, Err(NoAnswer::NoTime)) {
                answer = Err(NoAnswer::Error(ClientError::TimedOut { after: asking.timeout() }));
            }
        }
        match answer {
            Ok(reply) => Tried::Done(reply),
            Err(NoAnswer::NotSent) => {
                let (address, reason) = (link.address().into(), "it was gone".into());
                let error = ClientError::Interrupted { address, reason };
                if is_first {
                    name.unsend();
                    Tried::Untouched(error)
                } else {
                    Tried::Unknown(error)
                }
            }
            Err(NoAnswer::NoTime) => {
                if is_first {
                    name.unsend();
                }
                Tried::NoTime
            }
            Err(NoAnswer::Lost { reason }) => {
                Tried::Unknown(ClientError::Interrupted { address: link.address().into(), reason })
            }
            // Nobody remembers that it was turned away at the door: an earlier copy may come in yet.
            Err(NoAnswer::Error(
                error @ (ClientError::NotReady { .. } | ClientError::Overloaded { .. }),
            )) if asked_first && !is_first => Tried::Unknown(Self::in_doubt(error, link)),
            Err(NoAnswer::Error(error)) if error.had_no_effect() && asked_first => {
                // Whoever was asked first says that it was not done: nobody else may do it.
                name.renew();
                match error {
                    ClientError::NotReady { .. } => Tried::Untouched(error),
                    error => Tried::Failed(error),
                }
            }
            Err(NoAnswer::Error(error)) => match error {
                ClientError::TimedOut { .. } => Tried::Failed(error),
                error if asked_first => Tried::Failed(error),
                // That one did not do it, which says nothing about the first.
                error => Tried::Unknown(Self::in_doubt(error, link)),
            },
        }
    }

    /// An error of a node that was not asked first: it tells nothing certain of the request.
    fn in_doubt(error: ClientError, link: &Link) -> ClientError {
        if error.had_no_effect() {
            let reason = "its answer got lost, and no other node holds the write".to_owned();
            return ClientError::Interrupted { address: link.address().into(), reason };
        }
        error
    }
}
