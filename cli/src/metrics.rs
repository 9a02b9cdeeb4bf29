//! The metrics of the program around its services. Each name is written here, once.

use metrics::{counter, describe_counter};
use queue::ErrorKind;

const BLOB_STORE_FAILURES: &str = "millrace_blob_store_failures_total";
const WORKER_RESTARTS: &str = "millrace_up_worker_restarts_total";

/// Registers the description of each metric.
pub(crate) fn describe() {
    describe_counter!(BLOB_STORE_FAILURES, "failed calls of the blob store, by operation and kind of error");
    describe_counter!(WORKER_RESTARTS, "workers that ended by themselves and are started again, by pool");
}

/// Counts a failed call of the blob store.
pub(crate) fn blob_store_failed(operation: &'static str, kind: ErrorKind) {
    counter!(BLOB_STORE_FAILURES, "operation" => operation, "kind" => format!("{kind:?}")).increment(1);
}

/// Counts a worker that ended by itself.
pub(crate) fn worker_restarts(pool: &str) {
    counter!(WORKER_RESTARTS, "pool" => pool.to_owned()).increment(1);
}
