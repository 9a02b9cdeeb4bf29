//! A connection to the server. It is opened when a call needs it, and opened again after it is lost.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::StreamExt;
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionBuilder, ConnectionProperties, Event};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::error::await_reply;
use super::queues::{self, Target};
use super::url::RabbitMqUrl;
use queue::{Error, ErrorKind, Result};

/// The pauses after attempts to connect that failed. With jitter, each pause is up to twice as long. So the clients of
/// a restarted server do not all connect at once. The longest pause is 2 s: a longer one would be most of the time that
/// jobs wait after an outage.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(LONGEST_PAUSE)
    .without_max_times()
    .with_jitter();

/// The connection for one purpose.
pub(super) struct Link {
    url: RabbitMqUrl,
    purpose: &'static str,
    /// The index in the URL of the node that was in use last.
    node: AtomicUsize,
    state: tokio::sync::Mutex<LinkState>,
}

#[derive(Default)]
struct LinkState {
    open: Option<Arc<OpenConnection>>,
    /// The failure of the last attempt to connect.
    failure: Option<FailedAttempt>,
}

struct FailedAttempt {
    retry_at: Instant,
    pauses: ExponentialBackoff,
    kind: ErrorKind,
    message: String,
}

/// An open connection.
pub(super) struct OpenConnection {
    connection: Connection,
    prefix: String,
    /// The queues that were declared or found on this connection.
    declared: Mutex<HashSet<Target>>,
    /// Whether the server accepts no messages at present, because it is short of memory or disk.
    blocked: watch::Receiver<bool>,
    /// The number of channels that were opened on it.
    channels: AtomicU16,
}

impl Link {
    pub(super) fn new(url: &RabbitMqUrl, purpose: &'static str) -> Result<Arc<Self>> {
        // A file that cannot be read is reported at the start.
        tls_of(url)?;
        let (node, state) = (AtomicUsize::new(0), tokio::sync::Mutex::default());
        Ok(Arc::new(Self { url: url.clone(), purpose, node, state }))
    }

    /// The beginning of the queues' names.
    pub(super) fn prefix(&self) -> &str {
        self.url.prefix()
    }

    /// The open connection. If there is none, a new one. After an attempt that failed there is a pause, during which
    /// this returns the error of that attempt.
    pub(super) async fn open(&self) -> Result<Arc<OpenConnection>> {
        let mut state = self.state.lock().await;
        if let Some(open) = state.open.as_ref().filter(|open| open.connection.status().connected()) {
            if !open.is_used_up() {
                return Ok(Arc::clone(open));
            }
            tracing::debug!(url = %self.url, purpose = self.purpose, "opening another connection for further channels");
            // The old connection closes when its last channel is closed.
            state.open = None;
        }
        if let Some(failure) = &state.failure
            && Instant::now() < failure.retry_at
        {
            let message = format_args!("{} (a moment ago; not connecting again yet)", failure.message);
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
                let mut pauses = state.failure.take().map_or_else(|| PAUSES.build(), |failure| failure.pauses);
                let retry_at = Instant::now() + pauses.next().unwrap_or(LONGEST_PAUSE);
                let (kind, message) = (error.kind(), error.to_string());
                state.failure = Some(FailedAttempt { retry_at, pauses, kind, message });
                Err(error)
            }
        }
    }

    /// A new channel, and its connection.
    pub(super) async fn channel(&self) -> Result<(Arc<OpenConnection>, Channel)> {
        let open = self.open().await?;
        match open.channel().await {
            Ok(channel) => Ok((open, channel)),
            // The driver often detects a lost connection only when a call uses it.
            Err(_) if !open.connection.status().connected() => {
                let open = self.open().await?;
                let channel = open.channel().await?;
                Ok((open, channel))
            }
            Err(error) => Err(error),
        }
    }

    /// Connects to the node that was in use last, or to the next one that accepts the connection.
    async fn connect(&self) -> Result<Arc<OpenConnection>> {
        let url = self.url.renewed()?;
        let (uris, last) = (url.uris(), self.node.load(Ordering::Relaxed));
        let mut failure = None;
        for index in 0..uris.len() {
            let node = (last + index) % uris.len();
            match self.connect_to(&url, uris[node].clone()).await {
                Ok(open) => {
                    self.node.store(node, Ordering::Relaxed);
                    return Ok(open);
                }
                Err(error) => {
                    let address = &uris[node].authority;
                    tracing::debug!(host = address.host, port = address.port, %error, "cannot connect to a node");
                    failure = Some(error);
                }
            }
        }
        Err(failure.unwrap_or_else(|| Error::new(ErrorKind::Unavailable, format_args!("{url} names no host"))))
    }

    async fn connect_to(&self, url: &RabbitMqUrl, uri: AMQPUri) -> Result<Arc<OpenConnection>> {
        let doing = format!("connect to {url}");
        let runtime = lapin::runtime::default_runtime().map_err(|error| super::error::failed(&doing, error))?;
        let name = format!("millrace {} ({})", self.purpose, std::process::id());
        let builder = ConnectionBuilder::new_with_runtime(runtime)
            .with_uri(uri)
            .with_properties(ConnectionProperties::default().with_connection_name(name.into()))
            .with_tls_config(tls_of(url)?);
        let connection = await_reply(&doing, builder.connect()).await?;
        let (block, blocked) = watch::channel(false);
        let mut events = Box::pin(connection.events_listener());
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    Event::ConnectionBlocked(reason) => {
                        tracing::warn!(reason, "the broker accepts no jobs at present");
                        block.send_replace(true);
                    }
                    Event::ConnectionUnblocked => {
                        tracing::info!("the broker accepts jobs again");
                        block.send_replace(false);
                    }
                    _ => {}
                }
            }
        });
        let prefix = self.prefix().to_owned();
        let (declared, channels) = (Mutex::default(), AtomicU16::new(0));
        Ok(Arc::new(OpenConnection { connection, prefix, declared, blocked, channels }))
    }
}

