//! Counter: a number that many add to at once, without losing any addition.
//!
//! What has been acknowledged counts exactly once. An addition whose answer was lost is asked for again
//! under its own name; one that timed out may have counted, and a program that wants to repeat it
//! gives it a name beforehand: [`Client::name`].

use core::future::IntoFuture;

use wire::{ClientReply, ClientRequest};

use crate::client::Client;
use crate::error::{ClientError, Told};
use crate::key::Key;
use crate::request::{Answer, Get};
use crate::session::Before;
use crate::terms::{Terms, terms};

/// A counter, made by [`Client::counter`].
#[derive(Clone, Debug)]
pub struct Counter {
    pub(crate) client: Client,
    pub(crate) key: Key,
}

/// An addition, made by [`Counter::add`].
#[derive(Clone, Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct Add {
    client: Client,
    key: Key,
    by: i64,
    terms: Terms,
}

terms!(Add: consistency, durability, timeout, session, named);

/// A read of a counter, made by [`Counter::value`].
#[derive(Clone, Debug)]
#[must_use = "a request is sent when it is awaited"]
pub struct CounterValue {
    client: Client,
    key: Key,
    terms: Terms,
}

terms!(CounterValue: consistency, timeout, session);

impl Counter {
    /// Adds `by`, which may be negative. Gives the value as the coordinator knows it then.
    pub fn add(&self, by: i64) -> Add {
        let (client, key) = (self.client.clone(), self.key.clone());
        let terms = Terms::new(client.patience().request);
        Add { client, key, by, terms }
    }

    /// The value; 0 if nothing was ever added.
    pub fn value(&self) -> CounterValue {
        let (client, key) = (self.client.clone(), self.key.clone());
        let terms = Terms::new(client.patience().request);
        CounterValue { client, key, terms }
    }
}

impl IntoFuture for CounterValue {
    /// The value; [`ClientError::Invalid`] if the key holds something else than a number.
    type Output = Result<i64, ClientError>;
    type IntoFuture = Answer<i64>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { client, key, terms } = self;
            let read = Get { client, key, terms }.await?;
            let Some(value) = read.values().first() else { return Ok(0) };
            let number = core::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            number.ok_or_else(|| {
                let why = "its value is not a 64-bit integer";
                let told = Told::new("the key is no counter", why, "use another key");
                ClientError::Invalid { told }
            })
        })
    }
}

impl IntoFuture for Add {
    /// The value then.
    type Output = Result<i64, ClientError>;
    type IntoFuture = Answer<i64>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { client, key, by, terms } = self;
            let key = key.checked()?;
            let before = Before::new(terms.session.clone(), &key);
            let add = |name| ClientRequest::Add {
                key: &key,
                by,
                level: terms.level,
                durability: terms.durability,
                after: before.seen(),
                name: Some(name),
            };
            match client.ask_write(&key, &terms, add).await? {
                ClientReply::Number { value, context } => {
                    before.learn(&context);
                    Ok(value)
                }
                other => Err(Client::misfit(&other)),
            }
        })
    }
}
