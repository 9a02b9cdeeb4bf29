//! What the gateway counts. Each name is written here, once.

use std::time::Duration;

use axum::http::StatusCode;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use queue::{Body, Class, PoolName};

const REQUESTS: &str = "millrace_gateway_requests_total";
const REQUEST_SECONDS: &str = "millrace_gateway_request_seconds";
const SUBMISSIONS: &str = "millrace_gateway_submissions_total";
const INPUT_BYTES: &str = "millrace_gateway_input_bytes_total";
const WAITING: &str = "millrace_gateway_waiting_requests";
const UNCONFIRMED: &str = "millrace_gateway_unconfirmed_total";

/// Tells the recorder what the numbers mean.
pub(crate) fn describe() {
    describe_counter!(REQUESTS, "requests answered, by route and status");
    describe_histogram!(REQUEST_SECONDS, Unit::Seconds, "time to answer, waiting included, by route");
    describe_counter!(SUBMISSIONS, "submissions by pool, class and outcome (new, known, conflict)");
    describe_counter!(INPUT_BYTES, Unit::Bytes, "bytes of the inputs of new jobs, by pool");
    describe_gauge!(WAITING, "requests that wait for a job to end");
    describe_counter!(UNCONFIRMED, "published jobs that the ledger was not told of, which will be published once more");
}

/// A request was answered.
pub(crate) fn answered(route: &'static str, status: StatusCode, after: Duration) {
    counter!(REQUESTS, "route" => route, "status" => status.as_str().to_owned()).increment(1);
    histogram!(REQUEST_SECONDS, "route" => route).record(after);
}

/// The ledger answered a submission.
pub(crate) fn submitted(pool: &PoolName, class: Class, outcome: &'static str) {
    let pool = pool.as_str().to_owned();
    counter!(SUBMISSIONS, "pool" => pool, "class" => class.as_str(), "outcome" => outcome).increment(1);
}

/// A new job came with this input.
pub(crate) fn taken(pool: &PoolName, input: &Body) {
    let bytes = match input {
        Body::Inline(bytes) => bytes.len() as u64,
        Body::Reference(blob) => blob.size_bytes.unwrap_or(0),
    };
    counter!(INPUT_BYTES, "pool" => pool.as_str().to_owned()).increment(bytes);
}

/// The ledger was not told of this many published jobs.
pub(crate) fn unconfirmed(jobs: usize) {
    counter!(UNCONFIRMED).increment(jobs as u64);
}

/// A request that waits for a job to end, as long as this lives.
pub(crate) struct Waiting;

impl Waiting {
    pub(crate) fn new() -> Self {
        gauge!(WAITING).increment(1);
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        gauge!(WAITING).decrement(1);
    }
}