/// The settings of TLS. The files are read for each connection, because they may have been renewed.
fn tls_of(url: &RabbitMqUrl) -> Result<OwnedTLSConfig> {
    let read = |option: &str, file: &Path| {
        std::fs::read_to_string(file).map_err(|error| {
            let message = format_args!("{url}: {option}: cannot read {}", file.display()).to_string();
            Error::caused(ErrorKind::Denied, message, error)
        })
    };
    let cert_chain = url.ca().map(|file| read("ca", file)).transpose()?;
    let identity = match url.identity() {
        Some((certificate, key)) => Some(OwnedIdentity::PKCS8 {
            pem: read("cert", certificate)?.into_bytes(),
            key: read("key", key)?.into_bytes(),
        }),
        None => None,
    };
    Ok(OwnedTLSConfig { identity, cert_chain })
}

impl OpenConnection {
    /// Whether too many channels were opened on this connection. The driver numbers channels up to the server's limit
    /// and then begins again. But once the server has closed a channel, its number fails for ever. So no number is used
    /// twice. Half of the limit leaves room for channels that are opened at the same time.
    fn is_used_up(&self) -> bool {
        let limit = match self.connection.configuration().channel_max() {
            0 => u16::MAX,
            limit => limit,
        };
        self.channels.load(Ordering::Relaxed) >= (limit / 2).max(1)
    }

    async fn channel(&self) -> Result<Channel> {
        self.channels.fetch_add(1, Ordering::Relaxed);
        await_reply("open a channel", self.connection.create_channel()).await
    }

    /// Declares missing queues, once per connection.
    pub(super) async fn declare(&self, channel: &Channel, target: &Target) -> Result<()> {
        if self.declared.lock().contains(target) {
            return Ok(());
        }
        self.ensure(channel, target).await?;
        self.declared.lock().insert(target.clone());
        Ok(())
    }

    /// Declares missing queues. A queue whose name comes from a route may have any type, if another program has
    /// declared it.
    pub(super) async fn ensure(&self, channel: &Channel, target: &Target) -> Result<()> {
        match target {
            Target::Pool(pool) => queues::declare_pool(channel, &self.prefix, pool).await,
            Target::Named(name) => {
                // The check has a separate channel, because the channel closes if the queue does not exist.
                let exists = queues::message_count(&self.channel().await?, name.clone()).await?.is_some();
                if exists { Ok(()) } else { queues::declare_named(channel, name).await }
            }
        }
    }

    /// The queues have been deleted.
    pub(super) fn forget(&self, target: &Target) {
        self.declared.lock().remove(target);
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Waits until the server accepts no messages.
    pub(super) async fn blocked(&self) {
        let mut blocked = self.blocked.clone();
        if blocked.wait_for(|blocked| *blocked).await.is_err() {
            // The connection is lost, which other calls report.
            std::future::pending::<()>().await;
        }
    }
}
