//! The configuration file.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use backends::{BackendUrl, BackendUrls, BlobUrl};
use gateway::GatewaySettings;
use model::ModelSource;
use queue::{Blobs, DEAD_RETENTION, Error, ErrorKind, PoolName, Route, RouteErrors, Routes, UrlSource};
use scaler::{PoolScale, ScalerSettings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use service::{ByteSize, Config, Faults, Period, SecretUrl, TelemetrySettings, TlsSettings};
use worker::WorkerSettings;
use worker::runtime::{Device, ModelSettings};

/// Everything that can be configured.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The broker, where jobs wait: `embedded:FOLDER` (shared by the processes of one machine), `kafka://HOST:PORT`,
    /// `rabbitmq://USER:PASSWORD@HOST` or `redis://HOST`. `${file:PATH}` is the contents of a file.
    #[serde(serialize_with = "without_password")]
    pub broker: SecretUrl,
    /// The ledger, which records jobs and workers: `embedded:FOLDER` or `redis://HOST`. Not needed if the broker is also
    /// a ledger; RabbitMQ and Kafka are not. `${file:PATH}` is the contents of a file.
    #[serde(serialize_with = "option_without_password")]
    pub ledger: Option<SecretUrl>,
    /// The blob store, for inputs and outputs that are too large to travel with a job.
    pub blobs: BlobSettings,
    /// The gateway, which serves HTTP.
    pub gateway: GatewaySettings,
    /// The scaler, which answers KEDA.
    pub scaler: ScalerSettings,
    /// The admin address of a process (`--admin`), with health and metrics.
    pub admin: AdminSettings,
    /// Logs and traces.
    pub telemetry: TelemetrySettings,
    /// The pools, by name.
    pub pools: BTreeMap<String, PoolSettings>,
}

/// Shows no password, as in the serialised form.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// The admin address of a process (`--admin`), with health and metrics.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSettings {
    /// The files for TLS. Without them the admin address serves plain HTTP.
    pub tls: Option<TlsSettings>,
}

/// The blob store, for inputs and outputs that are too large to travel with a job.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BlobSettings {
    /// The folder. The gateway and all workers must share it. `null`: there is no blob store, and inputs and outputs above
    /// `inline_limit` are refused.
    pub folder: Option<PathBuf>,
    /// The bucket or container that takes the place of the folder: `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or
    /// `az://CONTAINER/PREFIX`. Credentials and endpoint come from the environment, such as `AWS_ACCESS_KEY_ID`.
    #[serde(serialize_with = "option_without_credentials")]
    pub url: Option<String>,
    /// The largest input or output that travels with the job.
    pub inline_limit: ByteSize,
}

/// A pool: one model, its workers and its scaling rule.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolSettings {
    /// The model: a folder with `model.yaml` and `model.pt`, or `echo` (`echo:20ms`, `echo:20ms:64`).
    pub model: String,
    /// The device that the model runs on.
    #[serde(default)]
    pub device: Device,
    /// The number of CPU threads of one forward pass; one per core if absent.
    #[serde(default)]
    pub threads: Option<NonZeroU32>,
    /// Rules for every job of the pool.
    #[serde(default)]
    pub jobs: JobSettings,
    /// More topics (Kafka) or queues (RabbitMQ) whose messages are jobs of the pool. They are added to the ones that are
    /// named after the pool.
    #[serde(default)]
    pub jobs_from: Vec<String>,
    /// The topic (Kafka) or queue (RabbitMQ) to which an event is published for each job that ends.
    #[serde(default)]
    pub results_to: Option<String>,
    /// The workers of the pool.
    #[serde(default)]
    pub worker: WorkerSettings,
    /// The scaling rule of the pool.
    #[serde(default)]
    pub scale: PoolScale,
}

