//! The URL of a Redis.
//!
//! It is split by hand: general parsers reject lists of hosts, and a password that holds a slash.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use queue::{Error, ErrorKind, Result, UrlSource};

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
const DEFAULT_PREFIX: &str = "millrace";

/// The URL of one server, of a Cluster, or of a service that Sentinels watch. Its text never shows the password.
///
/// ```text
/// redis://[USER:PASSWORD@]HOST[:PORT][/DB][?OPTIONS]
/// redis://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]?cluster=true
/// redis-sentinel://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]/SERVICE[?OPTIONS]
/// ```
///
/// `rediss://` is TLS. Options, joined by `&`:
///
/// | option | meaning |
/// |---|---|
/// | `prefix=NAME` | begins every key, so that installations can share a server; `millrace` by default |
/// | `cluster=true` | the hosts are nodes of a Cluster |
/// | `ca=FILE` | with TLS: the authorities to trust instead of the public ones, as PEM |
/// | `cert=FILE`, `key=FILE` | with TLS: the client's certificate with its intermediate ones, and its key, as PEM |
/// | `tls=true` | with `redis-sentinel://`: servers and Sentinels use TLS |
/// | `db=NUMBER` | with `redis-sentinel://`: the database |
/// | `sentinel_auth=true` | with `redis-sentinel://`: the Sentinels require user and password too |
///
/// All keys are in one slot of a Cluster, because scripts use several keys at once. So a Cluster adds availability here,
/// not capacity.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    pub(super) hosts: Vec<(String, u16)>,
    pub(super) servers: Servers,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: i64,
    pub(super) tls: bool,
    pub(super) authorities: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) prefix: String,
    source: Option<UrlSource>,
}

/// The kind of the hosts of a URL.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Servers {
    /// The server itself.
    One,
    /// Nodes of a Cluster.
    Cluster,
    /// Sentinels that know the server of a service.
    Sentinels { service: String, with_password: bool },
}

impl RedisUrl {
    /// The same URL, which is read again for each new connection.
    pub fn renewed_by(self, source: UrlSource) -> Self {
        Self { source: Some(source), ..self }
    }

    /// The URL for a new connection. The prefix stays as it is.
    pub(super) fn renewed(&self) -> Result<Self> {
        let Some(source) = &self.source else { return Ok(self.clone()) };
        let renewed: Self = source.read()?;
        Ok(Self { prefix: self.prefix.clone(), source: self.source.clone(), ..renewed })
    }

    fn of_authority(scheme: &str, authority: &str) -> Result<Self> {
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        let (mut user, mut password) = (None, None);
        if let Some(credentials) = credentials {
            let (name, secret) = credentials.split_once(':').unwrap_or((credentials, ""));
            let decoded = |text, part| {
                decoded(text)
                    .ok_or_else(|| refused(format_args!("the {part} has a % that two hex digits do not follow")))
            };
            user = Some(decoded(name, "user")?).filter(|name| !name.is_empty());
            password = Some(decoded(secret, "password")?).filter(|secret| !secret.is_empty());
            if user.is_some() && password.is_none() {
                return Err(refused("names a user and no password: write USER:PASSWORD@HOST, or :PASSWORD@HOST"));
            }
        }
        let sentinels = scheme == "redis-sentinel";
        let default_port = if sentinels { SENTINEL_PORT } else { PORT };
        Ok(Self {
            hosts: hosts.split(',').map(|host| host_and_port(host, default_port)).collect::<Result<_>>()?,
            servers: match sentinels {
                true => Servers::Sentinels { service: String::new(), with_password: false },
                false => Servers::One,
            },
            user,
            password,
            database: 0,
            tls: scheme == "rediss",
            authorities: None,
            certificate: None,
            key: None,
            prefix: DEFAULT_PREFIX.to_owned(),
            source: None,
        })
    }

    fn set_path(&mut self, path: &str) -> Result<()> {
        match &mut self.servers {
            Servers::Sentinels { service, .. } if path.is_empty() => {
                return Err(refused(format_args!("names no service after its Sentinels: write HOST/SERVICE{service}")));
            }
            Servers::Sentinels { service, .. } => path.clone_into(service),
            _ if path.is_empty() => {}
            _ => self.database = database(path)?,
        }
        Ok(())
    }

