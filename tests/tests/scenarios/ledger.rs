//! The ledger test: no accepted job is ever lost, whatever is killed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use millrace_tests::{Process, System};
use queue::{Body, JobId, JobRecord, Ledger, State};
use reqwest::{Client, StatusCode};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

const JOBS: usize = 10_000;
const SUBMITTERS: usize = 32;
const WORKERS: usize = 3;

/// How long each part may take that must end: far more than it needs, so that only a fault is slow.
const PATIENCE: Duration = Duration::from_secs(180);

/// A worker runs at most 8 jobs in 25 ms, so that the kills meet it at work.
const YAML: &str = "pools: {echo: {model: 'echo:25ms:8', jobs: {max_attempts: 20}}}";

#[tokio::test(flavor = "multi_thread")]
async fn no_accepted_job_is_lost_when_workers_and_the_gateway_are_killed() {
    let system = Arc::new(System::new(YAML).unwrap());
    let mut gateway = system.gateway().await.unwrap();
    let backend = system.backend().await.unwrap();
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

    // The gateway dies in the middle of accepting.
    let half = async {
        let mut looks = interval(Duration::from_millis(5));
        // A submitter that has failed ends them all.
        while accepted.load(Ordering::Relaxed) < JOBS / 2 && !submitting.is_finished() {
            looks.tick().await;
        }
    };
    within("half of the jobs are accepted", half).await;
    gateway.process.kill().await.unwrap();
    gateway = system.gateway().await.unwrap();
    url.send_replace(gateway.url.clone());
    let watched = within("all jobs are accepted", submitting).await.unwrap();
    let began = Instant::now();

    let collecting = async {
        let mut endings = Vec::with_capacity(JOBS);
        for ending in watched.into_values() {
            endings.push(ending.await.unwrap());
        }
        endings
    };
    let endings = within("all jobs end", collecting).await;
    let drained_seconds = began.elapsed().as_secs_f64();
    all_done.cancel();
    let kills = within("the last worker is killed", killing).await.unwrap().unwrap();

    let (mut succeeded, mut redelivered, mut lost, mut changed) = (0, 0, 0, 0);
    let mut others: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, ending) in endings.iter().enumerate() {
        let record = backend.ledger.get(&id(number)).await.unwrap();
        match &record {
            None => lost += 1,
            Some(record) if record.state == State::Succeeded => {
                let output = record.output.as_ref().unwrap();
                assert_eq!(output.body, Body::Inline(body(number).into()));
                succeeded += 1;
                redelivered += usize::from(record.attempts > 1);
            }
            Some(record) => *others.entry(record.state.as_str()).or_default() += 1,
        }
        // A second effect would have changed the record since it first ended.
        changed += usize::from(&record != ending);
    }
    println!(
        "embedded: accepted {JOBS}, succeeded {succeeded}, redelivered {redelivered}, lost {lost}, effects repeated \
         {changed}, other ends {others:?}; {kills} workers and 1 gateway killed; done {drained_seconds:.1} s after the \
         last was accepted"
    );
    assert!(kills >= 5, "the workers were to be killed while they worked, not {kills} times");
    assert!(redelivered > 0, "no kill met a job in flight");
    assert_eq!((succeeded, lost, changed), (JOBS, 0, 0), "{others:?}");
    let depth = backend.broker.gauge().await.unwrap().depth(&"echo".parse().unwrap()).await.unwrap();
    assert_eq!(depth.waiting(), 0, "{depth:?}");
}

fn id(number: usize) -> JobId {
    format!("job-{number}").parse().unwrap()
}

fn body(number: usize) -> String {
    format!("the input of job {number}")
}

/// Submits one job until it is accepted, as a client would: with its own id, again after every failure.
async fn submit(client: Client, number: usize, mut urls: watch::Receiver<String>) {
    loop {
        let url = urls.borrow_and_update().clone();
        let request = client.post(format!("{url}/v1/pools/echo/jobs?id={}", id(number)));
        match request.header("content-type", "text/plain").body(body(number)).send().await {
            Ok(response) if matches!(response.status(), StatusCode::ACCEPTED | StatusCode::OK) => break,
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
    let mut records = ledger.watch(&id).await.unwrap();
    while let Some(record) = records.next().await {
        let record = record.unwrap();
        if record.state.has_ended() {
            return Some(record);
        }
    }
    None
}

/// What `happening` comes to; if it never does, the test fails and does not hang.
async fn within<T>(what: &str, happening: impl Future<Output = T>) -> T {
    let waited = timeout(PATIENCE, happening).await;
    waited.unwrap_or_else(|_| panic!("it did not happen within {PATIENCE:?} that {what}"))
}
