//! What a URL names, opened.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::broker::embedded::EmbeddedBroker;
#[cfg(feature = "kafka")]
use crate::broker::kafka::{KafkaBroker, KafkaUrl};
#[cfg(feature = "rabbitmq")]
use crate::broker::rabbitmq::{RabbitMqBroker, RabbitMqUrl};
#[cfg(feature = "redis")]
use crate::broker::redis::RedisBroker;
use crate::ledger::embedded::EmbeddedLedger;
#[cfg(feature = "redis")]
use crate::ledger::redis::RedisLedger;
#[cfg(feature = "redis")]
use crate::redis::{Redis, RedisUrl};
use crate::roster::embedded::EmbeddedRoster;
#[cfg(feature = "redis")]
use crate::roster::redis::RedisRoster;
use crate::store::{Store, StoreOptions};
use crate::{Broker, Clock, Error, ErrorKind, Ledger, Result, Risk, Roster, RouteError, RouteErrors, Routes};

/// Where jobs wait and are accounted for: broker, ledger and roster.
#[derive(Clone)]
pub struct Backend {
    /// Where jobs wait.
    pub broker: Arc<dyn Broker>,
    /// What became of them.
    pub ledger: Arc<dyn Ledger>,
    /// The workers alive.
    pub roster: Arc<dyn Roster>,
}

/// As much of a [`Backend`] as there is already, to be looked at: no data file is made, and none converted.
#[derive(Clone, Default)]
pub struct Existing {
    /// Where jobs wait. `None`: in a file that the first start makes or converts.
    pub broker: Option<Arc<dyn Broker>>,
    /// What became of them; likewise.
    pub ledger: Option<Arc<dyn Ledger>>,
    /// The workers alive; likewise.
    pub roster: Option<Arc<dyn Roster>>,
    /// What the first start makes or converts, and what about its place may lose or delay jobs.
    pub risks: Vec<Risk>,
}

/// Names a backend: a scheme and what belongs to it. Its text never shows a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendUrl {
    /// A file in a folder of this machine, shared by its processes: broker, ledger and roster.
    Embedded {
        /// The folder, relative to the working folder unless absolute.
        folder: PathBuf,
        /// The most bytes the data file may have; then writes fail as [`ErrorKind::Full`].
        max_size_bytes: Option<u64>,
    },
    /// Kafka: a broker.
    #[cfg(feature = "kafka")]
    Kafka(KafkaUrl),
    /// RabbitMQ: a broker.
    #[cfg(feature = "rabbitmq")]
    RabbitMq(RabbitMqUrl),
    /// Redis: broker, ledger and roster.
    #[cfg(feature = "redis")]
    Redis(RedisUrl),
}

/// The schemes of a backend's URL, each with how it is written and whether this program was compiled with it.
const SCHEMES: [(&str, &str, bool); 7] = [
    ("embedded", "embedded:FOLDER", true),
    ("kafka", "kafka://HOST:PORT", cfg!(feature = "kafka")),
    ("rabbitmq", "rabbitmq://USER:PASSWORD@HOST", cfg!(feature = "rabbitmq")),
    ("rabbitmqs", "rabbitmqs://USER:PASSWORD@HOST", cfg!(feature = "rabbitmq")),
    ("redis", "redis://HOST", cfg!(feature = "redis")),
    ("rediss", "rediss://HOST", cfg!(feature = "redis")),
    ("redis-sentinel", "redis-sentinel://HOST,HOST/SERVICE", cfg!(feature = "redis")),
];

/// Where jobs wait, and where they are accounted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendUrls {
    broker: BackendUrl,
    ledger: BackendUrl,
    routes: Routes,
}

impl BackendUrls {
    /// Jobs wait in `broker` and are accounted for in `ledger`, where the workers are known too; without one, in the broker.
    pub fn new(broker: BackendUrl, ledger: Option<BackendUrl>) -> Result<Self> {
        let named = ledger.is_some();
        let ledger = ledger.unwrap_or_else(|| broker.clone());
        if !ledger.is_ledger() {
            let why = if named {
                format!("ledger: {ledger} keeps no ledger")
            } else {
                format!("ledger: is missing, and the broker {broker} keeps none")
            };
            let way_out = "name a Redis (redis://HOST), or embedded:FOLDER if all processes are on one machine";
            return Err(Error::new(ErrorKind::Refused, format_args!("{why}: {way_out}")));
        }
        Ok(Self { broker, ledger, routes: Routes::default() })
    }

    /// With names on the broker beside those made from the pools' names. Refused where the broker has no such.
    pub fn with_routes(self, routes: Routes) -> Result<Self, RouteErrors> {
        let wrong = |(key, name): (String, &str)| {
            let why = self.broker.check_route(name).err()?;
            Some(RouteError { key, name: name.to_owned(), why })
        };
        let errors = routes.names().filter_map(wrong).collect();
        RouteErrors::none_or(errors, Self { routes, ..self })
    }

