//! The ledger test: no accepted job is ever lost, whatever is killed.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use jiff::Timestamp;
use millrace_tests::{BrokerKind, PrivateServer, Process, System, until};
use queue::{Body, JobId, JobRecord, JobState, Ledger};
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, StatusCode};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

const JOBS: usize = 10_000;
const SUBMITTERS: usize = 32;
const WORKERS: usize = 3;

/// How long each part may take that must end: far more than it needs, so that only a fault is slow.
const PATIENCE: Duration = Duration::from_secs(400);

/// How often a job is looked at whose ledger does not answer.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A worker runs at most 8 jobs in 25 ms, so that the kills meet it at work.
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

/// Submits jobs while workers, the gateway and the broker's server are killed, and looks at what became of each.
async fn lose_nothing(kind: BrokerKind) {
    // One that may be killed. The embedded broker has no server.
    let mut server = match kind {
        BrokerKind::Embedded => None,
        _ => Some(PrivateServer::start(kind).await.unwrap()),
    };
    let system = Arc::new(match (&server, kind) {
        (None, _) => System::new(YAML).unwrap(),
        // The classic protocol of groups hands out nothing while a member is missing: here some always are, since a
        // killed one is missed for 6 s.
        (Some(server), BrokerKind::Kafka) => {
            let server = format!("{}?group.protocol=consumer", server.url());
            System::at(kind.urls_at(&server).unwrap(), YAML).unwrap()
        }
        (Some(server), _) => System::at(kind.urls_at(server.url()).unwrap(), YAML).unwrap(),
    });
    let mut gateway = system.gateway().await.unwrap();
    let backend = system.backend().await.unwrap();
    let gauge = backend.broker.gauge().await.unwrap();
    let pool = "echo".parse().unwrap();
    let (url, urls) = watch::channel(gateway.url.clone());
    let accepted = Arc::new(AtomicUsize::new(0));
    let client = Client::builder().no_proxy().build().unwrap();
    let submissions = futures::stream::iter(0..JOBS).map({
        let (accepted, ledger) = (Arc::clone(&accepted), Arc::clone(&backend.ledger));
        move |number| {
            let submitted = submit(client.clone(), number, urls.clone());
            let (accepted, ledger) = (Arc::clone(&accepted), Arc::clone(&ledger));
            async move {
                submitted.await;
                accepted.fetch_add(1, Ordering::Relaxed);
                // Watched from now on: what happens after its first ending must not be taken for it.
                (number, tokio::spawn(ending(ledger, id(number))))
            }
        }
    });
    let submitting = tokio::spawn(submissions.buffer_unordered(SUBMITTERS).collect::<BTreeMap<usize, JoinHandle<_>>>());
    let all_done = CancellationToken::new();
    let killing = tokio::spawn(kill_a_worker_every_second(Arc::clone(&system), all_done.clone()));
    let are_accepted = async |jobs: usize| {
        let mut looks = interval(Duration::from_millis(5));
        // A submitter that has failed ends them all.
        while accepted.load(Ordering::Relaxed) < jobs && !submitting.is_finished() {
            looks.tick().await;
        }
    };

    // The gateway dies in the middle of accepting, and so does the server of the broker.
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
    let began = Instant::now();

    let collecting = async {
        let mut endings = Vec::with_capacity(JOBS);
        for ending in watched.into_values() {
            endings.push(ending.await.unwrap());
        }
        endings
    };
    let Ok(endings) = timeout(PATIENCE, collecting).await else {
        let open = backend.ledger.counts(std::slice::from_ref(&pool)).await;
        let depth = gauge.depths(std::slice::from_ref(&pool)).await.remove(0);
        panic!("not all jobs have ended after {PATIENCE:?}: {open:?}, {depth:?}");
    };
    let drained_seconds = began.elapsed().as_secs_f64();
    all_done.cancel();
    let kills = within("the last worker is killed", killing).await.unwrap().unwrap();

    let (mut succeeded, mut redelivered, mut lost, mut repeated) = (0, 0, 0, 0);
    let mut others: BTreeMap<&str, usize> = BTreeMap::new();
    let mut recovered_at: Option<Timestamp> = None;
    for (number, ending) in endings.iter().enumerate() {
        let record = backend.ledger.get(&id(number)).await.unwrap();
        match &record {
            None => lost += 1,
            Some(record) if record.state == JobState::Succeeded => {
                let output = record.output.as_ref().unwrap();
                assert_eq!(output.body, Body::Inline(body(number).into()));
                succeeded += 1;
                redelivered += usize::from(record.attempts > 1);
                // Taken from the server after its restart, not before.
                if record.started_at >= restarted_at && restarted_at.is_some() {
                    recovered_at = recovered_at.into_iter().chain(record.finished_at).min();
                }
            }
            Some(record) => *others.entry(record.state.as_str()).or_default() += 1,
        }
        // A second effect would have changed it since the job first ended.
        repeated += usize::from(record.as_ref().map(effect) != ending.as_ref().map(effect));
    }
    let recovery = match (restarted_at, recovered_at) {
        (Some(restarted_at), Some(recovered_at)) => {
            let seconds = (recovered_at.as_millisecond() - restarted_at.as_millisecond()) as f64 / 1e3;
            format!("{seconds:.1} s")
        }
        _ => "-".to_owned(),
    };
    // Past the test harness, which shows what a test prints only where the test has failed.
    writeln!(
        std::io::stderr().lock(),
        "\n| broker   | accepted | succeeded | redelivered | lost | effects repeated | recovered in | workers killed | last \
         accepted to last ended |\n| {kind:<8} | {JOBS:>8} | {succeeded:>9} | {redelivered:>11} | {lost:>4} | \
         {repeated:>16} | {recovery:>12} | {kills:>14} | {drained_seconds:>20.1} s |"
    )
    .unwrap();
    assert!(kills >= 5, "the workers were to be killed while they worked, not {kills} times");
    assert!(redelivered > 0, "no kill met a job in flight");
    assert_eq!((succeeded, lost, repeated), (JOBS, 0, 0), "{others:?}");
    assert_eq!(recovered_at.is_some(), server.is_some(), "no job was taken from the restarted server");
    // Deliveries are settled after the results are written, and some worker was killed in between.
    let _worker = system.worker("echo").await.unwrap();
    until("nothing waits in the broker", async || {
        Ok((gauge.depths(std::slice::from_ref(&pool)).await.remove(0)?.waiting() == 0).then_some(()))
    })
    .await
    .unwrap();
}

