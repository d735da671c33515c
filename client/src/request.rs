//! Requests under construction: what is asked, at which level, for how long.
//!
//! Each is sent when it is awaited. Dropping the future forgets the request: its answer is ignored,
//! though a write that has left may still take effect.

use core::future::{Future, IntoFuture};
use core::pin::Pin;
use core::time::Duration;

use bytes::Bytes;
use wire::{ClientReply, ClientRequest};

use crate::causal::{Context, Read};
use crate::client::{Asking, Client};
use crate::error::ClientError;
use crate::key::Key;
use crate::terms::{Terms, terms};

/// The answer to a request that is under way.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, ClientError>> + Send>>;

/// A read, made by [`Client::get`].
#[derive(Clone, Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct Get {
    pub(crate) client: Client,
    pub(crate) key: Key,
    pub(crate) terms: Terms,
}

/// A write, made by [`Client::put`].
#[derive(Clone, Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct Put {
    pub(crate) client: Client,
    pub(crate) key: Key,
    pub(crate) value: Bytes,
    pub(crate) context: Option<Context>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) terms: Terms,
}

/// A removal, made by [`Client::delete`]. A concurrent write survives it.
#[derive(Clone, Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct Delete {
    pub(crate) client: Client,
    pub(crate) key: Key,
    pub(crate) context: Option<Context>,
    pub(crate) terms: Terms,
}

terms!(Get: consistency, timeout);
terms!(Put: context, consistency, durability, timeout);
terms!(Delete: context, consistency, timeout);

impl Put {
    /// The value expires so much later. Counted in whole milliseconds, at least one.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

impl IntoFuture for Get {
    type Output = Result<Read, ClientError>;
    type IntoFuture = Answer<Read>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { client, key, terms } = self;
            let (key, level) = (key.checked()?, terms.level);
            let asking = Asking::harmless(terms.timeout);
            match client.ask_for(&key, asking, &ClientRequest::Get { key: &key, level }).await? {
                ClientReply::Value { values, context } => {
                    Ok(Read { values, context: Context(context) })
                }
                other => Err(Client::misfit(&other)),
            }
        })
    }
}

impl IntoFuture for Put {
    /// What is seen now, this write included.
    type Output = Result<Context, ClientError>;
    type IntoFuture = Answer<Context>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { client, key, value, context, ttl, terms } = self;
            let Terms { level, durability, timeout } = terms;
            let key = key.checked()?;
            let ttl_ms = ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1));
            let context = context.as_ref().map(Context::as_bytes);
            let (key, value) = (&key[..], &value[..]);
            let put = ClientRequest::Put { key, value, context, level, durability, ttl_ms };
            client.write(key, timeout, &put).await
        })
    }
}

impl IntoFuture for Delete {
    /// What is seen now, this removal included.
    type Output = Result<Context, ClientError>;
    type IntoFuture = Answer<Context>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { client, key, context, terms } = self;
            let (key, level, timeout) = (key.checked()?, terms.level, terms.timeout);
            let context = context.as_ref().map(Context::as_bytes);
            client.write(&key, timeout, &ClientRequest::Delete { key: &key, context, level }).await
        })
    }
}
