//! A worker from its start to its end.

use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use jiff::Timestamp;
use queue::{Backend, Blobs, PoolName, Upkeep, WorkerId, WorkerRecord, WorkerState};
use rayon::ThreadPoolBuilder;
use service::Health;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::batcher::Batcher;
use crate::device::{Device, Started};
use crate::held::{How, Leaving};
use crate::intake::Intake;
use crate::leases::Leases;
use crate::metrics;
use crate::model::{Model, ModelError};
use crate::outbox::Outbox;
use crate::presence::Presence;
use crate::settings::WorkerSettings;
use crate::window::Window;

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
    /// The batch was still running when the time to drain was over. Its jobs come again.
    #[error("pool {pool}: still running after worker.drain_timeout; its jobs will be delivered again")]
    DrainTimeout {
        /// The pool.
        pool: PoolName,
    },
}

/// Loads the model, then takes jobs, runs them and settles them until `stop`; then finishes the batch that runs, gives
/// the rest back and returns.
pub async fn run(worker: Worker, stop: CancellationToken) -> Result<(), WorkerError> {
    let Worker { id, pool, settings, model, backend, blobs, health, started } = worker;
    let max_batch_items = settings.max_batch_items.map_or(usize::MAX, usize::from).min(model.max_batch_items()).max(1);
    let instances = settings.instances.get();
    let leases = Arc::new(Leases::new(Arc::clone(&backend.ledger), settings.lease.get()));
    let record = WorkerRecord {
        id: id.clone(),
        pool: pool.clone(),
        state: WorkerState::Loading,
        started_at: Timestamp::now(),
        batch_items: 0.0,
        batch_seconds: 0.0,
        cold_start_seconds: 0.0,
    };
    let presence = Arc::new(Presence::new(Arc::clone(&backend.roster), Arc::clone(&leases), record));
    let until_end = CancellationToken::new();
    let _end = until_end.clone().drop_guard();
    let background = |task: Background| {
        let (until_end, leases, presence) = (until_end.clone(), Arc::clone(&leases), Arc::clone(&presence));
        tokio::spawn(async move {
            match task {
                Background::Beat => until_end.run_until_cancelled(presence.beat()).await,
                Background::Renew => until_end.run_until_cancelled(leases.renew()).await,
            }
        })
    };
    health.not_ready("model", "loading");
    background(Background::Beat);

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
        presence: Arc::clone(&presence),
        cpu: Arc::clone(&cpu),
        leaving: leaving.clone(),
        max_batch_items,
    };
    let devices = (0..instances)
        .map(|number| device.clone().start(number))
        .collect::<Result<Vec<Started>, _>>()
        .map_err(|error| WorkerError::Thread(error.to_string()))?;
    drop(device);
    let (loaded, ended): (Vec<_>, Vec<_>) = devices.into_iter().map(|device| (device.loaded, device.ended)).unzip();
    let Some(loaded) = stop.run_until_cancelled(join_all(loaded)).await else {
        presence.leave().await;
        return Ok(());
    };
    for loaded in loaded {
        let vanished = || ModelError("its thread panicked".to_owned());
        if let Err(source) = loaded.unwrap_or_else(|_| Err(vanished())) {
            presence.leave().await;
            return Err(WorkerError::Model { pool, source });
        }
    }

    let consumer = backend.broker.consumer(&pool).await?;
    let producer = backend.broker.producer().await?;
    let cold_start_seconds = presence.ready(started).await;
    metrics::became_ready(pool.as_str(), cold_start_seconds);
    health.ready("model");
    tracing::info!(worker = %id, %pool, cold_start_seconds, window = window.size(), "ready");

    background(Background::Renew);
    let upkeep = Upkeep { ledger: Arc::clone(&backend.ledger), producer, blobs: blobs.clone() };
    tokio::spawn(upkeep.run(until_end.clone()));
    let outbox = Outbox {
        pool: pool.as_str().into(),
        consumer: Arc::clone(&consumer),
        ledger: Arc::clone(&backend.ledger),
        blobs: blobs.clone(),
        leases: Arc::clone(&leases),
        settings: settings.clone(),
    };
    let outbox = tokio::spawn(outbox.run(left));
    let intake = Intake {
        worker: id,
        consumer,
        ledger: backend.ledger,
        blobs,
        model,
        leases: Arc::clone(&leases),
        window,
        batcher: Arc::clone(&batcher),
        cpu,
        leaving: leaving.clone(),
    };
    intake.run(&stop).await;

    health.not_ready("model", "draining");
    presence.enter(WorkerState::Draining).await;
    let released: Vec<_> =
        batcher.close().into_iter().map(|ready| Leaving { held: ready.held, how: How::Released }).collect();
    tracing::info!(%pool, released = released.len(), "draining");
    // The outbox is gone only if it panicked; then the deliveries come again by themselves.
    drop(leaving.send(released));
    drop(leaving);
    // The outbox ends when the last device and the last preparation have let go of their side of it.
    let drained = timeout(settings.drain_timeout.get(), async {
        join_all(ended).await;
        outbox.await
    });
    let drained = drained.await;
    presence.leave().await;
    match drained {
        Ok(_) => Ok(()),
        Err(_) => Err(WorkerError::DrainTimeout { pool }),
    }
}

enum Background {
    Beat,
    Renew,
}
