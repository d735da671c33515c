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
use crate::client::Client;
use crate::direct::Wish;
use crate::error::ClientError;
use crate::key::Key;
use crate::session::Before;
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

terms!(Get: consistency, timeout, session);
terms!(Put: context, consistency, durability, timeout, session, named);
terms!(Delete: context, consistency, durability, timeout, session, named);

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
            let key = key.checked()?;
            let before = Before::new(terms.session, &key);
            let after = before.seen();
            let Terms { level, timeout, .. } = terms;
            let wish = Wish { key: &key, level, after: &after, timeout };
            match client.read(wish).await? {
                ClientReply::Value { values, context } => {
                    before.learn(&context);
                    Ok(Read { values, context: Context(context) })
                }
                other => Err(Client::misfit(&other)),
            }
        })
    }
}

impl IntoFuture for Put {
    /// What is seen now, this write included: the next write with it replaces this one.
    type Output = Result<Context, ClientError>;
    type IntoFuture = Answer<Context>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { client, key, value, context, ttl, terms } = self;
            let ttl_ms = ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1));
            let key = key.checked()?;
            let before = Before::new(terms.session.clone(), &key);
            let put = |name| ClientRequest::Put {
                key: &key,
                value: &value,
                context: context.as_ref().map(Context::as_bytes),
                level: terms.level,
                durability: terms.durability,
                ttl_ms,
                after: before.seen(),
                name: Some(name),
            };
            done(client.ask_write(&key, &terms, put).await?, &before)
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
            let key = key.checked()?;
            let before = Before::new(terms.session.clone(), &key);
            let delete = |name| ClientRequest::Delete {
                key: &key,
                context: context.as_ref().map(Context::as_bytes),
                level: terms.level,
                durability: terms.durability,
                after: before.seen(),
                name: Some(name),
            };
            done(client.ask_write(&key, &terms, delete).await?, &before)
        })
    }
}

/// What a write has seen, from its answer.
fn done(reply: ClientReply, before: &Before) -> Result<Context, ClientError> {
    match reply {
        ClientReply::Done { context } => {
            before.learn(&context);
            Ok(Context(context))
        }
        other => Err(Client::misfit(&other)),
    }
}
