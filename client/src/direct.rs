//! Direct: reads that the client gathers by itself, from as many replicas at once as a quorum has.
//!
//! One replica says what it holds, the others a digest of that. If all hold the same, that is the answer:
//! one round to replicas, where a coordinator takes two, and two nodes at work for three copies instead
//! of one of them twice. If they differ, or a share is not to be had, a coordinator reads, joins and repairs.
//!
//! Promises: what is answered is held by a majority of the key's replicas, no two of them the same node, each of
//! which knew no later change of the slot's replicas than the map by which it was asked; a cluster in which
//! replicas keep differing is asked for shares seldom.
//!
//! Source: client-driven coordination, in G. DeCandia et al., "Dynamo: Amazon's Highly Available
//! Key-value Store", SOSP 2007, section 6.4.

use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::Poll;
use core::time::Duration;
use std::sync::Arc;

use ring::{Agreement, Slot, Verdict};
use tokio::time::{Instant, sleep_until};
use wire::reply::Held;
use wire::{ClientReply, ClientRequest, Level};

use crate::client::{Asking, Client};
use crate::error::ClientError;
use crate::link::{Link, NoAnswer};
use crate::routes::Node;

/// A read of one key.
#[derive(Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) level: Option<Level>,
    pub(crate) after: &'a [&'a serde_bytes::Bytes],
    pub(crate) timeout: Duration,
}

/// What one replica answered.
type Told = (Arc<Node>, Instant, Result<ClientReply, NoAnswer>);

/// Requests that are under way together.
type Together<'a> = Vec<Pin<Box<dyn Future<Output = Told> + Send + 'a>>>;

/// How a direct read ended.
enum Ended {
    /// With the answer.
    Answered(ClientReply),
    /// It could not be made so: a coordinator has to be asked.
    Undecided,
    /// Asking somebody else would be no better.
    Failed(ClientError),
}

impl Client {
    /// Reads a key: by itself if it can, or else through a coordinator.
    pub(crate) async fn read(&self, wish: Wish<'_>) -> Result<ClientReply, ClientError> {
        let until = Instant::now() + wish.timeout;
        match self.read_directly(wish, until).await {
            Ended::Answered(reply) => return Ok(reply),
            Ended::Failed(error) => return Err(error),
            Ended::Undecided => {}
        }
        let asking = Asking::harmless(wish.timeout);
        let get =
            ClientRequest::Get { key: wish.key, level: wish.level, after: wish.after.to_vec() };
        let error = match self.ask_for(wish.key, asking.until(until), &get).await {
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        Err(Self::timed(error, asking))
    }

    async fn read_directly(&self, wish: Wish<'_>, until: Instant) -> Ended {
        let slot = Slot::of_key(wish.key);
        let Some((epoch, copies)) = self.may_read_directly(slot, wish.level) else {
            return Ended::Undecided;
        };
        let needed = copies / 2 + 1;
        let mut at_hand = self.at_hand(slot, true);
        at_hand.retain(|(node, link)| link.answer().node == node.id);
        if at_hand.len() < needed || needed < 2 {
            return Ended::Undecided;
        }
        // Whoever has the least to do for us, so that one who is slow or gone is not asked much; the order of
        // preference among equals. The value comes from the program's zone, if it has one.
        let by_load = usize::from(self.zone().is_some());
        at_hand[by_load..].sort_by_cached_key(|(_, link)| link.pending());
        let share = |whole| ClientRequest::Share {
            key: wish.key,
            level: wish.level,
            of: u8::try_from(needed).unwrap_or(u8::MAX),
            epoch,
            whole,
            after: wish.after.to_vec(),
        };
        let (whole, digest) = (share(true), share(false));
        let asking = Asking::harmless(wish.timeout);
        let mut together: Together<'_> = Vec::with_capacity(needed + 1);
        for (place, (node, link)) in at_hand[..needed].iter().enumerate() {
            let request = if place == 0 { &whole } else { &digest };
            together.push(Box::pin(self.ask_share((node, link), asking, request, until)));
        }
        let slow =
            at_hand[..needed].iter().filter_map(|(node, _)| node.latency.hedge_after()).max();
        let mut spare = at_hand.get(needed).filter(|_| self.hedges());
        let mut agreement = Agreement::of(needed);
        let began = Instant::now();
        loop {
            let hedge_at = slow.filter(|_| spare.is_some()).map(|slow| began + slow);
            let told = tokio::select! {
                biased;
                told = next(&mut together) => told,
                () = at(hedge_at) => {
                    let hedges = !asking.told(until).is_zero() && self.may_hedge();
                    if let Some((node, link)) = spare.take().filter(|_| hedges) {
                        let asked = self.ask_share((node, link), asking, &whole, until);
                        together.push(Box::pin(asked));
                    }
                    continue;
                }
            };
            // All have answered, and none of those who hold the same said what it is.
            let Some((node, asked, told)) = told else { return self.undecided() };
            node.latency.record(asked.elapsed());
            let (digest, held) = match told {
                Ok(ClientReply::Share { digest, held }) => (digest, held),
                Ok(_) => return self.undecided(),
                Err(NoAnswer::NotSent | NoAnswer::Lost { .. }) => {
                    node.shun();
                    return self.undecided();
                }
                Err(NoAnswer::NoTime) => {
                    let error = ClientError::TimedOut { after: wish.timeout };
                    return self.share_refused(error, wish);
                }
                Err(NoAnswer::Error(error)) => return self.share_refused(error, wish),
            };
            let held = match held {
                Some(Held::Error(_)) => return self.undecided(),
                Some(Held::Value { values, context }) => Some((values, context)),
                None => None,
            };
            match agreement.said(digest, held) {
                Verdict::Open => {}
                Verdict::Differs => return self.undecided(),
                Verdict::Agreed((values, context)) => {
                    self.count_direct();
                    return Ended::Answered(ClientReply::Value { values, context });
                }
            }
        }
    }

    async fn ask_share(
        &self,
        (node, link): (&Arc<Node>, &Link),
        asking: Asking,
        request: &ClientRequest<'_>,
        until: Instant,
    ) -> Told {
        let asked = Instant::now();
        let told = self.ask_link(link, asking, request, until).await;
        (node.clone(), asked, told)
    }

    fn undecided(&self) -> Ended {
        self.count_undecided();
        Ended::Undecided
    }

    fn share_refused(&self, error: ClientError, wish: Wish<'_>) -> Ended {
        match error {
            // Too much to do, or too late: a coordinator would say the same, after more work.
            ClientError::Overloaded { .. } | ClientError::TimedOut { .. } => {
                self.count_request();
                Ended::Failed(Self::timed(error, Asking::harmless(wish.timeout)))
            }
            ClientError::Invalid { .. } => {
                // The keyspace has another level, or the node does not know of shares.
                self.stop_reading_directly(wish.level);
                self.undecided()
            }
            _ => self.undecided(),
        }
    }
}

/// The next of them that is done; none if there are no more.
async fn next(together: &mut Together<'_>) -> Option<Told> {
    poll_fn(|cx| {
        for place in 0..together.len() {
            if let Poll::Ready(told) = together[place].as_mut().poll(cx) {
                drop(together.swap_remove(place));
                return Poll::Ready(Some(told));
            }
        }
        if together.is_empty() { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

/// At that moment; never if there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => core::future::pending().await,
    }
}
