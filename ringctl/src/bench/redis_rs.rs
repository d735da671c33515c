//! redis-rs: the Rust client of most who use Redis, as something to compare with.
//!
//! One multiplexed connection a thread, which all its workers share, as its documentation advises and as
//! they share one native client. Only with the feature `redis-rs`: who runs a cluster needs none of it.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ConnectionAddr, IntoConnectionInfo, RedisError, Value};

use super::mix::Operation;
use super::target::Endpoint;

/// The connection that a thread's workers share.
#[derive(Clone)]
pub(crate) struct RedisRs {
    connection: MultiplexedConnection,
    patience: Duration,
}

impl RedisRs {
    /// Connects and says who it is.
    ///
    /// # Errors
    /// What the library says.
    pub(crate) async fn connect(endpoint: Endpoint) -> Result<Self, String> {
        let said = |error: RedisError| error.to_string();
        let (host, port) = endpoint.address.rsplit_once(':').ok_or("HOST:PORT is wanted")?;
        let port = port.parse::<u16>().map_err(|error| error.to_string())?;
        let address = ConnectionAddr::Tcp(host.to_owned(), port);
        let info = address.into_connection_info().map_err(said)?;
        let client = redis::Client::open(info).map_err(said)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(endpoint.patience))
            .set_response_timeout(Some(endpoint.patience));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await.map_err(said)?;
        if let Some(password) = &endpoint.password {
            let user = endpoint.user.as_deref().unwrap_or("default");
            let mut auth = redis::cmd("AUTH");
            auth.arg(user)
                .arg(password)
                .query_async::<Value>(&mut connection)
                .await
                .map_err(said)?;
        }
        if endpoint.db > 0 {
            let mut select = redis::cmd("SELECT");
            select.arg(endpoint.db).query_async::<Value>(&mut connection).await.map_err(said)?;
        }
        if let Some(level) = endpoint.level {
            let mut command = redis::cmd("CONSISTENCY");
            command.arg(level.to_string());
            command.query_async::<Value>(&mut connection).await.map_err(said)?;
        }
        Ok(Self { connection, patience: endpoint.patience })
    }

    /// Does it.
    ///
    /// # Errors
    /// Its kind.
    pub(crate) async fn carry_out(&mut self, operation: Operation) -> Result<(), String> {
        match &operation {
            Operation::Read(key) => self.ask(redis::cmd("GET").arg(&key[..])).await,
            Operation::Update(key, value) | Operation::Insert(key, value) => {
                self.ask(redis::cmd("SET").arg(&key[..]).arg(&value[..])).await
            }
            Operation::ReadModifyWrite(key, value) => {
                self.ask(redis::cmd("GET").arg(&key[..])).await?;
                self.ask(redis::cmd("SET").arg(&key[..]).arg(&value[..])).await
            }
            Operation::Range(span) => {
                let mut command = redis::cmd("MGET");
                for key in span.keys() {
                    command.arg(key);
                }
                self.ask(&command).await
            }
            Operation::Increment(key) => self.ask(redis::cmd("INCR").arg(&key[..])).await,
        }
    }

    async fn ask(&mut self, command: &Cmd) -> Result<(), String> {
        let asked = command.query_async::<Value>(&mut self.connection);
        match tokio::time::timeout(self.patience, asked).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.code().unwrap_or("no answer").to_owned()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }
}
