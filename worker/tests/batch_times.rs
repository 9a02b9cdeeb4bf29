//! The heartbeats of a worker: while it loads, and its batch times under load.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::future::Future;
use std::slice;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use millrace_worker::runtime::{Instance, Item, Model, ModelError};
use millrace_worker::{Worker, WorkerError, WorkerSettings};
use model::{Echo, HostTensor};
use queue::{
    Backend, Blobs, Body, Class, Clock, Input, Job, JobError, JobState, Output, PoolName, WorkerId, WorkerRecord,
    WorkerState,
};
use queue_embedded::StoreOptions;
use service::Health;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    folder: TempDir,
    backend: Backend,
    stop: CancellationToken,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(folder.path().join("data"));
        let backend = queue_embedded::open(&options, Clock::default()).unwrap();
        Self { folder, backend, stop: CancellationToken::new() }
    }

    fn start(&self, model: impl Model + 'static, settings: WorkerSettings) -> JoinHandle<Result<(), WorkerError>> {
        let worker = Worker {
            id: WorkerId::new("tested"),
            pool: pool(),
            settings,
            model: Arc::new(model),
            backend: self.backend.clone(),
            blobs: Blobs::directory(&self.folder.path().join("blobs"), 1024).unwrap(),
            health: Health::new(),
            started: Instant::now(),
        };
        tokio::spawn(millrace_worker::run(worker, self.stop.clone()))
    }

    /// Submits `count` jobs at once.
    async fn submit(&self, count: usize) -> Vec<Job> {
        let jobs: Vec<_> = (0..count).map(|_| job()).collect();
        self.backend.ledger.submit(&jobs).await.unwrap();
        self.backend.broker.producer().await.unwrap().publish(&jobs).await.unwrap();
        jobs
    }

    async fn succeeded(&self, jobs: &[Job]) {
        for job in jobs {
            let records = self.backend.ledger.watch(&job.id).await.unwrap();
            let last = timeout(PATIENCE, records.collect::<Vec<_>>()).await.unwrap().pop().unwrap().unwrap();
            assert_eq!(last.state, JobState::Succeeded);
        }
    }

    /// The worker's record in the roster, once `is_expected` holds for it.
    async fn record(&self, is_expected: impl Fn(&WorkerRecord) -> bool) -> WorkerRecord {
        let mut looks = tokio::time::interval(Duration::from_millis(10));
        let mut last = None;
        let looking = async {
            loop {
                looks.tick().await;
                let workers = self.backend.roster.workers(slice::from_ref(&pool())).await.unwrap().concat();
                if let Some(found) = workers.iter().find(|worker| is_expected(worker)) {
                    return found.clone();
                }
                last = workers.into_iter().next().or(last.take());
            }
        };
        let found: Option<WorkerRecord> = within_patience(looking).await;
        found.unwrap_or_else(|| panic!("the last record: {last:?}"))
    }

    async fn stopped(&self, worker: JoinHandle<Result<(), WorkerError>>) {
        self.stop.cancel();
        timeout(PATIENCE, worker).await.unwrap().unwrap().unwrap();
    }
}

async fn within_patience<T>(future: impl Future<Output = T>) -> Option<T> {
    timeout(PATIENCE, future).await.ok()
}

fn pool() -> PoolName {
    "echo".parse().unwrap()
}

fn job() -> Job {
    Job {
        id: queue::JobId::generate(),
        pool: pool(),
        class: Class::Standard,
        input: Input { media_type: "text/plain".to_owned(), body: Body::Inline(Bytes::from_static(b"echo this")) },
        created_at: Timestamp::from_second(1).unwrap(),
        deadline_at: None,
        max_attempts: 3,
        retention: Duration::from_secs(60),
        trace_parent: None,
        origin: None,
    }
}

/// The echo model with slow preparation. It loads on a signal, and reports each batch.
struct Slow {
    echo: Echo,
    prepare: Duration,
    load: Mutex<Receiver<()>>,
    batches: Sender<usize>,
}

impl Slow {
    /// A model that loads at once.
    fn new(echo: Echo, prepare: Duration) -> (Self, Receiver<usize>) {
        let (slow, load, batches) = Self::waiting(echo, prepare);
        load.send(()).unwrap();
        (slow, batches)
    }

    /// A model that loads one instance per message of the sender.
    fn waiting(echo: Echo, prepare: Duration) -> (Self, Sender<()>, Receiver<usize>) {
        let ((load, loading), (batches, reported)) = (channel(), channel());
        (Self { echo, prepare, load: Mutex::new(loading), batches }, load, reported)
    }
}

impl Model for Slow {
    fn prepare(&self, media_type: &str, body: Bytes) -> Result<Item, JobError> {
        let begun = Instant::now();
        while begun.elapsed() < self.prepare {
            std::thread::park_timeout(self.prepare.saturating_sub(begun.elapsed()));
        }
        self.echo.prepare(media_type, body)
    }

    fn present(&self, tensors: Vec<HostTensor>) -> Result<Output, JobError> {
        self.echo.present(tensors)
    }

    fn max_batch_items(&self) -> usize {
        self.echo.max_batch_items()
    }

