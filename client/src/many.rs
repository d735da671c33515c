//! Many: several keys read at once, in one request to each node that is asked.
//!
//! Promise: one result a key, in the order of the keys; a key that cannot be read spoils no other.

use core::future::{Future, IntoFuture};
use core::pin::Pin;
use core::time::Duration;
use std::collections::BTreeMap;

use bytes::Bytes;
use ring::{NodeId, Slot};
use tokio::task::JoinSet;
use wire::limits::KEYS_MAX;
use wire::reply::Held;
use wire::{ClientReply, ClientRequest, Level};

use crate::causal::{Context, Read};
use crate::client::{Asking, Client};
use crate::error::{ClientError, Told};
use crate::key::Key;
use crate::session::{Before, Session};
use crate::terms::{Terms, terms};

/// A read of several keys, made by [`Client::get_many`].
#[derive(Clone, Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct GetMany {
    pub(crate) client: Client,
    pub(crate) keys: Vec<Key>,
    pub(crate) terms: Terms,
}

terms!(GetMany: consistency, timeout, session);

impl IntoFuture for GetMany {
    /// One result a key, in their order.
    type Output = Vec<Result<Read, ClientError>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { client, keys, terms } = self;
            let Terms { level, timeout, session, .. } = terms;
            let mut results: Vec<_> = Vec::with_capacity(keys.len());
            let (mut places, mut good) = (Vec::new(), Vec::new());
            for (place, key) in keys.into_iter().enumerate() {
                match key.checked() {
                    Ok(key) => {
                        places.push(place);
                        good.push(key);
                        results.push(lost());
                    }
                    Err(error) => results.push(Err(error)),
                }
            }
            let keys = good;
            let mut parts = JoinSet::new();
            for share in share_out(&client, &keys) {
                let part: Vec<Bytes> = share.iter().map(|at| keys[*at].clone()).collect();
                let share: Vec<usize> = share.into_iter().map(|at| places[at]).collect();
                let asked = ask_part(client.clone(), part, (level, timeout, session.clone()));
                parts.spawn(async move { (share, asked.await) });
            }
            while let Some(part) = parts.join_next().await {
                let Ok((places, held)) = part else { continue };
                for (place, result) in places.into_iter().zip(held) {
                    results[place] = result;
                }
            }
            results
        })
    }
}

/// A key for which no answer came.
fn lost() -> Result<Read, ClientError> {
    let why = "the task that asked for it was ended";
    let told = Told::new("the key was not read", why, "ask again");
    Err(ClientError::Internal { told })
}

/// The places of the keys that go into one request each: those of one node together.
fn share_out(client: &Client, keys: &[Bytes]) -> Vec<Vec<usize>> {
    let mut nodes: BTreeMap<Slot, Option<NodeId>> = BTreeMap::new();
    let mut by_node: BTreeMap<Option<NodeId>, Vec<usize>> = BTreeMap::new();
    for (place, key) in keys.iter().enumerate() {
        let slot = Slot::of_key(key);
        let node = nodes.entry(slot).or_insert_with(|| {
            let first = client.at_hand(slot, true).into_iter().next();
            first.map(|(node, _)| node.id)
        });
        by_node.entry(*node).or_default().push(place);
    }
    let pieces =
        |places: Vec<usize>| places.chunks(KEYS_MAX).map(<[_]>::to_vec).collect::<Vec<_>>();
    by_node.into_values().flat_map(pieces).collect()
}

async fn ask_part(
    client: Client,
    keys: Vec<Bytes>,
    (level, timeout, session): (Option<Level>, Duration, Option<Session>),
) -> Vec<Result<Read, ClientError>> {
    let all = |error: ClientError| keys.iter().map(|_| Err(error.clone())).collect();
    let Some(first) = keys.first() else { return Vec::new() };
    let borrowed = keys.iter().map(|key| serde_bytes::Bytes::new(key)).collect();
    // What was seen of each of their slots, once.
    let before: BTreeMap<Slot, Before> = keys
        .iter()
        .map(|key| (Slot::of_key(key), key))
        .map(|(slot, key)| (slot, Before::new(session.clone(), key)))
        .collect();
    let mut after = Vec::new();
    for (slot, before) in &before {
        after.extend(before.seen().into_iter().map(|one| (slot.0, one)));
    }
    let request = ClientRequest::GetMany { keys: borrowed, level, after };
    let reply = client.ask_for(first, Asking::harmless(timeout), &request).await;
    let held = match reply {
        Ok(ClientReply::Values { keys: held }) if held.len() == keys.len() => held,
        Ok(other) => return all(Client::misfit(&other)),
        Err(error) => return all(error),
    };
    let read = |(key, held): (&Bytes, Held)| match held {
        Held::Value { values, context } => {
            if let Some(before) = before.get(&Slot::of_key(key)) {
                before.learn(&context);
            }
            Ok(Read { values, context: Context(context) })
        }
        Held::Error(error) => Err(error.into()),
    };
    keys.iter().zip(held).map(read).collect()
}
