//! The life of a worker: build, load, serve, drain.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use jiff::Timestamp;
use queue::{Backend, Blobs, PoolName, Upkeep, WorkerId, WorkerRecord, WorkerState};
use rayon::ThreadPoolBuilder;
use service::{ByteSize, Health};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::batch::Batcher;
use crate::device::Device;
use crate::finish::Outbox;
use crate::finish::announcements::Announcements;
use crate::job::input::Inputs;
use crate::job::leases::Leases;
use crate::job::memory::{self, InputMemory};
use crate::job::window::Window;
use crate::job::{Disposition, FinishedJob};
use crate::report::heartbeat::Heartbeat;
use crate::report::metrics;
use crate::runtime::{Model, ModelError};
use crate::settings::WorkerSettings;
use crate::take::Intake;
use crate::watchdog::Watchdog;

/// The condition in [`Health`] that the worker sets.
const CONDITION: &str = "model";

/// The longest wait for the roster to remove this worker. The entry would also expire without this call.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// The interval at which waiting jobs that are cancelled or past their deadline are ended.
const WAITING_JOBS_INTERVAL: Duration = Duration::from_millis(250);

/// The parts and settings of a worker.
pub struct Worker {
    /// The name in ledger and roster. Every start needs another name.
    pub id: WorkerId,
    /// The pool whose jobs it runs.
    pub pool: PoolName,
    /// How it takes and batches jobs.
    pub settings: WorkerSettings,
    /// The model to run.
    pub model: Arc<dyn Model>,
    /// The source of jobs and the destination of results.
    pub backend: Backend,
    /// The store of big inputs and outputs.
    pub blobs: Blobs,
    /// Set to ready while the worker takes jobs.
    pub health: Health,
    /// The start of the process. The cold start is measured from here.
    pub started: Instant,
}

/// The reason why a worker did not start or did not drain in order.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The model could not be loaded or run.
    #[error("pool {pool}: cannot load the model: {source}")]
    Model {
        /// The pool.
        pool: PoolName,
        /// The cause.
        source: ModelError,
    },
    /// Broker, ledger or roster could not be opened.
    #[error(transparent)]
    Queue(#[from] queue::Error),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(String),
    /// A part of the worker ended unexpectedly. Its jobs will be delivered again.
    #[error("pool {pool}: {part} ended unexpectedly; the jobs of this worker will be delivered again")]
    Broken {
        /// The pool.
        pool: PoolName,
        /// The part that ended.
        part: &'static str,
    },
    /// Foreign code did not return. Its thread cannot be stopped, so the process must exit.
    #[error(
        "pool {pool}: {step} takes longer than worker.batch_timeout, {limit:?}; jobs: {jobs}; other workers will run them"
    )]
    Stuck {
        /// The pool.
        pool: PoolName,
        /// What did not return.
        step: &'static str,
        /// The setting.
        limit: Duration,
        /// The ids of the jobs that it was for.
        jobs: String,
    },
    /// All jobs of a batch failed, and so did the warm-up batch. The jobs were requeued without a charge.
    #[error("pool {pool}: the model fails on every input, and on its own warm-up batch: {source}")]
    Faulty {
        /// The pool.
        pool: PoolName,
        /// The error of the warm-up batch.
        source: ModelError,
    },
    /// The last batch did not end in the time to drain. Its jobs will be delivered again.
    #[error("pool {pool}: still running after worker.drain_timeout; the jobs of this worker will be delivered again")]
    DrainTimeout {
        /// The pool.
        pool: PoolName,
    },
}

impl WorkerError {
    /// The exit code of a worker process that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Stuck { .. } => 70,
            Self::Faulty { .. } => 71,
            _ => 1,
        }
    }
}

