//! The metrics of the scaler. Each name is written here, once.

use metrics::{Gauge, Label, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use policy::reading::Reading;
use policy::{Decision, Mode, Scaling, Terms};
use queue::PoolName;

use crate::failure::ReadFailure;

/// Gauge, by pool: the backlog in jobs (waiting, in flight or due for retry), at the last reading.
pub const BACKLOG: &str = "millrace_scaler_backlog";
/// Gauge, by pool: jobs under a worker's lease, at the last reading.
pub const LEASED: &str = "millrace_scaler_leased";
/// Gauge, by pool: the waiting time of the oldest waiting job in seconds, if the broker reports it.
pub const OLDEST_SECONDS: &str = "millrace_scaler_oldest_seconds";
/// Gauge, by pool: live workers, including loading ones, at the last reading.
pub const WORKERS: &str = "millrace_scaler_workers";
/// Gauge, by pool: workers whose model is still loading.
pub const LOADING: &str = "millrace_scaler_loading_workers";
/// Histogram: the time to read all pools, in seconds.
pub const SAMPLE_SECONDS: &str = "millrace_scaler_sample_seconds";
/// Counter, by pool and source (`ledger`, `gauge` or `roster`): failed readings.
pub const SAMPLE_FAILURES: &str = "millrace_scaler_sample_failures_total";
/// Counter, by call and gRPC code (such as `Unavailable`): answered calls.
pub const CALLS: &str = "millrace_scaler_calls_total";
/// Gauge, by pool and mode: the wanted number of workers (metric ÷ target), in the last answer.
pub const WANTED: &str = "millrace_scaler_wanted_workers";
/// Gauge, by pool: arrivals in jobs per second, in the last answer.
pub const ARRIVALS: &str = "millrace_scaler_arrivals";
/// Gauge, by pool: the arrivals in jobs per second that are expected when a worker requested now is ready.
pub const FORECAST_ARRIVALS: &str = "millrace_scaler_forecast_arrivals";
/// Gauge, by pool: the share of the arrivals that had to wait longer than the objective allows, over some hours.
pub const LATE_SHARE: &str = "millrace_scaler_late_share";
/// Gauge, by pool: the share of jobs that the trigger allows to be late.
pub const ALLOWED_LATE_SHARE: &str = "millrace_scaler_allowed_late_share";

/// Gauge, by pool: the time within which a job should end, in the last answer.
pub const OBJECTIVE_SECONDS: &str = "millrace_scaler_objective_seconds";

/// Registers the description of each metric.
pub(crate) fn describe() {
    describe_gauge!(BACKLOG, "jobs that wait, are in flight or are due for a retry, by pool");
    describe_gauge!(LEASED, "jobs under the lease of a worker, by pool");
    describe_gauge!(OLDEST_SECONDS, Unit::Seconds, "age of the oldest waiting job, by pool");
    describe_gauge!(WORKERS, "live workers, including those that load, by pool");
    describe_gauge!(LOADING, "workers that load their model, by pool");
    describe_histogram!(SAMPLE_SECONDS, Unit::Seconds, "time to read all pools once");
    describe_counter!(SAMPLE_FAILURES, "failed readings, by pool and source (ledger, gauge, roster)");
    describe_counter!(CALLS, "calls of KEDA answered, by call and gRPC code");
    describe_gauge!(WANTED, "workers in the last answer to KEDA, by pool and mode");
    describe_gauge!(ARRIVALS, "arrivals per second in the last answer, by pool");
    describe_gauge!(FORECAST_ARRIVALS, "arrivals per second when a worker requested now is ready, by pool");
    describe_gauge!(LATE_SHARE, "share of the arrivals of some hours that had to wait too long, by pool");
    describe_gauge!(ALLOWED_LATE_SHARE, "share of jobs that may be late, by pool");
    describe_gauge!(OBJECTIVE_SECONDS, Unit::Seconds, "time within which a job should end, by pool");
    describe_gauge!(STREAMS, "open streams of KEDA, by call");
}

/// The gauges of one pool, set after every reading.
pub(crate) struct PoolMetrics {
    pool: String,
    backlog: Gauge,
    leased: Gauge,
    oldest: Gauge,
    workers: Gauge,
    loading: Gauge,
}

impl PoolMetrics {
    pub(crate) fn new(pool: &PoolName) -> Self {
        let pool = pool.as_str().to_owned();
        let of_pool = |name: &'static str| gauge!(name, "pool" => pool.clone());
        Self {
            backlog: of_pool(BACKLOG),
            leased: of_pool(LEASED),
            oldest: of_pool(OLDEST_SECONDS),
            workers: of_pool(WORKERS),
            loading: of_pool(LOADING),
            pool,
        }
    }

    pub(crate) fn record(&self, reading: &Reading) {
        self.backlog.set(reading.backlog() as f64);
        self.leased.set(reading.leased as f64);
        self.oldest.set(reading.oldest_wait.unwrap_or_default().as_secs_f64());
        self.workers.set(reading.fleet.total() as f64);
        self.loading.set(reading.fleet.loading as f64);
    }

    pub(crate) fn count_failure(&self, failure: &ReadFailure) {
        counter!(SAMPLE_FAILURES, "pool" => self.pool.clone(), "source" => failure.source).increment(1);
    }
}

/// Records the decision in the answer of a call.
pub(crate) fn record_decision(pool: &PoolName, scaling: &Scaling, decision: &Decision) {
    let label = || Label::new("pool", pool.as_str().to_owned());
    if let Mode::Latency(latency) = &scaling.mode {
        gauge!(OBJECTIVE_SECONDS, vec![label()]).set(latency.objective().as_secs_f64());
        gauge!(ALLOWED_LATE_SHARE, vec![label()]).set(latency.allowed_late_share());
    }
    let (mode, arrivals) = match &decision.terms {
        Terms::Backlog(_) => ("backlog", None),
        Terms::Latency(terms) => ("latency", Some(terms.arrivals)),
        Terms::Rate(terms) => ("rate", Some(terms.arrivals)),
    };
    gauge!(WANTED, vec![label(), Label::new("mode", mode)]).set(decision.value / decision.target);
    if let Some(arrivals) = arrivals {
        gauge!(ARRIVALS, vec![label()]).set(arrivals);
    }
    if let Terms::Latency(terms) = &decision.terms {
        gauge!(FORECAST_ARRIVALS, vec![label()]).set(terms.expected_arrivals.unwrap_or(terms.arrivals));
        gauge!(LATE_SHARE, vec![label()]).set(terms.late_share);
    }
}

/// Gauge, by call: open streams.
pub const STREAMS: &str = "millrace_scaler_streams";

/// Counts an open stream until it is dropped.
pub(crate) struct OpenStream(::metrics::Gauge);

impl OpenStream {
    pub(crate) fn of(call: &'static str) -> Self {
        let gauge = ::metrics::gauge!(STREAMS, "call" => call);
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
