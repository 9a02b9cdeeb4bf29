//! The URL that names a RabbitMQ server.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use percent_encoding::percent_decode_str;
use url::{Host, Url};

use queue::{Error, ErrorKind, Result, UrlSource};

/// How a URL is written.
const FORM: &str = "rabbitmq://USER:PASSWORD@HOST:PORT[,HOST:PORT...]/VHOST?prefix=NAME, or rabbitmqs:// for TLS";

/// The limit of a prefix. The name of a queue consists of the prefix, the name of a pool and a class, and may have 255
/// bytes.
const MAX_PREFIX: usize = 64;

/// How often client and server send a heartbeat, in seconds. A connection without any for two to three of these
/// intervals is closed.
const HEARTBEAT_SECONDS: u16 = 5;

/// Names a RabbitMQ server, or several nodes of one cluster: `rabbitmq://USER:PASSWORD@HOST:PORT[,HOST:PORT...]/VHOST`,
/// or `rabbitmqs://` for TLS.
///
/// The defaults are `guest:guest`, port 5672 (with TLS 5671) and the virtual host `/`. All parts are percent-encoded.
///
/// Options:
/// - `prefix=NAME` is the beginning of the queues' names, by default `millrace`.
/// - `ca=FILE`, with TLS, has certificates in PEM to trust in addition to the public ones.
/// - `cert=FILE&key=FILE`, with TLS, are the client's certificate with its intermediate ones and its key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct RabbitMqUrl {
    /// The URI with the first host.
    uri: AMQPUri,
    /// The hosts and ports of the other nodes.
    others: Vec<(String, u16)>,
    prefix: String,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    source: Option<UrlSource>,
}

impl RabbitMqUrl {
    /// The same URL, which is read again for each new connection.
    pub fn renewed_by(self, source: UrlSource) -> Self {
        Self { source: Some(source), ..self }
    }

    /// The URL for a new connection. The prefix stays as it is.
    pub(super) fn renewed(&self) -> Result<Self> {
        let Some(source) = &self.source else { return Ok(self.clone()) };
        let renewed: Self = source.read()?;
        Ok(Self { prefix: self.prefix.clone(), ..renewed })
    }

    /// The URIs for the driver, one per node.
    pub(super) fn uris(&self) -> Vec<AMQPUri> {
        let mut uris = vec![self.uri.clone()];
        for (host, port) in &self.others {
            let mut uri = self.uri.clone();
            (uri.authority.host, uri.authority.port) = (host.clone(), *port);
            uris.push(uri);
        }
        uris
    }

    /// The beginning of the queues' names.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The file of certificates to trust in addition to the public ones.
    pub(super) fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// The files of the client's certificate and its key.
    pub(super) fn identity(&self) -> Option<(&Path, &Path)> {
        self.certificate.as_deref().zip(self.key.as_deref())
    }

    /// The same server through a proxy on this port, with queues of its own.
    #[cfg(test)]
    pub(crate) fn through(&self, port: u16, prefix: &str) -> Self {
        let mut url = Self { prefix: prefix.to_owned(), others: Vec::new(), ..self.clone() };
        url.uri.authority.host = "127.0.0.1".to_owned();
        url.uri.authority.port = port;
        url
    }

    /// Its host and port.
    #[cfg(test)]
    pub(crate) fn address(&self) -> (&str, u16) {
        (&self.uri.authority.host, self.uri.authority.port)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (before, hosts, after) = split_hosts(text);
        let mut nodes = hosts.split(',').map(|host| Self::parse_one(&format!("{before}{host}{after}")));
        let mut first = nodes.next().unwrap_or_else(|| Err("names no host".to_owned()))?;
        for node in nodes {
            let authority = node?.uri.authority;
            first.others.push((authority.host, authority.port));
        }
        Ok(first)
    }