fn id(number: usize) -> JobId {
    format!("job-{number}").parse().unwrap()
}

fn body(number: usize) -> String {
    format!("the input of job {number}")
}

/// What a job has come to, and by whose hands.
fn effect(record: &JobRecord) -> impl PartialEq + use<> {
    let JobRecord { state, attempts, started_at, finished_at, worker, output, .. } = record.clone();
    (state, attempts, started_at, finished_at, worker, output)
}

/// Submits one job until it is accepted, as a client would: with its own id, again after every failure.
async fn submit(client: Client, number: usize, mut urls: watch::Receiver<String>) {
    loop {
        let url = urls.borrow_and_update().clone();
        let request = client.post(format!("{url}/v1/pools/echo/jobs?id={}", id(number)));
        match request.header("content-type", "text/plain").body(body(number)).send().await {
            Ok(response) if matches!(response.status(), StatusCode::ACCEPTED | StatusCode::OK) => break,
            // The server of the broker or ledger is gone. The gateway says when to ask again.
            Ok(response) if response.status() == StatusCode::SERVICE_UNAVAILABLE => {
                let seconds = response.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
                sleep(Duration::from_secs(seconds)).await;
            }
            Ok(response) => panic!("job {number}: {} {}", response.status(), response.text().await.unwrap()),
            // The gateway is gone: wait for the next one.
            Err(_) => urls.changed().await.unwrap(),
        }
    }
}

/// Keeps workers running, and kills the oldest every second.
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

/// The record of a job when it was first seen to have ended.
async fn ending(ledger: Arc<dyn Ledger>, id: JobId) -> Option<JobRecord> {
    let mut looks = interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        // After an error the ledger's server is gone: the ledger is looked at again.
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

/// What `happening` comes to; if it never does, the test fails and does not hang.
async fn within<T>(what: &str, happening: impl Future<Output = T>) -> T {
    let waited = timeout(PATIENCE, happening).await;
    waited.unwrap_or_else(|_| panic!("it did not happen within {PATIENCE:?} that {what}"))
}
