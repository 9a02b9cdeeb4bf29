//! A job from its submission to its result, through a gateway that may be restarted meanwhile.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

use crate::error::{Error, Refusal};
use crate::gateway::{ANSWER_TIMEOUT, Gateway, NewJob, Payload, period};

/// The longest time that one request makes the gateway wait for the end of a job.
const LONG_POLL: Duration = Duration::from_secs(20);
/// The additional time for an answer, after the time of the job is over: an answer that is on its way is still useful.
const GRACE: Duration = Duration::from_secs(2);
/// The shortest and the longest pause between attempts. Each pause is longer than the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Why a job gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NoResult {
    /// The job's state. If the state is unknown: `refused`, `timeout` or `unreadable`.
    pub state: String,
    /// The reason.
    pub reason: String,
}

impl NoResult {
    fn new(state: &str, reason: impl Into<String>) -> Self {
        Self { state: state.to_owned(), reason: reason.into() }
    }

    /// `state` is used for answers that contain no state.
    fn of(refusal: Refusal, state: &str) -> Self {
        let Refusal { reason, state: named, .. } = refusal;
        Self { state: named.unwrap_or_else(|| state.to_owned()), reason }
    }
}

impl Gateway {
    /// Waits until the gateway answers at all, for at most `timeout`.
    pub async fn reach(&self, timeout: Duration) -> Result<(), Error> {
        let mut limit = TimeLimit::new(timeout);
        loop {
            let request = self.server.request(Method::GET, self.server.path(&["livez"])).timeout(limit.left());
            match self.server.answer(request).await {
                Ok(_any_status) => return Ok(()),
                Err(error) => {
                    if error.is_permanent() || !limit.pause().await {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Submits a job and waits for its result, for at most `timeout`. Requests that fail on the way are repeated under
    /// the same `id`, so the job runs once.
    pub async fn run(&self, id: &str, job: &NewJob, timeout: Duration) -> Result<Payload, NoResult> {
        let mut limit = TimeLimit::new(timeout);
        let submitted = self.repeat(&mut limit, || self.submission(Some(id), job)).await?;
        if !submitted.status().is_success() {
            return Err(NoResult::of(*self.server.refused(submitted).await, "refused"));
        }
        self.wait_for_result(id, &mut limit).await
    }

    /// Waits for the end of a job, for at most `timeout`. Returns its status document. Requests that fail on the way are
    /// repeated.
    pub async fn ended(&self, id: &str, timeout: Duration) -> Result<Value, NoResult> {
        let mut limit = TimeLimit::new(timeout);
        loop {
            let (wait, sent) = (limit.long_poll(), Instant::now());
            let request = || {
                let request = self.server.request(Method::GET, self.job_url(id, None));
                request.query(&[("wait", period(wait))])
            };
            let response = self.repeat(&mut limit, request).await?;
            if !response.status().is_success() {
                return Err(NoResult::of(*self.server.refused(response).await, "refused"));
            }
            let bytes = response.bytes().await.map_err(|error| NoResult::new("unreadable", error.to_string()))?;
            let job: Value = serde_json::from_slice(&bytes)
                .map_err(|error| NoResult::new("unreadable", self.server.unreadable(error.to_string()).to_string()))?;
            if job["finished_at"].is_string() {
                return Ok(job);
            }
            if !limit.allows_another(wait, sent).await {
                let state = job["state"].as_str().unwrap_or("open");
                return Err(NoResult::new("timeout", format!("job {id} is {state} after {timeout:?}")));
            }
        }
    }

    async fn wait_for_result(&self, id: &str, limit: &mut TimeLimit) -> Result<Payload, NoResult> {
        loop {
            let (wait, sent) = (limit.long_poll(), Instant::now());
            let request = || {
                let request = self.server.request(Method::GET, self.job_url(id, Some("result")));
                request.query(&[("wait", period(wait))])
            };
            let response = self.repeat(limit, request).await?;
            if response.status() == StatusCode::OK {
                let payload = self.payload(response).await;
                return payload.map_err(|error| NoResult::new("unreadable", error.innermost()));
            }
            let has_ended = response.status() != StatusCode::CONFLICT;
            let refused = NoResult::of(*self.server.refused(response).await, "failed");
            if has_ended {
                return Err(refused);
            }
            if !limit.allows_another(wait, sent).await {
                let (state, timeout) = (refused.state, limit.timeout);
                let reason = format!("the job is {state} after {timeout:?}; its result may still come");
                return Err(NoResult::new("timeout", reason));
            }
        }
    }

    /// Sends a request until the answer is neither an error of the connection nor a temporary refusal.
    async fn repeat(&self, limit: &mut TimeLimit, request: impl Fn() -> RequestBuilder) -> Result<Response, NoResult> {
        loop {
            let timeout = (limit.left() + GRACE).min(ANSWER_TIMEOUT);
            let reason = match self.server.answer(request().timeout(timeout)).await {
                Ok(response) if is_temporary(response.status()) => self.server.refused(response).await.reason,
                Ok(response) => {
                    limit.reset_pause();
                    return Ok(response);
                }
                Err(error) if error.is_permanent() => return Err(NoResult::new("refused", error.innermost())),
                Err(error) => error.innermost(),
            };
            if !limit.pause().await {
                return Err(NoResult::new("timeout", reason));
            }
        }
    }
}

/// Whether the same request may have another answer a little later.
fn is_temporary(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
            | StatusCode::INSUFFICIENT_STORAGE
    )
}

/// A deadline, and pauses that become longer.
#[derive(Debug)]
struct TimeLimit {
    until: Instant,
    timeout: Duration,
    pauses: ExponentialBackoff,
}

impl TimeLimit {
    fn new(timeout: Duration) -> Self {
        Self { until: Instant::now() + timeout, timeout, pauses: pauses() }
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// The time that the next request makes the gateway wait.
    fn long_poll(&self) -> Duration {
        Duration::from_millis(self.left().min(LONG_POLL).as_millis() as u64)
    }

    /// Whether there is time for another request, after one that was sent at `sent` and should have waited for `wait`. A
    /// gateway that is stopping answers at once. Without a pause the next request would only be load.
    async fn allows_another(&mut self, wait: Duration, sent: Instant) -> bool {
        let answered_early = sent.elapsed() < wait / 2;
        !self.left().is_zero() && (!answered_early || self.pause().await)
    }

    fn reset_pause(&mut self) {
        self.pauses = pauses();
    }

    /// Waits for the next pause. Returns `false` if the deadline has passed.
    async fn pause(&mut self) -> bool {
        let pause = self.pauses.next().unwrap_or(LONGEST_PAUSE);
        tokio::time::sleep(pause.min(self.left())).await;
        !self.left().is_zero()
    }
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::new().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE).without_max_times().build()
}