/// Rules for every job of a pool.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JobSettings {
    /// The number of attempts after which a job is dead.
    pub max_attempts: NonZeroU32,
    /// The longest time that a job without a deadline of its own may wait to be started; unlimited if absent.
    pub deadline: Option<Period>,
    /// The time after its end at which the record and the result of a job are deleted.
    pub retention: Period,
    /// The time after its end at which the record of a failed or dead job is deleted, at least `retention`. Until then
    /// it can be requeued. If absent: 7 days, or `retention` if that is longer.
    pub dead_retention: Option<Period>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            broker: SecretUrl::new("embedded:./data"),
            ledger: None,
            blobs: BlobSettings::default(),
            gateway: GatewaySettings::default(),
            scaler: ScalerSettings::default(),
            admin: AdminSettings::default(),
            telemetry: TelemetrySettings::default(),
            pools: BTreeMap::new(),
        }
    }
}

impl BlobSettings {
    /// The setting that names the store, and its value. It holds no password after a successful [`Settings::check`].
    pub(crate) fn place(&self) -> (&'static str, String) {
        let folder = || self.folder.as_ref().map_or_else(|| "none".to_owned(), |folder| folder.display().to_string());
        self.url.as_ref().map_or_else(|| ("blobs.folder", folder()), |url| ("blobs.url", url.clone()))
    }

    /// Opens the store. Creates the folder if it is missing, and does not wait for a server.
    pub(crate) fn open(&self) -> queue::Result<Blobs> {
        let limit = self.inline_limit.as_usize();
        match (&self.url, &self.folder) {
            (Some(url), _) => backends::open_blobs(&url.parse()?, limit),
            (None, Some(folder)) => Blobs::directory(folder, limit),
            (None, None) => Ok(Blobs::none(limit)),
        }
    }
}

impl Default for BlobSettings {
    fn default() -> Self {
        let inline_limit = ByteSize::bytes(Blobs::INLINE_LIMIT_BYTES as u64);
        Self { folder: Some(PathBuf::from("./data/blobs")), url: None, inline_limit }
    }
}

impl Default for JobSettings {
    fn default() -> Self {
        let max_attempts = const { NonZeroU32::new(5).unwrap() };
        Self { max_attempts, deadline: None, retention: Period::seconds(24 * 3600), dead_retention: None }
    }
}

impl JobSettings {
    /// How long failed and dead jobs are kept.
    pub(crate) fn dead_retention(&self) -> Duration {
        self.dead_retention.unwrap_or(Period::new(DEAD_RETENTION)).max(self.retention).get()
    }
}

impl Settings {
    /// The parsed URLs of broker and ledger, and the pools' routes through the broker. Dead jobs are kept as long as in the
    /// pool that keeps them longest. There is no error after a successful [`Settings::check`].
    pub fn backend_urls(&self) -> anyhow::Result<BackendUrls> {
        let ledger = self.ledger.as_ref().map(backend_url).transpose()?;
        let urls = BackendUrls::new(backend_url(&self.broker)?, ledger)?.with_routes(self.routes()?)?;
        let longest = self.pools.values().map(|pool| pool.jobs.dead_retention()).max();
        Ok(urls.with_dead_retention(longest.unwrap_or(DEAD_RETENTION)))
    }

    /// The names of the pools.
    pub(crate) fn pool_names(&self) -> anyhow::Result<Vec<PoolName>> {
        Ok(self.pools.keys().map(|name| name.parse()).collect::<queue::Result<_>>()?)
    }

    fn check_urls(&self, faults: &mut Faults) {
        let broker = backend_url(&self.broker).map_err(|error| faults.add("broker", error));
        let ledger = self.ledger.as_ref().map(backend_url).transpose().map_err(|error| faults.add("ledger", error));
        let (Ok(broker), Ok(ledger)) = (broker, ledger) else { return };
        match BackendUrls::new(broker, ledger) {
            Err(error) => faults.add("ledger", error),
            Ok(urls) => {
                let refused = self.routes().and_then(|routes| urls.with_routes(routes)).err();
                for error in refused.into_iter().flat_map(|errors| errors.0) {
                    faults.refuse(&error.key, format_args!("{:?}", error.name), &error.why);
                }
            }
        }
    }

    fn routes(&self) -> Result<Routes, RouteErrors> {
        let route = |(pool, of_pool): (&String, &PoolSettings)| {
            let (jobs_from, results_to) = (of_pool.jobs_from.clone(), of_pool.results_to.clone());
            // An invalid pool name is a fault of its own.
            Some((pool.parse().ok()?, Route { jobs_from, results_to }))
        };
        Routes::new(self.pools.iter().filter_map(route).collect())
    }
}

