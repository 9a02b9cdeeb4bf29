//! A steady load of jobs, and what became of each.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use client::{Gateway, NewJob};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::fleet::Fleet;
use super::plan::Plan;

/// The number of open jobs: more than the workers hold, so that all batches are full.
const OPEN_JOBS: usize = 96;

/// How long one request may take. A suspended gateway answers none.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The wait after a request that failed.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// The most jobs that a worker holds: its window has two batches.
const WINDOW: usize = 16;

/// Each fourth job has an input and an output that travel as blobs.
const BLOB_BYTES: usize = 2_000;

/// A load in which a new job follows each that has ended.
pub(super) struct Load {
    stop: CancellationToken,
    give_up: CancellationToken,
    jobs: JoinHandle<BTreeMap<String, Outcome>>,
}

/// The last status document of a job, and its output.
struct Outcome {
    status: Value,
    output: Option<Vec<u8>>,
}

/// What became of all jobs.
pub(super) struct Report {
    jobs: BTreeMap<String, Outcome>,
    seconds: f64,
}

impl Load {
    pub(super) fn start(url: &str) -> Self {
        let http = client::plain_http().unwrap().no_proxy().timeout(REQUEST_TIMEOUT).build().unwrap();
        let gateway = Gateway::with_http(url, http).unwrap();
        let (stop, give_up) = (CancellationToken::new(), CancellationToken::new());
        let jobs = tokio::spawn(run(gateway, stop.clone(), give_up.clone()));
        Self { stop, give_up, jobs }
    }

    /// Submits no more jobs, and waits for the end of those that are open.
    pub(super) async fn finish(mut self, within: Duration) -> Report {
        let begin = Instant::now();
        self.stop.cancel();
        let jobs = match timeout(within, &mut self.jobs).await {
            Ok(jobs) => jobs,
            Err(_) => {
                self.give_up.cancel();
                self.jobs.await
            }
        };
        Report { jobs: jobs.unwrap(), seconds: begin.elapsed().as_secs_f64() }
    }
}

/// Keeps jobs open until it is stopped.
async fn run(gateway: Gateway, stop: CancellationToken, give_up: CancellationToken) -> BTreeMap<String, Outcome> {
    let mut open = FuturesUnordered::new();
    let mut ended = BTreeMap::new();
    for number in 0.. {
        if open.len() == OPEN_JOBS {
            ended.extend(open.next().await);
        }
        if stop.is_cancelled() {
            break;
        }
        open.push(tokio::spawn(one_job(gateway.clone(), format!("job-{number}"), give_up.clone())).map(Result::unwrap));
    }
    ended.extend(open.collect::<Vec<_>>().await);
    ended
}

/// Submits a job until it is accepted, and waits for its end.
async fn one_job(gateway: Gateway, id: String, give_up: CancellationToken) -> (String, Outcome) {
    let ended = async {
        submit(&gateway, &id).await;
        outcome(&gateway, &id).await
    };
    let outcome = match give_up.run_until_cancelled(ended).await {
        Some(outcome) => outcome,
        None => Outcome { status: gateway.job(&id).await.unwrap_or_default(), output: None },
    };
    (id, outcome)
}

async fn submit(gateway: &Gateway, id: &str) {
    let job = NewJob {
        pool: "echo".to_owned(),
        media_type: "text/plain".to_owned(),
        body: body(id).into(),
        class: None,
        deadline: None,
    };
    loop {
        match gateway.submit(Some(id), &job).await {
            Ok(_) => return,
            Err(client::Error::Refused(refusal)) => {
                assert!(refusal.status.is_server_error(), "{id}: refused with {}", refusal.status);
            }
            Err(_) => {}
        }
        sleep(RETRY_INTERVAL).await;
    }
}

fn body(id: &str) -> Vec<u8> {
    let number: usize = id.trim_start_matches("job-").parse().unwrap();
    let length = if number.is_multiple_of(4) { BLOB_BYTES } else { 0 };
    format!("the input of {id}{}", ".".repeat(length)).into_bytes()
}

/// The status document of the job when it has ended, and its output.
async fn outcome(gateway: &Gateway, id: &str) -> Outcome {
    loop {
        match gateway.wait(id, REQUEST_TIMEOUT / 2).await {
            Ok(status) if status["state"] == "succeeded" => {
                return Outcome { status, output: output(gateway, id).await };
            }
            Ok(status) if status["finished_at"].is_string() => return Outcome { status, output: None },
            Ok(_) => {}
            Err(_) => sleep(RETRY_INTERVAL).await,
        }
    }
}

async fn output(gateway: &Gateway, id: &str) -> Option<Vec<u8>> {
    loop {
        let response = gateway.request(Method::GET, &format!("/v1/jobs/{id}/result")).send().await;
        match response {
            Ok(response) if response.status() == StatusCode::OK => {
                if let Ok(bytes) = response.bytes().await {
                    return Some(bytes.to_vec());
                }
            }
            Ok(response) if response.status() != StatusCode::SERVICE_UNAVAILABLE => return None,
            _ => {}
        }
        sleep(RETRY_INTERVAL).await;
    }
}

impl Report {
    /// All jobs have succeeded with their own result. Only jobs of lost workers had a second attempt.
    pub(super) fn check(&self, plan: &Plan, fleet: &Fleet) {
        let faults: Vec<String> = self.jobs.iter().filter_map(|(id, outcome)| outcome.fault(id)).collect();
        let (repeated, lost_workers) = (self.repeated(), fleet.lost_workers());
        let is_good = faults.is_empty() && repeated.len() <= lost_workers * WINDOW && !self.jobs.is_empty();
        if !is_good {
            let first = |list: &[String]| list.iter().take(10).cloned().collect::<Vec<_>>().join("\n");
            let (first_faults, first_repeated) = (first(&faults), first(&repeated));
            panic!("{plan}: {self}\n{first_faults}\nrepeated:\n{first_repeated}\n{}", fleet.log());
        }
    }

    /// The jobs with more than one attempt.
    fn repeated(&self) -> Vec<String> {
        let repeated = self.jobs.iter().filter(|(_, outcome)| outcome.status["attempts"] != 1);
        repeated.map(|(id, outcome)| format!("{id}: {}", outcome.status["attempts"])).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (jobs, seconds) = (self.jobs.len(), self.seconds);
        let faults = self.jobs.iter().filter(|(id, outcome)| outcome.fault(id).is_some()).count();
        let repeated = self.repeated().len();
        write!(
            f,
            "{jobs} jobs, {faults} with a fault, {repeated} with more than one attempt, {seconds:.1} s to the end"
        )
    }
}

impl Outcome {
    fn fault(&self, id: &str) -> Option<String> {
        let Self { status, output } = self;
        if status["state"] != "succeeded" {
            return Some(format!("{id} is {status}"));
        }
        let is_own = output.as_deref() == Some(body(id).as_slice());
        (!is_own).then(|| format!("{id} has another output, of {:?} bytes", output.as_ref().map(Vec::len)))
    }
}
