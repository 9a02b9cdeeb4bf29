//! The ledger test: no accepted job is ever lost, no matter which process is killed.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use client::NewJob;
use futures::StreamExt;
use jiff::Timestamp;
use millrace_tests::{BrokerKind, PrivateServer, Process, System, until};
use queue::{Backend, Body, JobId, JobRecord, JobState, Ledger, PoolName};
use reqwest::StatusCode;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

const JOBS: usize = 10_000;
const SUBMITTERS: usize = 32;
const WORKERS: usize = 3;

/// The time limit for each part of the test. It is far longer than needed, so only a fault is slow.
const TIMEOUT: Duration = Duration::from_secs(400);

/// The interval between attempts to watch a job while the ledger does not answer.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

/// A worker runs at most 8 jobs in 25 ms, so it is busy when it is killed.
const YAML: &str = "pools: {echo: {model: 'echo:25ms:8', jobs: {max_attempts: 20}}}";

#[tokio::test(flavor = "multi_thread")]
async fn no_accepted_job_is_lost_when_workers_and_the_gateway_are_killed() {
    lose_nothing(BrokerKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_accepted_job_is_lost_when_workers_the_gateway_and_rabbitmq_are_killed() {
    lose_nothing(BrokerKind::RabbitMq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_accepted_job_is_lost_when_workers_the_gateway_and_kafka_are_killed() {
    lose_nothing(BrokerKind::Kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_accepted_job_is_lost_when_workers_the_gateway_and_redis_are_killed() {
    lose_nothing(BrokerKind::Redis).await;
}

/// Submits jobs while workers, the gateway and the broker's server are killed, and checks the outcome of each job.
async fn lose_nothing(kind: BrokerKind) {
    // A server that the test can kill. The embedded broker has none.
    let mut server = match kind {
        BrokerKind::Embedded => None,
        _ => Some(PrivateServer::start(kind).await.unwrap()),
    };
    let system = Arc::new(system(kind, server.as_ref()));
    let mut gateway = system.gateway().await.unwrap();
    let backend = system.backend().await.unwrap();
    let (url, urls) = watch::channel(gateway.url.clone());
    let accepted = Arc::new(AtomicUsize::new(0));
    let submitting = tokio::spawn(submit_all(Arc::clone(&accepted), Arc::clone(&backend.ledger), urls));
    let all_done = CancellationToken::new();
    let killing = tokio::spawn(kill_a_worker_every_second(Arc::clone(&system), all_done.clone()));
    let are_accepted = async |jobs: usize| {
        let mut checks = interval(Duration::from_millis(5));
        // A submitter that failed ends the task.
        while accepted.load(Ordering::Relaxed) < jobs && !submitting.is_finished() {
            checks.tick().await;
        }
    };

    // The gateway is killed while it accepts jobs, and so is the server of the broker.
    within("half of the jobs are accepted", are_accepted(JOBS / 2)).await;
    gateway.process.kill().await.unwrap();
    gateway = system.gateway().await.unwrap();
    url.send_replace(gateway.url.clone());
    let mut restarted_at = None;
    if let Some(server) = &mut server {
        within("three quarters of the jobs are accepted", are_accepted(JOBS * 3 / 4)).await;
        server.kill().await.unwrap();
        server.start_again().await.unwrap();
        restarted_at = Some(Timestamp::now());
    }
    let watched = within("all jobs are accepted", submitting).await.unwrap();
    let all_accepted = Instant::now();
    let endings = endings(watched, &backend).await;
    let drained_seconds = all_accepted.elapsed().as_secs_f64();
    all_done.cancel();
    let kills = within("the last worker is killed", killing).await.unwrap().unwrap();

    let outcome = Outcome::of(&endings, backend.ledger.as_ref(), restarted_at).await;
    outcome.print(kind, kills, drained_seconds, restarted_at);
    assert!(kills >= 5, "only {kills} workers were killed while jobs ran");
    assert!(outcome.redelivered > 0, "no kill interrupted a job");
    assert_eq!((outcome.succeeded, outcome.lost, outcome.repeated), (JOBS, 0, 0), "{:?}", outcome.others);
    assert_eq!(outcome.recovered_at.is_some(), server.is_some(), "no job was taken from the restarted server");
    // Deliveries are acknowledged after the results are written, and a worker may have been killed in between.
    let _worker = system.worker("echo").await.unwrap();
    let gauge = backend.broker.gauge().await.unwrap();
    until("no job waits in the broker", async || {
        Ok((gauge.depths(&[pool()]).await.remove(0)?.waiting() == 0).then_some(()))
    })
    .await
    .unwrap();
}

fn system(kind: BrokerKind, server: Option<&PrivateServer>) -> System {
    match (server, kind) {
        (None, _) => System::new(YAML).unwrap(),
        // With the classic protocol, a group waits for its missing members before it assigns partitions. Here members are
        // always missing, because a killed one expires after 6 s.
        (Some(server), BrokerKind::Kafka) => {
            let server = format!("{}?group.protocol=consumer", server.url());
            System::at(kind.urls_at(&server).unwrap(), YAML).unwrap()
        }
        (Some(server), _) => System::at(kind.urls_at(server.url()).unwrap(), YAML).unwrap(),
    }
}

type Watched = BTreeMap<usize, JoinHandle<Option<JobRecord>>>;

/// Submits all jobs; a task for each accepted job watches the ledger.
async fn submit_all(accepted: Arc<AtomicUsize>, ledger: Arc<dyn Ledger>, urls: watch::Receiver<String>) -> Watched {
    let http = client::plain_http().unwrap().no_proxy().build().unwrap();
    let submissions = futures::stream::iter(0..JOBS).map(move |number| {
        let submitted = submit(http.clone(), number, urls.clone());
        let (accepted, ledger) = (Arc::clone(&accepted), Arc::clone(&ledger));
        async move {
            submitted.await;
            accepted.fetch_add(1, Ordering::Relaxed);
            // The watch starts now, so that a later change of the record cannot be taken for the first ending.
            (number, tokio::spawn(ending(ledger, id(number))))
        }
    });
    submissions.buffer_unordered(SUBMITTERS).collect().await
}

/// The first ending of each job, in the order of their numbers.
async fn endings(watched: Watched, backend: &Backend) -> Vec<Option<JobRecord>> {
    let collecting = async {
        let mut endings = Vec::with_capacity(JOBS);
        for ending in watched.into_values() {
            endings.push(ending.await.unwrap());
        }
        endings
    };
    let Ok(endings) = timeout(TIMEOUT, collecting).await else {
        let open = backend.ledger.counts(&[pool()]).await;
        let depth = backend.broker.gauge().await.unwrap().depths(&[pool()]).await.remove(0);
        panic!("not all jobs have ended after {TIMEOUT:?}: {open:?}, {depth:?}");
    };
    endings
}

/// The final records of all jobs, counted.
#[derive(Default)]
struct Outcome {
    succeeded: usize,
    redelivered: usize,
    lost: usize,
    /// Jobs whose record changed after their first ending.
    repeated: usize,
    /// Jobs in any other state.
    others: BTreeMap<&'static str, usize>,
    /// The first ending of a job that was taken from the server after its restart.
    recovered_at: Option<Timestamp>,
}

impl Outcome {
    async fn of(endings: &[Option<JobRecord>], ledger: &dyn Ledger, restarted_at: Option<Timestamp>) -> Self {
        let mut outcome = Self::default();
        for (number, ending) in endings.iter().enumerate() {
            let record = ledger.get(&id(number)).await.unwrap();
            match &record {
                None => outcome.lost += 1,
                Some(record) if record.state == JobState::Succeeded => {
                    let output = record.output.as_ref().unwrap();
                    assert_eq!(output.body, Body::Inline(body(number).into()));
                    outcome.succeeded += 1;
                    outcome.redelivered += usize::from(record.attempts > 1);
                    if record.started_at >= restarted_at && restarted_at.is_some() {
                        outcome.recovered_at = outcome.recovered_at.into_iter().chain(record.finished_at).min();
                    }
                }
                Some(record) => *outcome.others.entry(record.state.as_str()).or_default() += 1,
            }
            // A second effect would have changed the record since the first ending.
            outcome.repeated += usize::from(record.as_ref().map(effect) != ending.as_ref().map(effect));
        }
        outcome
    }

    fn print(&self, kind: BrokerKind, kills: usize, drained_seconds: f64, restarted_at: Option<Timestamp>) {
        let Self { succeeded, redelivered, lost, repeated, .. } = self;
        let recovery = match (restarted_at, self.recovered_at) {
            (Some(restarted_at), Some(recovered_at)) => {
                let seconds = (recovered_at.as_millisecond() - restarted_at.as_millisecond()) as f64 / 1e3;
                format!("{seconds:.1} s")
            }
            _ => "-".to_owned(),
        };
        // Written to standard error directly, because the test harness prints the output of a failed test only.
        writeln!(
            std::io::stderr().lock(),
            "\n| broker   | accepted | succeeded | redelivered | lost | effects repeated | recovered in | workers killed | \
             last accepted to last ended |\n| {kind:<8} | {JOBS:>8} | {succeeded:>9} | {redelivered:>11} | {lost:>4} | \
             {repeated:>16} | {recovery:>12} | {kills:>14} | {drained_seconds:>20.1} s |"
        )
        .unwrap();
    }
}

fn pool() -> PoolName {
    "echo".parse().unwrap()
}

fn id(number: usize) -> JobId {
    format!("job-{number}").parse().unwrap()
}

fn body(number: usize) -> String {
    format!("the input of job {number}")
}

/// The fields of a record that a second effect would change.
fn effect(record: &JobRecord) -> impl PartialEq + use<> {
    let JobRecord { state, attempts, started_at, finished_at, worker, output, .. } = record.clone();
    (state, attempts, started_at, finished_at, worker, output)
}

/// Submits one job until it is accepted, as a client does: with its own id, and again after every failure.
async fn submit(http: reqwest::Client, number: usize, mut urls: watch::Receiver<String>) {
    let job = NewJob {
        pool: pool().as_str().to_owned(),
        media_type: "text/plain".to_owned(),
        body: body(number).into(),
        class: None,
        deadline: None,
    };
    loop {
        let gateway = client::Gateway::with_http(&urls.borrow_and_update(), http.clone()).unwrap();
        match gateway.submit(Some(id(number).as_str()), &job).await {
            Ok(_accepted) => break,
            // The server of the broker or ledger is down. The gateway sends the time for the next attempt.
            Err(client::Error::Refused(refusal)) if refusal.status == StatusCode::SERVICE_UNAVAILABLE => {
                sleep(refusal.retry_after.unwrap()).await;
            }
            // The gateway is down. The next one has another URL.
            Err(client::Error::Unreachable { .. }) => urls.changed().await.unwrap(),
            Err(error) => panic!("job {number}: {error}"),
        }
    }
}

/// Runs workers, kills the oldest every second, and replaces it.
async fn kill_a_worker_every_second(system: Arc<System>, until: CancellationToken) -> anyhow::Result<usize> {
    let start = || system.start("worker", &["--pool", "echo"]);
    let mut workers: Vec<Process> = (0..WORKERS).map(|_| start()).collect::<Result<_, _>>()?;
    let mut seconds = interval(Duration::from_secs(1));
    seconds.tick().await;
    let mut kills = 0;
    while until.run_until_cancelled(seconds.tick()).await.is_some() {
        workers.remove(0).kill().await?;
        kills += 1;
        workers.push(start()?);
    }
    Ok(kills)
}

/// The record of a job at its first ending.
async fn ending(ledger: Arc<dyn Ledger>, id: JobId) -> Option<JobRecord> {
    let mut attempts = interval(WATCH_INTERVAL);
    loop {
        attempts.tick().await;
        // An error means that the server of the ledger is down, so the watch is started again.
        let Ok(mut records) = ledger.watch(&id).await else { continue };
        loop {
            match records.next().await {
                Some(Ok(record)) if record.state.has_ended() => return Some(record),
                Some(Ok(_)) => {}
                Some(Err(_)) => break,
                None => return None,
            }
        }
    }
}

/// The output of a future. If the future does not end, the test fails and does not hang.
async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let output = timeout(TIMEOUT, future).await;
    output.unwrap_or_else(|_| panic!("this did not happen within {TIMEOUT:?}: {what}"))
}
