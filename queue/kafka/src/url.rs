//! The URL that names a Kafka cluster.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rdkafka::ClientConfig;
use url::Url;

use queue::{Class, Error, ErrorKind, PoolName, Result, UrlSource};

const SCHEME: &str = "kafka://";
const PREFIX: &str = "millrace";
const PARTITIONS: i32 = 12;
const MASK: &str = "***";

/// The characters of a value that are written as `%XX`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'-')
    .remove(b'/')
    .remove(b':')
    .remove(b',')
    .remove(b'+');

/// The properties that this program sets itself, because its promises depend on them.
const RESERVED: [&str; 16] = [
    "bootstrap.servers",
    "group.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "transactional.id",
    "isolation.level",
    "auto.offset.reset",
    "partition.assignment.strategy",
    "group.instance.id",
    "allow.auto.create.topics",
    "auto.commit.enable",
    "topic.blacklist",
];

/// Names a Kafka cluster: `kafka://HOST:PORT[,HOST:PORT...]?prefix=millrace&partitions=12&PROPERTY=VALUE...`.
///
/// A property is any of librdkafka's that has a dot in its name, such as `security.protocol` or `sasl.username`.
/// Characters with a meaning in a URL are written as `%XX`. The text never shows a password.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaUrl {
    servers: String,
    prefix: String,
    partitions: i32,
    properties: BTreeMap<String, String>,
    source: Option<UrlSource>,
}

impl KafkaUrl {
    /// The same URL, which is read again for each new client.
    pub fn renewed_by(self, source: UrlSource) -> Self {
        Self { source: Some(source), ..self }
    }

    /// The URL for a new client. Prefix and partitions stay as they are.
    pub(super) fn renewed(&self) -> Result<Self> {
        let Some(source) = &self.source else { return Ok(self.clone()) };
        let renewed: Self = source.read()?;
        Ok(Self { prefix: self.prefix.clone(), partitions: self.partitions, ..renewed })
    }

    /// The number of partitions of a topic that this program creates.
    pub(super) fn partitions(&self) -> i32 {
        self.partitions
    }

    /// The beginning of the names of the pools' own topics.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The topic of a pool's class.
    pub(super) fn topic(&self, pool: &PoolName, class: Class) -> String {
        format!("{}.{pool}.{class}", self.prefix)
    }

    /// Checks the name of a topic that does not belong to a single pool.
    pub fn check_topic(&self, name: &str) -> Result<(), String> {
        // https://github.com/apache/kafka/blob/4.1/clients/src/main/java/org/apache/kafka/common/internals/Topic.java
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name == "." || name == ".." || !name.chars().all(allowed) {
            return Err("is not the name of a Kafka topic: 1 to 249 characters out of A-Z a-z 0-9 . _ -".to_owned());
        }
        Ok(())
    }

    /// The group of a pool's consumers.
    pub(super) fn group(&self, pool: &PoolName) -> String {
        format!("{}.{pool}", self.prefix)
    }

    /// The configuration from which every client starts: the servers, `defaults`, and the properties of the URL, which
    /// override these.
    pub(super) fn config(&self, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in defaults {
            config.set(*name, *value);
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.servers);
        config
    }

    /// The value of a property of librdkafka, if the URL sets it.
    pub(super) fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }
}

impl FromStr for KafkaUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = |why: String| Error::new(ErrorKind::Refused, format_args!("the kafka URL {why}"));
        let rest =
            text.strip_prefix(SCHEME).ok_or_else(|| refused(format!("does not start with {SCHEME}HOST:PORT")))?;
        let (servers, query) = rest.split_once('?').unwrap_or((rest, ""));
        let servers = servers.trim_end_matches('/');
        if servers.contains('@') {
            // The text is not shown: there may be a password before the @.
            return Err(refused(
                "has credentials before its host: write sasl.username=...&sasl.password=...".to_owned(),
            ));
        }
        if let Some(wrong) = servers.split(',').find(|server| !is_server(server.trim())) {
            // A password with a ? in it begins among the servers and ends at an @.
            let wrong = if query.contains('@') { MASK.to_owned() } else { format!("{wrong:?}") };
            return Err(refused(format!("names the server {wrong}, which is not HOST:PORT")));
        }
        let mut url = Self {
            servers: servers.to_owned(),
            prefix: PREFIX.to_owned(),
            partitions: PARTITIONS,
            properties: BTreeMap::new(),
            source: None,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value =
                decoded(value).ok_or_else(|| refused(format!("has a {name} with a % that is not part of %XX")))?;
            match name {
                "prefix" => url.prefix = checked_prefix(value).map_err(refused)?,
                "partitions" => {
                    let count = value.parse().ok().filter(|count| (1..=10_000).contains(count));
                    let rule = || refused(format!("has partitions={value}, which is not a number from 1 to 10000"));
                    url.partitions = count.ok_or_else(rule)?;
                }
                reserved if RESERVED.contains(&reserved) => {
                    return Err(refused(format!("sets {reserved}, which this program sets itself: leave it out")));
                }
                property if property.contains('.') => {
                    check_property(property, &value).map_err(refused)?;
                    url.properties.insert(property.to_owned(), value);
                }
                other => {
                    let known = "prefix, partitions and librdkafka's properties, whose names have a dot";
                    return Err(refused(format!("has an unknown option {other:?}: the known ones are {known}")));
                }
            }
        }
        Ok(url)
    }
}

fn checked_prefix(prefix: String) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if prefix.is_empty() || prefix.len() > 100 || !prefix.chars().all(allowed) {
        return Err(format!("has prefix={prefix:?}, which is not 1 to 100 characters out of A-Z a-z 0-9 . _ -"));
    }
    Ok(prefix)
}