    /// Where jobs wait.
    pub fn broker(&self) -> &BackendUrl {
        &self.broker
    }

    /// Where they are accounted for.
    pub fn ledger(&self) -> &BackendUrl {
        &self.ledger
    }

    fn open_broker(&self, clock: Clock) -> Result<Arc<dyn Broker>> {
        Ok(match &self.broker {
            BackendUrl::Embedded { folder, max_size_bytes } => {
                let options = StoreOptions { folder: folder.clone(), max_size_bytes: *max_size_bytes };
                Arc::new(EmbeddedBroker::new(Store::open(&options, clock)?))
            }
            #[cfg(feature = "kafka")]
            BackendUrl::Kafka(url) => Arc::new(KafkaBroker::open(url, &self.routes)),
            #[cfg(feature = "rabbitmq")]
            BackendUrl::RabbitMq(url) => Arc::new(RabbitMqBroker::open(url, &self.routes)?),
            #[cfg(feature = "redis")]
            BackendUrl::Redis(url) => Arc::new(RedisBroker::new(Redis::open(url, clock)?)),
        })
    }
}

impl Existing {
    /// Opens what is there. As [`Backend::open`] it waits for no server.
    pub async fn open(urls: &BackendUrls) -> Result<Self> {
        let (clock, mut existing) = (Clock::default(), Self::default());
        let (broker, ledger) = (urls.broker(), urls.ledger());
        if existing.is_there(ledger)? {
            let kept = Backend::of_ledger(ledger, clock.clone())?;
            (existing.ledger, existing.roster) = (Some(kept.ledger), Some(kept.roster));
            existing.broker = (broker == ledger).then_some(kept.broker);
        }
        if broker != ledger && existing.is_there(broker)? {
            existing.broker = Some(urls.open_broker(clock)?);
        }
        Ok(existing)
    }

    fn is_there(&mut self, url: &BackendUrl) -> Result<bool> {
        let BackendUrl::Embedded { folder, .. } = url else { return Ok(true) };
        let risks = Store::risks_before_use(folder)?;
        let is_there = risks.is_none();
        self.risks.extend(risks.into_iter().flatten());
        Ok(is_there)
    }
}

impl From<Backend> for Existing {
    fn from(Backend { broker, ledger, roster }: Backend) -> Self {
        Self { broker: Some(broker), ledger: Some(ledger), roster: Some(roster), risks: Vec::new() }
    }
}

impl Backend {
    /// Opens broker, ledger and roster. Must be called within a tokio runtime, where their background tasks live.
    ///
    /// A server is not waited for: one that cannot be reached shows in the calls, as [`ErrorKind::Unavailable`].
    pub async fn open(urls: &BackendUrls) -> Result<Self> {
        Self::open_with_clock(urls, Clock::default()).await
    }

    /// As [`Backend::open`], with leases, deadlines and retries by `clock` where the backend does not keep time itself.
    pub async fn open_with_clock(urls: &BackendUrls, clock: Clock) -> Result<Self> {
        let kept = Self::of_ledger(&urls.ledger, clock.clone())?;
        if urls.broker == urls.ledger {
            return Ok(kept);
        }
        Ok(Self { broker: urls.open_broker(clock)?, ..kept })
    }

    /// All three where the ledger is.
    fn of_ledger(url: &BackendUrl, clock: Clock) -> Result<Self> {
        match url {
            BackendUrl::Embedded { folder, max_size_bytes } => {
                let options = StoreOptions { folder: folder.clone(), max_size_bytes: *max_size_bytes };
                Ok(Self::of_store(&Store::open(&options, clock)?))
            }
            #[cfg(feature = "redis")]
            BackendUrl::Redis(url) => Ok(Self::of_redis(&Redis::open(url, clock)?)),
            #[allow(unreachable_patterns, reason = "reachable with a backend that is a broker alone")]
            url => Err(Error::new(ErrorKind::Refused, format_args!("ledger: {url} keeps no ledger"))),
        }
    }

    pub(crate) fn of_store(store: &Store) -> Self {
        Self {
            broker: Arc::new(EmbeddedBroker::new(store.clone())),
            ledger: Arc::new(EmbeddedLedger::new(store.clone())),
            roster: Arc::new(EmbeddedRoster::new(store.clone())),
        }
    }

    #[cfg(feature = "redis")]
    pub(crate) fn of_redis(redis: &Redis) -> Self {
        Self {
            broker: Arc::new(RedisBroker::new(redis.clone())),
            ledger: Arc::new(RedisLedger::new(redis.clone())),
            roster: Arc::new(RedisRoster::new(redis.clone())),
        }
    }
}

