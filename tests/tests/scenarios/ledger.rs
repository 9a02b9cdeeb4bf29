//! The ledger test: no accepted job is ever lost, whatever is killed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use millrace_tests::{Process, System};
use queue::{Backend, Body, JobId, JobRecord, State};
use reqwest::{Client, StatusCode};
use tokio::sync::watch;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

const JOBS: usize = 10_000;
const SUBMITTERS: usize = 32;
const WORKERS: usize = 3;

/// A worker runs at most 8 jobs in 25 ms, so that the kills meet it at work.
const YAML: &str = "pools: {echo: {model: 'echo:25ms:8', jobs: {max_attempts: 20}}}";

#[tokio::test(flavor = "multi_thread")]
async fn no_accepted_job_is_lost_when_workers_and_the_gateway_are_killed() {
    let system = Arc::new(System::new(YAML).unwrap());
    let mut gateway = system.gateway().await.unwrap();
    let (url, urls) = watch::channel(gateway.url.clone());
    let accepted = Arc::new(AtomicUsize::new(0));
    let submitting = futures::stream::iter(0..JOBS).for_each_concurrent(SUBMITTERS, {
        let (accepted, urls) = (Arc::clone(&accepted), urls.clone());
        move |number| submit(number, urls.clone(), Arc::clone(&accepted))
    });
    let submitting = tokio::spawn(submitting);
    let all_done = CancellationToken::new();
    let killing = tokio::spawn(kill_a_worker_every_second(Arc::clone(&system), all_done.clone()));

    // The gateway dies in the middle of accepting.
    let half = async {
        let mut looks = interval(Duration::from_millis(5));
        while accepted.load(Ordering::Relaxed) < JOBS / 2 {
            looks.tick().await;
        }
    };
    half.await;
    gateway.process.kill().await.unwrap();
    gateway = system.gateway().await.unwrap();
    url.send_replace(gateway.url.clone());
    submitting.await.unwrap();
    let began = Instant::now();

    let backend = system.backend().await.unwrap();
    let endings = endings(&backend).await;
    let drained_seconds = began.elapsed().as_secs_f64();
    all_done.cancel();
    let kills = killing.await.unwrap().unwrap();

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
async fn submit(number: usize, mut urls: watch::Receiver<String>, accepted: Arc<AtomicUsize>) {
    let client = Client::builder().no_proxy().build().unwrap();
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
    accepted.fetch_add(1, Ordering::Relaxed);
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

/// The record of each job when it was first seen to have ended.
async fn endings(backend: &Backend) -> Vec<Option<JobRecord>> {
    let watched = (0..JOBS).map(|number| async move {
        let mut records = backend.ledger.watch(&id(number)).await.unwrap();
        let mut last = None;
        while let Some(record) = records.next().await {
            last = Some(record.unwrap());
        }
        last
    });
    let watched = futures::stream::iter(watched).buffered(1_000).collect();
    tokio::time::timeout(Duration::from_secs(180), watched).await.expect("jobs are still open after 180 s")
}