/// Loads the model, then takes jobs, runs them and settles them until `stop`. Then finishes the batch that runs,
/// requeues the other jobs and returns.
pub async fn run(worker: Worker, stop: CancellationToken) -> Result<(), WorkerError> {
    metrics::describe();
    metrics::cold_start_phase(worker.pool.as_str(), "process", worker.started.elapsed().as_secs_f64());
    let leases = Arc::new(Leases::new(Arc::clone(&worker.backend.ledger), worker.settings.lease.get()));
    let record = WorkerRecord::new(worker.id.clone(), worker.pool.clone(), Timestamp::now());
    let (roster, instances) = (Arc::clone(&worker.backend.roster), worker.settings.instances.get());
    let heartbeat = Heartbeat::new(roster, Arc::clone(&leases), record, max_batch_items(&worker), instances);
    let heartbeat = Arc::new(heartbeat);
    let health = worker.health.clone();
    health.not_ready(CONDITION, "loading");
    let watchdog = Arc::new(Watchdog::new(worker.settings.batch_timeout.get()));
    let (pool, limit) = (worker.pool.clone(), worker.settings.batch_timeout.get());
    let outcome = tokio::select! {
        overdue = watchdog.overdue() => {
            let jobs = overdue.jobs.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(" ");
            tracing::error!(%pool, step = overdue.step, ?limit, jobs, "work does not return; the worker ends");
            Err(WorkerError::Stuck { pool, step: overdue.step, limit, jobs })
        }
        never = heartbeat.run() => match never {},
        never = leases.renew() => match never {},
        outcome = work(worker, &heartbeat, &leases, &watchdog, &stop) => outcome,
    };
    health.not_ready(CONDITION, "ended");
    if timeout(LEAVE_TIMEOUT, heartbeat.leave()).await.is_err() {
        tracing::warn!("the roster does not respond; the entry of this worker will expire");
    }
    outcome
}

async fn work(
    worker: Worker,
    heartbeat: &Arc<Heartbeat>,
    leases: &Arc<Leases>,
    watchdog: &Arc<Watchdog>,
    stop: &CancellationToken,
) -> Result<(), WorkerError> {
    // A device that fails its self-test stops this worker only.
    let stop = &stop.child_token();
    let (device, finished_jobs) = build(&worker, heartbeat, watchdog, stop)?;
    let self_test_error = Arc::clone(&device.self_test_error);
    let any_device_ended = CancellationToken::new();
    let Some(()) = load(&worker, &device, &any_device_ended, stop).await? else { return Ok(()) };
    let connecting = Instant::now();
    let (intake, outbox, upkeep) = connect(&worker, &device, leases).await?;
    metrics::cold_start_phase(worker.pool.as_str(), "broker", connecting.elapsed().as_secs_f64());

    let cold_start_seconds = heartbeat.ready(worker.started).await;
    metrics::became_ready(worker.pool.as_str(), cold_start_seconds);
    worker.health.ready(CONDITION);
    let (id, pool, window) = (&worker.id, &worker.pool, device.window.size());
    tracing::info!(worker = %id, %pool, cold_start_seconds, window, "ready");

    let upkeep = tokio::spawn(upkeep.run(stop.clone()));
    let batcher = Arc::clone(&device.batcher);
    let serving = Serving { intake, outbox: tokio::spawn(outbox.run(finished_jobs)), upkeep, any_device_ended };
    let finished = device.finished.downgrade();
    let outcome = tokio::select! {
        never = end_waiting_jobs(&batcher, &finished) => match never {},
        served = serving.run(drain(&worker, device, stop), stop) => {
            served.map_err(|part| WorkerError::Broken { pool: worker.pool.clone(), part })
        }
        () = drain_timeout(&worker, stop) => Err(WorkerError::DrainTimeout { pool: worker.pool.clone() }),
    };
    match self_test_error.get() {
        Some(source) => Err(WorkerError::Faulty { pool: worker.pool.clone(), source: source.clone() }),
        None => outcome,
    }
}

