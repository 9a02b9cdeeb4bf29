//! Connections to Redis, shared by the broker, the ledger and the roster that live there.
//!
//! All keys of an installation share one hash tag, so one server holds them: found once, by the URL, a Sentinel or a node
//! of the Cluster, and found anew when it fails.

mod failure;
#[cfg(test)]
pub(crate) mod private;
mod risks;
mod server;
#[cfg(test)]
mod tests;
mod url;

use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, FromRedisValue, Pipeline, RedisResult, Script};
use tokio::time::{Instant, timeout};

use self::server::{Route, name};
pub use self::url::RedisUrl;
use queue::{Clock, Error, ErrorKind, Result};

/// How long a server may take to answer; a command that waits for something may take that much longer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it may take to find the server and connect.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait after a failed attempt to connect, before the next: from the first failure to the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How many connections for commands that wait are kept for later.
const IDLE_CONNECTIONS: usize = 16;

/// A clone speaks to the same servers.
#[derive(Clone)]
pub(crate) struct Redis(Arc<Shared>);

struct Shared {
    route: Route,
    clock: Clock,
    line: tokio::sync::Mutex<Line>,
    /// Connections for commands that wait, not in use now.
    idle: Mutex<Vec<(u64, MultiplexedConnection)>>,
}

/// The way to the server, if there is one.
#[derive(Default)]
struct Line {
    server: Option<Server>,
    /// How many servers have been connected to: the number of the last one.
    count: u64,
    /// Of the attempts since the last that succeeded.
    failures: u32,
    last_failure: Option<Failure>,
}

struct Failure {
    at: Instant,
    kind: ErrorKind,
    message: String,
}

#[derive(Clone)]
struct Server {
    number: u64,
    client: Arc<Client>,
    connection: MultiplexedConnection,
}

impl Redis {
    /// Connects when first asked something. Must be called within a tokio runtime.
    pub(crate) fn open(url: &RedisUrl, clock: Clock) -> Result<Self> {
        let route = Route::new(url)?;
        Ok(Self(Arc::new(Shared { route, clock, line: tokio::sync::Mutex::default(), idle: Mutex::default() })))
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The whole name of a key. All of them have the same hash tag, so that a script may touch several in a Cluster.
    pub(crate) fn key(&self, rest: &str) -> String {
        format!("{{{}}}:{rest}", self.0.route.url.prefix)
    }

    /// Runs one command. `doing` says in an error what it was for.
    pub(crate) async fn run<T: FromRedisValue>(&self, doing: &str, command: &Cmd) -> Result<T> {
        self.call(doing, async |mut connection| command.query_async(&mut connection).await).await
    }

    /// Runs commands in one round trip, one after the other; the first that fails is the error.
    pub(crate) async fn pipeline<T: FromRedisValue>(&self, doing: &str, pipeline: &Pipeline) -> Result<T> {
        self.call(doing, async |mut connection| pipeline.query_async(&mut connection).await).await
    }

    /// Runs a script, which the server is taught when it does not know it.
    pub(crate) async fn script<T: FromRedisValue>(
        &self,
        doing: &str,
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
        self.call(doing, async |mut connection| invocation.invoke_async(&mut connection).await).await
    }

    /// Runs a command that waits `at_most` that long for something, on a connection of its own.
    ///
    /// When the future is dropped its connection is closed; the server may have answered already.
    pub(crate) async fn blocking<T: FromRedisValue>(&self, doing: &str, command: &Cmd, at_most: Duration) -> Result<T> {
        let server = self.server().await?;
        let idle = self.0.take_idle(server.number);
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect_again(&server).await?,
        };
        connection.set_response_timeout(at_most + RESPONSE_TIMEOUT);
        match command.query_async(&mut connection).await {
            Ok(answer) => {
                self.0.keep_idle(server.number, connection);
                Ok(answer)
            }
            Err(source) => {
                if failure::is_fatal(&source) {
                    self.leave(server.number).await;
                }
                Err(failure::error(doing, source))
            }
        }
    }

