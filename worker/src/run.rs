//! A worker from its start to its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use jiff::Timestamp;
use queue::{Backend, Blobs, PoolName, Upkeep, WorkerId, WorkerRecord, WorkerState};
use rayon::ThreadPoolBuilder;
use service::Health;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::batch::Batcher;
use crate::device::Device;
use crate::finish::Outbox;
use crate::finish::announcements::Endings;
use crate::job::leases::Leases;
use crate::job::window::Window;
use crate::job::{How, Leaving};
use crate::report::heartbeat::Presence;
use crate::report::metrics;
use crate::runtime::{Model, ModelError};
use crate::settings::WorkerSettings;
use crate::take::Intake;

/// The condition of [`Health`] that is the worker's own.
const CONDITION: &str = "model";

/// What a worker needs.
pub struct Worker {
    /// Its name in ledger and roster: unique over all starts.
    pub id: WorkerId,
    /// The pool it works for.
    pub pool: PoolName,
    /// How it works.
    pub settings: WorkerSettings,
    /// What it runs.
    pub model: Arc<dyn Model>,
    /// Where jobs come from and results go.
    pub backend: Backend,
    /// Where big inputs and outputs lie.
    pub blobs: Blobs,
    /// Where it says that it is ready.
    pub health: Health,
    /// When its process started: the cold start is measured from here.
    pub started: Instant,
}

/// Why a worker ended without being told to, or not as it should.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The model could not be loaded or run.
    #[error("pool {pool}: cannot load the model: {source}")]
    Model {
        /// The pool.
        pool: PoolName,
        /// Why.
        source: ModelError,
    },
    /// Broker, ledger or roster could not be opened.
    #[error(transparent)]
    Queue(#[from] queue::Error),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(String),
    /// A part of the worker ended by itself. Its jobs come again.
    #[error("pool {pool}: {part} ended by itself; the jobs it held will be delivered again")]
    Broken {
        /// The pool.
        pool: PoolName,
        /// What ended.
        part: &'static str,
    },
    /// The batch was still running when the time to drain was over. Its jobs come again.
    #[error("pool {pool}: still running after worker.drain_timeout; its jobs will be delivered again")]
    DrainTimeout {
        /// The pool.
        pool: PoolName,
    },
}

/// How long striking a worker out of the roster may take: it is a courtesy, the roster forgets the silent by itself.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Loads the model, then takes jobs, runs them and settles them until `stop`; then finishes the batch that runs, gives
/// the rest back and returns.
pub async fn run(worker: Worker, stop: CancellationToken) -> Result<(), WorkerError> {
    let leases = Arc::new(Leases::new(Arc::clone(&worker.backend.ledger), worker.settings.lease.get()));
    let record = WorkerRecord::new(worker.id.clone(), worker.pool.clone(), Timestamp::now());
    let (roster, instances) = (Arc::clone(&worker.backend.roster), worker.settings.instances.get());
    let max_batch_items = max_batch_items(&worker.settings, worker.model.as_ref());
    let presence = Arc::new(Presence::new(roster, Arc::clone(&leases), record, max_batch_items, instances));
    let health = worker.health.clone();
    health.not_ready(CONDITION, "loading");
    let outcome = tokio::select! {
        never = presence.beat() => match never {},
        never = leases.renew() => match never {},
        outcome = work(worker, &presence, &leases, &stop) => outcome,
    };
    health.not_ready(CONDITION, "ended");
    if timeout(LEAVE_TIMEOUT, presence.leave()).await.is_err() {
        tracing::warn!("the roster does not answer: it will strike this worker out by itself");
    }
    outcome
}

fn max_batch_items(settings: &WorkerSettings, model: &dyn Model) -> usize {
    settings.max_batch_items.map_or(usize::MAX, usize::from).min(model.max_batch_items()).max(1)
}