/// Ends jobs that wait for a device although they must not start any more, within a second. Never returns.
async fn end_waiting_jobs(batcher: &Batcher, finished: &mpsc::WeakUnboundedSender<Vec<FinishedJob>>) -> Infallible {
    let mut looks = interval(WAITING_JOBS_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let ended = batcher.take_ended();
        // Without a sender the outbox has ended, and so have the jobs.
        if let (false, Some(finished)) = (ended.is_empty(), finished.upgrade()) {
            drop(finished.send(FinishedJob::not_run(ended)));
        }
    }
}

/// Builds the parts that need no connection: the first device, from which all others are cloned, and the queue to the
/// outbox.
fn build(
    worker: &Worker,
    heartbeat: &Arc<Heartbeat>,
    watchdog: &Arc<Watchdog>,
    stop: &CancellationToken,
) -> Result<(Device, mpsc::UnboundedReceiver<Vec<FinishedJob>>), WorkerError> {
    let threads = worker.settings.prepare_threads.map_or(0, usize::from);
    let cpu = ThreadPoolBuilder::new().num_threads(threads).thread_name(|number| format!("millrace-cpu-{number}"));
    let (finished, finished_jobs) = mpsc::unbounded_channel();
    let max_batch_items = max_batch_items(worker);
    let memory = InputMemory::new(worker.settings.input_memory.map_or_else(memory::default_bytes, ByteSize::get));
    let device = Device {
        pool: worker.pool.as_str().into(),
        model: Arc::clone(&worker.model),
        batcher: Arc::new(Batcher::new()),
        window: Arc::new(Window::new(max_batch_items, worker.settings.instances.get(), memory.window_bytes())),
        heartbeat: Arc::clone(heartbeat),
        cpu: Arc::new(cpu.build().map_err(|error| WorkerError::Thread(error.to_string()))?),
        ledger: Arc::clone(&worker.backend.ledger),
        inputs: Inputs {
            blobs: worker.blobs.clone(),
            ledger: Arc::clone(&worker.backend.ledger),
            max_bytes: *worker.settings.max_input,
            memory: Arc::new(memory),
        },
        runtime: Handle::current(),
        finished,
        suspects: Arc::default(),
        watchdog: Arc::clone(watchdog),
        self_test_error: Arc::default(),
        stop: stop.clone(),
        max_batch_items,
    };
    Ok((device, finished_jobs))
}

/// Starts the device threads and waits until each has loaded the model. `None`: the worker was stopped meanwhile.
async fn load(
    worker: &Worker,
    device: &Device,
    any_device_ended: &CancellationToken,
    stop: &CancellationToken,
) -> Result<Option<()>, WorkerError> {
    let start = |number| device.clone().start(number, any_device_ended);
    let loading = (0..worker.settings.instances.get()).map(start).collect::<Result<Vec<_>, _>>();
    let loading = loading.map_err(|error| WorkerError::Thread(error.to_string()))?;
    let Some(loaded) = stop.run_until_cancelled(join_all(loading)).await else { return Ok(None) };
    for loaded in loaded {
        let loaded = loaded.unwrap_or_else(|_| Err(ModelError::model("the device thread panicked")));
        loaded.map_err(|source| WorkerError::Model { pool: worker.pool.clone(), source })?;
    }
    Ok(Some(()))
}