    /// Parses a URL with one host.
    fn parse_one(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
        let scheme = match url.scheme() {
            "rabbitmq" => AMQPScheme::AMQP,
            "rabbitmqs" => AMQPScheme::AMQPS,
            _ => return Err("has another scheme".to_owned()),
        };
        if url.cannot_be_a_base() {
            return Err("is incomplete".to_owned());
        }
        if url.fragment().is_some() {
            return Err("has a #, which is written as %23".to_owned());
        }
        let host = match url.host() {
            Some(Host::Domain(name)) if !name.is_empty() => decoded(name)?,
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            _ => return Err("names no host".to_owned()),
        };
        let AMQPUserInfo { username, password } = AMQPUserInfo::default();
        let userinfo = AMQPUserInfo {
            username: if url.username().is_empty() { username } else { decoded(url.username())? },
            password: url.password().map_or(Ok(password), decoded)?,
        };
        let port = url.port().unwrap_or_else(|| scheme.default_port());
        let vhost = match url.path() {
            "" | "/" => "/".to_owned(),
            path => decoded(path.strip_prefix('/').unwrap_or(path))?,
        };
        let query = AMQPQueryString { heartbeat: Some(HEARTBEAT_SECONDS), ..AMQPQueryString::default() };
        let uri = AMQPUri { scheme, authority: AMQPAuthority { userinfo, host, port }, vhost, query };
        let mut parsed = Self {
            uri,
            others: Vec::new(),
            prefix: "millrace".to_owned(),
            ca: None,
            certificate: None,
            key: None,
            source: None,
        };
        for option in url.query().unwrap_or_default().split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("prefix", prefix)) => parsed.prefix = checked_prefix(decoded(prefix)?)?,
                Some((option @ ("ca" | "cert" | "key"), _)) if parsed.uri.scheme == AMQPScheme::AMQP => {
                    return Err(format!("has the option {option}, which needs TLS: write rabbitmqs://"));
                }
                Some(("ca", file)) if !file.is_empty() => parsed.ca = Some(decoded(file)?.into()),
                Some(("cert", file)) if !file.is_empty() => parsed.certificate = Some(decoded(file)?.into()),
                Some(("key", file)) if !file.is_empty() => parsed.key = Some(decoded(file)?.into()),
                _ => {
                    return Err("has an unknown option: the known ones are prefix=NAME, ca=FILE, cert=FILE, key=FILE"
                        .to_owned());
                }
            }
        }
        if parsed.certificate.is_some() != parsed.key.is_some() {
            return Err("has only one of cert and key: write cert=FILE&key=FILE".to_owned());
        }
        Ok(parsed)
    }
}

/// The text before the hosts, the hosts, and the text after them. The hosts follow the last `@` before the path.
fn split_hosts(text: &str) -> (&str, &str, &str) {
    let Some(scheme) = text.find("://") else { return (text, "", "") };
    let authority = scheme + "://".len();
    let end = text[authority..].find(['/', '?', '#']).map_or(text.len(), |length| authority + length);
    let start = text[authority..end].rfind('@').map_or(authority, |at| authority + at + 1);
    (&text[..start], &text[start..end], &text[end..])
}

fn decoded(part: &str) -> Result<String, String> {
    let text = percent_decode_str(part).decode_utf8();
    text.map(Into::into).map_err(|_| "has a %XX that is not part of a text in UTF-8".to_owned())
}

fn checked_prefix(prefix: String) -> Result<String, String> {
    let is_sound = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    // Names that begin with `amq.` are reserved for the server.
    if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.bytes().all(is_sound) || prefix.starts_with("amq") {
        return Err(format!(
            "has the prefix {prefix:?}, which is not 1 to {MAX_PREFIX} characters out of A–Z a–z 0–9 . _ - or begins \
             with amq"
        ));
    }
    Ok(prefix)
}

/// `text` without a possible password. All text between the scheme and the last `@` is masked, or to the end if there
/// is no `@`.
fn masked(text: &str) -> String {
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("{scheme}://***@{rest}"),
        None => format!("{scheme}://***"),
    }
}

impl FromStr for RabbitMqUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = |why| Error::new(ErrorKind::Refused, format_args!("{:?} {why} (write {FORM})", masked(text)));
        Self::parse(text).map_err(refused)
    }
}

