//! Finds the server that holds the keys, connects to it and checks it.

use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use ::redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    RedisConnectionInfo, TlsCertificates, cmd,
};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::error::driver_error;
use super::url::{RedisUrl, Servers};
use queue::{Error, ErrorKind, Result};

/// The longest time for one connection to one server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How to reach the servers of a URL.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) url: RedisUrl,
    certificates: Option<TlsCertificates>,
}

impl Route {
    pub(super) fn new(url: &RedisUrl) -> Result<Self> {
        let read = |option: &str, file: &Path| {
            std::fs::read(file).map_err(|error| {
                Error::caused(ErrorKind::Denied, format_args!("redis: {option}: cannot read {}", file.display()), error)
            })
        };
        let root_cert = url.authorities.as_deref().map(|file| read("ca", file)).transpose()?;
        let client_tls = match (&url.certificate, &url.key) {
            (Some(certificate), Some(key)) => {
                Some(ClientTlsConfig { client_cert: read("cert", certificate)?, client_key: read("key", key)? })
            }
            _ => None,
        };
        let has_own = root_cert.is_some() || client_tls.is_some();
        if url.tls {
            // If the program contains several providers, rustls chooses none. An error means that one is chosen
            // already.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let certificates = has_own.then_some(TlsCertificates { client_tls, root_cert });
        Ok(Self { url: url.clone(), certificates })
    }

    /// The same route with the URL and the files as they are now.
    pub(super) fn renewed(&self) -> Result<Self> {
        Self::new(&self.url.renewed()?)
    }

    /// A client of the server that holds the keys now.
    pub(super) async fn find(&self) -> Result<Client> {
        // All hosts are asked at once. Otherwise a host that does not answer would delay the next ones.
        let mut locating: FuturesUnordered<_> = self.url.hosts.iter().map(|host| self.locate(host)).collect();
        let mut best_error: Option<Error> = None;
        while let Some(located) = locating.next().await {
            match located {
                Ok((host, port)) => return self.client(&host, port, true),
                // The error of a host that refuses us is more useful than that of a host that is down.
                Err(error) if best_error.as_ref().is_none_or(|best| best.kind() == ErrorKind::Unavailable) => {
                    best_error = Some(error);
                }
                Err(_) => {}
            }
        }
        Err(best_error.unwrap_or_else(|| Error::new(ErrorKind::Unavailable, "redis: the URL names no host")))
    }

    /// The address of the server that holds the keys, according to one host of the URL.
    async fn locate(&self, host: &(String, u16)) -> Result<(String, u16)> {
        match &self.url.servers {
            Servers::One => Ok(host.clone()),
            Servers::Cluster => self.locate_by_node(host).await,
            Servers::Sentinels { service, with_password } => {
                self.locate_by_sentinel(host, service, *with_password).await
            }
        }
    }

    /// A connection on which each command may take `response_timeout`.
    pub(super) async fn connect(&self, client: &Client, response_timeout: Duration) -> Result<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(response_timeout))
            .set_pipeline_buffer_size(1_024);
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        connecting.await.map_err(|source| driver_error(format_args!("connect to {}", name(client)), source))
    }

    /// Rejects a server that would break the promises of a broker or a ledger.
    pub(super) async fn check(&self, client: &Client, connection: &mut MultiplexedConnection) -> Result<()> {
        let info: String = cmd("INFO").query_async(connection).await.map_err(|source| driver_error("INFO", source))?;
        let of = |key: &str| info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let server = name(client);
        let wrong = |kind, why: String| Err(Error::new(kind, format_args!("redis: {server} {why}")));
        if of("loading") == Some("1") {
            return wrong(ErrorKind::Unavailable, "is loading its data".to_owned());
        }
        if of("role").is_some_and(|role| role != "master") {
            return wrong(ErrorKind::Unavailable, "is a replica".to_owned());
        }
        let version = of("redis_version").unwrap_or_default();
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_none_or(|major| major < 7) {
            return wrong(ErrorKind::Denied, format!("redis_version: {version:?} is not at least 7"));
        }
        match of("maxmemory_policy") {
            // A volatile policy evicts only keys with a time to live, and no key of ours has one.
            Some(policy) if policy == "noeviction" || policy.starts_with("volatile-") => Ok(()),
            None => Ok(()),
            Some(policy) => wrong(
                ErrorKind::Denied,
                format!(
                    "maxmemory-policy: {policy} would drop jobs: set noeviction in redis.conf, or CONFIG SET \
                     maxmemory-policy noeviction"
                ),
            ),
        }
    }

    async fn locate_by_sentinel(&self, sentinel: &(String, u16), service: &str, auth: bool) -> Result<(String, u16)> {
        let client = self.client(&sentinel.0, sentinel.1, auth)?;
        let mut connection = self.connect(&client, CONNECT_TIMEOUT).await?;
        let mut get_address = cmd("SENTINEL");
        get_address.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        let answer = get_address.query_async::<Option<(String, u16)>>(&mut connection).await;
        let action = format_args!("query Sentinel {} for {service}", name(&client)).to_string();
        answer.map_err(|source| driver_error(&action, source))?.ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, format_args!("redis: {action}: no service has this name"))
        })
    }

    /// All keys have the same hash tag, so one node holds them all.
    async fn locate_by_node(&self, node: &(String, u16)) -> Result<(String, u16)> {
        type Address = (Option<String>, u16);
        let client = self.client(&node.0, node.1, true)?;
        let mut connection = self.connect(&client, CONNECT_TIMEOUT).await?;
        let action = format_args!("query node {} for the slot of the keys", name(&client)).to_string();
        let failed = |source| driver_error(&action, source);
        let mut get_slot = cmd("CLUSTER");
        get_slot.arg("KEYSLOT").arg(&self.url.prefix);
        let slot: u16 = get_slot.query_async(&mut connection).await.map_err(failed)?;
        let mut get_ranges = cmd("CLUSTER");
        get_ranges.arg("SLOTS");
        let ranges: Vec<Vec<::redis::Value>> = get_ranges.query_async(&mut connection).await.map_err(failed)?;
        for range in ranges {
            let [first, last, master, ..] = range.as_slice() else { continue };
            let number = |value: &::redis::Value| ::redis::from_redis_value::<u16>(value.clone());
            let of_range =
                number(first).and_then(|first| Ok(first..=number(last)?)).map_err(|source| failed(source.into()))?;
            if of_range.contains(&slot) {
                let ::redis::Value::Array(master) = master else { continue };
                let address = ::redis::from_redis_value::<Address>(::redis::Value::Array(master[..2].to_vec()));
                let (host, port) = address.map_err(|source| failed(source.into()))?;
                // A node that does not know its own name leaves it out. That node is the one that answered.
                return Ok((host.filter(|host| !host.is_empty()).unwrap_or_else(|| node.0.clone()), port));
            }
        }
        Err(Error::new(ErrorKind::Unavailable, format_args!("redis: {action}: no node serves slot {slot}")))
    }

    fn client(&self, host: &str, port: u16, with_password: bool) -> Result<Client> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let host = if bare.parse::<Ipv6Addr>().is_ok() { bare } else { host }.to_owned();
        let address = match self.url.tls {
            true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            false => ConnectionAddr::Tcp(host, port),
        };
        let mut settings = RedisConnectionInfo::default();
        if with_password {
            settings = settings.set_db(self.url.database);
            if let Some(user) = &self.url.user {
                settings = settings.set_username(user);
            }
            if let Some(password) = &self.url.password {
                settings = settings.set_password(password);
            }
        }
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(10))
            .with_interval(Duration::from_secs(5))
            .with_retries(3);
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
        let info = address
            .into_connection_info()
            .map(|info: ConnectionInfo| info.set_redis_settings(settings).set_tcp_settings(tcp));
        let client = info.and_then(|info| match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        });
        client.map_err(|source| driver_error(format_args!("create a client for {}", self.url), source))
    }
}

/// The address of a client's server, for messages.
pub(super) fn name(client: &Client) -> String {
    client.get_connection_info().addr().to_string()
}
