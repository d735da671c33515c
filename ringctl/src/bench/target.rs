//! Target: what is measured, a cluster through the native client or anything that speaks Redis's
//! protocol, behind one face.
//!
//! Promise: an error reply is an error here, never a fast answer; a connection that broke is made
//! anew, and what was under way on it counts as failed.

use std::time::Duration;

use bytes::Bytes;
use client::{Client, ClientError, Level};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use wire::resp::encode::write_command;
use wire::resp::{Reply, ReplyDecoder};

use super::mix::Operation;

/// How a worker reaches what is measured.
pub(crate) enum Target {
    Native {
        client: Client,
        level: Option<Level>,
        patience: Duration,
    },
    Redis(Box<Redis>),
    #[cfg(feature = "redis-rs")]
    RedisRs(Box<super::redis_rs::RedisRs>),
}

/// The pause before a broken connection is made anew.
const PAUSE: Duration = Duration::from_millis(20);

impl Target {
    /// Does it.
    ///
    /// # Errors
    /// Its kind, one of few: errors are counted by it.
    pub(crate) async fn carry_out(&mut self, operation: Operation) -> Result<(), String> {
        match self {
            Self::Native { client, level, patience } => {
                native(client, *level, *patience, operation).await
            }
            Self::Redis(redis) => redis.carry_out(operation).await,
            #[cfg(feature = "redis-rs")]
            Self::RedisRs(redis) => redis.carry_out(operation).await,
        }
    }
}

async fn native(
    client: &Client,
    level: Option<Level>,
    patience: Duration,
    operation: Operation,
) -> Result<(), String> {
    let get = |key: Bytes| {
        let get = client.get(key).timeout(patience);
        if let Some(level) = level { get.consistency(level) } else { get }
    };
    let put = |key: Bytes, value: Bytes| {
        let put = client.put(key, value).timeout(patience);
        if let Some(level) = level { put.consistency(level) } else { put }
    };
    let done = match operation {
        Operation::Read(key) => get(key).await.map(drop),
        Operation::Update(key, value) | Operation::Insert(key, value) => {
            put(key, value).await.map(drop)
        }
        Operation::ReadModifyWrite(key, value) => match get(key.clone()).await {
            Ok(read) => put(key, value).context(read.context()).await.map(drop),
            Err(error) => Err(error),
        },
        Operation::Range(span) => {
            let (from, count) = (span.sort[0].as_str(), span.sort.len() as u32);
            let range = client.range(&span.partition, from..).page(count).limit(count.into());
            let range = range.timeout(patience);
            let range = if let Some(level) = level { range.consistency(level) } else { range };
            match range.await {
                Ok(mut rows) => rows.rest().await.map(drop),
                Err(error) => Err(error),
            }
        }
        Operation::Increment(key) => {
            let add = client.counter(key).add(1).timeout(patience);
            let add = if let Some(level) = level { add.consistency(level) } else { add };
            add.await.map(drop)
        }
    };
    done.map_err(|error| match error {
        // The same each time: what is asked for does not exist.
        ClientError::Invalid { told } => format!("{}: {}", told.what, told.why),
        error => error.told().what,
    })
}

/// Who to be at a Redis endpoint, and what to ask for first.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: String,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) db: u16,
    pub(crate) level: Option<Level>,
    pub(crate) patience: Duration,
}

/// A connection to a Redis endpoint.
pub(crate) struct Redis {
    endpoint: Endpoint,
    stream: Option<TcpStream>,
    decoder: ReplyDecoder,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Redis {
    /// Connects and says who it is.
    ///
    /// # Errors
    /// What the endpoint, or the way to it, says.
    pub(crate) async fn connect(endpoint: Endpoint) -> Result<Self, String> {
        let (input, output) = (Vec::new(), Vec::new());
        let mut redis =
            Self { endpoint, stream: None, decoder: ReplyDecoder::new(), input, output };
        redis.connect_anew().await?;
        Ok(redis)
    }

    async fn connect_anew(&mut self) -> Result<(), String> {
        let connecting = TcpStream::connect(&self.endpoint.address);
        let connected = timeout(self.endpoint.patience, connecting).await;
        let stream = connected.map_err(|_| "nothing answers there".to_owned())?;
        let stream = stream.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        self.stream = Some(stream);
        self.decoder = ReplyDecoder::new();
        self.input.clear();
        let Endpoint { user, password, db, level, .. } = self.endpoint.clone();
        if let Some(password) = password {
            let user = user.unwrap_or_else(|| "default".into());
            self.ask(&[b"AUTH", user.as_bytes(), password.as_bytes()]).await?;
        }
        if db > 0 {
            self.ask(&[b"SELECT", db.to_string().as_bytes()]).await?;
        }
        if let Some(level) = level {
            self.ask(&[b"CONSISTENCY", level.to_string().as_bytes()]).await?;
        }
        Ok(())
    }

    async fn carry_out(&mut self, operation: Operation) -> Result<(), String> {
        if self.stream.is_none() {
            sleep(PAUSE).await;
            self.connect_anew().await?;
        }
        match &operation {
            Operation::Read(key) => self.ask(&[b"GET", key]).await,
            Operation::Update(key, value) | Operation::Insert(key, value) => {
                self.ask(&[b"SET", key, value]).await
            }
            Operation::ReadModifyWrite(key, value) => {
                self.ask(&[b"GET", key]).await?;
                self.ask(&[b"SET", key, value]).await
            }
            Operation::Range(span) => {
                let keys: Vec<String> = span.keys().collect();
                let mut args: Vec<&[u8]> = vec![b"MGET"];
                args.extend(keys.iter().map(String::as_bytes));
                self.ask(&args).await
            }
            Operation::Increment(key) => self.ask(&[b"INCR", key]).await,
        }
    }

    async fn ask(&mut self, args: &[&[u8]]) -> Result<(), String> {
        self.output.clear();
        write_command(&mut self.output, args);
        let answered = timeout(self.endpoint.patience, self.exchange()).await;
        let answered = answered.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        match answered {
            Ok(Reply::Error(text)) => Err(kind_of(&text)),
            Ok(_) => Ok(()),
            Err(why) => {
                // Whatever comes later on this connection answers an earlier question.
                self.stream = None;
                Err(why)
            }
        }
    }

    async fn exchange(&mut self) -> Result<Reply, String> {
        let stream = self.stream.as_mut().ok_or("the connection is gone")?;
        stream.write_all(&self.output).await.map_err(|error| error.to_string())?;
        loop {
            match self.decoder.decode(&self.input) {
                Ok(Some(read)) => {
                    self.input.drain(..read.consumed);
                    return Ok(read.reply);
                }
                Ok(None) => {}
                Err(error) => return Err(format!("no Redis reply: {error:?}")),
            }
            match stream.read_buf(&mut self.input).await {
                Ok(0) => return Err("the connection was closed".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

/// The kind of an error reply: what it says, without the numbers and names that differ each time.
fn kind_of(text: &str) -> String {
    let code = text.split_whitespace().next().unwrap_or_default();
    if matches!(code, "ERR" | "NOAUTH" | "WRONGPASS" | "NOPERM") {
        text.to_owned()
    } else {
        code.to_owned()
    }
}
