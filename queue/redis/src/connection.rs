//! Connections to Redis, shared by the broker, the ledger and the roster.
//!
//! All keys of an installation share one hash tag, so one server holds them all. The URL, a Sentinel or a node of the
//! Cluster names that server. After a connection fails, the server is looked up again.

mod backoff;
mod error;
#[cfg(test)]
pub(crate) mod private;
mod risks;
mod server;
#[cfg(test)]
mod tests;
mod url;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, FromRedisValue, Pipeline, RedisResult, Script};
use tokio::time::{Instant, timeout};

pub(crate) use self::backoff::Backoff;
use self::error::driver_error;
use self::server::{Route, name};
pub use self::url::RedisUrl;
use queue::{Clock, Error, ErrorKind, Result, StoreId};

/// The longest time a server may take to answer. A command that blocks may take this much longer than it blocks.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest time it may take to find the server, connect to it and check it.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest number of unused connections for blocking commands that stay open.
const MAX_IDLE_CONNECTIONS: usize = 16;

/// A clone uses the same connections.
#[derive(Clone)]
pub(crate) struct Redis(Arc<Shared>);

struct Shared {
    id: StoreId,
    route: Route,
    clock: Clock,
    state: tokio::sync::Mutex<ConnectionState>,
    /// Unused connections for blocking commands, each with the number of its server.
    idle: Mutex<Vec<(u64, MultiplexedConnection)>>,
}

/// The connected server, or the last failure to connect.
#[derive(Default)]
struct ConnectionState {
    server: Option<ConnectedServer>,
    /// The number of the server that was connected to last. It grows by one with each.
    last_number: u64,
    backoff: Backoff,
    last_failure: Option<ConnectFailure>,
}

struct ConnectFailure {
    at: Instant,
    retry_at: Instant,
    kind: ErrorKind,
    message: String,
}

#[derive(Clone)]
struct ConnectedServer {
    number: u64,
    client: Arc<Client>,
    connection: MultiplexedConnection,
}

impl Redis {
    /// Connects with the first command. Must be called within a tokio runtime.
    pub(crate) fn open(url: &RedisUrl, clock: Clock) -> Result<Self> {
        let route = Route::new(url)?;
        Ok(Self(Arc::new(Shared {
            id: StoreId::unique(),
            route,
            clock,
            state: tokio::sync::Mutex::default(),
            idle: Mutex::default(),
        })))
    }

    pub(crate) fn id(&self) -> StoreId {
        self.0.id
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The full name of a key. All keys have the same hash tag, so that a script may use several of them in a Cluster.
    pub(crate) fn key(&self, rest: &str) -> String {
        format!("{{{}}}:{rest}", self.0.route.url.prefix)
    }

    /// Runs one command. `action` names its purpose in an error.
    pub(crate) async fn run<T: FromRedisValue>(&self, action: &str, command: &Cmd) -> Result<T> {
        self.call(action, async |mut connection| command.query_async(&mut connection).await).await
    }

    /// Runs commands one after the other in one round trip. The first that fails is the error.
    pub(crate) async fn pipeline<T: FromRedisValue>(&self, action: &str, pipeline: &Pipeline) -> Result<T> {
        self.call(action, async |mut connection| pipeline.query_async(&mut connection).await).await
    }

    /// Runs a script. Its source is sent only if the server has not loaded it yet.
    pub(crate) async fn script<T: FromRedisValue>(
        &self,
        action: &str,
        script: &Script,
        keys: &[String],
        arguments: Vec<Vec<u8>>,
    ) -> Result<T> {
        let mut invocation = script.prepare_invoke();
        for key in keys {
            invocation.key(key);
        }
        for argument in arguments {
            invocation.arg(argument);
        }
        self.call(action, async |mut connection| invocation.invoke_async(&mut connection).await).await
    }

    /// Runs a script by an `EVALSHA` of its hash. Its source is sent only if the server has not loaded it yet.
    pub(crate) async fn evaluate<T: FromRedisValue>(&self, action: &str, script: &Script, command: &Cmd) -> Result<T> {
        self.call(action, async |mut connection| match command.query_async(&mut connection).await {
            Err(error) if error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::NoScript) => {
                script.load_async(&mut connection).await?;
                command.query_async(&mut connection).await
            }
            answer => answer,
        })
        .await
    }