/// librdkafka knows the properties, and checks their values.
fn check_property(name: &str, value: &str) -> Result<(), String> {
    let checked = ClientConfig::new().set(name, value).create_native_config();
    checked.map(drop).map_err(|error| match error {
        rdkafka::error::KafkaError::ClientConfig(_, why, ..) if !is_secret(name) => {
            format!("has an invalid {name}: {why}")
        }
        _ => format!("has an invalid {name}"),
    })
}

fn is_secret(property: &str) -> bool {
    ["password", "passphrase", "secret", "sasl.oauthbearer.config", ".key.pem"]
        .iter()
        .any(|part| property.contains(part))
}

/// Whether the text is HOST:PORT. A `Url` has one host only, so the list of servers is not parsed as a whole.
fn is_server(text: &str) -> bool {
    let Ok(url) = Url::parse(&format!("{SCHEME}{text}")) else { return false };
    url.has_host() && url.port().is_some_and(|port| port > 0) && url.path().is_empty() && url.fragment().is_none()
}

/// `None`: a `%` is not part of `%XX`, or the text is not UTF-8. A `+` stands for itself, as passwords may contain it.
fn decoded(text: &str) -> Option<String> {
    let is_encoded =
        |after: &str| after.get(..2).is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if !text.split('%').skip(1).all(is_encoded) {
        return None;
    }
    percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

impl fmt::Display for KafkaUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.servers)?;
        let mut options = Vec::new();
        if self.prefix != PREFIX {
            options.push(format!("prefix={}", self.prefix));
        }
        if self.partitions != PARTITIONS {
            options.push(format!("partitions={}", self.partitions));
        }
        for (name, value) in &self.properties {
            let shown = if is_secret(name) { MASK.to_owned() } else { utf8_percent_encode(value, ENCODED).to_string() };
            options.push(format!("{name}={shown}"));
        }
        if options.is_empty() { Ok(()) } else { write!(f, "?{}", options.join("&")) }
    }
}

impl fmt::Debug for KafkaUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kafka_url_is_read_and_written_alike() {
        for text in [
            "kafka://localhost:9092",
            "kafka://a:9092,b:9093?prefix=test&partitions=3",
            "kafka://[::1]:9092?security.protocol=ssl&ssl.ca.location=/etc/ca.pem",
            "kafka://a:1?client.id=x%26y%25",
        ] {
            let url: KafkaUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), text);
            assert_eq!(url.to_string().parse::<KafkaUrl>().unwrap(), url);
        }
    }

    #[test]
    fn a_kafka_url_never_shows_a_password() {
        let text = "kafka://a:1?sasl.username=me&sasl.password=hun%26ter2&ssl.key.password=hunter2";
        let url: KafkaUrl = text.parse().unwrap();
        assert_eq!(url.to_string(), "kafka://a:1?sasl.password=***&sasl.username=me&ssl.key.password=***");
        assert_eq!(url.property("sasl.password"), Some("hun&ter2"));
        assert!(!format!("{url:?}").contains("hun"));
        // Not every build of librdkafka has this property.
        assert!(is_secret("sasl.oauthbearer.assertion.private.key.passphrase"));
        let error = "kafka://me:hunter2@a:1".parse::<KafkaUrl>().unwrap_err();
        assert!(!error.to_string().contains("hunter2") && error.to_string().contains("sasl.password"), "{error}");
        let error = "kafka://me:hunter2?x@a:1".parse::<KafkaUrl>().unwrap_err();
        assert!(!error.to_string().contains("hunter2") && error.to_string().contains("HOST:PORT"), "{error}");
    }

    #[test]
    fn a_wrong_kafka_url_is_refused_with_the_reason() {
        for (text, what) in [
            ("kafka:a:1", "HOST:PORT"),
            ("kafka://", "\"\", which is not HOST:PORT"),
            ("kafka://a", "\"a\", which is not HOST:PORT"),
            ("kafka://a:1,b:0", "\"b:0\""),
            ("kafka://a:1?partitions=0", "partitions=0, which is not a number from 1 to 10000"),
            ("kafka://a:1?prefix=a/b", "prefix=\"a/b\""),
            ("kafka://a:1?colour=red", "\"colour\": the known ones are prefix, partitions"),
            ("kafka://a:1?group.id=x", "group.id, which this program sets itself"),
            ("kafka://a:1?sasl.colour=red", "sasl.colour"),
            ("kafka://a:1?session.timeout.ms=soon", "session.timeout.ms"),
            ("kafka://a:1?client.id=%4", "client.id with a %"),
        ] {
            let error = text.parse::<KafkaUrl>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused);
            assert!(error.to_string().contains(what), "{error}");
        }
    }

    #[test]
    fn no_property_of_the_url_undoes_a_promise() {
        for reserved in RESERVED {
            let error = format!("kafka://a:1?{reserved}=x").parse::<KafkaUrl>().unwrap_err();
            assert!(error.to_string().contains(&format!("sets {reserved}, which this program sets itself")), "{error}");
        }
    }

    #[test]
    fn a_property_of_the_url_overrides_a_default() {
        let url: KafkaUrl = "kafka://a:1?session.timeout.ms=7000".parse().unwrap();
        let config = url.config(&[("session.timeout.ms", "6000"), ("linger.ms", "1")]);
        assert_eq!((config.get("session.timeout.ms"), config.get("linger.ms")), (Some("7000"), Some("1")));
        assert_eq!(config.get("bootstrap.servers"), Some("a:1"));
    }
}
