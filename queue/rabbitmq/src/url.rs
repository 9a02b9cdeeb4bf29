//! Names a RabbitMQ.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use lapin::uri::{AMQPScheme, AMQPUri};

use queue::{Error, ErrorKind, Result};

/// How a URL is written.
const FORM: &str = "rabbitmq://USER:PASSWORD@HOST:PORT/VHOST?prefix=NAME, or rabbitmqs:// for TLS";

/// The longest a prefix may be: with a pool's name and a class it must make a queue's name of at most 255 bytes.
const MAX_PREFIX: usize = 64;

/// How often each side says that it lives, in seconds. Whoever says nothing for two to three of them is taken for dead.
const HEARTBEAT_SECONDS: u16 = 5;

/// Names a RabbitMQ: `rabbitmq://USER:PASSWORD@HOST:PORT/VHOST`, or `rabbitmqs://` for TLS.
///
/// What is left out is `guest:guest`, port 5672 (with TLS 5671), the virtual host `/`. User, password and virtual host
/// are percent-encoded. Options: `prefix=NAME`, what the queues' names begin with, `millrace` by default; with TLS,
/// `ca=FILE`, certificates in PEM to trust beside the public ones.
#[derive(Clone, PartialEq, Eq)]
pub struct RabbitMqUrl {
    uri: AMQPUri,
    prefix: String,
    ca: Option<PathBuf>,
}

impl RabbitMqUrl {
    /// As the driver wants it.
    pub(super) fn uri(&self) -> &AMQPUri {
        &self.uri
    }

    /// What the queues' names begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Certificates to trust beside the public ones.
    pub(super) fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// The same server by another way, with queues of its own.
    #[cfg(test)]
    pub(crate) fn through(&self, port: u16, prefix: &str) -> Self {
        let mut url = Self { prefix: prefix.to_owned(), ..self.clone() };
        url.uri.authority.host = "127.0.0.1".to_owned();
        url.uri.authority.port = port;
        url
    }

    /// Where it is.
    #[cfg(test)]
    pub(crate) fn address(&self) -> (&str, u16) {
        (&self.uri.authority.host, self.uri.authority.port)
    }

    fn read(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("is incomplete")?;
        let amqp = match scheme {
            "rabbitmq" => "amqp",
            "rabbitmqs" => "amqps",
            _ => return Err("has another scheme".to_owned()),
        };
        let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
        let mut uri: AMQPUri = format!("{amqp}://{place}").parse()?;
        // The driver's parser knows names and IPv4 addresses only, and takes anything else for localhost.
        let authority = place.split('/').next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        if let Some((address, _)) = host.strip_prefix('[').and_then(|host| host.split_once(']')) {
            address.clone_into(&mut uri.authority.host);
        } else if host.is_empty() || host.starts_with(':') {
            return Err("names no host".to_owned());
        }
        if uri.vhost.is_empty() {
            "/".clone_into(&mut uri.vhost);
        }
        uri.query.heartbeat = Some(HEARTBEAT_SECONDS);
        let mut url = Self { uri, prefix: "millrace".to_owned(), ca: None };
        for option in options.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("prefix", prefix)) => url.prefix = checked_prefix(prefix)?,
                Some(("ca", _)) if url.uri.scheme == AMQPScheme::AMQP => {
                    return Err("has the option ca, which needs TLS: write rabbitmqs://".to_owned());
                }
                Some(("ca", file)) if !file.is_empty() => url.ca = Some(file.into()),
                _ => return Err("has an unknown option: the known ones are prefix=NAME and ca=FILE".to_owned()),
            }
        }
        Ok(url)
    }
}

fn checked_prefix(prefix: &str) -> Result<String, String> {
    let is_sound = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    // The server keeps names that begin with `amq.` for itself.
    if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.bytes().all(is_sound) || prefix.starts_with("amq") {
        return Err(format!(
            "has the prefix {prefix:?}, which is not 1 to {MAX_PREFIX} characters out of A–Z a–z 0–9 . _ - or begins \
             with amq"
        ));
    }
    Ok(prefix.to_owned())
}

/// `text` without what may be a password: all between the scheme and the last `@`, or the end where there is none.
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
        Self::read(text).map_err(refused)
    }
}

impl fmt::Display for RabbitMqUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.uri.scheme == AMQPScheme::AMQPS { "rabbitmqs" } else { "rabbitmq" };
        let authority = &self.uri.authority;
        let host = &authority.host;
        let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{}:***@{open}{host}{close}:{}", authority.userinfo.username, authority.port)?;
        let vhost = self.uri.vhost.replace('/', "%2f");
        write!(f, "/{vhost}?prefix={}", self.prefix)?;
        self.ca.as_ref().map_or(Ok(()), |ca| write!(f, "&ca={}", ca.display()))
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
            ("rabbitmq://me:s3/cret@host", "write rabbitmq://"),
            ("rabbitmq://me:s3?cret@host", "write rabbitmq://"),
            ("rabbitmq://me:s3cret@host?colour=red", "the known ones are prefix=NAME and ca=FILE"),
            ("rabbitmq://me:s3cret@host?ca=/ca.pem", "rabbitmqs://"),
            ("rabbitmqs://me:s3cret@host?ca=", "the known ones are prefix=NAME and ca=FILE"),
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
