//! The metrics of a worker. Each name is written here, once.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const JOBS: &str = "millrace_worker_jobs_total";
const REDELIVERED: &str = "millrace_worker_redelivered_total";
const REQUEST_SECONDS: &str = "millrace_inference_request_duration_seconds";
const QUEUE_SECONDS: &str = "millrace_worker_queue_seconds";
const PREPARE_SECONDS: &str = "millrace_worker_prepare_seconds";
const BATCH_ITEMS: &str = "millrace_worker_batch_items";
const BATCH_SECONDS: &str = "millrace_worker_batch_seconds";
const SETTLE_SECONDS: &str = "millrace_worker_settle_seconds";
const COLD_START_SECONDS: &str = "millrace_worker_cold_start_seconds";
const COLD_START_PHASE_SECONDS: &str = "millrace_worker_cold_start_phase_seconds";

/// Registers the description of each metric.
pub(crate) fn describe() {
    describe_counter!(JOBS, "jobs that this worker settled, by pool and outcome");
    describe_counter!(REDELIVERED, "deliveries that a worker may have had before, by pool");
    describe_histogram!(REQUEST_SECONDS, Unit::Seconds, "arrival of a job to its end, by pool and outcome");
    describe_histogram!(QUEUE_SECONDS, Unit::Seconds, "time from the arrival of a job to its first claim, by pool");
    describe_histogram!(PREPARE_SECONDS, Unit::Seconds, "time to prepare an input, by pool");
    describe_histogram!(BATCH_ITEMS, "items in a batch, by pool");
    describe_histogram!(BATCH_SECONDS, Unit::Seconds, "time of a batch, by pool; of a failed one with its halves");
    describe_histogram!(SETTLE_SECONDS, Unit::Seconds, "time to write and settle a round of results, by pool");
    describe_gauge!(COLD_START_SECONDS, Unit::Seconds, "start of the process until it is ready, by pool");
    describe_gauge!(COLD_START_PHASE_SECONDS, Unit::Seconds, "parts of the cold start, by pool and phase");
}

/// Counts jobs that ended in this worker, by outcome.
pub(crate) fn jobs_ended(pool: &str, outcome: &'static str, jobs: u64) {
    counter!(JOBS, "pool" => pool.to_owned(), "outcome" => outcome).increment(jobs);
}

/// Counts deliveries that a worker may have had before.
pub(crate) fn redelivered(pool: &str, deliveries: usize) {
    counter!(REDELIVERED, "pool" => pool.to_owned()).increment(deliveries as u64);
}

/// Records the time from the arrival of a job to its end.
pub(crate) fn request_ended(pool: &str, outcome: &'static str, after: Duration) {
    histogram!(REQUEST_SECONDS, "pool" => pool.to_owned(), "outcome" => outcome).record(after);
}

/// Records the time from the arrival of a job to its first claim.
pub(crate) fn first_claimed(pool: &str, after: Duration) {
    histogram!(QUEUE_SECONDS, "pool" => pool.to_owned()).record(after);
}

/// Records the time to prepare an input.
pub(crate) fn prepared(pool: &str, after: Duration) {
    histogram!(PREPARE_SECONDS, "pool" => pool.to_owned()).record(after);
}

/// Records the run of one batch. If the batch failed, this includes the runs of its halves.
pub(crate) fn batch_ran(pool: &str, items: usize, seconds: f64) {
    histogram!(BATCH_ITEMS, "pool" => pool.to_owned()).record(items as f64);
    histogram!(BATCH_SECONDS, "pool" => pool.to_owned()).record(seconds);
}

/// Records a round of results that were written and settled together.
pub(crate) fn settled(pool: &str, after: Duration) {
    histogram!(SETTLE_SECONDS, "pool" => pool.to_owned()).record(after);
}

/// Records the cold start: the time from the start of the process until the worker was ready.
pub(crate) fn became_ready(pool: &str, seconds: f64) {
    gauge!(COLD_START_SECONDS, "pool" => pool.to_owned()).set(seconds);
}

/// Records a part of the cold start. With several instances, the last one that loads counts.
pub(crate) fn cold_start_phase(pool: &str, phase: &'static str, seconds: f64) {
    gauge!(COLD_START_PHASE_SECONDS, "pool" => pool.to_owned(), "phase" => phase).set(seconds);
}
