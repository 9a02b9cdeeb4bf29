//! The server that holds the keys: found, connected to and looked over.

use std::net::Ipv6Addr;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo,
    TlsCertificates, cmd,
};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::failure::error;
use super::url::{RedisUrl, Servers};
use queue::{Error, ErrorKind, Result};

/// How long one attempt to reach one server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How a URL's servers are reached.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) url: RedisUrl,
    authorities: Option<Vec<u8>>,
}

impl Route {
    pub(super) fn new(url: &RedisUrl) -> Result<Self> {
        let authorities = url.authorities.as_ref().map(|file| {
            std::fs::read(file).map_err(|error| {
                Error::caused(ErrorKind::Refused, format_args!("redis: ca: {} cannot be read", file.display()), error)
            })
        });
        if url.tls {
            // More than one may be compiled in, and then rustls chooses none. An error says that one is chosen already.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        Ok(Self { url: url.clone(), authorities: authorities.transpose()? })
    }

    /// A client of the server that holds the keys at present.
    pub(super) async fn find(&self) -> Result<Client> {
        // All at once: each that does not answer would take the time of the others.
        let mut asking: FuturesUnordered<_> = self.url.hosts.iter().map(|host| self.ask(host)).collect();
        let mut failure: Option<Error> = None;
        while let Some(asked) = asking.next().await {
            match asked {
                Ok((host, port)) => return self.client(&host, port, true),
                // One that refuses us says more than one that is away.
                Err(error) if failure.as_ref().is_none_or(|known| known.kind() == ErrorKind::Unavailable) => {
                    failure = Some(error);
                }
                Err(_) => {}
            }
        }
        Err(failure.unwrap_or_else(|| Error::new(ErrorKind::Unavailable, "redis: no host to ask")))
    }

    /// Where the keys are, by what one of the URL's hosts says.
    async fn ask(&self, host: &(String, u16)) -> Result<(String, u16)> {
        match &self.url.servers {
            Servers::One => Ok(host.clone()),
            Servers::Cluster => self.ask_node(host).await,
            Servers::Sentinels { service, with_password } => self.ask_sentinel(host, service, *with_password).await,
        }
    }

    /// A connection that lasts, and commands on it at most `response_timeout`.
    pub(super) async fn connect(&self, client: &Client, response_timeout: Duration) -> Result<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(response_timeout))
            .set_pipeline_buffer_size(1_024);
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        connecting.await.map_err(|source| error(format_args!("connect to {}", name(client)), source))
    }

    /// Refuses a server that could not keep the promises.
    pub(super) async fn look_over(&self, client: &Client, connection: &mut MultiplexedConnection) -> Result<()> {
        let info: String = cmd("INFO").query_async(connection).await.map_err(|source| error("INFO", source))?;
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
            return wrong(ErrorKind::Refused, format!("redis_version: {version:?} is not at least 7"));
        }
        match of("maxmemory_policy") {
            Some("noeviction") | None => Ok(()),
            Some(policy) => wrong(
                ErrorKind::Refused,
                format!(
                    "maxmemory-policy: {policy} would drop jobs: set noeviction in redis.conf, or CONFIG SET \
                     maxmemory-policy noeviction"
                ),
            ),
        }
    }

    async fn ask_sentinel(&self, sentinel: &(String, u16), service: &str, auth: bool) -> Result<(String, u16)> {
        let client = self.client(&sentinel.0, sentinel.1, auth)?;
        let mut connection = self.connect(&client, CONNECT_TIMEOUT).await?;
        let mut question = cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        let answer = question.query_async::<Option<(String, u16)>>(&mut connection).await;
        let doing = format_args!("ask the Sentinel {} for {service}", name(&client)).to_string();
        answer.map_err(|source| error(&doing, source))?.ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, format_args!("redis: {doing}: it knows no service of that name"))
        })
    }

    /// All keys have one hash tag, so one node holds them all.
    async fn ask_node(&self, node: &(String, u16)) -> Result<(String, u16)> {
        type Address = (Option<String>, u16);
        let client = self.client(&node.0, node.1, true)?;
        let mut connection = self.connect(&client, CONNECT_TIMEOUT).await?;
        let doing = format_args!("ask the node {} for a slot", name(&client)).to_string();
        let failed = |source| error(&doing, source);
        let mut question = cmd("CLUSTER");
        question.arg("KEYSLOT").arg(&self.url.prefix);
        let slot: u16 = question.query_async(&mut connection).await.map_err(failed)?;
        let mut question = cmd("CLUSTER");
        question.arg("SLOTS");
        let ranges: Vec<Vec<::redis::Value>> = question.query_async(&mut connection).await.map_err(failed)?;
        for range in ranges {
            let [first, last, master, ..] = range.as_slice() else { continue };
            let number = |value: &::redis::Value| ::redis::from_redis_value::<u16>(value.clone());
            let of_range =
                number(first).and_then(|first| Ok(first..=number(last)?)).map_err(|source| failed(source.into()))?;
            if of_range.contains(&slot) {
                let ::redis::Value::Array(master) = master else { continue };
                let address = ::redis::from_redis_value::<Address>(::redis::Value::Array(master[..2].to_vec()));
                let (host, port) = address.map_err(|source| failed(source.into()))?;
                // A node that does not know its own name leaves it out: it is the one that was asked.
                return Ok((host.filter(|host| !host.is_empty()).unwrap_or_else(|| node.0.clone()), port));
            }
        }
        Err(Error::new(ErrorKind::Unavailable, format_args!("redis: {doing}: no node serves slot {slot}")))
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
        let client = info.and_then(|info| match &self.authorities {
            Some(pem) => {
                let trusted = TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) };
                Client::build_with_tls(info, trusted)
            }
            None => Client::open(info),
        });
        client.map_err(|source| error(format_args!("set up a client of {}", self.url), source))
    }
}

/// The server of a client, for messages.
pub(super) fn name(client: &Client) -> String {
    client.get_connection_info().addr().to_string()
}
