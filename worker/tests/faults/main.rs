//! A worker whose broker and ledger fail: every job still ends exactly once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use millrace_worker::runtime::{Instance, Item, Model, ModelError, ModelErrorKind};
use millrace_worker::{Worker, WorkerError, WorkerSettings};
use model::{Echo, HostTensor};
use queue::{
    Announcer, Backend, Blobs, Body, Broker, Claim, ClaimRequest, Class, Clock, Consumer, Delivery, Ending, Finish,
    Gauge, Input, Job, JobError, JobRecord, JobState, Outcome, Output, PoolExpectation, PoolName, Producer,
    Publication, Risk, Role, Settlement, WorkerId,
};
use queue_contract::faulty::{Call, Fault, Faulty};
use queue_embedded::StoreOptions;
use service::Health;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

mod bad_values;
mod device;
mod inputs;

const PATIENCE: Duration = Duration::from_secs(60);

/// Longer inputs and outputs are files.
const INLINE_BYTES: usize = 64;

struct Bench {
    folder: TempDir,
    faulty: Faulty,
    /// The backend of the worker, with faults.
    flawed: Backend,
    /// The same backend without faults.
    sound: Backend,
    stop: CancellationToken,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(folder.path().join("data"));
        let sound = queue_embedded::open(&options, Clock::default()).unwrap();
        let faulty = Faulty::default();
        let flawed = faulty.wrap(sound.clone());
        Self { folder, faulty, flawed, sound, stop: CancellationToken::new() }
    }

    fn start(&self, model: Echo) -> JoinHandle<Result<(), WorkerError>> {
        self.start_with(model, WorkerSettings::default())
    }

    fn start_with(&self, model: Echo, settings: WorkerSettings) -> JoinHandle<Result<(), WorkerError>> {
        self.start_named("tested", Arc::new(model), settings)
    }

    fn start_named(
        &self,
        id: &str,
        model: Arc<dyn Model>,
        settings: WorkerSettings,
    ) -> JoinHandle<Result<(), WorkerError>> {
        let worker = Worker {
            id: WorkerId::new(id),
            pool: pool(),
            settings: WorkerSettings { retry_initial: service::Period::millis(1), ..settings },
            model,
            backend: self.flawed.clone(),
            blobs: self.blobs(),
            health: Health::new(),
            started: Instant::now(),
        };
        tokio::spawn(millrace_worker::run(worker, self.stop.clone()))
    }

    fn blobs(&self) -> Blobs {
        Blobs::directory(&self.folder.path().join("blobs"), INLINE_BYTES).unwrap()
    }

    async fn submit(&self, bodies: &[&'static str]) {
        self.submit_jobs(bodies.iter().map(|body| job(body)).collect()).await;
    }

    async fn submit_jobs(&self, jobs: Vec<Job>) {
        self.sound.ledger.submit(&jobs).await.unwrap();
        self.sound.broker.producer().await.unwrap().publish(&jobs).await.unwrap();
        let publications: Vec<_> = jobs.iter().map(|job| Publication::first(job.id.clone())).collect();
        self.sound.ledger.published(&publications).await.unwrap();
    }

    async fn ended(&self, body: &'static str) -> JobRecord {
        let records = self.sound.ledger.watch(&job(body).id).await.unwrap();
        let records: Vec<_> = timeout(PATIENCE, records.collect()).await.unwrap();
        records.into_iter().last().unwrap().unwrap()
    }

    /// Stops the worker. No job may be on lease afterwards.
    async fn stopped(&self, worker: JoinHandle<Result<(), WorkerError>>) {
        self.stop.cancel();
        timeout(PATIENCE, worker).await.unwrap().unwrap().unwrap();
        assert_eq!(self.sound.ledger.counts(&[pool()]).await.unwrap()[0].leased, 0);
    }

    async fn in_broker(&self) -> u64 {
        let depth = self.sound.broker.gauge().await.unwrap().depths(&[pool()]).await.remove(0).unwrap();
        depth.waiting() + depth.in_flight.unwrap()
    }
}

/// A broker that cannot read the messages of jobs with a single attempt.
struct Garbling(Arc<dyn Broker>);

struct GarblingConsumer(Arc<dyn Consumer>);

const REASON: &str = "specversion: is missing";

#[async_trait]
impl Broker for Garbling {
    async fn producer(&self) -> queue::Result<Arc<dyn Producer>> {
        self.0.producer().await
    }

    async fn consumer(&self, pool: &PoolName) -> queue::Result<Arc<dyn Consumer>> {
        Ok(Arc::new(GarblingConsumer(self.0.consumer(pool).await?)))
    }

