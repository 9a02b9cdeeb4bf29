//! A backend's URL.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use queue::{Error, ErrorKind, Result, UrlSource};
#[cfg(feature = "kafka")]
use queue_kafka::KafkaUrl;
#[cfg(feature = "rabbitmq")]
use queue_rabbitmq::RabbitMqUrl;
#[cfg(feature = "redis")]
use queue_redis::RedisUrl;

/// The URL of a backend. Its text never shows a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendUrl {
    /// A file in a folder of this machine, shared by its processes: broker, ledger and roster.
    Embedded {
        /// The folder, relative to the working folder unless absolute.
        folder: PathBuf,
        /// The largest size of the data file, in bytes. Above it, writes fail with [`ErrorKind::Full`].
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

/// The schemes, each with its form and whether this program was compiled with it.
const SCHEMES: [(&str, &str, bool); 7] = [
    ("embedded", "embedded:FOLDER", true),
    ("kafka", "kafka://HOST:PORT", cfg!(feature = "kafka")),
    ("rabbitmq", "rabbitmq://USER:PASSWORD@HOST", cfg!(feature = "rabbitmq")),
    ("rabbitmqs", "rabbitmqs://USER:PASSWORD@HOST", cfg!(feature = "rabbitmq")),
    ("redis", "redis://HOST", cfg!(feature = "redis")),
    ("rediss", "rediss://HOST", cfg!(feature = "redis")),
    ("redis-sentinel", "redis-sentinel://HOST,HOST/SERVICE", cfg!(feature = "redis")),
];

impl BackendUrl {
    /// The same URL, which is read again for each new connection to a server.
    pub fn renewed_by(self, source: UrlSource) -> Self {
        match self {
            Self::Embedded { .. } => self,
            #[cfg(feature = "kafka")]
            Self::Kafka(url) => Self::Kafka(url.renewed_by(source)),
            #[cfg(feature = "rabbitmq")]
            Self::RabbitMq(url) => Self::RabbitMq(url.renewed_by(source)),
            #[cfg(feature = "redis")]
            Self::Redis(url) => Self::Redis(url.renewed_by(source)),
        }
    }

    /// Whether the text starts with the scheme of a backend. A text without one may be a password.
    pub fn has_scheme(text: &str) -> bool {
        text.split_once(':').is_some_and(|(start, _)| SCHEMES.iter().any(|(scheme, ..)| *scheme == start))
    }

    /// Checks whether a route may have this name. The error is the reason why not.
    pub(crate) fn check_route(&self, name: &str) -> Result<(), String> {
        let prefix = self.prefix_of_pools()?;
        #[cfg(feature = "kafka")]
        if let Self::Kafka(url) = self {
            url.check_topic(name)?;
        }
        if name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.')) {
            return Err(format!("is reserved: the names {prefix}.* are made from the names of pools"));
        }
        Ok(())
    }

    /// The prefix of the names that contain the name of a pool. The error is the reason why this broker has no routes.
    fn prefix_of_pools(&self) -> Result<&str, String> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(url) => Ok(url.prefix()),
            #[cfg(feature = "rabbitmq")]
            Self::RabbitMq(url) => Ok(url.prefix()),
            #[allow(unreachable_patterns, reason = "reachable with a broker that has none")]
            broker => Err(format!("names a topic or queue, and the broker {broker} has none; use Kafka or RabbitMQ")),
        }
    }

    pub(crate) fn is_ledger(&self) -> bool {
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
            return refused("has no folder: write embedded:./data");
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
        // The error shows the text before the first colon only: the rest may hold a password.
        let Some((scheme, rest)) = text.split_once(':') else {
            return refused(format!("{text:?} is not the URL of a backend: write one of {}", known()));
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
                refused(format!("{other:?} is a backend that this program was not compiled with; it has {}", known()))
            }
            other => refused(format!("{other:?} is not a known backend: write one of {}", known())),
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
    fn a_backend_url_is_formatted_as_it_was_written() {
        for text in ["embedded:./data", "embedded:/var/lib/millrace", "embedded:data?max_size=1048576"] {
            assert_eq!(text.parse::<BackendUrl>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_wrong_backend_url_is_rejected_with_the_way_out() {
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
