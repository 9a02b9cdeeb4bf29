//! The names of this crate's metrics.

/// Gauge, by pool: jobs that wait, are in flight or await a retry, as last read.
pub const BACKLOG: &str = "millrace_scaler_backlog";
/// Gauge, by pool: jobs under a worker's lease, as last read.
pub const LEASED: &str = "millrace_scaler_leased";
/// Gauge, by pool: workers alive, those that load included, as last read.
pub const WORKERS: &str = "millrace_scaler_workers";
/// Histogram, by pool: how long one reading took, in seconds.
pub const SAMPLE_SECONDS: &str = "millrace_scaler_sample_seconds";
/// Counter, by pool and source (`ledger`, `gauge` or `roster`): readings that failed.
pub const SAMPLE_FAILURES: &str = "millrace_scaler_sample_failures_total";
/// Counter, by call and code (gRPC's, as in `Unavailable`): calls answered.
pub const CALLS: &str = "millrace_scaler_calls_total";
