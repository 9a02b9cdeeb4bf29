//! Talks to a gateway until a job has ended, or its time is over.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use queue::{Class, JobId, PoolName};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use service::Period;

use super::files::InputFile;
use super::outcome::{Answer, Failure, Outcome};
use crate::http::{gateway_url, innermost};

/// How long one question may be held back by the gateway.
const LONG_POLL: Duration = Duration::from_secs(20);
/// How long after a request the gateway counts as away; longer than it may hold an answer back.
const ANSWER: Duration = Duration::from_secs(30);
/// What an answer may take beyond the time of the job: one that is on its way is worth having.
const GRACE: Duration = Duration::from_secs(2);
/// The pauses between attempts grow from the one to the other.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What is said of every job.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) pool: PoolName,
    pub(super) class: Option<Class>,
    pub(super) deadline: Option<Period>,
    pub(super) timeout: Duration,
}

/// A gateway and what is said of every job.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    gateway: String,
    options: Options,
}

/// The parts of a problem document that matter here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: String,
    detail: String,
    state: Option<String>,
}

impl Client {
    pub(super) fn new(gateway: &str, options: Options) -> anyhow::Result<Self> {
        let gateway = gateway_url(gateway)?;
        let http = reqwest::Client::builder()
            .tcp_nodelay(true)
            .timeout(ANSWER)
            .build()
            .context("cannot make an HTTP client")?;
        Ok(Self { http, gateway, options })
    }

    /// Waits, as long as a job may take, until the gateway answers at all.
    pub(super) async fn reach(&self) -> anyhow::Result<()> {
        let mut patience = Patience::new(self.options.timeout);
        loop {
            let asking = self.http.get(format!("{}/livez", self.gateway)).timeout(patience.left());
            match asking.send().await {
                Ok(_answered) => return Ok(()),
                Err(error) => {
                    if !patience.pause().await {
                        bail!("the gateway at {} cannot be reached: {}", self.gateway, innermost(&error));
                    }
                }
            }
        }
    }

    /// Sends a file and waits for what becomes of it.
    pub(super) async fn run(&self, file: InputFile, with_truth: bool) -> Outcome {
        let started = Instant::now();
        let id = JobId::generate();
        let truth = if with_truth { file.truth() } else { None };
        let end = self.end_of(&id, &file).await;
        Outcome { path: file.path, id, elapsed: started.elapsed(), truth, end }
    }

    async fn end_of(&self, id: &JobId, file: &InputFile) -> Result<Answer, Failure> {
        let body = tokio::fs::read(&file.path).await.map_err(|error| failure("unreadable", error.to_string()))?;
        let body = bytes::Bytes::from(body);
        let mut patience = Patience::new(self.options.timeout);
        let sent = self
            .insist(&mut patience, || {
                let mut request = self
                    .http
                    .post(format!("{}/v1/pools/{}/jobs", self.gateway, self.options.pool))
                    .query(&[("id", id.as_str())])
                    .header("content-type", &file.media_type)
                    .body(body.clone());
                if let Some(class) = self.options.class {
                    request = request.query(&[("class", class.as_str())]);
                }
                if let Some(deadline) = self.options.deadline {
                    request = request.query(&[("deadline", deadline.to_string())]);
                }
                request
            })
            .await?;
        if !sent.status().is_success() {
            return Err(told(sent, "refused").await);
        }
        self.result_of(id, &mut patience).await
    }

    async fn result_of(&self, id: &JobId, patience: &mut Patience) -> Result<Answer, Failure> {
        loop {
            let wait = patience.left().min(LONG_POLL);
            let asked = Instant::now();
            let request = || {
                let wait = Period::new(Duration::from_millis(wait.as_millis() as u64)).to_string();
                self.http.get(format!("{}/v1/jobs/{id}/result", self.gateway)).query(&[("wait", wait)])
            };
            let response = self.insist(patience, request).await?;
            if response.status() == StatusCode::OK {
                return answer(response).await;
            }
            let not_ended = response.status() == StatusCode::CONFLICT;
            let told = told(response, "failed").await;
            if !not_ended {
                return Err(told);
            }
            // A gateway that is stopping does not hold the answer back: asking it at once again would only be a load.
            let hurried = asked.elapsed() < wait / 2;
            if patience.left().is_zero() || hurried && !patience.pause().await {
                let timeout = Period::new(self.options.timeout);
                let reason = format!("the job is {} after {timeout}; its result may still come", told.state);
                return Err(failure("timeout", reason));
            }
        }
    }

    /// Sends a request until it is answered by something else than "not now".
    async fn insist(&self, patience: &mut Patience, request: impl Fn() -> RequestBuilder) -> Result<Response, Failure> {
        loop {
            let timeout = (patience.left() + GRACE).min(ANSWER);
            let trouble = match request().timeout(timeout).send().await {
                Ok(response) if is_passing(response.status()) => told(response, "timeout").await.reason,
                Ok(response) => {
                    patience.reset();
                    return Ok(response);
                }
                Err(error) if error.is_builder() => return Err(failure("refused", innermost(&error))),
                Err(error) => innermost(&error),
            };
            if !patience.pause().await {
                return Err(failure("timeout", trouble));
            }
        }
    }
}

/// Whether the same request may be answered otherwise a little later.
fn is_passing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
            | StatusCode::INSUFFICIENT_STORAGE
    )
}

async fn answer(response: Response) -> Result<Answer, Failure> {
    let media_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
    let media_type = media_type.unwrap_or_default().to_owned();
    let body = response.bytes().await.map_err(|error| failure("unreadable", innermost(&error)))?;
    Ok(Answer { media_type, body: body.to_vec() })
}

/// What a problem document says; `state` is for those that name none.
async fn told(response: Response, state: &str) -> Failure {
    let status = response.status();
    let problem: Problem = response.json().await.unwrap_or_default();
    let reason = [problem.detail, problem.title].into_iter().find(|text| !text.is_empty());
    let reason = reason.unwrap_or_else(|| format!("the gateway answered {status}"));
    failure(problem.state.as_deref().unwrap_or(state), reason)
}

fn failure(state: &str, reason: String) -> Failure {
    Failure { state: state.to_owned(), reason }
}

/// A time that runs out, and pauses that grow.
#[derive(Debug)]
struct Patience {
    until: Instant,
    pause: Duration,
}

impl Patience {
    fn new(timeout: Duration) -> Self {
        Self { until: Instant::now() + timeout, pause: FIRST_PAUSE }
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Starts again with a short pause.
    fn reset(&mut self) {
        self.pause = FIRST_PAUSE;
    }

    /// Waits a little. `false`: the time is over.
    async fn pause(&mut self) -> bool {
        tokio::time::sleep(self.pause.min(self.left())).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        !self.left().is_zero()
    }
}
