//! The metrics of the gateway. Each name is written here, once.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use queue::{Body, Class, PoolName};

const REQUESTS: &str = "millrace_gateway_requests_total";
const REQUEST_SECONDS: &str = "millrace_gateway_request_seconds";
const SUBMISSIONS: &str = "millrace_gateway_submissions_total";
const INPUT_BYTES: &str = "millrace_gateway_input_bytes_total";
const WAITING: &str = "millrace_gateway_waiting_requests";
const UNCONFIRMED: &str = "millrace_gateway_unconfirmed_total";

/// Registers the description of each metric.
pub(crate) fn describe() {
    describe_counter!(REQUESTS, "requests answered, by route and status");
    describe_histogram!(REQUEST_SECONDS, Unit::Seconds, "time to answer, waiting included, by route");
    describe_counter!(SUBMISSIONS, "submissions by pool, class and outcome (new, known, conflict)");
    describe_counter!(INPUT_BYTES, Unit::Bytes, "bytes of the inputs of new jobs, by pool");
    describe_gauge!(WAITING, "requests that wait for a job to end");
    describe_counter!(UNCONFIRMED, "published jobs that the ledger has not recorded as published; upkeep repeats them");
}

/// Counts an answered request.
pub(crate) fn answered(route: &str, status: u16, after: Duration) {
    counter!(REQUESTS, "route" => route.to_owned(), "status" => status.to_string()).increment(1);
    histogram!(REQUEST_SECONDS, "route" => route.to_owned()).record(after);
}

/// Counts a submission, by the ledger's answer.
pub(crate) fn submitted(pool: &PoolName, class: Class, outcome: &'static str) {
    let pool = pool.as_str().to_owned();
    counter!(SUBMISSIONS, "pool" => pool, "class" => class.as_str(), "outcome" => outcome).increment(1);
}

/// Counts the bytes of the input of a new job.
pub(crate) fn input_bytes(pool: &PoolName, input: &Body) {
    let bytes = match input {
        Body::Inline(bytes) => bytes.len() as u64,
        Body::Reference(blob) => blob.size_bytes.unwrap_or(0),
    };
    counter!(INPUT_BYTES, "pool" => pool.as_str().to_owned()).increment(bytes);
}

/// Counts published jobs that the ledger has not recorded as published.
pub(crate) fn unconfirmed(jobs: usize) {
    counter!(UNCONFIRMED).increment(jobs as u64);
}

/// Counts one request as waiting until it is dropped.
pub(crate) struct WaitingRequest;

impl WaitingRequest {
    pub(crate) fn new() -> Self {
        gauge!(WAITING).increment(1);
        Self
    }
}

impl Drop for WaitingRequest {
    fn drop(&mut self) {
        gauge!(WAITING).decrement(1);
    }
}