    async fn gauge(&self) -> queue::Result<Arc<dyn Gauge>> {
        self.0.gauge().await
    }

    async fn announcer(&self, pool: &PoolName) -> queue::Result<Option<Arc<dyn Announcer>>> {
        self.0.announcer(pool).await
    }

    async fn risks(&self, pools: &[PoolExpectation]) -> queue::Result<Vec<Risk>> {
        self.0.risks(pools).await
    }
}

#[async_trait]
impl Consumer for GarblingConsumer {
    async fn receive(&self, max: usize) -> queue::Result<Vec<Delivery>> {
        let mut deliveries = self.0.receive(max).await?;
        for delivery in deliveries.iter_mut().filter(|delivery| delivery.job.max_attempts == 1) {
            delivery.unreadable = Some(REASON.to_owned());
        }
        Ok(deliveries)
    }

    async fn settle(&self, deliveries: Vec<(Delivery, Settlement)>) -> queue::Result<()> {
        self.0.settle(deliveries).await
    }
}

/// A broker whose pool has a place for endings, and the endings that were published there.
#[derive(Clone)]
struct Publishing(Arc<dyn Broker>, Arc<Mutex<Vec<Ending>>>);

impl Publishing {
    fn published(&self) -> Vec<(String, JobState)> {
        let published = |ending: &Ending| (ending.id.to_string(), ending.state);
        self.1.lock().unwrap().iter().map(published).collect()
    }
}

#[async_trait]
impl Broker for Publishing {
    async fn producer(&self) -> queue::Result<Arc<dyn Producer>> {
        self.0.producer().await
    }

    async fn consumer(&self, pool: &PoolName) -> queue::Result<Arc<dyn Consumer>> {
        self.0.consumer(pool).await
    }

    async fn gauge(&self) -> queue::Result<Arc<dyn Gauge>> {
        self.0.gauge().await
    }

    async fn announcer(&self, _: &PoolName) -> queue::Result<Option<Arc<dyn Announcer>>> {
        Ok(Some(Arc::new(self.clone())))
    }

    async fn risks(&self, pools: &[PoolExpectation]) -> queue::Result<Vec<Risk>> {
        self.0.risks(pools).await
    }
}

#[async_trait]
impl Announcer for Publishing {
    async fn announce(&self, endings: &[Ending]) -> queue::Result<()> {
        self.1.lock().unwrap().extend_from_slice(endings);
        Ok(())
    }
}

fn pool() -> PoolName {
    "echo".parse().unwrap()
}

/// A job whose id is derived from its body.
fn job(body: &'static str) -> Job {
    Job {
        id: body.replace(' ', "-").parse().unwrap(),
        pool: pool(),
        class: Class::Standard,
        input: Input { media_type: "text/plain".to_owned(), body: Body::Inline(Bytes::from_static(body.as_bytes())) },
        created_at: Timestamp::from_second(1).unwrap(),
        deadline_at: None,
        max_attempts: 3,
        retention: Duration::from_secs(60),
        trace_parent: None,
        origin: None,
    }
}