/// Reads and parses the URL of a broker or ledger. Each new connection reads it again, if a part of it is in a file.
fn backend_url(url: &SecretUrl) -> queue::Result<BackendUrl> {
    let parsed: BackendUrl = text_of(url)?.parse()?;
    if !url.reads_files() {
        return Ok(parsed);
    }
    let url = url.clone();
    Ok(parsed.renewed_by(UrlSource::new(move || text_of(&url))))
}

/// The text of a URL. A file with another text is refused here: it may be a password, which the parser would show.
fn text_of(url: &SecretUrl) -> queue::Result<String> {
    let refused = |why: String| Error::new(ErrorKind::Refused, why);
    let text = url.read().map_err(refused)?;
    match url.only_file() {
        Some(path) if !BackendUrl::has_scheme(&text) => {
            Err(refused(format!("{path:?} does not hold the URL of a backend, such as redis://HOST")))
        }
        _ => Ok(text),
    }
}

/// A URL without its password. A URL that cannot be parsed may hold a password anywhere, so nothing of it is shown.
fn redacted(url: &SecretUrl) -> String {
    backend_url(url).map_or_else(|_| "***".to_owned(), |url| url.to_string())
}

fn without_password<S: Serializer>(url: &SecretUrl, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&redacted(url))
}

fn option_without_password<S: Serializer>(url: &Option<SecretUrl>, serializer: S) -> Result<S::Ok, S::Error> {
    url.as_ref().map(redacted).serialize(serializer)
}

fn option_without_credentials<S: Serializer>(url: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    let shown = |url: &String| url.parse::<BlobUrl>().map_or_else(|_| "***".to_owned(), |url| url.to_string());
    url.as_ref().map(shown).serialize(serializer)
}

impl Config for Settings {
    fn check(&self, faults: &mut Faults) {
        self.check_urls(faults);
        if let Some(Err(error)) = self.blobs.url.as_ref().map(|url| url.parse::<BlobUrl>()) {
            faults.add("blobs.url", error);
        }
        self.gateway.check("gateway", faults);
        self.scaler.check("scaler", faults);
        self.scaler.namespaces.check_pools("scaler.namespaces", |pool| self.pools.contains_key(pool), faults);
        check_address("gateway.listen", &self.gateway.listen, faults);
        check_address("scaler.listen", &self.scaler.listen, faults);
        if self.gateway.listen == self.scaler.listen && !self.scaler.listen.ends_with(":0") {
            faults.refuse("scaler.listen", &self.scaler.listen, "is also the address of the gateway");
        }
        if let Some(tls) = &self.admin.tls {
            tls.check("admin.tls", faults);
        }
        self.telemetry.check("telemetry", faults);
        if self.pools.is_empty() {
            faults.add("pools", "no pool is configured: name at least one pool and its model");
        }
        for (name, pool) in &self.pools {
            if let Err(error) = name.parse::<PoolName>() {
                faults.add(format_args!("pools.{name}"), error);
            }
            if let Err(error) = pool.model.parse::<ModelSource>() {
                faults.add(format_args!("pools.{name}.model"), error);
            }
            if pool.jobs.deadline.is_some_and(|deadline| deadline.is_zero()) {
                faults.refuse(format_args!("pools.{name}.jobs.deadline"), "0s", "is not more than 0s");
            }
            if let Some(kept) = pool.jobs.dead_retention.filter(|kept| *kept < pool.jobs.retention) {
                let rule = format!("is less than the retention, {}", pool.jobs.retention);
                faults.refuse(format_args!("pools.{name}.jobs.dead_retention"), kept, rule);
            }
            pool.scale.check(&format!("pools.{name}.scale"), faults);
            pool.worker.check(&format!("pools.{name}.worker"), faults);
            if pool.worker.max_input < self.gateway.max_body {
                let rule = format!("is less than gateway.max_body, {}", self.gateway.max_body);
                faults.refuse(format_args!("pools.{name}.worker.max_input"), pool.worker.max_input, rule);
            }
        }
    }
}

