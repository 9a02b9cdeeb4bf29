//! The services, built from the configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use backends::BackendUrls;
use gateway::Gateway;
use queue::{Backend, Blobs, ErrorKind, JobId, PoolName, Upkeep, WorkerId};
use scaler::{Journal, Sources};
use service::Health;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use worker::Worker;
use worker::runtime::Model;

use crate::metrics;
use crate::settings::{PoolSettings, Settings};

/// How long a start waits for the ledger to name its blob store. Without an answer the service starts, and asks again.
const STORE_CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// The wait before the ledger is asked again.
const STORE_CHECK_PAUSE: Duration = Duration::from_millis(250);

/// The backend and the blob store, which gateway and worker open.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) backend: Backend,
    pub(crate) blobs: Blobs,
    /// The setting that names the blob store.
    setting: &'static str,
}

impl Opened {
    /// The parts of a process that serves all pools.
    pub(crate) async fn open(settings: &Settings) -> anyhow::Result<Self> {
        Self::open_at(settings, &settings.backend_urls()?).await
    }

    /// The parts of a worker. Its ledger keeps dead jobs as long as the pool demands.
    pub(crate) async fn open_for(settings: &Settings, of_pool: &PoolSettings) -> anyhow::Result<Self> {
        let urls = settings.backend_urls()?.with_dead_retention(of_pool.jobs.dead_retention());
        Self::open_at(settings, &urls).await
    }

    async fn open_at(settings: &Settings, urls: &BackendUrls) -> anyhow::Result<Self> {
        let backend = backends::open(urls).await?;
        let setting = settings.blobs.place().0;
        let blobs = settings.blobs.open().map_err(|error| anyhow::anyhow!("{setting}: {error}"))?;
        let longest = settings.pools.values().map(|pool| pool.jobs.dead_retention()).max().unwrap_or_default();
        let blobs = blobs.with_observer(metrics::blob_store_failed).with_longest_retention(longest);
        let opened = Self { backend, blobs, setting };
        let mut cause = None;
        match timeout(STORE_CHECK_TIMEOUT, opened.refusal(&mut cause)).await {
            Ok(refusal) => refusal?,
            Err(_) => {
                let cause = cause.map_or_else(|| "no answer".to_owned(), |error| error.to_string());
                tracing::warn!(cause, "the ledger is unavailable; starting anyway, and checking its blob store later");
            }
        }
        Ok(opened)
    }

    /// Returns when the ledger has answered. The error: another blob store belongs to the ledger. Until then, `cause` is why
    /// it has not answered.
    async fn refusal(&self, cause: &mut Option<queue::Error>) -> anyhow::Result<()> {
        loop {
            match self.blobs.check_ledger(&*self.backend.ledger).await {
                Err(error) if error.kind() == ErrorKind::Incompatible => bail!("{}: {error}", self.setting),
                Err(error) => {
                    tracing::debug!(%error, "cannot check which blob store belongs to the ledger");
                    *cause = Some(error);
                }
                Ok(()) => return Ok(()),
            }
            sleep(STORE_CHECK_PAUSE).await;
        }
    }

    /// Runs a service. Ends it if the ledger was away at the start, and then names another blob store.
    async fn run(&self, service: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
        let (mut service, mut cause) = (std::pin::pin!(service), None);
        tokio::select! {
            served = &mut service => return served,
            refusal = self.refusal(&mut cause) => refusal?,
        }
        service.await
    }
}

/// Binds the socket that the setting `key` names.
pub(crate) async fn bind(key: &str, address: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| anyhow::anyhow!("{key}: {address}: {error}"))
}

/// The URL of a gateway that listens here.
pub(crate) fn gateway_url(settings: &Settings, listener: &TcpListener) -> std::io::Result<String> {
    let scheme = if settings.gateway.tls.is_some() { "https" } else { "http" };
    Ok(format!("{scheme}://{}", listener.local_addr()?))
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
    let serving = async {
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
    };
    opened.run(serving).await
}

/// Runs the scaler on `listener`.
pub(crate) async fn scaler(
    settings: &Settings,
    backend: &Backend,
    listener: TcpListener,
    journal: Journal,
    health: Health,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut pools = BTreeMap::new();
    for (name, pool) in &settings.pools {
        pools.insert(name.parse::<PoolName>()?, pool.scale.clone());
    }
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
    opened.run(async { Ok(worker::run(worker, stop).await?) }).await
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use queue_contract::faulty::{Call, Fault, Faulty};
    use service::{Sources, config};

    use super::*;

    fn settings(folder: &Path, blobs: &str) -> Settings {
        let path = |name: &str| folder.join(name).display().to_string();
        let flags = [format!("broker=embedded:{}", path("data")), format!("blobs.folder={}", path(blobs))];
        let flags = flags.into_iter().chain(["pools.echo.model=echo".to_owned()]).collect();
        config::load(&Sources { flags, ..Sources::default() }).unwrap()
    }

    #[tokio::test]
    async fn a_process_that_sees_another_blob_store_than_the_others_does_not_start() {
        let folder = tempfile::tempdir().unwrap();
        Opened::open(&settings(folder.path(), "blobs")).await.unwrap();
        Opened::open(&settings(folder.path(), "blobs")).await.unwrap();
        let error = Opened::open(&settings(folder.path(), "other")).await.err().unwrap().to_string();
        for store in ["blobs", "other"] {
            let id = Blobs::id_of_directory(&folder.path().join(store)).unwrap();
            assert!(error.starts_with("blobs.folder: ") && error.contains(&id), "{error}");
        }
        // The way out that the error names.
        let marker = |store: &str| folder.path().join(store).join("millrace-store");
        std::fs::copy(marker("blobs"), marker("other")).unwrap();
        Opened::open(&settings(folder.path(), "other")).await.unwrap();
    }

    #[tokio::test]
    async fn a_process_without_a_blob_store_starts_if_none_belongs_to_the_ledger() {
        let folder = tempfile::tempdir().unwrap();
        let none = |mut settings: Settings| {
            settings.blobs.folder = None;
            settings
        };
        Opened::open(&none(settings(folder.path(), "blobs"))).await.unwrap();
        assert!(!folder.path().join("blobs").exists());
        Opened::open(&settings(folder.path(), "blobs")).await.unwrap();
        let error = Opened::open(&none(settings(folder.path(), "blobs"))).await.err().unwrap().to_string();
        assert!(error.starts_with("blobs.folder: "), "{error}");
    }

    #[tokio::test]
    async fn a_service_with_another_blob_store_ends_when_the_ledger_is_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut opened = Opened::open(&settings(folder.path(), "blobs")).await.unwrap();
        opened.blobs = Blobs::directory(&folder.path().join("other"), 1024).unwrap();
        let faulty = Faulty::default();
        opened.backend = faulty.wrap(opened.backend);
        faulty.order(Call::BlobStore, Fault::Fail, 2);
        let error = opened.run(std::future::pending()).await.unwrap_err();
        assert!(error.to_string().starts_with("blobs.folder: "), "{error}");
        assert_eq!(faulty.left(Call::BlobStore), 0);
    }
}