fn output(record: &JobRecord) -> &Body {
    &record.output.as_ref().unwrap().body
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_written_however_often_the_ledger_fails_and_settled_only_then() {
    let bench = Bench::new().await;
    bench.faulty.order(Call::Finish, Fault::Fail, 3);
    bench.submit(&["one", "two"]).await;
    let worker = bench.start(Echo::with_faults());
    for body in ["one", "two"] {
        let record = bench.ended(body).await;
        assert_eq!((record.state, record.attempts), (JobState::Succeeded, 1));
        assert_eq!(output(&record), &job(body).input.body);
    }
    assert_eq!(bench.faulty.left(Call::Finish), 0);
    bench.stopped(worker).await;
    assert_eq!(bench.in_broker().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finish_whose_answer_is_lost_has_one_effect() {
    let bench = Bench::new().await;
    bench.faulty.order(Call::Finish, Fault::LoseAnswer, 1);
    bench.submit(&["one"]).await;
    let worker = bench.start(Echo::with_faults());
    let first = bench.ended("one").await;
    assert_eq!(first.state, JobState::Succeeded);
    bench.stopped(worker).await;
    assert_eq!(bench.sound.ledger.get(&first.id).await.unwrap().unwrap(), first);
    assert_eq!(bench.in_broker().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_could_not_be_received_or_claimed_is_delivered_again() {
    let bench = Bench::new().await;
    bench.faulty.order(Call::Receive, Fault::Fail, 1);
    // More failures than the number of calls that the worker makes before a lease would have expired.
    bench.faulty.order(Call::Claim, Fault::Fail, 4);
    bench.submit(&["one"]).await;
    let lease = service::Period::millis(100);
    let worker = bench.start_with(Echo::with_faults(), WorkerSettings { lease, ..WorkerSettings::default() });
    assert_eq!(bench.ended("one").await.state, JobState::Succeeded);
    assert_eq!(bench.faulty.left(Call::Claim), 0);
    bench.stopped(worker).await;
    assert_eq!(bench.in_broker().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_claim_was_not_answered_is_charged_for_one_attempt_and_is_no_suspect() {
    let bench = Bench::new().await;
    bench.faulty.order(Call::Claim, Fault::LoseAnswer, 2);
    bench.submit_jobs(vec![Job { max_attempts: 1, ..job("one") }]).await;
    let worker = bench.start(Echo::with_faults());
    bench.ended("one").await;
    let record = bench.sound.ledger.get(&job("one").id).await.unwrap().unwrap();
    assert_eq!((record.state, record.attempts, record.history.len()), (JobState::Succeeded, 1, 0));
    bench.stopped(worker).await;
    assert_eq!((bench.in_broker().await, bench.faulty.left(Call::Claim)), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_repeated_for_longer_than_its_lease() {
    let bench = Bench::new().await;
    let lease = service::Period::seconds(2);
    // One more than the number of calls that the worker makes within a lease.
    bench.faulty.order(Call::Claim, Fault::LoseAnswer, 4);
    bench.submit_jobs(vec![Job { max_attempts: 1, ..job("one") }]).await;
    let worker = bench.start_with(Echo::with_faults(), WorkerSettings { lease, ..WorkerSettings::default() });
    bench.ended("one").await;
    let record = bench.sound.ledger.get(&job("one").id).await.unwrap().unwrap();
    assert_eq!((record.state, record.attempts, record.history.len()), (JobState::Succeeded, 1, 0));
    bench.stopped(worker).await;
    assert_eq!((bench.in_broker().await, bench.faulty.left(Call::Claim)), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_message_of_a_job_runs_the_edited_input() {
    let bench = Bench::new().await;
    let (id, blobs) = (job("one").id, bench.blobs());
    let long = |text: &str| text.repeat(INLINE_BYTES).into();
    let former = blobs.body(&id, Role::Input, long("former")).await.unwrap();
    let Body::Reference(former_blob) = former.clone() else { panic!("it is longer than {INLINE_BYTES} bytes") };
    let input = |body| Input { media_type: "text/plain".to_owned(), body };
    let stale = Job { input: input(former), ..job("one") };
    bench.submit_jobs(vec![stale.clone()]).await;
    // Another worker fails the job, and its input is edited. Its first message is still in the broker.
    let request = ClaimRequest::new(stale, false);
    let lease = bench.sound.ledger.claim(&WorkerId::new("other"), vec![request], PATIENCE).await.unwrap();
    let [Claim::Granted { lease, .. }] = &lease[..] else { panic!("{lease:?}") };
    let error = JobError { kind: "bad_input".to_owned(), message: "no text".to_owned() };
    let finish = Finish { lease: lease.clone(), outcome: Outcome::Failed(error) };
    bench.sound.ledger.finish(vec![finish]).await.unwrap();
    let edited = blobs.body(&id, Role::Input, long("edited")).await.unwrap();
    bench.sound.ledger.requeue(&id, Some(input(edited))).await.unwrap();
    blobs.delete(&former_blob).await.unwrap();

    let worker = bench.start(Echo::with_faults());
    let record = bench.ended("one").await;
    assert_eq!((record.state, &record.error), (JobState::Succeeded, &None));
    assert_eq!(blobs.bytes(output(&record)).await.unwrap(), long("edited"));
    bench.stopped(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_store_that_is_away_costs_time_and_no_attempt() {
    let bench = Bench::new().await;
    let blobs = bench.blobs();
    let long: Bytes = "long".repeat(INLINE_BYTES).into();
    let body = blobs.body(&job("big").id, Role::Input, long.clone()).await.unwrap();
    let input = Input { media_type: "text/plain".to_owned(), body };
    let big = Job { input, max_attempts: 1, ..job("big") };
    let worker = bench.start(Echo::with_faults());
    // A job that has ended shows that the worker runs before the folder goes.
    bench.submit(&["first"]).await;
    bench.ended("first").await;
    let (folder, away) = (bench.folder.path().join("blobs"), bench.folder.path().join("away"));
    std::fs::rename(&folder, &away).unwrap();
    bench.submit_jobs(vec![big]).await;
    bench.submit(&["small"]).await;
    // A small job that came later ends meanwhile.
    assert_eq!(bench.ended("small").await.state, JobState::Succeeded);
    assert!(!folder.exists());
    std::fs::rename(&away, &folder).unwrap();
    let record = bench.ended("big").await;
    assert_eq!((record.state, record.attempts), (JobState::Succeeded, 1));
    assert_eq!(blobs.bytes(output(&record)).await.unwrap(), long);
    bench.stopped(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_job_is_dead_after_its_attempts_and_a_bad_input_fails_at_once_beside_good_jobs() {
    let bench = Bench::new().await;
    bench.submit(&["good", "fail:model", "fail:input", "fine"]).await;
    let worker = bench.start(Echo::with_faults());
    for body in ["good", "fine"] {
        assert_eq!(bench.ended(body).await.state, JobState::Succeeded);
    }
    let refused = bench.ended("fail:input").await;
    assert_eq!((refused.state, refused.attempts), (JobState::Failed, 1));
    let poison = bench.ended("fail:model").await;
    assert_eq!((poison.state, poison.attempts), (JobState::Dead, 3));
    assert_eq!(poison.error.unwrap().kind, "model_error");
    bench.stopped(worker).await;
    assert_eq!(bench.in_broker().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_result_of_a_job_that_was_cancelled_while_it_ran_is_refused() {
    let bench = Bench::new().await;
    // The failures delay the result, so that the test finds the job leased.
    bench.faulty.order(Call::Finish, Fault::Fail, 4);
    bench.submit(&["one"]).await;
    let worker = bench.start(Echo::with_faults());
    let id = job("one").id;
    let mut looks = tokio::time::interval(Duration::from_millis(1));
    let leased = async {
        while bench.sound.ledger.get(&id).await.unwrap().unwrap().state != JobState::Leased {
            looks.tick().await;
        }
    };
    timeout(PATIENCE, leased).await.unwrap();
    let cancelled = bench.sound.ledger.cancel(&id).await.unwrap().unwrap();
    assert_eq!(cancelled.state, JobState::Cancelled);
    bench.stopped(worker).await;
    assert_eq!(bench.sound.ledger.get(&id).await.unwrap().unwrap(), cancelled);
    assert_eq!(bench.in_broker().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_read_is_dead_at_once_with_its_bytes_and_blocks_nothing() {
    let mut bench = Bench::new().await;
    bench.flawed.broker = Arc::new(Garbling(bench.flawed.broker.clone()));
    // A worker that prepared it would fail it.
    let unreadable = Job { max_attempts: 1, ..job("fail:input") };
    bench.submit_jobs(vec![unreadable.clone(), job("good")]).await;
    let worker = bench.start(Echo::with_faults());
    assert_eq!(bench.ended("good").await.state, JobState::Succeeded);
    bench.ended("fail:input").await;
    let record = bench.sound.ledger.get(&unreadable.id).await.unwrap().unwrap();
    assert_eq!((record.state, record.attempts), (JobState::Dead, 1));
    let error = record.error.unwrap();
    assert_eq!((error.kind.as_str(), error.message.as_str()), ("unreadable_message", REASON));
    assert_eq!(record.history.len(), 1);
    assert_eq!(bench.sound.ledger.input(&unreadable.id).await.unwrap(), Some(unreadable.input));
    bench.stopped(worker).await;
    assert_eq!(bench.in_broker().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_ending_is_published_although_publishing_fails_and_only_then_is_the_delivery_settled() {
    let mut bench = Bench::new().await;
    let publishing = Publishing(bench.sound.broker.clone(), Arc::default());
    bench.flawed = bench.faulty.wrap(Backend { broker: Arc::new(publishing.clone()), ..bench.sound.clone() });
    // The first attempt of the outbox fails, and that of the intake after the redelivery.
    bench.faulty.order(Call::Announce, Fault::Fail, 2);
    bench.submit(&["good", "fail:input", "fail:model", "cancelled"]).await;
    let cancelled = bench.sound.ledger.cancel(&job("cancelled").id).await.unwrap().unwrap();
    assert_eq!(cancelled.state, JobState::Cancelled);
    let worker = bench.start(Echo::with_faults());
    let expected = BTreeSet::from([
        ("cancelled".to_owned(), JobState::Cancelled),
        ("fail:input".to_owned(), JobState::Failed),
        ("fail:model".to_owned(), JobState::Dead),
        ("good".to_owned(), JobState::Succeeded),
    ]);
    let mut looks = tokio::time::interval(Duration::from_millis(1));
    let published = async {
        while publishing.published().into_iter().collect::<BTreeSet<_>>() != expected || bench.in_broker().await > 0 {
            looks.tick().await;
        }
    };
    timeout(PATIENCE, published).await.unwrap();
    assert_eq!(bench.faulty.left(Call::Announce), 0);
    bench.stopped(worker).await;
}
