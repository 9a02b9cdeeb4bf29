//! The brokers of a system under test, and the URLs of their servers.

use std::fmt;

use anyhow::Context;
use queue::JobId;

/// The broker of a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerKind {
    /// A file beside the configuration, which is also the ledger.
    Embedded,
    /// RabbitMQ, with Redis as the ledger.
    RabbitMq,
    /// Kafka, with Redis as the ledger.
    Kafka,
    /// Redis, which is also the ledger.
    Redis,
}

/// The backend URLs of one system.
#[derive(Debug, Clone)]
pub struct BrokerUrls {
    /// The broker.
    pub broker: String,
    /// The ledger; `None` if the broker is also the ledger.
    pub ledger: Option<String>,
}

impl BrokerKind {
    /// All brokers.
    pub const ALL: [Self; 4] = [Self::Embedded, Self::RabbitMq, Self::Kafka, Self::Redis];

    /// Its name in `scripts/servers.sh`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::RabbitMq => "rabbitmq",
            Self::Kafka => "kafka",
            Self::Redis => "redis",
        }
    }

    /// The URLs of a new, empty installation in the servers that the environment names. `None`: no server is needed.
    pub fn urls(self) -> anyhow::Result<Option<BrokerUrls>> {
        if self == Self::Embedded {
            return Ok(None);
        }
        self.urls_at(&self.server_url()?).map(Some)
    }

    /// As [`BrokerKind::urls`], with the broker at `server`. The ledger is in the Redis that the environment names.
    pub fn urls_at(self, server: &str) -> anyhow::Result<BrokerUrls> {
        let prefix = format!("test-{}", JobId::generate());
        let within = |server: &str| {
            let separator = if server.contains('?') { '&' } else { '?' };
            format!("{server}{separator}prefix={prefix}")
        };
        let ledger = match self {
            Self::Embedded | Self::Redis => None,
            Self::RabbitMq | Self::Kafka => Some(within(&Self::Redis.server_url()?)),
        };
        Ok(BrokerUrls { broker: within(server), ledger })
    }

    /// Whether the environment names the servers of the broker and of its ledger.
    pub fn has_server(self) -> bool {
        match self {
            Self::Embedded => true,
            Self::Redis => self.server_url().is_ok(),
            Self::RabbitMq | Self::Kafka => self.server_url().is_ok() && Self::Redis.server_url().is_ok(),
        }
    }

    fn server_url(self) -> anyhow::Result<String> {
        let variable = format!("MILLRACE_TEST_{}_URL", self.name().to_uppercase());
        let url = std::env::var(&variable).ok().filter(|url| !url.is_empty());
        url.with_context(|| format!("set {variable}, or run `make test`, which starts the servers"))
    }
}

impl fmt::Display for BrokerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