impl fmt::Display for RabbitMqUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.uri.scheme == AMQPScheme::AMQPS { "rabbitmqs" } else { "rabbitmq" };
        let authority = &self.uri.authority;
        write!(f, "{scheme}://{}:***@", authority.userinfo.username)?;
        let first = std::iter::once((&authority.host, authority.port));
        for (index, (host, port)) in first.chain(self.others.iter().map(|(host, port)| (host, *port))).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
            write!(f, "{comma}{open}{host}{close}:{port}")?;
        }
        let vhost = self.uri.vhost.replace('/', "%2f");
        write!(f, "/{vhost}?prefix={}", self.prefix)?;
        for (option, file) in [("ca", &self.ca), ("cert", &self.certificate), ("key", &self.key)] {
            file.as_ref().map_or(Ok(()), |file| write!(f, "&{option}={}", file.display()))?;
        }
        Ok(())
    }
}

impl fmt::Debug for RabbitMqUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_shows_everything_but_the_password() {
        for (text, shown) in [
            ("rabbitmq://me:s3cret@host", "rabbitmq://me:***@host:5672/%2f?prefix=millrace"),
            ("rabbitmq://me:s3cret@host/", "rabbitmq://me:***@host:5672/%2f?prefix=millrace"),
            ("rabbitmq://10.0.0.7:5673/jobs", "rabbitmq://guest:***@10.0.0.7:5673/jobs?prefix=millrace"),
            ("rabbitmq://[::1]/jobs?prefix=a.b", "rabbitmq://guest:***@[::1]:5672/jobs?prefix=a.b"),
            ("rabbitmqs://me:s3cret@host?ca=/ca.pem", "rabbitmqs://me:***@host:5671/%2f?prefix=millrace&ca=/ca.pem"),
            ("rabbitmqs://host?cert=/a&key=/b", "rabbitmqs://guest:***@host:5671/%2f?prefix=millrace&cert=/a&key=/b"),
            ("rabbitmq://me:s3cret@a,b:1,[::1]/jobs", "rabbitmq://me:***@a:5672,b:1,[::1]:5672/jobs?prefix=millrace"),
            ("rabbitmq://me:s3,cret@a,b", "rabbitmq://me:***@a:5672,b:5672/%2f?prefix=millrace"),
        ] {
            let url: RabbitMqUrl = text.parse().unwrap();
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), shown.to_owned()));
        }
        let url: RabbitMqUrl = "rabbitmq://me:s%40cret%2F@host/a%2Fb".parse().unwrap();
        assert_eq!((url.uri.authority.userinfo.password.as_str(), url.uri.vhost.as_str()), ("s@cret/", "a/b"));
    }

    #[test]
    fn a_wrong_url_is_refused_with_the_way_out_and_without_the_password() {
        for (text, reason) in [
            ("rabbitmq:me:s3cret@host", "incomplete"),
            ("rabbitmq://me:s3cret@", "host"),
            ("rabbitmq://me:s3cret@:5672", "host"),
            ("rabbitmq://me:s3cret@host:port", "port"),
            ("rabbitmq://me:s3cret@host,", "host"),
            ("rabbitmq://me:s3cret@host,other:port", "port"),
            ("rabbitmq://me:s3/cret@host", "write rabbitmq://"),
            ("rabbitmq://me:s3?cret@host", "write rabbitmq://"),
            ("rabbitmq://me:s3cret@host?colour=red", "the known ones are prefix=NAME, ca=FILE"),
            ("rabbitmq://me:s3cret@host?ca=/ca.pem", "rabbitmqs://"),
            ("rabbitmq://me:s3cret@host?cert=/a&key=/b", "the option cert, which needs TLS"),
            ("rabbitmqs://me:s3cret@host?cert=/a", "only one of cert and key"),
            ("rabbitmqs://me:s3cret@host?ca=", "the known ones are prefix=NAME, ca=FILE"),
            ("rabbitmq://me:s3cret@host?prefix=", "1 to 64"),
            ("rabbitmq://me:s3cret@host?prefix=a/b", "1 to 64"),
            ("rabbitmq://me:s3cret@host?prefix=amq.a", "amq"),
        ] {
            let error = text.parse::<RabbitMqUrl>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused);
            assert!(error.to_string().contains(reason), "{error}");
            assert!(!error.to_string().contains("s3"), "{error}");
            assert!(!error.to_string().contains("cret"), "{error}");
        }
    }
}
