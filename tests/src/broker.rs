//! The brokers that a system can have, and where the tests find their servers.

use std::fmt;

use anyhow::Context;
use queue::JobId;

/// Where the jobs of a system wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerKind {
    /// A file beside the configuration, which is the ledger as well.
    Embedded,
    /// RabbitMQ, with Redis as the ledger.
    RabbitMq,
    /// Kafka, with Redis as the ledger.
    Kafka,
    /// Redis, which is the ledger as well.
    Redis,
}

/// The backend URLs of one system.
#[derive(Debug, Clone)]
pub struct BrokerUrls {
    /// Where jobs wait.
    pub broker: String,
    /// Where they are accounted for; `None`: in the broker.
    pub ledger: Option<String>,
}

impl BrokerKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Embedded, Self::RabbitMq, Self::Kafka, Self::Redis];

    /// Its name, as `scripts/servers.sh` knows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::RabbitMq => "rabbitmq",
            Self::Kafka => "kafka",
            Self::Redis => "redis",
        }
    }

    /// Names an empty installation of its own within the servers that the environment names. `None`: it needs no server.
    pub fn urls(self) -> anyhow::Result<Option<BrokerUrls>> {
        if self == Self::Embedded {
            return Ok(None);
        }
        self.urls_at(&self.server_url()?).map(Some)
    }

    /// As [`BrokerKind::urls`], in the broker at `server`; the ledger stays in the Redis that the environment names.
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

    /// Whether the environment names a server for it, and for its ledger.
    pub fn is_there(self) -> bool {
        match self {
            Self::Embedded => true,
            Self::Redis => self.server_url().is_ok(),
            Self::RabbitMq | Self::Kafka => self.server_url().is_ok() && Self::Redis.server_url().is_ok(),
        }
    }

    fn server_url(self) -> anyhow::Result<String> {
        let variable = format!("MILLRACE_TEST_{}_URL", self.name().to_uppercase());
        let url = std::env::var(&variable).ok().filter(|url| !url.is_empty());
        url.with_context(|| format!("set {variable}, or run make test, which starts the servers"))
    }
}

impl fmt::Display for BrokerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