    fn set_option(&mut self, key: &str, value: &str) -> Result<()> {
        let boolean = || match value {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(refused(format_args!("{key}: {value:?} is neither true nor false"))),
        };
        match (key, &mut self.servers) {
            ("prefix", _) => {
                let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
                if !(1..=64).contains(&value.len()) || !value.bytes().all(is_allowed) {
                    return Err(refused(format_args!("prefix: {value:?} is not 1 to 64 of a-z, A-Z, 0-9 and -_.:")));
                }
                value.clone_into(&mut self.prefix);
            }
            ("ca", _) if !value.is_empty() => self.authorities = Some(value.into()),
            ("cert", _) if !value.is_empty() => self.certificate = Some(value.into()),
            ("key", _) if !value.is_empty() => self.key = Some(value.into()),
            ("cluster", servers @ (Servers::One | Servers::Cluster)) => {
                *servers = if boolean()? { Servers::Cluster } else { Servers::One };
            }
            ("tls", Servers::Sentinels { .. }) => self.tls = boolean()?,
            ("db", Servers::Sentinels { .. }) => self.database = database(value)?,
            ("sentinel_auth", Servers::Sentinels { with_password, .. }) => *with_password = boolean()?,
            (_, Servers::Sentinels { .. }) => {
                return Err(refused(format_args!(
                    "has an unknown option {key:?}: the known ones are prefix=NAME, tls=true, ca=FILE, cert=FILE, \
                     key=FILE, db=NUMBER, sentinel_auth=true"
                )));
            }
            _ => {
                return Err(refused(format_args!(
                    "has an unknown option {key:?}: the known ones are prefix=NAME, cluster=true, ca=FILE, \
                     cert=FILE, key=FILE"
                )));
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if self.servers == Servers::One && self.hosts.len() > 1 {
            return Err(refused("names several hosts: add ?cluster=true, or write redis-sentinel://HOST,HOST/SERVICE"));
        }
        if self.servers == Servers::Cluster && self.database != 0 {
            return Err(refused("names a database, and a Cluster has none: leave it out"));
        }
        let files = [("ca", &self.authorities), ("cert", &self.certificate), ("key", &self.key)];
        if let Some((option, _)) = files.iter().find(|(_, file)| file.is_some() && !self.tls) {
            let way_out = "write rediss://, or add tls=true after Sentinels";
            return Err(refused(format_args!("has a {option} without TLS: {way_out}")));
        }
        if self.certificate.is_some() != self.key.is_some() {
            return Err(refused("has only one of cert and key: write cert=FILE&key=FILE"));
        }
        Ok(())
    }
}

impl FromStr for RedisUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        if !["redis", "rediss", "redis-sentinel"].contains(&scheme) {
            return Err(refused("does not begin with redis://, rediss:// or redis-sentinel://"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if query.contains('@') {
            // It may be part of a password, which the errors below would show.
            return Err(refused("has an @ after a ?: in a password write %3F for the ?; the path of a ca has no @"));
        }
        // A password may hold a slash.
        let path_at = rest.rfind('@').map_or(0, |at| at + 1);
        let (authority, path) = match rest[path_at..].find('/') {
            Some(at) => (&rest[..path_at + at], &rest[path_at + at + 1..]),
            None => (rest, ""),
        };
        let mut url = Self::of_authority(scheme, authority)?;
        url.set_path(path)?;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            url.set_option(key, value)?;
        }
        url.check()?;
        Ok(url)
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentinels = matches!(self.servers, Servers::Sentinels { .. });
        f.write_str(match (sentinels, self.tls) {
            (true, _) => "redis-sentinel://",
            (false, true) => "rediss://",
            (false, false) => "redis://",
        })?;
        if self.password.is_some() {
            write!(f, "{}:***@", self.user.as_deref().unwrap_or_default())?;
        }
        let default_port = if sentinels { SENTINEL_PORT } else { PORT };
        for (index, (host, port)) in self.hosts.iter().enumerate() {
            f.write_str(if index > 0 { "," } else { "" })?;
            f.write_str(host)?;
            if *port != default_port {
                write!(f, ":{port}")?;
            }
        }
        let mut options = Vec::new();
        if self.prefix != DEFAULT_PREFIX {
            options.push(format!("prefix={}", self.prefix));
        }
        match &self.servers {
            Servers::One if self.database != 0 => write!(f, "/{}", self.database)?,
            Servers::One => {}
            Servers::Cluster => options.push("cluster=true".to_owned()),
            Servers::Sentinels { service, with_password } => {
                write!(f, "/{service}")?;
                options.extend(self.tls.then(|| "tls=true".to_owned()));
                options.extend((self.database != 0).then(|| format!("db={}", self.database)));
                options.extend(with_password.then(|| "sentinel_auth=true".to_owned()));
            }
        }
        for (option, file) in [("ca", &self.authorities), ("cert", &self.certificate), ("key", &self.key)] {
            options.extend(file.as_ref().map(|file| format!("{option}={}", file.display())));
        }
        for (index, option) in options.iter().enumerate() {
            write!(f, "{}{option}", if index == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The fault of a URL. Its text is not shown, because it may hold a password.
fn refused(fault: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Refused, format_args!("the URL of a Redis {fault}"))
}

fn host_and_port(text: &str, default_port: u16) -> Result<(String, u16)> {
    // The colons of an IPv6 address are within brackets.
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    if host.is_empty() {
        return Err(refused("names no host: write redis://HOST"));
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(refused("has a host with a colon: write HOST:PORT, and an IPv6 address in brackets"));
    }
    let port = match port {
        // Not shown: in a URL without a host, this text is the password.
        Some(port) => port
            .parse::<std::num::NonZeroU16>()
            .map_err(|_| refused("has a port that is not 1 to 65535: write HOST:PORT"))?
            .get(),
        None => default_port,
    };
    Ok((host.to_owned(), port))
}

fn database(text: &str) -> Result<i64> {
    match text.parse() {
        Ok(number) if number >= 0 => Ok(number),
        _ => Err(refused(format_args!("has a database {text:?} that is not a number"))),
    }
}

/// Decodes a percent-encoded text. `None` where two hex digits do not follow a `%`, or the result is not UTF-8.
fn decoded(text: &str) -> Option<String> {
    let begins_with_digits = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    // The crate leaves a wrong escape as it is.
    let is_valid = text.split('%').skip(1).all(begins_with_digits);
    is_valid.then(|| percent_decode_str(text).decode_utf8().ok().map(String::from)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_written_as_it_was_read() {
        for text in [
            "redis://host",
            "redis://host:6390/3?prefix=a.b",
            "redis://[::1]:6390",
            "rediss://host?ca=/etc/ca.pem",
            "rediss://host?cert=/etc/tls.crt&key=/etc/tls.key",
            "redis://a,b:7000,c?cluster=true",
            "redis-sentinel://a,b:7000/service?prefix=x&tls=true&db=2&sentinel_auth=true&ca=ca.pem",
        ] {
            assert_eq!(text.parse::<RedisUrl>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn port_0_is_rejected() {
        for text in ["redis://host:0", "redis://a,b:0?cluster=true", "redis-sentinel://a:0/service"] {
            let error = text.parse::<RedisUrl>().unwrap_err().to_string();
            assert!(error.contains("has a port that is not 1 to 65535"), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_is_read_and_never_shown() {
        for (text, user, password, shown) in [
            ("redis://me:p%40ss%2F@host", Some("me"), "p@ss/", "redis://me:***@host"),
            ("redis://:a/b@c@host:1/2", None, "a/b@c", "redis://:***@host:1/2"),
        ] {
            let url: RedisUrl = text.parse().unwrap();
            assert_eq!((url.user.as_deref(), url.password.as_deref()), (user, Some(password)));
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), shown.to_owned()));
        }
    }

    #[test]
    fn a_wrong_url_is_rejected_with_the_way_out() {
        for (text, way_out) in [
            ("http://host", "redis-sentinel://"),
            ("redis://", "names no host"),
            ("redis://a,b", "?cluster=true"),
            ("redis://a:0x", "1 to 65535"),
            ("redis://a:0", "1 to 65535"),
            ("redis://a:1:6379", "HOST:PORT"),
            ("redis://::1", "in brackets"),
            ("redis://me:secret:6379", "HOST:PORT"),
            ("redis://a/x", "is not a number"),
            ("redis://a/1?cluster=true", "a Cluster has none"),
            ("redis://a?colour=red", "prefix=NAME, cluster=true, ca=FILE"),
            ("redis://a?tls=true", "prefix=NAME, cluster=true, ca=FILE"),
            ("redis://a?cluster=yes", "neither true nor false"),
            ("redis://a?prefix={a}", "is not 1 to 64 of"),
            ("redis://a?ca=file", "rediss://"),
            ("redis://a?cert=file&key=file", "has a cert without TLS"),
            ("rediss://a?key=file", "only one of cert and key"),
            ("redis://me@a", "USER:PASSWORD@HOST"),
            ("redis://:secret%zz@a", "two hex digits"),
            ("redis://me:se?secret@a", "%3F"),
            ("redis://me:a?colour=secret@a", "%3F"),
            ("redis://me:p@ss?secret@a", "%3F"),
            ("redis://me:secret", "HOST:PORT"),
            ("redis://me:secret/x", "HOST:PORT"),
            ("redis-sentinel://a", "HOST/SERVICE"),
            ("redis-sentinel://a/s?cluster=true", "sentinel_auth=true"),
        ] {
            let error = text.parse::<RedisUrl>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused);
            assert!(error.to_string().contains(way_out) && !error.to_string().contains("secret"), "{error}");
        }
    }
}
