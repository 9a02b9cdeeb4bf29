//! The configuration file.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;

use backends::{BackendUrl, BackendUrls};
use gateway::GatewaySettings;
use queue::{Blobs, PoolName, Route, RouteErrors, Routes};
use scaler::{PoolScale, ScalerSettings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use service::{ByteSize, Config, Faults, Period, TelemetrySettings};
use worker::WorkerSettings;
use worker::model::{Device, ModelSettings, ModelSource};

/// Everything that can be configured.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where jobs wait: `embedded:FOLDER` (shared by the processes of one machine), `kafka://HOST:PORT`,
    /// `rabbitmq://USER:PASSWORD@HOST` or `redis://HOST`.
    #[serde(serialize_with = "without_password")]
    pub broker: String,
    /// Where they are accounted for, and the workers known: `embedded:FOLDER` or `redis://HOST`. The broker's own unless
    /// given; RabbitMQ and Kafka keep none.
    #[serde(serialize_with = "option_without_password")]
    pub ledger: Option<String>,
    /// Where inputs and outputs go that are too big to travel with a job.
    pub blobs: BlobSettings,
    /// The HTTP side.
    pub gateway: GatewaySettings,
    /// KEDA's side.
    pub scaler: ScalerSettings,
    /// Logs and metrics.
    pub telemetry: TelemetrySettings,
    /// The pools, by name.
    pub pools: BTreeMap<String, PoolSettings>,
}

/// Where inputs and outputs go that are too big to travel with a job.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BlobSettings {
    /// The folder.
    pub folder: PathBuf,
    /// Up to this size, bytes travel with the job.
    pub inline_limit: ByteSize,
}

/// A pool: one model, its workers and its scaling rule.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolSettings {
    /// The model: a folder with `model.yaml` and `model.pt`, or `echo` (`echo:20ms`, `echo:20ms:64`).
    pub model: String,
    /// Where the model runs.
    #[serde(default)]
    pub device: Device,
    /// How many CPU threads one forward pass may use; one per core unless given.
    #[serde(default)]
    pub threads: Option<NonZeroU32>,
    /// What holds for every job of the pool.
    #[serde(default)]
    pub jobs: JobSettings,
    /// More topics (Kafka) or queues (RabbitMQ) whose messages are jobs of the pool, beside those made from its name.
    #[serde(default)]
    pub jobs_from: Vec<String>,
    /// The topic (Kafka) or queue (RabbitMQ) that gets an event for each job that ends.
    #[serde(default)]
    pub results_to: Option<String>,
    /// How a worker works.
    #[serde(default)]
    pub worker: WorkerSettings,
    /// How many workers there are.
    #[serde(default)]
    pub scale: PoolScale,
}

/// What holds for every job of a pool.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JobSettings {
    /// How many times a worker may start a job before it is dead.
    pub max_attempts: NonZeroU32,
    /// How long a job may wait to be started when it names no deadline; for ever unless given.
    pub deadline: Option<Period>,
    /// How long the record and result of a job are kept after it ended.
    pub retention: Period,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            broker: "embedded:./data".to_owned(),
            ledger: None,
            blobs: BlobSettings::default(),
            gateway: GatewaySettings::default(),
            scaler: ScalerSettings::default(),
            telemetry: TelemetrySettings::default(),
            pools: BTreeMap::new(),
        }
    }
}

impl Default for BlobSettings {
    fn default() -> Self {
        let inline_limit = ByteSize::bytes(Blobs::INLINE_LIMIT_BYTES as u64);
        Self { folder: PathBuf::from("./data/blobs"), inline_limit }
    }
}

impl Default for JobSettings {
    fn default() -> Self {
        let max_attempts = const { NonZeroU32::new(5).unwrap() };
        Self { max_attempts, deadline: None, retention: Period::seconds(24 * 3600) }
    }
}

impl Settings {
    /// Broker and ledger, as what they name, and the pools' routes through the broker. [`Settings::check`] has seen that
    /// they can be.
    pub fn backend_urls(&self) -> anyhow::Result<BackendUrls> {
        Ok(self.urls()?.with_routes(self.routes()?)?)
    }

    /// The names of the pools.
    pub(crate) fn pool_names(&self) -> anyhow::Result<Vec<PoolName>> {
        Ok(self.pools.keys().map(|name| name.parse()).collect::<queue::Result<_>>()?)
    }

    fn urls(&self) -> queue::Result<BackendUrls> {
        BackendUrls::new(self.broker.parse()?, self.ledger.as_ref().map(|url| url.parse()).transpose()?)
    }

    fn routes(&self) -> Result<Routes, RouteErrors> {
        let route = |(pool, of_pool): (&String, &PoolSettings)| {
            let (jobs_from, results_to) = (of_pool.jobs_from.clone(), of_pool.results_to.clone());
            // One that is no pool's name is a fault of its own.
            Some((pool.parse().ok()?, Route { jobs_from, results_to }))
        };
        Routes::new(self.pools.iter().filter_map(route).collect())
    }
}

/// What is shown of a URL; one that cannot be read may hold a password anywhere.
fn shown(url: &str) -> String {
    url.parse::<BackendUrl>().map_or_else(|_| "***".to_owned(), |url| url.to_string())
}

fn without_password<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&shown(url))
}

fn option_without_password<S: Serializer>(url: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    url.as_deref().map(shown).serialize(serializer)
}

impl Config for Settings {
    fn check(&self, faults: &mut Faults) {
        if let Err(error) = self.broker.parse::<BackendUrl>() {
            faults.add("broker", error);
        } else if let Some(Err(error)) = self.ledger.as_ref().map(|url| url.parse::<BackendUrl>()) {
            faults.add("ledger", error);
        } else {
            match self.urls() {
                Err(error) => faults.add("ledger", error),
                Ok(urls) => {
                    let refused = self.routes().and_then(|routes| urls.with_routes(routes)).err();
                    for error in refused.into_iter().flat_map(|errors| errors.0) {
                        faults.refuse(&error.key, format_args!("{:?}", error.name), &error.why);
                    }
                }
            }
        }
        self.gateway.check("gateway", faults);
        self.scaler.check("scaler", faults);
        self.scaler.namespaces.check_pools("scaler.namespaces", |pool| self.pools.contains_key(pool), faults);
        check_address("gateway.listen", &self.gateway.listen, faults);
        check_address("scaler.listen", &self.scaler.listen, faults);
        if self.gateway.listen == self.scaler.listen && !self.scaler.listen.ends_with(":0") {
            faults.refuse("scaler.listen", &self.scaler.listen, "is the gateway's address as well");
        }
        self.telemetry.check("telemetry", faults);
        if self.pools.is_empty() {
            faults.add("pools", "there is none: name at least one pool and its model");
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
            pool.scale.check(&format!("pools.{name}.scale"), faults);
            pool.worker.check(&format!("pools.{name}.worker"), faults);
        }
    }
}

/// A name or address, a colon, a port.
fn check_address(key: &str, address: &str, faults: &mut Faults) {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    if !matches!(port, Some(Ok(_))) {
        faults.refuse(key, format_args!("{address:?}"), "is not host:port, such as 127.0.0.1:8080");
    }
}

impl PoolSettings {
    /// The model, as parsed; [`Settings::check`] has seen that it can be.
    pub(crate) fn source(&self) -> anyhow::Result<ModelSource> {
        self.model.parse().map_err(|error: String| anyhow::anyhow!("model: {error}"))
    }

    pub(crate) fn model_settings(&self) -> ModelSettings {
        ModelSettings { device: self.device, threads: self.threads.map(|threads| threads.get() as usize) }
    }
}