    fn instance(&self) -> Result<Box<dyn Instance>, ModelError> {
        self.load.lock().unwrap().recv().map_err(|_| ModelError::model("the test has ended"))?;
        Ok(Box::new(ReportingInstance(self.echo.instance()?, self.batches.clone())))
    }
}

struct ReportingInstance(Box<dyn Instance>, Sender<usize>);

impl Instance for ReportingInstance {
    fn run(&mut self, items: &[Item]) -> Result<Vec<Vec<HostTensor>>, ModelError> {
        // Not every test has a receiver.
        let _ = self.1.send(items.len());
        self.0.run(items)
    }

    fn warm_up(&mut self) -> Result<(), ModelError> {
        self.0.warm_up()
    }
}

/// Items per second in full batches.
fn throughput(record: &WorkerRecord) -> f64 {
    let limit = f64::from(record.batch_limit_items);
    limit / (record.batch_base_seconds + limit * record.batch_item_seconds)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loading_worker_reports_no_measurements() {
    let bench = Bench::new().await;
    let (slow, load, _batches) = Slow::waiting(Echo { max_items: 8, ..Echo::default() }, Duration::ZERO);
    let worker = bench.start(slow, WorkerSettings::default());
    let loading = bench.record(|_| true).await;
    assert_eq!(loading.state, WorkerState::Loading);
    let measured = [
        loading.batch_items,
        loading.batch_seconds,
        loading.batch_base_seconds,
        loading.batch_item_seconds,
        loading.cold_start_seconds,
    ];
    assert_eq!(measured, [0.0; 5]);
    // The limit is known without a measurement.
    assert_eq!(loading.batch_limit_items, 8);
    load.send(()).unwrap();
    let idle = bench.record(|worker| worker.state == WorkerState::Idle).await;
    assert_eq!((idle.batch_base_seconds, idle.batch_item_seconds), (0.0, 0.0));
    bench.stopped(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_estimates_batch_times_from_batches_of_many_sizes() {
    let bench = Bench::new().await;
    let delay = Duration::from_millis(300);
    let worker = bench.start(Echo { delay, max_items: 8, ..Echo::default() }, WorkerSettings::default());
    for count in [1, 9, 2, 7, 16, 1, 3, 8, 1, 5, 1, 9, 2, 8] {
        let jobs = bench.submit(count).await;
        bench.succeeded(&jobs).await;
    }
    // For the echo model, a batch of any size takes the delay. Receiving and claiming also take some time.
    let record = bench.record(|worker| worker.state == WorkerState::Idle && worker.batch_base_seconds > 0.0).await;
    let delay = delay.as_secs_f64();
    let full = record.batch_base_seconds + 8.0 * record.batch_item_seconds;
    assert!(full >= delay && full < 5.0 * delay, "{record:?}");
    assert!(record.batch_base_seconds > 0.5 * delay, "{record:?}");
    assert!(record.batch_items < 6.0 && record.batch_seconds >= delay, "{record:?}");
    // The throughput of full batches exceeds that of the batches that ran.
    assert!(throughput(&record) > record.batch_items / record.batch_seconds, "{record:?}");
    bench.stopped(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_full_load_a_worker_with_two_instances_counts_for_both() {
    let bench = Bench::new().await;
    let delay = Duration::from_millis(500);
    let jobs = bench.submit(80).await;
    let settings = WorkerSettings { instances: 2.try_into().unwrap(), ..WorkerSettings::default() };
    let (slow, load, _batches) = Slow::waiting(Echo { delay, max_items: 4, ..Echo::default() }, Duration::ZERO);
    (0..2).for_each(|_| load.send(()).unwrap());
    let worker = bench.start(slow, settings);
    bench.succeeded(&jobs).await;
    let record = bench.record(|worker| worker.batch_seconds > 0.0 && worker.state == WorkerState::Idle).await;
    assert_eq!(record.batch_limit_items, 8);
    // One instance runs at most 8 items per second.
    let throughput = throughput(&record);
    assert!(throughput > 9.0 && throughput < 17.0, "{throughput}: {record:?}");
    assert!(record.batch_items <= 4.0, "{record:?}");
    bench.stopped(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_waits_for_inputs_to_be_prepared_is_as_slow_as_they_are() {
    let bench = Bench::new().await;
    let prepare = Duration::from_millis(40);
    let jobs = bench.submit(50).await;
    let settings = WorkerSettings { prepare_threads: Some(1.try_into().unwrap()), ..WorkerSettings::default() };
    let (slow, batches) = Slow::new(Echo { max_items: 4, ..Echo::default() }, prepare);
    let worker = bench.start(slow, settings);
    bench.succeeded(&jobs).await;
    let record = bench.record(|worker| worker.batch_seconds > 0.0 && worker.state == WorkerState::Idle).await;
    // One thread prepares 25 items per second; the model itself takes no time.
    let throughput = throughput(&record);
    assert!(throughput < 1.25 / prepare.as_secs_f64(), "{throughput}: {record:?}");
    assert!(throughput > 0.2 / prepare.as_secs_f64(), "{throughput}: {record:?}");
    assert_eq!(batches.try_iter().sum::<usize>(), jobs.len());
    bench.stopped(worker).await;
}
