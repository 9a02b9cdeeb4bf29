//! The services, built from the configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use gateway::Gateway;
use queue::{Backend, Blobs, JobId, PoolName, Upkeep, WorkerId};
use scaler::{Journal, Sources};
use service::Health;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use worker::Worker;
use worker::runtime::Model;

use crate::settings::{PoolSettings, Settings};

/// The backend and the blob store, which every service opens.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) backend: Backend,
    pub(crate) blobs: Blobs,
}

impl Opened {
    pub(crate) async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let backend = backends::open(&settings.backend_urls()?).await?;
        let blobs = Blobs::directory(&settings.blobs.folder, settings.blobs.inline_limit.as_usize())
            .map_err(|error| anyhow::anyhow!("blobs.folder: {error}"))?;
        Ok(Self { backend, blobs })
    }
}

/// Binds the socket that the setting `key` names.
pub(crate) async fn bind(key: &str, address: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| anyhow::anyhow!("{key}: {address}: {error}"))
}

/// The gateway's view of the pools, with the manifests of their models.
pub(crate) fn pools_of_gateway(settings: &Settings) -> anyhow::Result<BTreeMap<PoolName, gateway::Pool>> {
    let of_gateway = |(name, pool): (&String, &PoolSettings)| {
        let input_check =
            pool.source()?.input_check().map_err(|error| anyhow::anyhow!("pools.{name}.model: {error}"))?;
        let pool = gateway::Pool {
            input_check,
            max_attempts: pool.jobs.max_attempts.get(),
            retention: pool.jobs.retention.get(),
            deadline: pool.jobs.deadline.map(service::Period::get),
        };
        Ok((name.parse()?, pool))
    };
    settings.pools.iter().map(of_gateway).collect()
}

/// Runs the gateway on `listener`, and the ledger's upkeep beside it.
pub(crate) async fn gateway(
    settings: &Settings,
    pools: BTreeMap<PoolName, gateway::Pool>,
    opened: &Opened,
    listener: TcpListener,
    health: Health,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let producer = opened.backend.broker.producer().await?;
    let ledger = Arc::clone(&opened.backend.ledger);
    let upkeep = Upkeep { ledger: Arc::clone(&ledger), producer: Arc::clone(&producer), blobs: opened.blobs.clone() };
    let mut upkeep = tokio::spawn(upkeep.run(stop.clone()));
    let blobs = opened.blobs.clone();
    let gateway = Gateway { pools, ledger, producer, blobs, settings: settings.gateway.clone(), health };
    let mut serving = std::pin::pin!(gateway::run(listener, gateway, stop));
    tokio::select! {
        served = &mut serving => {
            served.context("gateway")?;
            upkeep.await.context("gateway: upkeep")
        }
        // Before the stop signal only a panic ends it, and then no process may publish due jobs any more.
        ended = &mut upkeep => {
            ended.context("gateway: upkeep")?;
            serving.await.context("gateway")
        }
    }
}

/// Runs the scaler on `listener`.
pub(crate) async fn scaler(
    settings: &Settings,
    opened: &Opened,
    listener: TcpListener,
    journal: Journal,
    health: Health,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut pools = BTreeMap::new();
    for (name, pool) in &settings.pools {
        pools.insert(name.parse::<PoolName>()?, pool.scale.clone());
    }
    let backend = &opened.backend;
    let sources = Sources {
        gauge: backend.broker.gauge().await?,
        ledger: Arc::clone(&backend.ledger),
        roster: Arc::clone(&backend.roster),
    };
    Ok(scaler::run(listener, settings.scaler.clone(), pools, sources, journal, health, stop).await?)
}

/// The model of a pool: its manifest is read and its file exists. The weights are not loaded.
pub(crate) fn open_model(pool: &str, of_pool: &PoolSettings) -> anyhow::Result<Arc<dyn Model>> {
    let opened = worker::runtime::open(&of_pool.source()?, &of_pool.model_settings());
    opened.map_err(|error| anyhow::anyhow!("pools.{pool}.model: {error}"))
}

/// The settings and the model of the pool that a worker is for.
pub(crate) fn pool_of_worker<'a>(
    settings: &'a Settings,
    pool: &str,
) -> anyhow::Result<(&'a PoolSettings, Arc<dyn Model>)> {
    let Some(of_pool) = settings.pools.get(pool) else {
        let names: Vec<&str> = settings.pools.keys().map(String::as_str).collect();
        bail!("--pool: {pool:?} is not one of the configured pools: {}", names.join(", "));
    };
    Ok((of_pool, open_model(pool, of_pool)?))
}

/// Runs one worker of `pool`.
pub(crate) async fn worker(
    of_pool: &PoolSettings,
    model: Arc<dyn Model>,
    opened: &Opened,
    pool: PoolName,
    health: Health,
    started: Instant,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let worker = Worker {
        id: WorkerId::new(format!("{pool}-{}", JobId::generate())),
        pool,
        settings: of_pool.worker.clone(),
        model,
        backend: opened.backend.clone(),
        blobs: opened.blobs.clone(),
        health,
        started,
    };
    Ok(worker::run(worker, stop).await?)
}