impl BackendUrl {
    /// Whether a topic or queue that is no pool's own may be called so; else why not.
    fn check_route(&self, name: &str) -> Result<(), String> {
        let prefix = self.prefix_of_pools()?;
        #[cfg(feature = "kafka")]
        if let Self::Kafka(url) = self {
            url.check_topic(name)?;
        }
        if name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.')) {
            return Err(format!("is among the names that are made from the pools' own, {prefix}.*"));
        }
        Ok(())
    }

    /// What the names begin with that are made from the pools' own, where others may stand beside them; else why not.
    fn prefix_of_pools(&self) -> Result<&str, String> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(url) => Ok(url.prefix()),
            #[cfg(feature = "rabbitmq")]
            Self::RabbitMq(url) => Ok(url.prefix()),
            #[allow(unreachable_patterns, reason = "reachable with a broker that has none")]
            broker => Err(format!("names a topic or queue, and the broker {broker} has none: Kafka and RabbitMQ do")),
        }
    }

    fn is_ledger(&self) -> bool {
        match self {
            Self::Embedded { .. } => true,
            #[cfg(feature = "redis")]
            Self::Redis(_) => true,
            #[allow(unreachable_patterns, reason = "reachable with a backend that is a broker alone")]
            _ => false,
        }
    }

    fn embedded(text: &str, rest: &str) -> Result<Self> {
        let refused = |why: &str| Err(Error::new(ErrorKind::Refused, format_args!("{text:?} {why}")));
        let (folder, query) = rest.split_once('?').unwrap_or((rest, ""));
        let folder = folder.strip_prefix("//").unwrap_or(folder);
        if folder.is_empty() {
            return refused("names no folder: write embedded:./data");
        }
        let mut max_size_bytes = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').map(|(key, value)| (key, value.parse::<u64>())) {
                Some(("max_size", Ok(bytes))) if bytes > 0 => max_size_bytes = Some(bytes),
                Some(("max_size", _)) => return refused("has a max_size that is not a number of bytes above 0"),
                _ => return refused("has an unknown option: the known one is max_size=BYTES"),
            }
        }
        Ok(Self::Embedded { folder: folder.into(), max_size_bytes })
    }
}

impl FromStr for BackendUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = |why: String| Err(Error::new(ErrorKind::Refused, why));
        let known = || {
            let ways: Vec<_> = SCHEMES.iter().filter(|(.., compiled)| *compiled).map(|(_, way, _)| *way).collect();
            ways.join(", ")
        };
        // What stands before the first colon is shown, and no more: the rest may hold a password.
        let Some((scheme, rest)) = text.split_once(':') else {
            return refused(format!("{text:?} is not a backend's URL: write one of {}", known()));
        };
        match scheme {
            "embedded" => Self::embedded(text, rest),
            #[cfg(feature = "kafka")]
            "kafka" => text.parse().map(Self::Kafka),
            #[cfg(feature = "rabbitmq")]
            "rabbitmq" | "rabbitmqs" => text.parse().map(Self::RabbitMq),
            #[cfg(feature = "redis")]
            "redis" | "rediss" | "redis-sentinel" => text.parse().map(Self::Redis),
            other if SCHEMES.iter().any(|(scheme, ..)| *scheme == other) => {
                refused(format!("{other:?} is a backend that this program was compiled without: it has {}", known()))
            }
            other => refused(format!("{other:?} is no backend that is known: write one of {}", known())),
        }
    }
}

impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded { folder, max_size_bytes } => {
                write!(f, "embedded:{}", folder.display())?;
                max_size_bytes.map_or(Ok(()), |bytes| write!(f, "?max_size={bytes}"))
            }
            #[cfg(feature = "kafka")]
            Self::Kafka(url) => url.fmt(f),
            #[cfg(feature = "rabbitmq")]
            Self::RabbitMq(url) => url.fmt(f),
            #[cfg(feature = "redis")]
            Self::Redis(url) => url.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_url_is_read_and_written_alike() {
        for text in ["embedded:./data", "embedded:/var/lib/millrace", "embedded:data?max_size=1048576"] {
            assert_eq!(text.parse::<BackendUrl>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_wrong_backend_url_is_refused_with_the_way_out() {
        for (text, way_out) in [
            ("data", "write one of embedded:FOLDER"),
            ("mysql://host", "write one of embedded:FOLDER"),
            ("embedded:", "embedded:./data"),
            ("embedded:d?max_size=0", "above 0"),
            ("embedded:d?max_size=lots", "above 0"),
            ("embedded:d?colour=red", "max_size=BYTES"),
        ] {
            let error = text.parse::<BackendUrl>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused);
            assert!(error.to_string().contains(way_out), "{error}");
        }
    }
}
