//! A connection to the server, opened when it is needed and again when it broke.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use lapin::tcp::OwnedTLSConfig;
use lapin::{Channel, Connection, ConnectionBuilder, ConnectionProperties, Event};
use tokio::sync::watch;
use tokio::time::Instant;

use super::error::answer;
use super::queues::{self, Target};
use super::url::RabbitMqUrl;
use queue::{Error, ErrorKind, Result};

/// The shortest and the longest to wait after an attempt to connect that failed.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// The way to the server for one kind of work.
pub(super) struct Link {
    url: RabbitMqUrl,
    tls: OwnedTLSConfig,
    purpose: &'static str,
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<Arc<Open>>,
    /// How the last attempts ended.
    failure: Option<Failure>,
}

struct Failure {
    attempts: u32,
    retry_at: Instant,
    kind: ErrorKind,
    message: String,
}

/// A connection.
pub(super) struct Open {
    connection: Connection,
    prefix: String,
    /// What is known to be there.
    declared: Mutex<HashSet<Target>>,
    /// The server takes nothing at present: it is short of memory or disk.
    blocked: watch::Receiver<bool>,
    /// How many channels were opened on it.
    channels: AtomicU16,
}

impl Link {
    pub(super) fn new(url: &RabbitMqUrl, purpose: &'static str) -> Result<Arc<Self>> {
        let mut tls = OwnedTLSConfig::default();
        if let Some(file) = url.ca() {
            let refused = |error| {
                Error::caused(ErrorKind::Refused, format_args!("{url}: ca: cannot read {}", file.display()), error)
            };
            tls.cert_chain = Some(std::fs::read_to_string(file).map_err(refused)?);
        }
        Ok(Arc::new(Self { url: url.clone(), tls, purpose, state: tokio::sync::Mutex::default() }))
    }

    /// What the queues' names begin with.
    pub(super) fn prefix(&self) -> &str {
        self.url.prefix()
    }

    /// The connection that is open, or a new one. After an attempt that failed, the next one is not made at once; until
    /// then this fails as that attempt did.
    pub(super) async fn open(&self) -> Result<Arc<Open>> {
        let mut state = self.state.lock().await;
        if let Some(open) = state.open.as_ref().filter(|open| open.connection.status().connected()) {
            if !open.is_used_up() {
                return Ok(Arc::clone(open));
            }
            tracing::debug!(url = %self.url, purpose = self.purpose, "opening another connection for further channels");
            // It is closed when the last of its channels is.
            state.open = None;
        }
        if let Some(failure) = &state.failure
            && Instant::now() < failure.retry_at
        {
            let message = format_args!("{} (a moment ago; not trying again yet)", failure.message);
            return Err(Error::new(failure.kind, message));
        }
        if state.open.take().is_some() {
            tracing::warn!(url = %self.url, purpose = self.purpose, "lost the connection to the broker; opening another");
        }
        match self.connect().await {
            Ok(open) => {
                state.failure = None;
                Ok(Arc::clone(state.open.insert(open)))
            }
            Err(error) => {
                let attempts = state.failure.as_ref().map_or(0, |failure| failure.attempts) + 1;
                let (kind, message) = (error.kind(), error.to_string());
                state.failure = Some(Failure { attempts, retry_at: Instant::now() + pause(attempts), kind, message });
                Err(error)
            }
        }
    }

    /// A new channel, and the connection it is on.
    pub(super) async fn channel(&self) -> Result<(Arc<Open>, Channel)> {
        let open = self.open().await?;
        match open.channel().await {
            Ok(channel) => Ok((open, channel)),
            // That it is broken often shows only in its use.
            Err(_) if !open.connection.status().connected() => {
                let open = self.open().await?;
                let channel = open.channel().await?;
                Ok((open, channel))
            }
            Err(error) => Err(error),
        }
    }

    async fn connect(&self) -> Result<Arc<Open>> {
        let doing = format!("connect to {}", self.url);
        let runtime = lapin::runtime::default_runtime().map_err(|error| super::error::failed(&doing, error))?;
        let name = format!("millrace {} ({})", self.purpose, std::process::id());
        let builder = ConnectionBuilder::new_with_runtime(runtime)
            .with_uri(self.url.uri().clone())
            .with_properties(ConnectionProperties::default().with_connection_name(name.into()))
            .with_tls_config(self.tls.clone());
        let connection = answer(&doing, builder.connect()).await?;
        let (block, blocked) = watch::channel(false);
        let mut events = Box::pin(connection.events_listener());
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    Event::ConnectionBlocked(reason) => {
                        tracing::warn!(reason, "the broker takes no more jobs for now");
                        block.send_replace(true);
                    }
                    Event::ConnectionUnblocked => {
                        tracing::info!("the broker takes jobs again");
                        block.send_replace(false);
                    }
                    _ => {}
                }
            }
        });
        let prefix = self.prefix().to_owned();
        let (declared, channels) = (Mutex::default(), AtomicU16::new(0));
        Ok(Arc::new(Open { connection, prefix, declared, blocked, channels }))
    }
}

impl Open {
    /// The driver numbers channels up to the most that the server allows and then begins again; but a number whose channel
    /// the server has closed fails for ever. So no number is used twice: half of them leaves room for who opens meanwhile.
    fn is_used_up(&self) -> bool {
        let most = match self.connection.configuration().channel_max() {
            0 => u16::MAX,
            most => most,
        };
        self.channels.load(Ordering::Relaxed) >= (most / 2).max(1)
    }

    async fn channel(&self) -> Result<Channel> {
        self.channels.fetch_add(1, Ordering::Relaxed);
        answer("open a channel", self.connection.create_channel()).await
    }

    /// Makes sure, once per connection, that the queues are there.
    pub(super) async fn declare(&self, channel: &Channel, target: &Target) -> Result<()> {
        if self.declared().contains(target) {
            return Ok(());
        }
        self.ensure(channel, target).await?;
        self.declared().insert(target.clone());
        Ok(())
    }

    /// Makes sure that the queues are there. One that others have made may be of any kind.
    pub(super) async fn ensure(&self, channel: &Channel, target: &Target) -> Result<()> {
        match target {
            Target::Pool(pool) => queues::declare(channel, &self.prefix, pool).await,
            Target::Named(name) => {
                // On a channel of its own: asking for a queue that is not there closes it.
                let is_there = queues::waiting(&self.channel().await?, name.clone()).await?.is_some();
                if is_there { Ok(()) } else { queues::make(channel, name).await }
            }
        }
    }

    /// The queues have been deleted.
    pub(super) fn forget(&self, target: &Target) {
        self.declared().remove(target);
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Waits until the server takes nothing.
    pub(super) async fn blocked(&self) {
        let mut blocked = self.blocked.clone();
        if blocked.wait_for(|blocked| *blocked).await.is_err() {
            // The connection is gone, which shows elsewhere.
            std::future::pending::<()>().await;
        }
    }

    fn declared(&self) -> std::sync::MutexGuard<'_, HashSet<Target>> {
        // Every change under it is a single call, so a panic cannot leave it half-changed.
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Doubles with each attempt, and is a little different each time, so that the clients of a server that comes back do
/// not all come at once.
fn pause(attempts: u32) -> Duration {
    let (shortest, longest) = PAUSES;
    let pause = shortest.saturating_mul(1 << (attempts - 1).min(8)).min(longest);
    let random = RandomState::new().hash_one(attempts) % 500;
    pause.mul_f64(0.5 + f64::from(u32::try_from(random).unwrap_or(0)) / 1000.0)
}
