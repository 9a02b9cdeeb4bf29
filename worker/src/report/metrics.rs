//! The names of this crate's metrics, each written once.

use metrics::{counter, histogram};

/// Counts jobs that ended in this worker, by outcome.
pub(crate) fn jobs_ended(pool: &str, outcome: &'static str, jobs: u64) {
    counter!("millrace_worker_jobs_total", "pool" => pool.to_owned(), "outcome" => outcome).increment(jobs);
}

/// Records the run of one batch. If the batch failed, this includes the runs of its halves.
pub(crate) fn batch_ran(pool: &str, items: usize, seconds: f64) {
    histogram!("millrace_worker_batch_items", "pool" => pool.to_owned()).record(items as f64);
    histogram!("millrace_worker_batch_seconds", "pool" => pool.to_owned()).record(seconds);
}

/// Records the cold start: the time from the start of the process until the worker was ready.
pub(crate) fn became_ready(pool: &str, seconds: f64) {
    metrics::gauge!("millrace_worker_cold_start_seconds", "pool" => pool.to_owned()).set(seconds);
}
