//! Requests under construction: what is asked, at which level, for how long.
//!
//! Each is sent when it is awaited. Dropping the future forgets the request: its answer is ignored,
//! though a write that has left may still take effect.

use core::future::{Future, IntoFuture};
use core::pin::Pin;
use core::time::Duration;

use bytes::Bytes;
use wire::{ClientReply, ClientRequest, Durability, Level};

use crate::causal::{Context, Read};
use crate::client::{Asking, Client};
use crate::error::ClientError;

/// The answer to a request that is under way.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, ClientError>> + Send>>;

/// A read, made by [`Client::get`].
#[derive(Clone, Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct Get {
    pub(crate) client: Client,
    pub(crate) key: Bytes,
    pub(crate) level: Option<Level>,
    pub(crate) timeout: Duration,
}

/// A write, made by [`Client::put`].
#[derive(Clone, Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct Put {
    pub(crate) client: Client,
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) context: Option<Context>,
    pub(crate) level: Option<Level>,
    pub(crate) durability: Option<Durability>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) timeout: Duration,
}

/// A removal, made by [`Client::delete`].
#[derive(Clone, Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct Delete {
    pub(crate) client: Client,
    pub(crate) key: Bytes,
    pub(crate) context: Option<Context>,
    pub(crate) level: Option<Level>,
    pub(crate) timeout: Duration,
}

impl Get {
    /// How many replicas must agree; the keyspace's default if it is not said.
    pub fn consistency(mut self, level: Level) -> Self {
        self.level = Some(level);
        self
    }

    /// How long it may take; the node hears of it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl Put {
    /// What the writer has read: the write replaces that, and nothing that was written since.
    /// Without it, what the coordinator holds is replaced.
    pub fn context(mut self, context: Context) -> Self {
        self.context = Some(context);
        self
    }

    /// How many replicas must hold it; the keyspace's default if it is not said.
    pub fn consistency(mut self, level: Level) -> Self {
        self.level = Some(level);
        self
    }

    /// What a replica's acknowledgement survives; the keyspace's default if it is not said.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// The value expires so much later. Counted in whole milliseconds, at least one.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How long it may take; the node hears of it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl Delete {
    /// What the writer has read: only that is removed, a concurrent write survives.
    pub fn context(mut self, context: Context) -> Self {
        self.context = Some(context);
        self
    }

    /// How many replicas must know of it; the keyspace's default if it is not said.
    pub fn consistency(mut self, level: Level) -> Self {
        self.level = Some(level);
        self
    }

    /// How long it may take; the node hears of it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl IntoFuture for Get {
    type Output = Result<Read, ClientError>;
    type IntoFuture = Answer<Read>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { client, key, level, timeout } = self;
            let asking = Asking::harmless(timeout);
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
            let Self { client, key, value, context, level, durability, ttl, timeout } = self;
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
            let Self { client, key, context, level, timeout } = self;
            let context = context.as_ref().map(Context::as_bytes);
            client.write(&key, timeout, &ClientRequest::Delete { key: &key, context, level }).await
        })
    }
}