/// Connects to the broker, and builds the parts that use it.
async fn connect(
    worker: &Worker,
    device: &Device,
    leases: &Arc<Leases>,
) -> Result<(Intake, Outbox, Upkeep), WorkerError> {
    let Backend { broker, ledger, .. } = &worker.backend;
    let consumer = broker.consumer(&worker.pool).await?;
    let producer = broker.producer().await?;
    let announcer = broker.announcer(&worker.pool).await?;
    let announcements = Announcements { announcer, ledger: Arc::clone(ledger) };
    let upkeep = Upkeep { ledger: Arc::clone(ledger), producer, blobs: worker.blobs.clone() };
    let outbox = Outbox {
        pool: Arc::clone(&device.pool),
        consumer: Arc::clone(&consumer),
        ledger: Arc::clone(ledger),
        announcements: announcements.clone(),
        blobs: worker.blobs.clone(),
        settings: worker.settings.clone(),
    };
    let intake = Intake {
        pool: Arc::clone(&device.pool),
        worker: worker.id.clone(),
        consumer,
        ledger: Arc::clone(ledger),
        announcements,
        blobs: worker.blobs.clone(),
        inputs: device.inputs.clone(),
        model: Arc::clone(&device.model),
        leases: Arc::clone(leases),
        window: Arc::clone(&device.window),
        batcher: Arc::clone(&device.batcher),
        cpu: Arc::clone(&device.cpu),
        watchdog: Arc::clone(&device.watchdog),
        finished: device.finished.clone(),
    };
    Ok((intake, outbox, upkeep))
}

/// The running parts of a worker that takes jobs.
struct Serving {
    intake: Intake,
    outbox: JoinHandle<()>,
    upkeep: JoinHandle<()>,
    any_device_ended: CancellationToken,
}

impl Serving {
    /// Takes jobs until `stop`, and returns when `drain` and the outbox have ended. The error names a part that ended
    /// too early.
    async fn run(self, drain: impl Future<Output = ()>, stop: &CancellationToken) -> Result<(), &'static str> {
        let Self { intake, mut outbox, upkeep, any_device_ended } = self;
        // The outbox ends when all its senders are dropped: devices, preparations, intake and drain.
        tokio::select! {
            () = before_stop(&any_device_ended, stop) => Err("a device thread"),
            () = upkeep_ended(upkeep, stop) => Err("upkeep"),
            ended = &mut outbox => match stop.is_cancelled() {
                true => ended.map_err(|_| "the outbox"),
                false => Err("the outbox"),
            },
            taken = async { tokio::try_join!(intake.run(stop), async { drain.await; Ok(()) }) } => match taken {
                Ok(_) => outbox.await.map_err(|_| "the outbox"),
                Err(part) => Err(part),
            },
        }
    }
}

/// Waits for `stop`, then starts no further batch and requeues the jobs that have not run. Takes ownership of `device`,
/// because its sender would keep the outbox open.
async fn drain(worker: &Worker, device: Device, stop: &CancellationToken) {
    stop.cancelled().await;
    worker.health.not_ready(CONDITION, "draining");
    let waiting = device.batcher.close();
    tracing::info!(pool = %worker.pool, released = waiting.len(), "draining");
    let released = FinishedJob::not_run(waiting.into_iter().map(|ready| (ready.job, Disposition::Released)));
    // The outbox can only be missing after a panic, which ends the worker with an error.
    drop(device.finished.send(released));
    let heartbeat = Arc::clone(&device.heartbeat);
    drop(device);
    heartbeat.enter(WorkerState::Draining).await;
}

fn max_batch_items(worker: &Worker) -> usize {
    let limit = worker.settings.max_batch_items.map_or(usize::MAX, usize::from);
    limit.min(worker.model.max_batch_items()).max(1)
}

/// Returns if `ended` comes before `stop`.
async fn before_stop(ended: &CancellationToken, stop: &CancellationToken) {
    ended.cancelled().await;
    if stop.is_cancelled() {
        std::future::pending().await
    }
}

/// Returns if upkeep ends before `stop`, which only a panic can cause.
async fn upkeep_ended(upkeep: JoinHandle<()>, stop: &CancellationToken) {
    let ended = upkeep.await;
    if ended.is_ok() && stop.is_cancelled() {
        std::future::pending().await
    }
}

/// Returns when the time to drain is over.
async fn drain_timeout(worker: &Worker, stop: &CancellationToken) {
    stop.cancelled().await;
    sleep(worker.settings.drain_timeout.get()).await;
}