async fn work(
    worker: Worker,
    presence: &Arc<Presence>,
    leases: &Arc<Leases>,
    stop: &CancellationToken,
) -> Result<(), WorkerError> {
    let Worker { id, pool, settings, model, backend, blobs, health, started } = worker;
    let max_batch_items = max_batch_items(&settings, model.as_ref());
    let instances = settings.instances.get();
    let threads = settings.prepare_threads.map_or(0, usize::from);
    let cpu = ThreadPoolBuilder::new().num_threads(threads).thread_name(|number| format!("millrace-cpu-{number}"));
    let cpu = Arc::new(cpu.build().map_err(|error| WorkerError::Thread(error.to_string()))?);
    let (batcher, window) = (Arc::new(Batcher::new()), Arc::new(Window::new(max_batch_items, instances)));
    let (leaving, left) = mpsc::unbounded_channel();
    let device = Device {
        pool: pool.as_str().into(),
        model: Arc::clone(&model),
        batcher: Arc::clone(&batcher),
        window: Arc::clone(&window),
        presence: Arc::clone(presence),
        cpu: Arc::clone(&cpu),
        ledger: Arc::clone(&backend.ledger),
        runtime: Handle::current(),
        leaving: leaving.clone(),
        suspects: Arc::default(),
        max_batch_items,
    };
    let any_device_ended = CancellationToken::new();
    let loading = (0..instances).map(|number| device.clone().start(number, &any_device_ended));
    let loading = loading.collect::<Result<Vec<_>, _>>().map_err(|error| WorkerError::Thread(error.to_string()))?;
    drop(device);
    let Some(loaded) = stop.run_until_cancelled(join_all(loading)).await else { return Ok(()) };
    for loaded in loaded {
        let vanished = |_| Err(ModelError::model("its thread panicked"));
        loaded.unwrap_or_else(vanished).map_err(|source| WorkerError::Model { pool: pool.clone(), source })?;
    }

    let consumer = backend.broker.consumer(&pool).await?;
    let producer = backend.broker.producer().await?;
    let announcer = backend.broker.announcer(&pool).await?;
    let endings = Endings { announcer, ledger: Arc::clone(&backend.ledger) };
    let cold_start_seconds = presence.ready(started).await;
    metrics::became_ready(pool.as_str(), cold_start_seconds);
    health.ready(CONDITION);
    tracing::info!(worker = %id, %pool, cold_start_seconds, window = window.size(), "ready");

    let upkeep = Upkeep { ledger: Arc::clone(&backend.ledger), producer, blobs: blobs.clone() };
    tokio::spawn(upkeep.run(stop.clone()));
    let outbox = Outbox {
        pool: pool.as_str().into(),
        consumer: Arc::clone(&consumer),
        ledger: Arc::clone(&backend.ledger),
        endings: endings.clone(),
        blobs: blobs.clone(),
        leases: Arc::clone(leases),
        window: Arc::clone(&window),
        settings: settings.clone(),
    };
    let mut outbox = tokio::spawn(outbox.run(left));
    let intake = Intake {
        worker: id,
        consumer,
        ledger: backend.ledger,
        endings,
        blobs,
        model,
        leases: Arc::clone(leases),
        window: Arc::clone(&window),
        batcher: Arc::clone(&batcher),
        cpu,
        leaving: leaving.clone(),
    };
    let drain = async {
        stop.cancelled().await;
        health.not_ready(CONDITION, "draining");
        // No batch is started from here on: what has not run is given back.
        let waiting = batcher.close();
        tracing::info!(%pool, released = waiting.len(), "draining");
        window.ran(waiting.len());
        let released = waiting.into_iter().map(|ready| Leaving { held: ready.held, how: How::Released });
        // The outbox is gone only if it panicked, which is noticed below.
        drop(leaving.send(released.collect()));
        drop(leaving);
        presence.enter(WorkerState::Draining).await;
    };
    // The outbox ends by itself when devices, preparations, intake and drain have let go of their side of it.
    let working = async {
        tokio::select! {
            () = too_early(&any_device_ended, stop) => Err("a device thread"),
            ended = &mut outbox => if stop.is_cancelled() { ended.map_err(|_| "the outbox") } else { Err("the outbox") },
            _ = async { tokio::join!(intake.run(stop), drain) } => outbox.await.map_err(|_| "the outbox"),
        }
    };
    tokio::select! {
        worked = working => worked.map_err(|part| WorkerError::Broken { pool: pool.clone(), part }),
        () = too_late(settings.drain_timeout.get(), stop) => Err(WorkerError::DrainTimeout { pool: pool.clone() }),
    }
}

/// Returns when `ended` comes before `stop`.
async fn too_early(ended: &CancellationToken, stop: &CancellationToken) {
    ended.cancelled().await;
    if stop.is_cancelled() {
        std::future::pending().await
    }
}

/// Returns when the time to drain is over.
async fn too_late(drain_timeout: Duration, stop: &CancellationToken) {
    stop.cancelled().await;
    sleep(drain_timeout).await;
}