    /// Runs a command that blocks for at most `at_most`, on a connection of its own.
    ///
    /// Dropping the future closes that connection. The server may have answered by then.
    pub(crate) async fn blocking<T: FromRedisValue>(
        &self,
        action: &str,
        command: &Cmd,
        at_most: Duration,
    ) -> Result<T> {
        let server = self.server().await?;
        let idle = self.0.take_idle(server.number);
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect_again(&server).await?,
        };
        connection.set_response_timeout(at_most + RESPONSE_TIMEOUT);
        match command.query_async(&mut connection).await {
            Ok(answer) => {
                self.0.return_idle(server.number, connection);
                Ok(answer)
            }
            Err(source) => {
                if error::is_fatal(&source) {
                    self.disconnect(server.number).await;
                }
                Err(driver_error(action, source))
            }
        }
    }

    /// The messages published to a channel from now on. The stream ends when its connection breaks.
    pub(crate) async fn subscribe(
        &self,
        channel: &str,
    ) -> Result<impl Stream<Item = Vec<u8>> + Send + Unpin + 'static + use<>> {
        let server = self.server().await?;
        let action = format_args!("subscribe to {channel}").to_string();
        let subscribing = async {
            let mut subscription = server.client.get_async_pubsub().await?;
            subscription.subscribe(channel).await?;
            Ok(subscription)
        };
        match timeout(REACH_TIMEOUT, subscribing).await {
            Ok(Ok(subscription)) => {
                let messages: redis::aio::PubSubStream = subscription.into_on_message();
                Ok(messages.map(|message| message.get_payload_bytes().to_vec()))
            }
            Ok(Err(source)) => {
                self.disconnect(server.number).await;
                Err(driver_error(action, source))
            }
            Err(_) => {
                self.disconnect(server.number).await;
                let message = format_args!("redis: {action}: no answer within {REACH_TIMEOUT:?}");
                Err(Error::new(ErrorKind::Unavailable, message))
            }
        }
    }

    async fn call<T, C, F>(&self, action: &str, command: C) -> Result<T>
    where
        C: FnOnce(MultiplexedConnection) -> F,
        F: Future<Output = RedisResult<T>>,
    {
        let server = self.server().await?;
        match command(server.connection).await {
            Ok(answer) => Ok(answer),
            Err(source) => {
                if error::is_fatal(&source) {
                    self.disconnect(server.number).await;
                }
                Err(driver_error(action, source))
            }
        }
    }

    /// The server; connects if there is no connection. If another call tries to connect and fails, the calls that wait
    /// for it return its error.
    async fn server(&self) -> Result<ConnectedServer> {
        let called_at = Instant::now();
        let mut state = self.0.state.lock().await;
        if let Some(server) = &state.server {
            return Ok(server.clone());
        }
        if let Some(failure) = &state.last_failure {
            if failure.at >= called_at {
                return Err(Error::new(failure.kind, &failure.message));
            }
            tokio::time::sleep_until(failure.retry_at).await;
        }
        match self.reach().await {
            Ok((client, connection)) => {
                let number = state.last_number + 1;
                let server = ConnectedServer { number, client: Arc::new(client), connection };
                tracing::debug!(server = name(&server.client), "connected to redis");
                *state =
                    ConnectionState { server: Some(server.clone()), last_number: number, ..ConnectionState::default() };
                Ok(server)
            }
            Err(error) => {
                let at = Instant::now();
                let retry_at = at + state.backoff.next_delay();
                state.last_failure =
                    Some(ConnectFailure { at, retry_at, kind: error.kind(), message: error.to_string() });
                Err(error)
            }
        }
    }

    async fn reach(&self) -> Result<(Client, MultiplexedConnection)> {
        let route = self.0.route.renewed()?;
        let reaching = async {
            let client = route.find().await?;
            let mut connection = route.connect(&client, RESPONSE_TIMEOUT).await?;
            route.check(&client, &mut connection).await?;
            Ok((client, connection))
        };
        timeout(REACH_TIMEOUT, reaching).await.unwrap_or_else(|_| {
            let message = format!("redis: no connection to {} within {REACH_TIMEOUT:?}", route.url);
            Err(Error::new(ErrorKind::Unavailable, message))
        })
    }

    /// An additional connection to a connected server.
    async fn connect_again(&self, server: &ConnectedServer) -> Result<MultiplexedConnection> {
        let connected = self.0.route.connect(&server.client, RESPONSE_TIMEOUT).await;
        if connected.is_err() {
            self.disconnect(server.number).await;
        }
        connected
    }

    /// Drops the connection to server `number`, so that the next call looks up the server again.
    async fn disconnect(&self, number: u64) {
        let mut state = self.0.state.lock().await;
        if state.server.as_ref().is_some_and(|server| server.number == number) {
            state.server = None;
            self.0.idle.lock().clear();
        }
    }
}

impl Shared {
    fn take_idle(&self, number: u64) -> Option<MultiplexedConnection> {
        let mut idle = self.idle.lock();
        idle.retain(|(of, _)| *of == number);
        idle.pop().map(|(_, connection)| connection)
    }

    fn return_idle(&self, number: u64, connection: MultiplexedConnection) {
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE_CONNECTIONS {
            idle.push((number, connection));
        }
    }
}