/// An address is a name or an IP address, a colon and a port.
fn check_address(key: &str, address: &str, faults: &mut Faults) {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    if !matches!(port, Some(Ok(_))) {
        faults.refuse(key, format_args!("{address:?}"), "is not host:port, such as 127.0.0.1:8080");
    }
}

impl PoolSettings {
    /// The parsed model. There is no error after a successful [`Settings::check`].
    pub(crate) fn source(&self) -> anyhow::Result<ModelSource> {
        self.model.parse().map_err(|error: String| anyhow::anyhow!("model: {error}"))
    }

    pub(crate) fn model_settings(&self) -> ModelSettings {
        ModelSettings { device: self.device, threads: self.threads.map(|threads| threads.get() as usize) }
    }
}

#[cfg(test)]
mod tests {
    use service::Sources;

    use super::*;

    #[test]
    fn the_debug_text_of_the_settings_shows_no_password() {
        let broker = SecretUrl::new("rabbitmq://me:hunter2@host");
        let ledger = Some(SecretUrl::new("redis://:hunter3@host"));
        let settings = Settings { ledger, broker, ..Settings::default() };
        let text = format!("{settings:?}");
        assert!(text.contains("rabbitmq://me") && !text.contains("hunter"), "{text}");
    }

    fn load(flags: &[String]) -> Result<Settings, Faults> {
        let flags = flags.iter().cloned().chain(["pools.echo.model=echo".to_owned()]).collect();
        service::config::load(&Sources { flags, ..Sources::default() })
    }

    #[test]
    fn a_url_from_files_is_shown_without_its_password() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("password"), "hunter2@\n").unwrap();
        std::fs::write(path("ledger"), "redis://:hunter3@host:6390\n").unwrap();
        let broker = format!("broker=rabbitmq://me:${{file:{}}}@host", path("password"));
        let settings = load(&[broker, format!("ledger=${{file:{}}}", path("ledger"))]).unwrap();
        let urls = settings.backend_urls().unwrap();
        let (broker, ledger) = (urls.broker().to_string(), urls.ledger().to_string());
        assert_eq!(broker, "rabbitmq://me:***@host:5672/%2f?prefix=millrace");
        assert_eq!(ledger, "redis://:***@host:6390");
        let shown = serde_json::to_value(&settings).unwrap();
        assert_eq!((&shown["broker"], &shown["ledger"]), (&broker.into(), &ledger.into()));
    }

    #[test]
    fn a_file_without_a_url_is_named_and_its_contents_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let flags = [format!("broker=${{file:{}}}", file.display()), "ledger=${file:/nowhere/url}".to_owned()];
        for contents in ["hunter2", "hunter2:hunter2", "hunter2 hunter2", "kafka://me:hunter2@host", "redis:hunter2"] {
            std::fs::write(&file, contents).unwrap();
            let faults = load(&flags).unwrap_err().to_string();
            assert!(faults.starts_with("broker: ") && !faults.contains("hunter2"), "{faults}");
            let missing = "ledger: \"/nowhere/url\" cannot be read: No such file or directory (os error 2)";
            assert!(faults.contains(missing), "{faults}");
        }
        std::fs::write(&file, "hunter2").unwrap();
        let faults = load(&flags).unwrap_err().to_string();
        let named = format!("broker: {file:?} does not hold the URL of a backend, such as redis://HOST");
        assert!(faults.contains(&named), "{faults}");
    }

    #[test]
    fn dead_jobs_are_kept_for_a_week_or_for_a_longer_retention() {
        let kept = |more: &[&str]| {
            let flags: Vec<String> = more.iter().map(|flag| format!("pools.echo.jobs.{flag}")).collect();
            load(&flags).map(|settings| settings.pools["echo"].jobs.dead_retention().as_secs() / 3600)
        };
        assert_eq!(kept(&[]).unwrap(), 7 * 24);
        assert_eq!(kept(&["retention=30d"]).unwrap(), 30 * 24);
        assert_eq!(kept(&["retention=1h", "dead_retention=2h"]).unwrap(), 2);
        let faults = kept(&["retention=2h", "dead_retention=1h"]).unwrap_err().to_string();
        assert!(faults.contains("pools.echo.jobs.dead_retention: 1h is less than the retention, 2h"), "{faults}");
    }
}