    /// What is published to a channel from here on; it ends when the connection is lost.
    pub(crate) async fn subscribe(
        &self,
        channel: &str,
    ) -> Result<impl Stream<Item = Vec<u8>> + Send + Unpin + 'static + use<>> {
        let server = self.server().await?;
        let doing = format_args!("subscribe to {channel}").to_string();
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
                self.leave(server.number).await;
                Err(failure::error(doing, source))
            }
            Err(_) => {
                self.leave(server.number).await;
                Err(Error::new(ErrorKind::Unavailable, format_args!("redis: {doing}: no answer in {REACH_TIMEOUT:?}")))
            }
        }
    }

    async fn call<T, C, F>(&self, doing: &str, command: C) -> Result<T>
    where
        C: FnOnce(MultiplexedConnection) -> F,
        F: Future<Output = RedisResult<T>>,
    {
        let server = self.server().await?;
        match command(server.connection).await {
            Ok(answer) => Ok(answer),
            Err(source) => {
                if failure::is_fatal(&source) {
                    self.leave(server.number).await;
                }
                Err(failure::error(doing, source))
            }
        }
    }

    /// The server, connected to if need be. Who waited through another's failed attempt shares its error.
    async fn server(&self) -> Result<Server> {
        let asked_at = Instant::now();
        let mut line = self.0.line.lock().await;
        if let Some(server) = &line.server {
            return Ok(server.clone());
        }
        if let Some(failure) = &line.last_failure {
            if failure.at >= asked_at {
                return Err(Error::new(failure.kind, &failure.message));
            }
            tokio::time::sleep_until(failure.at + backoff(line.failures)).await;
        }
        match self.reach().await {
            Ok((client, connection)) => {
                let number = line.count + 1;
                let server = Server { number, client: Arc::new(client), connection };
                tracing::debug!(server = name(&server.client), "connected to redis");
                *line = Line { server: Some(server.clone()), count: number, failures: 0, last_failure: None };
                Ok(server)
            }
            Err(error) => {
                line.failures = line.failures.saturating_add(1);
                let failure = Failure { at: Instant::now(), kind: error.kind(), message: error.to_string() };
                line.last_failure = Some(failure);
                Err(error)
            }
        }
    }

    async fn reach(&self) -> Result<(Client, MultiplexedConnection)> {
        let route = &self.0.route;
        let reaching = async {
            let client = route.find().await?;
            let mut connection = route.connect(&client, RESPONSE_TIMEOUT).await?;
            route.look_over(&client, &mut connection).await?;
            Ok((client, connection))
        };
        timeout(REACH_TIMEOUT, reaching).await.unwrap_or_else(|_| {
            let message = format!("redis: {} was not reached in {REACH_TIMEOUT:?}", route.url);
            Err(Error::new(ErrorKind::Unavailable, message))
        })
    }

    /// One more connection to a server that there is one to already.
    async fn connect_again(&self, server: &Server) -> Result<MultiplexedConnection> {
        let connected = self.0.route.connect(&server.client, RESPONSE_TIMEOUT).await;
        if connected.is_err() {
            self.leave(server.number).await;
        }
        connected
    }

    /// The next call looks for the server anew.
    async fn leave(&self, number: u64) {
        let mut line = self.0.line.lock().await;
        if line.server.as_ref().is_some_and(|server| server.number == number) {
            line.server = None;
            self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

impl Shared {
    fn take_idle(&self, number: u64) -> Option<MultiplexedConnection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(of, _)| *of == number);
        idle.pop().map(|(_, connection)| connection)
    }

    fn keep_idle(&self, number: u64, connection: MultiplexedConnection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_CONNECTIONS {
            idle.push((number, connection));
        }
    }
}

/// How long to wait after this many failures: twice as long each time, less up to a half, so that many processes do not
/// come back in step.
pub(crate) fn backoff(failures: u32) -> Duration {
    let (first, longest) = BACKOFF;
    let whole = first.saturating_mul(1 << failures.clamp(1, 16).saturating_sub(1)).min(longest);
    let random = RandomState::new().hash_one(failures) % 1_000;
    whole.mul_f64(1.0 - 0.5 * random as f64 / 1_000.0)
}
